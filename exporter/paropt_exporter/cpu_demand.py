"""Compute CPU demand: how many cores work needs, whether or not it gets them."""

from __future__ import annotations

import math

from msgspec import Struct, field

WAITING_DEMAND = 0.1  # a task that wants less than a tenth of a core waits for something other than cores
UNKNOWN_DEMAND = 1.0  # unmeasured work may need a whole core: it starts with one task a core
CORE_SLACK = 0.1  # measured demands are a few percent off: two busy loops read 1.0 and 1.02 on two cores
# If a task waits for a core for more than this part of the wall time, its own rhythm can't be measured.
CROWDED_RATIO = 0.5
# The demand of a shorter task counts as one core at most: its core time includes its start (fork, exec, the first
# imports of a worker), its wall time does not. `true` measures 5 cores, and 30 on a busy machine.
BRIEF_SECONDS = 0.1
# Waits for a core that may be in a task's duration, but not in its counters: between fork and exec, and until its end
# is noticed. Beside 8 busy loops on 2 cores, 40 commands that computed for 0.15 s had up to 9 ms.
UNCOUNTED_SECONDS = 0.05
# A thread that computes runs longer before it is interrupted. One that has run for less waits for a core only when it
# starts or wakes up: this is no demand of its own, however long it takes on a busy machine.
TIME_SLICE_SECONDS = 0.0005


class CoreTime(Struct, frozen=True):
    """Seconds that the threads of some work spent on a core, and runnable without one. Both only grow.

    `wait_seconds` includes waits that have not ended.
    """

    run_seconds: float = 0.0
    wait_seconds: float = 0.0

    def __add__(self, other: CoreTime) -> CoreTime:
        return CoreTime(self.run_seconds + other.run_seconds, self.wait_seconds + other.wait_seconds)

    def since(self, earlier: CoreTime) -> CoreTime:
        """Return the difference, never negative: an unfinished wait is an estimate that the kernel may correct."""
        return CoreTime(
            max(0.0, self.run_seconds - earlier.run_seconds), max(0.0, self.wait_seconds - earlier.wait_seconds)
        )


class Switches(Struct, frozen=True):
    """How often a thread gave up its core (`voluntary`), and how often it was preempted (`involuntary`)."""

    voluntary: int = 0
    involuntary: int = 0

    def since(self, earlier: Switches) -> Switches:
        return Switches(self.voluntary - earlier.voluntary, self.involuntary - earlier.involuntary)


_ROUNDING = 1e-9  # of sums of demands
_LEAST_DEMAND = 1e-3  # the precision of a sample

NO_TIME = CoreTime()
NO_SWITCHES = Switches()


def cpu_demand(time: CoreTime, wall_seconds: float) -> float:
    """Return the cores that work wanted on average over `wall_seconds`: 1.0 for a task that only computes.

    demand = (run + wait) / wall, for any number of processes and threads, however crowded the machine. demand = run /
    (wall - wait), the use of an idle machine, if at most one thread was runnable at a time and the wait was short: a
    task that computes half of its time wants half a core, even beside others like it.
    """
    if wall_seconds <= 0:
        return 0.0
    wanted = (time.run_seconds + time.wait_seconds) / wall_seconds
    if wanted > 1.0 or time.wait_seconds > CROWDED_RATIO * wall_seconds:
        return wanted
    return time.run_seconds / (wall_seconds - time.wait_seconds)


def call_cpu_demand(time: CoreTime, wall_seconds: float) -> float:
    """Return the cores that a call wanted on average over its whole duration, however crowded the machine.

    The waits of its thread for a core are known: none goes on, and they don't overlap. If run and wait do not fit into
    the duration, the call has computed in other threads or child processes, too, and this is `task_cpu_demand`.
    """
    undelayed = wall_seconds - time.wait_seconds
    if undelayed <= 0 or time.run_seconds > undelayed:
        return task_cpu_demand(time, wall_seconds)
    return time.run_seconds / undelayed


