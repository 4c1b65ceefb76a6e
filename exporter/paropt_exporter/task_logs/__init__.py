"""The whole output of each attempt, kept in one file a run: written as it comes, read by the command `log`."""

from paropt_exporter.task_logs.log_writer import LogFolder as LogFolder
from paropt_exporter.task_logs.log_writer import LogLimits as LogLimits
from paropt_exporter.task_logs.log_writer import TaskLogs as TaskLogs
from paropt_exporter.task_logs.log_writer import find_log_folder as find_log_folder
