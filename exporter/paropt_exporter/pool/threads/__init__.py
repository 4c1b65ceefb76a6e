"""An executor of threads."""

from paropt_exporter.pool.threads.pool import ThreadPool as ThreadPool
