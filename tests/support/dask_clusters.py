"""Real Dask schedulers and workers in processes of their own, which end with the test."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.settings import ClusterSettings

PROGRAM = Path(__file__).with_name("dask_process.py")
_START_SECONDS = 60.0  # importing distributed takes seconds on a loaded machine


@dataclass(slots=True)
class DaskProcess:
    """A scheduler or a worker. `address` is the one that it listens on."""

    process: subprocess.Popen[str]
    address: str

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        """Kill it, and wait until it has gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)


@dataclass(slots=True)
class DaskCluster:
    """A scheduler and its workers below a folder."""

    folder: Path
    tls: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    processes: list[DaskProcess] = field(default_factory=list)
    scheduler: DaskProcess | None = None

    def start_scheduler(self, *, host: str = "127.0.0.1", port: int = 0, prefix: Sequence[str] = ()) -> DaskProcess:
        self.scheduler = self._start(["scheduler", host, str(port), self._tls_word], prefix)
        return self.scheduler

    def start_worker(
        self,
        name: str,
        *,
        threads: int = 1,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        folder: str = "scratch",
        prefix: Sequence[str] = (),
    ) -> DaskProcess:
        """Start a worker; return when it has registered. Workers of one `folder` are those of one host."""
        assert self.scheduler is not None
        words = ["worker", self.scheduler.address, name, str(threads), str(port), self._tls_word]
        return self._start([*words, str(self.folder / folder)], prefix, env)

    @property
    def address(self) -> str:
        assert self.scheduler is not None
        return self.scheduler.address

    @property
    def _tls_word(self) -> str:
        return "-" if self.tls is None else str(self.tls)

    def _start(self, words: list[str], prefix: Sequence[str], env: Mapping[str, str] | None = None) -> DaskProcess:
        with (self.folder / "dask.log").open("ab") as log:
            process = self._spawn([*prefix, sys.executable, str(PROGRAM), *words], log, env)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
        address = process.stdout.readline().strip() if ready else ""
        made = DaskProcess(process, address)
        self.processes.append(made)
        assert address, f"no {words[0]}: {(self.folder / 'dask.log').read_text()[-2000:]}"
        return made

    def _spawn(self, words: list[str], log: IO[bytes], env: Mapping[str, str] | None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[1]), **self.env, **(env or {})},
            start_new_session=True,
        )

    def close(self) -> None:
        for made in reversed(self.processes):
            made.process.kill()
        for made in self.processes:
            made.process.wait(20)
            if made.process.stdout is not None:
                made.process.stdout.close()


def open_pool(cluster: DaskCluster, root: Path, *, size: int = 2) -> ClusterPool:
    """Return a pool whose workers find the files in `root` itself."""
    return ClusterPool(ClusterSettings(root=root, scheduler=cluster.address, shared_root=str(root)), size)
