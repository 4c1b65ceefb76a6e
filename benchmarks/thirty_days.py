"""Run a lane every 10 s for 30 days of a fake clock: memory, descriptors, threads and the history's size stay flat.

Real: the engine, one run after another, the history in its SQLite file, the metrics and their page, the queries of the
planner. Scripted: the work, and with it the time. Stages succeed, fail with output, are retried, are flaky, and reach
their SLA; the controller's decisions are one a run. Exits with 1 and says what grew otherwise.

    python benchmarks/thirty_days.py [--days 30] [--every 10] [--runs 1000] [--size 512MiB as bytes] [--seed 1]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from paropt_exporter import families
from paropt_exporter.engine.observers import Observers
from paropt_exporter.engine.run import Run
from paropt_exporter.events import Decision, Result
from paropt_exporter.history import History
from paropt_exporter.metrics import LaneLabels, Metrics, StageLabels
from paropt_exporter.testing import FakeClock, FakeInbox, FakeWorkers, Script
from support.lanes import limit, plan, stage

DAY_SECONDS = 86_400.0
SAMPLES = 30  # over the whole time
RUNS_PER_LOOK = 60  # so often the page is rendered and the planner's queries are made: every ten minutes
LANE, PROJECT = "standard", "years"
STAGES = (
    stage("lint", 2),
    stage("unit", 3, tasks=2, sla=limit(2.0), retries=1),
    stage("scan", 4, needs=("lint",)),
)
_MEMORY_GROWTH_BYTES = 4 << 20
_GROWTH_RATIO = 1.1  # of the history: runs differ in size


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the process holds after so many runs."""

    runs: int
    memory_bytes: int
    descriptors: int
    threads: int
    history_bytes: int
    seconds_per_run: float


