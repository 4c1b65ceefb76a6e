"""Run stages' calls in threads of this process, and end the processes that they start with them."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable
from time import monotonic

from paropt_exporter.errors import TaskStopped
from paropt_exporter.executors import child_processes, procfs
from paropt_exporter.executors.calls import CallOutcome, run_call
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.thread_group import list_pool_threads
from paropt_exporter.executors.worker.orphans import Orphans

log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SETTLE_SECONDS = 0.2  # a call that waited for a process which was ended returns, or raises, within this
_INSIST_SECONDS = 1.0  # after KILL: a call that starts process after process must not hold its slot forever
_GIVE_UP_SECONDS = 5.0  # after KILL: a process that waits in the kernel must not either
_LOOK_SECONDS = 0.1


class ThreadCall:
    """One call, from its submission to the end of its thread's work on it.

    waiting --run--> running --(returns, raises)--> what it left is ended --> ended
                        └--stop--> TERM, KILL to its processes --> ended, or given up: its thread goes on, and
                                                                   each process that it starts later is killed
    """

    def __init__(self, calls: ThreadCalls, label: str, give_up: Callable[[TaskFuture[CallOutcome]], object]) -> None:
        self.future: TaskFuture[CallOutcome] | None = None  # set once it is submitted
        self.thread = 0  # native id; 0: not running
        self._calls = calls
        self._label = label
        self._give_up = give_up
        self._lock = threading.Lock()  # guards: the ending, and everything below
        self._ending = child_processes.Ending(self._roots)
        self._stopped = self._given_up = self._ended = False
        self._idle_since: float | None = None  # since when a stopped call has no process

    def run(self, root: str, target: str, arguments: tuple[str, ...]) -> CallOutcome:
        """Run the call in the calling thread."""
        self._calls.add(self)
        try:
            self._begin()
            outcome = run_call(root, target, arguments, end_left=self._end_left)
            self._refuse_if_stopped()
            return outcome
        finally:
            with self._lock:
                self.thread, self._ended = 0, True
            self._calls.remove(self)

    def _begin(self) -> None:
        with self._lock:
            self._refuse_if_stopped()
            self.thread = threading.get_native_id()

    def _refuse_if_stopped(self) -> None:
        if self._stopped:
            raise TaskStopped(f"{self._label} was stopped")

    def stop(self, grace_seconds: float) -> None:
        """End the call's processes: TERM now, KILL after the grace; then the call, if it did not end by that."""
        future = self.future
        if future is None or not future.fail_on_exit(TaskStopped(f"{self._label} was stopped")):
            if future is not None:
                self._give_up(future)  # it waits for a thread, or has ended
            return
        now = monotonic()
        with self._lock:
            self._stopped = True
            self._ending.stop(grace_seconds, now)
        if not self.advance(now):
            self._calls.watch(self)

    def advance(self, now: float) -> bool:
        """Send what is due, give up a call whose processes have ended; return whether there is no more to do."""
        with self._lock:
            alive = self._ending.advance(now)
            if self._ended and not alive:
                return True
            gives_up = not self._given_up and self._is_stuck(now, alive=bool(alive))
            if gives_up:
                self._given_up = True
                self._ending.stop(0.0, now)
        if gives_up and self.future is not None:
            self._give_up(self.future)
        return self._ended and now >= self._ending.kill_at + _GIVE_UP_SECONDS

    def _is_stuck(self, now: float, *, alive: bool) -> bool:
        if alive:
            self._idle_since = now
            return now >= self._ending.kill_at + _INSIST_SECONDS
        return self._idle_since is None or now >= self._idle_since + _SETTLE_SECONDS

    def _end_left(self) -> tuple[str, ...]:
        with self._lock:
            left = self._ending.advance(monotonic())
        if not left:
            return ()
        names = tuple(f"{procfs.read_command_name(pid)} (pid {pid})" for pid in left)
        now = monotonic()
        with self._lock:
            self._ending.leave(now)
        while left and now < self._ending.kill_at + _GIVE_UP_SECONDS:
            child_processes.wait_for_an_end(left, _LOOK_SECONDS)
            now = monotonic()
            with self._lock:
                left = self._ending.advance(now)
        return () if self._stopped else names

    def _roots(self) -> set[int]:
        if not self.thread:
            return set()
        mine = set(procfs.list_thread_children(self.thread)) - self._calls.exempt()
        return mine | self._calls.strays() if self._calls.is_alone(self) else mine


class ThreadCalls:
    """The calls that run in threads of this process.

    Guarantees: a call's processes end with it, or with its stop. Processes whose call the kernel does not tell (of
    threads that the call started, or orphans of its processes) are ended with the call if no other one runs, and at
    the latest by `end_strays`. Children that this process had before `prepare` are left alone.
    """

    def __init__(self, exempt: Callable[[], set[int]]) -> None:
        self._lock = threading.Condition()  # guards: _running, _stopping, _watcher
        self._running: set[ThreadCall] = set()
        self._stopping: set[ThreadCall] = set()
        self._watcher: threading.Thread | None = None
        self._exempt = exempt
        self._before: set[int] = set()
        self._prepared = False
        self._orphans = Orphans()

    def prepare(self) -> None:
        """Adopt what calls leave without a parent, and note the children that are no call's."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if not self._running:
            self._before = procfs.list_children("self")
        self._prepared = True

    def add(self, call: ThreadCall) -> None:
        with self._lock:
            self._running.add(call)

    def remove(self, call: ThreadCall) -> None:
        with self._lock:
            self._running.discard(call)

    @property
    def go_on(self) -> bool:
        """Whether a thread still runs a call."""
        return bool(self._running)

    def is_alone(self, call: ThreadCall) -> bool:
        return self._running == {call}

    def exempt(self) -> set[int]:
        """Return the children that belong to no call."""
        return self._exempt() | child_processes.helpers()

    def strays(self) -> set[int]:
        """Return the children of threads that are no pool's; none between runs, when this process has its own."""
        if not self._prepared:
            return set()
        ours = list_pool_threads()
        found = procfs.list_children("self")
        for thread in ours:
            found.difference_update(procfs.list_thread_children(thread))
        return found - self._before - self.exempt()

    def end_strays(self) -> None:
        """End what is left of calls when a run is over. Blocks until it has ended."""
        left = child_processes.end_left(child_processes.Ending(self.strays))
        if left:
            log.warning("calls left processes behind: ended", extra={"processes": child_processes.listed(left)})
        self._prepared = False
        if monotonic() >= self._orphans.due_seconds:
            self._orphans.reap(monotonic())

    def watch(self, call: ThreadCall) -> None:
        """Have a stopped call seen to until it has ended."""
        with self._lock:
            self._stopping.add(call)
            self._lock.notify()
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._see_to_all, name="paropt-stopped-calls", daemon=True)
                self._watcher.start()

    def _see_to_all(self) -> None:
        """Look at stopped calls until each has ended: /proc tells of no new process by itself."""
        while (calls := self._to_see_to()) is not None:
            now = monotonic()
            ended = {call for call in calls if call.advance(now)}
            with self._lock:
                self._stopping -= ended
                if self._stopping:
                    self._lock.wait(_LOOK_SECONDS)

    def _to_see_to(self) -> tuple[ThreadCall, ...] | None:
        with self._lock:
            if not self._stopping:
                self._watcher = None
                return None
            return tuple(self._stopping)
