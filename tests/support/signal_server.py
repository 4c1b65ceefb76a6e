"""A target for Prometheus with values from a test, like those of a broker or a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class SignalServer:
    """`values` by metric name; a removed one disappears from the page."""

    def __init__(self, address: str, values: dict[str, float]) -> None:
        self.address = address
        self.values = values


@contextmanager
def signal_server(**values: float) -> Iterator[SignalServer]:
    shown = dict(values)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = "".join(f"{name} {value}\n" for name, value in shown.items()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Ignore a scraper that was killed during a scrape."""

    server = Server(("127.0.0.1", 0), Page)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield SignalServer(f"127.0.0.1:{server.server_port}", shown)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
