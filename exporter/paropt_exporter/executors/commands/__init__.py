"""A pool that runs commands. The supervisor process (`executors.supervisor`) starts and reaps them."""

from paropt_exporter.executors.commands.command_pool import CommandOutcome as CommandOutcome
from paropt_exporter.executors.commands.command_pool import CommandPool as CommandPool
