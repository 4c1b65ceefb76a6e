"""An executor of threads."""

from paropt_exporter.executors.threads.pool import ThreadPool as ThreadPool
