"""Measure the CPU demand of running tasks, and the average demand of each group of tasks, in cores."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from time import monotonic
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

from paropt_exporter.cpu_demand import (
    CROWDED_RATIO,
    NO_SWITCHES,
    TIME_SLICE_SECONDS,
    CoreBudget,
    CoreTime,
    Switches,
    compute_undelayed_seconds,
    cpu_demand,
)
from paropt_exporter.events import Measurement, RunningTask
from paropt_exporter.executors.base import find_stage

WINDOW_SECONDS = 0.05  # the shortest time over which a demand is measured: three samples of a young command
_TASK_SECONDS = 0.15  # time constant of a running task's demand, which must soon show that start-up is over
_GROUP_SECONDS = 2.0  # time constant of a group's demand: a wrong value fades within this time
# Of a sample's waits for a core, this part counts as time of its group. With all of it, a starved start would outweigh
# the sleep that follows. Without any, a moment of sleep would outweigh starved computing: after 60 ms of the one and
# 300 ms of the other on a twelfth of a core, the group would read 0.29. It reads 0.47, and 0.83 with all of it.
_WAIT_RATIO = 0.1
_PRIOR_SECONDS = 0.25  # so much of the tasks' time in this run weighs as much as all earlier runs
# Among N tasks in threads, a CPU-bound task gets 1/N of the GIL's time, so its demand c reads 1/N: measured 0.51, 0.27
# and 0.15 for N = 2, 4, 8. So from a sum c * N of 0.8 of a core on, the tasks may be CPU-bound.
FULL_LOCK_CORES = 0.8
_GIL_WAIT_SLACK = 1.1  # on a busy machine, the timer that ends a sleep is a few hundred microseconds late
_LEAST_PREEMPTED_RATIO = 1 / 12  # between the ratios of `compute_gil_ratio`
_LEAST_PREEMPTIONS = 2  # a single one may be chance
_LEAST_RUN_SECONDS = 0.00015  # before each preemption, on average: between the figures of `was_preempted`
_GIL_BOUND_RATIO = 0.8
_LEAST_SHOWN_SECONDS = 0.0025  # a younger task does not show yet whether it computes or waits
# A thread that has run for a shorter time, two slices of 3 ms, may not have been preempted yet though it computes.
_PREEMPTED_SECONDS = 0.006
_MAX_UNCLEAR_SECONDS = 0.25  # a task that is older shows its demand, even if it may have waited for the GIL
# A younger task may still be about to start its first child process, so that the lack of one shows nothing yet.
_FIRST_CHILD_SECONDS = 0.1
# A task that has no child process after this time, waits for a core not counted, is assumed to start none for as long
# again. Each such finding about its function doubles the time, since a function may start its process late.
_NO_CHILD_SECONDS = 0.02
_MAX_NO_CHILD_SECONDS = 1.0
_SLEPT_SECONDS = 0.0001  # a thread that runs for less between two samples only sleeps
_CHILD_SAMPLE_SECONDS = 0.2  # between two samples of child processes while threads compute
# If a call in a thread waits for a core most of its time, samples of it show little: a wait that goes on looks like
# sleep. Until it has run for so many times as long as others took, their demands say more.
_USUAL_RATIO = 2.0
_LONGEST_SECONDS = 1.0  # the most time for which an ended task counts: one long task must not outweigh recent ones


class Sample(Struct, frozen=True):
    """The core time of a running task up to the monotonic time `at`; `thread_seconds` of it in a pool's thread.

    `hardly_ran`: it has run for less than a time slice so far, so that its waits for a core are no demand.
    """

    at: float
    core_time: CoreTime
    thread_seconds: float = 0.0
    hardly_ran: bool = False


class DemandMeter:
    """CPU demand in cores, by running task and by group of similar tasks: the stages of a lane, functions of a pool.

    Guarantees: a task has its own demand only after samples over a whole window, and a missing sample changes nothing.
    A group's demand is the mean over the recent time of its tasks, in which waits for a core count little, and
    initially the demand of earlier runs. If a command sleeps after a starved start, this soon shows.
    """

    def __init__(self, groups: Mapping[str, float] = MappingProxyType({})) -> None:
        """Start with the demands that earlier runs measured, by group."""
        self._window_starts: dict[Hashable, Sample] = {}  # by task: the first sample of its window
        self._first_seconds: dict[Hashable, float] = {}  # by task: when it was first sampled
        self._tasks: dict[Hashable, float] = {}
        self._threads: dict[Hashable, float] = {}  # by task: the part of its demand under the GIL
        self._groups = {group: _GroupDemand(demand) for group, demand in groups.items()}

    def sample(self, tasks: Mapping[Hashable, tuple[str, Sample]], now: float) -> None:
        """Take samples of all running tasks, each with its group, at the monotonic time `now`."""
        for task, (group, sample) in tasks.items():
            before = self._window_starts.setdefault(task, sample)
            self._first_seconds.setdefault(task, sample.at)
            if sample.at - before.at >= WINDOW_SECONDS:
                self._window_starts[task] = sample
                self._measure(task, group, before, sample, now)
        for task in self._window_starts.keys() - tasks.keys():
            del self._window_starts[task], self._first_seconds[task]
            self._tasks.pop(task, None)
            self._threads.pop(task, None)

    def _measure(self, task: Hashable, group: str, before: Sample, after: Sample, now: float) -> None:
        seconds = after.at - before.at
        time, thread_seconds = after.core_time.since(before.core_time), after.thread_seconds - before.thread_seconds
        if after.hardly_ran:
            seconds -= time.wait_seconds
            time, thread_seconds = CoreTime(time.run_seconds), time.run_seconds
            if seconds <= 0:
                return
        elif (
            after.thread_seconds and time.wait_seconds > CROWDED_RATIO * seconds and self._is_usual(task, group, after)
        ):
            return
        wanted = cpu_demand(time, seconds)
        threads = max(0.0, thread_seconds) / seconds
        newest = 1.0 - math.exp(-seconds / _TASK_SECONDS)
        for demands, measured in ((self._tasks, wanted), (self._threads, threads)):
            known = demands.get(task, measured)
            demands[task] = known + newest * (measured - known)
        # Waits for the GIL don't show as waits for a core; in its own process, each such thread would use a core.
        elsewhere = max(wanted, 1.0) if self._competes_for_lock(task) else wanted
        alone = compute_undelayed_seconds(time, seconds)
        weight = alone + _WAIT_RATIO * (seconds - alone)
        self._groups.setdefault(group, _GroupDemand(None)).add(elsewhere, weight, now)

    def _is_usual(self, task: Hashable, group: str, sample: Sample) -> bool:
        """Return whether a task is not much older than others of its group were at their end, whose waits are known."""
        known = self._groups.get(group)
        return known is not None and sample.at - self._first_seconds[task] <= _USUAL_RATIO * known.ended_seconds

    def _competes_for_lock(self, task: Hashable) -> bool:
        """Return whether a task is one of several threads that together fill the interpreter's lock."""
        total = sum(self._threads.values())
        mean = total / max(1, len(self._threads))
        competing = sum(demand >= mean / 2 for demand in self._threads.values())
        return total >= FULL_LOCK_CORES and competing > 1 and self._threads[task] >= mean / 2

    def learn_ended(self, ended: Iterable[tuple[str, int, float, float, float]], now: float) -> None:
        """Learn from the sums of ended tasks, as in `engine.interfaces.Demand.ended`, by group."""
        for group, tasks, wanted, alone, wall in ended:
            self._groups.setdefault(group, _GroupDemand(None)).add_ended(_EndedTasks(tasks, wanted, alone, wall), now)

    def get_task_demand(self, task: Hashable, group: str) -> float | None:
        """Return a running task's own demand, or its group's until it is measured; None: unknown."""
        return self._tasks.get(task, self.get_group_demand(group))

    def get_thread_demand(self, task: Hashable, group: str) -> float:
        """Return the part of a running task's demand in a thread of a pool, at least the mean of its group.

        Within one short window the GIL is distributed unevenly, so the mean is more reliable.
        """
        return max(self._threads.get(task, 0.0), self.get_group_demand(group) or 0.0)

    def get_group_demand(self, group: str) -> float | None:
        """Return the mean demand of a group's tasks; None: unknown."""
        known = self._groups.get(group)
        return known.mean if known is not None else None


