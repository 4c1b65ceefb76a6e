"""A scrape shows lanes, stages, pools and the host."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

from paropt_exporter import families
from paropt_exporter.aggregation import HistogramTotal, LastValues, Totals
from paropt_exporter.events import (
    CacheReason,
    ControlView,
    Decision,
    LiveStage,
    PoolControl,
    PoolStatistics,
    QueryCounts,
    Result,
    Scope,
)
from paropt_exporter.families import Family, Kind
from paropt_exporter.metrics import LaneLabels, LastReload, Metrics, Snapshot, StageLabels, client
from paropt_exporter.metrics.event_state import EventState
from paropt_exporter.metrics.metrics import read_revision
from paropt_exporter.metrics.page import Page
from paropt_exporter.metrics.samples import SCRAPE_FAMILIES
from support import golden, projects
from support.event_samples import LIMIT, START, limit_reached, run_ended, run_started, stage_ended, stage_started, task
from support.metric_pages import render_page
from support.processes import read_printed
from support.repositories import Repository

OWN_FAMILIES = [family for family in families.FAMILIES if family not in families.SERVE_FAMILIES]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LINT = {"lane": "standard", "stage": "lint"}
LANE = LaneLabels(
    lane="standard",
    total=LIMIT,
    interval_seconds=600.0,
    stages=(
        StageLabels(name="lint", number=2, pool="commands", sla=LIMIT, cached=True),
        StageLabels(name="unit", number=4, pool="threads"),
    ),
)
POOL = PoolStatistics(
    name="commands",
    target=4,
    live=4,
    busy=2,
    idle=1,
    starting=0,
    draining=1,
    queued=3,
    oldest_queued_age_seconds=1.5,
    submitted=10,
    busy_seconds=12.25,
    slot_seconds=20.5,
    cpu_seconds=8.0,
    run_delay_seconds=0.5,
    epoch_timestamp_seconds=START + 0.123456,
    finished={"success": 4, "failure": 1},
    resizes={("up", "demand"): 2},
    deaths={"signal": 1},
)

CONTROL = ControlView(
    pools=(
        PoolControl(pool="commands", mode="act", source="both", floor=2, ceiling=8, recommended_size=4, flapping=True),
    ),
    queries=QueryCounts(buckets=(1,) * 24, seconds=3.5, errors={"timeout": 2}),
)

parse_openmetrics: Callable[[str], Iterable[Metric]] = openmetrics_parser.text_string_to_metric_families


class FakeRun:
    """A run whose live stages the test sets."""

    def __init__(self) -> None:
        self.stages: tuple[LiveStage, ...] = ()
        self.predicted_seconds: float | None = None

    def read_snapshot(self) -> Snapshot:
        return Snapshot(live=self.stages)

    def run_lint(self, *, cpu: float, memory: int = 0, elapsed: float = 0.0, tasks_running: int = 1) -> None:
        self.stages = (
            LiveStage(
                lane="standard",
                stage="lint",
                tasks=1,
                tasks_ended=0,
                started_timestamp_seconds=START,
                cpu_seconds=cpu,
                memory_bytes=memory,
                tasks_running=tasks_running,
                sla=LIMIT,
                predicted_seconds=self.predicted_seconds,
                elapsed_seconds=elapsed,
            ),
        )


def make_metrics(**arguments: object) -> Metrics:
    return Metrics(project="shop", lanes=(LANE,), **arguments)  # type: ignore[arg-type]  # each test names its own


def read_value(metrics: Metrics, family: Family, **labels: str) -> float | None:
    page = _page(metrics)
    wanted = {"project": "shop", **labels}
    samples = [sample for parsed in parse_text(page) for sample in parsed.samples if sample.name == family.name]
    return next((sample.value for sample in samples if sample.labels == wanted), None)


def read_count(metrics: Metrics, family: Family, **labels: str) -> float | None:
    found = [s for f in parse_text(_page(metrics)) for s in f.samples if s.name == f"{family.name}_count"]
    return next((sample.value for sample in found if sample.labels == {"project": "shop", **labels}), None)


def make_populated(live: Callable[[], tuple[LiveStage, ...]] = tuple, **arguments: object) -> Metrics:
    metrics = make_metrics(
        read_snapshot=lambda: Snapshot(
            pools=(POOL,),
            failing_deliveries={"textfile": True},
            live=live(),
            backlogs={"commands": (2, 4.0)},
            dropped={"history": 0},
            control=CONTROL,
            web_config_successful=True,
            last_reload=LastReload(success_timestamp_seconds=1_700_000_000.0),
        ),
        bounds={"commands": (1, 8)},
        revision="abc",
        **arguments,
    )
    run_lint = stage_ended(seconds=31.0, broken=True)
    for event in (
        run_started(),
        stage_started(),
        task(seconds=31.0),
        limit_reached(broken=False),
        limit_reached(broken=True),
        run_lint,
        stage_started("unit", tasks=2, sla=None),
        task("unit", cpu=0.0),
    ):
        metrics.observe(event)
    return metrics


def test_counters_histograms_and_flags_of_the_config_are_zero_from_the_first_scrape() -> None:
    metrics = make_metrics()
    assert read_value(metrics, families.RUNS, lane="standard", result="failure") == 0
    assert read_value(metrics, families.STAGE_RUNS, **LINT, result="timeout") == 0
    assert read_value(metrics, families.STAGE_LAST_RESULT, **LINT, result="success") == 0
    assert read_value(metrics, families.SLA_VIOLATIONS, **LINT, severity="critical") == 0
    assert read_value(metrics, families.BOTTLENECK, **LINT, kind="gil_bound") == 0
    assert read_value(metrics, families.STAGE_CPU, **LINT) == 0
    assert read_count(metrics, families.TASK_QUEUE_WAIT, **LINT) == 0


def test_timestamps_and_last_values_are_absent_until_they_are_known() -> None:
    metrics = make_metrics()
    for family in (families.RUN_LAST_SUCCESS, families.RUN_LAST_COMPLETION):
        assert read_value(metrics, family, lane="standard") is None
    for family in (families.STAGE_LAST_DURATION, families.STAGE_MEMORY_PEAK, families.SLA_DEADLINE):
        assert read_value(metrics, family, **LINT) is None


def test_limits_and_the_interval_come_from_the_config() -> None:
    metrics = make_metrics()
    assert read_value(metrics, families.SLA_LIMIT, **LINT) == 30
    assert read_value(metrics, families.SLA_WARNING, **LINT) == 24
    assert read_value(metrics, families.LANE_SLA_LIMIT, lane="standard") == 30
    assert read_value(metrics, families.RUN_INTERVAL, lane="standard") == 600
    assert read_value(metrics, families.STAGE_INFO, **LINT, number="2", pool="commands") == 1


def test_a_stage_without_a_limit_has_no_sla_families() -> None:
    metrics = make_metrics()
    assert read_value(metrics, families.SLA_CHECKS, lane="standard", stage="unit") is None
    assert read_value(metrics, families.SLA_LIMIT, lane="standard", stage="unit") is None


def test_stage_without_a_limit_has_none_after_its_run_either() -> None:
    metrics = make_metrics()
    for event in (stage_started("unit", sla=None), stage_ended("unit", sla=None)):
        metrics.observe(event)
    assert read_value(metrics, families.STAGE_RUNS, lane="standard", stage="unit", result="success") == 1
    assert 'paropt_sla_breached{lane="standard",project="shop",severity="normal",stage="unit"}' not in _page(metrics)


def test_limit_that_was_removed_does_not_come_back_from_history() -> None:
    """The counters and the flag of a former limit would stay as they are, and an alert on the flag would never end."""
    unit = ("standard", "unit")
    totals = Totals(counters={(families.SLA_CHECKS.name, unit): 7.0})
    last = LastValues(gauges={(families.SLA_BREACHED.name, (*unit, "normal")): 1.0})
    page = _page(make_metrics(totals=totals, last=last))
    assert [line for line in page.splitlines() if line.startswith("paropt_sla_") and 'stage="unit"' in line] == []


def test_stage_whose_limit_is_removed_between_two_runs_has_none_in_the_next() -> None:
    metrics = make_metrics()
    reconfigured(metrics, StageLabels(name="lint", number=2, pool="commands"))
    metrics.observe(stage_ended(sla=None))
    assert "paropt_sla_breached{" not in _page(metrics)


def test_a_run_has_the_time_of_its_start_while_it_is_in_progress() -> None:
    metrics = make_metrics()
    metrics.observe(run_started())
    assert read_value(metrics, families.RUN_STARTED, lane="standard") == START
    metrics.observe(run_ended())
    assert read_value(metrics, families.RUN_STARTED, lane="standard") is None


def test_a_stage_is_running_with_a_start_and_a_deadline_from_its_start_to_its_end() -> None:
    metrics = make_metrics()
    metrics.observe(stage_started())
    assert read_value(metrics, families.STAGE_RUNNING, **LINT) == 1
    assert read_value(metrics, families.STAGE_STARTED, **LINT) == START
    assert read_value(metrics, families.SLA_DEADLINE, **LINT) == START + 30
    metrics.observe(stage_ended())
    assert read_value(metrics, families.STAGE_RUNNING, **LINT) == 0
    assert read_value(metrics, families.STAGE_STARTED, **LINT) is None
    assert read_value(metrics, families.SLA_DEADLINE, **LINT) is None


def test_progress_counts_final_attempts_and_restarts_with_the_next_run() -> None:
    metrics = make_metrics()
    for event in (run_started(), stage_started(tasks=2), task(final=False, result=Result.FAILURE), task(attempt=2)):
        metrics.observe(event)
    assert read_value(metrics, families.STAGE_PROGRESS, **LINT) == 0.5
    metrics.observe(run_started("r2"))
    assert read_value(metrics, families.STAGE_PROGRESS, **LINT) == 0


def test_cached_tasks_count_as_progress_before_their_stage_starts() -> None:
    metrics = make_metrics()
    for event in (run_started(), replace(task(), scope=Scope.CACHED), stage_started(tasks=2)):
        metrics.observe(event)
    assert read_value(metrics, families.STAGE_PROGRESS, **LINT) == 0.5
    metrics.observe(task())
    assert read_value(metrics, families.STAGE_PROGRESS, **LINT) == 1


def test_a_stage_of_cached_tasks_only_is_done() -> None:
    metrics = make_metrics()
    for event in (run_started(), replace(task(), scope=Scope.CACHED), replace(stage_ended(), tasks=1, tasks_cached=1)):
        metrics.observe(event)
    assert read_value(metrics, families.STAGE_PROGRESS, **LINT) == 1


def test_a_lane_is_in_progress_from_its_start_to_its_end() -> None:
    metrics = make_metrics()
    metrics.observe(run_started())
    assert read_value(metrics, families.RUN_IN_PROGRESS, lane="standard") == 1
    metrics.observe(run_ended())
    assert read_value(metrics, families.RUN_IN_PROGRESS, lane="standard") == 0
    assert read_value(metrics, families.RUN_LAST_SUCCESS, lane="standard") == START + 4


def test_a_breach_shows_while_the_stage_still_runs_and_until_its_next_good_run() -> None:
    metrics = make_metrics()
    for event in (stage_started(), limit_reached(broken=False), limit_reached(broken=True)):
        metrics.observe(event)
    assert read_value(metrics, families.SLA_BREACHED, **LINT, severity="normal") == 1
    metrics.observe(stage_ended(broken=True))
    metrics.observe(stage_started(run_id="r2"))
    assert read_value(metrics, families.SLA_BREACHED, **LINT, severity="normal") == 1
    metrics.observe(stage_ended(run_id="r2"))
    assert read_value(metrics, families.SLA_BREACHED, **LINT, severity="normal") == 0
    assert read_value(metrics, families.SLA_WARNINGS, **LINT) == 1
    assert read_value(metrics, families.SLA_VIOLATIONS, **LINT, severity="normal") == 1
    assert read_value(metrics, families.SLA_CHECKS, **LINT) == 2


def test_cpu_time_counts_running_tasks_up_to_the_scrape() -> None:
    running = FakeRun()
    metrics = make_metrics(read_snapshot=running.read_snapshot)
    metrics.observe(task(cpu=2.0))
    running.run_lint(cpu=0.75)
    assert read_value(metrics, families.STAGE_CPU, **LINT) == 2.75
    running.stages = ()
    metrics.observe(task(cpu=1.0))
    assert read_value(metrics, families.STAGE_CPU, **LINT) == 3.0


def test_cpu_time_never_goes_down_when_a_task_ends_between_two_scrapes() -> None:
    running = FakeRun()
    metrics = make_metrics(read_snapshot=running.read_snapshot)
    running.run_lint(cpu=5.0)
    assert read_value(metrics, families.STAGE_CPU, **LINT) == 5.0
    running.stages = ()  # it has ended, but its record has not arrived
    assert read_value(metrics, families.STAGE_CPU, **LINT) == 5.0
    metrics.observe(task(cpu=4.9))  # the last sample was slightly too high
    assert read_value(metrics, families.STAGE_CPU, **LINT) == 5.0
    metrics.observe(task(cpu=1.0))
    assert read_value(metrics, families.STAGE_CPU, **LINT) == pytest.approx(5.9)


def test_cpu_time_counts_a_task_once_that_ends_during_a_scrape() -> None:
    running = FakeRun()

    def read_snapshot() -> Snapshot:
        snapshot = running.read_snapshot()
        if running.stages:
            running.stages = ()
            metrics.observe(task(cpu=5.0))
        return snapshot

    metrics = make_metrics(read_snapshot=read_snapshot)
    running.run_lint(cpu=5.0)
    assert read_value(metrics, families.STAGE_CPU, **LINT) == 5.0
    assert read_value(metrics, families.STAGE_CPU, **LINT) == 5.0


def test_the_cpu_of_running_stages_is_stored_before_it_is_shown() -> None:
    running = FakeRun()
    kept: list[Mapping[str, float]] = []
    metrics = make_metrics(read_snapshot=running.read_snapshot, on_cpu_shown=kept.append)
    metrics.observe(task(cpu=2.0))
    running.run_lint(cpu=0.75)
    render_page(metrics)
    assert kept == [{"lint": 2.75}]


def test_the_memory_peak_rises_with_a_running_stage_and_is_the_runs_own_at_its_end() -> None:
    running = FakeRun()
    metrics = make_metrics(read_snapshot=running.read_snapshot)
    metrics.observe(stage_ended(memory=100))
    running.run_lint(cpu=0.0, memory=70)
    assert read_value(metrics, families.STAGE_MEMORY_PEAK, **LINT) == 100
    running.run_lint(cpu=0.0, memory=130)
    assert read_value(metrics, families.STAGE_MEMORY_PEAK, **LINT) == 130
    running.stages = ()
    metrics.observe(stage_ended(memory=90))
    assert read_value(metrics, families.STAGE_MEMORY_PEAK, **LINT) == 90


def test_memory_of_a_stage_without_a_final_measurement_is_removed() -> None:
    running = FakeRun()
    metrics = make_metrics(read_snapshot=running.read_snapshot)
    running.run_lint(cpu=0.0, memory=130)
    assert read_value(metrics, families.STAGE_MEMORY_PEAK, **LINT) == 130
    running.stages = ()
    assert read_value(metrics, families.STAGE_MEMORY_PEAK, **LINT) is None


def test_pool_families_come_from_the_pools_own_statistics() -> None:
    metrics = make_populated()
    workers = {s: read_value(metrics, families.POOL_WORKERS, pool="commands", state=s) for s in families.WORKER_STATES}
    assert workers == {"busy": 2, "idle": 1, "starting": 0, "draining": 1}
    assert read_value(metrics, families.POOL_SIZE_MAX, pool="commands") == 8
    assert read_value(metrics, families.POOL_BUSY, pool="commands") == 12.25
    assert read_value(metrics, families.POOL_EPOCH, pool="commands") == START + 0.123456
    assert read_value(metrics, families.POOL_RESIZES, pool="commands", direction="up", reason="demand") == 2
    assert read_value(metrics, families.POOL_RESIZES, pool="commands", direction="down", reason="bounds") == 0
    assert read_value(metrics, families.POOL_FINISHED, pool="commands", result="error") == 0
    assert read_value(metrics, families.POOL_DEATHS, pool="commands", cause="exit") == 0


def test_ready_tasks_in_the_engine_count_in_the_pools_queue() -> None:
    metrics = make_populated()
    assert read_value(metrics, families.POOL_QUEUE_DEPTH, pool="commands") == 5
    assert read_value(metrics, families.POOL_OLDEST_AGE, pool="commands") == 4.0


def test_control_families_are_read_at_the_scrape() -> None:
    metrics = make_populated()
    assert read_value(metrics, families.CONTROL_MODE, pool="commands", mode="act", source="both") == 1
    assert read_value(metrics, families.CONTROL_FLOOR, pool="commands") == 2
    assert read_value(metrics, families.CONTROL_CEILING, pool="commands") == 8
    assert read_value(metrics, families.CONTROL_RECOMMENDED, pool="commands") == 4
    assert read_value(metrics, families.CONTROL_FLAPPING, pool="commands") == 1
    assert read_value(metrics, families.CONTROL_BLIND, pool="commands") == 0
    assert read_value(metrics, families.CONTROL_QUERY_ERRORS, kind="timeout") == 2
    assert read_value(metrics, families.CONTROL_QUERY_ERRORS, kind="tls") == 0
    assert read_count(metrics, families.CONTROL_QUERY_DURATION) == 24


def test_decisions_are_counted_from_zero_or_from_history() -> None:
    before: dict[tuple[str, tuple[str, ...]], float] = {
        (families.CONTROL_DECISIONS.name, ("commands", "hold", "stale")): 3.0
    }
    metrics = make_populated(totals=Totals(counters=before))
    assert read_value(metrics, families.CONTROL_DECISIONS, pool="commands", action="up", reason="demand") == 0
    assert read_value(metrics, families.CONTROL_DECISIONS, pool="commands", action="hold", reason="stale") == 3
    decision = Decision(
        pool="commands", action="up", reason="demand", old_size=2, new_size=5, at_timestamp_seconds=START
    )
    metrics.observe(decision)
    assert read_value(metrics, families.CONTROL_DECISIONS, pool="commands", action="up", reason="demand") == 1


def test_a_running_stage_near_its_limit_is_flagged() -> None:
    running = FakeRun()
    metrics = make_metrics(read_snapshot=running.read_snapshot)
    flags = {}
    for elapsed in (LIMIT.warn_seconds - 1, LIMIT.warn_seconds, LIMIT.max_seconds - 1, LIMIT.max_seconds):
        running.run_lint(cpu=0.0, elapsed=elapsed)
        flags[elapsed] = read_value(metrics, families.SLA_NEAR, **LINT)
    assert [*flags.values()] == [0, 1, 1, 0]
    running.stages = ()
    assert read_value(metrics, families.SLA_NEAR, **LINT) == 0


def test_a_stage_whose_tasks_wait_has_0_running_ones() -> None:
    running = FakeRun()
    metrics = make_metrics(read_snapshot=running.read_snapshot)
    for tasks_running in (2, 0):
        running.run_lint(cpu=0.0, tasks_running=tasks_running)
        assert read_value(metrics, families.STAGE_TASKS_RUNNING, **LINT) == tasks_running
    running.stages = ()
    assert read_value(metrics, families.STAGE_TASKS_RUNNING, **LINT) is None


def test_a_running_stages_end_and_breach_are_predicted() -> None:
    running = FakeRun()
    metrics = make_metrics(read_snapshot=running.read_snapshot)
    assert read_value(metrics, families.SLA_PREDICTED_BREACH, **LINT) == 0
    assert read_value(metrics, families.SLA_PREDICTED_END, **LINT) is None
    running.predicted_seconds = 31
    running.run_lint(cpu=0.0)
    assert read_value(metrics, families.SLA_PREDICTED_BREACH, **LINT) == 1
    assert read_value(metrics, families.SLA_PREDICTED_END, **LINT) == START + 31
    assert read_value(metrics, families.SLA_PREDICTED_RATIO, **LINT) == 31 / LIMIT.max_seconds
    running.stages = ()
    assert read_value(metrics, families.SLA_PREDICTED_RATIO, **LINT) is None
    assert read_value(metrics, families.SLA_PREDICTED_BREACH, **LINT) == 0
    assert read_value(metrics, families.SLA_PREDICTED_END, **LINT) is None


def test_a_closed_pool_leaves_the_page() -> None:
    pools = [POOL]
    metrics = make_metrics(read_snapshot=lambda: Snapshot(pools=tuple(pools)))
    assert read_value(metrics, families.POOL_SIZE, pool="commands") == 4
    pools.clear()
    assert read_value(metrics, families.POOL_SIZE, pool="commands") is None


def test_totals_and_last_values_continue_from_history() -> None:
    buckets = [0.0] * 24
    buckets[-1] = 3.0
    totals = Totals(
        counters={(families.RUNS.name, ("standard", "success")): 41.0},
        histograms={(families.RUN_DURATION.name, ("standard",)): HistogramTotal(buckets=tuple(buckets), sum=9e3)},
    )
    last = LastValues(gauges={(families.RUN_LAST_SUCCESS.name, ("standard",)): START})
    metrics = make_metrics(totals=totals, last=last)
    assert read_value(metrics, families.RUN_LAST_SUCCESS, lane="standard") == START
    metrics.observe(run_ended())
    assert read_value(metrics, families.RUNS, lane="standard", result="success") == 42
    assert read_count(metrics, families.RUN_DURATION, lane="standard") == 4


def test_a_removed_stage_does_not_come_back_from_history() -> None:
    gone = ("standard", "gone", "success")
    metrics = make_metrics(totals=Totals(counters={(families.STAGE_RUNS.name, gone): 7.0}))
    assert read_value(metrics, families.STAGE_RUNS, lane="standard", stage="gone", result="success") is None


def test_unknown_names_in_history_are_ignored() -> None:
    totals = Totals(counters={("paropt_of_another_version_total", ("standard",)): 1.0})
    assert read_value(make_metrics(totals=totals), families.RUNS, lane="standard", result="success") == 0


def test_unchanged_lines_are_the_same_objects_on_the_next_page() -> None:
    """The compressed page keeps what has not changed, and compares objects."""
    metrics = make_populated(process_metrics=False)
    before = {line for part in metrics.render_parts(openmetrics=False) for line in part}
    metrics.observe(task("unit", cpu=0.0))
    parts = metrics.render_parts(openmetrics=False)
    known = {id(line) for line in before}
    fresh = {line.partition(b"{")[0] for part in parts for line in part if id(line) not in known}
    changed = {families.TASK_ATTEMPTS, families.TASK_DURATION, families.TASK_QUEUE_WAIT, families.STAGE_PROGRESS}
    names = {f"{each.name}_bucket" if each.kind is Kind.HISTOGRAM else each.name for each in changed}
    assert names <= {name.decode() for name in fresh} <= names | {"", *(each.name for each in SCRAPE_FAMILIES)}


def test_gauges_that_are_set_to_their_values_have_not_changed() -> None:
    state = EventState((LANE,), Totals(), LastValues())
    state.observe(stage_ended("unit"))
    assert {families.STAGE_LAST_RESULT, families.STAGE_RUNS} <= {family for family, _, _ in state.iter_changes()}
    state.observe(stage_ended("unit"))
    changed = {family for family, _, _ in state.iter_changes()}
    assert families.STAGE_RUNS in changed
    assert {families.STAGE_LAST_RESULT, families.STAGE_LAST_DURATION, families.STAGE_RUNNING}.isdisjoint(changed)


def test_label_values_are_escaped() -> None:
    odd = 'a "quoted"\\back\nslash'
    stages = (StageLabels(name=odd, number=2, pool="commands"),)
    metrics = Metrics(project="shop", lanes=(LaneLabels(lane="standard", stages=stages),))
    assert read_value(metrics, families.STAGE_RUNNING, lane="standard", stage=odd) == 0


class Parsed(client.Collector):
    """The families of a page."""

    def __init__(self, parsed: Iterable[client.Metric]) -> None:
        self._parsed = parsed

    def collect(self) -> Iterable[client.Metric]:
        return self._parsed


def test_the_page_equals_that_of_prometheus_clients_writer() -> None:
    """The client parses our page and writes it again."""
    metrics = make_populated(process_metrics=False)
    page = render_page(metrics)
    assert client.text_page(Parsed(parse_text(page.decode()))) == page
    page = render_page(metrics, openmetrics=True)
    assert client.openmetrics_page(Parsed(parse_openmetrics(page.decode()))) == page


def test_the_page_parses_as_openmetrics() -> None:
    names = {family.name for family in parse_openmetrics(render_page(make_populated(), openmetrics=True).decode())}
    assert {family.name.removesuffix("_total") for family in OWN_FAMILIES} - names == {
        families.RUN_LAST_SUCCESS.name,
        families.RUN_LAST_COMPLETION.name,
        families.RUN_LAST_DURATION.name,
        families.RUN_DEADLINE.name,
        families.RUN_PREDICTED_END.name,
        families.STAGE_TASKS_RUNNING.name,
        families.SLA_DEADLINE.name,
        families.SLA_PREDICTED_END.name,
        families.SLA_PREDICTED_RATIO.name,
    }


def test_the_final_page_has_lanes_but_no_pools_or_host() -> None:
    metrics = make_populated()
    metrics.observe(run_ended())
    written = {family.name: family for family in parse_text(metrics.render_final_page().decode())}
    assert "paropt_runs" in written
    assert families.RUN_LAST_SUCCESS.name in written
    assert all("lane" in sample.labels for family in written.values() for sample in family.samples)


def test_the_final_page_has_what_other_runs_added_meanwhile() -> None:
    metrics = make_populated()
    metrics.observe(run_ended())
    lint = "standard", "lint"
    totals = Totals(
        counters={(families.RUNS.name, ("standard", "success")): 7.0, (families.RUNS.name, ("gone", "success")): 9.0},
        histograms={
            (families.STAGE_DURATION.name, lint): HistogramTotal(buckets=(5.0,) * len(HistogramTotal().buckets))
        },
    )
    last = LastValues(gauges={(families.STAGE_LAST_DURATION.name, lint): 42.0})
    final = projects.samples(metrics.render_final_page(totals, last).decode())
    assert final["paropt_runs_total", "standard", "success"] == 7
    assert final["paropt_stage_duration_seconds_count", *lint] == 5 * len(HistogramTotal().buckets)
    assert final["paropt_stage_last_duration_seconds", *lint] == 42
    assert not [key for key in final if "gone" in key]
    behind = Totals(counters={(families.RUNS.name, ("standard", "success")): 0.0})
    assert projects.samples(metrics.render_final_page(behind).decode())["paropt_runs_total", "standard", "success"] == 1


def test_every_family_is_on_the_page_after_a_run() -> None:
    running = FakeRun()
    running.predicted_seconds = 29
    running.run_lint(cpu=0.0)
    metrics = make_populated(live=lambda: running.stages)
    metrics.observe(run_ended())
    metrics.observe(replace(run_started(), deadline_seconds=60.0, predicted_seconds=50.0))
    metrics.observe(stage_started())
    names = {family.name for family in parse_text(_page(metrics))}
    missing = {family.name.removesuffix("_total") for family in OWN_FAMILIES} - names
    assert missing == set(), "0 from the start: metrics/event_state.py; read at a scrape: metrics/samples.py"


def test_deadline_and_prediction_are_on_the_page_while_the_run_goes_on() -> None:
    metrics = make_metrics()
    metrics.observe(replace(run_started(), deadline_seconds=60.0, predicted_seconds=50.0))
    assert read_value(metrics, families.RUN_DEADLINE, lane="standard") == START + 60
    assert read_value(metrics, families.RUN_PREDICTED_END, lane="standard") == START + 50
    metrics.observe(run_ended())
    assert b"paropt_run_deadline_timestamp_seconds{" not in render_page(metrics)
    assert b"paropt_run_predicted_end_timestamp_seconds{" not in render_page(metrics)


def test_process_and_gc_metrics_can_be_left_out() -> None:
    assert b"process_cpu_seconds_total" in render_page(make_metrics())
    assert b"python_gc_collections_total" in render_page(make_metrics())
    assert b"process_" not in render_page(make_metrics(process_metrics=False))


@pytest.mark.parametrize("serves_on", [True, False])
def test_serves_on_says_whether_the_exporter_stays(serves_on: bool) -> None:
    assert read_value(make_metrics(serves_on=serves_on), families.SERVES_ON) == serves_on


def test_no_created_series_are_exported() -> None:
    assert b"_created" not in render_page(make_populated())
    assert b"_created" not in render_page(make_populated(), openmetrics=True)


def test_promtool_accepts_the_page() -> None:
    metrics = make_populated()
    metrics.observe(run_ended())
    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=render_page(metrics),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")


def test_the_page_equals_the_golden_file() -> None:
    metrics = make_populated(process_metrics=False)
    lines = without_host(render_page(metrics)).splitlines(keepends=True)
    page = "".join(line for line in lines if not line.startswith(f"{families.BUILD_INFO.name}{{"))
    golden.assert_is_golden(page, "metrics.txt")


def test_the_page_keeps_no_values_in_the_multi_process_files_of_the_client(tmp_path: Path) -> None:
    script = (
        "from paropt_exporter.metrics import Metrics\n"
        "Metrics(project='p', lanes=()).render_parts(openmetrics=False)\n"
        "from prometheus_client import values\n"
        "print(values.ValueClass.__name__)\n"
    )
    assert read_printed(script, env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}) == "MmapedValue\n"
    assert not list(tmp_path.iterdir())


def repository(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / ".git" / name.replace("__", "/").replace("_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_branch_is_followed_to_its_commit(tmp_path: Path) -> None:
    root = repository(tmp_path, HEAD="ref: refs/heads/main\n", refs__heads__main=f"{COMMIT}\n")
    assert read_revision(root) == COMMIT[:12]


def test_a_detached_head_is_the_commit_itself(tmp_path: Path) -> None:
    assert read_revision(repository(tmp_path, HEAD=f"{COMMIT}\n")) == COMMIT[:12]


def test_a_packed_branch_is_found(tmp_path: Path) -> None:
    packed = f"# pack-refs with: peeled\n{COMMIT} refs/heads/main\n"
    root = repository(tmp_path, HEAD="ref: refs/heads/main\n", packed_refs=packed)
    assert read_revision(root) == COMMIT[:12]


@pytest.mark.parametrize("packed", [False, True])
def test_the_revision_of_a_linked_work_tree_is_its_own(tmp_path: Path, packed: bool) -> None:
    main, linked = Repository(tmp_path / "main"), tmp_path / "linked"
    commit = main.commit("one")
    main.git("worktree", "add", "--quiet", "-b", "topic", str(linked))
    main.commit("two")
    if packed:
        main.git("pack-refs", "--all")
    assert read_revision(linked) == commit[:12]
    main.git("-C", str(linked), "checkout", "--quiet", "--detach")
    assert read_revision(linked) == commit[:12]


def test_the_revision_of_an_installed_package_is_unknown(tmp_path: Path) -> None:
    assert read_revision(tmp_path) == "unknown"


def without_host(page: bytes) -> str:
    """Remove the samples that depend on the machine's state."""
    host = (families.HOST_MEMORY, families.HOST_MEMORY_LIMIT, families.HOST_CPUS)
    samples = tuple(f"{family.name}{{" for family in host)
    return "".join(line for line in page.decode().splitlines(keepends=True) if not line.startswith(samples))


