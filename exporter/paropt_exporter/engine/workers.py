"""The pools of a process for the engine: the pool of each task, and the size of each pool."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import descriptors
from paropt_exporter.engine.outcome import Outcome, read_future
from paropt_exporter.engine.pool_sizes import PoolSizes
from paropt_exporter.engine.pool_uses import PoolUses
from paropt_exporter.environment import copy_environment
from paropt_exporter.errors import TaskStopped, join_names, renew
from paropt_exporter.events import PoolStatistics, PoolUse, RunningTask, Scope
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.base import REPORT_PATH, RemoteTaskOptions
from paropt_exporter.executors.commands.command_pool import CommandPool
from paropt_exporter.executors.commands.output import RAW_BYTES, Capture, OutputFile, OutputSink
from paropt_exporter.executors.commands.supervisor_client import SUPERVISOR
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.worker.orphans import Orphans
from paropt_exporter.plan import (
    CALL_POOLS,
    COMMANDS,
    DASK,
    PROCESSES,
    THREADS,
    Call,
    Commands,
    Plan,
    PlannedStage,
    PlannedTask,
)
from paropt_exporter.plan.stage_environment import build_command_environment

if TYPE_CHECKING:
    from paropt_exporter.engine.call_routing import CallRouting
    from paropt_exporter.engine.temporary_folder import TemporaryFolder
    from paropt_exporter.executors.base import CallPool, RemotePool, WorkerPool
    from paropt_exporter.executors.calls import CallOutcome
    from paropt_exporter.executors.processes.executor import ProcessPool
    from paropt_exporter.executors.thread_calls import ThreadCalls

log = logging.getLogger(__name__)

_OUTPUT_CHUNK_BYTES = 1 << 16
_WORKERS_END_SECONDS = 3.0  # an idle worker exits within 50 ms, unless an exit handler of a call takes longer


class ItemBatch(Struct, frozen=True, kw_only=True):
    """The items of an attempt, and the file for its runner's report (None: no report was requested)."""

    items: tuple[str, ...]
    report: Path | None
    alone: bool


class PoolAttempt(Struct, frozen=True):
    """One attempt in one of the pools."""

    pool: str
    label: str
    future: TaskFuture[Any]
    _stop: Callable[[float], object]
    _give_up: Callable[[], object] | None = None
    batch: ItemBatch | None = None

    @property
    def started_seconds(self) -> float | None:
        return self.future.started_seconds

    def stop(self, grace_seconds: float) -> None:
        self._stop(grace_seconds)

    def give_up(self) -> None:
        if self._give_up is not None:
            self._give_up()

    def outcome(self) -> Outcome:
        outcome, batch = read_future(self.future), self.batch
        if batch is None:
            return outcome
        from paropt_exporter.engine import item_results  # here: it parses XML, which few stages report

        return item_results.add_item_results(outcome, batch.items, batch.report, alone=batch.alone)


class _RunState:
    """The pools' view of a plan's run. `size`, `reason` and `tasks` are those of the last resize."""

    def __init__(self, plan: Plan, size: int) -> None:
        self.plan = plan
        self.sizes = PoolSizes(plan)
        self.size = size
        self.reason = "plan"
        self.tasks: Mapping[str, int] | None = None
        self.lacks_processes = False  # whether the system has refused a process pool
        self.attempts: Counter[str] = Counter()  # started attempts, by the label of their task
        # None if tasks can change it
        self.own_environment = None if THREADS in self.sizes.pools else copy_environment()
        self.environments: dict[str, Mapping[str, str]] = {}  # of commands, by stage
        self.output_files: dict[str, OutputFile] = {}  # by stage

    def get_pool_target(self, name: str) -> int:
        return self.sizes.get_target(name, self.size, self.tasks)


class OutputLogs(Protocol):
    """Keeps the output of commands."""

    def open_sink(self, stage: str, task: int, label: str, item: str | None, attempt: int) -> OutputSink | None:
        """Return the sink for the output of an attempt that is about to start, if there is one."""


