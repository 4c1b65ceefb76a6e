"""Recording rules, alerts with their runbook entries, and the groups that Prometheus evaluates."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct


class Level(StrEnum):
    """An alert's severity: critical pages, a warning goes to the chat, info stays in Prometheus and Grafana."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Board(StrEnum):
    """The dashboards that alerts link to, by their stable uid."""

    OVERVIEW = "paropt-overview"
    LANE = "paropt-lane"
    POOLS = "paropt-pools"
    EXPORTER = "paropt-exporter"


class Subject(Struct, frozen=True, kw_only=True):
    """A kind of thing that alerts are about: the labels that identify one, and Prometheus templates of its name.

    `name` has the project, for titles; `place` has the host, too, for descriptions.
    """

    labels: tuple[str, ...]
    name: str
    place: str


LANE = Subject(
    labels=("job", "instance", "project", "lane"),
    name="{{ $labels.lane }} of {{ $labels.project }}",
    place="{{ $labels.lane }} (project {{ $labels.project }}) on {{ $labels.instance }}",
)
STAGE = Subject(
    labels=("job", "instance", "project", "lane", "stage"),
    name="{{ $labels.stage }} of {{ $labels.project }}",
    place=f"{{{{ $labels.stage }}}} of lane {LANE.place}",
)
POOL = Subject(
    labels=("job", "instance", "project", "pool"),
    name="{{ $labels.pool }} of {{ $labels.project }}",
    place="{{ $labels.pool }} (project {{ $labels.project }}) on {{ $labels.instance }}",
)


class Recording(Struct, frozen=True, kw_only=True):
    """A query whose result is stored under a name of the form `level:metric:operations`.

    `labels` distinguish several recordings of one name.
    """

    record: str
    expr: str
    labels: tuple[tuple[str, str], ...] = ()


class Condition(Struct, frozen=True, kw_only=True):
    """A condition of an alert. `hold` and `keep`, Prometheus durations or empty, are `for` and `keep_firing_for`."""

    expr: str
    level: Level
    hold: str = ""
    keep: str = ""
    labels: tuple[tuple[str, str], ...] = ()


class Query(Struct, frozen=True, kw_only=True):
    """A question of the runbook with the PromQL query that answers it for all lanes and hosts."""

    question: str
    expr: str


class Alert(Struct, frozen=True, kw_only=True):
    """An alert and its runbook entry.

    `summary` is its headline in the documentation. `title` and `description` are Prometheus templates, which may
    also use a condition's own labels; the title names stage, lane or pool and the project. `link` are the labels that
    the dashboard opens with.
    """

    name: str
    conditions: tuple[Condition, ...]
    summary: str
    title: str
    description: str
    board: Board
    link: tuple[str, ...]
    meaning: str
    impact: str
    diagnosis: tuple[Query, ...]
    mitigation: tuple[str, ...]


Rule = Recording | tuple[Alert, Condition]


class Group(Struct, frozen=True, kw_only=True):
    """Rules that are evaluated in sequence. An empty `interval` means Prometheus' own evaluation interval."""

    name: str
    rules: tuple[Rule, ...]
    interval: str = ""


def build_group(name: str, alerts: tuple[Alert, ...], *, interval: str) -> Group:
    """Build the group of all conditions of some alerts."""
    return Group(name=name, rules=tuple(_iter_rules(alerts)), interval=interval)


def _iter_rules(alerts: tuple[Alert, ...]) -> Iterator[Rule]:
    for alert in alerts:
        for condition in alert.conditions:
            yield alert, condition
