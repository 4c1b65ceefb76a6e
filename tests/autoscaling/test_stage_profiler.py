"""The sizes that are measured, the order of the runs, and the recommendation from a curve."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from paropt_exporter.autoscaling import stage_profiler
from paropt_exporter.autoscaling.stage_profiler import Point, ProfiledRun, ProfilingFailed
from paropt_exporter.events import Result, RunRecord, Strategy
from paropt_exporter.plan import Bounds, Plan
from paropt_exporter.testing import Script
from support.lanes import Bench, limit, plan, stage

AUTO = Bounds(minimum=1, maximum=32, start=2)


def curve(strategy: Strategy = Strategy.ADAPTIVE, spread: float = 0.0, **seconds: float) -> list[Point]:
    """Points like w1=8.0, w2=4.0: seconds by workers, each measured twice."""
    return [
        Point(
            strategy=strategy,
            workers=int(workers[1:]),
            runs=tuple(
                ProfiledRun(seconds=took + part, cpu_seconds=2.0, memory_peak_bytes=1)
                for part in (-spread / 2, spread / 2)
            ),
        )
        for workers, took in seconds.items()
    ]


def recommended(points: list[Point], bounds: Bounds = AUTO) -> tuple[Strategy, int, int, int]:
    found = stage_profiler.recommend(points, strategy=Strategy.ADAPTIVE, bounds=dict.fromkeys(Strategy, bounds))
    return found.point.strategy, found.workers.minimum, found.workers.start, found.workers.maximum


def on_fakes(script: Script) -> tuple[Callable[[Plan], RunRecord], list[int]]:
    """Return a function that runs plans on fake pools, and the list of the sizes that it ran."""
    executed: list[int] = []

    def execute(planned: Plan) -> RunRecord:
        executed.append(planned.workers.start)
        return Bench(planned, {"a": [script]}).run()

    return execute, executed


@pytest.mark.parametrize(
    ("tasks", "maximum", "slots", "expected"),
    [
        (1, 32, 1, (1,)),
        (8, 32, 1, (1, 2, 4, 8)),
        (12, 32, 1, (1, 2, 4, 8, 12)),
        (100, 6, 1, (1, 2, 4, 6)),
        (5, 8, 2, (2, 4, 8)),
        (5, 2, 4, (4,)),
    ],
)
def test_sizes_double_up_to_the_tasks_or_the_maximum(
    tasks: int, maximum: int, slots: int, expected: tuple[int, ...]
) -> None:
    bounds = Bounds(minimum=1, maximum=maximum, start=1)
    planned = replace(plan(stage("a", tasks=tasks, slots=slots)), workers=bounds)
    assert stage_profiler.choose_sizes(planned) == expected


def test_each_round_measures_every_size_after_a_warm_up() -> None:
    execute, executed = on_fakes(Script(seconds=1.0, cpu_seconds=0.5))
    points = stage_profiler.measure(
        [plan(stage("a", tasks=4))], (1, 2, 4), runs=2, execute=execute, tell=lambda _: None
    )
    assert executed == [4, 1, 2, 4, 1, 2, 4]
    assert [(point.workers, point.seconds, point.cores) for point in points] == [
        (1, 4.0, 0.5),
        (2, 2.0, 1.0),
        (4, 1.0, 2.0),
    ]


def test_failing_stage_is_not_measured() -> None:
    execute, executed = on_fakes(Script(result=Result.FAILURE, message="exit 1"))
    with pytest.raises(ProfilingFailed, match=r"with 2 workers, adaptive, it ended as failure: exit 1"):
        stage_profiler.measure([plan(stage("a"))], (1, 2), runs=3, execute=execute, tell=lambda _: None)
    assert executed == [2]


def test_neither_limits_nor_retries_shape_the_curve() -> None:
    planned = plan(stage("a", sla=limit(1.0, critical=True), retries=3), total=limit(2.0))
    (alone,) = stage_profiler.remove_limits(planned).stages
    assert (alone.sla, alone.retries, stage_profiler.remove_limits(planned).total) == (None, 0, None)


def test_fewest_workers_as_good_as_the_fastest_are_recommended() -> None:
    assert recommended(curve(w1=8.0, w2=4.1, w4=2.1, w8=2.04)) == (Strategy.ADAPTIVE, 1, 4, 32)


def test_difference_within_the_spread_does_not_count() -> None:
    assert recommended(curve(spread=0.4, w1=8.0, w2=4.0, w4=3.7))[2] == 2


def test_maximum_comes_down_to_sizes_that_are_not_slower() -> None:
    assert recommended(curve(w1=8.0, w2=4.0, w4=4.1, w8=6.0, w16=9.0)) == (Strategy.ADAPTIVE, 1, 2, 4)


def test_lanes_strategy_stays_among_equals() -> None:
    thread, adaptive = curve(Strategy.THREAD, w1=8.0, w2=4.0), curve(w1=8.0, w2=4.1)
    assert recommended([*thread, *adaptive])[0] is Strategy.ADAPTIVE
    assert recommended([*curve(Strategy.PROCESS, w1=8.0, w2=3.0), *adaptive])[0] is Strategy.PROCESS


def test_fixed_lane_stays_fixed() -> None:
    fixed = Bounds(minimum=8, maximum=8, start=8)
    assert recommended(curve(w1=8.0, w2=4.0, w4=2.0, w8=2.0), fixed)[1:] == (4, 4, 4)


def test_minimum_above_the_size_comes_down() -> None:
    assert recommended(curve(w1=2.0, w2=2.0), replace(AUTO, minimum=4, start=4))[1:3] == (1, 1)