class PoolWorkers:
    """The pools of this process, created when a plan first needs them and kept from run to run.

    ```
    Commands -> commands            Call -> threads | processes, by the lane's strategy and the router
    ```
    Guarantees: a pool lives until `close`, so its counters only grow; `prepare`, `start` and `resize_pools` are for the
    thread that runs the plan or controls it; `statistics` and `running` may be called from any thread.
    """

    def __init__(
        self,
        memory: Path | None = None,
        logs: OutputLogs | None = None,
        open_cluster: Callable[[int], RemotePool] | None = None,
    ) -> None:
        """Create no pool yet. `memory`: a file of call profiles, read before the first calls and written by `close`.

        `logs`: keeps the whole output of commands. `open_cluster`: returns a pool on other hosts, of a given size.
        """
        self._open_cluster = open_cluster
        self._remote: RemotePool | None = None
        self._logs = logs
        self._lock = threading.Lock()  # guards: _pools against other threads
        self._pools: dict[str, WorkerPool] = {}
        self._call_pools: dict[str, CallPool] = {}  # the pools of `_pools` that take calls
        self._commands: CommandPool | None = None  # likewise, the pool that takes commands
        self._processes: ProcessPool | None = None
        self._uses = PoolUses()
        self._run: _RunState | None = None  # None before the first plan
        self._thread_calls: ThreadCalls | None = None  # None before the first plan with calls
        self._watched = False
        self._orphans = Orphans()
        self._memory = memory
        self._routing: CallRouting | None = None  # None before the first plan with calls
        self._temporary: TemporaryFolder | None = None
        self._temporary_numbers = itertools.count(1)

    def prepare(self, plan: Plan, size: int) -> None:
        """Create or resize the pools that `plan` needs at its start size."""
        run = self._run = _RunState(plan, size)
        self._uses.clear()
        if not CALL_POOLS.isdisjoint(run.sizes.pools):
            self._start_supervisor()
            self._load_routing()
        if self._routing is not None:
            self._routing.prepare(plan)
        needed = [name for name in run.sizes.pools if name in self._pools or not run.sizes.is_optional(name)]
        missing = [name for name in needed if name not in self._pools]
        # each pool gets one worker before any gets more, since the system may have only a few threads left
        if len(missing) > 1:
            for name in missing:
                self._make_pool(name, 1)
        for name in missing:
            self._make_pool(name, run.get_pool_target(name))
        for name in needed:
            self._get_pool(name)
        if self._remote is not None and DASK in run.sizes.pools:
            self._remote.begin_run(_list_programs(plan))

    def _load_routing(self) -> None:
        if self._routing is None:
            from paropt_exporter.engine.call_routing import CallRouting  # here: few lanes have calls

            self._routing = CallRouting(self._memory)

    @property
    def _current(self) -> _RunState:
        assert self._run is not None  # `prepare` comes first
        return self._run

    def _list_helper_pids(self) -> set[int]:
        ours = {SUPERVISOR.pid or 0, lifetime.FORK_SERVERS.pid}
        return ours if self._remote is None else ours | self._remote.helper_pids

    def resize_pools(
        self, size: int, reason: str, tasks: Mapping[str, int] | None = None
    ) -> tuple[tuple[str, int, int], ...]:
        """Set the pools' targets for a lane of `size`; return (pool, old, new) for each that changed.

        `tasks`: how many of the lane's tasks each pool gets; None: any number. No pool gets more workers than it may
        have tasks of the plan at once. Running tasks are never interrupted.
        """
        run = self._current
        run.size, run.reason, run.tasks = size, reason, tasks
        changed = []
        for name in self._uses.pools():
            old, new = self._pools[name].target, run.get_pool_target(name)
            if old != new:
                self._resize_pool(name, new, reason)
                changed.append((name, old, new))
        return tuple(changed)

    def get_pool_sizes(self, size: int) -> Mapping[str, int]:
        """Return how many slots of a lane of `size` the tasks of each pool of the plan could take."""
        return {} if self._run is None else self._run.sizes.get_pool_sizes(size)

    def get_targets(self) -> Mapping[str, int]:
        """Return the target of each pool that this run has used so far."""
        return {name: self._pools[name].target for name in self._uses.pools()}

    def release_workers(self, size: int) -> None:
        """End processes that calls have left running, release workers that only this run needed, and reap zombies."""
        if self._thread_calls is not None:
            self._thread_calls.end_strays()
            if self._watched and not self._thread_calls.has_running:
                SUPERVISOR.stop_watching()
        # Orphans come to this process if it runs calls in threads, and if it is the init process of a container.
        if (now := monotonic()) >= self._orphans.due_seconds:
            self._orphans.reap(now)
        for name, pool in tuple(self._pools.items()):
            if pool.target > size:
                self._resize_pool(name, size, "bounds")

    def close(self) -> None:
        """Shut down all pools, without waiting for abandoned threads and workers that these keep alive."""
        for pool in tuple(self._pools.values()):
            if left := pool.close_within(_WORKERS_END_SECONDS):
                log.warning("calls left threads running in workers: killed", extra={"workers": ", ".join(left)})
        # otherwise stay watched: the processes of a running call must not outlive us
        if self._watched and self._thread_calls is not None and not self._thread_calls.has_running:
            self._watched = False
            SUPERVISOR.release()
        if self._temporary is not None:
            self._temporary.close()
        if self._routing is not None:
            self._routing.save_profiles()

    # The engine's interface

    def start(self, stage: PlannedStage, task: PlannedTask, label: str) -> PoolAttempt:
        self._current.attempts[label] += 1
        if stage.remote is not None:
            return self._start_remote(stage, stage.remote, task, label)
        if isinstance(task.work, Commands):
            return self._start_commands(stage, task, task.work, label)
        return self._start_call(stage, task, task.work, label)

    def choose_pool(self, stage: PlannedStage, task: PlannedTask) -> str:
        if stage.remote is not None:
            return DASK
        return COMMANDS if isinstance(task.work, Commands) else self._choose_call_pool(task.work.target)[0]

    def get_pool_size(self, pool: str) -> int:
        return self._get_pool(pool).target

    def running(self) -> tuple[RunningTask, ...]:
        with self._lock:
            pools = tuple(self._pools.values())
        tasks = tuple(task for pool in pools for task in pool.running())
        if self._routing is not None:
            self._routing.note_running(tasks)
        return tasks

    def get_pool_uses(self) -> tuple[PoolUse, ...]:
        """Return the use of each pool since the run began, with its worker time until its last task ended."""
        return self._uses.build_records()

    def is_gil_bound(self, stage: str) -> bool:
        return self._routing is not None and self._routing.is_gil_bound(stage)

    def get_abandoned_calls(self) -> tuple[str, ...]:
        threads = self._pools.get(THREADS)
        if threads is None:
            return ()
        from paropt_exporter.executors.threads.thread_pool import ThreadPool  # here, as below: few lanes have calls

        return threads.abandoned if isinstance(threads, ThreadPool) else ()

    def statistics(self) -> tuple[PoolStatistics, ...]:
        """Return a snapshot of each pool; from any thread."""
        with self._lock:
            pools = tuple(self._pools.values())
        return tuple(pool.statistics() for pool in pools)

    # Choosing a pool and starting a task in it

    def _start_commands(self, stage: PlannedStage, task: PlannedTask, work: Commands, label: str) -> PoolAttempt:
        self._get_pool(COMMANDS)
        pool = self._commands
        assert pool is not None
        env = self._get_environment(stage)
        report = self._make_temporary_path(".xml") if stage.junit else None
        future = pool.submit_commands(
            label,
            work.steps,
            cwd=stage.cwd,
            env=env if report is None else _request_report(env, report),
            output_file=self._get_output_file(stage),
            sink=self._open_sink(stage, task, label, self._current.attempts[label]),
            traced=stage.traced,
        )
        batch = _build_batch(stage, task, report)
        self._uses.add_task(COMMANDS, future)
        return PoolAttempt(
            COMMANDS, label, future, lambda grace: pool.stop(future, grace_seconds=grace), pool.end_supervisor, batch
        )

    def _start_remote(
        self, stage: PlannedStage, remote: RemoteTaskOptions, task: PlannedTask, label: str
    ) -> PoolAttempt:
        self._get_pool(DASK)
        pool, work = self._remote, task.work
        assert pool is not None
        report = self._make_temporary_path(".xml") if stage.junit and isinstance(work, Commands) else None
        number = self._current.attempts[label]
        options = replace(
            remote,
            env=remote.env if report is None else _request_report(remote.env, Path(REPORT_PATH)),
            outputs=_fill_outputs(remote.outputs, task),
            output_file=self._get_output_file(stage),
            open_sink=None if self._logs is None else lambda: self._open_sink(stage, task, label, number),
            report=report,
        )
        if isinstance(work, Commands):
            future = pool.submit_commands(label, work.steps, options=options)
        else:
            future = pool.submit_call(label, work.target, work.arguments, options=options)
            future.add_done_callback(lambda done: _log_left_processes(label, done))
        batch = _build_batch(stage, task, report)
        self._uses.add_task(DASK, future)
        return PoolAttempt(
            DASK,
            label,
            future,
            lambda grace: pool.stop(future, grace_seconds=grace),
            lambda: pool.give_up(future),
            batch,
        )

    def _open_sink(self, stage: PlannedStage, task: PlannedTask, label: str, number: int) -> OutputSink | None:
        return None if self._logs is None else self._logs.open_sink(stage.name, task.index, label, task.item, number)

    def _log_whole_output(self, stage: PlannedStage, task: PlannedTask, label: str, number: int, path: Path) -> None:
        """Move the output of a call that printed much into the logs. If it printed less, its record has everything."""
        with suppress(OSError), path.open("rb") as file:  # there is no file if the call printed little
            with Capture(sink=self._open_sink(stage, task, label, number)) as capture:
                while chunk := file.read(_OUTPUT_CHUNK_BYTES):
                    capture.write(chunk)
            path.unlink()

    def _get_environment(self, stage: PlannedStage) -> Mapping[str, str]:
        """Return the environment of the stage's commands, as it is when its first command of this run starts."""
        run = self._current
        if stage.name not in run.environments:
            # A copy costs as much as a record in the history; only calls in threads can change the environment.
            own = copy_environment() if run.own_environment is None else run.own_environment
            run.environments[stage.name] = build_command_environment(stage, own)
        return run.environments[stage.name]

    def _get_output_file(self, stage: PlannedStage) -> OutputFile | None:
        """Return the file that the attempts of the stage share in this run."""
        if stage.output_file is None:
            return None
        piece_bytes = RAW_BYTES if len(stage.tasks) > 1 else 0
        made = OutputFile(stage.output_file, piece_bytes=piece_bytes)
        return self._current.output_files.setdefault(stage.name, made)

    def _make_temporary_path(self, suffix: str) -> Path | None:
        """Return a path for a temporary file; None if no folder can be made, since a run can do without."""
        if self._temporary is None:
            try:
                from paropt_exporter.engine.temporary_folder import TemporaryFolder  # here, as calls: few lanes need it
                from paropt_exporter.plan import pytest_support

                self._temporary = TemporaryFolder(pytest_support.FOLDER_PREFIX)
            except OSError as error:
                log.debug("no folder for temporary files", extra={"err": str(error)})
                return None
        return self._temporary.path / f"{next(self._temporary_numbers)}{suffix}"

    def _start_call(self, stage: PlannedStage, task: PlannedTask, work: Call, label: str) -> PoolAttempt:
        from paropt_exporter.executors.threads.thread_pool import ThreadPool

        name, pool = self._choose_call_pool(work.target)
        root = str(self._current.plan.root)
        # Not for processes: their statistics need a walk over /proc, and calls in them don't share a GIL.
        before = pool.read_cpu_seconds() if isinstance(pool, ThreadPool) else 0.0
        stopped = TaskStopped(f"{label} was stopped")
        whole = self._make_temporary_path(".out") if self._logs is not None else None
        arguments = (root, work.target, work.arguments, str(whole) if whole is not None else None)
        if isinstance(pool, ThreadPool):
            from paropt_exporter.executors.thread_calls import ThreadCall

            assert self._thread_calls is not None  # `prepare` comes first
            call = ThreadCall(self._thread_calls, label, lambda future: pool.stop(future, stopped))
            future: TaskFuture[Any] = pool.submit_named(label, call.run, *arguments)
            call.future = future
            stop: Callable[[float], object] = call.stop
            if self._routing is not None:
                self._routing.note_start(label, work.target)
        else:
            from paropt_exporter.executors.calls import run_call_in_process

            future = pool.submit_named(label, run_call_in_process, *arguments)
            stop = lambda grace: pool.stop(future, stopped, grace_seconds=grace)  # noqa: E731
        self._uses.add_task(name, future)
        future.add_done_callback(lambda done: self._learn(work.target, done, pool, before))
        if (routing := self._routing) is not None:
            future.add_done_callback(lambda _: routing.note_end(label))
        future.add_done_callback(lambda done: _log_left_processes(label, done))
        if whole is not None:
            number = self._current.attempts[label]
            future.add_done_callback(lambda _: self._log_whole_output(stage, task, label, number, whole))
        return PoolAttempt(name, label, future, stop)

    def _start_supervisor(self) -> None:
        """Prepare for child processes of calls, and have the supervisor kill them if this process dies."""
        from paropt_exporter.executors.thread_calls import ThreadCalls  # here: few lanes have calls

        if self._thread_calls is None:
            self._thread_calls = ThreadCalls(self._list_helper_pids)
        self._thread_calls.prepare()
        if not self._watched:
            self._watched = True
            SUPERVISOR.lease()
        try:
            SUPERVISOR.watch()
        except OSError as error:
            log.warning(
                "no supervisor for the processes of calls: they would outlive a kill -9", extra={"err": str(error)}
            )

    def _choose_call_pool(self, target: str) -> tuple[str, CallPool]:
        assert self._routing is not None  # the plan has calls
        name, run = self._routing.choose(target), self._current
        try:
            if run.sizes.is_optional(name):
                descriptors.check_limit_for_processes()
            self._get_pool(name)
            failure = self._processes.failure if run.sizes.is_optional(name) and self._processes is not None else None
            if failure is not None:
                raise renew(failure)
            return name, self._call_pools[name]
        except (RuntimeError, OSError) as error:  # the system has no resources for processes
            if not run.sizes.is_optional(name) or THREADS not in self._pools:
                raise
            if not run.lacks_processes:  # log it once: the engine asks before each start of a task
                log.warning("no processes for calls: they stay in threads", extra={"err": str(error)})
            run.lacks_processes = True
            self._get_pool(THREADS)
            return THREADS, self._call_pools[THREADS]

    def _learn(self, target: str, done: Future[Any], pool: CallPool, cpu_seconds_before: float) -> None:
        """Let the router learn from an ended call."""
        measured = done.measurement if isinstance(done, TaskFuture) else None
        if measured is None or self._routing is None:
            return
        from paropt_exporter.executors.demand import FULL_LOCK_CORES
        from paropt_exporter.executors.threads.thread_pool import ThreadPool

        concurrent = 1
        if isinstance(pool, ThreadPool):  # processes don't share a GIL
            used = pool.read_cpu_seconds() - cpu_seconds_before
            wall = measured.ended_seconds - measured.started_seconds
            if used >= FULL_LOCK_CORES * (wall - measured.run_delay_seconds):
                concurrent = pool.busy + 1  # its own task has left the pool by now
        self._routing.learn(target, measured, concurrent=concurrent)

    def _get_pool(self, name: str) -> WorkerPool:
        run = self._current
        if name not in self._pools:
            self._make_pool(name, run.get_pool_target(name))
        if name not in self._uses:
            if name == PROCESSES and self._processes is not None:
                self._processes.reopen()  # in an earlier run the system may have given no process
            self._resize_pool(name, run.get_pool_target(name), run.reason)
        return self._pools[name]

    def _make_pool(self, name: str, size: int) -> None:
        """Create a pool, or resize one that was just created."""
        if name in self._pools:
            self._pools[name].resize(size, reason="start")
            return
        made: WorkerPool
        if name == COMMANDS:
            made = self._commands = CommandPool(size)
        elif name == DASK:
            assert self._open_cluster is not None
            made = self._remote = self._open_cluster(size)
        elif name == PROCESSES:
            made = self._call_pools[name] = self._processes = _create_process_pool(size)
        else:
            made = self._call_pools[name] = _create_thread_pool(size)
        with self._lock:
            self._pools[name] = made

    def _resize_pool(self, name: str, size: int, reason: str) -> None:
        pool = self._pools[name]
        if pool.target != size:
            pool.resize(size, reason=reason)
        self._uses.note_size(name, pool, size, reason)


