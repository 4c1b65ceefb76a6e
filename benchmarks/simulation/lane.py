"""A run of known tasks on a simulated machine, steered by the real controller on a clock that jumps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path

from paropt_exporter.autoscaling import Controller, ControlState
from paropt_exporter.autoscaling.controller import TICK_SECONDS
from paropt_exporter.cpu_demand import NO_TIME, CoreTime, cpu_demand
from paropt_exporter.engine import Admission, Demand, StageCounts
from paropt_exporter.engine.resources import Resources
from paropt_exporter.events import Decision, RunningTask
from paropt_exporter.executors.core_time import ThreadTime
from paropt_exporter.plan import Bounds, PlannedStage
from paropt_exporter.testing import FakeClock, Recorder
from simulation.machine import Machine, Phase, Thread

_SAMPLE_SECONDS, _LATER_SAMPLE_SECONDS, _YOUNG_SECONDS = 0.02, 0.1, 0.5  # as the supervisor of commands has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One task: how long it takes alone, and how many cores it wants meanwhile.

    `phases`: parts of its life after that. `threads`: so many do the same at once. `locked`: it holds a lock all that
    time, which it shares with all others that are. `weight`: its share of a core beside others of weight 1.
    """

    seconds: float
    cpu_demand: float = 0.0
    stage: str = "a"
    phases: tuple[Phase, ...] = ()
    threads: int = 1
    locked: bool = False
    weight: float = 1.0

    @property
    def computes(self) -> bool:
        """Whether it computes all the time."""
        return self.cpu_demand >= 1.0 and all(phase.cpu_demand >= 1.0 for phase in self.phases)

    @property
    def sleeps(self) -> bool:
        """Whether it never computes."""
        return self.cpu_demand == 0.0 and not self.phases

    @property
    def core_seconds(self) -> float:
        """What it computes in all."""
        own = self.seconds * self.cpu_demand + sum(phase.seconds * phase.cpu_demand for phase in self.phases)
        return own * self.threads

    @property
    def alone_seconds(self) -> float:
        """How long it takes on an idle machine."""
        return self.seconds + sum(phase.seconds for phase in self.phases)


@dataclass(slots=True, eq=False)
class _Running:
    label: str
    work: Work
    started: float
    threads: list[Thread]
    sampled_at: float = 0.0
    core_time: CoreTime = NO_TIME
    observation: list[ThreadTime] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return all(thread.ended for thread in self.threads)

    def sample(self, now: float) -> None:
        """Read what /proc says, as the supervisor does."""
        for place, thread in enumerate(self.threads):
            times, count = (thread.run, thread.wait), partial(getattr, thread, "switches")
            if len(self.observation) <= place:
                self.observation.append(ThreadTime(times, runnable=thread.runnable, now=now, switches=count))
            else:
                self.observation[place].sample(times, runnable=thread.runnable, now=now, switches=count)
        run = sum(thread.run for thread in self.observation)
        self.core_time = CoreTime(run, sum(thread.wanted for thread in self.observation) - run)
        self.sampled_at = now

    @property
    def waited(self) -> float:
        return sum(thread.wait for thread in self.threads)

    @property
    def ran(self) -> float:
        return sum(thread.run for thread in self.threads)


