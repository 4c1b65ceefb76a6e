"""Build a dashboard's queries, each restricted to the values that the dashboard's variables select."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from paropt_exporter import families as names
from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts.recording import name_faults, name_host_increase
from paropt_exporter.monitoring.alerts.selectors import DEFAULT_WINDOW, REMEMBERED
from paropt_exporter.promql import TARGET_LABELS, Match, Without, select

GRAFANA_RATE_WINDOW = "$__rate_interval"
PANEL_INTERVAL = "$__interval"
DASHBOARD_RANGE = "$__range"
# What has ended since the last scrape seems to go on: its present run counts only once it takes that much longer.
_BETWEEN_SCRAPES_SECONDS = 60


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

    def count(self, family: Family, *, part: str = "", **labels: Match | Without) -> str:
        """Return the family's increase in each bar of a panel whose bars are at least `recorded_window` long.

        Grafana's rate window is at least four scrapes: shorter bars would count the same increase several times.
        """
        window = self.rate_window if self.rate_window == GRAFANA_RATE_WINDOW else PANEL_INTERVAL
        return f"increase({self.select(family, part=part, over=window, **labels)})"

    def increase_over_range(self, family: Family, *, part: str = "", **labels: Match | Without) -> str:
        """Return the family's increase in the dashboard's time range."""
        return f"increase({self.select(family, part=part, over=DASHBOARD_RANGE, **labels)})"

    def over_range(self, function: str, family: Family) -> str:
        """Return a function of the samples in the dashboard's time range, which all points of a chart share.

        A chart of the greatest series chooses them by this. `topk` of each point's values would choose others at
        each point, and show hundreds of series of a fleet.
        """
        return f"{function}({self.select(family, over=DASHBOARD_RANGE)} @ end())"

    def longest_run(self, by: str = "") -> str:
        """Return the duration of a lane's slowest last run, or of the present one once it takes a minute longer.

        Of a lane that has never ended, it is that of the present run.
        """
        return self._longest(names.RUN_STARTED, names.RUN_LAST_DURATION, by)

    def longest_stage(self, by: str) -> str:
        """Return the same for a stage."""
        return self._longest(names.STAGE_STARTED, names.STAGE_LAST_DURATION, by)

    def rank_runs(self, by: str) -> str:
        """Return the greatest last duration of each lane in the dashboard's time range, by which a chart chooses.

        Lanes that have never ended come first: their value is the time of their start, greater than any duration.
        """
        return self._rank(names.RUN_STARTED, names.RUN_LAST_DURATION, by)

    def rank_stages(self, by: str) -> str:
        """Return the same for stages."""
        return self._rank(names.STAGE_STARTED, names.STAGE_LAST_DURATION, by)

    def elapsed(self, started: Family, by: str = "") -> str:
        """Return how long the oldest has been running; until the next scrape, also of one that has just ended."""
        return f"time() - min{by}({self.select(started)})"

    def _longest(self, started: Family, last: Family, by: str) -> str:
        before, elapsed = f"max{by}({self.select(last)})", self.elapsed(started, by)
        return f"({elapsed} > {before} + {_BETWEEN_SCRAPES_SECONDS} or {before} or {elapsed})"

    def _rank(self, started: Family, last: Family, by: str) -> str:
        ended, never_ended = self.over_range("max_over_time", last), self.over_range("last_over_time", started)
        return f"max{by}({ended}) or max{by}({never_ended})"

    @property
    def recorded_window(self) -> str:
        """The window of the recording rules that are generated with the same options."""
        return DEFAULT_WINDOW if self.rate_window == GRAFANA_RATE_WINDOW else self.rate_window

    def select_recorded(self, family: Family) -> str:
        """Return a selector of a family's recorded increase in a window, for each lane and instance."""
        chosen = tuple(name for name in self.variables if name in ("project", "lane"))
        return f"{name_host_increase(family, self.recorded_window)}{{{self.build_matchers(*chosen)}}}"

    def count_faults(self, family: Family) -> str:
        """Return a family's recorded faults in each bar, of stages with faults.

        Windows that follow each other are summed, so that each fault is counted once, however long the bars are: the
        rules record a window every minute. A fault between the last sample of one window and the first sample of the
        next is in neither, but in the overlapping windows that were recorded meanwhile. Prometheus 2 includes both
        ends of a range; the offset leaves out the first end, which belongs to the bar before.
        """
        chosen = tuple(name for name in self.variables if name in family.label_names)
        faults = f"{name_faults(family, self.recorded_window)}{{{self.build_matchers(*chosen)}}}"
        window = self.recorded_window
        between = f"max_over_time({faults}[{window}]) unless {faults} offset {window}"
        # `abs` drops the metric's name, as `max_over_time` does: one series must not have two names.
        return f"sum_over_time((abs({faults}) or ({between}))[{PANEL_INTERVAL}:{window}] offset -1s)"

    # All programs have these metrics, and with all jobs chosen `$job` matches every target: the join keeps exporters.

    def select_target(self, name: str) -> str:
        """Return a metric that Prometheus adds for each target, only of those that were exporters within a day.

        Exporters that end with their lane (--once) are left out: they rightly don't answer for most of the time.
        """
        return f"({name}{{{self.build_matchers()}}} and on (job, instance) {self.select_remembered()})"

    def select_remembered(self) -> str:
        """Return 1 for each exporter of the last day that serves until it is stopped."""
        return f"last_over_time({self.select(names.SERVES_ON, over=REMEMBERED)}) == 1"

    def select_process(self, name: str) -> str:
        """Return a metric that the client library has of its process, only of exporters."""
        return f"({name}{{{self.build_matchers()}}} and on (job, instance) {self.select(names.SERVES_ON)})"

    def rate_process(self, name: str) -> str:
        """Return the increase per second of a metric that the client library has of its process, only of exporters."""
        rate = f"rate({name}{{{self.build_matchers()}}}[{self.rate_window}])"
        return f"({rate} and on (job, instance) {self.select(names.SERVES_ON)})"

    def rank_targets(self, function: str, name: str) -> str:
        """Return a function of each exporter's samples of a foreign metric, as `over_range` does."""
        exporters = self.over_range("last_over_time", names.SERVES_ON)
        found = f"{function}({name}{{{self.build_matchers()}}}[{DASHBOARD_RANGE}] @ end())"
        return f"({found} and on (job, instance) {exporters})"

    def build_matchers(self, *variables: str) -> str:
        """Return the matchers of every selector: the user's own, job and instance, and some variables."""
        chosen = (*TARGET_LABELS, *variables)
        narrowed = (f'{name}{"=" if name in self.single else "=~"}"${name}"' for name in chosen)
        return ",".join([*([self.selector] if self.selector else []), *narrowed])


def name_conditions(label: str, conditions: Mapping[str, str]) -> str:
    """Return the series of all conditions; a label says which one each of them meets."""
    return " or ".join(f'label_replace({expr}, "{label}", "{name}", "", "")' for name, expr in conditions.items())
