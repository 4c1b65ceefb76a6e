"""Kill workers of a cluster at random while tasks run: none may be lost, or begin twice without a retry.

Usage: python benchmarks/soak_cluster.py [TASKS] [KILLS]
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from paropt_exporter.errors import WorkerDied
from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.future import TaskFuture
from support.dask_clusters import DaskCluster, open_pool

WORKERS = 3
SEED = 14


def main() -> None:
    tasks, kills = [int(word) for word in sys.argv[1:3]] if len(sys.argv) > 2 else (500, 20)
    with tempfile.TemporaryDirectory() as folder:
        counts = soak(Path(folder), tasks, kills)
    print(f"{tasks} tasks, {kills} kills: {', '.join(f'{count} {name}' for name, count in counts.items())}")


def soak(root: Path, tasks: int, kills: int) -> dict[str, int]:
    """Run the tasks on a cluster below `root`, and return what became of them."""
    cluster = DaskCluster(root)
    try:
        cluster.start_scheduler()
        for number in range(WORKERS):
            cluster.start_worker(f"w{number}", folder=f"h{number}")
        pool = open_pool(cluster, root, size=WORKERS)
        try:
            retries = run(cluster, pool, root, tasks, kills, random.Random(SEED))
        finally:
            pool.kill_workers(0.0)
    finally:
        cluster.close()
    signed = Counter((root / "ledger").read_text().split())
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return {
        "retries": retries,
        "lost": tasks - len({name.partition(".")[0] for name in signed}),
        "begun twice": sum(count > 1 for count in signed.values()),
        "processes left": sum(str(root) in line for line in lines),
    }


def run(cluster: DaskCluster, pool: ClusterPool, root: Path, tasks: int, kills: int, chance: random.Random) -> int:
    """Run the tasks, and retry each that a kill costs an attempt. Return the number of retries."""
    attempts = dict.fromkeys(range(tasks), 1)
    running = {submit(pool, root, task, 1): task for task in attempts}
    kill_at = sorted(chance.sample(range(tasks // 20, tasks), kills))
    done = 0
    while running:
        future = next(iter(running))
        task = running.pop(future)
        try:
            assert future.result(300).result == "success"
            done += 1
        except WorkerDied:
            attempts[task] += 1
            running[submit(pool, root, task, attempts[task])] = task
        while kill_at and done >= kill_at[0]:
            kill_at.pop(0)
            victim = chance.choice([one for one in cluster.processes[1:] if one.process.poll() is None])
            victim.kill()
            cluster.start_worker(f"n{time.monotonic_ns()}", folder=f"h{chance.randrange(WORKERS)}", port=victim.port)
    return sum(attempts.values()) - tasks


def submit(pool: ClusterPool, root: Path, task: int, attempt: int) -> TaskFuture:  # type: ignore[type-arg]
    code = f"echo {task}.{attempt} >> {root / 'ledger'}; sleep 0.05"
    return pool.submit_commands(f"t[{task}]", [["sh", "-c", code]])


if __name__ == "__main__":
    main()
