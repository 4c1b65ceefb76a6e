"""The history keeps events, totals and order, and survives kills, damage, deletion and full disks."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter import families
from paropt_exporter.engine.attempt import compute_alone_seconds, compute_demand
from paropt_exporter.errors import HistoryError
from paropt_exporter.events import Decision, Event, ItemRecord, Result, Scope, Shard, TaskRecord
from paropt_exporter.history import History, database, repair
from paropt_exporter.metrics import LaneLabels, Metrics, StageLabels
from support.event_samples import (
    LIMIT,
    START,
    StillClock,
    limit_reached,
    run_ended,
    run_started,
    stage_ended,
    stage_started,
    task,
)
from support.metric_pages import render_page
from support.processes import run_python

HELD = """
import sys
from pathlib import Path
from support.event_samples import run_started, stage_started, task, stage_ended, limit_reached
from paropt_exporter.clock import SystemClock
from paropt_exporter.history import History
history = History(Path(sys.argv[1]), project="shop", clock=SystemClock())
for event in (
    run_started("dead", stages=("lint", "unit", "types")), stage_started("lint", "dead"), task("lint", "dead"),
    stage_ended("lint", "dead"), stage_started("unit", "dead"), limit_reached("unit", "dead", broken=False),
    limit_reached("unit", "dead", broken=True),
):
    history.observe(event)
assert history.broken is None
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    with closing(open_file(path)) as history:
        yield history


def open_file(path: Path, *, project: str = "shop", instance: str = "", keep_runs: int | None = 1000) -> History:
    return History(path, project=project, clock=StillClock(), instance=instance, keep_runs=keep_runs)


def keep(history: History, *events: Event) -> None:
    for event in events:
        history.observe(event)
    assert history.broken is None


def whole_run(run_id: str, *, at: float = START, seconds: float = 4.0, tasks: int = 1) -> tuple[Event, ...]:
    lint = stage_ended("lint", run_id, seconds=seconds, at=at)
    return (
        run_started(run_id, at=at, stages=("lint",)),
        stage_started("lint", run_id, at=at, tasks=tasks),
        *(task("lint", run_id, number=number) for number in range(tasks)),
        lint,
        run_ended(run_id, at=at, seconds=seconds, stages=(lint,)),
    )


def start_owner(path: Path) -> subprocess.Popen[str]:
    """Start a process and return it during its run."""
    process = start_python(HELD, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def start_python(script: str, path: Path) -> subprocess.Popen[str]:
    tests, package = Path(__file__).parents[1], Path(__file__).parents[2] / "exporter"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tests, package)))}
    return subprocess.Popen([sys.executable, "-c", script, str(path)], env=environment, stdin=-1, stdout=-1, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    with process:
        process.wait(60)


def test_an_item_with_invalid_unicode_is_stored_with_escapes(history: History) -> None:
    keep(history, run_started("r1", stages=("lint",)), replace(task("lint"), item=os.fsdecode(b"tests/\xff.py")))
    with closing(sqlite3.connect(history.path)) as reader:
        assert reader.execute("SELECT item FROM tasks").fetchone() == ("tests/\\udcff.py",)


def test_several_events_are_stored_like_single_ones(path: Path, tmp_path: Path) -> None:
    events = (*whole_run("r1", tasks=3), *whole_run("r2", at=START + 60))
    with closing(open_file(path)) as history, closing(open_file(tmp_path / "single.db")) as single:
        history.observe_all(events)
        keep(single, *events)
        assert history.load_totals() == single.load_totals()
        assert history.load_last_values() == single.load_last_values()
        assert history.load_runs() == single.load_runs()
        assert history.load_tasks("r1") == single.load_tasks("r1")


def test_value_that_can_not_be_stored_costs_only_later_events_of_its_run(path: Path) -> None:
    impossible = replace(task("lint", "r1", number=1), memory_peak_bytes=1 << 70)
    events = (run_started("r1"), stage_started("lint", "r1"), task("lint", "r1"), impossible)
    with closing(open_file(path)) as history:
        history.observe_all(events)
        assert history.dropped == 1
        assert history.broken is not None
        assert [each.task for each in history.load_tasks("r1")] == [0]


def test_the_next_process_resumes_totals_and_last_values(path: Path) -> None:
    with closing(open_file(path)) as history:
        keep(history, *whole_run("r1"), *whole_run("r2", at=START + 60))
    with closing(open_file(path)) as history:
        totals, last = history.load_totals(), history.load_last_values()
    assert totals.counters[families.RUNS.name, ("standard", "success")] == 2
    assert totals.histograms[families.RUN_DURATION.name, ("standard",)].count == 2
    assert totals.histograms[families.RUN_DURATION.name, ("standard",)].sum == 8.0
    assert last.gauges[families.RUN_LAST_SUCCESS.name, ("standard",)] == START + 64


def test_memory_and_history_agree_on_every_total_after_a_restart(history: History) -> None:
    lane = LaneLabels(lane="standard", total=LIMIT, stages=(StageLabels(name="lint", number=2, pool="c", sla=LIMIT),))
    watching = Metrics(project="shop", lanes=(lane,), process_metrics=False)
    events = (
        *whole_run("r1"),
        run_started("r2"),
        stage_started("lint", "r2"),
        task("lint", "r2", result=Result.FAILURE, seconds=0.003),
        task("lint", "r2", attempt=2, seconds=31.0),
        limit_reached("lint", "r2", broken=False),
        limit_reached("lint", "r2", broken=True),
        stage_ended("lint", "r2", broken=True, seconds=31.0),
        run_ended("r2", result=Result.FAILURE, seconds=4000.0, stages=(stage_ended(),)),
    )
    for event in events:
        watching.observe(event)
    keep(history, *events)
    resumed = Metrics(
        project="shop",
        lanes=(lane,),
        process_metrics=False,
        totals=history.load_totals(),
        last=history.load_last_values(),
    )
    passing = (families.STAGE_PROGRESS.name, families.HOST_MEMORY.name)
    before, after = (
        [line for line in render_page(metrics).decode().splitlines() if not line.startswith(passing)]
        for metrics in (watching, resumed)
    )
    assert sorted(before) == sorted(after)


def test_projects_in_one_file_do_not_see_each_other(path: Path) -> None:
    with closing(open_file(path)) as shop, closing(open_file(path, project="bank")) as bank:
        keep(shop, *whole_run("r1"))
        assert bank.load_totals().counters == {}
        assert bank.load_runs() == ()


def test_several_processes_threads_and_connections_add_up_in_one_file(path: Path) -> None:
    def work(number: int) -> None:
        with closing(open_file(path)) as history:
            keep(history, *whole_run(f"r{number}", at=START + number, tasks=5))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(16)))
    with closing(open_file(path)) as history:
        assert history.load_totals().counters[families.RUNS.name, ("standard", "success")] == 16
        assert history.load_totals().counters[families.TASK_ATTEMPTS.name, ("standard", "lint", "success")] == 80
        assert len(history.load_runs(limit=100)) == 16


