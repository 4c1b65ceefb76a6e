"""Real Dask schedulers and workers in processes of their own, which end with the test."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.settings import ClusterSettings
from support.fork_orders import ForkOrder

_PROGRAM = Path(__file__).with_name("dask_process.py")
_START_SECONDS = 60.0  # importing distributed takes seconds on a loaded machine
_END_SECONDS = 20.0


@dataclass(slots=True)
class DaskProcess:
    """A scheduler or a worker. `address` is the one that it listens on; `handle` is a descriptor of the process."""

    pid: int
    handle: int
    address: str

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def wait(self, seconds: float) -> None:
        """Wait until it has ended. Raises AssertionError if it takes longer."""
        ended, _, _ = select.select([self.handle], [], [], seconds)
        assert ended, f"process {self.pid} has not ended within {seconds:g} s"

    def kill(self) -> None:
        """Kill it, and wait until it has gone."""
        self.send_signal(signal.SIGKILL)
        self.wait(_END_SECONDS)


@dataclass(slots=True)
class DaskCluster:
    """A scheduler and its workers below a folder."""

    folder: Path
    tls: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    processes: list[DaskProcess] = field(default_factory=list)
    scheduler: DaskProcess | None = None

    def start_scheduler(self, *, host: str = "127.0.0.1", port: int = 0) -> DaskProcess:
        self.scheduler = self._start(["scheduler", host, str(port), self._tls_word])
        return self.scheduler

    def start_worker(
        self,
        name: str,
        *,
        threads: int = 1,
        host: str = "-",
        port: int = 0,
        env: Mapping[str, str] | None = None,
        folder: str = "scratch",
        namespace: str = "",
        prefix: Sequence[str] = (),
    ) -> DaskProcess:
        """Start a worker; return when it has registered. Workers of one `folder` are those of one host.

        `host`: the address that it listens on; "-": that of the scheduler, as far as it is known.
        `namespace`: the network namespace that it runs in; `prefix`: the words of a program that starts it.
        """
        assert self.scheduler is not None
        words = ["worker", self.scheduler.address, name, str(threads), str(port), self._tls_word]
        return self._start([*words, str(self.folder / folder), host], env, namespace=namespace, prefix=tuple(prefix))

    @property
    def address(self) -> str:
        assert self.scheduler is not None
        return self.scheduler.address

    @property
    def _tls_word(self) -> str:
        return "-" if self.tls is None else str(self.tls)

    def _start(
        self,
        words: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        namespace: str = "",
        prefix: tuple[str, ...] = (),
    ) -> DaskProcess:
        order = ForkOrder(
            words=tuple(words),
            environ={**_build_environment(), **self.env, **(env or {})},
            namespace=namespace,
            prefix=prefix,
        )
        with (self.folder / "dask.log").open("ab") as log:
            made = _FORK_SERVER.fork(order, log.fileno())
        self.processes.append(made)
        assert made.address, f"no {words[0]}: {(self.folder / 'dask.log').read_text()[-2000:]}"
        return made

    def close(self) -> None:
        for made in reversed(self.processes):
            made.send_signal(signal.SIGKILL)
        for made in self.processes:
            made.wait(_END_SECONDS)
            os.close(made.handle)
        self.processes.clear()


class _ForkServer:
    """The process whose forks Dask's processes are, started for the first one, and again if it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None

    def fork(self, order: ForkOrder, log: int) -> DaskProcess:
        """Start a process whose errors go to `log`, and wait for its address, which is "" if it has ended."""
        orders = self._connect()
        reader, writer = os.pipe()
        with open(reader) as printed:  # noqa: PTH123 -- a descriptor, no path
            socket.send_fds(orders, [msgspec.json.encode(order)], [writer, log])
            os.close(writer)
            pid, (handle,), _, _ = socket.recv_fds(orders, 100, 1)
            ready, _, _ = select.select([printed], [], [], _START_SECONDS)
            return DaskProcess(int(pid), handle, printed.readline().strip() if ready else "")

    def _connect(self) -> socket.socket:
        if self._orders is None or self._process is None or self._process.poll() is not None:
            if self._orders is not None:
                self._orders.close()
            self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._orders.settimeout(_START_SECONDS)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, str(_PROGRAM), "fork", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=_build_environment(),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        return self._orders


def _build_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_PROGRAM.parents[1])}


_FORK_SERVER = _ForkServer()  # one for all tests of this process: importing Dask takes a second


def open_pool(cluster: DaskCluster, root: Path, *, size: int = 2, **settings: Any) -> ClusterPool:
    """Return a pool whose workers find the files in `root` itself. `settings`: further ones of ClusterSettings."""
    found = ClusterSettings(root=root, scheduler=cluster.address, shared_root=str(root), **settings)
    return ClusterPool(found, size)


def run_on_workers(cluster: DaskCluster, function: Callable[..., None], *arguments: str) -> None:
    """Call a function in the process of each worker."""
    from distributed import Client  # here: it takes a third of a second

    connect: Any = Client  # it has no types
    with connect(cluster.address, set_as_default=False) as client:
        client.run(function, *arguments)
