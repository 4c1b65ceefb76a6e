"""A fake of Prometheus' query API with scripted answers and faults."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Reply = Callable[[socket.socket, "Asked"], None]


@dataclass(frozen=True)
class Asked:
    """One request: method, path, headers (lower case) and the form or query fields."""

    method: str
    path: str
    headers: dict[str, str]
    fields: dict[str, str]


def vector(*series: tuple[dict[str, str], str], at: float | None = None, **more: object) -> Reply:
    """Return an answer with these series, labels and value, at the time of the request or at `at`."""

    def reply(connection: socket.socket, asked: Asked) -> None:
        moment = time.time() if at is None else at
        result = [{"metric": labels, "value": [moment, value]} for labels, value in series]
        document({"status": "success", "data": {"resultType": "vector", "result": result}, **more})(connection, asked)

    return reply


def number(value: str) -> Reply:
    return vector(({}, value))


def document(body: object) -> Reply:
    return http(200, json.dumps(body).encode())


def http(status: int, body: bytes, *headers: str, length: int | None = None) -> Reply:
    size = len(body) if length is None else length
    head = [f"HTTP/1.1 {status} Told", f"Content-Length: {size}", "Connection: close", *headers]
    return raw("\r\n".join([*head, "", ""]).encode() + body)


def raw(text: bytes) -> Reply:
    return lambda connection, _: connection.sendall(text)


def dripping(seconds: float, *, length: str = "Content-Length: 100000\r\n") -> Reply:
    """Send a byte now and then: each read is in time, the whole answer never."""

    def reply(connection: socket.socket, _: Asked) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
        pause = threading.Event()
        for _second in range(1000):
            connection.sendall(b" ")
            pause.wait(seconds)

    return reply


def interim() -> Reply:
    """Send one interim response after another, and no answer."""

    def reply(connection: socket.socket, _: Asked) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    return reply


def silent() -> Reply:
    return lambda connection, _: wait_for_end(connection)


def hanging_up() -> Reply:
    def reply(connection: socket.socket, _: Asked) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # an RST, no FIN

    return reply


def endless() -> Reply:
    """Send an endless answer."""

    def reply(connection: socket.socket, _: Asked) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _part in range(10_000):
            connection.sendall(b" " * 100_000)

    return reply


def wait_for_end(connection: socket.socket) -> None:
    with suppress(OSError):
        while connection.recv(1000):
            pass


@dataclass
class FakePrometheus:
    """Records its requests; the next answer is `reply`, or a function of the request."""

    url: str
    reply: Reply
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def fake_prometheus(reply: Reply, tls: ssl.SSLContext | None = None) -> Iterator[FakePrometheus]:
    listener = socket.create_server(("127.0.0.1", 0))
    scheme = "http" if tls is None else "https"
    fake = FakePrometheus(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", reply)
    opened: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            opened.append(connection)
            threading.Thread(target=_serve_one, args=(fake, connection, tls), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in opened:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        thread.join()


def _serve_one(fake: FakePrometheus, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
    with suppress(OSError, ValueError):
        if tls is not None:
            connection = tls.wrap_socket(connection, server_side=True)
        with connection:
            asked = _read(connection)
            if asked is not None:
                fake.asked.append(asked)
                fake.reply(connection, asked)


def _read(connection: socket.socket) -> Asked | None:
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        if not part:
            return None
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    request, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = request.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        part = connection.recv(65536)
        if not part:
            return None
        body += part
    path, _, query = target.partition("?")
    fields = dict(urllib.parse.parse_qsl(body.decode() if method == "POST" else query))
    return Asked(method, path, headers, fields)
