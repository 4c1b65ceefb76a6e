"""Run calls of stages in threads of this process, and end the child processes of each call with it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from paropt_exporter import descriptors
from paropt_exporter.errors import TaskStopped, join_names
from paropt_exporter.executors import child_processes, procfs
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.project_modules import ProjectModules
from paropt_exporter.executors.thread_group import list_own_threads

if TYPE_CHECKING:
    from paropt_exporter.executors.calls import CallOutcome

log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_RETURN_SECONDS = 0.2  # within this time, a call that waited for an ended process returns or raises
_KILL_REPEAT_SECONDS = 1.0  # after SIGKILL: a call that starts process after process must not block its worker
_POLL_SECONDS = 0.1


class ThreadCall:
    """One call, from its submission until its thread has finished with it.

    queued --run--> running --(returns, raises)--> its left processes are ended --> ended
                       └--stop--> SIGTERM, SIGKILL to its processes --> ended, or abandoned: its thread continues,
                                                                        and each process that it starts is killed
    """

    def __init__(self, calls: ThreadCalls, label: str, abandon: Callable[[TaskFuture[CallOutcome]], object]) -> None:
        self.future: TaskFuture[CallOutcome] | None = None  # set once it is submitted
        self.thread = 0  # native id; 0: not running
        self._calls = calls
        self._label = label
        self._abandon = abandon
        self._lock = threading.Lock()  # guards: the ending, and everything below
        self._termination = child_processes.Termination(self._find_roots, calls.list_exempt)
        self._stopped = self._abandoned = self._ended = False
        self._idle_since: float | None = None  # since when a stopped call has had no process

    @property
    def is_abandoned(self) -> bool:
        return self._abandoned

    def run(self, root: str, target: str, arguments: tuple[str, ...], output_path: str | None = None) -> CallOutcome:
        """Run the call in the calling thread."""
        self._calls.add(self, root)
        try:
            self._claim_thread()
            from paropt_exporter.executors.calls import run_call  # here: if it is loaded, user code may have run

            with descriptors.kept_limit():
                outcome = run_call(root, target, arguments, end_leftovers=self._end_leftovers, output_path=output_path)
            self._check_stopped()
            return outcome
        finally:
            with self._lock:
                self.thread, self._ended = 0, True
            self._calls.remove(self)

    def _claim_thread(self) -> None:
        with self._lock:
            self._check_stopped()
            self.thread = threading.get_native_id()

    def _check_stopped(self) -> None:
        if self._stopped:
            raise TaskStopped(f"{self._label} was stopped")

    def stop(self, grace_seconds: float) -> None:
        """End the call's processes: SIGTERM now, SIGKILL after the grace; then abandon the call if it has not ended."""
        future = self.future
        if future is None or not future.fail_on_exit(TaskStopped(f"{self._label} was stopped")):
            if future is not None:
                self._abandon(future)  # it is queued, or has ended
            return
        now = monotonic()
        with self._lock:
            self._stopped = True
            self._termination.stop(grace_seconds, now)
        if not self.advance(now) and not self._calls.watch(self):
            self._abandon_now(future, now)

    def _abandon_now(self, future: TaskFuture[CallOutcome], now: float) -> None:
        """Kill the processes and abandon the call now, since no thread would do so after the grace."""
        with self._lock:
            self._abandoned = True
            self._termination.stop(0.0, now)
            self._termination.advance(now)
        self._abandon(future)

    def advance(self, now: float) -> bool:
        """Send the signals that are due, abandon a stuck call, and return whether the stop is complete."""
        with self._lock:
            alive = self._termination.advance(now)
            if self._ended and not alive:
                return True
            abandons = not self._abandoned and self._is_stuck(now, alive=bool(alive))
            if abandons:
                self._abandoned = True
                self._termination.stop(0.0, now)
        if abandons and self.future is not None:
            self._abandon(self.future)
        return self._ended and now >= self._termination.kill_at + child_processes.MAX_KILL_SECONDS

    def _is_stuck(self, now: float, *, alive: bool) -> bool:
        if alive:
            self._idle_since = now
            return now >= self._termination.kill_at + _KILL_REPEAT_SECONDS
        return self._idle_since is None or now >= self._idle_since + _RETURN_SECONDS

    def _end_leftovers(self) -> tuple[str, ...]:
        names = child_processes.end_leftovers(self._termination)
        return () if self._stopped else names

    def _find_roots(self) -> set[int]:
        if not self.thread:
            return set()
        mine = set(procfs.list_thread_children(self.thread))
        return mine | self._calls.list_strays() if self._calls.is_only_call(self) else mine


