"""A run of known tasks on a simulated machine, sized by the real controller."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby, pairwise
from pathlib import Path

from paropt_exporter.autoscaling.control_thread import TICK_SECONDS, start_admission
from paropt_exporter.autoscaling.controller import Controller
from paropt_exporter.autoscaling.host_readings import HostReadings
from paropt_exporter.autoscaling.lane_observer import KnownStages
from paropt_exporter.autoscaling.state import ControlState
from paropt_exporter.cpu_demand import NO_TIME, CoreTime, compute_undelayed_seconds, task_cpu_demand
from paropt_exporter.engine.interfaces import Admission, Demand, StageCounts
from paropt_exporter.engine.resources import Resources
from paropt_exporter.engine.what_if import ListScheduler, StartedTask
from paropt_exporter.events import Decision, RunningTask
from paropt_exporter.executors.core_time import ThreadTime
from paropt_exporter.plan import Bounds, PlannedStage
from paropt_exporter.testing import FakeClock, Recorder
from simulation.machine import Machine, Phase, Thread

_SAMPLE_SECONDS, _LATER_SAMPLE_SECONDS, _YOUNG_SECONDS = 0.02, 0.1, 0.5  # as in the supervisor of commands


@dataclass(frozen=True, kw_only=True)
class Work:
    """One task: its seconds with the machine to itself, and its demand for cores meanwhile.

    `phases`: later parts of its life. `threads`: so many threads do the same. `locked`: it holds a lock all the time,
    which all such tasks share. `weight`: its scheduling weight; others have 1. Its sums are read at each step.
    """

    seconds: float
    cpu_demand: float = 0.0
    stage: str = "a"
    phases: tuple[Phase, ...] = ()
    threads: int = 1
    locked: bool = False
    weight: float = 1.0

    @cached_property
    def computes(self) -> bool:
        """Whether it computes all the time."""
        return self.cpu_demand >= 1.0 and all(phase.cpu_demand >= 1.0 for phase in self.phases)

    @cached_property
    def sleeps(self) -> bool:
        """Whether it never computes."""
        return self.cpu_demand == 0.0 and not self.phases

    @cached_property
    def core_seconds(self) -> float:
        """Its computing time, all threads together."""
        own = self.seconds * self.cpu_demand + sum(phase.seconds * phase.cpu_demand for phase in self.phases)
        return own * self.threads

    @cached_property
    def alone_seconds(self) -> float:
        """Its duration on an idle machine."""
        return self.seconds + sum(phase.seconds for phase in self.phases)


@dataclass(slots=True, eq=False)
class _Running:
    scheduled: StartedTask[Work]
    started: float
    threads: list[Thread]
    sampled_at: float = 0.0
    core_time: CoreTime = NO_TIME
    observation: list[ThreadTime] = field(default_factory=list)

    @property
    def label(self) -> str:
        return self.scheduled.label

    @property
    def work(self) -> Work:
        return self.scheduled.task

    @property
    def ended(self) -> bool:
        for thread in self.threads:  # noqa: SIM110 -- mostly one: all() costs three times as much
            if not thread.ended:
                return False
        return True

    def sample(self, now: float) -> None:
        """Read /proc's values as the supervisor does."""
        for place, thread in enumerate(self.threads):
            times, count = (thread.run, thread.wait), partial(getattr, thread, "switches")
            if len(self.observation) <= place:
                self.observation.append(ThreadTime(times, runnable=thread.runnable, now=now, switches=count))
            else:
                self.observation[place].sample(times, runnable=thread.runnable, now=now, switches=count)
        run = wanted = 0.0
        for seen in self.observation:
            run += seen.run
            wanted += seen.wanted
        self.core_time = CoreTime(run, wanted - run)
        self.sampled_at = now

    @property
    def waited(self) -> float:
        return sum(thread.wait for thread in self.threads)

    @property
    def ran(self) -> float:
        return sum(thread.run for thread in self.threads)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The sums of the waiting tasks: how many of each stage, the seconds of all and of the longest, and sleepers."""

    queued: Mapping[str, int]
    seconds: float
    longest_seconds: float
    sleepers: int


class SimulatedLane:
    """Tasks of some stages that run at the lane's size on a machine; threads also share one interpreter.

    `late_seconds`: the delay of measurements on their way to the controller.
    """

    def __init__(
        self, tasks: Sequence[Work], *, clock: FakeClock, cores: float, size: int, pool: str = "commands",
        deadline_seconds: float | None = None, others: int = 0, late_seconds: float = 0.0,
    ) -> None:  # fmt: skip
        self.run_id = "simulated"
        self.size = size
        self.peak = size
        self.limits: list[tuple[float, int | None]] = []  # of a stage, at each change
        self.log: list[tuple[float, int, int, int]] = []  # moment; running: computing, others; waiting: sleepers
        self._clock = clock
        self._pool = pool
        self._deadline_seconds = deadline_seconds
        self._machine = Machine(max(1, round(cores)), others)
        self._late_seconds = late_seconds
        works: dict[str, list[Work]] = {}
        for work in tasks:
            works.setdefault(work.stage, []).append(work)
        self._stages = {name: _Stage(name, pool) for name in works}
        plans = [stage.plan for stage in self._stages.values()]
        self._scheduler = ListScheduler(plans, works, Resources(1 << 40))
        self._running: list[_Running] = []
        self._waiting: _Waiting | None = None  # computed at most once after each start of tasks
        self._admission: Admission | None = None
        self._target = size
        self._limits: Mapping[str, int] = {}
        self._next_sample = 0.0
        self._samples_on_their_way: deque[tuple[float, tuple[RunningTask, ...]]] = deque()
        self._newest_sample: tuple[RunningTask, ...] = ()

    @property
    def done(self) -> bool:
        return self._scheduler.has_ended

    def advance(self, now: float) -> None:
        """Let the tasks run from the clock's moment to `now`."""
        self._start_tasks()
        while self._clock.now < now - 1e-9 and not self.done:
            self._sample()
            self._hold_locks()
            threads = [thread for task in self._running for thread in task.threads]
            most = min(now, self._next_sample) - self._clock.now
            self._clock.advance(self._machine.step(threads, self._clock.now, max(most, 1e-6)))
            for task in [task for task in self._running if task.ended]:
                self._end_task(task)
        self._start_tasks()

    def _sample(self) -> None:
        now = self._clock.now
        if now < self._next_sample - 1e-9:
            return
        for task in self._running:
            task.sample(now)
        young = any(now < task.started + _YOUNG_SECONDS for task in self._running)
        self._next_sample = now + (_SAMPLE_SECONDS if young else _LATER_SAMPLE_SECONDS)
        measured = tuple(self._measure_task(task) for task in self._running)
        self._samples_on_their_way.append((now + self._late_seconds, measured))
        computing = sum(task.work.computes for task in self._running)
        self.log.append((now, computing, len(self._running) - computing, self._sum_waiting().sleepers))

    def _sum_waiting(self) -> _Waiting:
        if self._waiting is None:
            queues = {name: self._scheduler.get_queue(name) for name in self._stages}
            works = [work for queue in queues.values() for work in queue]
            seconds = [work.alone_seconds for work in works]
            self._waiting = _Waiting(
                queued={name: len(queue) for name, queue in queues.items()},
                seconds=sum(seconds),
                longest_seconds=max(seconds, default=0.0),
                sleepers=sum(work.sleeps for work in works),
            )
        return self._waiting

    def _hold_locks(self) -> None:
        """Block all but the first task behind a lock: the lock of the tasks, or the interpreter's."""
        holder = next((task for task in self._running if task.work.locked), None)
        if holder is None and self._pool != "threads":
            return
        for task in self._running:
            for thread in task.threads:
                thread.blocked = task.work.locked and task is not holder
        if self._pool == "threads":
            runnable = [thread for task in self._running for thread in task.threads if thread.runnable]
            for thread in sorted(runnable, key=lambda thread: thread.run)[1:]:
                thread.blocked = True

    def _end_task(self, task: _Running) -> None:
        self._running.remove(task)
        self._stages[task.work.stage].add_task(task, self._clock.now)
        self._scheduler.end_task(task.scheduled)
        self._start_tasks()

    def _start_tasks(self) -> None:
        self._scheduler.resources.set_admission(self._admission)
        for scheduled in self._scheduler.start_tasks(self.size, self._limits):
            work = scheduled.task
            phases = [Phase(seconds=work.seconds, cpu_demand=work.cpu_demand), *work.phases]
            threads = [Thread(list(phases), weight=work.weight) for _ in range(work.threads)]
            self._running.append(_Running(scheduled, self._clock.now, threads))
            self._waiting = None
            self._next_sample = min(self._next_sample, self._clock.now + _SAMPLE_SECONDS)
        self.peak = max(self.peak, len(self._running))

    # The controller's view of a run and of its pools

    def measure_demand(self) -> Demand:
        waiting, now = self._sum_waiting(), self._clock.now
        left = sum(max(0.0, task.work.alone_seconds - (now - task.started)) for task in self._running)
        stages = self._stages.items()
        return Demand(
            ready=tuple((self._pool, name, count) for name, count in waiting.queued.items() if count),
            running=tuple((self._pool, task.work.stage, task.label, task.started) for task in self._running),
            ended=tuple((name, *stage.sum_ended()) for name, stage in stages if stage.ended),
            stages=tuple(stage.build_counts(self._running, waiting.queued[name], now) for name, stage in stages),
            work_seconds=left + waiting.seconds,
            path_seconds=waiting.longest_seconds,
            left_seconds=None if self._deadline_seconds is None else self._deadline_seconds - now,
        )

    def set_stage_limits(self, stages: Mapping[str, int]) -> None:
        self._limits = dict(stages)
        self.limits.append((self._clock.now, next(iter(stages.values()), None)))
        self._start_tasks()

    def set_admission(self, admission: Admission | None) -> None:
        self._admission = admission
        self._start_tasks()

    def resize(self, size: int) -> None:
        self.size = size
        self._start_tasks()

    def running(self) -> tuple[RunningTask, ...]:
        """Return the newest measurements that have arrived, of the tasks that still run."""
        while self._samples_on_their_way and self._samples_on_their_way[0][0] <= self._clock.now + 1e-9:
            self._newest_sample = self._samples_on_their_way.popleft()[1]
        alive = {task.label for task in self._running}
        return tuple(task for task in self._newest_sample if task.label in alive)

    def _measure_task(self, task: _Running) -> RunningTask:
        return RunningTask(
            label=task.label,
            worker="w",
            started_seconds=task.started,
            cpu_seconds=task.ran,
            memory_bytes=0,
            run_delay_seconds=task.waited,
            core_time=task.core_time,
            thread_run_seconds=task.ran if self._pool == "threads" else 0.0,
            sampled_seconds=task.sampled_at or 1e-9,
        )

    def get_pool_sizes(self, size: int) -> Mapping[str, int]:
        return {self._pool: size}

    def get_targets(self) -> Mapping[str, int]:
        return {self._pool: self._target}

    def resize_pools(
        self, size: int, reason: str, tasks: Mapping[str, int] | None = None
    ) -> tuple[tuple[str, int, int], ...]:
        del reason, tasks
        old, self._target = self._target, size
        return ((self._pool, old, size),) if old != size else ()