def _build_batch(stage: PlannedStage, task: PlannedTask, report: Path | None) -> ItemBatch | None:
    if not task.items:
        return None
    # With Scope.ITEMS there are batches of another shard or of an earlier run.
    alone = len(stage.tasks) == 1 and stage.scope is not Scope.ITEMS and not stage.is_split
    return ItemBatch(items=task.items, report=report, alone=alone)


def _fill_outputs(patterns: tuple[str, ...], task: PlannedTask) -> tuple[str, ...]:
    """Return the patterns of one task's outputs, with its items instead of `{item}`."""
    if not patterns:
        return ()
    from paropt_exporter.input_files import fill_item

    items = task.items or (task.item,)
    return tuple(dict.fromkeys(pattern for item in items for pattern in fill_item(patterns, item)))


def _list_programs(plan: Plan) -> tuple[str, ...]:
    """Return the programs with which the plan's remote commands begin, without those inside the project."""
    works = [task.work for stage in plan.stages if stage.remote is not None for task in stage.tasks]
    steps = [step for work in works if isinstance(work, Commands) for step in work.steps]
    return tuple(dict.fromkeys(step[0] for step in steps if "/" not in step[0]))


def _log_left_processes(label: str, future: Future[CallOutcome]) -> None:
    """Log the processes that a call left running and that were ended."""
    if future.cancelled():
        return
    error = future.exception()
    left = getattr(error, "left", ()) if error is not None else getattr(future.result(), "left", ())
    if left:
        log.warning("a call left processes behind: ended", extra={"task": label, "processes": join_names(left)})


def _create_process_pool(size: int) -> ProcessPool:
    from paropt_exporter.executors.processes.executor import ProcessPool  # a lane of commands never loads it

    return ProcessPool(size)


def _create_thread_pool(size: int) -> CallPool:
    from paropt_exporter.executors.threads.thread_pool import ThreadPool

    threads = ThreadPool(size, thread_name_prefix="paropt-threads")
    threads.start_first_thread()  # if no thread can start, the lane ends here, with the reason
    return threads


def _request_report(env: Mapping[str, str], report: Path) -> Mapping[str, str]:
    from paropt_exporter.plan import pytest_support

    return pytest_support.request_report(env, report)
