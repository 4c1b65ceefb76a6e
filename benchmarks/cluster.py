"""Lanes on a Dask cluster beside plain `distributed`, on the same workers: ratios, of which 1 is plain Dask.

Usage: python benchmarks/cluster.py [calls] [commands] [naps] [single] [stop] [upload]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from distributed import Client, LocalCluster

from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.settings import ClusterSettings

ROUNDS = 3
CALLS = 2000
COMMANDS = 200
FILES = 20_000
IDLE_SECONDS = 10.0
IDLE_TICK_SECONDS = 0.2
IDLE_SHARE = 0.2  # of a core


def double(number: int) -> int:
    return 2 * number


def nap(_: int) -> None:
    time.sleep(0.1)


def run_true(_: int) -> int:
    return subprocess.run(["true"], check=False).returncode


@contextmanager
def cluster(workers: int) -> Iterator[tuple[Any, ClusterPool]]:
    """Yield a plain client and a pool on the same workers of one thread each."""
    make: Any = LocalCluster
    connect: Any = Client
    with (
        make(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50
        ) as made,
        connect(made) as client,
    ):
        here = str(Path.cwd())
        pool = ClusterPool(
            ClusterSettings(root=Path.cwd(), scheduler=made.scheduler_address, shared_root=here), workers
        )
        try:
            pool.submit(double, 1).result(60)
            client.submit(double, 1, pure=False).result(60)
            yield client, pool
        finally:
            pool.close_within(0.0)


@dataclass(frozen=True, slots=True)
class Took:
    """Medians of ours and of plain Dask: wall seconds, and CPU seconds of this process and the cluster's."""

    ours: float
    plain: float
    ours_cpu: float
    plain_cpu: float


def compare(ours: Callable[[], object], plain: Callable[[], object], rounds: int = ROUNDS) -> Took:
    """Measure both, which take turns, since others use the machine; the first round warms up.

    Each begins on an idle cluster: Dask goes on to release the results of a `map` for as long as that took. The CPU
    time has that work too.
    """
    times: list[tuple[float, ...]] = []
    for _ in range(rounds + 1):
        wall, cpu = [], [wait_until_idle()]
        for work in (ours, plain):
            started = time.perf_counter()
            work()
            wall.append(time.perf_counter() - started)
            cpu.append(wait_until_idle())
        times.append((*wall, cpu[1] - cpu[0], cpu[2] - cpu[1]))
    return Took(*(statistics.median(column) for column in zip(*times[1:], strict=True)))


def wait_until_idle() -> float:
    """Wait until this process and the cluster are idle, for `IDLE_SECONDS` at most; return their CPU seconds."""
    until, before = time.monotonic() + IDLE_SECONDS, measure_cpu()
    while True:
        time.sleep(IDLE_TICK_SECONDS)
        now = measure_cpu()
        if now - before < IDLE_SHARE * IDLE_TICK_SECONDS or time.monotonic() > until:
            return now
        before = now


def measure_cpu() -> float:
    """Return the CPU seconds of this process and its descendants, with children that have ended."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def gather(futures: list[Any]) -> None:
    for future in futures:
        future.result(120)


def show(name: str, took: Took, count: int = 1) -> None:
    unit = 1000 / count
    ratio, cpu_ratio = took.ours / took.plain, took.ours_cpu / max(took.plain_cpu, 1e-9)
    print(
        f"| {name} | {took.ours * unit:.2f} ms | {took.plain * unit:.2f} ms | {ratio:.2f} | {1 / ratio:.1f} x "
        f"| {cpu_ratio:.3f} |",
        flush=True,
    )


def bench_calls() -> None:
    with cluster(2) as (client, pool):
        numbers = range(CALLS)
        took = compare(
            lambda: gather([pool.submit(double, number) for number in numbers]),
            lambda: client.gather(client.map(double, numbers, pure=False)),
        )
        show(f"a call that does nothing, of {CALLS}", took, CALLS)


def bench_commands() -> None:
    with cluster(2) as (client, pool):
        numbers = range(COMMANDS)
        took = compare(
            lambda: gather([pool.submit_commands("true", [["true"]]) for _ in numbers]),
            lambda: client.gather(client.map(run_true, numbers, pure=False)),
        )
        show(f"`true`, of {COMMANDS}", took, COMMANDS)


def bench_naps() -> None:
    for workers in (2, 4, 8):
        with cluster(workers) as (client, pool):
            numbers = range(workers * 10)
            took = compare(
                lambda: gather([pool.submit(nap, number) for number in numbers]),  # noqa: B023 -- called here
                lambda: client.gather(client.map(nap, numbers, pure=False)),  # noqa: B023
            )
            show(f"naps of 100 ms on {workers} workers, of {len(numbers)}", took, len(numbers))


def bench_single() -> None:
    with cluster(1) as (client, pool):
        took = compare(
            lambda: pool.submit(double, 1).result(60), lambda: client.submit(double, 1, pure=False).result(60), 30
        )
        show("one call at a time", took)


def bench_stop() -> None:
    with cluster(1) as (_, pool), tempfile.TemporaryDirectory() as folder:
        times = []
        for number in range(10):
            fifo = Path(folder) / str(number)
            os.mkfifo(fifo)
            future = pool.submit_commands("stop", [["sh", "-c", f"echo > {fifo}; exec sleep 60"]])
            fifo.read_text()
            began = time.perf_counter()
            pool.stop(future, grace_seconds=10.0)
            future.result(60)
            times.append(time.perf_counter() - began)
        print(
            f"| stop to settled | {statistics.median(times) * 1000:.0f} ms, worst {max(times) * 1000:.0f} ms | | | | |"
        )


def bench_upload() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        root = Path(folder) / "project"
        for number in range(FILES):
            path = root / f"p{number % 200}" / f"f{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"value = {number}\n" * 20)
        subprocess.run(
            "git init -q && git add . && git -c user.name=b -c user.email=b@b commit -qm x",
            cwd=root,
            shell=True,
            check=True,
        )
        make: Any = LocalCluster
        with make(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50) as made:
            pool = ClusterPool(ClusterSettings(root=root, scheduler=made.scheduler_address), 2)
            try:
                times = []
                for number in range(6):
                    (root / "p0/f0.py").write_text(f"value = {-number}\n")
                    began = time.perf_counter()
                    pool.begin_run(())
                    times.append(time.perf_counter() - began)
            finally:
                pool.close_within(0.0)
        again = statistics.median(times[1:])
        print(f"| {FILES:,} files: first upload {times[0]:.2f} s, after one change | {again:.2f} s | | | | |")


BENCHES = {
    "calls": bench_calls,
    "commands": bench_commands,
    "naps": bench_naps,
    "single": bench_single,
    "stop": bench_stop,
    "upload": bench_upload,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    names = parser.parse_args().names or list(BENCHES)
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"unknown: {unknown[0]} (choose from {', '.join(BENCHES)})")
    print("| | here | plain Dask | ratio | | CPU ratio |\n|---|---|---|---|---|---|", flush=True)
    for name in names:
        BENCHES[name]()


if __name__ == "__main__":
    main()
