"""A pool whose workers are those of a Dask cluster: for the engine it is one like the local ones."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from paropt_exporter.events import PoolStatistics, RunningTask
from paropt_exporter.executors.base import DASK, RemoteTaskOptions, check_size, find_stage
from paropt_exporter.executors.cluster.coordinator import Coordinator
from paropt_exporter.executors.cluster.dask_client import require_distributed
from paropt_exporter.executors.cluster.messages import (
    RemoteCall,
    RemoteCommands,
    RemoteFunction,
    RemoteMeasurement,
    RemoteTask,
    RemoteWork,
)
from paropt_exporter.executors.cluster.settings import ClusterSettings
from paropt_exporter.executors.cluster.work_items import WorkItem
from paropt_exporter.executors.commands.command_pool import CommandOutcome
from paropt_exporter.executors.counters import PoolCounters, PoolSnapshot, WorkerCounters
from paropt_exporter.executors.future import TaskFuture, get_label
from paropt_exporter.executors.worker.payload import Packer
from paropt_exporter.executors.worker.pickle_buffers import PickleBuffers

P = ParamSpec("P")
T = TypeVar("T")

_NO_OPTIONS = RemoteTaskOptions()


class ClusterPool:
    """A pool of a cluster's worker threads; each of them is a slot, and runs one task at a time.

    ```
    submit -> Coordinator (queue, placement) -> a worker's agent -> CommandPool or ProcessPool on its host
    ```
    Guarantees: a task is sent to one worker, once; if that worker is lost, the task fails with WorkerDied, and no
    other worker runs it unless it is submitted again.
    """

    def __init__(self, settings: ClusterSettings, max_workers: int) -> None:
        """Connect, and wait for the first worker. Raises ClusterError."""
        require_distributed()
        self.name = DASK
        self._lock = threading.Lock()  # guards: everything below
        self._counters = PoolCounters(DASK)
        self._ended = WorkerCounters()
        self._attempts = itertools.count(1)
        self._packer = Packer()
        self._items: dict[TaskFuture[Any], WorkItem] = {}
        self._slot_seconds, self._slots_since = 0.0, monotonic()
        self._slots = 0
        self._target = max_workers
        self._closed = False
        self._coordinator = Coordinator(settings)
        self._coordinator.dispatcher.on_settled = self._count_settled
        self._coordinator.dispatcher.on_adjusted = self._note_slots
        self._coordinator.start(max_workers)

    def begin_run(self, programs: tuple[str, ...]) -> None:
        """Give the workers the files as they are now, and check that they have the programs. Raises ClusterError."""
        self._coordinator.begin_run(programs)

    def submit_commands(
        self, label: str, steps: Sequence[Sequence[str]], *, options: RemoteTaskOptions = _NO_OPTIONS
    ) -> TaskFuture[CommandOutcome]:
        """Queue a task: run `steps` in order on one worker, until one fails."""
        work = RemoteCommands(
            steps=tuple(tuple(step) for step in steps),
            folder=options.folder,
            env=dict(options.env),
            outputs=options.outputs,
            programs=options.programs,
            has_report=options.report is not None,
            keeps_output=options.keeps_output,
        )
        return self._submit(label, work, options)

    def submit_call(
        self, label: str, target: str, arguments: tuple[str, ...], *, options: RemoteTaskOptions = _NO_OPTIONS
    ) -> TaskFuture[Any]:
        """Queue a call of `module:function` in a process on one worker."""
        work = RemoteCall(
            target=target,
            arguments=arguments,
            outputs=options.outputs,
            keeps_output=options.keeps_output,
        )
        return self._submit(label, work, options)

    def submit_named(self, label: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Queue a call of a function, which travels with its arguments."""
        function, arguments = self._packer.pack(fn, args, kwargs)
        if isinstance(arguments, PickleBuffers):
            arguments = arguments.join()
        return self._submit(label, RemoteFunction(function, arguments), _NO_OPTIONS)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Queue a call of a function, as `concurrent.futures` does."""
        return self.submit_named(get_label(fn), fn, *args, **kwargs)

    def stop(self, future: TaskFuture[Any], error: BaseException | None = None, *, grace_seconds: float = 10.0) -> bool:
        """Stop a task: SIGTERM now, SIGKILL after the grace; cancel a queued one. False if it has ended."""
        del error
        if future.cancel():
            return True
        with self._lock:
            item = self._items.get(future)
        if item is None or future.done():
            return False
        self._coordinator.dispatcher.stop(item, grace_seconds)
        return True

    def give_up(self, future: TaskFuture[Any]) -> None:
        """Settle a task whose worker does not answer."""
        with self._lock:
            item = self._items.get(future)
        if item is not None:
            self._coordinator.dispatcher.give_up(item)

    @property
    def target(self) -> int:
        return self._target

    @property
    def live(self) -> int:
        return self._coordinator.members.slots + self._coordinator.members.draining_slots

    @property
    def busy(self) -> int:
        return self._coordinator.members.busy_slots

    @property
    def helper_pids(self) -> frozenset[int]:
        """The processes that host a cluster which this pool started."""
        return self._coordinator.helper_pids

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set the target number of slots; workers come and go later. Returns at once."""
        n = check_size(n, sys.maxsize, "workers")
        with self._lock:
            self._counters.count_resize(self._target, n, reason)
            self._target = n
        self._coordinator.resize(n)

    def statistics(self) -> PoolStatistics:
        running = self._coordinator.dispatcher.running()
        now = monotonic()
        with self._lock:
            ended = WorkerCounters()
            ended.add(self._ended)
            self._count_slot_seconds(now)
            self._counters.deaths = self._coordinator.dispatcher.deaths
            live, busy = self.live, self.busy
            snapshot = PoolSnapshot(
                target=self._target,
                live=max(live, busy),
                busy=busy,
                starting=max(0, self._target - live) if self._coordinator.is_elastic else 0,
                queued=self._coordinator.dispatcher.queued,
                oldest_queued_age_seconds=self._coordinator.dispatcher.oldest_queued_age_seconds,
                slot_seconds=self._slot_seconds,
                cpu_seconds=sum(task.cpu_seconds for task in running),
                run_delay_seconds=sum(task.run_delay_seconds for task in running),
            )
            return self._counters.build_statistics(
                snapshot, ended, sum(max(0.0, now - task.started_seconds) for task in running)
            )

    def running(self) -> tuple[RunningTask, ...]:
        return self._coordinator.dispatcher.running()

    def close_within(self, seconds: float) -> tuple[str, ...]:
        """Refuse further tasks, end the others and leave the cluster. No process of a worker can be left here."""
        del seconds
        with self._lock:
            self._closed = True
        self._coordinator.close()
        return ()

    def _submit(self, label: str, work: RemoteWork, options: RemoteTaskOptions) -> TaskFuture[Any]:
        future: TaskFuture[Any] = TaskFuture()
        future.label = label
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            item = WorkItem(
                future,
                RemoteTask(next(self._attempts), label, work),
                group=find_stage(label),
                options=options,
            )
            self._items[future] = item
        future.add_done_callback(self._remove_item)
        self._coordinator.dispatcher.submit(item)
        return future

    def _remove_item(self, future: Any) -> None:
        with self._lock:
            self._items.pop(future, None)
            if future.cancelled():
                self._ended.cancelled += 1

    def _count_settled(self, measured: RemoteMeasurement | None, kind: str) -> None:
        with self._lock:
            setattr(self._ended, kind, getattr(self._ended, kind) + 1)
            if measured is not None:
                self._ended.busy_seconds += measured.duration_seconds
                self._counters.cpu_seconds += measured.cpu_seconds
                self._counters.run_delay_seconds += measured.run_delay_seconds

    def _note_slots(self) -> None:
        with self._lock:
            self._count_slot_seconds(monotonic())

    def _count_slot_seconds(self, now: float) -> None:
        """Add the slots' time since the last call; under the lock."""
        self._slot_seconds += self._slots * (now - self._slots_since)
        self._slots_since, self._slots = now, min(self._coordinator.members.slots, max(self._target, self.busy))
