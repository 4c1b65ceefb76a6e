"""One executor over threads and processes that finds out where each function belongs."""

from paropt_exporter.pool.adaptive.pool import AdaptivePool as AdaptivePool
from paropt_exporter.pool.adaptive.routing import Router as Router
from paropt_exporter.pool.adaptive.routing import thread_only as thread_only
