"""Properties of events and records."""

from __future__ import annotations

import pickle

import pytest
from msgspec.structs import replace

from paropt_exporter.errors import ConfigError, WorkerDied
from paropt_exporter.events import Result
from support import event_samples as samples


def test_results_are_those_of_opentelemetry() -> None:
    assert [result.value for result in Result] == ["success", "failure", "error", "timeout", "cancellation", "skip"]


@pytest.mark.parametrize(
    ("result", "bad"), [(result, result.value in ("failure", "error", "timeout")) for result in Result]
)
def test_stopped_and_skipped_results_are_not_bad(result: Result, bad: bool) -> None:
    assert result.bad == bad


def test_a_record_is_frozen() -> None:
    with pytest.raises(AttributeError):
        samples.task().result = Result.SKIP  # type: ignore[misc]  # that is the point


def test_durations_are_never_negative() -> None:
    task = replace(samples.task(), ready_seconds=5.0, started_seconds=4.0, ended_seconds=3.0)
    assert (task.duration_seconds, task.queue_wait_seconds) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("result", "broken", "checked"),
    [
        (Result.SUCCESS, False, True),
        (Result.FAILURE, False, True),
        (Result.CANCELLATION, False, False),
        (Result.CANCELLATION, True, True),
        (Result.SKIP, False, False),
    ],
)
def test_stage_is_an_sla_check_if_it_ended_by_itself_or_broke_its_limit(
    result: Result, broken: bool, checked: bool
) -> None:
    record = replace(samples.stage_ended(), sla=samples.LIMIT, result=result, broken=broken)
    assert record.checked == checked
    assert not replace(record, sla=None).checked


def test_worker_died_is_picklable() -> None:
    death = pickle.loads(pickle.dumps(WorkerDied("unit died", -9)))
    assert (str(death), death.exit_code_or_signal) == ("unit died", -9)


def test_config_faults_are_all_in_the_message() -> None:
    assert str(ConfigError(("a:1:1: x", "a:2:1: y"))) == "a:1:1: x\na:2:1: y"
