"""Decides for each function whether its tasks belong in threads or processes, by what they were measured to do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from paropt_exporter.cpu_demand import CoreTime, cpu_demand
from paropt_exporter.events import Measurement, Strategy
from paropt_exporter.executors.adaptive.profiles import FunctionProfile
from paropt_exporter.plan import PROCESSES, THREADS

F = TypeVar("F", bound=Callable[..., Any])
Place = str  # plan.THREADS or plan.PROCESSES

# c, the cores that a task wants (see `cpu_demand`). Over this it is CPU-bound: two such threads
# already fill the one core that the interpreter's lock gives them.
_CPU_BOUND_SHARE = 0.5
# Beside N - 1 others in threads a CPU-bound task gets 1/N of the interpreter's lock, so reads c = 1/N. Measured 0.51,
# 0.27 and 0.15 for N = 2, 4, 8 (controller.md §2): a sum c * N of 0.8 of a core is suspected of it.
FULL_LOCK_CORES = 0.8
_TRUSTED = 5  # clear measurements, before one in a crowd no longer outweighs them
_NEWEST_SHARE = 0.3  # of the newest measurement in a function's average
# A shorter task costs more on its way to another process than the interpreter's lock costs it.
_WORTH_MOVING_SECONDS = 0.002

_BRIEF_SECONDS = 0.001  # tens of what it costs to decide about a task

_MARK = "__paropt_thread_only__"


def thread_only(function: F) -> F:
    """Mark a function whose tasks must stay in threads, since they share state with their caller."""
    setattr(function, _MARK, True)
    return function


def is_thread_only(function: object) -> bool:
    return bool(getattr(function, _MARK, False))


@dataclass(slots=True)
class _Known:
    """What was learned of one function: averages of its share of a core and of its duration."""

    share: float
    seconds: float
    bound: bool = False  # whether it was seen to be CPU-bound in threads
    clear: int = 0  # how often it was measured where nothing competed for the interpreter's lock
    doubted: bool = False  # whether it was seen to wait, and now to fill the interpreter's lock with others like it
    kept: str = ""  # why it stays in threads, "" when it may move


class Router:
    """Chooses a pool by strategy and, for HYBRID and ADAPTIVE, by what was learned. Any thread may call.

    unknown ──> threads ──(measured CPU-bound)──> processes
                   ^                                 │
                   └──(measured waiting; may not move)┘
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._lock = threading.RLock()  # guards: what is known of functions
        self._known: dict[str, _Known] = {}

    def choose(self, key: str) -> Place:
        if self._strategy is Strategy.PROCESS:
            return PROCESSES
        if self._strategy in (Strategy.THREAD, Strategy.SEQUENTIAL):
            return THREADS
        known = self._known.get(key)
        if known is None or known.kept or not _cpu_bound(known):
            return THREADS
        return PROCESSES

    def learn(self, key: str, measurement: Measurement, *, concurrent: int) -> None:
        """Take in one task, ended or still running.

        `concurrent`: how many tasks like it competed for the interpreter's lock, itself included; 1 for none.
        """
        wall = measurement.ended_seconds - measurement.started_seconds
        time = CoreTime(measurement.cpu_seconds, measurement.run_delay_seconds)
        share = min(1.0, cpu_demand(time, max(wall, 1e-6)))
        threaded = measurement.pid == os.getpid()
        crowded = threaded and concurrent > 1 and share * concurrent >= FULL_LOCK_CORES
        read = 1.0 if crowded else share
        with self._lock:
            known = self._known.setdefault(key, _Known(share=read, seconds=wall))
            known.clear += not crowded
            known.doubted = crowded and known.share < _CPU_BOUND_SHARE and known.clear >= _TRUSTED
            known.seconds += _NEWEST_SHARE * (wall - known.seconds)
            if not known.doubted:
                known.share += _NEWEST_SHARE * (read - known.share)
            known.bound = known.bound or (threaded and _cpu_bound(known))

    def recall(self, profiles: Iterable[FunctionProfile]) -> None:
        """Take what was learned before for what is known, until this pool's own tasks say more."""
        with self._lock:
            for profile in profiles:
                self._known.setdefault(profile.function, _Known(share=profile.share, seconds=profile.seconds))

    def profiles(self) -> tuple[FunctionProfile, ...]:
        """Return what is known of each function that may move."""
        with self._lock:
            return tuple(
                FunctionProfile(function=key, share=known.share, seconds=known.seconds)
                for key, known in self._known.items()
                if not known.kept
            )

    def keep(self, key: str, reason: str) -> None:
        """Have a function stay in threads, for `reason`."""
        with self._lock:
            self._known.setdefault(key, _Known(share=0.0, seconds=0.0)).kept = reason

    def kept(self, key: str) -> str:
        """Say why a function stays in threads; "" when nothing keeps it there."""
        known = self._known.get(key)
        return known.kept if known else ""

    def is_brief(self, key: str) -> bool:
        """Whether a function's tasks are known to be over before anything could be decided about them."""
        known = self._known.get(key)
        return known is not None and known.seconds < _BRIEF_SECONDS

    def doubts(self, key: str) -> bool:
        """Whether one task should run in a process to show what it does: many that wait a little less than they did
        before look like a few that compute, where the interpreter's lock is full.
        """
        known = self._known.get(key)
        return known is not None and known.doubted and not known.kept

    def gil_bound(self, key: str) -> bool:
        """Say whether CPU-bound work of this function was seen in threads."""
        known = self._known.get(key)
        return known is not None and (known.bound or known.doubted)

    def share(self, key: str) -> float | None:
        """Return the share of a core that a task of this function takes; None while unknown."""
        known = self._known.get(key)
        return known.share if known else None


def _cpu_bound(known: _Known) -> bool:
    return known.share >= _CPU_BOUND_SHARE and known.seconds >= _WORTH_MOVING_SECONDS
