"""A simulated machine: a fair scheduler, threads that compute and sleep, other processes' load, and /proc's counters.

Time advances by quanta. In each, the runnable threads that had least of a core so far (by weight) get one each; the
others wait. As in `schedstat`, a wait counts once it has ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

QUANTUM_SECONDS = 0.01
_PERIOD_SECONDS = 0.02  # of a thread that computes and sleeps in turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of a thread's life: `seconds` long on an idle machine, with a demand of `cpu_demand` cores."""

    seconds: float
    cpu_demand: float = 0.0


@dataclass(slots=True, eq=False)
class Thread:
    """One thread with its counters in /proc: `run`, `wait` (ended waits only) and `runnable`."""

    phases: list[Phase]
    weight: float = 1.0
    run: float = 0.0
    wait: float = 0.0
    served: float = 0.0  # core time by weight, which the scheduler balances
    since: float | None = None  # when its present wait began
    blocked: bool = False  # by a lock
    switches: int = 0  # how often it gave up its core by itself
    _segments: list[tuple[bool, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for phase in self.phases:
            self._segments += _segments(phase)
        self._segments.reverse()

    @property
    def ended(self) -> bool:
        return not self._segments

    @property
    def runnable(self) -> bool:
        return bool(self._segments) and self._segments[-1][0] and not self.blocked

    @property
    def left(self) -> float:
        """The rest of its present segment in seconds."""
        return self._segments[-1][1] if self._segments else 0.0

    def advance(self, seconds: float) -> None:
        """Run or sleep for a part of the present segment."""
        computing, left = self._segments[-1]
        if left - seconds > 1e-9:
            self._segments[-1] = (computing, left - seconds)
        else:
            self._segments.pop()
            self.switches += computing


class Machine:
    """Cores, and threads of other processes that never stop computing."""

    def __init__(self, cores: int, others: int = 0) -> None:
        self.cores = cores
        self._others = [Thread([Phase(seconds=math.inf, cpu_demand=1.0)]) for _ in range(others)]

    def step(self, threads: Iterable[Thread], now: float, most: float) -> float:
        """Advance by a quantum or, while no thread computes, to the end of a segment; return the seconds."""
        runnable, sleeping = list[Thread](), list[Thread]()
        for thread in threads:
            segments = thread._segments
            if segments and not thread.blocked:
                (runnable if segments[-1][0] else sleeping).append(thread)
        runnable += self._others
        chosen = self._chosen(runnable, now)
        seconds = min([most, *(thread.left for thread in (*sleeping, *chosen))])
        if runnable:
            seconds = min(seconds, QUANTUM_SECONDS)
        seconds = max(seconds, 1e-6)
        for thread in chosen:
            if thread.since is not None:
                thread.wait += now - thread.since
                thread.since = None
            thread.run += seconds
            thread.served += seconds / thread.weight
        for thread in (*chosen, *sleeping):
            thread.advance(seconds)
        return seconds

    def _chosen(self, runnable: list[Thread], now: float) -> list[Thread]:
        if not runnable:
            return []
        least = min(thread.served for thread in runnable)
        for thread in runnable:
            if thread.since is None:
                thread.since = now
            if thread.served < least - QUANTUM_SECONDS:
                thread.served = least
        lag = max((thread.served for thread in self._others), default=0.0)
        for thread in runnable:  # a thread that slept, or is new, has no claim on the time before
            thread.served = max(thread.served, lag - 2 * QUANTUM_SECONDS)
        return sorted(runnable, key=lambda thread: thread.served)[: self.cores]


def _segments(phase: Phase) -> Iterable[tuple[bool, float]]:
    """Return a phase's segments: (whether it computes, seconds)."""
    if phase.cpu_demand <= 0.0 or phase.cpu_demand >= 1.0:
        return [(phase.cpu_demand >= 1.0, phase.seconds)] if phase.seconds > 0 else []
    reversals = max(1, round(phase.seconds / _PERIOD_SECONDS))
    seconds = phase.seconds / reversals
    return [(True, seconds * phase.cpu_demand), (False, seconds * (1.0 - phase.cpu_demand))] * reversals
