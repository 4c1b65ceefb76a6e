"""Write output in a separate thread, so that a stalled reader blocks only that thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from msgspec import Struct

log = logging.getLogger(__name__)

MOST_CHARACTERS = 1 << 20  # in the queue: about 10,000 lines, at most 4 MB
_NEVER_SECONDS = 3600.0  # the longest wait of a condition


class _Job(Struct, frozen=True):
    write: Callable[[], None]
    characters: int
    lines: int


class BackgroundWriter:
    """A bounded queue of writes, and the one thread that performs them in order.

    ```
    put -> queue -> thread: write, write, ... with a regular tick in between
      '--- over MOST_CHARACTERS: dropped, and counted in a line after the queue
    ```
    Guarantees: `put` never waits for the reader; writes never overlap. If no thread can be started, `put` writes in the
    calling thread, and there are no ticks.
    """

    def __init__(self, name: str, *, say: Callable[[str], None], tell_idle: Callable[[], None]) -> None:
        """Start the thread. It calls `say` with a line about dropped lines, and `tell_idle` when the queue is empty."""
        self._say = say
        self._tell_idle = tell_idle
        self._inline = threading.RLock()  # guards: writing without a thread
        self._changed = threading.Condition()  # guards: everything below
        self._queue: deque[_Job] = deque()
        self._waiting_characters = 0
        self._dropped_lines = 0
        self._is_writing = False
        self._write_count = 0
        self._tick: Callable[[], None] | None = None
        self._tick_seconds = _NEVER_SECONDS
        self._next_tick_seconds = 0.0
        self.has_thread = True
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            self.has_thread = False
            log.warning("no thread for the screen: a stalled reader will stop the lane", extra={"err": str(error)})

    def put(self, write: Callable[[], None], *, characters: int = 0, lines: int = 0) -> None:
        """Queue a write. A write without characters is never dropped."""
        if not self.has_thread:
            with self._inline:
                write()
            return
        with self._changed:
            if characters and self._waiting_characters and self._waiting_characters + characters > MOST_CHARACTERS:
                self._dropped_lines += lines
                return
            if self._dropped_lines and characters:
                self._queue.append(self._take_drop_notice())
            self._queue.append(_Job(write, characters, lines))
            self._waiting_characters += characters
            self._changed.notify_all()

    def set_tick(self, action: Callable[[], None] | None, seconds: float = _NEVER_SECONDS) -> None:
        """Call `action` every `seconds` while the queue is empty; None: never. Only writes may call this."""
        self._tick, self._tick_seconds = action, seconds
        self._next_tick_seconds = time.monotonic() + seconds

    @property
    def write_count(self) -> int:
        """The number of completed writes, which grows as long as the reader makes progress."""
        with self._changed:
            return self._write_count

    @property
    def is_idle(self) -> bool:
        """Whether all output is written."""
        with self._changed:
            return not self._queue and not self._is_writing and not self._dropped_lines

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until all is written, or no write completes for `timeout_seconds`. Return whether all is written."""
        with self._changed:
            while self._queue or self._is_writing or self._dropped_lines:
                if not self._changed.wait_for(partial(self._has_progressed, self._write_count), timeout_seconds):
                    return False
        return True

    def _has_progressed(self, since: int) -> bool:
        return self._write_count != since

    def _take_drop_notice(self) -> _Job:
        count, self._dropped_lines = self._dropped_lines, 0
        lines = "1 line" if count == 1 else f"{count:,} lines"
        return _Job(lambda: self._say(f"{lines} not shown: the reader was too slow"), 0, 0)

    def _run(self) -> None:
        while True:
            job = self._wait_for_next()
            try:
                job()
            except Exception:  # a bug in the screen must not fail the work
                log.exception("the screen failed")
            with self._changed:
                self._is_writing = False
                self._write_count += 1
                self._changed.notify_all()
            if self.is_idle:
                self._tell_idle()

    def _wait_for_next(self) -> Callable[[], None]:
        """Wait for the next write or tick."""
        with self._changed:
            while not self._queue and not self._dropped_lines:
                left = self._next_tick_seconds - time.monotonic() if self._tick is not None else _NEVER_SECONDS
                if left <= 0 and self._tick is not None:
                    self._next_tick_seconds = time.monotonic() + self._tick_seconds
                    return self._tick
                self._changed.wait(min(left, _NEVER_SECONDS))
            job = self._queue.popleft() if self._queue else self._take_drop_notice()
            self._waiting_characters -= job.characters
            self._is_writing = True
            return job.write
