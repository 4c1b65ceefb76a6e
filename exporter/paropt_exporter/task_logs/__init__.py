"""The whole output of each attempt, kept in one file a run: written as it comes, read by the command `log`."""

from paropt_exporter.task_logs.folder import LogFolder as LogFolder
from paropt_exporter.task_logs.folder import LogLimits as LogLimits
from paropt_exporter.task_logs.folder import find_log_folder as find_log_folder
from paropt_exporter.task_logs.writing import TaskLogs as TaskLogs
