"""Build the PromQL selectors that rules share."""

from __future__ import annotations

from msgspec import Struct

from paropt_exporter.events import Result
from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts.rules import Condition, Level
from paropt_exporter.monitoring.options import Options
from paropt_exporter.promql import Match, Without, build_selector

# The labels that distinguish replicas. Aggregations drop these and keep all other labels of a user's targets.
REPLICA_LABELS = ("instance", "pod", "container", "endpoint")
WITHOUT_REPLICA = f"without ({', '.join(REPLICA_LABELS)})"
# A restart of the exporter may take this long before its last values expire: Prometheus' own look-back.
BRIDGE = "5m"
REMEMBERED = "1d"  # an exporter that was scraped is expected for this long
DEFAULT_WINDOW = "5m"
FAILED = tuple(result.value for result in Result if result.bad)  # results of a stage that make its run a failure
UNASKED = Without(("stopped",))  # causes of worker deaths, except our own: stopping a task may end its worker
SETTLED = "15m"  # a condition that lasts this long is not due to a single run


class SeriesSelector(Struct, frozen=True):
    """Build selectors that contain the user's own matchers.

    `prefix`: begins the names of recorded series, such as those of a fleet's global server.
    """

    options: Options
    prefix: str = ""

    @property
    def window(self) -> str:
        """The span of rates."""
        return self.options.rate_window or DEFAULT_WINDOW

    def select_now(self, family: Family, **labels: Match | Without) -> str:
        """Select current values, which vanish as soon as a scrape fails."""
        return build_selector(family, labels, base=self.options.selector)

    def select_last(self, family: Family, over: str = BRIDGE, **labels: Match | Without) -> str:
        """Select the last values, also from before a restart, so that a restart neither resolves nor fires an alert."""
        return f"last_over_time({build_selector(family, labels, base=self.options.selector, over=over)})"

    def select_firing(self, alert: str, over: str, *, lacking: tuple[str, ...]) -> str:
        """Select an alert that fires or did so up to `over` ago; the labels `lacking` are not among the alert's."""
        own = [matcher for label, matcher in self.options.matchers if label not in lacking]
        matchers = ",".join([*own, f'alertname="{alert}"', 'alertstate="firing"'])
        return f"last_over_time(ALERTS{{{matchers}}}[{over}])"

    def rate(self, family: Family, **labels: Match | Without) -> str:
        return f"rate({build_selector(family, labels, base=self.options.selector, over=self.window)})"

    def increase(self, family: Family, over: str, *, part: str = "", **labels: Match | Without) -> str:
        return f"increase({build_selector(family, labels, base=self.options.selector, part=part, over=over)})"

    def select_recorded(self, name: str, *, per_replica: bool = False) -> str:
        """Select a recording rule's series, without those of rules that were generated with other options.

        Matchers on labels that an aggregation drops were applied when it was recorded.
        """
        kept = ",".join(
            matcher for label, matcher in self.options.matchers if per_replica or label not in REPLICA_LABELS
        )
        return f"{self.prefix}{name}{{{kept}}}" if kept else f"{self.prefix}{name}"


def build_bottleneck_condition(series: SeriesSelector, family: Family, kind: str, level: Level) -> Condition:
    """Build the condition that the last runs had a bottleneck of some kind."""
    return Condition(expr=f"{series.select_last(family, kind=kind)} == 1", level=level, hold=SETTLED)