def test_old_runs_are_pruned_and_totals_are_not(path: Path) -> None:
    with closing(open_file(path, keep_runs=3)) as history:
        for number in range(5):
            keep(history, *whole_run(f"r{number}", at=START + number))
        assert [run.run_id for run in history.load_runs()] == ["r2", "r3", "r4"]
        assert history.load_totals().counters[families.RUNS.name, ("standard", "success")] == 5
    with closing(sqlite3.connect(path)) as connection:
        for table in ("tasks", "stages"):
            assert connection.execute(f"SELECT count(DISTINCT run_id) FROM {table}").fetchone() == (3,)


def test_runs_older_than_the_age_to_keep_are_pruned(path: Path) -> None:
    clock = StillClock()
    with closing(History(path, project="shop", clock=clock, keep_seconds=3600.0)) as history:
        keep(history, *whole_run("old", at=clock.wall()))
        clock.advance(3700.0)
        keep(history, *whole_run("new", at=clock.wall()))
        assert [run.run_id for run in history.load_runs()] == ["new"]


def test_decisions_are_kept_with_their_terms(history: History, path: Path) -> None:
    keep(
        history,
        Decision(
            pool="commands", action="up", reason="demand", old_size=2, new_size=4, at_timestamp_seconds=START,
            terms={"queue": 3.0},
        ),
    )  # fmt: skip
    with closing(sqlite3.connect(path)) as connection:
        kept = connection.execute("SELECT pool, action, old_size, new_size, terms FROM decisions").fetchall()
    assert kept == [("commands", "up", 2, 4, '{"queue": 3.0}')]


def make_decision(run_id: str, action: str, reason: str, old: int, new: int) -> Decision:
    return Decision(
        pool="commands", action=action, reason=reason, old_size=old, new_size=new, at_timestamp_seconds=START,
        run_id=run_id,
    )  # fmt: skip


def test_sizes_that_a_person_has_set_are_not_usual(history: History) -> None:
    keep(history, *whole_run("r1"), make_decision("r1", "up", "demand", 2, 4))
    for number in range(2, 6):
        kept = make_decision(f"r{number}", "hold", "paused", 40, 40)
        keep(history, *whole_run(f"r{number}"), make_decision(f"r{number}", "up", "pinned", 4, 40), kept)
    assert history.load_usual_size("standard") == 4


def test_the_usual_size_of_an_ineffective_increase_is_the_size_before(history: History) -> None:
    keep(history, *whole_run("r1"), make_decision("r1", "up", "demand", 2, 64))
    assert history.load_usual_size("standard") == 64
    keep(history, make_decision("r1", "down", "ineffective", 64, 16), make_decision("r1", "down", "ineffective", 16, 2))
    assert history.load_usual_size("standard") == 2


def test_runs_of_failures_only_do_not_make_the_lane_smaller(history: History) -> None:
    def run_with_size(run_id: str, size: int, *, failed_only: bool) -> tuple[Event, ...]:
        decision = Decision(
            pool="commands", action="up", reason="demand", old_size=1, new_size=size, at_timestamp_seconds=START,
            run_id=run_id,
        )  # fmt: skip
        return run_started(run_id), decision, replace(run_ended(run_id), failed_only=failed_only)

    keep(history, *run_with_size("r1", 16, failed_only=False))
    for number in range(2, 6):
        keep(history, *run_with_size(f"r{number}", 1, failed_only=True))
    assert history.load_usual_size("standard") == 16
    assert [run.partial for run in history.load_runs()] == [False, True, True, True, True]


def test_a_run_of_a_killed_process_is_marked_as_interrupted(path: Path) -> None:
    kill(start_owner(path))
    with closing(open_file(path)) as history:
        assert not history.is_alive("dead")
        (interrupted,) = history.mark_interrupted_runs()
        assert (interrupted.run_id, interrupted.running) == ("dead", ("unit",))
        (run,) = history.load_runs()
        assert (run.result, run.interrupted) == (Result.CANCELLATION, True)
        results = {stage.stage: stage.result for stage in run.stages}
        assert results == {"lint": Result.SUCCESS, "unit": Result.CANCELLATION, "types": Result.SKIP}
        assert load_failed_stages(history) == {"unit", "types"}


def test_an_interrupted_run_stays_one_of_its_shard(path: Path) -> None:
    shard = Shard(index=1, count=2, split="abc")
    with closing(open_file(path)) as history:
        keep(history, replace(run_started("r1", stages=("unit",)), shard=shard), stage_started("unit", "r1"))
    with closing(open_file(path)) as history:
        history.mark_interrupted_runs()
        (run,) = history.load_runs()
        failures = history.find_failures("standard", ["unit"])
    assert run.shard == "1/2"
    assert failures is not None and failures.shards == {("unit", ""): shard}


def test_a_stage_that_was_not_planned_is_interrupted_too(path: Path) -> None:
    """As in the run of a `StageCollector`."""
    with closing(open_file(path)) as history:
        keep(history, run_started("r1", stages=()), stage_started("unit", "r1"))
    with closing(open_file(path)) as history:
        (interrupted,) = history.mark_interrupted_runs()
        (run,) = history.load_runs()
        assert interrupted.running == ("unit",)
        assert [stage.result for stage in run.stages] == [Result.CANCELLATION]
        assert history.load_totals().counters[families.STAGE_RUNS.name, ("standard", "unit", "cancellation")] == 1


def test_an_interrupted_run_has_the_totals_of_a_cancelled_one(path: Path) -> None:
    kill(start_owner(path))
    with closing(open_file(path)) as history:
        history.mark_interrupted_runs()
        counters = history.load_totals().counters
    assert counters[families.RUNS.name, ("standard", "cancellation")] == 1
    assert counters[families.STAGE_RUNS.name, ("standard", "unit", "cancellation")] == 1
    assert counters[families.STAGE_RUNS.name, ("standard", "types", "skip")] == 1
    assert counters[families.SLA_VIOLATIONS.name, ("standard", "unit", "normal")] == 1
    assert counters[families.SLA_CHECKS.name, ("standard", "unit")] == 1


