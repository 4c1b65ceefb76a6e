"""An executor of processes: the side of the process that owns it. The other side is `pool.worker`."""

from paropt_exporter.pool.processes.pool import ProcessPool as ProcessPool
