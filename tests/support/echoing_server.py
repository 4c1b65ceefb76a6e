"""A server that quotes the request in its answer, as debug pages of proxies and careless services do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from support.http_servers import QuietHandler, run_http_server

ERROR, REDIRECT, WARNING = "error", "redirect", "warning"
BROKEN_HEADER, BROKEN_STATUS = "broken header", "broken status"  # answers that are no HTTP


class EchoingServer:
    """`mode`: the part of the answer that quotes all headers of a request. `received`: requests, as bytes."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.url = ""
        self.received: list[bytes] = []

    def answer(self, quoted: str) -> tuple[int, str, str]:
        """Return the status, the Location and the body."""
        if self.mode == REDIRECT:
            return 307, f"http://127.0.0.1:9/?{quoted}", ""
        if self.mode == WARNING:
            result = {"resultType": "vector", "result": [{"metric": {}, "value": [1.0, "4"]}]}
            return 200, "", json.dumps({"status": "success", "data": result, "warnings": [quoted]})
        return 400, "", json.dumps({"status": "error", "error": quoted})


@contextmanager
def echoing_server(mode: str) -> Iterator[EchoingServer]:
    echoing = EchoingServer(mode)

    class Handler(QuietHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            head = " ".join(f"{name}={value}" for name, value in self.headers.items())
            echoing.received.append(f"{self.path}\n{head}\n".encode() + body)
            if mode in (BROKEN_HEADER, BROKEN_STATUS):
                first = head if mode == BROKEN_STATUS else f"HTTP/1.1 400 Bad\r\nno colon {head.replace(':', '')}"
                self.wfile.write(f"{first}\r\nContent-Length: 0\r\n\r\n".encode())
                self.close_connection = True
                return
            status, location, text = echoing.answer(head)
            self.reply(text.encode(), status=status, **({"location": location} if location else {}))

        do_GET = do_HEAD = do_POST = do_PUT = handle_any

    with run_http_server(Handler) as port:
        echoing.url = f"http://127.0.0.1:{port}"
        yield echoing