def test_last_values_are_those_of_a_run_that_ended_after_the_death_of_another(path: Path) -> None:
    """As of cron's runs beside an exporter with `--every`, whose next start, perhaps after days, ends a killed one."""
    with closing(open_file(path)) as history:
        keep(history, run_started("dead", stages=("lint", "unit")))
        keep(history, stage_started("lint", "dead"), stage_started("unit", "dead"))
        keep(history, *whole_run("later", at=START + 3600))
    with closing(open_file(path)) as history:
        assert len(history.mark_interrupted_runs()) == 1
        gauges = history.load_last_values().gauges
    assert gauges[families.RUN_LAST_COMPLETION.name, ("standard",)] == START + 3604
    results = [(stage, result) for stage in ("lint", "unit") for result in ("success", "cancellation")]
    last = [gauges.get((families.STAGE_LAST_RESULT.name, ("standard", *place))) for place in results]
    assert last == [1, 0, 0, 1]


def test_shown_cpu_of_an_interrupted_attempt_is_in_the_totals(path: Path) -> None:
    kill(start_owner(path))
    with closing(open_file(path)) as history:
        history.store_shown_cpu("dead", {"unit": 7.5})
        history.mark_interrupted_runs()
        history.mark_interrupted_runs()
        assert history.load_totals().counters[families.STAGE_CPU.name, ("standard", "unit")] == 7.5


def test_an_interrupted_run_counts_for_its_own_instance(path: Path) -> None:
    with closing(open_file(path, instance="one")) as history:
        keep(history, run_started("r1", stages=("unit",)), stage_started("unit", "r1"))
        history.store_shown_cpu("r1", {"unit": 7.5})
    with closing(open_file(path, instance="other")) as history:
        history.mark_interrupted_runs()
        assert history.load_totals().counters == {}
    with closing(open_file(path, instance="one")) as history:
        counters = history.load_totals().counters
    assert counters[families.RUNS.name, ("standard", "cancellation")] == 1
    assert counters[families.STAGE_CPU.name, ("standard", "unit")] == 7.5


def test_shown_cpu_is_the_sum_over_instances(path: Path) -> None:
    with closing(open_file(path, instance="one")) as one, closing(open_file(path, instance="other")) as other:
        keep(other, run_started("r1"), stage_started("unit", "r1"), task("unit", "r1", cpu=2.0))
        keep(one, run_started("r2"), stage_started("unit", "r2"), task("unit", "r2", cpu=1.0))
        one.store_shown_cpu("r2", {"unit": 5.0})
        assert one.load_shown_cpu() == {("standard", "unit"): 7.0}
        assert one.load_stage_cpu_totals() == {("standard", "unit"): 1.0}


def test_a_live_cpu_sample_above_the_final_value_causes_no_counter_reset(history: History) -> None:
    keep(history, run_started("r1"), stage_started("lint", "r1"))
    history.store_shown_cpu("r1", {"lint": 5.0})
    keep(history, task("lint", "r1", cpu=4.9), stage_ended("lint", "r1"))
    keep(history, run_started("r2"), stage_started("lint", "r2"))
    history.store_shown_cpu("r2", {"lint": 5.5})
    keep(history, task("lint", "r2", cpu=1.0), stage_ended("lint", "r2"))
    assert history.load_totals().counters[families.STAGE_CPU.name, ("standard", "lint")] == pytest.approx(6.0)


def test_a_run_of_a_live_process_is_left_alone(path: Path) -> None:
    process = start_owner(path)
    try:
        with closing(open_file(path)) as history:
            assert history.is_alive("dead")
            assert history.mark_interrupted_runs() == ()
            assert history.load_runs()[0].result is None
    finally:
        kill(process)


def test_a_run_of_this_process_is_left_alone(history: History) -> None:
    keep(history, run_started())
    assert history.mark_interrupted_runs() == ()


def test_an_interrupted_run_is_marked_once_however_many_start_together(path: Path) -> None:
    kill(start_owner(path))

    def recover_runs(_: int) -> int:
        with closing(open_file(path)) as history:
            return len(history.mark_interrupted_runs())

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(recover_runs, range(8))) == 1
    with closing(open_file(path)) as history:
        assert history.load_totals().counters[families.RUNS.name, ("standard", "cancellation")] == 1


def test_no_lock_is_left_behind_by_ended_or_recovered_runs(path: Path) -> None:
    kill(start_owner(path))
    with closing(open_file(path)) as history:
        keep(history, *whole_run("r1"))
        history.mark_interrupted_runs()
    assert list((path.parent / "runs").iterdir()) == []


def test_the_expected_duration_is_the_median_of_the_last_ten_good_runs(history: History) -> None:
    for number, seconds in enumerate([100.0, *range(1, 11)]):
        keep(history, *whole_run(f"r{number:02}", at=START + number, seconds=float(seconds)))
    assert history.load_earlier_runs("standard").seconds == {"lint": 5.5}
    assert history.load_earlier_runs("docs").seconds == {}


def test_the_cpu_demand_excludes_waits_for_a_core(history: History) -> None:
    keep(
        history,
        run_started(),
        replace(task("burns"), ended_seconds=4.0, started_seconds=0.0, cpu_seconds=1.0, run_delay_seconds=3.0),
        replace(task("waits"), ended_seconds=4.0, started_seconds=0.0, cpu_seconds=0.2, run_delay_seconds=0.0),
    )
    assert history.load_cpu_demands("standard") == {"burns": 1.0, "waits": 0.05}


@pytest.mark.parametrize(("pool", "cores"), [("threads", 1 / 7), ("processes", 1 / 7), ("commands", 65 / 95)])
def test_long_wait_of_a_call_for_a_core_is_no_demand(history: History, pool: str, cores: float) -> None:
    """The waits of a call's one thread are exact; a command may have several processes, whose waits overlap."""
    ended = replace(task("naps", seconds=0.095), pool=pool, cpu_seconds=0.005, run_delay_seconds=0.06)
    keep(history, run_started(), ended)
    assert history.load_cpu_demands("standard") == {"naps": pytest.approx(cores)}
    assert compute_demand(ended, gil_bound=False) == pytest.approx(cores)