def reconfigured(metrics: Metrics, *stages: StageLabels, pools: tuple[str, ...] = ("commands",)) -> str:
    """Return the page after a config with these stages was read."""
    lane = LaneLabels(lane="standard", stages=stages)
    bounds = dict.fromkeys(pools, (1, 2))
    metrics.reconfigure(lanes=(lane,), bounds=bounds, totals=Totals(), last=LastValues())
    return _page(metrics)


def test_another_config_begins_new_series_ends_old_ones_and_keeps_all_others() -> None:
    metrics = Metrics(project="shop", lanes=(LANE,), bounds={"commands": (1, 8), "threads": (1, 8)})
    for event in (stage_started("lint"), task("lint"), stage_ended("lint"), limit_reached("lint", broken=True)):
        metrics.observe(event)
    assert 'paropt_sla_breached{lane="standard",project="shop",severity="normal",stage="lint"} 1' in _page(metrics)
    page = reconfigured(
        metrics, StageLabels(name="lint", number=3, pool="commands"), StageLabels(name="new", number=5, pool="commands")
    )
    assert 'paropt_stage_runs_total{lane="standard",project="shop",result="success",stage="lint"} 1' in page
    assert 'paropt_stage_duration_seconds_count{lane="standard",project="shop",stage="lint"} 1' in page
    assert 'paropt_stage_runs_total{lane="standard",project="shop",result="success",stage="new"} 0' in page
    assert 'paropt_stage_duration_seconds_count{lane="standard",project="shop",stage="new"} 0' in page
    assert 'stage="unit"' not in page
    assert "paropt_sla_" not in page.replace("# HELP paropt_sla_", "").replace("# TYPE paropt_sla_", "")
    assert [line for line in page.splitlines() if line.startswith("paropt_stage_info") and 'number="2"' in line] == []
    assert 'pool="threads"' not in page


