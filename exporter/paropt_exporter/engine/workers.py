"""The pools of a process as the engine sees them: where each task runs, how large each pool is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from paropt_exporter import host
from paropt_exporter.engine.outcome import Outcome, of_future
from paropt_exporter.errors import TaskStopped
from paropt_exporter.plan import COMMANDS, PROCESSES, THREADS, Call, Commands, Plan, PlannedStage, PlannedTask
from paropt_exporter.pool.adaptive.memory import recall, remember
from paropt_exporter.pool.adaptive.routing import FULL_LOCK_CORES, Router
from paropt_exporter.pool.calls import run_call
from paropt_exporter.pool.commands import CommandPool
from paropt_exporter.pool.future import TaskFuture
from paropt_exporter.pool.processes import ProcessPool
from paropt_exporter.pool.slots import Use, use_of
from paropt_exporter.pool.threads import ThreadPool
from paropt_exporter.records import PoolStatistics, PoolUse, RunningTask, Strategy

Pool: TypeAlias = ThreadPool | ProcessPool | CommandPool
_ROUTED = (Strategy.HYBRID, Strategy.ADAPTIVE)


@dataclass(frozen=True, slots=True)
class PoolRunning:
    """One attempt in one of the pools."""

    pool: str
    label: str
    future: Future[object]
    _stop: Callable[[float], object]

    @property
    def started_seconds(self) -> float | None:
        return cast("TaskFuture[object]", self.future).started_seconds

    def stop(self, grace_seconds: float) -> None:
        self._stop(grace_seconds)

    def outcome(self) -> Outcome:
        return of_future(self.future)


@dataclass(slots=True)
class _Use:
    """A pool's sizes in this run, and its worker time: when the run began, and when its last task had ended."""

    start: int
    peak: int
    reason: str
    began: Use
    rested: Use | None = None
    running: set[Future[object]] = field(default_factory=set)


