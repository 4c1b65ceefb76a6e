"""Which answers are valid."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.autoscaling.bounds_controller import LaneReadings
from paropt_exporter.autoscaling.feedback import (
    SIGNAL,
    Feedback,
    QuerySpec,
    SignalCollector,
    build_past_durations_query,
    build_past_size_query,
    build_pool_query,
)
from paropt_exporter.autoscaling.policy.query_size import PoolReading
from paropt_exporter.autoscaling.policy.query_validity import QueryResult, SeriesValue
from paropt_exporter.autoscaling.signals.client import QueryFailed
from paropt_exporter.autoscaling.signals.local_counters import Rates
from paropt_exporter.autoscaling.state import ControlState
from paropt_exporter.config import values
from paropt_exporter.events import PoolStatistics
from paropt_exporter.plan import Bounds
from paropt_exporter.testing import START_TIMESTAMP_SECONDS, FakeClock, Recorder
from support import fake_prometheus as fakes
from support.deployed import check_queries

NOW = START_TIMESTAMP_SECONDS + 1000.0
WINDOW = 60.0


class FakeClient:
    """Answers queries with the first entry whose key is in the query."""

    def __init__(self, **answers: QueryResult | QueryFailed) -> None:
        self.answers: dict[str, QueryResult | QueryFailed] = dict(answers)
        self.asked: list[str] = []

    def query(self, expression: str) -> QueryResult:
        self.asked.append(expression)
        answer = next(answer for key, answer in self.answers.items() if key in expression)
        if isinstance(answer, QueryFailed):
            raise answer
        return answer


def vector(*numbers: float, at: float = NOW, kind: str = "vector", warnings: tuple[str, ...] = ()) -> QueryResult:
    elements = tuple(SeriesValue(labels=(("n", str(n)),), value=value) for n, value in enumerate(numbers))
    return QueryResult(kind=kind, elements=elements, evaluated_timestamp_seconds=at, warnings=warnings)


def collector(client: FakeClient, query: str = "sum(broker)", *, clock: FakeClock | None = None) -> SignalCollector:
    clock = clock or FakeClock()
    clock.advance(1000.0)
    spec = QuerySpec(name="broker", query=query, use="load", target=20.0)
    return SignalCollector(client, project="shop", specs=(spec,), interval_seconds=15.0, clock=clock)


def rejection_reason(answer: QueryResult | QueryFailed, query: str = "sum(broker)") -> str:
    (signal,) = collector(FakeClient(broker=answer), query).read_signals()
    return signal.reading.rejection_reason


REJECTION_REASONS = (
    (QueryFailed("connection", "refused"), "query_failed"),
    (vector(), "no_data"),
    (vector(1.0, 2.0), "several_sources"),
    (vector(math.nan), "not_finite"),
    (vector(math.inf), "not_finite"),
    (vector(-math.inf), "not_finite"),
    (vector(kind="matrix"), "not_a_number"),
    (vector(kind="string"), "not_a_number"),
    (vector(1.0, warnings=("one store is gone",)), "partial"),
    (vector(1.0, at=NOW - 3600.0), "stale"),
    (vector(1.0, at=NOW + 3600.0), "future"),
    (vector(1.0, at=math.nan), "stale"),
)


@pytest.mark.parametrize(
    ("answer", "reason"), REJECTION_REASONS, ids=[f"{reason} {n}" for n, (_, reason) in enumerate(REJECTION_REASONS)]
)
def test_answer_that_is_no_single_fresh_number_is_rejected(answer: QueryResult | QueryFailed, reason: str) -> None:
    assert rejection_reason(answer) == reason


def test_one_finite_fresh_number_is_valid() -> None:
    (signal,) = collector(FakeClient(broker=vector(60.0))).read_signals()
    assert (signal.reading.value, signal.reading.rejection_reason) == (60.0, "")


def test_plain_selector_is_checked_for_its_age() -> None:
    for age, reason in ((5.0, ""), (40.0, "stale"), (-30.0, "future")):
        client = FakeClient(timestamp=vector(NOW - age), broker=vector(60.0))
        (signal,) = collector(client, 'broker{queue="a"}').read_signals()
        assert signal.reading.rejection_reason == reason
        assert client.asked == ['broker{queue="a"}', 'timestamp(broker{queue="a"})']


def test_stale_selector_is_compared_with_the_interval_of_queries() -> None:
    client = FakeClient(timestamp=vector(NOW - 40.0), broker=vector(60.0))
    (signal,) = collector(client, "broker").read_signals()
    assert signal.reading.detail == "the sample is 40 s old, over 2.5 intervals of 15 s"


def test_rejection_is_logged_at_its_begin_and_end(caplog: pytest.LogCaptureFixture) -> None:
    client = FakeClient(broker=vector())
    gathering = collector(client)
    with caplog.at_level("INFO"):
        for _ in range(3):
            gathering.read_signals()
        client.answers["broker"] = vector(1.0)
        gathering.read_signals()
    assert [record.message for record in caplog.records] == ["signal rejected", "signal valid again"]


def test_server_that_fails_every_other_time_is_logged_once_in_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    client, clock = FakeClient(), FakeClock()
    gathering = collector(client, clock=clock)
    with caplog.at_level("INFO"):
        for step in range(60):  # 15 minutes
            client.answers["broker"] = vector(1.0, at=clock.wall()) if step % 2 else QueryFailed("timeout", "slow")
            gathering.read_signals()
            clock.advance(15.0)
    assert [record.message for record in caplog.records] == ["signal rejected", "signal valid again"] * 2


def test_rejection_that_lasts_is_logged_although_one_was_just_before(caplog: pytest.LogCaptureFixture) -> None:
    client, clock = FakeClient(broker=vector()), FakeClock()
    gathering = collector(client, clock=clock)
    gathering.read_signals()
    client.answers["broker"] = vector(1.0, at=clock.wall())
    gathering.read_signals()
    client.answers["broker"] = vector()
    for _ in range(60):
        gathering.read_signals()
        clock.advance(15.0)
    logged = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert logged == ["signal rejected", "signal rejected"]


OWN = {
    "matches": 1.0, "sampled": NOW - 5.0, "scrapes": 4.0, "epochs": 1.0, "size": 4.0, "depth": 6.0, "completions": 3.0,
    "busy": 4.0, "cpu": 0.5, "delay": 0.1,
}  # fmt: skip
TWIN = Rates(completions=3.0, busy=4.0)
POOL = PoolStatistics(
    name="commands", target=4, live=4, busy=4, idle=0, starting=0, draining=0, queued=0,
    oldest_queued_age_seconds=0.0, submitted=0, busy_seconds=0.0, slot_seconds=0.0, cpu_seconds=0.0,
    run_delay_seconds=0.0, epoch_timestamp_seconds=NOW - 500.123456,
)  # fmt: skip


def pool(twin: Rates | None = TWIN, **changes: float | None) -> PoolReading:
    parts = {name: value for name, value in {**OWN, **changes}.items() if value is not None}
    elements = tuple(SeriesValue(labels=((SIGNAL, name),), value=value) for name, value in parts.items())
    answer = QueryResult(kind="vector", elements=elements, evaluated_timestamp_seconds=NOW)
    return collector(FakeClient(paropt_pool=answer)).read_pool(POOL, lambda _begin, _end: twin, WINDOW)


def test_pool_is_read_in_one_query() -> None:
    seen = pool()
    assert seen.reading.is_valid
    assert seen.measurement is not None
    assert (seen.measurement.depth, seen.measurement.busy, seen.measurement.scrape_seconds) == (6.0, 4.0, 15.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"matches": None}, "epoch"),  # not scraped, or from before a restart
        ({"matches": 2.0}, "several_sources"),  # a second replica under one job
        ({"epochs": 2.0}, "epoch"),  # restarted within the window
        ({"scrapes": 3.0}, "no_data"),
        ({"busy": None}, "no_data"),
        ({"busy": math.nan}, "not_finite"),
        ({"depth": 1e308}, "not_finite"),  # with such a `busy` the sum would be infinite
        ({"delay": -1.0}, "not_finite"),
        ({"sampled": NOW - 60.0}, "stale"),
        ({"sampled": NOW + 60.0}, "future"),
        ({"busy": 2.0}, "disagree"),
        ({"completions": 9.0}, "disagree"),
    ],
)
def test_pool_is_rejected_if_its_series_may_be_anothers(changes: dict[str, Any], reason: str) -> None:
    seen = pool(**changes)
    assert (seen.reading.rejection_reason, seen.measurement) == (reason, None)


def test_answer_without_local_counters_is_valid() -> None:
    assert pool(twin=None, busy=2.0).reading.is_valid


def test_past_has_a_value_per_label_or_nothing() -> None:
    elements = (
        SeriesValue(labels=(("stage", "lint"),), value=3.0),
        SeriesValue(labels=(("stage", "unit"),), value=math.nan),
        SeriesValue(labels=(("stage", "docs"),), value=-5.0),
        SeriesValue(labels=(("stage", "types"),), value=1e308),
    )
    answer = QueryResult(kind="vector", elements=elements, evaluated_timestamp_seconds=NOW)
    assert collector(FakeClient(past=answer)).read_by_label("past", "stage") == {"lint": 3.0}
    assert collector(FakeClient(past=QueryFailed("timeout", "slow"))).read_by_label("past", "stage") == {}


def test_past_is_asked_for_again_after_an_hour(tmp_path: Path) -> None:
    clock = FakeClock()

    def answer(size: str) -> fakes.Reply:
        return fakes.vector(({"pool": "commands"}, size), at=clock.wall())

    with fakes.fake_prometheus(answer("4")) as server:
        settings = values.Prometheus(url=server.url)
        with Feedback(values.Feedback(), settings, project="shop", root=tmp_path, clock=clock) as feedback:
            assert feedback.load_past_runs("standard").sizes == {"commands": 4.0}
            server.reply = answer("9")
            assert feedback.load_past_runs("standard").sizes == {"commands": 4.0}
            clock.advance(3600.0)
            server.reply = answer("9")
            assert feedback.load_past_runs("standard").sizes == {"commands": 9.0}


def test_past_durations_have_the_last_value_of_each_hour(tmp_path: Path) -> None:
    """Also of runs that were scraped for minutes only, and of one in the present hour."""
    stage = 'paropt_stage_last_duration_seconds{job="ci",instance="a",project="shop",lane="standard",stage="lint"}'
    query = build_past_durations_query("shop", "standard")
    given = {stage: "_x20 8 2 stale _x57 8 4 stale _x57 8x1 9 stale"}  # two values at 20m, at 80m and at 140m
    lint = '{stage="lint"}'
    check_queries(tmp_path, given, [(query, "30m", {lint: 2}), (query, "90m", {lint: 3}), (query, "150m", {lint: 4})])


def test_past_sizes_are_of_hosts_that_ran_the_lane(tmp_path: Path) -> None:
    def host(name: str, lane: str, size: str) -> dict[str, str]:
        target = f'job="ci",instance="{name}",project="shop"'
        return {
            f'paropt_control_recommended_size{{{target},pool="commands"}}': size,
            f'paropt_run_in_progress{{{target},lane="{lane}"}}': "1 0 stale",
        }

    given = {**host("a", "standard", "4x9"), **host("b", "standard", "6x9"), **host("c", "heavy", "9x9")}
    sizes = {'{pool="commands"}': 6.0}
    check_queries(tmp_path, given, [(build_past_size_query("shop", "standard"), "9m", sizes)])


def test_queries_escape_labels_and_name_defined_metrics() -> None:
    query = build_pool_query('a "shop"', "commands", 1_764_000_000.123456, 60.0)
    epoch = 'paropt_pool_epoch_timestamp_seconds{project="a \\"shop\\"",pool="commands"}'
    assert f"abs({epoch} - 1764000000.123456) < 0.00002" in query
    assert "[1m]" in query


def test_feedback_whose_thread_does_not_start_is_closed_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    settings, server = values.Feedback(), values.Prometheus(url="http://127.0.0.1:9")
    state = ControlState(Bounds(minimum=1, maximum=8, start=2), ("commands",), source="local")
    lane = LaneReadings(pools=tuple, size=lambda: None, cores=lambda: 2.0)
    with (
        pytest.raises(RuntimeError, match="can't start new thread"),
        Feedback(settings, server, project="shop", root=tmp_path, clock=FakeClock()) as feedback,
    ):
        feedback.start_controller(state, lane=lane, emit=Recorder().observe)
