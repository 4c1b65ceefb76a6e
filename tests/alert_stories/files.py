"""Write stories as promtool's test files, a file for each group of rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from alert_stories import budget, exporter, lanes, pools, recorded, sla
from alert_stories.model import ALERTS, OPTIONS, Story, build_expectation
from alert_stories.recorded import Stored
from paropt_exporter.monitoring.alerts import recording
from paropt_exporter.monitoring.alerts import rule_files as alerts
from paropt_exporter.monitoring.alerts.rule_files import ALERTS_FILE, RECORDING_FILE

Frame = dict[str, Any]  # the content of a test file
_HEADER = "# Made from tests/alert_stories by `make generate`; a change here is lost with the next one.\n"
_NOTHING_AT = ("0m", "10m", "1h", "7h")
_GROUPS = [group.name for group in (*recording.build_recording_groups(OPTIONS), *alerts.build_alert_groups(OPTIONS))]


def render_tests() -> dict[str, str]:
    """Return the test files by path below the repository."""
    return {f"alerts/tests/{name}": _HEADER + _dump_yaml(frame) for name, frame in build_frames().items()}


def build_frames() -> dict[str, Frame]:
    """Return the test files' contents by name."""
    return {
        "sla.yml": _build_story_frame(sla.iter_stories(), every="15s"),
        "budget-hour.yml": _build_story_frame(
            (story for story in budget.iter_stories() if story.step == "1m"), every="1m"
        ),
        "budget-days.yml": _build_story_frame(
            (story for story in budget.iter_stories() if story.step == "5m"), every="5m"
        ),
        "restarts.yml": _build_story_frame(
            [*budget.iter_restart_stories(), *lanes.iter_restart_stories()], every="1m", with_recordings=True
        ),
        "lanes.yml": _build_story_frame(lanes.iter_stories(), every="1m"),
        "pools.yml": _build_story_frame(pools.iter_stories(), every="1m", with_recordings=True),
        "exporter.yml": _build_story_frame(exporter.iter_stories(), every="1m"),
        "empty.yml": _build_frame([_build_empty_frame()], every="1m", with_recordings=True),
        "recording-hours.yml": _build_recording_frame(recorded.iter_stories(), "1m"),
        "recording-days.yml": _build_recording_frame(recorded.iter_stories(), "5m"),
        "recording-month.yml": _build_recording_frame(recorded.iter_stories(), "1h"),
    }


def iter_stories() -> tuple[Story, ...]:
    """Return the stories of all alerts."""
    modules = (
        sla.iter_stories,
        budget.iter_stories,
        budget.iter_restart_stories,
        lanes.iter_stories,
        lanes.iter_restart_stories,
        pools.iter_stories,
        exporter.iter_stories,
    )
    return tuple(story for module in modules for story in module())


def _build_story_frame(told: Iterable[Story], *, every: str, with_recordings: bool = False) -> Frame:
    return _build_frame([_build_test(story) for story in told], every=every, with_recordings=with_recordings)


def _build_frame(tests: list[Mapping[str, object]], *, every: str, with_recordings: bool) -> Frame:
    rules = [f"../{RECORDING_FILE}", f"../{ALERTS_FILE}"] if with_recordings else [f"../{ALERTS_FILE}"]
    # Recordings first: otherwise an alert would see their values of the step before.
    order = {"group_eval_order": _GROUPS} if with_recordings else {}
    return {"rule_files": rules, "evaluation_interval": every, **order, "tests": tests}


def _build_test(story: Story) -> Mapping[str, object]:
    return {
        "name": f"{story.alert} {story.shows.value}",
        "interval": story.step,
        "input_series": [{"series": name, "values": values} for name, values in story.given.items()],
        "alert_rule_test": [
            {
                "eval_time": time,
                "alertname": story.alert,
                "exp_alerts": [build_expectation(story.alert, firing) for firing in firings],
            }
            for time, firings in story.then.items()
        ],
    }


def _build_empty_frame() -> Mapping[str, object]:
    return {
        "name": "no alert fires on an empty Prometheus",
        "interval": "1m",
        "input_series": [],
        "alert_rule_test": [
            {"eval_time": time, "alertname": alert, "exp_alerts": []} for time in _NOTHING_AT for alert in ALERTS
        ],
    }


def _build_recording_frame(told: Iterable[Stored], step: str) -> Frame:
    tests = [_build_stored_test(story) for story in told if story.step == step]
    return {
        "rule_files": [f"../{RECORDING_FILE}"],
        "evaluation_interval": step,
        "tests": tests,
    }


def _build_stored_test(story: Stored) -> Mapping[str, object]:
    return {
        "name": story.name,
        "interval": story.step,
        "input_series": [{"series": name, "values": values} for name, values in story.given.items()],
        "promql_expr_test": list(_build_samples(story)),
    }


def _build_samples(story: Stored) -> Iterator[Mapping[str, object]]:
    for time, expr, labels, value in story.then:
        name = ", ".join(f'{label}="{text}"' for label, text in labels.items())
        yield {"expr": expr, "eval_time": time, "exp_samples": [{"labels": f"{expr}{{{name}}}", "value": value}]}
    for time, expr in story.gone:
        yield {"expr": expr, "eval_time": time, "exp_samples": []}


def _dump_yaml(content: object) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=10_000, allow_unicode=True)
