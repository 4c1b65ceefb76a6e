"""Parts of queries that rules share: what a selector adds, what a restart must not hide, what a rate spans."""

from __future__ import annotations

from dataclasses import dataclass

from paropt_exporter.events import Result
from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts.rules import Condition, Level
from paropt_exporter.monitoring.options import Options
from paropt_exporter.promql import Match, Without, build_selector

# What tells replicas apart. An aggregation drops these and keeps whatever else a user's targets are labelled with.
REPLICA_LABELS = ("instance", "pod", "container", "endpoint")
WITHOUT_REPLICA = f"without ({', '.join(REPLICA_LABELS)})"
# As long as a restart of the exporter may take before its last values count as gone; Prometheus' own look-back.
BRIDGE = "5m"
DEFAULT_WINDOW = "5m"
FAILED = tuple(result.value for result in Result if result.bad)  # of a stage: makes its run a failure
UNASKED = Without(("stopped",))  # the causes of workers' deaths but our own: ending a task may end its worker
SETTLED = "15m"  # what has been so for this long is no one odd run or moment


@dataclass(frozen=True, slots=True)
class SeriesSelector:
    """Selects the series that a set of options is about."""

    options: Options

    @property
    def window(self) -> str:
        """The span of rates."""
        return self.options.rate_window or DEFAULT_WINDOW

    def select_now(self, family: Family, **labels: Match | Without) -> str:
        """Select the values of this moment: gone as soon as a scrape fails."""
        return build_selector(family, labels, base=self.options.selector)

    def select_last(self, family: Family, over: str = BRIDGE, **labels: Match | Without) -> str:
        """Select the last values, those from before a restart too, so that it resolves no alert and fires none."""
        return f"last_over_time({build_selector(family, labels, base=self.options.selector, over=over)})"

    def rate(self, family: Family, **labels: Match | Without) -> str:
        return f"rate({build_selector(family, labels, base=self.options.selector, over=self.window)})"

    def increase(self, family: Family, over: str, *, part: str = "", **labels: Match | Without) -> str:
        return f"increase({build_selector(family, labels, base=self.options.selector, part=part, over=over)})"

    def select_recorded(self, name: str, *, per_replica: bool = False) -> str:
        """Select a recording rule's series, but none that another set of options has recorded.

        Matchers on labels that an aggregation dropped were heeded when it was recorded.
        """
        kept = ",".join(
            matcher for label, matcher in self.options.matchers if per_replica or label not in REPLICA_LABELS
        )
        return f"{name}{{{kept}}}" if kept else name


def build_bottleneck_condition(series: SeriesSelector, family: Family, kind: str, level: Level) -> Condition:
    """Fire while the last runs were held up in one of the ways that the exporter finds."""
    return Condition(expr=f"{series.select_last(family, kind=kind)} == 1", level=level, hold=SETTLED)
