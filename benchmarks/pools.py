"""Prints how fast the pools are, as ratios against concurrent.futures, in interleaved rounds on this machine.

Usage: python benchmarks/pools.py [ROUNDS]. Peers that are not installed are skipped with a word.
"""

from __future__ import annotations

import argparse
import operator
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from peers import OURS, PROCESSES, STANDARD, THREADS, Peer, Work, installed, missing

ROUNDS = 5
WORKERS = (2, 4)
LARGE = bytes(1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure: `run` does `count` tasks; `goal` is the ratio to reach."""

    title: str
    run: Callable[[Work, int], None]
    count: int
    goal: float


def submit_many(work: Work, count: int) -> None:
    work.many(operator.not_, 1, count)


def map_many(work: Work, count: int) -> None:
    work.map(operator.not_, range(count))


def one_at_a_time(work: Work, count: int) -> None:
    for _ in range(count):
        work.one(operator.not_, 1)


def megabytes(work: Work, count: int) -> None:
    for _ in range(count):
        work.one(bytes, LARGE)


OF_THREADS = (
    Measure(title="threads: no-op submit and result", run=submit_many, count=5000, goal=5),
    Measure(title="threads: map of 10,000 no-ops", run=map_many, count=10_000, goal=25),
)
OF_PROCESSES = (
    Measure(title="processes: no-op submit and result", run=submit_many, count=5000, goal=20),
    Measure(title="processes: one at a time", run=one_at_a_time, count=300, goal=1.8),
    Measure(title="processes: 1 MB argument and result", run=megabytes, count=30, goal=1.5),
)


def main() -> None:
    """Print a table for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    for package in missing():
        print(f"skipped: {package} is not installed (pip install '.[bench]')")
    print(f"\nTimes faster than the standard library's executor; medians of {rounds} interleaved rounds.")
    found = measured(rounds)
    names = [STANDARD, OURS, *(peer.name for peer in (*THREADS, *PROCESSES) if peer.is_installed())]
    columns = list(dict.fromkeys(names))
    for workers in WORKERS:
        print(f"\n| {workers} workers | {' | '.join(columns)} | goal |\n|---|{'---|' * len(columns)}---|")
        for measure in (*OF_THREADS, *OF_PROCESSES):
            print(_row(measure, found[workers, measure.title], columns), flush=True)


def measured(rounds: int) -> dict[tuple[int, str], dict[str, float]]:
    """Return seconds per task by workers and measure, then by peer.

    The slow ones come after all others: they leave threads and a large heap behind, which would slow down who follows.
    """
    found: dict[tuple[int, str], dict[str, float]] = {}
    for slow in (False, True):
        for workers in WORKERS:
            for peers, measures in ((THREADS, OF_THREADS), (PROCESSES, OF_PROCESSES)):
                taking_part = tuple(peer for peer in installed(peers) if (peer.slower > 1) is slow)
                for title, seconds in seconds_per_task(taking_part, measures, workers, rounds).items():
                    found.setdefault((workers, title), {}).update(seconds)
    return found


def seconds_per_task(
    peers: tuple[Peer, ...], measures: tuple[Measure, ...], workers: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the median by measure and peer. In each round every peer takes its turn, with a new pool."""
    seconds: dict[str, dict[str, list[float]]] = {
        measure.title: {peer.name: [] for peer in peers} for measure in measures
    }
    for _ in range(rounds):
        for peer in peers:
            with peer.make(workers) as work:
                work.many(operator.not_, 1, 200 // peer.slower)  # warm
                for measure in measures:
                    seconds[measure.title][peer.name].append(_seconds(work, measure, peer))
    return {
        title: {name: statistics.median(values) for name, values in found.items()} for title, found in seconds.items()
    }


def _seconds(work: Work, measure: Measure, peer: Peer) -> float:
    count = max(1, measure.count // peer.slower)
    begun = time.perf_counter()
    measure.run(work, count)
    return (time.perf_counter() - begun) / count


def _row(measure: Measure, found: dict[str, float], columns: list[str]) -> str:
    standard = found[STANDARD]
    cells = [_figure(standard / found[name]) if name in found else "" for name in columns]
    cells[columns.index(STANDARD)] = f"1 ({standard * 1e6:.1f} µs)"
    return f"| {measure.title} | {' | '.join(cells)} | {measure.goal:g} |"


def _figure(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2g}"


if __name__ == "__main__":
    main()
