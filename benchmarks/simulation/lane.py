"""A run of known tasks on simulated cores, steered by the real inner loop on a clock that jumps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from paropt_exporter.control import InnerLoop, Standing
from paropt_exporter.control.loop import TICK_SECONDS
from paropt_exporter.engine import Demand, StageCounts
from paropt_exporter.plan import Bounds
from paropt_exporter.records import Decision, RunningTask
from paropt_exporter.testing import FakeClock, Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One task: how long it takes alone, and which part of a core it uses while it runs.

    `locked`: it holds a lock all that time, which it shares with all others that are.
    """

    seconds: float
    share: float = 0.0
    locked: bool = False


@dataclass(slots=True, eq=False)
class _Running:
    label: str
    work: Work
    started: float
    done: float = 0.0
    cpu: float = 0.0
    delay: float = 0.0


class SimulatedLane:
    """Tasks of one stage that run at the lane's size and share cores fairly; threads share one interpreter besides."""

    def __init__(
        self, tasks: list[Work], *, clock: FakeClock, cores: float, size: int, pool: str = "commands",
        deadline_seconds: float | None = None,
    ) -> None:  # fmt: skip
        self.size = size
        self.peak = size
        self.limits: list[tuple[float, int | None]] = []  # of the stage, as they changed
        self._clock = clock
        self._cores = cores
        self._pool = pool
        self._deadline_seconds = deadline_seconds
        self._queue = deque((f"a[{number}]", work) for number, work in enumerate(tasks))
        self._running: list[_Running] = []
        self._ended: list[float] = []
        self._cpu = 0.0
        self._target = size
        self._limit = math.inf
        self._spent = self._delayed = 0.0

    @property
    def done(self) -> bool:
        return not self._queue and not self._running

    def advance(self, now: float) -> None:
        """Let the tasks run from the clock's moment to `now`, all at the pace that the cores allow."""
        while self._clock.now < now:
            self._start()
            pace = self._pace()
            moving = self._moving()
            first = min((task.work.seconds - task.done) / pace for task in moving) if moving else math.inf
            seconds = min(now - self._clock.now, max(first, 1e-9))
            self._clock.advance(seconds)
            for task in moving:
                task.done += pace * seconds
                task.cpu += pace * seconds * task.work.share
                task.delay += 0.0 if self._pool == "threads" else (1.0 - pace) * seconds
            ended = [task for task in self._running if task.done >= task.work.seconds - 1e-9]
            self._ended += [self._clock.now - task.started - task.delay for task in ended]
            self._spent += sum(self._clock.now - task.started for task in ended)
            self._delayed += sum(task.delay for task in ended)
            self._cpu += sum(task.cpu for task in ended)
            self._running = [task for task in self._running if task.done < task.work.seconds - 1e-9]
        self._start()

    def _moving(self) -> list[_Running]:
        """Return the running tasks that get on: of those behind the lock, the first that came."""
        holder = next((task for task in self._running if task.work.locked), None)
        return [task for task in self._running if task is holder or not task.work.locked]

    def _pace(self) -> float:
        wanted = sum(task.work.share for task in self._running)
        there = min(1.0, self._cores) if self._pool == "threads" else self._cores
        return min(1.0, there / wanted) if wanted else 1.0

    def _start(self) -> None:
        while self._queue and len(self._running) < min(self.size, self._limit):
            label, work = self._queue.popleft()
            self._running.append(_Running(label, work, self._clock.now))
        self.peak = max(self.peak, len(self._running))

    # What the inner loop needs of a run and of its pools.

    def demand(self) -> Demand:
        mean = sum(self._ended) / len(self._ended) if self._ended else None
        known = mean if mean is not None else max((work.seconds for _, work in self._queue), default=0.0)
        left = sum(max(known - task.done, 0.0) for task in self._running) + known * len(self._queue)
        return Demand(
            ready=((self._pool, "a", len(self._queue)),) if self._queue else (),
            running=tuple((self._pool, "a", task.label, task.started) for task in self._running),
            shares=(("a", self._cpu / sum(self._ended)),) if self._ended else (),
            stages=(self._counts(),),
            work_seconds=left,
            path_seconds=known if self._queue else 0.0,
            left_seconds=None if self._deadline_seconds is None else self._deadline_seconds - self._clock.now,
        )

    def _counts(self) -> StageCounts:
        return StageCounts(
            stage="a",
            running=len(self._running),
            waiting=len(self._queue),
            busy_seconds=self._spent + sum(self._clock.now - task.started for task in self._running),
            delay_seconds=self._delayed,
            ended=len(self._ended),
            fastest_seconds=min(self._ended, default=0.0),
        )

    def limit(self, stages: Mapping[str, int]) -> None:
        self._limit = stages.get("a", math.inf)
        self.limits.append((self._clock.now, stages.get("a")))
        self._start()

    def resize(self, size: int) -> None:
        self.size = size
        self._start()

    def running(self) -> tuple[RunningTask, ...]:
        return tuple(
            RunningTask(
                label=task.label,
                worker="w",
                started_seconds=task.started,
                cpu_seconds=task.cpu,
                memory_bytes=0,
                run_delay_seconds=task.delay,
            )
            for task in self._running
        )

    def shares(self, size: int) -> Mapping[str, int]:
        return {self._pool: size}

    def share(self, size: int, reason: str) -> tuple[tuple[str, int, int], ...]:
        del reason
        old, self._target = self._target, size
        return ((self._pool, old, size),) if old != size else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRun:
    """How a simulated run went."""

    makespan_seconds: float
    peak: int
    moves: tuple[Decision, ...]
    limits: tuple[tuple[float, int | None], ...] = ()

    @property
    def reversals(self) -> int:
        actions = [decision.action for decision in self.moves]
        return sum(before != after for before, after in pairwise(actions))


def run_lane(
    tasks: list[Work], *, cores: float = 2.0, maximum: int = 32, start: int = 2, pool: str = "commands",
    deadline_seconds: float | None = None, fixed: bool = False,
) -> LaneRun:  # fmt: skip
    """Run tasks to their end, steered by the inner loop, or at the size of the start if `fixed`."""
    clock, recorder = FakeClock(), Recorder()
    lane = SimulatedLane(tasks, clock=clock, cores=cores, size=start, pool=pool, deadline_seconds=deadline_seconds)
    loop = InnerLoop(
        lane,
        lane,
        standing=Standing(Bounds(minimum=1, maximum=maximum, start=start), (pool,), source="local"),
        cores=lambda: cores,
        memory_available_bytes=lambda: 1 << 40,
        emit=recorder.observe,
        clock=clock,
        run_id="simulated",
        objective="deadline" if deadline_seconds is not None else "fast",
    )
    lane.advance(0.0)
    while not lane.done:
        lane.advance(clock.now + TICK_SECONDS)
        if not fixed:
            loop.step()
    moves = tuple(decision for decision in recorder.of(Decision) if decision.action != "hold")
    return LaneRun(makespan_seconds=clock.now, peak=lane.peak, moves=moves, limits=tuple(lane.limits))
