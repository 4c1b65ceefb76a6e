"""Recording rules for queries that several rules and panels share, or that would read too many raw samples.

    raw counters --increase over one window--> hosts' lanes --> lanes --sum over 1h .. 30d of such windows--> alerts
                                                    '--> panels

An increase leaves out what happens between the last sample of its window and the first sample of the next window. If
windows followed each other, a lane that runs every five minutes might always end there, and would have no checks. So a
window is recorded each minute: each moment is in as many windows as one has minutes, or in one fewer, and their sum is
divided by that number. After the first step, 50,000 stages of 500 hosts are 500 series. Names derive from the metric
families: `level:metric:operations`.

Of a fleet that several Prometheus servers scrape, each has a part of the hosts, below a global one:

    hosts --scraped by--> server of one part: lane:…, fleet:… --federation or remote write--> global server: global_…

The servers of parts load `paropt-recording.yml` and `paropt-parts.yml`, whose results have no label of a host. The
global server holds these few series, and `paropt-global.yml` sums them over the parts. It also has the alerts on lanes,
since a part knows only its own hosts' share of a lane.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from paropt_exporter import families
from paropt_exporter.config.units import parse_duration
from paropt_exporter.events import Severity
from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts.rules import Group, Recording
from paropt_exporter.monitoring.alerts.selectors import BRIDGE, FAILED, WITHOUT_REPLICA, SeriesSelector
from paropt_exporter.monitoring.options import Options

SHORTEST_SPAN = "5m"  # the shortest of the budget's pairs; a longer rate window replaces it, a shorter one does not
HOUR = "1h"  # days, weeks and months are sums of hours
BUDGET_SPANS_OF_DAYS = ("1d", "3d")
BUDGET_SPANS = ("30m", HOUR, "2h", "6h", *BUDGET_SPANS_OF_DAYS)
BUDGET_PERIOD = "30d"
THROUGHPUT_SPAN, THROUGHPUT_PAST = "6h", "7d"
# The inputs of throughput: tasks, the duration of runs, and their number. All three are of the same runs.
_WORK = ((families.RUN_TASKS, ""), (families.RUN_DURATION, "sum"), (families.RUN_DURATION, "count"))
# The external labels of the examples in deploy/fleet: the part of the hosts, and the copy of a doubled server.
PART, COPY = "part", "copy"
PARTS_FILE, GLOBAL_FILE = "paropt-parts.yml", "paropt-global.yml"
_LANE = "lane:"
_FLEET = "fleet:"
_GLOBAL = "global_"
_INTERVAL, _INTERVAL_SECONDS = "1m", 60.0  # of recordings of windows
_INTERVALS = f"{_FLEET}{families.RUN_INTERVAL.name}:max"


def build_recording_groups(options: Options) -> tuple[Group, ...]:
    """Return the groups of recording rules; those over days are evaluated less often."""
    series = SeriesSelector(options)
    return (
        Group(name="paropt-pools-recording", rules=(_record_utilization(series),)),
        Group(
            name="paropt-lanes-recording",
            interval=_INTERVAL,
            rules=(*_iter_budget_rules(series), *_iter_throughput_rules(series)),
        ),
        Group(name="paropt-lanes-recording-long", interval="2m", rules=tuple(_iter_long_rules(series))),
        Group(name="paropt-stages-recording", interval=_INTERVAL, rules=tuple(_iter_fault_rules(series))),
    )


def select_utilization(series: SeriesSelector) -> str:
    """Select the ratio of busy to total worker time of each pool and instance, 0..1."""
    return series.select_recorded(_record_utilization(series).record, per_replica=True)


def select_checks(series: SeriesSelector, span: str) -> str:
    """Select the number of a lane's stage checks in one of the recorded spans."""
    return series.select_recorded(_name_lane_increase(families.SLA_CHECKS, span))


def select_violations(series: SeriesSelector, span: str) -> str:
    """Select the number of a lane's checks that broke their limit, of both severities."""
    return series.select_recorded(_name_lane_increase(families.SLA_VIOLATIONS, span))


def select_tasks(series: SeriesSelector, span: str) -> str:
    """Select the number of tasks that ran to their end in a lane's whole runs without cached tasks."""
    return series.select_recorded(_name_lane_increase(families.RUN_TASKS, span))


def select_run_seconds(series: SeriesSelector, span: str) -> str:
    """Select the total duration of a lane's whole runs without cached tasks, in seconds."""
    return series.select_recorded(_name_lane_increase(families.RUN_DURATION, span, "sum"))


def select_runs(series: SeriesSelector, span: str) -> str:
    """Select the number of a lane's whole runs without cached tasks."""
    return series.select_recorded(_name_lane_increase(families.RUN_DURATION, span, "count"))


def select_interval(series: SeriesSelector) -> str:
    """Select the longest interval at which hosts repeat a lane, also for BRIDGE after the last one has ended."""
    if series.prefix:
        return f"last_over_time({series.select_recorded(_INTERVALS)}[{BRIDGE}])"
    return f"max {WITHOUT_REPLICA} ({series.select_last(families.RUN_INTERVAL)})"


