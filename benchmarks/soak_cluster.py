"""Kill workers of a cluster, and cut hosts off, at random while tasks run: each task must run, once without a retry.

Usage: python benchmarks/soak_cluster.py [TASKS KILLS PARTITIONS]      (500 20 5)

Each attempt signs a ledger when it begins, and holds its task's lock while it runs: a retry that finds the lock taken
runs beside the attempt that it replaces, and signs that. Partitions need root, for network namespaces.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from paropt_exporter.errors import WorkerDied
from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.settings import ClusterSettings
from paropt_exporter.executors.future import TaskFuture
from support.dask_clusters import DaskCluster, DaskProcess
from support.network_namespaces import Network

HOSTS = 3
AT_ONCE = 4 * HOSTS  # each worker runs a task and has one ahead; the rest are queued
SEED = 14
# Dask's lowest: after so long without an answer a connection is given up.
PARTITION_ENV = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s"}
GRACE_SECONDS = 18.0
WAIT_SECONDS = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tasks", 500), ("kills", 20), ("partitions", 5)):
        parser.add_argument(name, nargs="?", type=int, default=default)
    options = parser.parse_args()
    tasks, kills, partitions = options.tasks, options.kills, options.partitions
    with tempfile.TemporaryDirectory() as folder:
        counts = soak(Path(folder), tasks=tasks, kills=kills, partitions=partitions)
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{tasks} tasks, {kills} kills, {partitions} partitions: {told}")
    sys.exit(1 if any(count for name, count in counts.items() if name != "retries") else 0)


def soak(root: Path, *, tasks: int, kills: int, partitions: int = 0) -> dict[str, int]:
    """Run the tasks on a cluster below `root`, and return what became of them."""
    with open_hosts(root, partitions > 0) as hosts:
        settings = ClusterSettings(
            root=root, scheduler=hosts.cluster.address, shared_root=str(root), insecure=True,
            partition_grace_seconds=GRACE_SECONDS,
        )  # fmt: skip
        pool = ClusterPool(settings, HOSTS)
        try:
            retries = Soak(hosts, pool, root, random.Random(SEED)).run(tasks, kills, partitions)
        finally:
            pool.close_within(0.0)
    signed = Counter((root / "ledger").read_text().split())
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return {
        "retries": retries,
        "lost": tasks - len({name.partition(".")[0] for name in signed if "." in name}),
        "begun twice": sum(count > 1 for count in signed.values()),
        "ran beside its retry": sum(name.startswith("beside") for name in signed),
        "processes left": sum(str(root) in line for line in lines),
    }


@dataclass
class Hosts:
    """A scheduler, and hosts with a worker each: folders, and namespaces if they are to be cut off."""

    cluster: DaskCluster
    network: Network | None
    names: list[str]
    workers: dict[str, DaskProcess] = field(default_factory=dict)

    def start_worker(self, name: str, port: int = 0) -> None:
        self.workers[name] = self.cluster.start_worker(
            f"{name}-{time.monotonic_ns()}", folder=name, port=port, namespace=name if self.network is not None else ""
        )


@contextmanager
def open_hosts(root: Path, can_be_cut: bool) -> Iterator[Hosts]:
    network = Network() if can_be_cut else None
    cluster = DaskCluster(root, env=PARTITION_ENV if can_be_cut else {})
    try:
        cluster.start_scheduler(host=network.address if network is not None else "127.0.0.1")
        names = [network.add_host() if network is not None else f"h{number}" for number in range(HOSTS)]
        hosts = Hosts(cluster, network, names)
        for name in names:
            hosts.start_worker(name)
        yield hosts
    finally:
        cluster.close()
        if network is not None:
            network.close()


class Soak:
    """The tasks of a run, and the faults that they meet."""

    def __init__(self, hosts: Hosts, pool: ClusterPool, root: Path, chance: random.Random) -> None:
        self._hosts = hosts
        self._pool = pool
        self._root = root
        self._chance = chance
        self._cut = ""  # the host that is cut off, one at a time
        self._attempts: Counter[int] = Counter()
        self._unsubmitted: deque[int] = deque()
        self._submitted: dict[TaskFuture, int] = {}  # type: ignore[type-arg]
        self._done = 0

    def run(self, tasks: int, kills: int, partitions: int) -> int:
        """Run the tasks, and retry each that a fault costs an attempt. Return the number of retries.

        Each fault comes while all workers have tasks: no more are submitted than these need, since the rest would be
        done before the first killed worker is replaced.
        """
        faults = [self._kill] * kills + [self._partition] * partitions
        self._chance.shuffle(faults)
        self._unsubmitted.extend(range(tasks))
        most = tasks // (len(faults) + 1)  # tasks between two faults
        for number, fault in enumerate(faults):
            self._run_until(number * most + self._chance.randrange(most))
            fault()
        self._run_until(tasks)
        self._heal()
        return sum(self._attempts.values()) - tasks

    def _run_until(self, done: int) -> None:
        """Run tasks until at least so many are done; then as many as are to be submitted at once are submitted."""
        self._submit()
        while self._done < done:
            ended = wait(self._submitted, WAIT_SECONDS, FIRST_COMPLETED).done
            assert ended, "no task ends"
            for future in [each for each in self._submitted if each in ended]:
                task = self._submitted.pop(future)
                try:
                    assert future.result(0).result == "success"
                    self._done += 1
                except WorkerDied:
                    self._unsubmitted.appendleft(task)
            self._submit()

    def _submit(self) -> None:
        while self._unsubmitted and len(self._submitted) < AT_ONCE:
            task = self._unsubmitted.popleft()
            self._attempts[task] += 1
            sign = f"echo {{}} >> {self._root / 'ledger'}"
            begin, collide = sign.format(f"{task}.{self._attempts[task]}"), sign.format(f"beside{task}")
            code = f"{begin}; flock -n {self._root}/lock{task} sleep 0.05 || {collide}"
            self._submitted[self._pool.submit_commands(f"t[{task}]", [["sh", "-c", code]])] = task

    def _kill(self) -> None:
        """Kill a worker, and start another one at its address, on any host that is connected."""
        name = self._chance.choice([name for name in self._hosts.names if name != self._cut])
        victim = self._hosts.workers[name]
        victim.kill()
        self._hosts.start_worker(name, victim.port)

    def _partition(self) -> None:
        """Cut a host off. Its worker ends by itself; the host that was cut off before it is back by then."""
        self._heal()
        assert self._hosts.network is not None
        self._cut = self._chance.choice(self._hosts.names)
        self._hosts.network.cut(self._cut)

    def _heal(self) -> None:
        """Wait until the worker of the host that is cut off has ended, connect the host and start another one."""
        if not self._cut:
            return
        assert self._hosts.network is not None
        self._hosts.workers[self._cut].wait(WAIT_SECONDS)
        self._hosts.network.join(self._cut)
        name, self._cut = self._cut, ""
        self._hosts.start_worker(name)


if __name__ == "__main__":
    main()