@pytest.mark.parametrize(("seconds", "cores"), [(0.01, 1.0), (0.2, 3.0)])
def test_time_to_start_a_brief_task_is_no_demand_for_several_cores(
    history: History, seconds: float, cores: float
) -> None:
    ended = replace(task("brief", seconds=seconds), cpu_seconds=seconds, run_delay_seconds=2 * seconds)
    keep(history, run_started(), ended)
    assert history.load_cpu_demands("standard") == {"brief": pytest.approx(cores)}
    assert compute_demand(ended, gil_bound=False) == pytest.approx(cores)


def test_sql_computes_the_same_cpu_demands_as_the_engine(history: History) -> None:
    chosen = Random(1)

    def choose_times() -> tuple[float, float, float]:
        wall = chosen.choice((0.0, 0.1, 0.15, 1.0, chosen.uniform(0, 3)))
        run = chosen.choice((0.0, wall / 2, wall, chosen.uniform(0, wall), chosen.uniform(0, 4 * wall)))
        waits = (0.0, wall / 2, wall, max(0.0, wall - run), max(0.0, wall - 0.05))
        return wall, run, chosen.choice((*waits, chosen.uniform(0, wall), chosen.uniform(0, 4 * wall)))

    ended = [
        replace(
            task(f"stage {number}"), started_seconds=0.0, ended_seconds=wall, cpu_seconds=run, run_delay_seconds=wait,
            pool=chosen.choice(("commands", "processes", "threads")),
        )
        for number, (wall, run, wait) in enumerate(choose_times() for _ in range(500))
    ]  # fmt: skip
    keep(history, run_started(), *ended)
    wanted = {
        record.stage: compute_demand(record, gil_bound=False)
        for record in ended
        if record.duration_seconds and compute_alone_seconds(record, gil_bound=False)
    }
    assert history.load_cpu_demands("standard") == pytest.approx(wanted)


def test_a_stages_memory_peak_is_its_largest_tasks_without_threads(history: History) -> None:
    keep(
        history,
        run_started(),
        replace(task("tests"), task=0, pool="commands", memory_peak_bytes=300),
        replace(task("tests"), task=1, pool="commands", memory_peak_bytes=500),
        replace(task("calls"), pool="threads", memory_peak_bytes=900),
    )
    assert history.load_memory_peaks("standard") == {"tests": 500}


LANE = ("lint", "unit", "types")


def load_failed_stages(history: History) -> frozenset[str]:
    found = history.find_failures("standard", LANE)
    assert found is not None
    return found.stages


def load_failed_items(history: History) -> Mapping[str, frozenset[str]]:
    found = history.find_failures("standard", LANE)
    assert found is not None
    return found.items


def test_failed_stages_are_those_without_success_in_the_last_run(history: History) -> None:
    assert history.find_failures("standard", LANE) is None
    bad = stage_ended("unit", "r1", result=Result.TIMEOUT)
    skipped = stage_ended("types", "r1", result=Result.SKIP)
    keep(
        history,
        run_started("r1", stages=("lint", "unit", "types")),
        stage_ended("lint", "r1"),
        bad,
        skipped,
        run_ended("r1", result=Result.FAILURE, stages=(stage_ended("lint", "r1"), bad, skipped)),
    )
    assert load_failed_stages(history) == {"unit", "types"}
    good = tuple(stage_ended(name, "r2") for name in LANE)
    keep(history, run_started("r2", at=START + 60, stages=LANE), *good, run_ended("r2", at=START + 60, stages=good))
    assert load_failed_stages(history) == frozenset()


def _make_batch(run_id: str, results: dict[str, Result], **fields: object) -> TaskRecord:
    bad = any(result.bad for result in results.values())
    result = Result.FAILURE if bad else Result.SUCCESS
    items = tuple(ItemRecord(item=item, result=each, seconds=1.0) for item, each in results.items())
    return replace(task("unit", run_id), result=result, items=items, **fields)


def test_the_items_that_failed_are_those_of_the_lanes_last_run(history: History) -> None:
    for number, results in enumerate([{"a": Result.FAILURE}, {"a": Result.SUCCESS, "b": Result.FAILURE}]):
        run_id, at = f"r{number}", START + number
        keep(history, run_started(run_id, at=at), stage_started("unit", run_id), _make_batch(run_id, results))
        keep(
            history, stage_ended("unit", run_id, result=Result.FAILURE), run_ended(run_id, at=at, result=Result.FAILURE)
        )
    assert load_failed_items(history) == {"unit": frozenset({"b"})}


def test_a_stage_whose_batches_did_not_all_end_has_no_failed_items(history: History) -> None:
    keep(history, run_started(), stage_started("unit", tasks=2), _make_batch("r1", {"a": Result.FAILURE}))
    keep(history, replace(stage_ended("unit", result=Result.FAILURE), tasks=2), run_ended(result=Result.FAILURE))
    assert load_failed_items(history) == {}


def test_a_failed_item_of_a_task_for_each_item_is_known(history: History) -> None:
    good, bad = replace(task("unit"), item="a"), replace(task("unit"), task=1, item="b", result=Result.FAILURE)
    ended = replace(stage_ended("unit", result=Result.FAILURE), tasks=2)
    keep(history, run_started(), stage_started("unit", tasks=2), good, bad, ended, run_ended(result=Result.FAILURE))
    assert load_failed_items(history) == {"unit": frozenset({"b"})}


def test_a_run_of_one_stage_keeps_the_failures_of_the_others(history: History) -> None:
    bad = stage_ended("unit", "r1", result=Result.FAILURE)
    keep(history, run_started("r1", stages=LANE), stage_ended("lint", "r1"), bad, stage_ended("types", "r1"))
    keep(history, run_ended("r1", result=Result.FAILURE, stages=(bad,)))
    keep(history, replace(run_started("r2", stages=("lint",)), partial=True), stage_ended("lint", "r2"))
    keep(history, replace(run_ended("r2", at=START + 60, stages=(stage_ended("lint", "r2"),)), partial=True))
    assert load_failed_stages(history) == {"unit"}


def test_a_stage_with_arguments_neither_fails_nor_completes_anything(history: History) -> None:
    for number, (result, scope) in enumerate(
        [(Result.FAILURE, Scope.ALL), (Result.SUCCESS, Scope.ARGUMENTS), (Result.SUCCESS, Scope.ITEMS)]
    ):
        run_id = f"r{number}"
        stage = replace(stage_ended("unit", run_id, result=result), scope=scope)
        keep(history, run_started(run_id, at=START + number, stages=("unit",)), stage)
        keep(history, run_ended(run_id, at=START + number, result=result, stages=(stage,)))
        assert load_failed_stages(history) == (frozenset() if scope is Scope.ITEMS else {"unit"})


