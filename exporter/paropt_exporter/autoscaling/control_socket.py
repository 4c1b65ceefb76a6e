"""Take pin, pause, resume and show requests for a running lane on a Unix socket that only its owner may use."""

from __future__ import annotations

import _socket  # `socket` loads `selectors` and takes 2 ms
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic

from msgspec import Struct

from paropt_exporter import files, plain_json
from paropt_exporter.autoscaling.state import PAUSE, PIN, ControlState, Override
from paropt_exporter.errors import ParoptError

log = logging.getLogger(__name__)

FOLDER = Path(".paropt", "control")
SUFFIX = ".sock"
LONGEST_LINE_BYTES = 4096  # the longest valid request has under a hundred
TIMEOUT_SECONDS = 5.0  # for a whole request and its answer
_MOST_CLIENTS = 8  # at once, with one thread each; the server closes further connections
_ACCEPT_RETRY_SECONDS = 1.0  # after accept() failed, usually for lack of descriptors
SHOW, RESUME = "show", "resume"
_COMMANDS = (PIN, PAUSE, RESUME, SHOW)


class RequestRefused(ParoptError):
    """The exporter can't follow a request; the message says why."""

    exit_code = 2


class ControlRequest(Struct, frozen=True, kw_only=True):
    """A request to an exporter. `size` is the size of a pin; `pool`, if given, must be one of its lane's pools."""

    command: str
    size: int | None = None
    pool: str | None = None


class ControlSocket:
    """The control socket of one exporter, `.paropt/control/PID-XXXXXX.sock`.

        client --one line of JSON--> thread per client --Override--> ControlState --> Controller, metrics
               <--one line of JSON-- (the lane's state, or {"error": ...})

    Guarantees: the socket's mode is 0600 before a client can connect; a slow, silent or faulty client delays no other;
    `close` removes the file. The constructor removes sockets of killed exporters. `refusal_reason`: why the lane's
    size can't be changed; "" if it can.
    """

    def __init__(self, root: Path, control_state: ControlState, *, lane: str, refusal_reason: str = "") -> None:
        self._control_state = control_state
        self._lane = lane
        self._refusal_reason = refusal_reason
        self._client_slots = threading.BoundedSemaphore(_MOST_CLIENTS)
        self._closed = threading.Event()
        folder = root / FOLDER
        files.make_folder(folder)
        _remove_stale_sockets(folder)
        # The pid alone is not unique: two containers that share the folder may both be process 1.
        self._path = folder / f"{os.getpid()}-{os.urandom(3).hex()}{SUFFIX}"
        self._listener = _open_listener(self._path)
        self._thread = threading.Thread(target=self._accept_clients, name="paropt-orders", daemon=True)
        self._thread.start()

    @property
    def is_in_place(self) -> bool:
        """Whether commands find the socket: `git clean -fdx` removes it."""
        return files.exists(self._path)

    def close(self) -> None:
        """Remove the socket and wait for its thread to end, unless a Python call has closed the descriptor."""
        self._closed.set()
        with suppress(OSError):  # its folder was removed or made read-only
            self._path.unlink()
        with suppress(OSError):
            self._listener.shutdown(_socket.SHUT_RDWR)  # close() alone would leave the thread in accept()
        self._thread.join(TIMEOUT_SECONDS)
        with suppress(OSError):
            self._listener.close()

    def _accept_clients(self) -> None:
        while not self._closed.is_set():
            try:
                descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # as `socket.accept` does
            except OSError as error:
                if not self._closed.wait(_ACCEPT_RETRY_SECONDS):
                    log.warning("can't accept a control request", extra={"err": str(error)})
                continue
            client = _socket.socket(fileno=descriptor)
            if not self._client_slots.acquire(blocking=False):
                client.close()
                continue
            try:
                threading.Thread(target=self._serve_client, args=(client,), name="paropt-order", daemon=True).start()
            except RuntimeError:  # the system starts no more threads
                self._serve_client(client)

    def _serve_client(self, client: _socket.socket) -> None:
        try:
            with closing(client):
                answer = self._answer_request(_receive_line(client, monotonic() + TIMEOUT_SECONDS))
                client.sendall(plain_json.dumps(answer).encode() + b"\n")
        except OSError as error:  # the client has gone, or was too slow
            log.debug("gave up a control client", extra={"err": str(error)})
        finally:
            self._client_slots.release()

    def _answer_request(self, line: bytes) -> dict[str, object]:
        try:
            self._apply_request(_parse_request(line))
        except RequestRefused as refusal:
            return {"error": str(refusal)}
        override = self._control_state.override
        return {
            "pid": os.getpid(),
            "lane": self._lane,
            "pools": list(self._control_state.pools),
            "mode": override.mode,
            "size": override.size,
        }

    def _apply_request(self, request: ControlRequest) -> None:
        pools = self._control_state.pools
        if request.pool is not None and request.pool not in pools:
            raise RequestRefused(f"no pool {request.pool!r} in lane {self._lane}: choose from {', '.join(pools)}")
        if request.command == SHOW:
            return
        if self._refusal_reason:
            raise RequestRefused(self._refusal_reason)
        override = None if request.command == RESUME else Override(mode=request.command, size=request.size)
        self._control_state.set_override(override)
        facts = {"lane": self._lane, "order": request.command, "size": request.size}
        log.info("control request applied", extra={name: fact for name, fact in facts.items() if fact is not None})


