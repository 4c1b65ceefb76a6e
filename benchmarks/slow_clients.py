"""Scrape with a real Prometheus, once a second over TLS, while 1,000 slow clients hold the endpoint of a lane at work.

Usage: python benchmarks/slow_clients.py [--clients 1000] [--seconds 60] [--rounds 2] [--stages 1000] [--by-cpu]

A quarter of the clients each: half a request and then nothing, a byte a second, a TLS handshake that stalls after its
first bytes, a request for the page of 10 MB that is never read. Each connects again some seconds after it was closed
(`--again 0`: at once, which is a flood of TLS handshakes rather than slow clients). Rounds with and
without them take turns (without, with, with, without). Prometheus tells the missed scrapes and the durations, the
exporter's counter the throughput of its lane of 1,000 stages. Needs `make tools`. Exits with 1 if a scrape was missed,
the 99th percentile is 0.5 s or more, or the clients cost 5 % of the throughput.

Beside other work the throughput says more about that work. So the CPU time of the exporter and its commands is measured
too. Subtract the tasks' own time (CPU seconds for each task of a round without clients): the rest, as a part of all
cores, is the throughput that a lane with the machine to itself loses. `--by-cpu` judges by that.

Prometheus counts its own work, the parsing and storing of 104,000 samples, into the duration of a scrape. A last round
shows that part: Prometheus alone scrapes the same page from memory. The clients' own CPU time is shown too, since it
counts as lost throughput where they share the cores with the lane.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import select
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from paropt_exporter.exposition.listeners import open_listeners
from paropt_exporter.exposition.protection import NoProtection
from paropt_exporter.exposition.server import Server

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.real_servers import Prometheus, environment, eventually, free_port, installed_command, prometheus
from support.secured import Authority, web_config

KINDS = ("half", "drip", "handshake", "unread")
MOST_SECONDS = 0.5
MOST_LOSS_RATIO = 0.05
_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: exporter\r\n"
_OPENMETRICS = "application/openmetrics-text;version=1.0.0"
_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the first bytes of a TLS handshake
_DOWN = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
_DRIP_SECONDS = 1.0
_TICK_SECONDS = 0.1
_HANG_SECONDS = 120.0
_SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What Prometheus tells of one round."""

    attempted: float
    answered: float
    p99_seconds: float
    tasks_per_second: float
    cpu_seconds_per_second: float  # of the exporter, its supervisor and its commands
    clients_cpu_seconds_per_second: float
    server_cpu_seconds_per_scrape: float  # of Prometheus