def test_a_removed_stage_is_not_a_failure(history: History) -> None:
    bad = stage_ended("old", "r1", result=Result.FAILURE)
    keep(history, run_started("r1", stages=("old",)), bad, run_ended("r1", result=Result.FAILURE, stages=(bad,)))
    assert load_failed_stages(history) == frozenset()


@pytest.mark.parametrize("scope", [Scope.ITEMS, Scope.ARGUMENTS])
def test_a_partial_stage_does_not_change_its_expected_duration(history: History, scope: Scope) -> None:
    keep(history, *whole_run("r1"))
    before = history.load_earlier_runs("standard").seconds
    part = replace(stage_ended("lint", "r2"), duration_seconds=1000.0, scope=scope)
    keep(history, run_started("r2", at=START + 60), part, run_ended("r2", at=START + 60, stages=(part,)))
    assert history.load_earlier_runs("standard").seconds == before


def test_partial_runs_do_not_change_durations_and_last_values(history: History) -> None:
    keep(history, *whole_run("r1"))
    durations, last = history.load_totals().histograms, history.load_last_values().gauges
    part = replace(stage_ended("lint", "r2"), duration_seconds=1000.0, scope=Scope.ARGUMENTS)
    partial = replace(run_ended("r2", at=START + 60, stages=(part,)), partial=True)
    keep(history, replace(run_started("r2", at=START + 60), partial=True), part, partial)
    completed = (families.RUN_LAST_COMPLETION.name, ("standard",))
    assert history.load_totals().histograms == durations
    assert history.load_last_values().gauges == {**last, completed: partial.ended_timestamp_seconds}


def test_a_stage_that_only_ever_failed_has_never_succeeded(history: History) -> None:
    good, bad = stage_ended("lint", "r1"), stage_ended("unit", "r1", result=Result.FAILURE)
    skipped = replace(stage_ended("types", "r1", result=Result.SKIP), started_timestamp_seconds=None)
    keep(history, run_started("r1", stages=LANE), good, bad, skipped, run_ended("r1", result=Result.FAILURE))
    assert history.find_never_succeeded("standard") == {"unit"}


def test_stage_without_items_in_a_failed_run_is_no_failure(history: History) -> None:
    """`items: {changed: ...}` has none in most runs, and `--failed` ran it again and again."""
    good, bad = stage_ended("lint", "r1"), stage_ended("unit", "r1", result=Result.FAILURE)
    skipped = stage_ended("types", "r1", result=Result.SKIP)
    empty = replace(skipped, message="no items: no changed file matches **/*.py")
    keep(history, run_started("r1", stages=LANE), good, bad, empty, run_ended("r1", result=Result.FAILURE))
    found = history.find_failures("standard", LANE)
    assert found is not None
    assert (found.stages, found.succeeded) == (frozenset({"unit"}), ("lint", "types"))
    keep(history, run_started("r2", stages=LANE), *(replace(each, run_id="r2") for each in (good, bad, skipped)))
    keep(history, run_ended("r2", result=Result.FAILURE))
    assert history.find_failures("standard", LANE).stages == {"unit", "types"}  # type: ignore[union-attr]


def test_stage_with_one_failing_item_of_many_has_an_expected_duration(history: History) -> None:
    results = {f"test_{n}.py": Result.FAILURE if n == 0 else Result.SUCCESS for n in range(34)}
    items = tuple(ItemRecord(item=item, result=result, seconds=0.1) for item, result in results.items())
    failed = replace(task("unit", "r1"), result=Result.FAILURE, items=items)
    ended = replace(stage_ended("unit", "r1", result=Result.FAILURE), duration_seconds=7.0)
    keep(history, run_started("r1", stages=("unit",)), failed, ended, run_ended("r1", result=Result.FAILURE))
    assert history.load_earlier_runs("standard").seconds == {"unit": 7.0}


def test_stage_with_one_failing_task_of_many_has_an_expected_duration(history: History) -> None:
    ended = replace(stage_ended("unit", "r1", result=Result.FAILURE), duration_seconds=7.0, tasks=9, tasks_failed=1)
    keep(history, run_started("r1", stages=("unit",)), ended, run_ended("r1", result=Result.FAILURE))
    assert history.load_earlier_runs("standard").seconds == {"unit": 7.0}


def test_stage_that_failed_as_a_whole_has_no_expected_duration(history: History) -> None:
    ended = replace(stage_ended("unit", "r1", result=Result.FAILURE), duration_seconds=7.0, tasks=1, tasks_failed=1)
    keep(history, run_started("r1", stages=("unit",)), ended, run_ended("r1", result=Result.FAILURE))
    earlier = history.load_earlier_runs("standard")
    assert (earlier.seconds, earlier.failure_seconds) == ({}, {"unit": 7.0})
    keep(history, run_started("r2", stages=("unit",)), stage_ended("unit", "r2"), run_ended("r2"))
    assert history.load_earlier_runs("standard").failure_seconds == {}


def test_item_durations_are_stored_and_deleted_with_the_tests_of_a_file(history: History) -> None:
    long = ItemRecord(item="a.py", result=Result.SUCCESS, seconds=1.0, long_tests=(("a.py::test_x", 4.0),))
    whole = ItemRecord(item="a.py", result=Result.SUCCESS, seconds=5.0)
    keep(history, run_started(), replace(task("unit"), items=(long,), start_up_seconds=0.5))
    known = history.load_earlier_runs("standard").items["unit"]
    assert (known.seconds, known.start_up_seconds) == ({"a.py": 1.0, "a.py::test_x": 4.0}, 0.5)
    keep(history, replace(task("unit"), task=1, items=(whole,), start_up_seconds=0.5))
    known = history.load_earlier_runs("standard").items["unit"]
    assert known.seconds == {"a.py": 5.0}  # no mean with a time without the test


def test_durations_of_a_file_and_its_long_tests_are_means_of_several_runs(history: History) -> None:
    def keep_times(number: int, rest: float, **tests: float) -> None:
        long = tuple((f"a.py::{name}", seconds) for name, seconds in tests.items())
        item = ItemRecord(item="a.py", result=Result.SUCCESS, seconds=rest, long_tests=long)
        keep(history, replace(task("unit"), task=number, items=(item,), start_up_seconds=0.5))

    keep(history, run_started())
    keep_times(0, 1.0, x=4.0)
    keep_times(1, 3.0, x=8.0)
    assert history.load_earlier_runs("standard").items["unit"].seconds == {"a.py": 2.0, "a.py::x": 6.0}
    keep_times(2, 1.0, x=6.0, y=1.0)
    assert history.load_earlier_runs("standard").items["unit"].seconds == {"a.py": 1.0, "a.py::x": 6.0, "a.py::y": 1.0}


