"""Measure one stage at several sizes with several strategies, and recommend settings for its lane."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import descriptors, host
from paropt_exporter.clock import Clock
from paropt_exporter.engine.inbox import QueueInbox
from paropt_exporter.engine.run import Run
from paropt_exporter.engine.workers import PoolWorkers
from paropt_exporter.errors import ParoptError, format_count
from paropt_exporter.events import Result, RunRecord, Strategy
from paropt_exporter.plan import Bounds, Plan

# A smaller gain is not worth twice the workers; the controller tolerates 10 % of a size.
TOLERANCE_RATIO = 0.05


class ProfilingFailed(ParoptError):
    """A run of the stage failed, so that its duration says nothing."""

    exit_code = 1


class ProfiledRun(Struct, frozen=True, kw_only=True):
    """One run of the stage."""

    seconds: float
    cpu_seconds: float
    memory_peak_bytes: int


class Point(Struct, frozen=True, kw_only=True):
    """The measurement of one strategy at one size: a point of the curve."""

    strategy: Strategy
    workers: int
    runs: tuple[ProfiledRun, ...]

    @property
    def seconds(self) -> float:
        """The median duration."""
        return median(run.seconds for run in self.runs)

    @property
    def spread_seconds(self) -> float:
        """The difference between the slowest and the fastest run."""
        durations = [run.seconds for run in self.runs]
        return max(durations) - min(durations)

    @property
    def cores(self) -> float:
        """The cores that the stage kept busy on average."""
        seconds = sum(run.seconds for run in self.runs)
        return sum(run.cpu_seconds for run in self.runs) / seconds if seconds > 0 else 0.0

    @property
    def memory_peak_bytes(self) -> int:
        """The highest memory use of one task."""
        return max(run.memory_peak_bytes for run in self.runs)


class Recommendation(Struct, frozen=True, kw_only=True):
    """Settings for the lane. `point` is the recommended point, `fastest` the fastest of all."""

    point: Point
    fastest: Point
    workers: Bounds


def choose_sizes(plan: Plan) -> tuple[int, ...]:
    """Return the sizes worth measuring: doubled until all tasks run at once, or up to the lane's maximum."""
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
    """Run each plan of one stage (they differ in strategy) at each size `runs` times; blocks until all runs have ended.

    A first run fills the caches and does not count. Each round measures all sizes, so that drift of the machine affects
    all of them alike. Raises ProfilingFailed at the first run that does not succeed.
    """
    wanted = [(plan, size) for plan in plans for size in workers]
    tell(f"1 run to warm up, then {format_count(runs, 'round')} of {len(wanted)}")
    _run_once(plans[0], workers[-1], execute)
    measured_runs: dict[tuple[Strategy, int], list[ProfiledRun]] = {}
    for number in range(1, runs + 1):
        for plan, size in wanted:
            run = _run_once(plan, size, execute)
            measured_runs.setdefault((plan.strategy, size), []).append(run)
            tried = f"{plan.strategy.value}, {format_count(size, 'worker')}"
            tell(f"round {number} of {runs}: {tried}: {run.seconds:.2f} s")
    return tuple(
        Point(strategy=strategy, workers=size, runs=tuple(measured))
        for (strategy, size), measured in measured_runs.items()
    )


def recommend(points: Sequence[Point], *, strategy: Strategy, bounds: Mapping[Strategy, Bounds]) -> Recommendation:
    """Recommend the fewest workers that are as fast as the fastest point, with the lane's own `strategy` if possible.

    A point counts as equally fast within TOLERANCE_RATIO, or within the spread of the fastest point's runs. The lane
    keeps its bounds with that strategy; if larger sizes were slower, its maximum becomes the largest size that was not.
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
    """Run a plan on new pools of a fixed size. `during` is called with the run, for interrupts, and None at the end."""
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
    """Return a plan of one stage without limits and retries, which would cut or repeat parts of a measurement."""
    (stage,) = plan.stages
    return replace(plan, stages=(replace(stage, sla=None, retries=0),), total=None)


def iter_speed_ups(points: Sequence[Point]) -> Iterator[tuple[Point, float]]:
    """Yield each point with its speed-up over the fewest workers of the first strategy."""
    first = points[0].seconds
    for point in points:
        yield point, first / point.seconds if point.seconds > 0 else 1.0


def _run_once(plan: Plan, size: int, execute: Callable[[Plan], RunRecord]) -> ProfiledRun:
    sized = replace(plan, workers=Bounds(minimum=size, maximum=size, start=size))
    (stage,) = execute(sized).stages
    if stage.result is not Result.SUCCESS:
        tried = f"{format_count(size, 'worker')}, {plan.strategy.value}"
        raise ProfilingFailed(
            f"stage {stage.stage} can't be profiled: with {tried}, it ended as {stage.result.value}: {stage.message}"
        )
    return ProfiledRun(
        seconds=stage.duration_seconds, cpu_seconds=stage.cpu_seconds, memory_peak_bytes=stage.memory_peak_bytes
    )
