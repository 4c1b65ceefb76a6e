"""Series of processes of one project become one set."""

from __future__ import annotations

import pytest

from paropt_exporter import families
from paropt_exporter.aggregation import HistogramTotal
from paropt_exporter.families import Family, Kind
from paropt_exporter.metrics.page import Value
from paropt_exporter.metrics.samples import LIVE_FAMILIES
from paropt_exporter.serve.merging import LiveSeries, keep_counters, merge_series

POOL = ("commands",)


def series(**values: float) -> dict[tuple[str, tuple[str, ...]], Value]:
    return {(f"paropt_pool_{name}", POOL): value for name, value in values.items()}


def test_counters_and_sizes_add_up_and_the_oldest_task_counts() -> None:
    one = series(tasks_submitted_total=5, size=2, oldest_task_age_seconds=9)
    other = series(tasks_submitted_total=3, size=1, oldest_task_age_seconds=4)
    assert merge_series([one, other]) == {
        (families.POOL_SUBMITTED, POOL): 8,
        (families.POOL_SIZE, POOL): 3,
        (families.POOL_OLDEST_AGE, POOL): 9,
    }


def test_pool_has_the_epoch_by_which_the_newest_run_finds_its_series() -> None:
    """With that of an ended run, `feedback.source: prometheus` would get no answer about the present one."""
    ended = keep_counters(keep_counters({}, series(epoch_timestamp_seconds=90)), series(epoch_timestamp_seconds=100))
    assert merge_series([ended]) == {(families.POOL_EPOCH, POOL): 100}
    assert merge_series([ended, series(epoch_timestamp_seconds=110)]) == {(families.POOL_EPOCH, POOL): 110}


def test_counters_of_ended_runs_stay_and_their_gauges_go() -> None:
    ended = keep_counters({}, series(tasks_submitted_total=5, size=2))
    ended = keep_counters(ended, series(tasks_submitted_total=2, size=2))
    assert merge_series([ended]) == {(families.POOL_SUBMITTED, POOL): 7}


def test_progress_of_the_last_ended_run_stays_until_the_next_one_begins() -> None:
    name, stage = families.STAGE_PROGRESS.name, ("standard", "lint")
    ended = keep_counters(keep_counters({}, {(name, stage): 0.5}), {(name, stage): 1.0})
    assert merge_series([ended]) == {(families.STAGE_PROGRESS, stage): 1.0}
    assert merge_series([ended, {(name, stage): 0.0}]) == {(families.STAGE_PROGRESS, stage): 0.0}


def test_failing_delivery_of_the_last_ended_run_stays_until_the_next_delivery() -> None:
    name, target = families.DELIVERY_FAILING.name, ("textfile",)
    ended = keep_counters(keep_counters({}, {(name, target): 0.0}), {(name, target): 1.0})
    assert merge_series([ended, series(size=1)])[families.DELIVERY_FAILING, target] == 1.0
    assert merge_series([ended, {(name, target): 0.0}])[families.DELIVERY_FAILING, target] == 0.0


def test_refused_config_of_one_run_counts_for_the_project() -> None:
    successful, loaded = (families.CONFIG_RELOAD_SUCCESSFUL, ()), (families.CONFIG_RELOAD_SUCCESS, ())
    refused: LiveSeries = {(successful[0].name, ()): 0.0, (loaded[0].name, ()): 100.0}
    good: LiveSeries = {(successful[0].name, ()): 1.0, (loaded[0].name, ()): 200.0}
    assert merge_series([refused, good]) == {successful: 0.0, loaded: 100.0}
    assert merge_series([keep_counters({}, refused), good]) == {successful: 1.0, loaded: 200.0}


def test_histograms_of_queries_add_up() -> None:
    key = (families.CONTROL_QUERY_DURATION.name, ())
    rest = (0.0,) * (len(families.BUCKETS_SECONDS) - 1)
    one = HistogramTotal(buckets=(1.0, 2.0, *rest), sum=3.0)
    merged = merge_series([{key: one}, {key: HistogramTotal(buckets=(4.0, 0.0, *rest), sum=1.0)}])
    assert merged == {(families.CONTROL_QUERY_DURATION, ()): HistogramTotal(buckets=(5.0, 2.0, *rest), sum=4.0)}


def test_pool_has_the_mode_of_the_newest_run_only() -> None:
    name = families.CONTROL_MODE.name
    older: LiveSeries = {(name, ("commands", "act", "local")): 1.0, (name, ("threads", "act", "local")): 1.0}
    newer: LiveSeries = {(name, ("commands", "pin", "local")): 1.0}
    merged = merge_series([older, newer])
    assert {labels for _, labels in merged} == {("threads", "act", "local"), ("commands", "pin", "local")}


def test_series_of_a_newer_version_are_left_out() -> None:
    unknown = {("paropt_tomorrow", ()): 1.0, (families.POOL_SIZE.name, ("commands", "extra")): 1.0}
    assert merge_series([unknown]) == {}


@pytest.mark.parametrize(
    ("family", "value"),
    [
        (families.POOL_SIZE, HistogramTotal()),
        (families.POOL_SUBMITTED, HistogramTotal()),
        (families.CONTROL_QUERY_DURATION, 1.0),
        (families.CONTROL_QUERY_DURATION, HistogramTotal(buckets=(1.0, 2.0), sum=3.0)),
    ],
)
def test_value_of_another_kind_or_with_other_buckets_is_left_out(family: Family, value: Value) -> None:
    labels = tuple("x" for _ in family.labels)
    assert merge_series([{(family.name, labels): value}]) == {}
    assert keep_counters({}, {(family.name, labels): value}) == {}


def test_every_series_that_runs_send_has_a_rule() -> None:
    """But not those of their endpoint, which `serve` has itself."""
    own = (families.WEB_CONFIG_RELOADS, families.WEB_CONFIG_RELOAD_SUCCESSFUL)
    for family in LIVE_FAMILIES:
        labels = tuple("x" for _ in family.labels)
        value = HistogramTotal() if family.kind is Kind.HISTOGRAM else 1.0
        assert bool(merge_series([{(family.name, labels): value}])) == (family not in own)
