"""What a rule is: recordings, alerts with their runbook text, and the groups that Prometheus evaluates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Who is told: critical pages, a warning goes to the chat, info stays in Prometheus and Grafana."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Board(StrEnum):
    """The dashboard, by its stable uid, that shows what an alert is about."""

    OVERVIEW = "paropt-overview"
    LANE = "paropt-lane"
    POOLS = "paropt-pools"
    EXPORTER = "paropt-exporter"


# The labels that tell a stage, a lane or a pool of one exporter from any other.
OF_STAGE = ("job", "instance", "project", "lane", "stage")
OF_LANE = ("job", "instance", "project", "lane")
OF_POOL = ("job", "instance", "project", "pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A query whose result is stored under a name of the form `level:metric:operations`.

    `labels`: what tells several with one name apart.
    """

    record: str
    expr: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """When an alert fires. `hold` and `keep`: Prometheus durations, its `for` and `keep_firing_for`; empty: none."""

    expr: str
    level: Level
    hold: str = ""
    keep: str = ""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question of the runbook, and the PromQL that answers it for every lane and host at once."""

    question: str
    expr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert and its runbook entry.

    `summary` is static, `description` a template of Prometheus that may also ask for a condition's own labels; `link`
    names the labels that the dashboard opens with.
    """

    name: str
    conditions: tuple[Condition, ...]
    summary: str
    description: str
    board: Board
    link: tuple[str, ...]
    meaning: str
    impact: str
    diagnosis: tuple[Query, ...]
    mitigation: tuple[str, ...]


Rule = Recording | tuple[Alert, Condition]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rules that are evaluated one after the other. `interval`: empty: Prometheus' own evaluation interval."""

    name: str
    rules: tuple[Rule, ...]
    interval: str = ""


def build_group(name: str, alerts: tuple[Alert, ...], *, interval: str = "") -> Group:
    """Return the group that evaluates every condition of the alerts."""
    return Group(name=name, rules=tuple(_iter_rules(alerts)), interval=interval)


def _iter_rules(alerts: tuple[Alert, ...]) -> Iterator[Rule]:
    for alert in alerts:
        for condition in alert.conditions:
            yield alert, condition
