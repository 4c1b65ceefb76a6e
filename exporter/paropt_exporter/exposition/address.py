"""Turn addresses as exporter-toolkit writes them into listening sockets."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, MutableMapping, Sequence

from paropt_exporter.errors import UsageError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 10178
DEFAULT_TRIES = 10  # ports from the default one on: a run must not fail for a port that nobody asked for
BACKLOG = 4096  # clients wait here in order while all places are taken; the kernel's somaxconn bounds it
_FIRST_INHERITED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_FORM = "expected HOST:PORT, :PORT or [IPV6]:PORT"


def listen(addresses: Sequence[str], *, say: Callable[[str], None]) -> list[socket.socket]:
    """Return listening sockets for explicit addresses, or for the default one where none is given.

    Raises UsageError with one line if an explicit address can't be had. `say` is told when the default port was taken.
    """
    if not addresses:
        return [_listen_by_default(say)]
    sockets: list[socket.socket] = []
    try:
        sockets.extend(map(_listen_at, addresses))
    except UsageError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


def inherited(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that systemd opened for this process.

    Takes the variables that tell of them out of `environment`, and keeps the sockets from the commands that are run.
    Raises UsageError where there are none.
    """
    addressee, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if addressee != str(os.getpid()) or not count.isdecimal() or count == "0":
        raise UsageError("--web.systemd-socket: systemd gave no socket to this process: start it by a .socket unit")
    return [_taken_over(descriptor) for descriptor in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count))]


def parse(address: str) -> tuple[str, int]:
    """Split `host:port`, `:port` (every interface) or `[::1]:port`. Raises UsageError for anything else."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed):
        raise UsageError(f"address {address!r}: {_FORM}")
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise UsageError(f"address {address!r}: port {port!r} is not a number from 0 to 65535; {_FORM}")
    return host.removeprefix("[").removesuffix("]") if bracketed else host, int(port)


def text(listener: socket.socket) -> str:
    """Return where a socket listens, with the real port, as `host:port`."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _taken_over(descriptor: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=descriptor)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise UsageError(f"--web.systemd-socket: descriptor {descriptor}: {error.strerror}") from None
    if not listening:
        raise UsageError(f"--web.systemd-socket: descriptor {descriptor} does not listen: use ListenStream=, Accept=no")
    listener.setblocking(False)
    listener.set_inheritable(False)
    return listener


def _listen_by_default(say: Callable[[str], None]) -> socket.socket:
    for port in range(DEFAULT_PORT, DEFAULT_PORT + DEFAULT_TRIES):
        try:
            listener = _open(socket.AF_INET, (DEFAULT_HOST, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UsageError(f"address {DEFAULT_HOST}:{port}: {error.strerror or error}") from error
            continue
        if port != DEFAULT_PORT:
            say(f"port {DEFAULT_PORT} is taken, listening on {text(listener)}")
        return listener
    last = DEFAULT_PORT + DEFAULT_TRIES - 1
    raise UsageError(
        f"ports {DEFAULT_PORT} to {last} of {DEFAULT_HOST} are all taken; "
        f"name a free one with --web.listen-address, or let the system choose with {DEFAULT_HOST}:0"
    )


def _listen_at(address: str) -> socket.socket:
    host, port = parse(address)
    try:
        if not host:
            return _open_everywhere(port)
        family, _, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        return _open(family, place)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA can't encode
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"address {address!r} can't be had: {reason}; name another with --web.listen-address"
        ) from error


def _open_everywhere(port: int) -> socket.socket:
    """Listen on every interface, by one IPv6 socket that takes IPv4 too where there is IPv6."""
    if socket.has_dualstack_ipv6():
        try:
            return _open(socket.AF_INET6, ("::", port), dual=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _open(socket.AF_INET, ("0.0.0.0", port))  # nosec B104 # `:port` asks for exactly this


def _open(family: int, place: tuple[object, ...], *, dual: bool = False) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of an earlier run that linger in TIME_WAIT must not keep the port; on Linux two listeners
        # still can't share it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        listener.bind(place)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:  # nothing may leave the socket open; raised again
        listener.close()
        raise
    return listener