class SimulatedLane:
    """Tasks of some stages that run at the lane's size on a machine; threads share one interpreter besides.

    `late_seconds`: how long a sample is on its way to the controller.
    """

    def __init__(
        self, tasks: Sequence[Work], *, clock: FakeClock, cores: float, size: int, pool: str = "commands",
        deadline_seconds: float | None = None, others: int = 0, late_seconds: float = 0.0,
    ) -> None:  # fmt: skip
        self.size = size
        self.peak = size
        self.limits: list[tuple[float, int | None]] = []  # of a stage, as they changed
        self.log: list[tuple[float, int, int, int]] = []  # moment; running: computing, others; waiting: sleepers
        self._clock = clock
        self._pool = pool
        self._deadline_seconds = deadline_seconds
        self._machine = Machine(max(1, round(cores)), others)
        self._late_seconds = late_seconds
        self._stages: dict[str, _Stage] = {}
        for number, work in enumerate(tasks):
            stage = self._stages.setdefault(work.stage, _Stage(work.stage, pool))
            stage.queue.append((f"{work.stage}[{number}]", work))
        self._running: list[_Running] = []
        self._shares = Resources(1 << 40)
        self._admission: Admission | None = None
        self._target = size
        self._limits: Mapping[str, int] = {}
        self._next_sample = 0.0
        self._news: deque[tuple[float, tuple[RunningTask, ...]]] = deque()
        self._told: tuple[RunningTask, ...] = ()

    @property
    def done(self) -> bool:
        return not self._running and not any(stage.queue for stage in self._stages.values())

    def advance(self, now: float) -> None:
        """Let the tasks run from the clock's moment to `now`."""
        self._start()
        while self._clock.now < now - 1e-9 and not self.done:
            self._sample()
            self._hold_locks()
            threads = [thread for task in self._running for thread in task.threads]
            most = min(now, self._next_sample) - self._clock.now
            self._clock.advance(self._machine.step(threads, self._clock.now, max(most, 1e-6)))
            for task in [task for task in self._running if task.ended]:
                self._end(task)
        self._start()

    def _sample(self) -> None:
        now = self._clock.now
        if now < self._next_sample - 1e-9:
            return
        for task in self._running:
            task.sample(now)
        young = any(now < task.started + _YOUNG_SECONDS for task in self._running)
        self._next_sample = now + (_SAMPLE_SECONDS if young else _LATER_SAMPLE_SECONDS)
        self._news.append((now + self._late_seconds, tuple(self._read(task) for task in self._running)))
        waits = [work for stage in self._stages.values() for _, work in stage.queue]
        computing = sum(task.work.computes for task in self._running)
        self.log.append((now, computing, len(self._running) - computing, sum(work.sleeps for work in waits)))

    def _hold_locks(self) -> None:
        """Let only the first of those behind a lock get on: the lock of the tasks, or the interpreter's."""
        holder = next((task for task in self._running if task.work.locked), None)
        for task in self._running:
            for thread in task.threads:
                thread.blocked = task.work.locked and task is not holder
        if self._pool == "threads":
            wanting = [thread for task in self._running for thread in task.threads if thread.runnable]
            for thread in sorted(wanting, key=lambda thread: thread.run)[1:]:
                thread.blocked = True

    def _end(self, task: _Running) -> None:
        self._running.remove(task)
        stage = self._stages[task.work.stage]
        stage.end(task, self._clock.now)
        self._shares.end_task(stage.plan, self._pool, task.label)
        self._start()

    def _start(self) -> None:
        """Start what fits, as the engine does."""
        self._shares.admit(self._admission)
        for name, stage in self._stages.items():
            most = self._limits.get(name, math.inf)
            while (
                stage.queue
                and sum(task.work.stage == name for task in self._running) < most
                and self._shares.task_fits(stage.plan, size=self.size)
            ):
                label, work = stage.queue.popleft()
                self._shares.begin_task(stage.plan, self._pool, label)
                phases = [Phase(seconds=work.seconds, cpu_demand=work.cpu_demand), *work.phases]
                threads = [Thread(list(phases), weight=work.weight) for _ in range(work.threads)]
                self._running.append(_Running(label, work, self._clock.now, threads))
                self._next_sample = min(self._next_sample, self._clock.now + _SAMPLE_SECONDS)
        self.peak = max(self.peak, len(self._running))

    # What the controller needs of a run and of its pools.

    def demand(self) -> Demand:
        tasks = [work for stage in self._stages.values() for _, work in stage.queue]
        longest = max((work.alone_seconds for work in tasks), default=0.0)
        now = self._clock.now
        left = sum(max(0.0, task.work.alone_seconds - (now - task.started)) for task in self._running)
        stages = self._stages.items()
        return Demand(
            ready=tuple((self._pool, name, len(stage.queue)) for name, stage in stages if stage.queue),
            running=tuple((self._pool, task.work.stage, task.label, task.started) for task in self._running),
            ended=tuple((name, stage.ended, stage.wanted, stage.spent) for name, stage in stages if stage.ended),
            stages=tuple(stage.counts(self._running, now) for _, stage in stages),
            work_seconds=left + sum(work.alone_seconds for work in tasks),
            path_seconds=longest,
            left_seconds=None if self._deadline_seconds is None else self._deadline_seconds - now,
        )

    def limit(self, stages: Mapping[str, int]) -> None:
        self._limits = dict(stages)
        self.limits.append((self._clock.now, next(iter(stages.values()), None)))
        self._start()

    def admit(self, admission: Admission | None) -> None:
        self._admission = admission
        self._start()

    def resize(self, size: int) -> None:
        self.size = size
        self._start()

    def running(self) -> tuple[RunningTask, ...]:
        """Return the newest samples that have arrived, of the tasks that still run."""
        while self._news and self._news[0][0] <= self._clock.now + 1e-9:
            self._told = self._news.popleft()[1]
        alive = {task.label for task in self._running}
        return tuple(task for task in self._told if task.label in alive)

    def _read(self, task: _Running) -> RunningTask:
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

    def pool_sizes(self, size: int) -> Mapping[str, int]:
        return {self._pool: size}

    def resize_pools(
        self, size: int, reason: str, tasks: Mapping[str, int] | None = None
    ) -> tuple[tuple[str, int, int], ...]:
        del reason, tasks
        old, self._target = self._target, size
        return ((self._pool, old, size),) if old != size else ()