def test_a_retried_task_counts_once_by_its_last_attempt(history: History) -> None:
    keep(
        history,
        run_started("r1"),
        stage_started("lint", "r1"),
        task("lint", "r1", result=Result.FAILURE, final=False, output="boom"),
        task("lint", "r1", attempt=2),
        stage_ended("lint", "r1"),
        run_ended("r1"),
    )
    (run,) = history.load_runs()
    assert (run.total_tasks, run.completed_tasks, run.failed_tasks) == (1, 1, 0)


def test_tasks_of_a_skipped_stage_are_not_among_those_of_the_run(history: History) -> None:
    skipped = stage_ended("tests", "r1", result=Result.SKIP)
    keep(history, run_started("r1"), task("lint", "r1"), stage_ended("lint", "r1"), skipped, run_ended("r1"))
    (run,) = history.load_runs()
    assert run.total_tasks == 1


def test_throughput_below_four_fifths_of_the_average_is_degraded(history: History) -> None:
    keep(history, *whole_run("r1", seconds=2.0))
    assert history.compute_trend("standard") is None
    keep(history, *whole_run("r2", at=START + 60, seconds=2.0), *whole_run("r3", at=START + 120, seconds=2.4))
    trend = history.compute_trend("standard")
    assert trend is not None
    assert (trend.average, trend.earlier_runs, trend.degraded) == (0.5, 2, False)
    keep(history, *whole_run("r4", at=START + 180, seconds=4.0))
    slower = history.compute_trend("standard")
    assert slower is not None
    assert slower.degraded


def test_run_that_lost_less_than_a_second_is_not_degraded(history: History) -> None:
    """Two runs of 0.1 s may well differ by half of it."""
    keep(history, *whole_run("r1", seconds=0.5), *whole_run("r2", at=START + 60, seconds=1.4))
    trend = history.compute_trend("standard")
    assert trend is not None
    assert (trend.latest < trend.average / 2, trend.degraded) == (True, False)


def test_failed_last_run_is_not_degraded(history: History) -> None:
    """It completed fewer tasks in the same time, which says nothing about the speed of the lane."""
    for number, result in enumerate([Result.SUCCESS, Result.SUCCESS, Result.FAILURE]):
        run_id, at = f"r{number}", START + 60 * number
        lint, unit = stage_ended("lint", run_id), stage_ended("unit", run_id, result=result)
        keep(history, run_started(run_id, stages=("lint", "unit"), at=at), task("lint", run_id))
        keep(history, task("unit", run_id, result=result), lint, unit)
        keep(history, run_ended(run_id, result=result, stages=(lint, unit), at=at))
    trend = history.compute_trend("standard")
    assert trend is not None
    assert (trend.earlier_runs, trend.latest == trend.average, trend.degraded) == (1, True, False)


@pytest.mark.parametrize("failed_only", [True, False])
def test_run_of_failed_stages_only_does_not_count_in_the_trend(history: History, failed_only: bool) -> None:
    """A lane without the stage that failed counts: it was removed from the config."""
    whole = ("lint", "unit")
    for number, (stages, result) in enumerate(
        [(whole, Result.SUCCESS), (whole, Result.SUCCESS), (whole, Result.FAILURE), (("unit",), Result.SUCCESS)]
    ):
        ended = tuple(stage_ended(stage, f"r{number}", result=result) for stage in stages)
        keep(history, run_started(f"r{number}", stages=stages, at=START + number), *ended)
        run = run_ended(f"r{number}", result=result, stages=ended, at=START + number)
        keep(history, replace(run, failed_only=failed_only and stages != whole))
    trend = history.compute_trend("standard")
    assert trend is not None
    assert trend.earlier_runs == (1 if failed_only else 2)


def test_run_whose_records_were_lost_does_not_count_in_the_trend(history: History) -> None:
    """After a full disk `history` said "degraded: standard is at 0% of its average"."""
    keep(history, *whole_run("r1"), *whole_run("r2", at=START + 60))
    lint = stage_ended("lint", "r3")
    keep(history, run_started("r3", stages=("lint",)), run_ended("r3", stages=(lint,)))
    trend = history.compute_trend("standard")
    assert trend is not None
    assert (trend.earlier_runs, trend.degraded) == (1, False)


def test_a_run_is_found_by_an_unambiguous_beginning_of_its_id(history: History) -> None:
    keep(history, *whole_run("20260101-aa"), *whole_run("20260102-bb"))
    found = history.find_run("20260102")
    assert found is not None
    assert found.run_id == "20260102-bb"
    assert history.find_run("2026") is None


@pytest.mark.parametrize("content", [b"this is no database, but it is long enough to be one" * 100, b"short"])
def test_a_foreign_file_is_refused_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=r"notes\.txt: not a database; choose another file"):
        open_file(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"this is no database, but it is long enough to be one" * 100, b"short"])
