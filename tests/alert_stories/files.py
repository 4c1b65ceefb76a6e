"""Write stories as promtool's test files, a file for each group of rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from alert_stories import budget, exporter, lanes, pools, recorded, sla
from alert_stories.model import ALERTS, OPTIONS, Story, expected
from alert_stories.recorded import Stored
from paropt_exporter.monitoring.alerts import recording
from paropt_exporter.monitoring.alerts import rule_files as alerts
from paropt_exporter.monitoring.alerts.rule_files import ALERTS_FILE, RECORDING_FILE

Frame = dict[str, Any]  # what one test file holds
_HEADER = "# Made from tests/alert_stories by `make generate`; a change here is lost with the next one.\n"
_NOTHING_AT = ("0m", "10m", "1h", "7h")
_GROUPS = [group.name for group in (*recording.build_recording_groups(OPTIONS), *alerts.build_alert_groups(OPTIONS))]


def render() -> dict[str, str]:
    """Return the test files by path below the repository."""
    return {f"alerts/tests/{name}": _HEADER + _yaml(frame) for name, frame in frames().items()}


def frames() -> dict[str, Frame]:
    """Return the test files' contents by name."""
    return {
        "sla.yml": _file(sla.stories(), every="15s"),
        "budget-hour.yml": _file((story for story in budget.stories() if story.step == "1m"), every="1m"),
        "budget-days.yml": _file((story for story in budget.stories() if story.step == "5m"), every="5m"),
        "restarts.yml": _file([*budget.restarts(), *lanes.restarts()], every="1m", with_recordings=True),
        "lanes.yml": _file(lanes.stories(), every="1m"),
        "pools.yml": _file(pools.stories(), every="1m", with_recordings=True),
        "exporter.yml": _file(exporter.stories(), every="1m"),
        "empty.yml": _frame([_nothing()], every="1m", with_recordings=True),
        "recording-hours.yml": _recording(recorded.stories(), "1m"),
        "recording-days.yml": _recording(recorded.stories(), "5m"),
        "recording-month.yml": _recording(recorded.stories(), "1h"),
    }


def stories() -> tuple[Story, ...]:
    """Return the stories of all alerts."""
    modules = (
        sla.stories,
        budget.stories,
        budget.restarts,
        lanes.stories,
        lanes.restarts,
        pools.stories,
        exporter.stories,
    )
    return tuple(story for module in modules for story in module())


def _file(told: Iterable[Story], *, every: str, with_recordings: bool = False) -> Frame:
    return _frame([_test(story) for story in told], every=every, with_recordings=with_recordings)


def _frame(tests: list[Mapping[str, object]], *, every: str, with_recordings: bool) -> Frame:
    rules = [f"../{RECORDING_FILE}", f"../{ALERTS_FILE}"] if with_recordings else [f"../{ALERTS_FILE}"]
    # Recordings first: an alert would else see what they stored a step before.
    order = {"group_eval_order": _GROUPS} if with_recordings else {}
    return {"rule_files": rules, "evaluation_interval": every, **order, "tests": tests}


def _test(story: Story) -> Mapping[str, object]:
    return {
        "name": f"{story.alert} {story.shows.value}",
        "interval": story.step,
        "input_series": [{"series": name, "values": values} for name, values in story.given.items()],
        "alert_rule_test": [
            {
                "eval_time": time,
                "alertname": story.alert,
                "exp_alerts": [expected(story.alert, firing) for firing in firings],
            }
            for time, firings in story.then.items()
        ],
    }


def _nothing() -> Mapping[str, object]:
    return {
        "name": "no alert fires on an empty Prometheus",
        "interval": "1m",
        "input_series": [],
        "alert_rule_test": [
            {"eval_time": time, "alertname": alert, "exp_alerts": []} for time in _NOTHING_AT for alert in ALERTS
        ],
    }


def _recording(told: Iterable[Stored], step: str) -> Frame:
    tests = [_stored(story) for story in told if story.step == step]
    return {
        "rule_files": [f"../{RECORDING_FILE}"],
        "evaluation_interval": step,
        "tests": tests,
    }


def _stored(story: Stored) -> Mapping[str, object]:
    return {
        "name": story.name,
        "interval": story.step,
        "input_series": [{"series": name, "values": values} for name, values in story.given.items()],
        "promql_expr_test": list(_samples(story)),
    }


def _samples(story: Stored) -> Iterator[Mapping[str, object]]:
    for time, expr, labels, value in story.then:
        name = ", ".join(f'{label}="{text}"' for label, text in labels.items())
        yield {"expr": expr, "eval_time": time, "exp_samples": [{"labels": f"{expr}{{{name}}}", "value": value}]}
    for time, expr in story.gone:
        yield {"expr": expr, "eval_time": time, "exp_samples": []}


def _yaml(content: object) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=10_000, allow_unicode=True)