class _Stage:
    """Tasks that wait, and the sums of those that have ended."""

    def __init__(self, name: str, pool: str) -> None:
        self.plan = PlannedStage(number=2, name=name, pool=pool, tasks=(), cwd=Path("/"))
        self.queue: deque[tuple[str, Work]] = deque()
        self.ended = 0
        self.wanted = self.spent = self.delayed = self.fastest = 0.0

    def end(self, task: _Running, now: float) -> None:
        seconds = now - task.started
        self.ended += 1
        self.spent += seconds
        self.delayed += task.waited
        self.wanted += seconds * cpu_demand(CoreTime(task.ran, task.waited), seconds)
        alone = max(0.0, seconds - task.waited)
        self.fastest = min(self.fastest or alone, alone)

    def counts(self, running: Sequence[_Running], now: float) -> StageCounts:
        own = [task for task in running if task.work.stage == self.plan.name]
        return StageCounts(
            stage=self.plan.name,
            running=len(own),
            waiting=len(self.queue),
            busy_seconds=self.spent + sum(now - task.started for task in own),
            delay_seconds=self.delayed,
            ended=self.ended,
            fastest_seconds=self.fastest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRun:
    """How a simulated run went. `log`: (moment, tasks that only compute, others that run, sleepers that wait)."""

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
        """Return for how long at a stretch more than so many computing tasks ran."""
        return _longest((moment, running > computing) for moment, running, _, _ in self.log)

    def longest_held_back(self) -> float:
        """Return for how long at a stretch tasks that only sleep could not start."""
        return _longest((moment, waiting > 0) for moment, _, _, waiting in self.log)


def _longest(moments: object) -> float:
    longest = 0.0
    for held, group in groupby(moments, key=lambda entry: entry[1]):  # type: ignore[call-overload]
        stretch = [moment for moment, _ in group]
        longest = max(longest, stretch[-1] - stretch[0] if held else 0.0)
    return longest


def clairvoyant_seconds(tasks: Sequence[Work], *, cores: int, maximum: int) -> float:
    """Return a bound that no order and no size can beat: core time over cores, the longest task, and slot time."""
    longest = max(work.alone_seconds for work in tasks)
    slots = sum(work.alone_seconds for work in tasks) / maximum
    return max(longest, slots, sum(work.core_seconds for work in tasks) / cores)


def run_lane(
    tasks: Sequence[Work], *, cores: float = 2.0, maximum: int = 32, start: int = 2, pool: str = "commands",
    deadline_seconds: float | None = None, fixed: bool = False, others: int = 0, late_seconds: float = 0.0,
    known: Mapping[str, float] | None = None,
) -> LaneRun:  # fmt: skip
    """Run tasks to their end, steered by the controller, or at the size of the start if `fixed`.

    `others`: threads of other people that compute all the time; `known`: demands of stages that earlier runs measured.
    """
    clock, recorder = FakeClock(), Recorder()
    lane = SimulatedLane(
        tasks, clock=clock, cores=cores, size=start, pool=pool, deadline_seconds=deadline_seconds, others=others,
        late_seconds=late_seconds,
    )  # fmt: skip
    loop = Controller(
        lane,
        lane,
        control_state=ControlState(Bounds(minimum=1, maximum=maximum, start=start), (pool,), source="local"),
        cores=lambda: cores,
        memory_available_bytes=lambda: 1 << 40,
        emit=recorder.observe,
        clock=clock,
        run_id="simulated",
        known_cpu_demands=known or {},
        objective="deadline" if deadline_seconds is not None else "fast",
    )
    if not fixed:
        loop.begin()
    lane.advance(0.0)
    while not lane.done:
        lane.advance(clock.now + TICK_SECONDS)
        if not fixed:
            loop.step()
    moves = tuple(decision for decision in recorder.of(Decision) if decision.action != "hold")
    return LaneRun(
        makespan_seconds=clock.now, peak=lane.peak, moves=moves, limits=tuple(lane.limits), log=tuple(lane.log)
    )