def task_cpu_demand(time: CoreTime, wall_seconds: float) -> float:
    """Return the cores that a task wanted on average over its whole duration, at most one for a brief task.

    On a crowded machine, `cpu_demand` takes a command that waited two seconds for a core in its start, and then slept,
    for one that computes. But without the waits it would have run for wall - wait or longer, as waits of several
    processes may overlap. So its demand is at most run / (wall - wait).
    """
    wanted = cpu_demand(time, wall_seconds)
    if wall_seconds < BRIEF_SECONDS:
        return min(1.0, wanted)
    undelayed = wall_seconds - time.wait_seconds - UNCOUNTED_SECONDS
    return min(wanted, time.run_seconds / undelayed) if undelayed > 0 and wanted <= 1.0 else wanted


def compute_undelayed_seconds(time: CoreTime, wall_seconds: float) -> float:
    """Return how long work would have taken alone on the machine, without its wait for a core.

    The wait is a sum over its processes and may exceed the duration, so its CPU time is the minimum.
    """
    return max(min(time.run_seconds, wall_seconds), wall_seconds - time.wait_seconds)


def count_task_cores(cores: float) -> float:
    """Return the cores that tasks may want together: beyond the first, half of a core or more counts as a whole one.

    A cgroup's quota may be a fraction. On 1.5 cores two tasks that compute share all of them; one leaves a third idle.
    """
    return max(cores, math.floor(cores + 0.5)) if cores > 1.0 else cores


class CoreBudget(Struct):
    """Allocates cores to tasks by their CPU demand.

    Computing tasks share the cores; a task that wants more than all of them gets all. The one that wants the most, if
    that is several, may get one core less than it wants: it uses them only for a part of its time, and the others would
    idle. Two cores run `mypy` beside `pytest -n 2`, whichever starts first. Waiting tasks have a separate account: at a
    few hundredths of a core each they neither block computing tasks nor are blocked by them. A task of unknown demand
    (None) may want a core. One unknown task may run beside tasks that take all cores, so that it is measured: otherwise
    work that only waits would wait until they end. Even beside tasks that take more than all cores, one unknown task
    may run once it has been blocked for a while (`stuck`).

    `several`: the demands of the tasks that want more than one core.
    """

    cores: float
    computing: float = 0.0
    waiting: float = 0.0
    unknown: int = 0
    stuck: bool = False
    several: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cores = count_task_cores(self.cores)

    def room(self, demand: float | None) -> int:
        """Return how many more tasks of this demand fit."""
        if demand is None:
            spare = math.floor(self._left + _ROUNDING)
            beside = not self.unknown and (self.stuck or self._left >= -_ROUNDING)
            return max(0, spare, int(beside))
        if demand < WAITING_DEMAND:
            left = max(self.cores, WAITING_DEMAND) + CORE_SLACK - self.waiting
            return max(0, math.floor(left / max(demand, _LEAST_DEMAND)))
        needed = min(demand, max(self.cores, WAITING_DEMAND))
        return max(0 if self.computing else 1, math.floor(self._left / needed), self._count_overlapping(demand))

    def _count_overlapping(self, demand: float) -> int:
        """Return how many more tasks of this demand fit if the one that wants the most cores gets one less."""
        most = max(self.several, default=0.0)
        if demand > max(1.0, most):
            return int(self._left >= 1.0 and demand <= self._left + 1.0 + _ROUNDING)
        if not most:
            return 0
        return math.floor(min(self._left - 1.0 + most, self._left + 1.0) / demand + _ROUNDING)

    @property
    def _left(self) -> float:
        return self.cores + CORE_SLACK - self.computing

    def take(self, demand: float | None, count: int = 1) -> None:
        """Allocate cores to `count` tasks; a negative count gives them back."""
        if demand is None:
            self.unknown += count
            self.computing += count * UNKNOWN_DEMAND
        elif demand < WAITING_DEMAND:
            self.waiting += count * demand
        else:
            self.computing += count * demand
            if demand > 1.0:
                self._count_several(demand, count)

    def _count_several(self, demand: float, count: int) -> None:
        if count > 0:
            self.several += [demand] * count
        for _ in range(-count):
            self.several.remove(demand)
