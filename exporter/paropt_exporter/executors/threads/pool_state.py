"""The threads behind a ThreadPool: they take tasks from a queue, park when there are none, and come and go."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic, thread_time
from typing import Any, NoReturn

from paropt_exporter.errors import InitializerFailed
from paropt_exporter.events import PoolStatistics, RunningTask
from paropt_exporter.executors import lifetime, procfs
from paropt_exporter.executors.counters import PoolCounters, WorkerCounters
from paropt_exporter.executors.future import TaskFuture, get_label
from paropt_exporter.executors.thread_group import ThreadGroup
from paropt_exporter.executors.threads import worker_thread
from paropt_exporter.executors.threads.worker_thread import Share, Slot, Task, run

log = logging.getLogger(__name__)

MOST_WORKERS = 4096  # more threads than this in one process is a slip of the keyboard
_INITIALIZER_ATTEMPTS = 3
_RETRY_SECONDS = 0.1  # doubled from attempt to attempt
_REFUSAL = "cannot schedule new futures after shutdown"


class ThreadCrew:
    """Queue, threads and size of one pool.

        submit() ──> queue ──> serving ──(nothing left)──> parked ──(wake)──> serving
                                  │ size came down, closed        │
                                  └────────────> gone <───────────┘

    Guarantees:
      * A task that was accepted is run, cancelled or stopped, once.
      * A waiting task and a parked thread never miss each other: submit() appends and then looks at `wakeable`; a
        thread sets `wakeable` and then looks at the queue. The lock is for parking, waking and resizing, not for tasks.
      * At most one woken thread is on its way; it wakes the next one if there is work for two. A burst of short tasks
        so wakes few threads, which then fight less over the interpreter's lock.
      * The lock is reentrant, and a thread looks at the queue once more after it has lined up: a garbage collection
        or a signal handler may submit or close in the middle of each of these methods.
    """

    def __init__(
        self, name: str, prefix: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self.counters = PoolCounters(name)
        self.queue: deque[Task | Share] = deque()
        self.lock = threading.RLock()  # guards: everything below
        self.target = 0
        self.live = 0
        self.closed = False
        self.wakeable = False  # whether a submit has to call wake()
        self.attention = False  # whether a thread has to ask after its task whether it goes
        self._refusal: Exception = RuntimeError(_REFUSAL)
        self._slots: list[Slot] = []
        self._idle: list[Slot] = []
        self._waking = False
        self._hands = ThreadGroup()
        self._abandoned: list[tuple[Slot, str]] = []
        self._made = 0
        self._prefix = prefix
        self._initializer = initializer
        self._initargs = initargs
        lifetime.register(self)

    # Size

    def resize(self, n: int, reason: str) -> None:
        if not 1 <= n <= MOST_WORKERS:
            raise ValueError(f"a pool of {n} threads: expected 1 to {MOST_WORKERS}")
        with self.lock:
            self.counters.count_resize(self.target, n, reason)
            self.target = n
            surplus = len(self._slots) - n
            for slot in [self._idle.pop() for _ in range(min(max(surplus, 0), len(self._idle)))]:
                slot.parker.release()
            self._look()
        self._grow()

    def _grow(self) -> None:
        """Start the threads that are missing. The system may say no: then the pool goes on as it is, and says so."""
        self._hands.clear_shortage()
        while (slot := self._new_slot()) is not None:
            try:
                self._hands.start(slot.name, partial(self._serve, slot))
            except RuntimeError as error:
                log.warning("no more threads to be had", extra={"pool": self.counters.name, "err": str(error)})
                if self._continue_without(slot):
                    return
                raise
        self._look()

    def _continue_without(self, slot: Slot) -> bool:
        """Go on without a thread that the system would not give; False when there is no other. It is asked again."""
        with self.lock:
            self._slots.remove(slot)
            self._hands.note_shortage()
            self._look()
            if self._idle:
                self._idle.pop().parker.release()  # whoever parks now wakes up to ask
            return bool(self._slots)

    def _new_slot(self) -> Slot | None:
        with self.lock:
            if self.closed or len(self._slots) >= self.target:
                return None
            slot = Slot(f"{self._prefix}_{self._made}")
            slot.companions = self._companions
            self._made += 1
            self._slots.append(slot)
            self._hands.announce(slot.name)
            return slot

    def _look(self) -> None:
        with self.lock:
            wrong_size = len(self._slots) > self.target or self._hands.has_shortage
            self.attention = wrong_size or bool(self._abandoned)

    # Work

    def refuse(self) -> NoReturn:
        raise self._refusal

    def wake(self, item: Task | Share | None = None) -> None:
        """Have a parked thread look at the queue. Raise where the pool was closed before `item` could be taken."""
        with self.lock:
            if item is not None and self.closed and item in self.queue:
                self.queue.remove(item)
                self.refuse()
            self._wake_next()

    def _wake_next(self) -> None:
        if self._idle and not self._waking:
            self._waking = True
            self._idle.pop().parker.release()
        self.wakeable = self.closed or bool(self._idle and not self._waking)

    def _serve(self, slot: Slot) -> None:
        try:
            if self._enter(slot):
                self._work(slot)
                self._account(slot)
        finally:
            self._hands.remove_current()

    def _work(self, slot: Slot) -> None:
        take = self.queue.popleft
        now = monotonic()
        while True:
            try:
                item = take()
            except IndexError:
                if self._park(slot):
                    now = monotonic()
                    slot.resume(now)
                    continue
                return
            now = run(slot, item, now) if item.__class__ is tuple else item.work(slot, now)  # type: ignore[union-attr]  # told apart by class
            del item  # its arguments are the user's to let go
            if self.attention:
                if self._hands.get_retry_delay() == 0:
                    self._grow()
                if self._goes(slot):
                    return

    def _park(self, slot: Slot) -> bool:
        """Wait for work; False when the thread shall go."""
        with self.lock:
            if self._goes(slot):
                return False
            self._idle.append(slot)
            self.wakeable = self.closed or not self._waking
            if (self.queue or self.closed) and slot in self._idle:
                self._idle.remove(slot)
                return bool(self.queue) or not self._goes(slot)
        while not slot.parker.acquire(timeout=_or_for_ever(self._hands.get_retry_delay())):
            self._grow()
        with self.lock:
            self._waking = False
            if len(self.queue) > 1:
                self._wake_next()
            else:
                self.wakeable = self.closed or bool(self._idle)
        return True

    def _goes(self, slot: Slot) -> bool:
        """Take the slot off the books if its thread shall go, and say so."""
        with self.lock:
            if slot.abandoned:
                self._abandoned = [(gone, label) for gone, label in self._abandoned if gone is not slot]
                self._look()
                return True
            if len(self._slots) <= self.target and not (self.closed and not self.queue):
                return False
            self._retire(slot)
            return True

    def _account(self, slot: Slot) -> None:
        """Add what a thread that goes has used, outside the lock: the kernel takes its time to tell."""
        if not slot.abandoned:
            cpu, delay = thread_time() - slot.cpu_base_seconds, slot.last_delay_seconds
            if delay is None:
                delay = procfs.read_run_delay_seconds(slot.schedstat)
            with self.lock:
                self.counters.cpu_seconds += cpu
                self.counters.run_delay_seconds += delay

    def _retire(self, slot: Slot) -> None:
        self._slots.remove(slot)
        self.live -= 1
        self.counters.exited.add(slot.tally)
        self.counters.slot_seconds += monotonic() - (slot.ready_seconds or 0.0)
        self._look()

    # Beginning and end

    def _enter(self, slot: Slot) -> bool:
        error = self._initialize(slot)
        with self.lock:
            if error is None:
                slot.enter(monotonic())
                self.live += 1
                return True
            self._slots.remove(slot)
            self.counters.deaths["initializer"] += 1
            if self._slots or self.closed:
                return False
            self._refusal = InitializerFailed(f"the pool's initializer failed {_INITIALIZER_ATTEMPTS} times: {error!r}")
            self._refusal.__cause__ = error
            self.closed = self.wakeable = True
            left = self._drain()
        self._fail(left, self._refusal)
        return False

    def _initialize(self, slot: Slot) -> BaseException | None:
        """Run the user's initializer, again if it fails, with a growing pause; return its last error."""
        if self._initializer is None:
            return None
        last: BaseException | None = None
        for attempt in range(_INITIALIZER_ATTEMPTS):
            try:
                self._initializer(*self._initargs)
                return None
            except BaseException as error:  # a user's function: its error is told to whoever waits for tasks
                last = error
                log.critical("initializer failed", exc_info=True, extra={"pool": self.counters.name})
            if attempt + 1 < _INITIALIZER_ATTEMPTS:
                slot.parker.acquire(timeout=_RETRY_SECONDS * 2**attempt)
        return last

    def close(self, *, cancel_futures: bool = False, refusal: str = _REFUSAL) -> None:
        with self.lock:
            if not self.closed:
                self.closed = self.wakeable = True
                self._refusal = RuntimeError(refusal)
            left = self._drain(keep=sum(slot.task is None for slot in self._slots)) if cancel_futures else []
            idle, self._idle = self._idle, []
        # Read before they wake: 64 threads that come for it at once fight over the interpreter's lock for 3 ms more.
        for slot in idle:
            slot.last_delay_seconds = procfs.read_run_delay_seconds(slot.schedstat)
        for slot in idle:
            slot.parker.release()
        for item in left:
            self._cancel(item)

    def join(self) -> None:
        self._hands.join()

    def reset_after_fork(self) -> None:
        """In a forked child: no thread of ours lives here, and a lock may have been held at the fork."""
        self.lock = threading.RLock()
        self.closed = self.wakeable = True
        self._refusal = RuntimeError(lifetime.AFTER_FORK_MESSAGE)
        self.queue.clear()
        self.live = 0
        self._slots, self._idle, self._hands = [], [], ThreadGroup()

    def cancel_share(self, share: Share) -> None:
        if share.waiting():
            self._cancel(share)

    def _drain(self, *, keep: int = 0) -> list[Task | Share]:
        """Empty the queue but for the tasks that free threads are about to take: those have begun."""
        kept: list[Task | Share] = []
        left: list[Task | Share] = []
        while self.queue:
            item = self.queue.popleft()
            (kept if isinstance(item, tuple) and len(kept) < keep else left).append(item)
        self.queue.extend(kept)
        return left

    def _cancel(self, item: Task | Share) -> None:
        if isinstance(item, tuple):
            count = 1
            item[0].cancel()
            item[0].set_running_or_notify_cancel()
        else:
            count = item.cancel()
        with self.lock:
            self.counters.exited.cancelled += count

    def _fail(self, items: list[Task | Share], error: BaseException) -> None:
        for item in items:
            if isinstance(item, tuple):
                item[0].force_exception(error)
                with self.lock:
                    self.counters.exited.errors += 1
            else:
                self._cancel(item)

    def stop(self, future: TaskFuture[Any], error: BaseException) -> bool:
        if not future.force_exception(error):
            return False
        with self.lock:
            for slot in self._slots:
                task = slot.task
                if task is not None and task[0] is future and future.started_seconds is not None:
                    self._abandon(slot, task)
                    break
        self._grow()
        return True

    def _abandon(self, slot: Slot, task: tuple[Any, ...]) -> None:
        slot.abandoned = True
        self._abandoned.append((slot, task[0].label or get_label(task[1])))
        slot.tally.busy_seconds += monotonic() - slot.started_seconds
        slot.tally.cancelled += 1
        self._retire(slot)
        self.counters.cpu_seconds += procfs.read_thread_cpu_seconds(slot.ident) - slot.cpu_base_seconds
        self.counters.run_delay_seconds += procfs.read_run_delay_seconds(slot.schedstat)
        slot.tally = WorkerCounters()  # what the thread still counts is nobody's
        self.counters.deaths["stopped"] += 1
        self._hands.forget_thread(slot.ident)

    # What others see

    @property
    def busy(self) -> int:
        return sum(slot.task is not None for slot in tuple(self._slots))

    def abandoned(self) -> tuple[str, ...]:
        with self.lock:
            return tuple(label for _, label in self._abandoned)

    def _companions(self) -> int:
        """Return a number that changes when a task begins or ends beside another; 0 when others run now."""
        if self.busy > 1:
            return 0
        tallies = [slot.tally for slot in tuple(self._slots)]
        return 1 + sum(tally.succeeded + tally.failed for tally in tallies)

    def statistics(self) -> PoolStatistics:
        with self.lock:
            tally = worker_thread.add_up(self._slots)
            moment, busy_seconds = worker_thread.look(self._slots, tuple(self.queue.copy()), self.target)
            return self.counters.build_statistics(moment, tally, busy_seconds)

    def running(self) -> tuple[RunningTask, ...]:
        memory = procfs.read_memory_bytes()
        with self.lock:
            return worker_thread.running(self._slots, memory)

    def glance(self, *, children: Callable[[TaskFuture[Any]], bool]) -> tuple[tuple[TaskFuture[Any], RunningTask], ...]:
        with self.lock:
            return worker_thread.glance(self._slots, children=children)


def _or_for_ever(seconds: float | None) -> float:
    """Return a timeout as locks take it."""
    return -1 if seconds is None else seconds