def build_global_selector(options: Options) -> SeriesSelector:
    """Build the selector of a global server's series, which need no matchers: it has only those of the parts."""
    return SeriesSelector(replace(options, selector=""), _GLOBAL)


def is_longer(span: str, than: str) -> bool:
    """Compare Prometheus durations."""
    return parse_duration(span) > parse_duration(than)


def choose_lane_window(rate_window: str) -> str:
    """Return the window of the recordings of lanes. Of shorter ones, too few would overlap."""
    return rate_window if is_longer(rate_window, SHORTEST_SPAN) else SHORTEST_SPAN


def name_host_increase(family: Family, rate_window: str) -> str:
    """Return the name of the recorded increase of a lane and instance over one window."""
    return f"instance_lane:{_strip_total(family)}:increase{choose_lane_window(rate_window)}"


def name_faults(family: Family, window: str) -> str:
    """Return the name of the recorded faults of a stage and instance in one window."""
    return f"instance_stage:{_strip_total(family)}:increase{window}"


def _name_lane_increase(family: Family, span: str, part: str = "") -> str:
    return f"lane:{_strip_total(family)}{f'_{part}' if part else ''}:increase{span}"


def _strip_total(family: Family) -> str:
    return family.name.removesuffix("_total")


def _record_utilization(series: SeriesSelector) -> Recording:
    busy, slot = _strip_total(families.POOL_BUSY), _strip_total(families.POOL_SLOT).removeprefix("paropt_pool_")
    return Recording(
        record=f"instance_pool:{busy}_per_{slot}:ratio_rate{series.window}",
        expr=f"{series.rate(families.POOL_BUSY)}\n/\n({series.rate(families.POOL_SLOT)} > 0)",  # 0: no worker yet
    )


def _iter_budget_rules(series: SeriesSelector) -> Iterator[Recording]:
    for family in (families.SLA_CHECKS, families.SLA_VIOLATIONS):
        yield _record_host_increase(series, family)
        yield _record_sum_of_hosts(series, family)
        for span in BUDGET_SPANS:
            if span in BUDGET_SPANS_OF_DAYS:
                yield _record_sum_of_hours(series, family, span)
            elif is_longer(span, series.window):
                yield _record_sum(series, family, span)


def _iter_throughput_rules(series: SeriesSelector) -> Iterator[Recording]:
    for family, part in _WORK:
        yield _record_lane_increase(series, family, part=part)
        yield from (_record_sum(series, family, span, part=part) for span in (HOUR, THROUGHPUT_SPAN))


def _iter_long_rules(series: SeriesSelector) -> Iterator[Recording]:
    for family in (families.SLA_CHECKS, families.SLA_VIOLATIONS):
        yield _record_sum_of_hours(series, family, BUDGET_PERIOD)
    for family, part in _WORK:
        yield _record_sum_of_hours(series, family, THROUGHPUT_PAST, part=part)


def _iter_fault_rules(series: SeriesSelector) -> Iterator[Recording]:
    """Record faults only: the raw counters are many, faults are few.

    Each kind of fault has its own rule: one rule for all of them would read several times as many counters at once.
    """
    for family in (families.STAGE_RUNS, families.TASK_ATTEMPTS):
        yield from (_record_fault(series, family, result=result) for result in FAILED)
    yield from (_record_fault(series, families.SLA_VIOLATIONS, severity=severity.value) for severity in Severity)


def _record_fault(series: SeriesSelector, family: Family, **kind: str) -> Recording:
    expr = f"{series.increase(family, series.window, **kind)} > 0"
    return Recording(record=name_faults(family, series.window), expr=expr, labels=tuple(kind.items()))


def _record_host_increase(series: SeriesSelector, family: Family) -> Recording:
    """Record the increase over one window of raw samples, for each instance, summed over a lane's stages."""
    dropped = ", ".join(label for label in family.labels if label != "lane")
    increase = series.increase(family, choose_lane_window(series.window))
    return Recording(
        record=name_host_increase(family, series.window), expr=f"sum without ({dropped}) (\n  {increase}\n)"
    )


def _record_sum_of_hosts(series: SeriesSelector, family: Family) -> Recording:
    hosts = series.select_recorded(name_host_increase(family, series.window), per_replica=True)
    return Recording(
        record=_name_lane_increase(family, choose_lane_window(series.window)), expr=f"sum {WITHOUT_REPLICA} ({hosts})"
    )


def _record_lane_increase(series: SeriesSelector, family: Family, *, part: str) -> Recording:
    """Record the increase over one window of raw samples, summed over replicas."""
    window = choose_lane_window(series.window)
    increase = series.increase(family, window, part=part)
    return Recording(record=_name_lane_increase(family, window, part), expr=f"sum {WITHOUT_REPLICA} (\n  {increase}\n)")


