"""Build a dashboard's queries, each restricted to the values that the dashboard's variables select."""

from __future__ import annotations

from msgspec import Struct

from paropt_exporter import families as names
from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts.recording import name_faults, name_host_increase
from paropt_exporter.monitoring.alerts.selectors import DEFAULT_WINDOW, REMEMBERED
from paropt_exporter.promql import TARGET_LABELS, Match, Without, select

GRAFANA_RATE_WINDOW = "$__rate_interval"
DASHBOARD_RANGE = "$__range"


class Scope(Struct, frozen=True, kw_only=True):
    """The variables of a dashboard, and the user's options about its queries.

    `variables`: those besides job and instance; each has the name of the label that it restricts. `single`: those of
    one value, whose regular expression operators Grafana does not escape. `selector`: the user's own matchers, first
    in each selector. `sla_target`: the ratio of checks that must keep their limit.
    """

    variables: tuple[str, ...]
    single: frozenset[str] = frozenset()
    selector: str = ""
    rate_window: str = GRAFANA_RATE_WINDOW
    sla_target: float = 0.99

    def select(self, family: Family, *, part: str = "", over: str = "", **labels: Match | Without) -> str:
        """Return a selector of the family; labels given here replace their variables."""
        chosen = tuple(name for name in self.variables if name in family.label_names and name not in labels)
        return select(family, self.build_matchers(*chosen), part=part, over=over, **labels)

    def rate(self, family: Family, *, part: str = "", **labels: Match | Without) -> str:
        """Return the family's increase per second."""
        return f"rate({self.select(family, part=part, over=self.rate_window, **labels)})"

    def increase(self, family: Family, *, part: str = "", **labels: Match | Without) -> str:
        """Return the family's increase in one window of the panel's resolution."""
        return f"increase({self.select(family, part=part, over=self.rate_window, **labels)})"

    def increase_over_range(self, family: Family, *, part: str = "", **labels: Match | Without) -> str:
        """Return the family's increase in the dashboard's time range."""
        return f"increase({self.select(family, part=part, over=DASHBOARD_RANGE, **labels)})"

    @property
    def recorded_window(self) -> str:
        """The window of the recording rules that are generated with the same options."""
        return DEFAULT_WINDOW if self.rate_window == GRAFANA_RATE_WINDOW else self.rate_window

    def select_recorded(self, family: Family, *, over: str = "") -> str:
        """Return a selector of a family's recorded increase, for each lane and instance.

        Windows overlap, so a sum of them is not a count, but the ratio of two sums is right.
        """
        chosen = tuple(name for name in self.variables if name in ("project", "lane"))
        return f"{name_host_increase(family, self.recorded_window)}{{{self.build_matchers(*chosen)}}}" + (
            f"[{over}]" if over else ""
        )

    def select_faults(self, family: Family) -> str:
        """Return a selector of a family's recorded faults: the increase in a window, of stages with faults."""
        chosen = tuple(name for name in self.variables if name in family.label_names)
        return f"{name_faults(family, self.recorded_window)}{{{self.build_matchers(*chosen)}}}"

    # All programs have these metrics, and with all jobs chosen `$job` matches every target: the join keeps exporters.

    def select_target(self, name: str) -> str:
        """Return a metric that Prometheus adds for each target, only of those that were exporters within a day.

        Exporters that end with their lane (--once) are left out: they rightly don't answer for most of the time.
        """
        exporters = f"last_over_time({self.select(names.SERVES_ON, over=REMEMBERED)}) == 1"
        return f"({name}{{{self.build_matchers()}}} and on (job, instance) {exporters})"

    def select_process(self, name: str) -> str:
        """Return a metric that the client library has of its process, only of exporters."""
        return f"({name}{{{self.build_matchers()}}} and on (job, instance) {self.select(names.SERVES_ON)})"

    def rate_process(self, name: str) -> str:
        """Return the increase per second of a metric that the client library has of its process, only of exporters."""
        rate = f"rate({name}{{{self.build_matchers()}}}[{self.rate_window}])"
        return f"({rate} and on (job, instance) {self.select(names.SERVES_ON)})"

    def build_matchers(self, *variables: str) -> str:
        """Return the matchers of every selector: the user's own, job and instance, and some variables."""
        chosen = (*TARGET_LABELS, *variables)
        narrowed = (f'{name}{"=" if name in self.single else "=~"}"${name}"' for name in chosen)
        return ",".join([*([self.selector] if self.selector else []), *narrowed])
