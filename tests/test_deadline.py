"""Which stages fit before a deadline, by Graham's bound on the durations of earlier runs."""

from __future__ import annotations

import pytest

from paropt_exporter.errors import UsageError
from paropt_exporter.events import Scope
from paropt_exporter.plan import Bounds, Plan
from paropt_exporter.plan.deadline import StagePast, apply_deadline
from support.lanes import limit, plan, stage


def past(seconds: float, *, runs: int = 20, failures: int = 0) -> StagePast:
    return StagePast(seconds=(seconds,) * (runs - failures), runs=runs, failures=failures)


def names(planned: Plan) -> list[str]:
    return [each.name for each in planned.stages]


def test_all_stages_run_if_they_fit() -> None:
    planned = apply_deadline(
        plan(stage("a"), stage("b"), workers=2, total=limit(90)), 30, {"a": past(10), "b": past(20)}
    )
    assert names(planned) == ["a", "b"]
    assert planned.deadline is not None
    assert planned.deadline.predicted_seconds == 30 / 2 + 20 / 2
    assert (planned.deadline.left_out, planned.partial, planned.total) == ((), False, limit(90))


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, "0.001 s"), (0.01, "0.010 s"), (0.1, "0.1 s")])
def test_short_prediction_is_neither_no_time_nor_over_a_short_deadline(seconds: float, shown: str) -> None:
    choice = apply_deadline(plan(stage("a"), workers=1), 0.1, {"a": past(seconds)}).choice
    assert choice == f"--deadline 0.1 s: 1 of 1 stages, expected to end within {shown}"


def test_stages_that_fail_most_for_their_time_are_taken_first() -> None:
    known = {"slow": past(10, failures=2), "fails": past(10, failures=10), "quick": past(1, failures=1)}
    planned = apply_deadline(plan(stage("slow"), stage("fails"), stage("quick"), workers=1, total=limit(90)), 12, known)
    assert names(planned) == ["fails", "quick"]
    assert planned.deadline is not None
    assert planned.deadline.left_out == ("slow",)
    assert (planned.partial, planned.total) == (True, None)
    assert planned.choice == (
        "--deadline 12 s: 2 of 3 stages, expected to end within 11.0 s; leaves out slow: no time (all fit in 21.0 s)"
    )


def test_shard_with_nothing_to_do_has_no_unknown_duration() -> None:
    empty = plan()
    assert apply_deadline(empty, 30, {}) is empty


def test_stage_is_taken_with_all_of_its_needs_or_not_at_all() -> None:
    stages = stage("build"), stage("tests", needs=("build",)), stage("lint")
    known = {"build": past(50), "tests": past(1, failures=19), "lint": past(5)}
    assert names(apply_deadline(plan(*stages, workers=1), 20, known)) == ["lint"]
    assert names(apply_deadline(plan(*stages, workers=1), 55, known)) == ["build", "tests"]


def test_chain_of_needs_counts_as_a_whole_however_many_workers_there_are() -> None:
    chain = stage("a"), stage("b", needs=("a",)), stage("c", needs=("b",))
    known = {name: past(10) for name in "abc"}
    assert names(apply_deadline(plan(*chain, workers=64), 25, known)) == ["a", "b"]


def test_hits_take_no_time_and_come_first_then_affected_stages() -> None:
    stages = stage("hit"), stage("affected"), stage("other")
    known = {"hit": past(90), "affected": past(10), "other": past(10, failures=19)}
    planned = apply_deadline(plan(*stages, workers=1), 15, known, hits={"hit"}, affected={"affected"})
    assert names(planned) == ["hit", "affected"]


def test_tasks_of_a_stage_count_as_the_work_of_all_workers() -> None:
    split = stage("split", tasks=8, expected_task_seconds=5.0)
    planned = apply_deadline(plan(split, workers=2), 60, {"split": past(10)})
    assert planned.deadline is not None
    assert planned.deadline.predicted_seconds == 40 / 2 + 10 / 2


def test_stages_that_wait_fit_beside_those_that_compute() -> None:
    """Ten stages of a second on two cores: the lane adds workers for those that want no core."""
    waiting = [stage(f"w{n}", expected_cpu_demand=0.02) for n in range(8)]
    computing = [stage(f"c{n}", expected_cpu_demand=1.0) for n in range(2)]
    known = {each.name: past(1) for each in (*waiting, *computing)}
    bounds = Bounds(minimum=1, maximum=32, start=2)
    planned = apply_deadline(plan(*waiting, *computing, workers=bounds, cores=2.0), 3, known)
    assert planned.deadline is not None
    assert planned.deadline.left_out == ()
    assert planned.deadline.predicted_seconds == pytest.approx(2 / 2 + 8 / 32 + 31 / 32)


def test_unknown_demand_counts_as_a_core() -> None:
    bounds = Bounds(minimum=1, maximum=32, start=2)
    known = {"a": past(10), "b": past(20)}
    planned = apply_deadline(plan(stage("a"), stage("b"), workers=bounds, cores=2.0), 30, known)
    assert planned.deadline is not None
    assert planned.deadline.predicted_seconds == 30 / 2 + 20 / 2


def test_stage_that_wants_more_than_all_cores_takes_as_long_as_before() -> None:
    """Four processes that compute for 10 s on two cores want four: they counted as 20 s of the lane."""
    bounds = Bounds(minimum=1, maximum=32, start=2)
    wide = stage("wide", expected_cpu_demand=4.0)
    planned = apply_deadline(plan(wide, workers=bounds, cores=2.0), 10, {"wide": past(10)})
    assert planned.deadline is not None
    assert planned.deadline.predicted_seconds == 10


def test_part_of_a_stage_takes_its_part_of_the_time() -> None:
    """`--shard 1/4 --deadline 30` left out a stage that takes 25 s in each shard."""
    part = stage("part", scope=Scope.ITEMS, expected_seconds=25.0)
    planned = apply_deadline(plan(part, workers=1), 30, {"part": past(100)})
    assert planned.deadline is not None
    assert planned.deadline.predicted_seconds == 25


def test_stage_of_unknown_duration_is_left_out_with_the_reason() -> None:
    stages = stage("a"), stage("new"), stage("behind", needs=("new",))
    planned = apply_deadline(plan(*stages), 60, {"a": past(1), "behind": past(1)})
    assert names(planned) == ["a"]
    assert "leaves out new, behind: unknown duration, or that of a need" in planned.choice


def test_nothing_known_and_nothing_that_fits_are_clear_errors() -> None:
    with pytest.raises(UsageError, match="no duration is known yet: run the lane once without it"):
        apply_deadline(plan(stage("a")), 60, {"a": past(1, runs=3, failures=3)})
    with pytest.raises(UsageError, match=r"no stage ends within 5 s; all together need 10\.0 s"):
        apply_deadline(plan(stage("a")), 5, {"a": past(10)})


def test_two_slowest_of_twenty_runs_do_not_count() -> None:
    seconds = tuple(float(number) for number in range(1, 21))
    planned = apply_deadline(plan(stage("a")), 60, {"a": StagePast(seconds=seconds, runs=20, failures=0)})
    assert planned.deadline is not None
    assert planned.deadline.predicted_seconds == 18
