"""Wait for events of files in a folder, in a thread of its own: inotify, or a look every two seconds without it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from types import TracebackType

log = logging.getLogger(__name__)

_DEBOUNCE_MS = 300  # an editor or a checkout writes several files within this time
_STEP_MS = 50
_TIMEOUT_MS = 500
_TIMEOUTS_PER_SCAN = 60  # half a minute: an overflow of the kernel's queue loses no change for longer
_POLL_SECONDS = 2.0  # without inotify


class FileEvents:
    """`with FileEvents(folder, is_quiet, on_burst):` calls `on_burst` after each burst of events, and every 30 s.

    An error of watchfiles delays a call by some two seconds. Paths for which `is_quiet` is true cause no call. Both are
    called on this thread, with paths relative to the folder.
    """

    def __init__(
        self, folder: str, is_quiet: Callable[[str], bool], on_burst: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self._folder = os.path.realpath(folder)
        self._is_quiet = is_quiet
        self._on_burst = on_burst
        self._say = say
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paropt-watch", daemon=True)

    def __enter__(self) -> FileEvents:
        self._thread.start()
        self._ready.wait(_POLL_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_POLL_SECONDS)

    def _run(self) -> None:
        idle = 0
        while not self._stop.is_set():
            try:
                self._wait_for_events(idle)
            except OSError as error:  # the limit of inotify watches, or a file system without events
                self._say(f"--watch: no events of files ({error}): looking every {_POLL_SECONDS:g} s")
                self._ready.set()
                while not self._stop.wait(_POLL_SECONDS):
                    self._on_burst()
            except Exception as error:
                if isinstance(error, RuntimeError):  # watchfiles' own, such as for a name that is not UTF-8
                    log.info("watching files begins again", extra={"err": str(error)})
                else:
                    log.exception("watching files begins again")
                self._stop.wait(_POLL_SECONDS)
                idle = _TIMEOUTS_PER_SCAN  # look once events arrive again: some may have been missed

    def _wait_for_events(self, idle: int) -> None:
        """Call `on_burst` for events, and whenever none came for long; `idle`: how many timeouts have passed."""
        import watchfiles  # here: only --watch needs it

        for burst in watchfiles.watch(
            self._folder,
            watch_filter=lambda _, path: not self._is_quiet(os.path.relpath(path, self._folder)),
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            rust_timeout=_TIMEOUT_MS,
            stop_event=self._stop,
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=True,
        ):
            self._ready.set()
            idle = 0 if burst else idle + 1
            if burst or idle >= _TIMEOUTS_PER_SCAN:
                idle = 0
                self._on_burst()