def compute_gil_ratio(time: CoreTime, wall_seconds: float, switches: Switches) -> float:
    """Return the part (0 to 1) of a task's time in which its thread ran, or may have waited for the GIL.

    Waits for a core don't count as time. The CPU demand, run / (wall - wait), does not show that N threads compute
    under one GIL on a busy machine: while the one that has the GIL waits for a core, the others sleep, so each reads
    far less than 1 / N. But a thread that waits for the GIL sleeps for at most one switch interval (5 ms) at a time:
    then it wakes up, and asks for the GIL. So it has slept for at most that interval for each voluntary switch.

        sleep = wall - wait - run,    ratio = (run + min(sleep, voluntary switches x interval)) / (run + sleep)

    A task that sleeps for a few milliseconds at a time has the same ratio, but never runs for long (`was_preempted`).
    Measured beside 8 to 25 busy loops on 2 cores, where run / (wall - wait) x N was 0.15 to 0.6 in the first row:

        task                                 ratio         preemptions for each voluntary switch
        computes, N = 2, 4, 12, 48           0.95 to 1     0.12 to 1.8
        computes for a tenth, N = 2          0.21 to 0.6   0.4 to 2.3; from N = 6 on such threads fill the GIL, too
        sleeps 50 ms, N = 2, 12              0.1 to 0.3    at most one preemption
        sleeps 1 or 5 ms, N = 2, 12, 48      1             at most 0.05
    """
    undelayed = max(wall_seconds - time.wait_seconds, time.run_seconds)
    if undelayed <= 0:
        return 0.0
    gil_wait = switches.voluntary * sys.getswitchinterval() * _GIL_WAIT_SLACK
    return min(1.0, (time.run_seconds + gil_wait) / undelayed)


