"""Measure one stage at several sizes on several strategies, and tell which settings its lane should have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from paropt_exporter import descriptors, host
from paropt_exporter.clock import Clock
from paropt_exporter.engine import PoolWorkers, QueueInbox, Run
from paropt_exporter.errors import ParoptError
from paropt_exporter.events import Result, RunRecord, Strategy
from paropt_exporter.plan import Bounds, Plan

# What is gained beyond is not worth twice the workers: the controller's own tolerance is 10 % of a size.
TOLERANCE_RATIO = 0.05


class ProfilingFailed(ParoptError):
    """A stage that fails can't be profiled: how fast it fails says nothing."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of the stage."""

    seconds: float
    cpu_seconds: float
    memory_peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One strategy at one size, measured: a point of the curve."""

    strategy: Strategy
    workers: int
    trials: tuple[Trial, ...]

    @property
    def seconds(self) -> float:
        """The median duration."""
        return median(trial.seconds for trial in self.trials)

    @property
    def spread_seconds(self) -> float:
        """Between the fastest and the slowest run."""
        durations = [trial.seconds for trial in self.trials]
        return max(durations) - min(durations)

    @property
    def cores(self) -> float:
        """How many cores it kept busy on average."""
        seconds = sum(trial.seconds for trial in self.trials)
        return sum(trial.cpu_seconds for trial in self.trials) / seconds if seconds > 0 else 0.0

    @property
    def memory_peak_bytes(self) -> int:
        """The most that one task needed."""
        return max(trial.memory_peak_bytes for trial in self.trials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Settings for the lane, from the curve. `point` is the one recommended, `fastest` the quickest of all."""

    point: Point
    fastest: Point
    workers: Bounds


def choose_sizes(plan: Plan) -> tuple[int, ...]:
    """Return the sizes worth measuring: doubled until the stage's tasks all run at once, or the lane's bound."""
    (stage,) = plan.stages
    most = max(1, min(len(stage.tasks), plan.workers.maximum // stage.slots))
    doubled = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return tuple(stage.slots * tasks for tasks in (*doubled, most))


def measure(
    plans: Sequence[Plan],
    workers: Sequence[int],
    *,
    runs: int,
    execute: Callable[[Plan], RunRecord],
    tell: Callable[[str], None],
) -> tuple[Point, ...]:
    """Run each plan of one stage (they differ in strategy) at each size `runs` times; blocks until all are through.

    Before that one run is not counted: caches fill in it. Rounds go over all sizes, so that what drifts on the machine
    meets all of them alike. Raises StageFailed at the first run that is no success.
    """
    wanted = [(plan, size) for plan in plans for size in workers]
    tell(f"1 run to warm up, then {runs} rounds of {len(wanted)}")
    _run_trial(plans[0], workers[-1], execute)
    trials: dict[tuple[Strategy, int], list[Trial]] = {}
    for number in range(1, runs + 1):
        for plan, size in wanted:
            trial = _run_trial(plan, size, execute)
            trials.setdefault((plan.strategy, size), []).append(trial)
            tell(f"round {number} of {runs}: {plan.strategy.value}, {_format_workers(size)}: {trial.seconds:.2f} s")
    return tuple(
        Point(strategy=strategy, workers=size, trials=tuple(measured)) for (strategy, size), measured in trials.items()
    )


def recommend(points: Sequence[Point], *, strategy: Strategy, bounds: Mapping[Strategy, Bounds]) -> Recommendation:
    """Choose the fewest workers that are as good as the fastest, of the lane's own `strategy` where that is as good.

    As good: within TOLERANCE_RATIO, or within what the fastest point's own runs differ by. The lane keeps the bounds
    that it would have with the strategy, but where larger sizes were slower its maximum comes down to the largest that
    was not.
    """
    fastest = min(points, key=lambda point: point.seconds)
    enough = fastest.seconds + max(TOLERANCE_RATIO * fastest.seconds, fastest.spread_seconds)
    good = [point for point in points if point.seconds <= enough]
    chosen = min(good, key=lambda point: (point.workers, point.strategy is not strategy, point.seconds))
    size, allowed = chosen.workers, bounds[chosen.strategy]
    if allowed.fixed:
        return Recommendation(point=chosen, fastest=fastest, workers=Bounds(minimum=size, maximum=size, start=size))
    same = [point for point in points if point.strategy is chosen.strategy]
    harmful = [point.workers for point in same if point.workers > size and point.seconds > enough]
    useful = [point.workers for point in same if not harmful or point.workers < min(harmful)]
    maximum = max(useful) if harmful else max(allowed.maximum, size)
    return Recommendation(
        point=chosen,
        fastest=fastest,
        workers=Bounds(minimum=min(allowed.minimum, size), maximum=maximum, start=size),
    )


def execute_alone(plan: Plan, *, clock: Clock, during: Callable[[Run | None], None]) -> RunRecord:
    """Run a plan on new pools of a fixed size, watched by nobody; `during` is told what runs, and may end it."""
    descriptors.raise_limit()
    workers = PoolWorkers()
    try:
        workers.prepare(plan, plan.workers.start)
        run = Run(
            plan,
            run_id="profile",
            workers=workers,
            emit=lambda _: None,
            inbox=QueueInbox(clock),
            clock=clock,
            memory_bytes=host.read_available_memory_bytes(),
        )
        during(run)
        return run.execute()
    finally:
        during(None)
        workers.close()


def remove_limits(plan: Plan) -> Plan:
    """Take from a plan of one stage what would cut a measurement short, or repeat a part of it."""
    (stage,) = plan.stages
    return replace(plan, stages=(replace(stage, sla=None, retries=0),), total=None)


def iter_speed_ups(points: Sequence[Point]) -> Iterator[tuple[Point, float]]:
    """Yield each point with how many times faster it is than the fewest workers of the first strategy."""
    first = points[0].seconds
    for point in points:
        yield point, first / point.seconds if point.seconds > 0 else 1.0


def _run_trial(plan: Plan, size: int, execute: Callable[[Plan], RunRecord]) -> Trial:
    sized = replace(plan, workers=Bounds(minimum=size, maximum=size, start=size))
    (stage,) = execute(sized).stages
    if stage.result is not Result.SUCCESS:
        raise ProfilingFailed(
            f"stage {stage.stage} can't be profiled: with {_format_workers(size)}, {plan.strategy.value}, it ended as "
            f"{stage.result.value}: {stage.message}"
        )
    return Trial(
        seconds=stage.duration_seconds, cpu_seconds=stage.cpu_seconds, memory_peak_bytes=stage.memory_peak_bytes
    )


def _format_workers(size: int) -> str:
    return f"{size} worker{'' if size == 1 else 's'}"
