"""Choose threads or processes for each function, by measurements of its tasks, and save these profiles for later."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct

from paropt_exporter import files
from paropt_exporter.cpu_demand import UNKNOWN_DEMAND, CoreTime, Switches, call_cpu_demand, cpu_demand
from paropt_exporter.events import Measurement, Strategy
from paropt_exporter.executors.base import PROCESSES, THREADS
from paropt_exporter.executors.demand import (
    FULL_LOCK_CORES,
    compute_gil_ratio,
    has_slept,
    is_gil_bound,
    was_preempted,
)

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])
PoolName = str  # THREADS or PROCESSES

# A task with a CPU demand (see `cpu_demand`) above this is CPU-bound: two such threads already use up the one core that
# the GIL allows them.
CPU_BOUND_DEMAND = 0.5
_MIN_CLEAR_MEASUREMENTS = 5  # so many measurements without competition for the GIL outweigh one with competition
_NEWEST_WEIGHT = 0.3  # of the newest measurement in the average of a function
# A task that slept, and then ran for less than this fraction of its wait for a core, has only woken up late on a busy
# machine. Measured beside 8 busy loops on 2 cores: sleeps of 50 ms ran for 0.1 ms and waited 56 ms. A task that
# computed beside 12 busy loops ran as little, but waited for a core at least 0.89 of the time.
_LATE_RATIO = 0.01
_SLEPT_RATIO = 0.125
# A sample of a running thread with at least this ratio (see `compute_gil_ratio`) may be of one that computes.
_UNCLEAR_GIL_RATIO = 0.4
# Sending a shorter task to a process costs more than sharing the GIL.
_WORTH_MOVING_SECONDS = 0.002

_BRIEF_SECONDS = 0.001  # tens of times the cost of a decision

# A known function is measured once in so much run time of its tasks, of which that costs 0.5 %. The shortest tasks
# count for more, so that at least one in a thousand is measured.
_MEASURED_ONCE_SECONDS = 0.02
_LEAST_UNMEASURED_SECONDS = _MEASURED_ONCE_SECONDS / 1000
# Likewise for a settled function whose other tasks use less CPU time than `_NOTABLE_CPU_SECONDS`, so that none of them
# can be CPU-bound: a measurement takes four times as much as a sleep.
_SETTLED_ONCE_SECONDS = 0.5
_NOTABLE_CPU_SECONDS = _WORTH_MOVING_SECONDS * CPU_BOUND_DEMAND

_THREAD_ONLY = "__paropt_thread_only__"
_MAX_PROFILES = 10_000
_MAX_BYTES = 16_000_000  # of the file: the largest number of profiles, with names of a kilobyte each


def thread_only(function: F) -> F:
    """Mark a function whose tasks must stay in threads, because they share state with their caller."""
    setattr(function, _THREAD_ONLY, True)
    return function


def is_thread_only(function: object) -> bool:
    try:
        return bool(getattr(function, _THREAD_ONLY, False))
    except Exception:  # noqa: BLE001 -- code of the user, such as a proxy's
        return False


class Router:
    """Chooses a pool by strategy and, for HYBRID and ADAPTIVE, by measurements. Any thread may call.

    unknown ──> threads ──(measured CPU-bound)──> processes
                   ^                                 │
                   └──(measured waiting; may not move)┘
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._lock = threading.RLock()  # guards: _known
        self._known: dict[str, _Knowledge] = {}
        self._timed: set[str] = set()  # functions whose first task was not to be measured

    def choose(self, key: str) -> PoolName:
        """Return the pool for the next task of a function: "threads" or "processes"."""
        if self._strategy is Strategy.PROCESS:
            return PROCESSES
        if self._strategy in (Strategy.THREAD, Strategy.SEQUENTIAL):
            return THREADS
        known = self._known.get(key)
        if known is None or known.pin_reason or not _is_cpu_bound(known):
            return THREADS
        return PROCESSES

    def learn(self, key: str, measurement: Measurement, *, concurrent: int, running: bool = False) -> None:
        """Learn from the measurement of one task that has ended, or of one that is `running`.

        `concurrent`: how many tasks competed for the interpreter's lock, including this one.
        """
        threaded = measurement.pid == os.getpid()
        seconds, demand, crowded, unclear = _read_measurement(
            measurement, concurrent, running=running, threaded=threaded
        )
        with self._lock:
            first = _Knowledge(cpu_demand=demand, seconds=seconds, unmeasured_tasks=_count_unmeasured(seconds))
            known = self._known.setdefault(key, first)
            if known.doubted and running and not crowded:
                return  # a task that has just started, or waits for a core, says nothing against the doubt
            if known.doubted and not threaded:  # a trial, which saw no waits for the GIL
                known.seconds = seconds
            settled = known.clear >= _MIN_CLEAR_MEASUREMENTS
            known.doubted = (unclear or (crowded and settled)) and known.cpu_demand < CPU_BOUND_DEMAND
            known.clear += not crowded and not unclear
            known.unmeasured_tasks = min(known.unmeasured_tasks, _count_unmeasured_of(known))
            if not known.doubted:
                known.seconds += _NEWEST_WEIGHT * (seconds - known.seconds)
                # Weighted by duration: brief tasks and a long wait together are not a function that computes for long.
                weight = _NEWEST_WEIGHT * seconds / known.seconds if known.seconds else _NEWEST_WEIGHT
                known.cpu_demand += weight * (demand - known.cpu_demand)
            if threaded:
                known.bound = _is_cpu_bound(known)

    def load_profiles(self, profiles: Iterable[FunctionProfile]) -> None:
        """Use the profiles of earlier pools until this pool's own tasks are measured."""
        with self._lock:
            for profile in profiles:
                self._known.setdefault(
                    profile.function, _Knowledge(cpu_demand=profile.cpu_demand, seconds=profile.seconds)
                )

    def build_profiles(self) -> tuple[FunctionProfile, ...]:
        """Return the profiles of functions that may move."""
        with self._lock:
            return tuple(
                FunctionProfile(function=key, cpu_demand=known.cpu_demand, seconds=known.seconds)
                for key, known in self._known.items()
                if not known.pin_reason
            )

    def pin_to_threads(self, key: str, reason: str) -> None:
        """Keep a function in threads, for `reason`."""
        with self._lock:
            self._known.setdefault(key, _Knowledge(cpu_demand=0.0, seconds=0.0)).pin_reason = reason

    @property
    def uses_processes(self) -> bool:
        """Whether functions may run in processes."""
        return self._strategy not in (Strategy.THREAD, Strategy.SEQUENTIAL)

    def get_pin_reason(self, key: str) -> str:
        """Return why a function stays in threads; "" if it may move."""
        known = self._known.get(key)
        return known.pin_reason if known else ""

    def get_queue_length(self, key: str, *, alone: bool) -> float:
        """Return how many tasks of a function may wait in the thread pool for each of its threads: any number of brief
        ones, as they need no decision, and one of short ones, if those of no other function wait (`alone`).
        """
        known = self._known.get(key)
        if known is None:
            return 0
        if known.seconds < _BRIEF_SECONDS:
            return math.inf
        return 1 if alone and known.seconds < _MEASURED_ONCE_SECONDS and _is_settled(known) else 0

    def choose_to_measure(self, key: str, *, first: bool = False) -> bool:
        """Return whether to measure the next task of a function; the answers depend on how often this was asked.

        Only if `first` the first one, since its duration shows whether the function is brief. Once a function is known,
        only a part of its tasks.
        """
        known = self._known.get(key)
        if known is None:
            is_first = key not in self._timed
            self._timed.add(key)
            return first or not is_first
        if known.unmeasured_tasks > 0 and (known.seconds < _BRIEF_SECONDS or _is_settled(known)):
            known.unmeasured_tasks -= 1
            return False
        known.unmeasured_tasks = _count_unmeasured_of(known)
        return True

    def needs_no_decision(self, key: str) -> bool:
        """Return whether the next task of a function goes to a thread as it is: the function is known to be brief, and
        this task is not to be measured.
        """
        known = self._known.get(key)
        if known is None or known.seconds >= _BRIEF_SECONDS or known.unmeasured_tasks <= 0:
            return False
        known.unmeasured_tasks -= 1  # without the lock: if two threads collide, a task more is not measured
        return True

    def learn_duration(self, key: str, seconds: float, cpu_seconds: float) -> None:
        """Take the duration and the CPU time of a task whose wait for a core was not measured.

        Of an unknown function they suffice if it is brief. Of a known one, the CPU time may call for a measurement.
        """
        known = self._known.get(key)
        if known is not None:
            if cpu_seconds >= _NOTABLE_CPU_SECONDS:
                known.unmeasured_tasks = min(known.unmeasured_tasks, _count_unmeasured(known.seconds))
        elif seconds < _BRIEF_SECONDS:
            with self._lock:
                unmeasured = _count_unmeasured(seconds)
                first = _Knowledge(cpu_demand=UNKNOWN_DEMAND, seconds=seconds, unmeasured_tasks=unmeasured)
                self._known.setdefault(key, first)

    def needs_trial(self, key: str) -> bool:
        """Return whether one task should run in a process to be measured: while the GIL is saturated, many tasks that
        wait slightly less than before look like a few that compute.
        """
        known = self._known.get(key)
        return known is not None and known.doubted and not known.pin_reason

    def is_gil_bound(self, key: str) -> bool:
        """Return whether tasks of this function were CPU-bound in threads when one was last measured there."""
        known = self._known.get(key)
        return known is not None and (known.bound or known.doubted)

    def get_cpu_demand(self, key: str) -> float | None:
        """Return the CPU demand of a task of this function, at most 1 core; None: unknown."""
        known = self._known.get(key)
        return known.cpu_demand if known else None


