"""A run that is not scraped builds no series; the first scrape builds them with all events so far."""

from __future__ import annotations

import weakref
from threading import Event as Flag
from threading import Thread

import pytest

from paropt_exporter import families
from paropt_exporter.aggregation import LastValues, Totals
from paropt_exporter.events import Decision, Event
from paropt_exporter.families import Family
from paropt_exporter.metrics import LaneLabels, Metrics, StageLabels, event_state
from paropt_exporter.metrics.event_state import DeferredEventState, EventState
from paropt_exporter.metrics.page import Labels, Value
from support.event_samples import START, run_ended, run_started, stage_ended, stage_started, task

LANE = LaneLabels(lane="standard", stages=(StageLabels(name="lint", number=2, pool="commands"),))
RUN: tuple[Event, ...] = (run_started(), stage_started(), task(), stage_ended(), run_ended())
ATTEMPTS = ("standard", "lint", "success")


def build_state() -> EventState:
    return EventState([LANE], Totals(), LastValues())


class RecordedBuilds:
    def __init__(self) -> None:
        self.built: list[EventState] = []

    def __call__(self) -> EventState:
        self.built.append(build_state())
        return self.built[-1]


class Text(str):
    """A text to which there may be weak references."""


def read_changes(state: EventState) -> dict[tuple[Family, Labels], Value | None]:
    return {(family, labels): value for family, labels, value in state.iter_changes()}


def count_attempts(state: EventState) -> Value | None:
    return read_changes(state)[families.TASK_ATTEMPTS, ATTEMPTS]


def test_first_page_after_a_run_equals_that_of_an_exporter_scraped_all_along() -> None:
    scraped, unread = (
        Metrics(project="shop", lanes=[LANE], serves_on=serves_on, process_metrics=False) for serves_on in (True, False)
    )
    for event in RUN:
        for metrics in (scraped, unread):
            metrics.observe(event)
        scraped.render_final_page()
    assert unread.render_final_page() == scraped.render_final_page()


def test_run_without_a_scrape_builds_no_state() -> None:
    builds = RecordedBuilds()
    deferred = DeferredEventState(builds)
    for event in RUN:
        deferred.observe(event)
    assert not builds.built
    assert count_attempts(deferred.get()) == 1
    assert deferred.get() is builds.built[0]


def test_many_events_build_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_state, "_MOST_DEFERRED", 3)
    builds = RecordedBuilds()
    deferred = DeferredEventState(builds)
    for _ in range(5):
        deferred.observe(task())
    assert len(builds.built) == 1
    assert count_attempts(builds.built[0]) == 5


def test_deferred_events_keep_no_long_texts() -> None:
    deferred = DeferredEventState(RecordedBuilds())
    text = Text("long")
    deferred.observe(task(output=text))
    deferred.observe(
        Decision(
            pool="commands", action="hold", reason="cpu_limit", old_size=2, new_size=2, at_timestamp_seconds=START,
            situation=text, choice=text,
        )
    )  # fmt: skip
    held = weakref.ref(text)
    del text
    assert held() is None
    changes = read_changes(deferred.get())
    assert changes[families.TASK_ATTEMPTS, ATTEMPTS] == 1
    assert changes[families.CONTROL_DECISIONS, ("commands", "hold", "cpu_limit")] == 1


@pytest.mark.parametrize("most", [1, 100])
def test_events_during_the_build_do_not_wait_and_count_once(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(event_state, "_MOST_DEFERRED", most)
    building, may_finish = Flag(), Flag()

    def build_when_allowed() -> EventState:
        building.set()
        may_finish.wait()
        return build_state()

    deferred = DeferredEventState(build_when_allowed)
    reader = Thread(target=deferred.get)
    reader.start()
    building.wait()
    deferred.observe(task())  # returns although the reader is still building
    may_finish.set()
    reader.join()
    deferred.observe(task())
    assert count_attempts(deferred.get()) == 2
