"""Events of files from the kernel, in bursts, or a regular call where the kernel sends none."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator
from types import TracebackType

log = logging.getLogger(__name__)

_DEBOUNCE_MS = 300  # an editor or a checkout writes several files within this time
_STEP_MS = 50
_TIMEOUT_MS = 500
_TIMEOUTS_PER_SCAN = 60  # half a minute: an overflow of the kernel's queue loses no change for longer
_POLL_SECONDS = 2.0  # without inotify
_MOST_FAILURES = 3  # of watchfiles in a row: then no events are to be expected


class FileEvents:
    """`with FileEvents(folder, is_quiet, on_burst, say):` calls `on_burst` after each burst of events, and every 30 s.

    It also calls it once events arrive, and passes the number of events. If the kernel sends none, `on_burst` is called
    every `poll_seconds`; an error of watchfiles delays a call by as much. Paths for which `is_quiet` is true cause no
    call. While `is_pending` is true, `on_burst` is called every half second. All are called on this thread, with paths
    relative to the folder.
    """

    def __init__(
        self,
        folder: str,
        is_quiet: Callable[[str], bool],
        on_burst: Callable[[int], None],
        say: Callable[[str], None],
        *,
        is_pending: Callable[[], bool] = lambda: False,
        poll_seconds: float = _POLL_SECONDS,
        watch: Callable[..., Iterator[Collection[object]]] | None = None,
    ) -> None:
        """`watch`: in place of `watchfiles.watch`."""
        self._poll_seconds = poll_seconds
        self._watch = watch
        self._failures = 0  # of watchfiles, since it last worked
        self._passes_over_denied = False  # folders that this user may not read
        self._folder = os.path.realpath(folder)
        self._is_quiet = is_quiet
        self._on_burst = on_burst
        self._is_pending = is_pending
        self._say = say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paropt-watch", daemon=True)

    def __enter__(self) -> FileEvents:
        self._thread.start()  # a lane need not wait for the watches: what changes meanwhile is looked for
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_POLL_SECONDS)

    def _run(self) -> None:
        idle = _TIMEOUTS_PER_SCAN  # look once events arrive: some may have been missed while the watches were set up
        while not self._stop.is_set():
            try:
                self._wait_for_events(idle)
            except Exception as error:
                if isinstance(error, PermissionError) and not self._passes_over_denied:
                    # Only now: watchfiles then passes over the limit of watches, too, and sees no change beyond it.
                    self._passes_over_denied = True
                    continue
                self._failures += 1
                is_lasting = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
                if is_lasting or self._failures >= _MOST_FAILURES:
                    self._poll(error)
                    return
                if isinstance(error, OSError | RuntimeError):  # watchfiles' own, such as for a name that is not UTF-8
                    log.info("watching files begins again", extra={"err": str(error)})
                else:
                    log.exception("watching files begins again")
                self._stop.wait(self._poll_seconds)
                idle = _TIMEOUTS_PER_SCAN

    def _poll(self, error: Exception) -> None:
        """Do without events: the limit of inotify's watches or instances is reached, or the file system has none."""
        reason = str(error).partition(" about [")[0].rstrip(".")  # without watchfiles' details
        self._say(f"--watch: no file events ({reason}): checking every {self._poll_seconds:g} s")
        while not self._stop.wait(self._compute_interval()):
            self._on_burst(0)

    def _compute_interval(self) -> float:
        return min(self._poll_seconds, _TIMEOUT_MS / 1000) if self._is_pending() else self._poll_seconds

    def _wait_for_events(self, idle: int) -> None:
        """Call `on_burst` for events, and whenever none came for long; `idle`: how many timeouts have passed."""
        import watchfiles  # here: only --watch needs it

        for burst in (self._watch or watchfiles.watch)(
            self._folder,
            watch_filter=lambda _, path: not self._is_quiet(os.path.relpath(path, self._folder)),
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            rust_timeout=_TIMEOUT_MS,
            stop_event=self._stop,
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=self._passes_over_denied,
        ):
            self._failures = 0
            idle = 0 if burst else idle + 1
            if burst or idle >= _TIMEOUTS_PER_SCAN or self._is_pending():
                idle = 0
                self._on_burst(len(burst))