class ThreadCalls:
    """The calls that run in threads of this process.

    Guarantees: the processes of a call end when it ends or is stopped. For some processes the kernel does not show to
    which call they belong (children of threads that the call started, orphans of its processes): these strays are ended
    with the call if no other call runs, otherwise by `end_strays`. Children that existed before `prepare` stay.
    """

    def __init__(self, list_exempt: Callable[[], set[int]]) -> None:
        self._lock = threading.Condition()  # guards: _running, _stopping, _watcher, _modules, _folder_before
        self._running: set[ThreadCall] = set()
        self._stopping: set[ThreadCall] = set()
        self._watcher: threading.Thread | None = None
        self._list_exempt_pids = list_exempt
        self._before: set[int] = set()
        self._prepared = False
        self._modules = ProjectModules()
        self._folder_before = ""

    def prepare(self) -> None:
        """Become the parent of orphaned processes of calls, and note the children that belong to no call."""
        import ctypes  # here: only lanes with calls need it

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if not self._running:
            self._before = procfs.list_children("self")
        self._prepared = True

    def add(self, call: ThreadCall, root: str) -> None:
        """Add a call that begins. The only one starts in `root`, and imports changed modules there again.

        Abandoned calls, which may never end, don't keep the others from that: the change may be what repairs them.
        """
        with self._lock:
            if all(each.is_abandoned for each in self._running):
                self._modules.forget_changed(root)
            if not self._running:
                self._enter(root)
            self._running.add(call)

    def remove(self, call: ThreadCall) -> None:
        with self._lock:
            self._running.discard(call)
            if not self._running:
                self._leave()

    def _enter(self, folder: str) -> None:
        with suppress(OSError):  # one of them has been deleted
            self._folder_before = os.getcwd()  # noqa: PTH109 -- a text
            os.chdir(folder)

    def _leave(self) -> None:
        with suppress(OSError):
            os.chdir(self._folder_before)

    @property
    def has_running(self) -> bool:
        """Whether a thread runs a call."""
        return bool(self._running)

    def is_only_call(self, call: ThreadCall) -> bool:
        return self._running == {call}

    def list_exempt(self) -> set[int]:
        """Return the children that belong to no call."""
        return self._list_exempt_pids() | child_processes.list_helpers()

    def list_strays(self) -> set[int]:
        """Return the children of threads that are not this package's; none between runs, when no call started them."""
        if not self._prepared:
            return set()
        found = procfs.list_children("self")
        for thread in list_own_threads():  # of which the cache's runs git
            found.difference_update(procfs.list_thread_children(thread))
        return found - self._before - self.list_exempt()

    def end_strays(self) -> None:
        """At the end of a run, end the processes that calls have left. Blocks until they have exited."""
        left = child_processes.end_leftovers(child_processes.Termination(self.list_strays, self.list_exempt))
        if left:
            log.warning("calls left processes behind: ended", extra={"processes": join_names(left)})
        self._prepared = False

    def watch(self, call: ThreadCall) -> bool:
        """Watch a stopped call in another thread until it has ended; return False if the system refuses the thread."""
        with self._lock:
            self._stopping.add(call)
            self._lock.notify()
            if self._watcher is None:
                watcher = threading.Thread(target=self._watch_stopped, name="paropt-stopped-calls", daemon=True)
                try:
                    watcher.start()
                except RuntimeError as error:
                    log.warning("the system starts no thread to watch stopped calls", extra={"err": str(error)})
                    return False
                self._watcher = watcher
            return True

    def _watch_stopped(self) -> None:
        """Poll stopped calls until each has ended, since /proc does not notify of new processes."""
        while (calls := self._get_stopping()) is not None:
            now = monotonic()
            ended = {call for call in calls if call.advance(now)}
            with self._lock:
                self._stopping -= ended
                if self._stopping:
                    self._lock.wait(_POLL_SECONDS)

    def _get_stopping(self) -> tuple[ThreadCall, ...] | None:
        with self._lock:
            if not self._stopping:
                self._watcher = None
                return None
            return tuple(self._stopping)
