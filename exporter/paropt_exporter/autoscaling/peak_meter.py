"""Measure how much memory a run's tasks take: the highest of each stage, and what running ones hold of that now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from paropt_exporter.plan import THREADS


class PeakMeter:
    """The highest memory use of one task, by stage.

    Guarantees: a peak only grows; a task in a thread has no memory of its own, so it is promised none either.
    """

    def __init__(self, known: Mapping[str, int] = MappingProxyType({})) -> None:
        """Begin with what is known from earlier runs, or from the config."""
        self._peaks = dict(known)

    def look(self, running: Iterable[tuple[str, str, int]], ended: Iterable[tuple[str, int]]) -> None:
        """Take what running tasks hold now, as (pool, stage, bytes), and what ended ones held at most."""
        own = ((stage, size) for pool, stage, size in running if pool != THREADS)
        for stage, size in (*own, *ended):
            self._peaks[stage] = max(size, self._peaks.get(stage, 0))

    def of_task(self, pool: str, stage: str) -> int:
        """Return the most that a running task takes; 0: not known, or not its own."""
        return 0 if pool == THREADS else self.of_stage(stage)

    def of_stage(self, stage: str) -> int:
        """Return the most that a task of the stage takes; 0: not known."""
        return self._peaks.get(stage, 0)

    def held(self, running: Iterable[tuple[str, str, int]]) -> int:
        """Return what running tasks hold of their peaks."""
        return sum(min(size, self.of_task(pool, stage)) for pool, stage, size in running)