def test_a_damaged_history_is_set_aside_and_a_new_one_created(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with closing(open_file(path)) as history:
        keep(history, *whole_run("r1"))
        assert [run.run_id for run in history.load_runs()] == ["r1"]
    (kept,) = path.parent.glob("history.db.corrupt-*Z")
    assert kept.read_bytes() == content
    (warning,) = caplog.records
    assert warning.__dict__["kept"] == str(kept)


def test_a_damaged_schema_is_set_aside_whatever_its_bytes(path: Path) -> None:
    """SQLite quotes it, and an error whose message is not UTF-8 was an internal error: nothing ran."""
    open_file(path).close()
    content = path.read_bytes()
    place = content.index(b"CREATE TABLE") + len(b"CREATE ")
    path.write_bytes(content[:place] + b"\xbf" + content[place + 1 :])
    with pytest.raises(HistoryError, match=r"damaged \(malformed database schema\); the next run sets it aside"):
        History(path, project="demo", clock=StillClock(), for_reading=True)
    with closing(open_file(path)) as history:
        keep(history, *whole_run("r1"))
        assert [run.run_id for run in history.load_runs()] == ["r1"]
    assert len([*path.parent.glob("history.db.corrupt-*Z")]) == 1


def damage_pages(path: Path) -> None:
    """Overwrite all but the first page, which has the schema: the file opens, but queries fail."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def test_damage_found_by_a_read_loses_only_past_runs(path: Path) -> None:
    with closing(open_file(path)) as history:
        keep(history, *whole_run("r1"))
    damage_pages(path)
    with closing(open_file(path)) as history:
        assert history.mark_interrupted_runs() == ()
        assert history.load_totals().counters == {}
        keep(history, *whole_run("r2"))
        assert [run.run_id for run in history.load_runs()] == ["r2"]
    assert len([*path.parent.glob("history.db.corrupt-*Z")]) == 1


def test_damage_found_by_a_write_loses_only_past_runs(path: Path) -> None:
    open_file(path).close()
    with closing(open_file(path)) as history:
        damage_pages(path)
        keep(history, *whole_run("r1"))
        assert [run.run_id for run in history.load_runs()] == ["r1"]


def damage_first_task(path: Path, run_id: str) -> None:
    """Overwrite the page with the first tasks of a run, which has more pages of tasks."""
    content = bytearray(path.read_bytes())
    place = content.index(f"first task of {run_id}".encode()) // 4096 * 4096
    content[place : place + 4096] = b"\xff" * 4096
    path.write_bytes(content)


@pytest.mark.parametrize("is_set_aside", [True, False])
def test_damage_found_while_pruning_defers_no_record(path: Path, *, is_set_aside: bool) -> None:
    first, *rest = whole_run("r1", tasks=200)
    with closing(open_file(path, keep_runs=1)) as history:
        keep(history, first, replace(task(number=-1), message="first task of r1"), *rest)
    damage_first_task(path, "r1")
    with closing(open_file(path, keep_runs=1)) as history:
        keep(history, *whole_run("r2")[:-1])
        if not is_set_aside:
            path.with_name("history.db.lock").unlink()
            path.with_name("history.db.lock").mkdir()  # as in a read-only folder
        keep(history, whole_run("r2")[-1])
        assert (history.broken, history.dropped) == (None, 0)
        runs = 0 if is_set_aside else 2
        assert history.load_totals().counters.get((families.RUNS.name, ("standard", "success")), 0) == runs
    assert len([*path.parent.glob("history.db.corrupt-*Z")]) == is_set_aside


def test_one_of_several_processes_sets_a_damaged_file_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"garbage" * 1000)

    def work(number: int) -> None:
        with closing(open_file(path)) as history:
            keep(history, *whole_run(f"r{number}", at=START + number))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    with closing(open_file(path)) as history:
        assert len(history.load_runs()) == 8
    assert len([*path.parent.glob("history.db.corrupt-*Z")]) == 1


def test_a_second_damaged_history_in_one_second_gets_another_name(path: Path) -> None:
    path.parent.mkdir()
    for content in (b"first" * 1000, b"second" * 1000):
        path.write_bytes(content)
        open_file(path).close()
        path.unlink()
    assert {kept.read_bytes()[:5] for kept in path.parent.glob("history.db.corrupt-*")} == {b"first", b"secon"}


def test_the_run_goes_on_if_a_damaged_history_can_not_be_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"garbage" * 1000)
    path.with_name("history.db.lock").mkdir()  # simulates a read-only folder, since root may write anywhere
    with closing(open_file(path)) as history:
        assert history.broken is not None
        history.observe(run_started())
        assert history.dropped == 1


def test_a_history_deleted_during_a_run_is_restored(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, *rest = whole_run("r2", at=START + 60)
    with closing(open_file(path)) as history:
        keep(history, *whole_run("r1"), first)
        shutil.rmtree(path.parent)
        keep(history, *rest)
        assert (history.broken, history.dropped) == (None, 0)
    with closing(open_file(path)) as history:
        assert [(run.run_id, run.result) for run in history.load_runs()] == [
            ("r1", Result.SUCCESS),
            ("r2", Result.SUCCESS),
        ]
        assert history.load_totals().counters[families.RUNS.name, ("standard", "success")] == 2
    assert [record.getMessage() for record in caplog.records] == [
        "the history was deleted or replaced while in use: continuing at the same path"
    ]
    assert sorted(left.name for left in path.parent.iterdir()) == [
        ".gitignore",
        "history.db",
        "history.db.lock",
        "runs",
    ]


def test_a_run_whose_lock_file_was_deleted_still_counts_as_alive(path: Path) -> None:
    with closing(open_file(path)) as history, closing(open_file(path)) as other:
        keep(history, run_started("r1"))
        shutil.rmtree(path.parent)
        keep(history, stage_started("lint", "r1"))
        keep(other, run_started("r2"))
        assert other.is_alive("r1")
        assert {run.run_id for run in other.load_runs()} == {"r1", "r2"}


def test_a_history_whose_removal_was_seen_halfway_stays_whole(path: Path) -> None:
    """`rm -rf .paropt` removes one file after another, and runs go on meanwhile: their history was damaged."""
    with closing(open_file(path)) as history:
        for number in range(100):
            keep(history, *whole_run(f"a{number}"))
    first, *rest = whole_run("r1", tasks=50)
    with closing(open_file(path)) as history:
        keep(history, first)
        path.unlink()
        with other_process(path) as keep_there:
            keep_there("r2")
            keep(history, *rest)
            keep_there("r3")
        keep(history, *whole_run("r4", at=START + 180))
    assert list_sound_runs(path) == ["r1", "r2", "r3", "r4"]


def test_a_history_whose_log_was_deleted_is_restored(path: Path) -> None:
    first, *rest = whole_run("r2", at=START + 60)
    with closing(open_file(path)) as history, closing(open_file(path)) as other:
        keep(history, *whole_run("r1"), first)
        for part in ("-wal", "-shm"):
            path.with_name(path.name + part).unlink()
        keep(history, *rest)
        keep(other, *whole_run("r3", at=START + 120))
        with closing(open_file(path)) as third:
            keep(third, *whole_run("r4", at=START + 180))
        keep(history, *whole_run("r5", at=START + 240))
    assert list_sound_runs(path) == ["r1", "r2", "r3", "r4", "r5"]


def test_a_history_that_is_replaced_while_it_is_opened_is_opened_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite opens the log after the file, by its name: the run wrote into the log of another file."""
    with closing(open_file(path)) as history:
        for number in range(100):
            keep(history, *whole_run(f"a{number}"))
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    with ExitStack() as stack:
        others = list[Callable[[str], None]]()

        def connect_before_the_folder_is_replaced(*arguments: Any, **keywords: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **keywords)
            monkeypatch.undo()
            path.parent.rename(tmp_path / "old")
            with closing(open_file(path)) as first:
                for number in range(100):
                    keep(first, *whole_run(f"b{number}"))
            others.append(stack.enter_context(other_process(path)))
            others[0]("r2")
            return connection

        monkeypatch.setattr(sqlite3, "connect", connect_before_the_folder_is_replaced)
        with closing(open_file(path)) as history:
            assert len(history.load_runs(limit=1000)) == 101
            keep(history, *whole_run("r3", at=START + 60))
        others[0]("r4")
    assert list_sound_runs(path)[100:] == ["r2", "r3", "r4"]
    assert len(list_sound_runs(tmp_path / "old" / path.name)) == 100


def test_a_history_that_was_deleted_while_it_was_opened_is_restored(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_file(path)) as history:
        keep(history, *whole_run("r1"))
    identify_files = repair.identify_files

    def delete_first(path: Path) -> repair.Identities:
        monkeypatch.undo()
        shutil.rmtree(path.parent)
        return identify_files(path)

    monkeypatch.setattr(repair, "identify_files", delete_first)
    with closing(open_file(path)) as history:
        keep(history, *whole_run("r2", at=START + 60))
    assert list_sound_runs(path) == ["r2"]


@contextmanager
def other_process(path: Path) -> Iterator[Callable[[str], None]]:
    """Open the history in another process; provide a function that keeps a run with this id there."""
    script = "from history.test_history import keep_runs; keep_runs()"
    with start_python(script, path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def keep_there(run_id: str) -> None:
            stdin.write(f"{run_id}\n")
            stdin.flush()
            assert stdout.readline() == f"{run_id}\n"

        yield keep_there
        stdin.close()
        assert process.wait(60) == 0


def keep_runs() -> None:
    with closing(open_file(Path(sys.argv[1]))) as history:
        for line in sys.stdin:
            keep(history, *whole_run(line.strip()))
            print(line, end="", flush=True)


def list_sound_runs(path: Path) -> list[str]:
    """Return the ids of the runs of a history, which is checked."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [run_id for (run_id,) in connection.execute("SELECT run_id FROM runs ORDER BY run_id")]


def test_files_of_an_exporter_that_was_killed_while_it_made_the_history_are_removed(path: Path) -> None:
    path.parent.mkdir()
    for name in (".history.db.4711-0123abcd", ".history.db.4711-0123abcd-journal", ".history.db.mine"):
        path.with_name(name).touch()
    with closing(open_file(path)) as history:
        keep(history, *whole_run("r1"))
    assert [file.name for file in path.parent.glob(".history.db.*")] == [".history.db.mine"]


def test_the_run_goes_on_if_the_folder_can_not_be_restored(path: Path) -> None:
    with closing(open_file(path)) as history:
        keep(history, run_started("r1"))
        shutil.rmtree(path.parent)
        path.parent.write_text("a file in its place")
        history.observe(stage_started("lint", "r1"))
        history.observe(stage_ended("lint", "r1"))
        assert history.broken is not None
        assert history.dropped == 2


def test_a_newer_history_in_place_of_ours_is_left_alone(path: Path) -> None:
    with closing(open_file(path)) as history:
        keep(history, run_started("r1"))
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as newer:
            newer.execute("PRAGMA user_version = 99")
        history.observe(stage_started("lint", "r1"))
        assert "newer paropt-exporter" in str(history.broken)
        assert history.load_runs()[0].run_id == "r1"


def test_a_directory_in_the_files_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(HistoryError, match="not a regular file"):
        open_file(path)


def test_a_foreign_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(HistoryError, match="not a run history"):
        open_file(path)


def test_a_full_disk_is_reported_once_and_the_run_goes_on(
    history: History, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep(history, *whole_run("r1"))
    with closing(sqlite3.connect(path)) as connection:  # simulates a full disk
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON runs BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
    for event in whole_run("r2", at=START + 60):
        history.observe(event)
    assert history.broken is not None
    assert "disk is full" in history.broken
    assert len(caplog.records) == 1
    assert [run.run_id for run in history.load_runs()] == ["r1"]


def test_a_history_that_another_process_has_locked_names_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message named the disk's space and the folder's permissions, which were right."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.0)
    with closing(open_file(path)) as history, closing(sqlite3.connect(path, isolation_level=None)) as stopped:
        stopped.execute("BEGIN IMMEDIATE")
        history.observe(run_started("r1"))
        assert history.broken == (
            f"history {path}: database is locked; a stopped or hanging process has locked it: "
            "continue or end that, or choose another place (history: {path: FILE})"
        )


def test_after_a_failure_the_next_run_is_stored(history: History, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON tasks BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
        for event in whole_run("r1"):
            history.observe(event)
        connection.execute("DROP TRIGGER full")
    for event in whole_run("r2", at=START + 60):
        history.observe(event)
    assert [(run.run_id, run.completed_tasks) for run in history.load_runs()] == [("r1", 0), ("r2", 1)]
    assert history.broken is None


def test_an_unwritable_history_is_kept_in_memory_and_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with closing(open_file(tmp_path / "file" / "history.db")) as history:
        assert history.broken is not None
        for event in whole_run("r1"):
            history.observe(event)
        assert history.load_totals().counters[families.RUNS.name, ("standard", "success")] == 1


def test_totals_are_read_from_a_file_that_can_not_grow(path: Path) -> None:
    with closing(open_file(path)) as history:
        keep(history, *whole_run("r1"))
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from paropt_exporter.clock import SystemClock; from paropt_exporter.history import History\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "history = History(Path(sys.argv[1]), project='shop', clock=SystemClock())\n"
        "print(len(history.load_totals().counters) > 0, history.broken is not None)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "exporter")}
    ran = run_python(script, str(path), env=environment)
    assert ran.stdout == "True True\n", ran.stderr
    assert ran.stderr.count("cannot write the history") == 1


def test_every_upsert_names_its_key() -> None:
    """SQLite knows `ON CONFLICT DO UPDATE` without columns since 3.35 only: RHEL 9 and Debian 11 have 3.34."""
    folder = Path(families.__file__).parent / "history"
    found = re.findall(r"ON CONFLICT.*", "".join(path.read_text() for path in sorted(folder.glob("*.py"))))
    assert found
    assert [clause for clause in found if not clause.startswith("ON CONFLICT (")] == []
