"""Take clients in at the listening sockets, and rest a moment when the process has no descriptor left for one."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
from collections.abc import Callable, Sequence
from functools import partial

from paropt_exporter.clock import Clock

log = logging.getLogger(__name__)

_REST_SECONDS = 1.0  # before accepting again when the process is out of descriptors
_AT_ONCE = 64
_OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """The listening sockets in a selector; `take` gets each accepted one with its peer's address.

        open --no descriptor left--> resting --reopen after a rest--> open --shut--> shut for good
        open --no room------------> full ----reopen once there is room--> open

    Clients that come while it rests or is full wait in the kernel's queue, in order. Not thread-safe: the thread that
    selects alone calls it, and is called by it.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        selector: selectors.BaseSelector,
        take: Callable[[socket.socket, object], None],
        clock: Clock,
        *,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._listeners = tuple(listeners)
        self._selector, self._take, self._clock, self._has_room = selector, take, clock, has_room
        self.full = False
        self.opens_at_seconds: float | None = None  # the end of a rest
        self._open()

    def reopen(self, now_seconds: float) -> None:
        """Accept again if a rest is over, or if there is room again."""
        rested = self.opens_at_seconds is not None and self.opens_at_seconds <= now_seconds
        if rested or (self.full and self._has_room()):
            self.opens_at_seconds, self.full = None, False
            self._open()

    def shut(self) -> None:
        """Take nobody in any more; who waits is refused once the sockets are closed."""
        self.opens_at_seconds, self.full = None, False
        for listener in self._listeners:
            if listener in self._selector.get_map():
                self._selector.unregister(listener)

    def close(self) -> None:
        """Close the sockets."""
        for listener in self._listeners:
            listener.close()

    def _open(self) -> None:
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))

    def _accept(self, listener: socket.socket) -> None:
        # A few at a time: those accepted before get their turn to speak before newer ones can push them out.
        for _ in range(_AT_ONCE):
            if not self._has_room():
                self.shut()
                self.full = True
                return
            try:
                accepted, peer = listener.accept()
            except OSError as error:
                if error.errno in _OUT_OF:
                    self._rest(error)
                return  # nobody is waiting any more, or the client has left again
            self._take(accepted, peer)

    def _rest(self, error: OSError) -> None:
        """Stop accepting for a moment: a waiting client would otherwise wake this thread in a busy loop."""
        log.warning("no descriptor left for a scrape", extra={"err": error.strerror, "retry_seconds": _REST_SECONDS})
        self.shut()
        self.opens_at_seconds = self._clock.monotonic() + _REST_SECONDS
