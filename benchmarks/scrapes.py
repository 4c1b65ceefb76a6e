"""Measure the CPU time of a scrape with gzip by the number of tasks that have ended since the one before.

Each task is a stage of its own, as in benchmarks/slow_clients.py. The time is that of the thread that renders pages,
without TLS.

    python benchmarks/scrapes.py [--stages 1000] [--scrapes 20]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path

from paropt_exporter.events import Event
from paropt_exporter.exposition.renderer import PageCompressor
from paropt_exporter.metrics import LaneLabels, Metrics, StageLabels

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.event_samples import stage_ended, stage_started, task

TASKS = (0, 10, 100, 250, 500)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("--scrapes", type=int, default=20)
    flags = parser.parse_args()
    names = [f"stage_{number}" for number in range(flags.stages)]
    labels = tuple(StageLabels(name=name, number=number, pool="commands") for number, name in enumerate(names))
    metrics = Metrics(project="benchmark", lanes=(LaneLabels(lane="standard", stages=labels),))
    compressor = PageCompressor()
    print("| tasks since the last scrape | CPU time of a scrape, median and least | of it gzip |\n|---|---|---|")
    for tasks in TASKS:
        ended = cycle(names)
        found = [scrape(metrics, compressor, islice(ended, tasks)) for _ in range(flags.scrapes)]
        whole, gzip = ([one[position] for one in found[1:]] for position in (0, 1))
        print(f"| {tasks} | {format_seconds(whole)} | {format_seconds(gzip)} |", flush=True)
    return 0


def scrape(metrics: Metrics, compressor: PageCompressor, ended: Iterable[str]) -> tuple[float, float]:
    """Return the CPU time of a scrape after these stages, and that of its compression."""
    for name in ended:
        for event in run_stage(name):
            metrics.observe(event)
    began = time.thread_time()
    parts = metrics.render_parts(openmetrics=True)
    rendered = time.thread_time()
    compressor.compress(parts)
    return time.thread_time() - began, time.thread_time() - rendered


def run_stage(name: str) -> Iterator[Event]:
    seconds = 0.001 + time.perf_counter() % 0.001  # each with digits of its own, as measured durations have
    yield stage_started(name, sla=None)
    yield task(name, seconds=seconds, waited=seconds / 3, cpu=seconds / 2)
    yield stage_ended(name, seconds=seconds, sla=None)


def format_seconds(found: Iterable[float]) -> str:
    found = tuple(found)
    return f"{statistics.median(found) * 1000:.0f}, {min(found) * 1000:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