class PoolWorkers:
    """The pools of this process, made when a plan first needs them and kept from run to run.

    ```
    Commands -> commands            Call -> threads | processes, by the lane's strategy and the router
    ```
    Guarantees: a pool lives until `close`, so its counters only grow; `prepare`, `start` and `resize` are for the
    thread that runs the plan or controls it; `statistics` and `running` may be called from any.
    """

    def __init__(self, memory: Path | None = None) -> None:
        """Make no pool yet. `memory`: a file with what was learned of calls before; read now, written by `close`."""
        self._memory = memory
        self._remembered = recall(memory) if memory is not None else ()
        self._lock = threading.Lock()  # guards: _pools and _uses against other threads
        self._pools: dict[str, Pool] = {}
        self._uses: dict[str, _Use] = {}
        self._plan: Plan | None = None
        self._router = Router(Strategy.THREAD)
        self._routers: dict[str, Router] = {}
        self._size = 1
        self._tasks: Mapping[str, int] | None = None
        self._reason = "start"

    def prepare(self, plan: Plan, size: int) -> None:
        """Bring the pools that `plan` needs to the size that it starts with."""
        self._plan, self._size, self._reason, self._tasks = plan, size, "plan", None
        if plan.lane not in self._routers:
            self._routers[plan.lane] = Router(plan.strategy)
            self._routers[plan.lane].recall(self._remembered)
        self._router = self._routers[plan.lane]
        with self._lock:
            self._uses.clear()
        for name in pools_of(plan):
            if name in self._pools or not self._is_optional(name):
                self._pool(name)

    def share(self, size: int, reason: str, tasks: Mapping[str, int] | None = None) -> tuple[tuple[str, int, int], ...]:
        """Set the pools' targets for a lane of `size`; return (pool, old, new) for each that changed.

        `tasks`: how many of the lane's tasks are for each pool; None: any number for any. No pool gets more workers
        than it has tasks in the plan. Never interrupts running tasks.
        """
        self._size, self._reason, self._tasks = size, reason, tasks
        changed = []
        for name in tuple(self._uses):
            old, new = self._pools[name].target, self._share_of(name)
            if old != new:
                self._resize(name, new, reason)
                changed.append((name, old, new))
        return tuple(changed)

    def shares(self, size: int) -> Mapping[str, int]:
        """Return what each pool of the plan would get of a lane of `size`."""
        plan = self._plan
        return {name: min(size, _tasks_for(plan, name)) for name in pools_of(plan)} if plan else {}

    def rest(self, size: int) -> None:
        """Give back workers that only the run needed."""
        for name, pool in tuple(self._pools.items()):
            if pool.target > size:
                self._resize(name, size, "bounds")

    def close(self) -> None:
        """Shut all pools down; does not wait for threads that were given up."""
        for pool in tuple(self._pools.values()):
            pool.shutdown(wait=False, cancel_futures=True)
        learned = [profile for router in self._routers.values() for profile in router.profiles()]
        if self._memory is not None and learned:
            remember(self._memory, learned)

    # What the engine asks.

    def start(self, stage: PlannedStage, task: PlannedTask, label: str) -> PoolRunning:
        if isinstance(task.work, Commands):
            return self._start_commands(stage, task.work, label)
        return self._start_call(task.work, label)

    def _count(self, name: str, future: Future[object]) -> None:
        """Count a task into its pool's use until it has ended."""
        with self._lock:
            use = self._uses[name]
            use.running.add(future)
            use.rested = None
        future.add_done_callback(lambda done: self._end(self._pools[name], use, done))

    def _end(self, pool: Pool, use: _Use, future: Future[object]) -> None:
        with self._lock:
            use.running.discard(future)
            self._note_rest(pool, use)

    def _note_rest(self, pool: Pool, use: _Use) -> None:
        """Note the worker time of a pool that has no task left, once; under the lock."""
        if not use.running and use.rested is None:
            use.rested = use_of(pool)

    def pool_of(self, stage: PlannedStage, task: PlannedTask) -> str:
        del stage
        return COMMANDS if isinstance(task.work, Commands) else self._router.choose(task.work.target)

    def size(self, pool: str) -> int:
        return self._pool(pool).target

    def running(self) -> tuple[RunningTask, ...]:
        with self._lock:
            pools = tuple(self._pools.values())
        return tuple(task for pool in pools for task in pool.running())

    def use(self) -> tuple[PoolUse, ...]:
        """Return how each pool fared since the run began, its worker time until its last task ended."""
        with self._lock:
            return tuple(self._used(name, use) for name, use in self._uses.items())

    def _used(self, name: str, use: _Use) -> PoolUse:
        pool = self._pools[name]
        use.running = {future for future in use.running if not future.done()}
        self._note_rest(pool, use)
        until = use_of(pool) if use.rested is None else use.rested
        return PoolUse(
            name=name,
            start_size=use.start,
            peak_size=use.peak,
            reason=use.reason,
            busy_seconds=until.busy_seconds - use.began.busy_seconds,
            slot_seconds=until.slot_seconds - use.began.slot_seconds,
        )

    def gil_bound(self, stage: str) -> bool:
        plan = self._plan
        targets = {
            task.work.target
            for planned in (plan.stages if plan else ())
            if planned.name == stage
            for task in planned.tasks
            if isinstance(task.work, Call)
        }
        return any(self._router.gil_bound(target) for target in targets)

    def abandoned(self) -> tuple[str, ...]:
        threads = self._pools.get(THREADS)
        return threads.abandoned if isinstance(threads, ThreadPool) else ()

    def statistics(self) -> tuple[PoolStatistics, ...]:
        """Return a snapshot of each pool there is; from any thread."""
        with self._lock:
            pools = tuple(self._pools.values())
        return tuple(pool.statistics() for pool in pools)

    # Below: which pool, and how a task gets into it.

    def _start_commands(self, stage: PlannedStage, work: Commands, label: str) -> PoolRunning:
        pool = cast("CommandPool", self._pool(COMMANDS))
        future = pool.submit_commands(
            label, work.steps, cwd=stage.cwd, env={**os.environ, **stage.env}, output_file=stage.output_file
        )
        anything = cast("Future[object]", future)
        self._count(COMMANDS, anything)
        return PoolRunning(COMMANDS, label, anything, lambda grace: pool.stop(future, grace_seconds=grace))

    def _start_call(self, work: Call, label: str) -> PoolRunning:
        name = self._router.choose(work.target)
        pool = cast("ThreadPool | ProcessPool", self._pool(name))
        root = str(self._plan.root) if self._plan else ""
        before = pool.statistics().cpu_seconds
        future = pool.submit_named(label, run_call, root, work.target, work.arguments)
        anything = cast("Future[object]", future)
        self._count(name, anything)
        future.add_done_callback(lambda done: self._learn(work.target, cast("TaskFuture[object]", done), pool, before))
        stopped = TaskStopped(f"{label} was stopped")
        return PoolRunning(name, label, anything, lambda grace: pool.stop(future, stopped, grace_seconds=grace))

    def _learn(self, target: str, future: TaskFuture[Any], pool: Pool, cpu_seconds_before: float) -> None:
        measured = future.measurement
        if measured is None:
            return
        concurrent = 1
        if isinstance(pool, ThreadPool):  # in processes nobody fights for one interpreter's lock
            used = pool.statistics().cpu_seconds - cpu_seconds_before
            wall = measured.ended_seconds - measured.started_seconds
            if used >= FULL_LOCK_CORES * (wall - measured.run_delay_seconds):
                concurrent = pool.busy + 1  # its own task has left the pool by now
        self._router.learn(target, measured, concurrent=concurrent)

    def _is_optional(self, name: str) -> bool:
        """Whether a pool is only made once a task is routed to it: a routed lane may never need processes."""
        return name == PROCESSES and self._plan is not None and self._plan.strategy in _ROUTED

    def _pool(self, name: str) -> Pool:
        if name not in self._pools:
            made = _make(name, self._share_of(name))
            with self._lock:
                self._pools[name] = made
        if name not in self._uses:
            self._resize(name, self._share_of(name), self._reason)
        return self._pools[name]

    def _share_of(self, name: str) -> int:
        if self._plan is None:
            return 1
        most = min(self._size, _tasks_for(self._plan, name))
        if self._tasks is not None:
            return max(1, min(most, self._tasks.get(name, 1)))
        # Until the controller has looked, a routed call that computes may find as many processes as there are cores.
        return min(most, host.workers()) if self._is_optional(name) and not self._plan.workers.fixed else most

    def _resize(self, name: str, size: int, reason: str) -> None:
        pool = self._pools[name]
        if pool.target != size:
            pool.resize(size, reason=reason)
        use = self._uses.get(name)
        if use is not None:
            use.peak, use.reason = max(use.peak, size), reason
            return
        began = use_of(pool)
        with self._lock:
            self._uses[name] = _Use(size, size, reason, began, rested=began)  # it rests until its first task


def pools_of(plan: Plan) -> tuple[str, ...]:
    """Return the names of the pools that a plan's tasks may run on."""
    names = {stage.pool for stage in plan.stages}
    if plan.strategy in _ROUTED and names & {THREADS, PROCESSES}:
        names |= {THREADS, PROCESSES}
    return tuple(sorted(names))


def _tasks_for(plan: Plan, pool: str) -> int:
    """Return how many tasks of the plan may be in `pool` at once, at least 1: more workers could never be busy."""
    calls = pool in (THREADS, PROCESSES) and plan.strategy in _ROUTED
    fits = [stage for stage in plan.stages if stage.pool == pool or (calls and stage.pool != COMMANDS)]
    return max(1, sum(len(stage.tasks) for stage in fits))


def _make(name: str, size: int) -> Pool:
    if name == COMMANDS:
        return CommandPool(size)
    if name == PROCESSES:
        return ProcessPool(size)
    return ThreadPool(size, thread_name_prefix="paropt-threads")