def test_series_that_ends_before_its_first_scrape_is_not_on_the_page() -> None:
    page = Page("shop")
    page.put(families.POOL_SIZE, ("commands",), 2.0)
    page.drop(families.POOL_SIZE, ("commands",))
    assert page.format_page((families.POOL_SIZE,), openmetrics=False) == [[]]


def test_a_stage_that_comes_back_goes_on_from_history() -> None:
    metrics = Metrics(project="shop", lanes=(LANE,))
    reconfigured(metrics)
    runs = (families.STAGE_RUNS.name, ("standard", "lint", "success"))
    metrics.reconfigure(lanes=(LANE,), bounds={}, totals=Totals(counters={runs: 7.0}), last=LastValues())
    assert 'paropt_stage_runs_total{lane="standard",project="shop",result="success",stage="lint"} 7' in _page(metrics)


def test_series_of_an_earlier_config_end_once() -> None:
    """They stayed in memory, and each later config went through all of them: 10 KB for each name a stage ever had."""
    lanes = [
        LaneLabels(lane="standard", stages=(StageLabels(name=name, number=1, pool="commands"),))
        for name in ("first", "second", "third")
    ]
    state = EventState(lanes[:1], Totals(), LastValues())
    gone = list[set[str]]()
    for lane in lanes[1:]:
        list(state.iter_changes())
        state.reconfigure((lane,), Totals(), LastValues())
        ended = [labels for family, labels, value in state.iter_changes() if value is None and "stage" in family.labels]
        gone.append({labels[1] for labels in ended})
    assert gone == [{"first"}, {"second"}]