def open_control_socket(
    root: Path, control_state: ControlState, *, lane: str, refusal_reason: str = ""
) -> ControlSocket | None:
    """Open the lane's control socket. If that fails, log a warning and return None, since the run must go on."""
    try:
        return ControlSocket(root, control_state, lane=lane, refusal_reason=refusal_reason)
    except OSError as error:
        facts = {"path": str(root / FOLDER), "err": error.strerror or str(error)}
        log.warning("pin, pause and resume won't work", extra=facts)
        return None


def iter_sockets(folder: Path) -> Iterator[Path]:
    """Yield the control sockets in a folder. Links are skipped, since others may have chosen their targets."""
    return files.iter_sockets(folder, SUFFIX)


def send_request(path: Path, request: ControlRequest) -> dict[str, object]:
    """Send a request to the exporter behind a socket and return its lane's new state; blocks for TIMEOUT_SECONDS.

    Raises RequestRefused with the exporter's reason, and OSError if no exporter answers in time.
    """
    document = {"order": request.command, "size": request.size, "pool": request.pool}
    with closing(_connect(path)) as client:
        client.sendall(plain_json.dumps(document).encode() + b"\n")
        line = _receive_line(client, monotonic() + TIMEOUT_SECONDS)
    answer = _parse_object(line)
    if answer is None:
        raise OSError("the answer is not a line of JSON")
    if "error" in answer:
        raise RequestRefused(str(answer["error"]))
    return answer


def _parse_request(line: bytes) -> ControlRequest:
    from paropt_exporter.config.units import MOST_WORKERS

    document = _parse_object(line)
    if document is None:
        raise RequestRefused('expected one line of JSON like {"order": "pin", "size": 4}')
    command, size, pool = document.get("order"), document.get("size"), document.get("pool")
    if not isinstance(command, str) or command not in _COMMANDS:
        raise RequestRefused(f"no order {command!r}: choose from {', '.join(_COMMANDS)}")
    if pool is not None and not isinstance(pool, str):
        raise RequestRefused(f"expected the name of a pool, found {pool!r}")
    if command != PIN:
        return ControlRequest(command=command, pool=pool)
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MOST_WORKERS:
        raise RequestRefused(f"expected a size from 1 to {MOST_WORKERS}, found {size!r}")
    return ControlRequest(command=command, size=size, pool=pool)


def _parse_object(line: bytes) -> dict[str, object] | None:
    try:
        value = plain_json.loads(line.strip())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _receive_line(peer: _socket.socket, deadline: float) -> bytes:
    """Receive up to the end of a line or LONGEST_LINE_BYTES; one deadline bounds all reads."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_LINE_BYTES:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError("no whole line in time")
        peer.settimeout(left)
        part = peer.recv(LONGEST_LINE_BYTES)
        if not part:
            break
        line += part
    return line


def _open_listener(path: Path) -> _socket.socket:
    # The socket gets its final name once it listens; until then _remove_stale_sockets() would take it for a dead one.
    temporary = path.with_suffix(".new")
    listener = _socket.socket(_socket.AF_UNIX)
    try:
        with files.shorten_socket_path(temporary) as address:
            listener.bind(address)
        temporary.chmod(0o600)  # before listen(), so that no client connects with the umask's mode
        listener.listen(_MOST_CLIENTS)
        temporary.rename(path)
    except OSError:
        listener.close()
        temporary.unlink(missing_ok=True)
        raise
    return listener


def _connect(path: Path) -> _socket.socket:
    client = _socket.socket(_socket.AF_UNIX)
    try:
        client.settimeout(TIMEOUT_SECONDS)
        with files.shorten_socket_path(path) as address:
            client.connect(address)
    except OSError:
        client.close()
        raise
    return client


def _remove_stale_sockets(folder: Path) -> None:
    for path in iter_sockets(folder):
        try:
            _connect(path).close()
        except ConnectionRefusedError:  # its process is dead
            with suppress(OSError):
                path.unlink()
        except OSError:
            continue  # another user's socket, or one that is too busy to answer