def main() -> None:
    flags = parse_flags()
    every = f"{flags.days:g} days, a run every {flags.every:g} s, the last {flags.runs or 'all'} runs kept"
    print(f"{every}, up to {flags.size >> 20} MiB, seed {flags.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        faults = [*live(Path(folder) / ".paropt/history.db", flags)]
    print("\n".join(faults) if faults else "nothing grew, no total is missing")
    sys.exit(1 if faults else 0)


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds")
    parser.add_argument("--runs", type=int, default=1000, help="to keep; 0: all")
    parser.add_argument("--size", type=int, default=512 << 20, help="to keep, in bytes")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def live(path: Path, flags: argparse.Namespace) -> Iterator[str]:
    clock, chance = FakeClock(), random.Random(flags.seed)
    total = int(flags.days * DAY_SECONDS / flags.every)
    samples: list[Sample] = []
    with closing(
        History(path, project=PROJECT, clock=clock, keep_runs=flags.runs or None, keep_bytes=flags.size)
    ) as history:
        metrics = build_metrics(history)
        observers = Observers({"history": history, "metrics": metrics})
        began = time.perf_counter()
        for number in range(1, total + 1):
            moment = clock.now
            run_once(number, clock, chance, observers)
            clock.now = max(clock.now, moment + flags.every)
            if number % RUNS_PER_LOOK == 0:
                look(history, metrics)
            if number % max(1, total // SAMPLES) == 0:
                spent = (time.perf_counter() - began) / max(1, total // SAMPLES)
                samples.append(take_sample(path, number, spent))
                print(samples[-1], flush=True)
                began = time.perf_counter()
        yield from compare(history, metrics, total)
        if sum(observers.dropped().values()) or history.dropped:
            yield f"events were dropped: {observers.dropped()}, {history.dropped}"
    yield from find_growth(samples)


def build_metrics(history: History) -> Metrics:
    labels = tuple(StageLabels(name=one.name, number=one.number, pool=one.pool, sla=one.sla) for one in STAGES)
    lane = LaneLabels(lane=LANE, stages=labels, total=None, interval_seconds=10.0)
    totals, last = history.load_totals(), history.load_last_values()
    return Metrics(project=PROJECT, lanes=(lane,), totals=totals, last=last)


def run_once(number: int, clock: FakeClock, chance: random.Random, observers: Observers) -> None:
    inbox = FakeInbox(clock)
    workers = FakeWorkers(clock, inbox, {one.name: [*choose_scripts(chance)] for one in STAGES})
    Run(
        plan(*STAGES, project=PROJECT),
        run_id=f"run-{number}",
        workers=workers,
        emit=observers.hold,
        flush=lambda: None,  # one batch a run, with the decision below
        inbox=inbox,
        clock=clock,
        memory_bytes=1 << 30,
    ).execute()
    observers.emit(
        Decision(
            pool="commands", action="up", reason="demand", old_size=2, new_size=3, at_timestamp_seconds=clock.wall(),
            run_id=f"run-{number}", terms={"queue": 3.0, "busy": 0.9},
        )
    )  # fmt: skip


def choose_scripts(chance: random.Random) -> Iterator[Script]:
    """Yield the scripts of a stage's attempts: one in ten fails, with output, and its retry may succeed."""
    for _ in range(4):
        bad = chance.random() < 0.1
        result = Result.FAILURE if bad else Result.SUCCESS
        seconds = chance.choice((0.2, 0.5, 1.0, 2.5))
        yield Script(seconds=seconds, result=result, output="wrong\n" * 500 if bad else "", cpu_seconds=seconds / 2)


def look(history: History, metrics: Metrics) -> None:
    """Do what a scrape and the next plan do."""
    metrics.render_final_page()
    history.load_flakiness(LANE)
    history.load_open_failures(LANE, "state")
    history.load_earlier_runs(LANE)
    history.load_cpu_demands(LANE)
    history.load_memory_peaks(LANE)
    history.load_usual_size(LANE)


def take_sample(path: Path, runs: int, seconds_per_run: float) -> Sample:
    process = psutil.Process()
    return Sample(
        runs=runs,
        memory_bytes=process.memory_info().rss,
        descriptors=process.num_fds(),
        threads=threading.active_count(),
        history_bytes=sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*")),
        seconds_per_run=round(seconds_per_run, 5),
    )


def compare(history: History, metrics: Metrics, total: int) -> Iterator[str]:
    """Compare the totals of the file and of the page with the number of runs."""
    counters = history.load_totals().counters
    runs = sum(value for (family, _), value in counters.items() if family == families.RUNS.name)
    attempts = sum(value for (family, _), value in counters.items() if family == families.TASK_ATTEMPTS.name)
    shown = build_metrics(history).render_final_page()
    if runs != total:
        yield f"the history counts {runs} of {total} runs"
    if attempts < 3 * total:
        yield f"the history counts {attempts} attempts of {total} runs"
    before, after = list_totals(metrics.render_final_page()), list_totals(shown)
    for line in sorted(before ^ after):
        yield f"only before or after a restart: {line!r}"


def list_totals(page: bytes) -> set[bytes]:
    """Return the lines of the totals of runs, stages and tasks."""
    kinds = (b"paropt_runs_total", b"paropt_stage_runs_total", b"paropt_task_attempts_total")
    return {line for line in page.splitlines() if line.startswith(kinds)}


def find_growth(samples: list[Sample]) -> Iterator[str]:
    """Compare the last fifth with the second: in the first the history fills up to its limits."""
    fifth = len(samples) // 5
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    for name, room in (("memory_bytes", _MEMORY_GROWTH_BYTES), ("descriptors", 0), ("threads", 0)):
        before, after = (max(getattr(one, name) for one in some) for some in (early, late))
        if after > before + room:
            yield f"{name} grew from {before} to {after}"
    before, after = (max(one.history_bytes for one in some) for some in (early, late))
    if after > before * _GROWTH_RATIO:
        yield f"the history grew from {before} to {after} bytes"


if __name__ == "__main__":
    main()
