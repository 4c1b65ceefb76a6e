"""The guide's strategies, and the starting number of workers of each on this machine."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from paropt_exporter import host
from paropt_exporter.events import Result, Strategy

if TYPE_CHECKING:
    from paropt_exporter.history.summaries import RunSummary

log = logging.getLogger(__name__)

PROJECT_FOLDER = Path(".paropt")  # of the project in the current folder

MOST_THREADS = 32  # the pools' default: more threads rarely help, and each costs memory
_EXTRA_THREADS = 4  # like the standard library's pool
_PROCESS_BYTES = 64 * 1024**2  # a worker with a few libraries, without its task's memory
_MEMORY_SHARE = 0.5  # of the free memory is for processes; the other half is for their tasks
_WANTED_BUSY_RATIO = 0.8  # leaves room for a longer stage
_SLACK = 0.1  # a fraction of a worker that is too little to add one
_RUNS = 10


class ParallelizationStrategy(StrEnum):
    """Where the pool's tasks run.

    THREAD_POOL and PROCESS_POOL have one kind of workers. HYBRID has both and chooses for each function, ADAPTIVE also
    chooses the number of threads. SEQUENTIAL runs one task at a time.
    """

    THREAD_POOL = "thread_pool"
    PROCESS_POOL = "process_pool"
    HYBRID = "hybrid"
    SEQUENTIAL = "sequential"
    ADAPTIVE = "adaptive"

    @classmethod
    def _missing_(cls, value: object) -> None:
        size = f"; give a number of workers as initial_size={value}" if isinstance(value, int) else ""
        raise ValueError(f"there is no strategy {value!r}: choose from {', '.join(cls)}{size}")

    @property
    def pool_strategy(self) -> Strategy:
        """The strategy's name in pools and the config."""
        return Strategy(self.value.removesuffix("_pool"))


class WorkerPoolOptimizer:
    """Chooses the starting number of workers of a pool."""

    @staticmethod
    def get_optimal_worker_count(strategy: ParallelizationStrategy | str) -> int:
        """Return the count for the allowed cores, the free memory, the strategy and the history of this folder.

        If the history has runs of lanes with this strategy, it is the count that would have kept their workers 80 %
        busy, or one more than a saturated run had.
        """
        wanted = ParallelizationStrategy(strategy)
        return choose_size(
            wanted,
            cores=host.count_cpu_workers(),
            memory_bytes=host.read_available_memory_bytes(),
            runs=_load_earlier_runs(wanted.pool_strategy),
        )


def choose_size(
    strategy: ParallelizationStrategy, *, cores: int, memory_bytes: int, runs: Iterable[RunSummary] = ()
) -> int:
    """Return the starting number of workers, for the free memory (0: unknown) and earlier runs of this strategy."""
    known = [slots for run in runs if (slots := _estimate_slots(run)) is not None]
    match strategy:
        case ParallelizationStrategy.SEQUENTIAL:
            return 1
        case ParallelizationStrategy.PROCESS_POOL:
            size, most = cores, min(cores, _count_fitting_processes(memory_bytes) or cores)
        case ParallelizationStrategy.ADAPTIVE:
            size, most = cores, MOST_THREADS
        case ParallelizationStrategy.THREAD_POOL | ParallelizationStrategy.HYBRID:
            size, most = cores + _EXTRA_THREADS, MOST_THREADS
    return max(1, min(math.ceil(median(known) - _SLACK) if known else size, most))


def _count_fitting_processes(memory_bytes: int) -> int:
    return max(1, int(memory_bytes * _MEMORY_SHARE / _PROCESS_BYTES)) if memory_bytes else 0


def _estimate_slots(run: RunSummary) -> float | None:
    """Return the number of slots that a past run could have used, or None if it is unknown."""
    if run.result is not Result.SUCCESS or run.duration_seconds <= 0 or run.busy_ratio <= 0:
        return None
    running = run.sequential_seconds / run.duration_seconds  # concurrent tasks, on average
    if any(found.kind == "saturated" for found in run.bottlenecks):
        return running / run.busy_ratio + 1
    return running / _WANTED_BUSY_RATIO


def _load_earlier_runs(strategy: Strategy) -> tuple[RunSummary, ...]:
    """Return the last runs of the project in the current folder, or none without a history."""
    if not PROJECT_FOLDER.exists() and not Path("paropt.yml").exists():
        return ()  # as for most scripts: avoid loading the modules that read a config
    from paropt_exporter import config

    try:
        loaded = config.read_config(config.discover(None, os.environ), root=Path.cwd())
        if not loaded.history_path.exists():
            return ()
        return _read_runs(loaded.history_path, loaded.project, strategy)
    except Exception as error:  # noqa: BLE001 -- history is a hint only: no fault in a config may stop a script's pool
        log.debug("no history to size the pool by", extra={"err": str(error)})
        return ()


def _read_runs(path: Path, project: str, strategy: Strategy) -> tuple[RunSummary, ...]:
    from paropt_exporter.clock import SystemClock
    from paropt_exporter.history import History

    with closing(History(path, project=project, clock=SystemClock(), for_reading=True)) as history:
        return tuple(run for run in history.load_runs(limit=_RUNS) if run.strategy == strategy.value)
