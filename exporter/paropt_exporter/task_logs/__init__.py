"""The whole output of each attempt, in one file per run: written as it arrives, read by the command `log`."""

from paropt_exporter.task_logs.log_writer import LogFolder as LogFolder
from paropt_exporter.task_logs.log_writer import LogLimits as LogLimits
from paropt_exporter.task_logs.log_writer import TaskLogs as TaskLogs
from paropt_exporter.task_logs.log_writer import find_log_folder as find_log_folder