def was_preempted(time: CoreTime, switches: Switches) -> bool:
    """Return whether a thread computed for longer than a time slice now and then, on a busy machine.

    On an idle one there is nothing to preempt it for; there the sum of CPU demands shows whether threads fill the GIL.
    A thread that has hardly run before each preemption was interrupted as it woke up: a call that slept for 20 ms ran
    for 0.14 ms, with 3 preemptions. Beside many short processes, threads that computed ran for 0.22 ms at a time, like
    threads that wake up every 5 ms to compute for 0.2: those are mistaken for computing ones.
    """
    if time.run_seconds < switches.involuntary * _LEAST_RUN_SECONDS:
        return False
    return switches.involuntary >= max(_LEAST_PREEMPTIONS, _LEAST_PREEMPTED_RATIO * switches.voluntary)


def is_gil_bound(time: CoreTime, wall_seconds: float, switches: Switches) -> bool:
    """Return whether a thread on a busy machine ran or waited for the GIL for nearly all of its time."""
    return was_preempted(time, switches) and compute_gil_ratio(time, wall_seconds, switches) >= _GIL_BOUND_RATIO


def has_slept(time: CoreTime, wall_seconds: float, switches: Switches) -> bool:
    """Return whether a thread slept for part of its time: it has too few switches to have waited for the GIL."""
    measured = switches != NO_SWITCHES
    return measured and compute_gil_ratio(time, wall_seconds, switches) < _GIL_BOUND_RATIO


