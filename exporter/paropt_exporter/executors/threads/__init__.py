"""An executor of threads."""

from paropt_exporter.executors.threads.thread_pool import ThreadPool as ThreadPool
