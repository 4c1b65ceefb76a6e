"""Commands in slots: the side of the process that owns them. The other side is `pool.supervisor`."""

from paropt_exporter.executors.commands.command_pool import CommandOutcome as CommandOutcome
from paropt_exporter.executors.commands.command_pool import CommandPool as CommandPool