class ChildDemand:
    """The CPU demand of the child processes that a function's tasks start in threads, by function.

    Only the monitor's thread changes it, `sample` under the lock of the pool's scheduler. Other threads hold this lock
    when they read the demands.
    """

    def __init__(self, known: Mapping[str, float] = MappingProxyType({})) -> None:
        """Start with the demands that earlier pools measured, by function."""
        self.parents = set(known)  # functions whose sampled tasks had child processes
        # Functions whose sampled tasks had none: for how long they are assumed to start none, and until when.
        self._childless: dict[str, tuple[float, float]] = {}
        self._meter = DemandMeter(known)
        self._next_seconds = 0.0  # when to sample next

    def is_due(self, now: float) -> bool:
        return now >= self._next_seconds

    def schedule(self, now: float, *, computing: bool) -> None:
        """Choose when to sample next: while threads compute, each read waits for the GIL."""
        self._next_seconds = now + (_CHILD_SAMPLE_SECONDS if computing else 0.0)

    def may_have_children(self, key: str, now: float) -> bool:
        """Return whether to sample the child processes of a function's tasks."""
        _, until = self._childless.get(key, (0.0, 0.0))
        return key in self.parents or now >= until

    def sample(self, tasks: Iterable[tuple[Hashable, str, RunningTask]], now: float) -> None:
        """Learn from tasks whose child processes were sampled just now: each with its identity and its function.

        Not from the others, which may have some all the same: those of threads that compute, or wait for a core, are
        not sampled.
        """
        found = dict[Hashable, tuple[str, Sample]]()
        for identity, key, task in tasks:
            below, age = task.core_time.since(_get_thread_time(task)), _get_age_seconds(task) - task.run_delay_seconds
            sampled_seconds = task.children_sampled_seconds
            if sampled_seconds is not None:  # even if they have only waited for a core so far
                self.parents.add(key)
            elif key not in self.parents and age >= _NO_CHILD_SECONDS:
                self._note_childless(key, now)
            if sampled_seconds is not None or age >= _FIRST_CHILD_SECONDS:
                at = _get_sampled_seconds(task) if sampled_seconds is None else sampled_seconds
                found[identity] = key, Sample(at, below)
        self._meter.sample(found, now)

    def _note_childless(self, key: str, now: float) -> None:
        seconds, until = self._childless.get(key, (_NO_CHILD_SECONDS / 2, 0.0))
        if now >= until:  # once for all tasks of a sample
            seconds = min(2 * seconds, _MAX_NO_CHILD_SECONDS)
            self._childless[key] = seconds, now + seconds

    def get(self, key: str) -> float | None:
        """Return the mean demand of the child processes of one task; None: unknown, or it has none."""
        return self._meter.get_group_demand(key)

    def is_unmeasured(self, key: str) -> bool:
        """Return whether a function's tasks start child processes of unknown demand."""
        return key in self.parents and self.get(key) is None

    def is_known(self, key: str) -> bool:
        """Return whether the child processes of a function's tasks are measured, or its tasks seem to have none."""
        if key in self.parents:
            return self.get(key) is not None
        childless_seconds, _ = self._childless.get(key, (0.0, 0.0))
        return childless_seconds >= _FIRST_CHILD_SECONDS

    def build_core_budget(self, cores: int, running: Iterable[str]) -> CoreBudget:
        """Return the core budget less the child processes of running tasks, given by their functions."""
        budget = CoreBudget(float(cores))
        for key in running:
            budget.take(self.get(key) or 0.0)
        return budget


def build_samples(tasks: Iterable[RunningTask], now: float) -> dict[Hashable, tuple[str, Sample]]:
    """Return samples of a lane's running tasks by label, each with its stage."""
    return {task.label: (find_stage(task.label), _sample(task, now)) for task in tasks if task.sampled_seconds != 0}


def _sample(task: RunningTask, now: float) -> Sample:
    # A thread keeps the GIL while it waits for a core.
    threads = task.thread_run_seconds and task.thread_run_seconds + task.run_delay_seconds
    at = now if task.sampled_seconds is None else task.sampled_seconds
    own = CoreTime(task.thread_run_seconds, task.run_delay_seconds)
    hardly_ran = own.run_seconds < TIME_SLICE_SECONDS and task.core_time == own
    return Sample(at, task.core_time, threads, hardly_ran)


# Samples of running tasks in threads


def _get_age_seconds(task: RunningTask) -> float:
    """Return a task's age in seconds when it was sampled."""
    return max(1e-6, _get_sampled_seconds(task) - task.started_seconds)


def _get_sampled_seconds(task: RunningTask) -> float:
    return monotonic() if task.sampled_seconds is None else task.sampled_seconds


def _get_thread_time(task: RunningTask) -> CoreTime:
    """Return the core time of a task's own thread."""
    return CoreTime(task.thread_run_seconds, task.run_delay_seconds)