def _page(metrics: Metrics) -> str:
    return render_page(metrics).decode()


def test_cached_stage_counts_hits_misses_and_saved_seconds_from_zero() -> None:
    metrics = make_metrics()
    hit, miss = {"result": "hit", "reason": "unchanged"}, {"result": "miss", "reason": "inputs"}
    assert read_value(metrics, families.CACHE_LOOKUPS, **LINT, **hit) == 0
    assert read_value(metrics, families.CACHE_LOOKUPS, lane="standard", stage="unit", **miss) is None
    metrics.observe(replace(task(), cache=CacheReason.INPUTS))
    metrics.observe(replace(task(), cache=CacheReason.UNCHANGED, saved_seconds=4.0))
    assert read_value(metrics, families.CACHE_LOOKUPS, **LINT, **hit) == 1
    assert read_value(metrics, families.CACHE_LOOKUPS, **LINT, **miss) == 1
    assert read_value(metrics, families.CACHE_SAVED, **LINT) == 4
    assert read_count(metrics, families.TASK_DURATION, **LINT) == 1  # the skipped one took no time


def test_durations_and_limits_count_only_runs_that_ran() -> None:
    metrics = make_metrics()
    record = replace(stage_ended(), scope=Scope.CACHED, tasks=1, tasks_cached=1)
    metrics.observe(record)
    assert read_value(metrics, families.STAGE_RUNS, **LINT, result="success") == 1
    assert read_count(metrics, families.STAGE_DURATION, **LINT) == 0
    assert read_value(metrics, families.SLA_CHECKS, **LINT) == 0
    assert read_value(metrics, families.STAGE_LAST_DURATION, **LINT) is None
