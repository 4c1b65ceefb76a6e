"""A target for Prometheus with values from a test, like those of a broker or a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from support.http_servers import QuietHandler, run_http_server


class SignalServer:
    """`values` by metric name; a removed one disappears from the page."""

    def __init__(self, address: str, values: dict[str, float]) -> None:
        self.address = address
        self.values = values


@contextmanager
def signal_server(**values: float) -> Iterator[SignalServer]:
    shown = dict(values)

    class Page(QuietHandler):
        def do_GET(self) -> None:
            body = "".join(f"{name} {value}\n" for name, value in shown.items()).encode()
            self.reply(body, content_type="text/plain; version=0.0.4")

    with run_http_server(Page) as port:
        yield SignalServer(f"127.0.0.1:{port}", shown)