def compute_thread_demand(task: RunningTask) -> float:
    """Return the CPU demand of a task's own thread so far, at most 1 core."""
    time, age = _get_thread_time(task), _get_age_seconds(task)
    return 1.0 if is_gil_bound(time, age, task.switches) else min(1.0, cpu_demand(time, max(age, 1e-3)))


def shows_demand(task: RunningTask) -> bool:
    """Return whether a task has run or slept for long enough. One that has only waited for a core, or on a busy machine
    for the GIL, shows nothing yet.
    """
    age, time = _get_age_seconds(task), _get_thread_time(task)
    if age - time.wait_seconds < _LEAST_SHOWN_SECONDS:
        return False
    if time.run_seconds < TIME_SLICE_SECONDS and time.wait_seconds > CROWDED_RATIO * age:
        return False
    may_be_preempted_yet = time.run_seconds < _PREEMPTED_SECONDS and age < _MAX_UNCLEAR_SECONDS
    if not may_be_preempted_yet or task.switches.voluntary <= 1:
        return True
    return compute_gil_ratio(time, age, task.switches) < _GIL_BOUND_RATIO


def is_asleep(task: RunningTask, before: RunningTask | None) -> bool:
    """Return whether a task that seems to wait does so: not for a core or the GIL, nor before it starts a process.

    Its last sample shows neither a wait for the GIL nor one for a core that goes on, which its state shows. `before`:
    the sample before, in between which the GIL was free; None: there is none.
    """
    if task.is_runnable:
        return False
    slept = before is not None and task.thread_run_seconds - before.thread_run_seconds < _SLEPT_SECONDS
    return slept or _get_age_seconds(task) - task.run_delay_seconds >= _NO_CHILD_SECONDS


def count_competing(demands: Sequence[float]) -> int:
    """Return how many running tasks compete for the GIL: 1 unless they saturate it."""
    total = sum(demands)
    return sum(demand >= total / len(demands) / 2 for demand in demands) if total >= FULL_LOCK_CORES else 1


def measure_so_far(task: RunningTask) -> Measurement:
    return Measurement(
        worker=task.worker,
        pid=os.getpid(),
        started_seconds=task.started_seconds,
        ended_seconds=_get_sampled_seconds(task),
        cpu_seconds=task.thread_run_seconds,
        run_delay_seconds=task.run_delay_seconds,
        switches=task.switches,
    )


class _EndedTasks(NamedTuple):
    """Sums over the ended tasks of a group. `alone_seconds`: their durations without their waits for a core."""

    tasks: int = 0
    wanted_seconds: float = 0.0
    alone_seconds: float = 0.0
    wall_seconds: float = 0.0


class _GroupDemand:
    """The mean demand of a group's tasks over their recent time, of which waits for a core are a small part."""

    def __init__(self, prior: float | None) -> None:
        self._seconds = _PRIOR_SECONDS if prior is not None else 0.0
        self._wanted_seconds = (prior or 0.0) * self._seconds
        self._at: float | None = None
        self._ended = _EndedTasks()
        self.ended_seconds = 0.0  # the mean duration of the tasks that ended last

    @property
    def mean(self) -> float | None:
        return self._wanted_seconds / self._seconds if self._seconds > 0 else None

    def add(self, demand: float, seconds: float, now: float) -> None:
        self._decay(now)
        self._wanted_seconds += demand * seconds
        self._seconds += seconds

    def add_ended(self, sums: _EndedTasks, now: float) -> None:
        before, self._ended = self._ended, sums
        ended, alone = sums.tasks - before.tasks, sums.alone_seconds - before.alone_seconds
        if ended > 0 and alone > 0:
            self.ended_seconds = (sums.wall_seconds - before.wall_seconds) / ended
            demand = (sums.wanted_seconds - before.wanted_seconds) / alone
            self.add(demand, min(alone, ended * _LONGEST_SECONDS), now)

    def _decay(self, now: float) -> None:
        if self._at is not None and now > self._at:
            kept = math.exp(-(now - self._at) / _GROUP_SECONDS)
            self._wanted_seconds *= kept
            self._seconds *= kept
        self._at = now if self._at is None else max(self._at, now)
