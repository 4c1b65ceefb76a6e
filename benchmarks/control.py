"""Prints how the controller sizes pools: known answers simulated and real, an hour of 200 pools, and its peers' rules.

Parts: `simulated`, `histories` (random lanes), `fleet`, `fresh` (the same hours by seeds drawn for this run), `real`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, quantiles

from paropt_exporter import steer
from paropt_exporter.executors import ThreadPool
from simulation.fleet import PATTERNS, Hour, hours
from simulation.histories import faults, history
from simulation.lane import Work, run_lane
from simulation.pool import Duration, SimulatedPool
from simulation.rules import Dask, Fixed, Keda, MakeRule, Ours, simulate
from simulation.work import Rate, at_once, computing, constant, locked, poisson, saw_tooth, stepped, waiting

CORES = 2.0
POOLS = 200
PARTS = ("simulated", "histories", "fleet", "fresh", "real")
HISTORIES = 1000  # random lanes; 10,000 take half an hour
FRESH_SEEDS = 5
WAIT_RATIO = 0.25
RULES: dict[str, MakeRule] = {"ours": partial(Ours, cores=CORES), "Dask's": Dask, "KEDA's": Keda}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An open stream of tasks; `settled`: the moment from which on the sizes count, after the last step."""

    name: str
    rate: Rate
    duration: Duration
    service_seconds: float
    until: float = 900.0
    settled: float = 0.0
    expected: str