class FunctionProfile(Struct, frozen=True, kw_only=True):
    """The mean CPU demand (0 to 1 core) and duration of a function's tasks, without their waits for a core.

    `children_demand`: the CPU demand of the child processes of one task, in cores.
    """

    function: str
    cpu_demand: float
    seconds: float
    children_demand: float = 0.0


def load_profiles(path: Path) -> tuple[FunctionProfile, ...]:
    """Read the profiles in a file. If it can't be read, log a warning and return none."""
    try:
        found = json.loads(files.read_file(path, _MAX_BYTES))["functions"]
        return tuple(_parse_profile(name, **entry) for name, entry in found.items())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("function profiles can't be read", extra={"path": str(path), "err": repr(error)})
        return ()


def save_profiles(path: Path, profiles: Iterable[FunctionProfile]) -> None:
    """Add profiles to the file; a new profile replaces the old one of its function. Log a warning if this fails."""
    kept = {profile.function: profile for profile in load_profiles(path)}
    for profile in profiles:
        kept.pop(profile.function, None)
        kept[profile.function] = profile
    newest = list(kept.values())[-_MAX_PROFILES:]
    content = {
        entry.function: {
            "cpu_demand": entry.cpu_demand,
            "seconds": entry.seconds,
            "children_demand": entry.children_demand,
        }
        for entry in newest
    }
    try:
        files.make_folder(path.parent)
        files.replace_file(path, json.dumps({"functions": content}, indent=1).encode(), mode=files.PRIVATE_FILE)
    except OSError as error:
        log.warning("function profiles can't be saved", extra={"path": str(path), "err": str(error)})


