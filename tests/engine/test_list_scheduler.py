"""List scheduling by the engine's rules, without a clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paropt_exporter.engine.list_scheduler import ListScheduler, StartedTask
from paropt_exporter.engine.resources import Resources
from paropt_exporter.plan import PlannedStage
from support.lanes import stage

GIB = 1 << 30


def build_scheduler(*stages: PlannedStage, tasks: int = 1) -> ListScheduler[int]:
    return ListScheduler(stages, {each.name: range(tasks) for each in stages}, Resources(GIB))


def labels(started: Sequence[StartedTask[int]]) -> list[str]:
    return [each.label for each in started]


def run_to_end(scheduler: ListScheduler[int], size: int, limits: Mapping[str, int] | None = None) -> list[list[str]]:
    """End all running tasks at once, round by round; return the labels that each round started."""
    rounds = []
    while not scheduler.has_ended:
        started = scheduler.start_tasks(size, limits or {})
        assert started, "no task can start, though some are left"
        rounds.append(labels(started))
        for each in started:
            scheduler.end_task(each)
    return rounds


def test_tasks_start_in_list_order_up_to_the_size() -> None:
    scheduler = build_scheduler(stage("a"), stage("b"), tasks=2)
    assert run_to_end(scheduler, 3) == [["a[0]", "a[1]", "b[0]"], ["b[1]"]]


def test_last_task_of_a_need_makes_its_dependents_startable() -> None:
    scheduler = build_scheduler(stage("b", needs=("a",)), stage("a"), tasks=2)
    first = scheduler.start_tasks(4)
    assert labels(first) == ["a[0]", "a[1]"]
    scheduler.end_task(first[0])
    assert labels(scheduler.start_tasks(4)) == []
    scheduler.end_task(first[1])
    assert labels(scheduler.start_tasks(4)) == ["b[0]", "b[1]"]


def test_need_without_tasks_counts_as_ended() -> None:
    scheduler = ListScheduler([stage("a"), stage("b", needs=("a",))], {"a": (), "b": (1,)}, Resources(GIB))
    assert run_to_end(scheduler, 1) == [["b[0]"]]


def test_limit_leaves_slots_to_the_other_stages() -> None:
    scheduler = build_scheduler(stage("a"), stage("b"), tasks=2)
    assert labels(scheduler.start_tasks(3, {"a": 1})) == ["a[0]", "b[0]", "b[1]"]
    assert (scheduler.count_running("a"), scheduler.get_queue("a")) == (1, (1,))


def test_stage_that_needs_much_room_is_not_overtaken() -> None:
    scheduler = build_scheduler(stage("a"), stage("b", slots=2), stage("c"))
    assert run_to_end(scheduler, 2) == [["a[0]"], ["b[0]"], ["c[0]"]]


def test_stages_that_share_a_lock_start_one_after_the_other() -> None:
    lock = frozenset({"database"})
    assert run_to_end(build_scheduler(stage("a", locks=lock), stage("b", locks=lock)), 2) == [["a[0]"], ["b[0]"]]