def _record_sum(series: SeriesSelector, family: Family, span: str, *, part: str = "") -> Recording:
    """Record the increase over a span from the windows of each minute."""
    window = choose_lane_window(series.window)
    increase = series.select_recorded(_name_lane_increase(family, window, part))
    overlapping = parse_duration(window) / _INTERVAL_SECONDS
    return Recording(
        record=_name_lane_increase(family, span, part),
        expr=f"sum_over_time({increase}[{span}:{_INTERVAL}]) / {overlapping:g}",
    )


def _record_sum_of_hours(series: SeriesSelector, family: Family, span: str, *, part: str = "") -> Recording:
    hour = series.select_recorded(_name_lane_increase(family, HOUR, part))
    return Recording(record=_name_lane_increase(family, span, part), expr=f"sum_over_time({hour}[{span}:{HOUR}])")


def build_parts_groups(options: Options) -> tuple[Group, ...]:
    """Return the rules of a server that scrapes one part of the hosts."""
    series = SeriesSelector(options)
    return (Group(name="paropt-parts-recording", interval=_INTERVAL, rules=tuple(_iter_part_rules(series))),)


def build_global_groups(options: Options) -> tuple[Group, ...]:
    """Return the rules of the global server: each series of the parts, summed, and what follows from the sums."""
    series = SeriesSelector(options)
    # The global server has no label of a host, which the user's matchers may have.
    lanes = [rule for group in build_recording_groups(options) for rule in group.rules]
    records = [rule.record for rule in lanes if isinstance(rule, Recording) and rule.record.startswith(_LANE)]
    parts = [rule.record for rule in _iter_part_rules(series)]
    return (
        Group(
            name="paropt-global-recording",
            interval=_INTERVAL,
            rules=(*(_merge_parts(name) for name in dict.fromkeys([*records, *parts])), *_iter_ratios(series)),
        ),
    )


def _iter_part_rules(series: SeriesSelector) -> Iterator[Recording]:
    up = series.select_now(families.SERVES_ON)
    yield Recording(record=f"{_FLEET}paropt_exporters:count", expr=f"count {WITHOUT_REPLICA} ({up})")
    yield Recording(record=_INTERVALS, expr=f"max {WITHOUT_REPLICA} ({series.select_now(families.RUN_INTERVAL)})")
    for family in (families.POOL_BUSY, families.POOL_SLOT):
        yield Recording(
            record=_name_fleet(family, "rate", series.window),
            expr=f"sum {WITHOUT_REPLICA} (\n  {series.rate(family)}\n)",
        )
    for family, part in ((families.RUNS, ""), (families.OBSERVATIONS_DROPPED, ""), (families.RUN_DURATION, "bucket")):
        yield _record_fleet_increase(series, family, part)
    for result in FAILED:
        faults = series.select_recorded(name_faults(families.STAGE_RUNS, series.window), per_replica=True)
        yield Recording(
            record=_name_fleet(families.STAGE_RUNS, "increase", series.window),
            expr=f"sum {WITHOUT_REPLICA} ({_add_result(faults, result)})",
            labels=(("result", result),),
        )


def _record_fleet_increase(series: SeriesSelector, family: Family, part: str) -> Recording:
    increase = series.increase(family, series.window, part=part)
    return Recording(
        record=_name_fleet(family, "increase", series.window, part),
        expr=f"sum {WITHOUT_REPLICA} (\n  {increase}\n)",
    )


def _name_fleet(family: Family, operation: str, window: str, part: str = "") -> str:
    return f"{_FLEET}{_strip_total(family)}{f'_{part}' if part else ''}:{operation}{window}"


def _add_result(selector: str, result: str) -> str:
    matcher = f'result="{result}"'
    return f"{selector[:-1]},{matcher}}}" if selector.endswith("}") else f"{selector}{{{matcher}}}"


def _merge_parts(name: str) -> Recording:
    """Sum a series over the parts, or take the longest of their intervals.

    Of a doubled server's two values the larger counts, which missed less.
    """
    merge = "max" if name == _INTERVALS else "sum"
    return Recording(record=f"{_GLOBAL}{name}", expr=f"{merge} without ({PART}) (max without ({COPY}) ({name}))")


def _iter_ratios(series: SeriesSelector) -> Iterator[Recording]:
    def name(family: Family, operation: str, part: str = "") -> str:
        return _GLOBAL + _name_fleet(family, operation, series.window, part)

    exporters = f"{_FLEET}paropt_exporters:count"
    yield Recording(record=f"{_GLOBAL}{_FLEET}paropt_parts:count", expr=f"count(count by ({PART}) ({exporters}))")
    busy, slot = name(families.POOL_BUSY, "rate"), name(families.POOL_SLOT, "rate")
    yield Recording(
        record=f"{_GLOBAL}{_FLEET}paropt_pool_busy_seconds_per_slot_seconds:ratio_rate{series.window}",
        expr=f"{busy}\n/\n({slot} > 0)",
    )
    yield Recording(
        record=f"{_GLOBAL}{_FLEET}paropt_run_duration_seconds:p95_increase{series.window}",
        expr=f"histogram_quantile(0.95, {name(families.RUN_DURATION, 'increase', 'bucket')})",
    )