class _Knowledge(Struct):
    """The measurements of one function: averages of its CPU demand, and of its duration without waits for a core."""

    cpu_demand: float
    seconds: float
    bound: bool = False  # whether it was CPU-bound in threads, when it last ran there
    clear: int = 0  # how many measurements had no competition for the interpreter's lock
    unmeasured_tasks: int = 0  # how many tasks need no measurement before the next one that does
    doubted: bool = False  # whether it waited before, and now saturates the GIL together with others
    pin_reason: str = ""  # why it stays in threads; "" if it may move


class _Reading(NamedTuple):
    """A measurement as the router reads it: the duration without waits for a core, and the CPU demand."""

    seconds: float
    demand: float
    crowded: bool  # the task's thread shared the GIL with others that computed: its demand is read as 1
    unclear: bool  # it may have: in a sample, a wait for a core that has not ended looks like sleep


def _read_measurement(measurement: Measurement, concurrent: int, *, running: bool, threaded: bool) -> _Reading:
    wall = measurement.ended_seconds - measurement.started_seconds
    time, switches = CoreTime(measurement.cpu_seconds, measurement.run_delay_seconds), measurement.switches
    # without waits: a busy machine must not make short tasks seem worth moving
    seconds = max(0.0, round(wall - time.wait_seconds, 6))
    wanted = cpu_demand(time, max(wall, 1e-6))
    demand = min(1.0, wanted if running else call_cpu_demand(time, max(wall, 1e-6)))
    if _woke_up_late(time, wall):
        wanted = demand = min(demand, cpu_demand(CoreTime(time.run_seconds), max(wall, 1e-6)))
    # Long waits for a core count here: the thread that holds the GIL keeps it while it waits.
    fills_lock = concurrent > 1 and wanted * concurrent >= FULL_LOCK_CORES and not has_slept(time, wall, switches)
    crowded = threaded and (fills_lock or is_gil_bound(time, wall, switches))
    unclear = running and not crowded and _may_be_gil_bound(time, wall, switches)
    return _Reading(seconds, 1.0 if crowded else demand, crowded, unclear)


