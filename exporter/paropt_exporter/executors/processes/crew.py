"""A ProcessPool's workers, queue and totals together: how it begins and ends, and what others see of it."""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from paropt_exporter.errors import InitializerFailed
from paropt_exporter.events import PoolStatistics, RunningTask, WorkerMemory
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.counters import PoolCounters
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes import view
from paropt_exporter.executors.processes.desk import Desk
from paropt_exporter.executors.processes.roster import Roster
from paropt_exporter.executors.processes.slot import ProcessSlot, ProcessTask
from paropt_exporter.executors.worker import mp_context, payload
from paropt_exporter.executors.worker.pickle_buffers import PickleBuffers

_REFUSAL = "cannot schedule new futures after shutdown"


class ProcessCrew:
    """What outlives the pool in the user's hands. `roster`: its workers. `desk`: its queue, and who gets what of it.

        open ──(close)──> closed: what was accepted is ended ──(the last worker goes)──> gone
          └──(no worker can begin)──> closed: what waits gets the cause

    Guarantees:
      * A task that was accepted settles once: result, exception, cancelled, stopped, or WorkerDied.
      * Decisions are made under the roster's lock; sending, receiving, settling and starting happen outside.
    """

    def __init__(
        self,
        name: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks_per_child: int | None,
        serve: Callable[[ProcessCrew, ProcessSlot], None],
    ) -> None:
        self.counters = PoolCounters(name)
        self.packer = payload.Packer()
        self._initializer, self._initargs = initializer, initargs
        self._pack_initializer()  # what can't travel is told to whoever makes the pool
        self.roster = Roster(self.counters)
        self.desk = Desk(self.roster, self.counters, max_tasks_per_child)
        self._serve = serve
        lifetime.register(self)

    def resize(self, n: int, reason: str) -> None:
        self.roster.resize(n, reason)
        self._grow()

    def ask_again(self) -> None:
        """Start workers that the system would not give before, if it is time to."""
        if self.roster.get_retry_delay() == 0.0:
            self._grow()

    def _grow(self) -> None:
        self.roster.grow(partial(self._serve, self))  # made anew each time: what it holds on to goes with the workers

    def unsubmitted(self, future: TaskFuture[Any], error: BaseException) -> TaskFuture[Any]:
        """Settle a task that can't travel."""
        with self.roster.lock:
            self.counters.exited.failed += 1
        future.force_exception(error)
        return future

    # Beginning and end

    def preparation(self) -> bytes:
        """Return what a new worker must know: this process's import path, folder, environment, initializer."""
        try:
            directory = os.getcwd()  # noqa: PTH109 -- marshal takes no Path
        except OSError:
            directory = "/"
        path = [os.fspath(entry) for entry in sys.path if isinstance(entry, (str, bytes, os.PathLike))]
        kin = mp_context.key(), mp_context.tracker() is not None
        arguments = [str(argument) for argument in sys.argv]
        return marshal.dumps((path, directory, dict(os.environb), arguments, *kin, *self._pack_initializer()))

    def _pack_initializer(self) -> tuple[bytes, bytes | tuple[Any, ...]]:
        """Pickle the initializer, anew for each worker: a descriptor among its arguments can be fetched once."""
        if self._initializer is None:
            return b"", b""
        function, arguments = self.packer.pack(self._initializer, self._initargs, {})
        return function, arguments.joined() if isinstance(arguments, PickleBuffers) else arguments

    def give_up(self, error: BaseException) -> None:
        """End a pool whose workers can't begin, if none is left that can: what waits gets the cause."""
        roster = self.roster
        with roster.lock:
            if roster.closed or any(slot.ready_seconds is not None for slot in roster.slots):
                return
            refusal = InitializerFailed(f"workers of pool {self.counters.name!r} can't begin: {error!r}")
            refusal.__cause__ = error
            roster.close(refusal)
            left = self.desk.drain()
            for slot in roster.slots:
                roster.dismiss(slot)
        for task in left:
            self.settle_unbegun(task, refusal)

    def settle_unbegun(self, task: ProcessTask, error: BaseException) -> None:
        stopped = task.future.force_exception(error)
        with self.roster.lock:
            self.counters.exited.errors += stopped
            self.counters.exited.cancelled += not stopped

    def close(self, *, cancel_futures: bool = False, refusal: str = _REFUSAL) -> None:
        roster = self.roster
        with roster.lock:
            if not roster.closed:
                roster.close(RuntimeError(refusal))
            left = self._recall() if cancel_futures else []
            idle, roster.idle = roster.idle, []
            if not self.desk.queue:
                idle += [slot for slot in roster.slots if slot.ready_seconds is None]
            for slot in idle:
                roster.dismiss(slot)
            roster.wake_all()  # an interrupt may have left one in no list: it lines up
        for task in left:
            task.future.cancel()
            task.future.set_running_or_notify_cancel()
            with roster.lock:
                self.counters.exited.cancelled += 1

    def _recall(self) -> list[ProcessTask]:
        """Take back all that has not begun, from workers that hold several tasks too.

        As many tasks stay as workers hold nothing: what those are about to take, or to start with, has begun.
        """
        free = sum(not slot.orders and not slot.leaving for slot in self.roster.slots)
        for slot in self.roster.slots:
            if len(slot.orders) > 1 or slot.alone < 0:
                self.desk.reclaim(slot)
        return self.desk.drain(keep=free)

    def join(self) -> None:
        self.roster.join()

    def kill(self) -> tuple[str, ...]:
        """Kill the workers that there are, with all that they started, and return their names."""
        with self.roster.lock:
            slots = [slot for slot in self.roster.slots if slot.pid and slot.link is not None]
        for slot in slots:
            lifetime.FORK_SERVERS.end(slot.pid, 0.0)
        return tuple(f"{slot.name} (pid {slot.pid})" for slot in slots)

    def reset_after_fork(self) -> None:
        """In a forked child: the workers are the parent's."""
        self.desk.queue.clear()
        self.roster.reset_after_fork(RuntimeError(lifetime.AFTER_FORK_MESSAGE))

    def stop(self, future: TaskFuture[Any], error: BaseException, grace_seconds: float) -> bool:
        with self.roster.lock:
            begun = self._stop_begun(future, error, grace_seconds)
        ended = future.force_exception(error) if begun is None else begun
        self.desk.dispatch()
        return ended

    def _stop_begun(self, future: TaskFuture[Any], error: BaseException, grace_seconds: float) -> bool | None:
        """Have a running task's worker ended; False if the task has ended, None if it was not begun."""
        found = ((slot, number) for slot in self.roster.slots for number in _numbers_of(future, slot.open))
        slot, number = next(found, (None, -1))
        if slot is None:
            return False if any(_numbers_of(future, slot.settling) for slot in self.roster.slots) else None
        self.desk.reclaim(slot)
        if number >= slot.numbered:
            return None
        # What was claimed last may be running. What was claimed before has ended, though its result was not read yet:
        # to end the worker would hit another task.
        if number < slot.numbered - 1 or not future.fail_on_exit(error):
            return False
        slot.stopping = future
        lifetime.FORK_SERVERS.end(slot.pid, grace_seconds)
        return True

    # What others see

    @property
    def live(self) -> int:
        return sum(slot.ready_seconds is not None for slot in tuple(self.roster.slots))

    @property
    def busy(self) -> int:
        return sum(bool(slot.orders) for slot in tuple(self.roster.slots))

    def statistics(self) -> PoolStatistics:
        with self.roster.lock:
            tally = view.add_up(self.roster.slots)
            moment, busy_seconds = view.look(self.roster.slots, self.desk.queue.copy(), self.roster.target)
            return self.counters.build_statistics(moment, tally, busy_seconds)

    def running(self) -> tuple[RunningTask, ...]:
        with self.roster.lock:
            return view.running(self.roster.slots)

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        return view.memory([slot.pid for slot in tuple(self.roster.slots) if slot.pid])


def _numbers_of(future: TaskFuture[Any], tasks: dict[int, ProcessTask]) -> list[int]:
    return [number for number, task in tuple(tasks.items()) if task.future is future]