def main() -> int:
    flags = parse_flags()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: dict[bool, list[Figures]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as name, served(Path(name), flags.stages) as lane:
        eventually("the lane's tasks are counted", lambda: lane.server.query("paropt_task_attempts_total"))
        for number in range(flags.rounds):
            for slow in (False, True) if number % 2 == 0 else (True, False):
                with flood(lane.port, flags.clients if slow else 0, flags.again) as clients:
                    found[slow].append(measure(lane, flags.seconds, clients))
                print(f"{'with' if slow else 'without'}: {found[slow][-1]}, load {os.getloadavg()[0]:.0f}", flush=True)
        page = fetch_page(lane.port)
    scrape_from_memory(page, flags.seconds)
    return report(found, by_cpu=flags.by_cpu)


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("--again", type=float, default=5.0, help="seconds until a closed client connects again")
    parser.add_argument("--by-cpu", action="store_true", help="judge the loss by CPU time, on a machine that is in use")
    return parser.parse_args()


def report(found: dict[bool, list[Figures]], *, by_cpu: bool) -> int:
    missed = sum(one.attempted - one.answered for one in found[True])
    slowest = max(one.p99_seconds for one in found[True])
    without, with_clients = (statistics.mean(one.tasks_per_second for one in found[slow]) for slow in (False, True))
    cpu_without, cpu_with = (
        statistics.mean(one.cpu_seconds_per_second for one in found[slow]) for slow in (False, True)
    )
    loss = 1 - with_clients / without
    extra_cpu = cpu_with - cpu_without * with_clients / without
    cpu_loss = extra_cpu / len(os.sched_getaffinity(0))
    print(
        f"{missed:.0f} scrapes missed; 99th percentile {slowest:.2f} s; "
        f"{without:.0f} tasks per second without the clients, {with_clients:.0f} with them: {loss:.1%} lost; "
        f"{extra_cpu:.3f} CPU seconds more a second, {cpu_loss:.1%} of all cores"
    )
    return int(missed > 0 or slowest >= MOST_SECONDS or (cpu_loss if by_cpu else loss) >= MOST_LOSS_RATIO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A running exporter, the port of its endpoint, and the Prometheus that scrapes it."""

    exporter: psutil.Process
    port: int
    server: Prometheus

    def read_cpu_seconds(self) -> float:
        """Return the CPU time of the exporter and of all programs that it has started and that have ended."""
        return sum(sum(one.cpu_times()[:4]) for one in (self.exporter, *self.exporter.children()))


@contextmanager
def served(folder: Path, stages: int) -> Iterator[Lane]:
    """Run the lane again and again behind TLS, and a Prometheus that scrapes it once a second."""
    authority, port = Authority(folder), free_port()
    authority.issue("server")
    lines = "\n".join(f'  - {{number: {n}, name: stage_{n}, run: "true"}}' for n in range(1, stages + 1))
    names = f"[{', '.join(map(str, range(1, stages + 1)))}]"
    lane = f"lanes: {{standard: {{stages: {names}, strategy: process, workers: 2}}}}"
    (folder / "paropt.yml").write_text(f"project: slow\n{lane}\nstages:\n{lines}\n")
    command = [
        installed_command(), "-q", "--every", "100ms", f"--web.listen-address=127.0.0.1:{port}",
        f"--web.config.file={web_config(folder)}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
    scrape: dict[str, Any] = {
        "scheme": "https",
        "tls_config": {"ca_file": str(authority.file)},
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
    }
    try:
        eventually("the exporter listens", lambda: answers(port))
        (folder / "prometheus").mkdir()
        with prometheus(folder / "prometheus", [f"127.0.0.1:{port}"], variables=os.environ, **scrape) as server:
            yield Lane(exporter=psutil.Process(process.pid), port=port, server=server)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_HANG_SECONDS)


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def measure(lane: Lane, seconds: float, clients: psutil.Process) -> Figures:
    """Wait until the beginning has passed, then measure for some seconds."""
    pause, server, scraper = threading.Event(), lane.server, find_process(lane.server)

    def read_cpu_seconds() -> tuple[float, ...]:
        return lane.read_cpu_seconds(), sum(clients.cpu_times()[:2]), sum(scraper.cpu_times()[:2])

    pause.wait(_SETTLE_SECONDS)
    before, cpu_before, began = count_tasks(server), read_cpu_seconds(), time.monotonic()
    pause.wait(seconds)
    after, cpu_after, took = count_tasks(server), read_cpu_seconds(), time.monotonic() - began
    lane_cpu, clients_cpu, server_cpu = (late - early for early, late in zip(cpu_before, cpu_after, strict=True))
    window = f"[{int(seconds)}s]"
    attempted = server.value(f"count_over_time(up{window})")
    return Figures(
        attempted=attempted,
        answered=server.value(f"sum_over_time(up{window})"),
        p99_seconds=server.value(f"quantile_over_time(0.99, scrape_duration_seconds{window})"),
        tasks_per_second=(after - before) / took,
        cpu_seconds_per_second=lane_cpu / took,
        clients_cpu_seconds_per_second=clients_cpu / took,
        server_cpu_seconds_per_scrape=server_cpu / attempted,
    )


def find_process(server: Prometheus) -> psutil.Process:
    assert server.process is not None
    return psutil.Process(server.process.pid)


class ConstantPage:
    """A source of one page, which is compressed once."""

    def __init__(self, page: bytes) -> None:
        self._parts = [[page]]

    def render_parts(self, *, openmetrics: bool) -> list[list[bytes]]:
        assert openmetrics  # as Prometheus asks for it
        return self._parts


def fetch_page(port: int) -> bytes:
    """Return the page that Prometheus gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"https://127.0.0.1:{port}/metrics", headers={"Accept": _OPENMETRICS})
    with urllib.request.urlopen(request, context=context, timeout=_HANG_SECONDS) as answer:
        return bytes(answer.read())


def scrape_from_memory(page: bytes, seconds: float) -> None:
    """Show what Prometheus takes for the page if it costs its exporter nothing."""
    pause = threading.Event()
    listeners = open_listeners(["127.0.0.1:0"], on_fallback=print)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Server(listeners, ConstantPage(page), NoProtection())) as served_page,
        prometheus(
            Path(folder), served_page.addresses, variables=os.environ, scrape_interval="1s", scrape_timeout="1s"
        ) as server,
    ):
        pause.wait(_SETTLE_SECONDS)
        scraper, window = find_process(server), f"[{int(seconds)}s]"
        before = sum(scraper.cpu_times()[:2])
        pause.wait(seconds)
        cpu_seconds = sum(scraper.cpu_times()[:2]) - before
        slowest = server.value(f"quantile_over_time(0.99, scrape_duration_seconds{window})")
        each = cpu_seconds / server.value(f"count_over_time(up{window})")
    print(f"Prometheus alone: 99th percentile {slowest:.2f} s, {each:.3f} CPU seconds a scrape")


