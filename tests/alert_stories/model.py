"""A story: input series, and the alerts that fire at given times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts import rule_files
from paropt_exporter.monitoring.alerts.rules import Alert
from paropt_exporter.monitoring.alerts.selectors import SeriesSelector
from paropt_exporter.monitoring.options import Options

OPTIONS = Options()
ALERTS: Mapping[str, Alert] = {alert.name: alert for alert in rule_files.build_alerts(OPTIONS)}
RECORDED = SeriesSelector(OPTIONS)  # selects recordings by name
TARGET = {"job": "ci", "instance": "build-1:10178", "project": "shop"}
LANE = {**TARGET, "lane": "standard"}
STAGE = {**LANE, "stage": "unit_tests"}
POOL = {**TARGET, "pool": "commands"}


class Shows(StrEnum):
    FIRING = "fires and resolves"
    SILENCE = "stays silent just below"
    RESTART = "survives a restart of the exporter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """An alert as Alertmanager receives it. `value`: its value as the title shows it, if it does."""

    severity: str
    labels: Mapping[str, str]
    description: str
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """`given`: series and their values in promtool's notation, `step` apart. `then`: the firing alerts at a time.

    `every`: how often rules are evaluated, if not each step.
    """

    alert: str
    shows: Shows
    given: Mapping[str, str]
    then: Mapping[str, tuple[Firing, ...]]
    step: str = "1m"
    every: str = ""


def series(family: Family, labels: Mapping[str, str], *, part: str = "", **more: str) -> str:
    """Return a family's series in promtool's notation."""
    every = {**labels, **more}
    assert set(family.labels) <= set(every), f"{family.name} has the labels {family.labels}"
    return format_series(f"{family.name}_{part}" if part else family.name, every)


def format_series(name: str, labels: Mapping[str, str]) -> str:
    matchers = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{matchers}}}"


def without(labels: Mapping[str, str], *gone: str) -> dict[str, str]:
    return {label: value for label, value in labels.items() if label not in gone}


def build_expectation(alert: str, firing: Firing) -> dict[str, object]:
    """Return labels and annotations; the committed rules have no links, since these need a user's addresses."""
    return {
        "exp_labels": {"severity": firing.severity, **firing.labels},
        "exp_annotations": {
            "summary": _render_title(ALERTS[alert].title, firing),
            "description": firing.description,
        },
    }


def _render_title(title: str, firing: Firing) -> str:
    labelled = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: firing.labels[found[1]], title)
    return re.sub(r"\{\{ \$value \| \w+ \}\}", firing.value, labelled)
