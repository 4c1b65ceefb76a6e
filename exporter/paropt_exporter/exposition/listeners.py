"""Open listening sockets and accept clients; addresses have the form of Prometheus' exporter-toolkit."""

from __future__ import annotations

import _socket  # `socket` loads `selectors` and takes 2 ms
import errno
import logging
import os
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from paropt_exporter.clock import Clock
from paropt_exporter.errors import UsageError

if TYPE_CHECKING:
    import selectors
    import socket

log = logging.getLogger(__name__)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 10178
DEFAULT_TRIES = 10  # consecutive ports from the default one on: a run must not fail because the default port is taken
BACKLOG = 4096  # clients wait here, in order, while all connections are in use; the kernel's somaxconn bounds it
_FIRST_INHERITED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_PAUSE_SECONDS = 1.0  # before accepting again when the process is out of descriptors
_ACCEPTS_PER_EVENT = 64
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # such as ::1 in a container without IPv6
_FORM = "expected HOST:PORT, :PORT or [IPV6]:PORT"
_LONGEST_PORT = 5  # digits


def open_listeners(addresses: Sequence[str], *, on_fallback: Callable[[str], None]) -> list[_socket.socket]:
    """Open a listening socket for each address, or for the default address if none is given.

    A host name may have several addresses, such as 127.0.0.1 and ::1 of localhost: each of them gets a socket.
    Calls `on_fallback` with a message if the default port is taken and another one is used.
    Raises UsageError, one line, for an explicit address that is malformed or unavailable.
    """
    if not addresses:
        return [_listen_on_default_port(on_fallback)]
    sockets: list[_socket.socket] = []
    try:
        for address in addresses:
            sockets.extend(_listen_on(address))
    except UsageError:
        _close_all(sockets)
        raise
    return sockets


def inherit_listeners(environment: MutableMapping[str, str]) -> list[_socket.socket]:
    """Return the listening sockets that systemd passed to this process.

    Removes systemd's variables from `environment` and makes the sockets non-inheritable, so that commands get neither.
    Raises UsageError if there are none.
    """
    addressee, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if addressee != str(os.getpid()) or not count.isdecimal() or count == "0":
        raise UsageError("--web.systemd-socket: systemd gave no socket to this process: start it by a .socket unit")
    return [_adopt_descriptor(descriptor) for descriptor in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count))]


def parse_address(address: str) -> tuple[str, int]:
    """Split `host:port`, `:port` (all interfaces) or `[::1]:port`. Raises UsageError for other forms."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed):
        raise UsageError(f"address {address!r}: {_FORM}")
    if not (port.isascii() and port.isdecimal() and len(port) <= _LONGEST_PORT) or int(port) > 65535:
        raise UsageError(f"address {address!r}: port {port!r} is not a number from 0 to 65535; {_FORM}")
    return host.removeprefix("[").removesuffix("]") if bracketed else host, int(port)


def format_address(listener: _socket.socket) -> str:
    """Return a socket's address, with the real port, as `host:port`."""
    name = listener.getsockname()
    if listener.family == _socket.AF_UNIX:
        return f"unix:{name}"
    if listener.family == _socket.AF_VSOCK:  # between a virtual machine and its host
        return f"vsock:{name[0]}:{name[1]}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _adopt_descriptor(descriptor: int) -> _socket.socket:
    try:
        listener = _socket.socket(fileno=descriptor)
        listening = listener.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN)
    except OSError as error:
        raise UsageError(f"--web.systemd-socket: descriptor {descriptor}: {error.strerror}") from None
    if not listening:
        raise UsageError(f"--web.systemd-socket: descriptor {descriptor} does not listen: use ListenStream=, Accept=no")
    listener.setblocking(False)
    os.set_inheritable(descriptor, False)
    return listener