def _woke_up_late(time: CoreTime, wall_seconds: float) -> bool:
    slept = wall_seconds - time.run_seconds - time.wait_seconds
    return time.run_seconds < _LATE_RATIO * time.wait_seconds and slept >= _SLEPT_RATIO * wall_seconds


def _may_be_gil_bound(time: CoreTime, wall_seconds: float, switches: Switches) -> bool:
    return was_preempted(time, switches) and compute_gil_ratio(time, wall_seconds, switches) >= _UNCLEAR_GIL_RATIO


def _count_unmeasured(seconds: float, *, shows_cpu: bool = False) -> int:
    """Return how many tasks that take so long need no measurement after one that was measured.

    `shows_cpu`: the function is settled, and the CPU time of each of its tasks is read in any case.
    """
    once_seconds = _SETTLED_ONCE_SECONDS if shows_cpu else _MEASURED_ONCE_SECONDS
    return math.ceil(once_seconds / max(seconds, _LEAST_UNMEASURED_SECONDS)) - 1


def _count_unmeasured_of(known: _Knowledge) -> int:
    return _count_unmeasured(known.seconds, shows_cpu=_is_settled(known) and known.seconds >= _BRIEF_SECONDS)


def _is_settled(known: _Knowledge) -> bool:
    return known.clear >= _MIN_CLEAR_MEASUREMENTS and not known.doubted


def _is_cpu_bound(known: _Knowledge) -> bool:
    return known.cpu_demand >= CPU_BOUND_DEMAND and known.seconds >= _WORTH_MOVING_SECONDS


def _parse_profile(name: str, *, cpu_demand: float, seconds: float, children_demand: float) -> FunctionProfile:
    if not (0 <= cpu_demand <= 1 and 0 <= seconds < math.inf and 0 <= children_demand < math.inf):
        raise ValueError(f"{name}: a demand of {cpu_demand!r}, {seconds!r} seconds and {children_demand!r} cores")
    return FunctionProfile(
        function=name, cpu_demand=float(cpu_demand), seconds=float(seconds), children_demand=float(children_demand)
    )
