"""The pools on which a plan's tasks may run, and how large each of them may be in a lane of some size."""

from __future__ import annotations

from collections.abc import Mapping

from paropt_exporter import host
from paropt_exporter.events import Strategy
from paropt_exporter.plan import CALL_POOLS, DASK, PROCESSES, Plan, PlannedStage

# with dask, this is for the calls of stages with `local: true`
_ROUTED = (Strategy.HYBRID, Strategy.ADAPTIVE, Strategy.DASK)


def get_pool_names(plan: Plan) -> tuple[str, ...]:
    """Return the names of the pools on which a plan's tasks may run."""
    names = {stage.pool for stage in plan.stages}
    if plan.strategy in _ROUTED and names & CALL_POOLS:
        names |= CALL_POOLS
    return tuple(sorted(names))


class PoolSizes:
    """The sizes that the pools of one plan may have. No pool gets more workers than it may have tasks at once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.pools = get_pool_names(plan)
        stages = {name: _list_stages_for(plan, name) for name in self.pools}
        self._most = {name: max(1, sum(len(stage.tasks) for stage in own)) for name, own in stages.items()}
        self._tasks_by_slots = {  # by pool: (slots, tasks) of its stages, with the fewest slots first
            name: tuple(sorted((stage.slots, len(stage.tasks)) for stage in own)) for name, own in stages.items()
        }
        # the lane's size is the cluster's; pools on this host are bounded by its own cores
        if plan.strategy is Strategy.DASK:
            here = self._most.keys() - {DASK}
            self._most |= {name: min(self._most[name], host.count_cpu_workers()) for name in here}

    def is_optional(self, name: str) -> bool:
        """Return whether the pool is created only when a task is routed to it: a lane may never need processes."""
        return name == PROCESSES and self._plan.strategy in _ROUTED

    def get_pool_sizes(self, size: int) -> dict[str, int]:
        """Return how many slots of a lane of `size` the tasks of each pool could take."""
        widest = {name: max((slots for slots, _ in self._tasks_by_slots[name]), default=1) for name in self.pools}
        return {name: min(size, self._most[name] * widest[name]) for name in self.pools}

    def get_target(self, name: str, size: int, tasks: Mapping[str, int] | None) -> int:
        """Return the target of a pool in a lane of `size`.

        `tasks`: how many of the lane's tasks each pool gets; None: any number.
        """
        most = self._count_busy_workers(name, size)
        return most if tasks is None else max(1, min(most, tasks.get(name, 1)))

    def count_first_tasks(self, size: int) -> dict[str, int]:
        """Return how many tasks each pool gets until the controller knows their demands: of routed calls that compute,
        as many as there are cores.
        """
        cores = host.count_cpu_workers()
        return {name: min(size, cores) if self.is_optional(name) else size for name in self.pools}

    def _count_busy_workers(self, name: str, size: int) -> int:
        """Return how many workers of a pool can be busy in a lane of `size` slots, at least 1."""
        if name == DASK:  # its size is in slots, since the cluster places tasks that take several
            return max(1, min(size, sum(slots * tasks for slots, tasks in self._tasks_by_slots[name])))
        count = 0
        for slots, tasks in self._tasks_by_slots[name]:
            fit = min(tasks, size // slots)
            count, size = count + fit, size - fit * slots
        return max(1, min(count, self._most[name]))


def _list_stages_for(plan: Plan, pool: str) -> tuple[PlannedStage, ...]:
    """Return the stages of the plan whose tasks may be in `pool`."""
    pools = CALL_POOLS if pool in CALL_POOLS and plan.strategy in _ROUTED else {pool}
    return tuple(stage for stage in plan.stages if stage.pool in pools)
