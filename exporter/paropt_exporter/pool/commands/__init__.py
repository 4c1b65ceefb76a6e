"""Commands in slots: the side of the process that owns them. The other side is `pool.guardian`."""

from paropt_exporter.pool.commands.pool import CommandOutcome as CommandOutcome
from paropt_exporter.pool.commands.pool import CommandPool as CommandPool
