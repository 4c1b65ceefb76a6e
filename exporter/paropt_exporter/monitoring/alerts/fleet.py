"""Recording rules for a fleet that several Prometheus servers scrape, each a part of the hosts, below a global one.

    hosts --scraped by--> server of one part: lane:…, fleet:… --federation or remote write--> global server: global_…

The servers of parts load `paropt-recording.yml` and `paropt-parts.yml`, whose results have no label of a host. The
global server holds these few series, and `paropt-global.yml` sums them over the parts.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from paropt_exporter import families
from paropt_exporter.families import Family, Kind
from paropt_exporter.monitoring.alerts import recording
from paropt_exporter.monitoring.alerts.rules import Group, Recording
from paropt_exporter.monitoring.alerts.selectors import FAILED, WITHOUT_REPLICA, SeriesSelector
from paropt_exporter.monitoring.options import Options

# The external labels of the examples in deploy/fleet: the part of the hosts, and the copy of a doubled server.
PART, COPY = "part", "copy"
PARTS_FILE, GLOBAL_FILE = "paropt-parts.yml", "paropt-global.yml"
_LANE = "lane:"
_FLEET = "fleet:"
_GLOBAL = "global_"
_INTERVAL = "1m"


def build_parts_groups(options: Options) -> tuple[Group, ...]:
    """Return the rules of a server that scrapes one part of the hosts."""
    series = SeriesSelector(options)
    return (Group(name="paropt-parts-recording", interval=_INTERVAL, rules=tuple(_iter_part_rules(series))),)


def build_global_groups(options: Options) -> tuple[Group, ...]:
    """Return the rules of the global server: each series of the parts, summed, and what follows from the sums."""
    series = SeriesSelector(options)
    # The global server has no label of a host, which the user's matchers may have.
    lanes = [rule for group in recording.build_recording_groups(options) for rule in group.rules]
    records = [rule.record for rule in lanes if isinstance(rule, Recording) and rule.record.startswith(_LANE)]
    parts = [rule.record for rule in _iter_part_rules(series)]
    return (
        Group(
            name="paropt-global-recording",
            interval=_INTERVAL,
            rules=(*(_sum_parts(name) for name in dict.fromkeys([*records, *parts])), *_iter_ratios(series)),
        ),
    )


def _iter_part_rules(series: SeriesSelector) -> Iterator[Recording]:
    up = series.select_now(families.SERVES_ON)
    yield Recording(record=f"{_FLEET}paropt_exporters:count", expr=f"count {WITHOUT_REPLICA} ({up})")
    for family in (families.POOL_BUSY, families.POOL_SLOT):
        yield Recording(
            record=_name(family, "rate", series.window), expr=f"sum {WITHOUT_REPLICA} (\n  {series.rate(family)}\n)"
        )
    for family in (families.RUNS, families.OBSERVATIONS_DROPPED):
        yield _record_increase(series, family)
    yield replace(
        _record_increase(series, families.RUN_DURATION, "bucket"),
        record=_name(families.RUN_DURATION, "increase", series.window, "bucket"),
    )
    for result in FAILED:
        faults = series.select_recorded(recording.name_faults(families.STAGE_RUNS, series.window), per_replica=True)
        yield Recording(
            record=_name(families.STAGE_RUNS, "increase", series.window),
            expr=f"sum {WITHOUT_REPLICA} ({_add_matcher(faults, 'result', result)})",
            labels=(("result", result),),
        )


def _record_increase(series: SeriesSelector, family: Family, part: str = "") -> Recording:
    increase = series.increase(family, series.window, part=part)
    return Recording(
        record=_name(family, "increase", series.window, part), expr=f"sum {WITHOUT_REPLICA} (\n  {increase}\n)"
    )


def _name(family: Family, operation: str, window: str, part: str = "") -> str:
    base = family.name if family.kind is Kind.GAUGE else family.name.removesuffix("_total")
    return f"{_FLEET}{base}{f'_{part}' if part else ''}:{operation}{window}"


def _add_matcher(selector: str, label: str, value: str) -> str:
    matcher = f'{label}="{value}"'
    return f"{selector[:-1]},{matcher}}}" if selector.endswith("}") else f"{selector}{{{matcher}}}"


def _sum_parts(name: str) -> Recording:
    """Sum a series over the parts; of a doubled server's two values the larger counts, which missed less."""
    return Recording(record=f"{_GLOBAL}{name}", expr=f"sum without ({PART}) (max without ({COPY}) ({name}))")


def _iter_ratios(series: SeriesSelector) -> Iterator[Recording]:
    def name(family: Family, operation: str, part: str = "") -> str:
        return _GLOBAL + _name(family, operation, series.window, part)

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