class _Stage:
    """The sums of a stage's ended tasks."""

    def __init__(self, name: str, pool: str) -> None:
        self.plan = PlannedStage(number=2, name=name, pool=pool, tasks=(), cwd=Path("/"))
        self.ended = 0
        self.wanted = self.alone = self.spent = self.delayed = self.fastest = 0.0

    def add_task(self, task: _Running, now: float) -> None:
        seconds = now - task.started
        self.ended += 1
        self.spent += seconds
        self.delayed += task.waited
        alone = compute_undelayed_seconds(CoreTime(task.ran, task.waited), seconds)
        self.alone += alone
        self.wanted += alone * task_cpu_demand(CoreTime(task.ran, task.waited), seconds)
        self.fastest = min(self.fastest or alone, alone)

    def sum_ended(self) -> tuple[int, float, float, float]:
        return self.ended, self.wanted, self.alone, self.spent

    def build_counts(self, running: Sequence[_Running], waiting: int, now: float) -> StageCounts:
        own = [task for task in running if task.work.stage == self.plan.name]
        return StageCounts(
            stage=self.plan.name,
            running=len(own),
            waiting=waiting,
            busy_seconds=self.spent + sum(now - task.started for task in own),
            delay_seconds=self.delayed,
            ended=self.ended,
            fastest_seconds=self.fastest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRun:
    """The result of a simulated run. `log`: (moment, computing tasks, other running tasks, waiting sleepers)."""

    makespan_seconds: float
    peak: int
    moves: tuple[Decision, ...]
    limits: tuple[tuple[float, int | None], ...] = ()
    log: tuple[tuple[float, int, int, int], ...] = ()

    @property
    def reversals(self) -> int:
        actions = [decision.action for decision in self.moves]
        return sum(before != after for before, after in pairwise(actions))

    def longest_above(self, computing: int) -> float:
        """Return the longest time without a break for which more than so many computing tasks ran."""
        return _longest((moment, running > computing) for moment, running, _, _ in self.log)

    def longest_held_back(self) -> float:
        """Return the longest time without a break for which tasks that only sleep could not start."""
        return _longest((moment, waiting > 0) for moment, _, _, waiting in self.log)


def _longest(moments: object) -> float:
    longest = 0.0
    for held, group in groupby(moments, key=lambda entry: entry[1]):  # type: ignore[call-overload]
        stretch = [moment for moment, _ in group]
        longest = max(longest, stretch[-1] - stretch[0] if held else 0.0)
    return longest


def clairvoyant_seconds(tasks: Sequence[Work], *, cores: int, maximum: int) -> float:
    """Return a lower bound for every order and size: core time over cores, the longest task, and slot time."""
    longest = max(work.alone_seconds for work in tasks)
    slots = sum(work.alone_seconds for work in tasks) / maximum
    return max(longest, slots, sum(work.core_seconds for work in tasks) / cores)


def run_lane(
    tasks: Sequence[Work], *, cores: float = 2.0, maximum: int = 32, start: int = 2, pool: str = "commands",
    deadline_seconds: float | None = None, fixed: bool = False, others: int = 0, late_seconds: float = 0.0,
    known: Mapping[str, float] | None = None,
) -> LaneRun:  # fmt: skip
    """Run tasks to their end, sized by the controller, or at the start size if `fixed`.

    `others`: threads of other processes that compute all the time; `known`: stages' demands from earlier runs.
    """
    clock, recorder = FakeClock(), Recorder()
    lane = SimulatedLane(
        tasks, clock=clock, cores=cores, size=start, pool=pool, deadline_seconds=deadline_seconds, others=others,
        late_seconds=late_seconds,
    )  # fmt: skip
    control_state = ControlState(Bounds(minimum=1, maximum=maximum, start=start), (pool,), source="local")
    host = HostReadings(cores=lambda: cores, memory_available_bytes=lambda: 1 << 40, memory_reserve_bytes=lambda: 0)
    controller = Controller(
        lane,
        lane,
        control_state=control_state,
        host=host,
        emit=recorder.observe,
        clock=clock,
        known=KnownStages(cpu_demands=known or {}),
        objective="deadline" if deadline_seconds is not None else "fast",
    )
    if not fixed:
        start_admission(lane, control_state, host, cpu_demands=known or {}, peak_bytes={})
    lane.advance(0.0)
    while not lane.done:
        lane.advance(clock.now + TICK_SECONDS)
        if not fixed:
            controller.step()
    moves = tuple(decision for decision in recorder.of(Decision) if decision.action != "hold")
    return LaneRun(
        makespan_seconds=clock.now, peak=lane.peak, moves=moves, limits=tuple(lane.limits), log=tuple(lane.log)
    )
