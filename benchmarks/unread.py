"""Measure memory and scrapes of the endpoint while many clients ask for the page and never read it.

One process serves the page of a lane with so many stages, another one holds the clients, each of which connects again
whenever it is closed, and this one scrapes once a second as Prometheus does. Memory is the server's largest RSS.

    python benchmarks/unread.py [--stages 1000] [--clients 1000] [--seconds 60] [--distinct]
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import resource
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from paropt_exporter.exposition.listeners import open_listeners
from paropt_exporter.exposition.protection import NoProtection
from paropt_exporter.exposition.server import Server
from paropt_exporter.metrics import LaneLabels, Metrics, StageLabels

SCRAPE_SECONDS = 1.0
TIMEOUT_SECONDS = 10.0  # of a scrape: Prometheus' own default
_DOWN = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrapes:
    """How the scrapes of a run went."""

    answered: int
    missed: int
    slowest_seconds: float


def serving(stages: int, pipe: Connection) -> None:
    """Serve until the pipe says end."""
    labels = tuple(StageLabels(name=f"stage_{n}", number=n, pool="commands", sla=None) for n in range(stages))
    lane = LaneLabels(lane="standard", stages=labels, total=None, interval_seconds=None)
    listeners = open_listeners(["127.0.0.1:0"], on_fallback=print)
    server = Server(listeners, Metrics(project="benchmark", lanes=(lane,)), NoProtection())
    pipe.send(server.addresses[0])
    pipe.recv()
    server.close()


def flooding(address: str, clients: int, pipe: Connection, *, distinct: bool) -> None:
    """Hold the clients until the pipe says end; with `distinct` each sends an Accept header of its own."""
    host, _, port = address.rpartition(":")
    poll = select.epoll()
    poll.register(pipe, select.EPOLLIN)
    held: dict[int, socket.socket] = {}
    opened = 0

    def connect() -> None:
        nonlocal opened
        client = socket.socket()
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.connect((host, int(port)))
        held[client.fileno()] = client
        poll.register(client, select.EPOLLOUT | _DOWN)
        opened += 1

    for _ in range(clients):
        connect()
    while True:
        for descriptor, events in poll.poll():
            if descriptor == pipe.fileno():
                pipe.send(opened)
                return
            if events & _DOWN:
                poll.unregister(descriptor)
                held.pop(descriptor).close()
                connect()
            else:
                accept = f"text/plain;q=0.{opened + 1000}" if distinct else "text/plain"
                with suppress(OSError):
                    held[descriptor].send(f"GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode())
                poll.modify(descriptor, _DOWN)


def scraped(address: str, seconds: float) -> Scrapes:
    """Scrape until the time is over."""
    took: list[float] = []
    missed = 0
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
        try:
            coding = ("gzip", "identity")[len(took) % 2]  # Prometheus takes gzip; others may not
            connection.request("GET", "/metrics", headers={"Accept-Encoding": coding})
            answer = connection.getresponse()
            answer.read()
            missed += answer.status != 200 or time.monotonic() - began > TIMEOUT_SECONDS
        except (OSError, http.client.HTTPException):
            missed += 1
        finally:
            connection.close()
        took.append(time.monotonic() - began)
        threading.Event().wait(max(0.0, began + SCRAPE_SECONDS - time.monotonic()))
    return Scrapes(answered=len(took) - missed, missed=missed, slowest_seconds=max(took))


def memory_bytes(pid: int | None, field: str) -> int:
    """Return a figure of a process's status: VmRSS, or VmHWM for the largest there was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--stages", type=int, default=1000)
    asked.add_argument("--clients", type=int, default=1000)
    asked.add_argument("--seconds", type=float, default=60.0)
    asked.add_argument("--distinct", action="store_true", help="give each client an Accept header of its own")
    flags = asked.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = multiprocessing.get_context("spawn")
    server_end, server_pipe = context.Pipe()
    server = context.Process(target=serving, args=(flags.stages, server_pipe), daemon=True)
    server.start()
    address = server_end.recv()
    scraped(address, 0.1)
    before = memory_bytes(server.pid, "VmHWM")
    flood_end, flood_pipe = context.Pipe()
    flood = context.Process(
        target=flooding, args=(address, flags.clients, flood_pipe), kwargs={"distinct": flags.distinct}, daemon=True
    )
    flood.start()
    scrapes = scraped(address, flags.seconds)
    flood_end.send("end")
    opened = flood_end.recv()
    largest = memory_bytes(server.pid, "VmHWM")
    server_end.send("end")
    print(
        f"{flags.stages} stages, {flags.clients} clients, {opened} connections: "
        f"RSS {before / 1e6:.0f} -> {largest / 1e6:.0f} MB; scrapes: {scrapes.answered} answered, "
        f"{scrapes.missed} missed, slowest {scrapes.slowest_seconds:.1f} s"
    )
    return 1 if scrapes.missed else 0


if __name__ == "__main__":
    sys.exit(main())
