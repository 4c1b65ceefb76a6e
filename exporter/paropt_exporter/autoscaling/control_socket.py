"""Take a person's orders to a running lane, pin, pause and resume, on a socket that only its owner may use."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from paropt_exporter import files
from paropt_exporter.autoscaling.state import PAUSE, PIN, ControlState, Order
from paropt_exporter.errors import ParoptError

log = logging.getLogger(__name__)

FOLDER = Path(".paropt", "control")
SUFFIX = ".sock"
LONGEST_LINE_BYTES = 4096  # the longest request that makes sense has under a hundred
PATIENCE_SECONDS = 5.0  # for a whole request and its answer
_MOST_CLIENTS = 8  # at once: one thread each; who comes beyond is cut off
_BREATH_SECONDS = 1.0  # after a fault of accept(), which comes from a lack of descriptors and passes
SHOW, RESUME = "show", "resume"
_ORDERS = (PIN, PAUSE, RESUME, SHOW)


class Refused(ParoptError):
    """An order that can't be followed; the message says why."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked of an exporter. `size` is that of a pin; `pool`, if given, must be one of its lane's."""

    order: str
    size: int | None = None
    pool: str | None = None


class OrderSocket:
    """The socket of one exporter, `.paropt/control/PID-XXXXXX.sock`.

        client --one line of JSON--> thread per client --Order--> Standing --> inner loop, metrics
               <--one line of JSON-- (how the lane stands now, or {"error": ...})

    Guarantees: its mode is 0600 before anybody can connect; a client that is slow, silent or talks nonsense costs
    nobody but itself; `close` takes the file away. Sockets that exporters left when they were killed are removed.
    `unsteerable` is "", or why the lane's size can't be changed.
    """

    def __init__(self, root: Path, control_state: ControlState, *, lane: str, unsteerable: str = "") -> None:
        self._control_state = control_state
        self._lane = lane
        self._refusal = unsteerable
        self._seats = threading.BoundedSemaphore(_MOST_CLIENTS)
        self._closed = threading.Event()
        folder = root / FOLDER
        files.make_folder(folder)
        _remove_stale(folder)
        # The id alone is not enough: two containers that share the folder may both be process 1.
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(3)}{SUFFIX}"
        self._listener = _listener(self._path)
        self._thread = threading.Thread(target=self._accept, name="paropt-orders", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more orders; returns when the thread has ended."""
        self._closed.set()
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close() alone would leave the thread in accept()
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                if not self._closed.wait(_BREATH_SECONDS):
                    log.warning("an order could not be taken", extra={"err": str(error)})
                continue
            if self._seats.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(client,), name="paropt-order", daemon=True).start()
            else:
                client.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                answer = self._answer(_received(client, monotonic() + PATIENCE_SECONDS))
                client.sendall(json.dumps(answer).encode() + b"\n")
        except OSError as error:  # it has gone, or was too slow
            log.debug("an order's client was given up", extra={"err": str(error)})
        finally:
            self._seats.release()

    def _answer(self, line: bytes) -> dict[str, object]:
        try:
            self._follow(_wish(line))
        except Refused as refusal:
            return {"error": str(refusal)}
        order = self._control_state.order
        return {
            "pid": os.getpid(),
            "lane": self._lane,
            "pools": list(self._control_state.pools),
            "mode": order.mode,
            "size": order.size,
        }

    def _follow(self, wish: Wish) -> None:
        if wish.pool is not None and wish.pool not in self._control_state.pools:
            raise Refused(
                f"no pool {wish.pool!r} in lane {self._lane}; there are {', '.join(self._control_state.pools)}"
            )
        if wish.order == SHOW:
            return
        if self._refusal:
            raise Refused(self._refusal)
        given = None if wish.order == RESUME else Order(mode=wish.order, size=wish.size)
        self._control_state.give(given)
        facts = {"lane": self._lane, "order": wish.order, "size": wish.size}
        log.info("an order was given", extra={name: fact for name, fact in facts.items() if fact is not None})


def open_orders(root: Path, control_state: ControlState, *, lane: str, unsteerable: str = "") -> OrderSocket | None:
    """Take orders for the lane from now on; None, with a warning, where no socket can be made: work must go on."""
    try:
        return OrderSocket(root, control_state, lane=lane, unsteerable=unsteerable)
    except OSError as error:
        log.warning("pin, pause and resume won't work", extra={"path": str(root / FOLDER), "err": str(error)})
        return None


def sockets(folder: Path) -> Iterator[Path]:
    """Yield where exporters may take orders; a link is skipped, since its author chose the socket that it names."""
    return files.iter_sockets(folder, SUFFIX)


def ask(path: Path, wish: Wish) -> dict[str, object]:
    """Put one wish to the exporter behind a socket and return how its lane stands then.

    Raises Refused with its answer if it says no, OSError if nobody answers there in time.
    """
    request = {"order": wish.order, "size": wish.size, "pool": wish.pool}
    with closing(_connected(path)) as client:
        client.sendall(json.dumps(request).encode() + b"\n")
        line = _received(client, monotonic() + PATIENCE_SECONDS)
    answer = _mapping(line)
    if answer is None:
        raise OSError("no answer that makes sense")
    if "error" in answer:
        raise Refused(str(answer["error"]))
    return answer


def _wish(line: bytes) -> Wish:
    from paropt_exporter.config.model import MOST_WORKERS  # the exporter has it; who only asks need not load pydantic

    wanted = _mapping(line)
    if wanted is None:
        raise Refused('expected one line of JSON like {"order": "pin", "size": 4}')
    order, size, pool = wanted.get("order"), wanted.get("size"), wanted.get("pool")
    if not isinstance(order, str) or order not in _ORDERS:
        raise Refused(f"no order {order!r}; there are {', '.join(_ORDERS)}")
    if pool is not None and not isinstance(pool, str):
        raise Refused(f"expected the name of a pool, found {pool!r}")
    if order != PIN:
        return Wish(order=order, pool=pool)
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MOST_WORKERS:
        raise Refused(f"expected a size from 1 to {MOST_WORKERS}, found {size!r}")
    return Wish(order=order, size=size, pool=pool)


def _mapping(line: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _received(peer: socket.socket, until: float) -> bytes:
    """Return what comes until the end of a line; cut where it is too long. One deadline for the whole of it."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_LINE_BYTES:
        left = until - monotonic()
        if left <= 0:
            raise TimeoutError("no whole line in time")
        peer.settimeout(left)
        part = peer.recv(LONGEST_LINE_BYTES)
        if not part:
            break
        line += part
    return line


def _listener(path: Path) -> socket.socket:
    # Under a name that nobody looks for until it answers: else whoever tidies up would take it for a dead one.
    unborn = path.with_suffix(".new")
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _short(unborn) as address:
            listener.bind(address)
        unborn.chmod(0o600)  # before listen(): until then nobody gets in, whatever the umask was
        listener.listen(_MOST_CLIENTS)
        unborn.rename(path)
    except OSError:
        listener.close()
        unborn.unlink(missing_ok=True)
        raise
    return listener


def _connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.settimeout(PATIENCE_SECONDS)
        with _short(path) as address:
            client.connect(address)
    except OSError:
        client.close()
        raise
    return client


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a socket's path in the few bytes that its address has room for (108), however deep the folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _remove_stale(folder: Path) -> None:
    for path in sockets(folder):
        try:
            _connected(path).close()
        except ConnectionRefusedError:  # nobody listens any more
            with suppress(OSError):
                path.unlink()
        except OSError:
            continue  # another user's, or too busy to answer: not ours to judge