def _listen_on_default_port(on_fallback: Callable[[str], None]) -> _socket.socket:
    for port in range(DEFAULT_PORT, DEFAULT_PORT + DEFAULT_TRIES):
        try:
            listener = _open_socket(_socket.AF_INET, (DEFAULT_HOST, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UsageError(f"address {DEFAULT_HOST}:{port}: {error.strerror or error}") from error
            continue
        if port != DEFAULT_PORT:
            on_fallback(f"port {DEFAULT_PORT} is in use, listening on {format_address(listener)}")
        return listener
    last = DEFAULT_PORT + DEFAULT_TRIES - 1
    raise UsageError(
        f"ports {DEFAULT_PORT} to {last} of {DEFAULT_HOST} are all in use; "
        f"choose a free one with --web.listen-address, or let the system choose with {DEFAULT_HOST}:0"
    )


def _listen_on(address: str) -> list[_socket.socket]:
    host, port = parse_address(address)
    try:
        return _open_on_host(host, port) if host else [_open_on_all_interfaces(port)]
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA can't encode
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"cannot listen on {address!r}: {reason}; choose another address with --web.listen-address"
        ) from error


def _open_on_host(host: str, port: int) -> list[_socket.socket]:
    """Listen on each address of a host name that this machine has, all on one port; raise OSError if it has none."""
    # if it is given a str, getaddrinfo loads and runs the IDNA codec
    name = host.encode() if host.isascii() else host
    found = _socket.getaddrinfo(name, port, type=_socket.SOCK_STREAM, flags=_socket.AI_PASSIVE | _socket.AI_NUMERICSERV)
    places = dict.fromkeys((family, place) for family, _, _, _, place in found)
    sockets: list[_socket.socket] = []
    missing: OSError | None = None
    try:
        for family, (numeric_host, _, *rest) in sorted(places, key=lambda each: each[0] != _socket.AF_INET):
            chosen = sockets[0].getsockname()[1] if sockets else port  # the system chooses one for port 0
            try:
                sockets.append(_open_socket(family, (numeric_host, chosen, *rest)))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except OSError:
        _close_all(sockets)
        raise
    return sockets


def _close_all(sockets: Sequence[_socket.socket]) -> None:
    for listener in sockets:
        listener.close()


def _open_on_all_interfaces(port: int) -> _socket.socket:
    """Listen on all interfaces: with one dual-stack IPv6 socket where the host has IPv6, otherwise with an IPv4 one."""
    import socket  # here: only this address needs it

    if socket.has_dualstack_ipv6():
        try:
            return _open_socket(_socket.AF_INET6, ("::", port), dual=True)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    return _open_socket(_socket.AF_INET, ("0.0.0.0", port))  # nosec B104 # `:port` asks for exactly this


def _open_socket(family: int, place: tuple[object, ...], *, dual: bool = False) -> _socket.socket:
    listener = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        # An earlier run's connections in TIME_WAIT must not block the port. Two listeners can't share it, on Linux.
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            listener.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0 if dual else 1)
        listener.bind(place)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:  # close the socket whatever happened, then raise again
        listener.close()
        raise
    return listener


class Acceptor:
    """Accept clients at listening sockets and pass each one with its peer's address to `on_accept`.

        open --no descriptor left--> paused --resume after a second--> open --stop--> stopped
        open --no room-------------> full ----resume when there is room-> open

    While it is paused or full, clients wait in the kernel's queue, in order. Not thread-safe: only the selector's
    thread calls it and runs its callbacks.
    """

    def __init__(
        self,
        listeners: Sequence[_socket.socket],
        selector: selectors.BaseSelector,
        on_accept: Callable[[socket.socket, object], None],
        clock: Clock,
        *,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._listeners = tuple(listeners)
        self._selector, self._on_accept, self._clock, self._has_room = selector, on_accept, clock, has_room
        self.is_full = False
        self.resumes_at_seconds: float | None = None  # the end of a pause
        self._is_short = False  # of descriptors, since the last client that was accepted
        self._register()

    def resume_if_possible(self, now_seconds: float) -> None:
        """Accept clients again if the pause is over or there is room."""
        pause_is_over = self.resumes_at_seconds is not None and self.resumes_at_seconds <= now_seconds
        if pause_is_over or (self.is_full and self._has_room()):
            self.resumes_at_seconds, self.is_full = None, False
            self._register()

    def stop(self) -> None:
        """Accept no more clients. Clients in the kernel's queue are refused when the sockets close."""
        self.resumes_at_seconds, self.is_full = None, False
        for listener in self._listeners:
            if listener in self._selector.get_map():
                self._selector.unregister(listener)

    def close(self) -> None:
        """Close the sockets."""
        for listener in self._listeners:
            listener.close()

    def _register(self) -> None:
        import selectors

        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))

    def _accept(self, listener: _socket.socket) -> None:
        import socket

        # Only a few for each event, so that accepted clients can send a request before newer ones evict them.
        for _ in range(_ACCEPTS_PER_EVENT):
            if not self._has_room():
                self.stop()
                self.is_full = True
                return
            try:
                descriptor, peer = listener._accept()  # type: ignore[attr-defined]  # as `socket.socket.accept` does
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._pause(error)
                return  # no client is waiting, or it has disconnected
            self._is_short = False
            self._on_accept(socket.socket(fileno=descriptor), peer)

    def _pause(self, error: OSError) -> None:
        """Stop accepting for a second: a waiting client would otherwise wake this thread in a busy loop."""
        if not self._is_short:  # logged once, not every second
            facts = {"err": error.strerror, "retry_seconds": _PAUSE_SECONDS}
            log.warning("no descriptor left for a scrape", extra=facts)
        self._is_short = True
        self.stop()
        self.resumes_at_seconds = self._clock.monotonic() + _PAUSE_SECONDS