STREAMS = (
    Stream(name="naps of 50 ms, 100/s", rate=constant(100), duration=waiting(0.05), service_seconds=0.05, expected="7"),
    Stream(
        name="step x10 to 100/s", rate=stepped(10, 100, at=300), duration=waiting(0.05), service_seconds=0.05,
        settled=300.0, expected="7, 3 moves at most",
    ),
    Stream(
        name="saw-tooth of 5 s", rate=saw_tooth(10, 100, period=5.0), duration=waiting(0.05), service_seconds=0.05,
        expected="flap budget",
    ),
    Stream(
        name="half computes, 3/s of 1 s",
        rate=constant(3), duration=computing(1.0, 0.5, CORES), service_seconds=1.0,
        expected="4",
    ),
    Stream(
        name="one lock, 30/s of 50 ms", rate=constant(30), duration=locked(0.05), service_seconds=0.05,
        expected="1-2, ups blocked",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A run of known tasks."""

    name: str
    tasks: tuple[Work, ...]
    maximum: int
    expected: str
    pool: str = "commands"
    deadline_seconds: float | None = None


CLOSED = (
    Closed(name="5 naps of 2 s", tasks=(Work(seconds=2.0),) * 5, maximum=32, expected="5"),
    Closed(name="200 naps of 50 ms", tasks=(Work(seconds=0.05),) * 200, maximum=64, expected="64"),
    Closed(
        name="100 x 10 s, deadline 100 s", tasks=(Work(seconds=10.0),) * 100, maximum=64, expected="10-13",
        deadline_seconds=100.0,
    ),
    Closed(name="20 that compute 1 s", tasks=(Work(seconds=1.0, cpu_demand=1.0),) * 20, maximum=32, expected="2"),
    Closed(name="40 that compute half", tasks=(Work(seconds=1.0, cpu_demand=0.5),) * 40, maximum=32, expected="4"),
    Closed(
        name="800 of 50 ms behind one lock", tasks=(Work(seconds=0.05, locked=True),) * 800, maximum=64,
        expected="1-2, ups blocked",
    ),
    Closed(
        name="20 threads, one interpreter", tasks=(Work(seconds=1.0, cpu_demand=1.0),) * 20, maximum=32, expected="2",
        pool="threads",
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--seed", type=int, action="append", help="of the simulated hours; more may follow for `fresh`")
    parser.add_argument("--histories", type=int, default=HISTORIES, help="how many random lanes")
    flags = parser.parse_args()
    chosen, draw = flags.parts or PARTS, random.SystemRandom()
    if "simulated" in chosen:
        simulated()
    if "fleet" in chosen:
        fleet(flags.seed[0] if flags.seed else 0)
    if "fresh" in chosen:
        fresh(flags.seed or [draw.randrange(1, 1_000_000) for _ in range(FRESH_SEEDS)])
    if "histories" in chosen:
        histories(flags.histories)
    if "real" in chosen:
        real()


def histories(lanes: int) -> None:
    print("### Simulated: random lanes\n")
    lasting, wrong = list[float](), list[str]()
    for seed in range(lanes):
        drawn = history(seed)
        run = drawn.run()
        wrong += [f"seed {seed}: {fault}" for fault in faults(drawn, run)]
        if not drawn.others:
            lasting.append(drawn.lasting(run))
    deciles = quantiles(lasting, n=20)
    print(
        f"{lanes} random lanes: {len(wrong)} broke a rule; makespan over a clairvoyant's, of those that had"
        f" the machine to themselves: median {median(lasting):.2f}, 95 % under {deciles[-1]:.2f}\n"
    )
    print(*wrong, sep="\n")


def table(headers: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    headers = tuple(headers)
    print(f"| {' | '.join(headers)} |\n|{'---|' * len(headers)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    print()


def simulated() -> None:
    print("### Simulated: open streams, two cores\n")
    headers = ("workload", "expected", "best fixed", *(f"{rule}: size, moves, reversals, worst wait" for rule in RULES))
    table(headers, (stream_row(stream) for stream in STREAMS))
    print("### Simulated: known tasks, two cores\n")
    headers = ("workload", "expected", "ours", "moves", "reversals", "best fixed", "makespan, ours / best fixed")
    table((*headers, "Dask's / best", "KEDA's / best"), (closed_row(closed) for closed in CLOSED))


def stream_row(stream: Stream) -> Iterator[object]:
    yield from (stream.name, stream.expected, best_fixed(stream))
    for rule in RULES.values():
        pool = steered(stream, rule)
        sizes = [size for moment, size, _ in pool.sizes if moment >= stream.settled]
        yield f"{pool.target}, {len(sizes)}, {reversals(sizes)}, {pool.waits.worst:.1f} s"


def steered(stream: Stream, rule: MakeRule, size: int = 1) -> SimulatedPool:
    pool = SimulatedPool(poisson(stream.rate, stream.until, seed=1), stream.duration, size=size)
    simulate(pool, rule(pool, 200), until=stream.until)
    return pool


def best_fixed(stream: Stream) -> str:
    """Return the smallest fixed size whose mean wait is at most a quarter of a task's time, or else the least waits."""
    waits = {size: steered(stream, Fixed, size).waits.mean for size in (*range(1, 17), 24, 32, 64)}
    good = [size for size, mean in waits.items() if mean <= WAIT_RATIO * stream.service_seconds]
    return str(good[0]) if good else f"none ({min(waits, key=lambda size: waits[size])} waits least)"


def reversals(sizes: list[int]) -> int:
    rising = [after > before for before, after in pairwise(sizes)]
    return sum(one is not other for one, other in pairwise(rising))


def closed_row(closed: Closed) -> Iterator[object]:
    tasks = [*closed.tasks]
    ours = run_lane(
        tasks, cores=CORES, maximum=closed.maximum, pool=closed.pool, deadline_seconds=closed.deadline_seconds
    )
    sizes = [size for size in (1, 2, 3, 4, 5, 8, 12, 16, 32, 64) if size <= closed.maximum]
    fixed = {
        size: run_lane(tasks, cores=CORES, maximum=closed.maximum, start=size, pool=closed.pool, fixed=True)
        for size in sizes
    }
    shortest = min(run.makespan_seconds for run in fixed.values())
    enough = 1.02 * shortest if closed.deadline_seconds is None else closed.deadline_seconds
    best = next(size for size, run in fixed.items() if run.makespan_seconds <= enough)
    size = f"{ours.peak}, then {ours.limits[-1][1]}" if ours.limits else ours.peak
    yield from (closed.name, closed.expected, size, len(ours.moves), ours.reversals, best)
    yield (
        f"{ours.makespan_seconds / shortest:.2f}"
        if closed.deadline_seconds is None
        else (f"in {ours.makespan_seconds:.0f} of {closed.deadline_seconds:.0f} s")
    )
    for rule in (Dask, Keda):
        yield f"{makespan(closed, rule) / shortest:.1f}"


def makespan(closed: Closed, rule: MakeRule) -> float:
    work, cores = closed.tasks[0], 1.0 if closed.pool == "threads" else CORES
    duration = locked(work.seconds) if work.locked else computing(work.seconds, work.cpu_demand, cores)
    pool = SimulatedPool(at_once(len(closed.tasks)), duration, size=2)
    steering, now = rule(pool, closed.maximum), 0.0
    while not pool.done:
        pool.advance(now)
        if round(now * 100) % 100 == 0:
            steering.step(now)
        now += 0.01
    return now


def fleet(seed: int) -> None:
    began = time.perf_counter()
    print(f"### Simulated: an hour of {POOLS} pools (seed {seed})\n")
    found = fleet_hours(FLEET, seed)
    headers = ("load", "worker-hours, ours / clairvoyant", "Dask's / clairvoyant", "KEDA's / clairvoyant")
    table(
        (*headers, "tasks late: ours, clairvoyant, Dask's, KEDA's", "moves an hour", "flaps an hour"), fleet_rows(found)
    )
    print(f"Took {time.perf_counter() - began:.0f} s; late is a wait of over 3 s, or over a task's own time.\n")


OURS, CLAIRVOYANT = "ours", "clairvoyant"
FLEET: dict[str, MakeRule | None] = {
    OURS: partial(Ours, cores=1000.0), CLAIRVOYANT: None, "Dask's": Dask, "KEDA's": Keda,
}  # fmt: skip


def fleet_hours(rules: Mapping[str, MakeRule | None], seed: int) -> dict[str, tuple[Hour, ...]]:
    """Return for each rule its hours of all pools; each seed has pools of its own."""
    with ProcessPoolExecutor() as workers:
        simulated = partial(hours, rules=[*rules.values()])
        each = workers.map(simulated, range(seed * POOLS, (seed + 1) * POOLS), chunksize=5)
        return dict(zip(rules, zip(*each, strict=True), strict=True))


def fleet_rows(found: Mapping[str, Sequence[Hour]]) -> Iterator[Iterable[object]]:
    for pattern in (*PATTERNS, "all"):
        spent, late = spent_and_late(found, pattern)
        ours = [one for one in found[OURS] if pattern in (one.pattern, "all")]
        yield (
            pattern,
            *(f"{spent[name] / spent[CLAIRVOYANT]:.2f}" for name in found if name != CLAIRVOYANT),
            ", ".join(f"{late[name]:,}" for name in found),
            f"{sum(one.moves for one in ours) / len(ours):.0f}",
            f"{sum(one.flaps for one in ours) / len(ours):.1f}",
        )


def spent_and_late(found: Mapping[str, Sequence[Hour]], pattern: str) -> tuple[dict[str, float], dict[str, int]]:
    """Return each rule's worker-seconds and late tasks under one pattern of load, or "all"."""
    those = {name: [one for one in each if pattern in (one.pattern, "all")] for name, each in found.items()}
    spent = {name: sum(one.worker_seconds for one in each) for name, each in those.items()}
    return spent, {name: sum(one.late for one in each) for name, each in those.items()}


def fresh(seeds: Sequence[int]) -> None:
    print(f"### Simulated: an hour of {POOLS} pools each, by seeds that nothing was tuned on\n")
    headers = ("seed", *(f"{pattern}: worker-hours; late" for pattern in (*PATTERNS, "all")), "flaps, worst pool's")
    table(headers, fresh_rows(seeds))
    print("Worker-hours as a multiple of the clairvoyant's; late: tasks of ours, and of the clairvoyant's.\n")


def fresh_rows(seeds: Sequence[int]) -> Iterator[Iterable[object]]:
    cells: dict[str, list[tuple[float, int, int]]] = {pattern: [] for pattern in (*PATTERNS, "all")}
    for seed in seeds:
        found = fleet_hours({OURS: FLEET[OURS], CLAIRVOYANT: None}, seed)
        for pattern, column in cells.items():
            spent, late = spent_and_late(found, pattern)
            column.append((spent[OURS] / spent[CLAIRVOYANT], late[OURS], late[CLAIRVOYANT]))
        last = (f"{ratio:.2f}; {ours:,}, {best:,}" for ratio, ours, best in (column[-1] for column in cells.values()))
        yield (seed, *last, max(one.flaps for one in found[OURS]))
    ranges = [[sorted(values) for values in zip(*column, strict=True)] for column in cells.values()]
    yield (
        "from, to",
        *(f"{r[0]:.2f}-{r[-1]:.2f}; {o[0]:,}-{o[-1]:,}, {b[0]:,}-{b[-1]:,}" for r, o, b in ranges),
        "",
    )


# For real: lanes of real commands and calls, once sized by themselves and once at each fixed size.

ROUNDS = 3
STEPS = 8_000_000  # some 0.3 s of a core
CHECKS = f"""
import time
def compute(_):
    total = 0
    for number in range({STEPS}):
        total += number
def half(_):
    for _round in range(4):
        began = time.thread_time()
        while time.thread_time() < began + 0.1:
            sum(range(1000))
        time.sleep(0.1)
def nap(_):
    time.sleep(0.05)
"""
REAL = (
    ("5 commands that wait 2 s", "run: sleep 2", 5, "adaptive", "5"),
    ("200 naps of 50 ms", 'call: "checks:nap"', 200, "thread", "64"),
    ("8 calls that compute, processes", 'call: "checks:compute"', 8, "process", "2"),
    ("8 calls that compute, adaptive", 'call: "checks:compute"', 8, "adaptive", "2 processes"),
    ("12 calls that compute half", 'call: "checks:half"', 12, "process", "4"),
)


NAP_SECONDS = 0.05
REAL_SIZES = (4, 5, 6, 7, 8, 10, 16)
REAL_STREAMS = tuple(
    Stream(
        name=name, rate=rate, duration=waiting(NAP_SECONDS), service_seconds=NAP_SECONDS, until=60.0, settled=settled,
        expected=expected,
    )
    for name, rate, settled, expected in (
        ("naps of 50 ms, 100/s", constant(100), 0.0, "7"),
        ("step x10 to 100/s", stepped(10, 100, at=30), 30.0, "7, 3 moves at most"),
        ("saw-tooth of 5 s", saw_tooth(10, 100, period=5.0), 0.0, "flap budget"),
    )
)  # fmt: skip


def real() -> None:
    print("### Open streams for real\n")
    headers = ("workload", "expected", "best fixed", "ours: size, moves, reversals, mean wait, worst wait")
    table(headers, (real_stream_row(stream) for stream in REAL_STREAMS))
    print("### Control for real\n")
    print(
        f"Lanes of one stage on {len(os.sched_getaffinity(0))} cores, at most 64 workers; medians of {ROUNDS} rounds.\n"
    )
    lane_headers = ("workload", "expected", "ours", "moves", "best fixed", "makespan, ours / best fixed")
    table(lane_headers, (real_row(*workload) for workload in REAL))


def real_stream_row(stream: Stream) -> Iterator[object]:
    pools = {size: ThreadPool(size) for size in REAL_SIZES}
    fixed = {size: mean(waits) for size, waits in zip(pools, naps(stream, [*pools.values()]), strict=True)}
    good = [size for size, wait in fixed.items() if wait <= WAIT_RATIO * NAP_SECONDS]
    sizes: list[int] = []
    with ThreadPool(1) as pool, steer(pool, maximum=64):
        (waits,) = naps(
            stream, [pool], look=lambda moment: sizes.append(pool.target) if moment >= stream.settled else None
        )
    moves = [after for before, after in pairwise(sizes) if after != before]
    best = good[0] if good else f"over {REAL_SIZES[-1]}"
    found = (
        f"{sizes[-1]}, {len(moves)}, {reversals([sizes[0], *moves])}, {1e3 * mean(waits):.0f} ms, {max(waits):.1f} s"
    )
    yield from (stream.name, stream.expected, best, found)


def naps(stream: Stream, pools: list[ThreadPool], look: Callable[[float], None] = lambda _: None) -> list[list[float]]:
    """Submit the stream's tasks to each pool as they come; return how long each waited, in seconds, by pool."""
    begun = time.monotonic()
    futures: list[list[Future[float]]] = [[] for _ in pools]
    for moment in poisson(stream.rate, stream.until, seed=1):
        time.sleep(max(0.0, begun + moment - time.monotonic()))
        for pool, waited in zip(pools, futures, strict=True):
            waited.append(pool.submit(nap, time.monotonic()))
        look(moment)
    return [[future.result() for future in waited] for waited in futures]


def nap(submitted_seconds: float) -> float:
    waited_seconds = time.monotonic() - submitted_seconds
    time.sleep(NAP_SECONDS)
    return waited_seconds


def real_row(name: str, work: str, tasks: int, strategy: str, expected: str) -> Iterator[object]:
    sizes = [size for size in (1, 2, 4, 8, 16, 64) if size <= 2 * tasks]
    fixed: dict[int, list[float]] = {size: [] for size in sizes}
    chosen: list[tuple[float, int, int]] = []
    for _ in range(ROUNDS):  # all in turn: other work on the machine meets them alike
        for size in sizes:
            fixed[size].append(run_real(work, tasks, strategy, str(size))[0])
        chosen.append(run_real(work, tasks, strategy, "{min: 1, max: 64}"))
    took = {size: median(seconds) for size, seconds in fixed.items()}
    best = min(took.values())
    smallest = next(size for size, seconds in took.items() if seconds <= 1.05 * best)
    seconds, size, moves = (median(values) for values in zip(*chosen, strict=True))
    yield from (name, expected, f"{size:.0f}", f"{moves:.0f}", smallest, f"{seconds / best:.2f}")


def run_real(work: str, tasks: int, strategy: str, workers: str) -> tuple[float, int, int]:
    """Return a lane's duration in seconds, its largest size and how often it moved."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "checks.py").write_text(CHECKS)
        (root / "paropt.yml").write_text(
            f"lanes: {{standard: {{strategy: {strategy}, workers: {workers}}}}}\n"
            f"stages:\n- {{number: 1, name: a, {work}, items: {{command: seq {tasks}}}}}\n"
        )
        command = [str(Path(sys.executable).parent / "paropt-exporter"), "--once", "--output", "json"]
        ran = subprocess.run(
            [*command, "--web.listen-address=127.0.0.1:0"], cwd=root, check=True, capture_output=True, text=True
        )
        summary = json.loads(ran.stdout)
        with sqlite3.connect(root / ".paropt/history.db") as history:
            (moves,) = history.execute("SELECT count(*) FROM decisions WHERE action <> 'hold'").fetchone()
        history.close()
    size = max(int(pool["peak_size"]) for pool in summary["pools"] if pool["busy_seconds"] > 0)
    return float(summary["duration_seconds"]), size, int(moves)


if __name__ == "__main__":
    main()