def count_tasks(server: Prometheus) -> float:
    return server.value("sum(last_over_time(paropt_task_attempts_total[1m]))")


@contextmanager
def flood(port: int, clients: int, again_seconds: float) -> Iterator[psutil.Process]:
    """Hold the clients, in a process of their own."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    arguments = (port, clients, again_seconds, theirs)
    process = multiprocessing.get_context("spawn").Process(target=hold, args=arguments, daemon=True)
    process.start()
    ours.recv()
    try:
        yield psutil.Process(process.pid)
    finally:
        ours.send("end")
        print(f"{ours.recv()} connections", end=", ", flush=True)
        process.join(_HANG_SECONDS)


class Client:
    """A slow client of one kind; `advance` goes on with its connection."""

    def __init__(self, port: int, kind: str, context: ssl.SSLContext) -> None:
        self.kind = kind
        self.socket = socket.socket()
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            self.socket.connect(("127.0.0.1", port))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._shaken = self._sent = False

    @property
    def waits(self) -> int:
        """Return the events to wait for."""
        if self.kind == "handshake":
            return _DOWN if self._sent else _DOWN | select.EPOLLOUT
        return _DOWN if self._shaken else _DOWN | select.EPOLLIN | (0 if self._sent else select.EPOLLOUT)

    def advance(self) -> None:
        """Send the next bytes. Raises OSError."""
        if self.kind == "handshake":
            self.socket.send(_HELLO)
            self._sent = True
            return
        if self._sent and not self._shaken:
            with suppress(BlockingIOError):
                self._incoming.write(self.socket.recv(16384))
        self._sent = True
        if not self._shaken:
            with suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
                self._shaken = True
                self._tls.write(_REQUEST + (b"\r\n" if self.kind == "unread" else b""))
        self._flush()

    def drip(self) -> None:
        """Send one more byte of the request. Raises OSError."""
        if self._shaken:
            self._tls.write(b"x")
            self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.socket.send(self._outgoing.read())


class Flood:
    """Clients that share one poll object; a closed one connects again after some seconds."""

    def __init__(self, port: int, again_seconds: float, pipe: Connection) -> None:
        self.opened = 0
        self._port = port
        self._again_seconds = again_seconds
        self._pipe = pipe
        self._context = ssl.create_default_context()
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._poll = select.epoll()
        self._poll.register(pipe, select.EPOLLIN)
        self._held: dict[int, Client] = {}
        self._closed: deque[tuple[float, str]] = deque()  # when to connect again, in order, and which kind

    def connect(self, kind: str) -> None:
        client = Client(self._port, kind, self._context)
        self._held[client.socket.fileno()] = client
        self._poll.register(client.socket, client.waits)
        self.opened += 1

    def go_on(self) -> None:
        """Serve the clients until the pipe has a message."""
        due = time.monotonic() + _DRIP_SECONDS
        while True:
            for descriptor, events in self._poll.poll(_TICK_SECONDS):
                if descriptor == self._pipe.fileno():
                    return
                self._advance(descriptor, down=bool(events & _DOWN))
            now = time.monotonic()
            while self._closed and self._closed[0][0] <= now:
                self.connect(self._closed.popleft()[1])
            if now >= due:
                due = now + _DRIP_SECONDS
                for descriptor in [number for number, client in self._held.items() if client.kind == "drip"]:
                    self._drip(descriptor)

    def _advance(self, descriptor: int, *, down: bool) -> None:
        client = self._held[descriptor]
        try:
            if down:
                raise ConnectionError
            client.advance()
            self._poll.modify(descriptor, client.waits)
        except OSError:
            self._close(descriptor)

    def _drip(self, descriptor: int) -> None:
        try:
            self._held[descriptor].drip()
        except OSError:
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        client = self._held.pop(descriptor)
        self._poll.unregister(descriptor)
        client.socket.close()
        self._closed.append((time.monotonic() + self._again_seconds, client.kind))


def hold(port: int, clients: int, again_seconds: float, pipe: Connection) -> None:
    """Hold the clients until the pipe says end, then answer with the number of connections."""
    flood = Flood(port, again_seconds, pipe)
    for number in range(clients):
        flood.connect(KINDS[number % len(KINDS)])
    pipe.send("held")
    flood.go_on()
    pipe.send(flood.opened)


if __name__ == "__main__":
    sys.exit(main())
