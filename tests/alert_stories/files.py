"""Write stories as promtool's test files, a file for each group of rules and interval of evaluation."""

from __future__ import annotations

from collections import defaultdict
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
_EMPTY_EVERY = "5m"
_GROUPS = [group.name for group in (*recording.build_recording_groups(OPTIONS), *alerts.build_alert_groups(OPTIONS))]


def render_tests() -> dict[str, str]:
    """Return the test files by path below the repository."""
    return {f"alerts/tests/{name}": _HEADER + _dump_yaml(frame) for name, frame in build_frames().items()}


def build_frames() -> dict[str, Frame]:
    """Return the test files' contents by name."""
    from_raw = (*budget.iter_restart_stories(), *lanes.iter_restart_stories())
    return {
        **_build_story_frames("sla", sla.iter_stories()),
        **_build_story_frames("budget", budget.iter_stories()),
        **_build_story_frames("restarts", from_raw, with_recordings=True),
        **_build_story_frames("lanes", lanes.iter_stories()),
        **_build_story_frames("pools", pools.iter_stories(), with_recordings=True),
        **_build_story_frames("exporter", exporter.iter_stories()),
        "empty.yml": _build_frame([_build_empty_frame()], every=_EMPTY_EVERY, with_recordings=True),
        **_build_recording_frames(recorded.iter_stories()),
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


def _build_story_frames(topic: str, told: Iterable[Story], *, with_recordings: bool = False) -> dict[str, Frame]:
    """Return a file for each interval of evaluation: most of promtool's time goes to the evaluations."""
    tests: defaultdict[str, list[Mapping[str, object]]] = defaultdict(list)
    for story in told:
        tests[story.every or story.step].append(_build_test(story))
    return {
        f"{topic}-{every}.yml": _build_frame(group, every=every, with_recordings=with_recordings)
        for every, group in tests.items()
    }


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
        "interval": _EMPTY_EVERY,
        "input_series": [],
        "alert_rule_test": [
            {"eval_time": time, "alertname": alert, "exp_alerts": []} for time in _NOTHING_AT for alert in ALERTS
        ],
    }


def _build_recording_frames(told: Iterable[Stored]) -> dict[str, Frame]:
    tests: defaultdict[str, list[Mapping[str, object]]] = defaultdict(list)
    for story in told:
        tests[story.every or story.step].append(_build_stored_test(story))
    return {
        f"recording-{every}.yml": {
            "rule_files": [f"../{RECORDING_FILE}"],
            "evaluation_interval": every,
            "tests": group,
        }
        for every, group in tests.items()
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
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # six times as fast; a build without libyaml has no C
    return yaml.dump(content, Dumper=dumper, sort_keys=False, width=10_000, allow_unicode=True)
