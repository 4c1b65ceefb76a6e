"""Stories of recordings: from raw counters, and those of days from shorter ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from alert_stories.model import LANE, POOL, RECORDED, STAGE, format_series, series, without
from paropt_exporter import families
from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts import recording
from paropt_exporter.monitoring.alerts.selectors import FAILED, SeriesSelector

_LANE_LEVEL = without(LANE, "instance")
_BUDGET = (recording.select_checks, recording.select_violations)
_THROUGHPUT = (recording.select_tasks, recording.select_run_seconds, recording.select_runs)
_OTHER_HOST = {**STAGE, "instance": "build-2:10178", "stage": "lint"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """`then`: an expression's label sets and values at a time; `gone`: expressions without a result at a time.

    `every`: how often rules are evaluated, if not each step.
    """

    name: str
    given: Mapping[str, str]
    then: tuple[tuple[str, str, Mapping[str, str], float], ...]
    gone: tuple[tuple[str, str], ...] = ()
    step: str = "1m"
    every: str = ""


def iter_stories() -> Iterator[Stored]:
    yield Stored(
        name="utilization is busy time over worker time, for each pool",
        given={
            series(families.POOL_BUSY, POOL): "0+7.5x20",
            series(families.POOL_SLOT, POOL): "0+30x20",
        },
        then=(("20m", recording.select_utilization(RECORDED), POOL, 0.25),),
    )
    yield from _windows()
    yield from _faults()
    yield from _long()


def _windows() -> Iterator[Stored]:
    counters = {
        "checks": (series(families.SLA_CHECKS, STAGE), series(families.SLA_CHECKS, _OTHER_HOST)),
        "violations": (
            series(families.SLA_VIOLATIONS, STAGE, severity="normal"),
            series(families.SLA_VIOLATIONS, _OTHER_HOST, severity="critical"),
        ),
    }
    selects = {"checks": recording.select_checks, "violations": recording.select_violations}
    on_hosts = {
        "checks": recording.name_host_increase(families.SLA_CHECKS, RECORDED.window),
        "violations": recording.name_host_increase(families.SLA_VIOLATIONS, RECORDED.window),
    }
    for what, (first, second) in counters.items():
        # 2 + 3 a minute; sums of the windows of each minute, at a whole minute: one more.
        spans = {"5m": 25, "30m": 31 * 5, "1h": 61 * 5, "2h": 121 * 5, "6h": 361 * 5}
        yield Stored(
            name=f"{what} are counted over hosts and stages, across a restart",
            every="5m",
            given={first: "0+2x200 0+2x400", second: "0+3x700"},
            then=tuple(("10h", selects[what](RECORDED, span), _LANE_LEVEL, value) for span, value in spans.items()),
        )
        yield Stored(
            name=f"{what} are counted for each host, its stages together",
            every="5m",
            given={first: "0+2x200 0+2x400", _beside(first): "0+4x700"},
            then=(("10h", on_hosts[what], LANE, 30),),
        )
    yield Stored(
        name="throughput counts tasks and the time of their runs",
        every="5m",
        given={
            series(families.RUN_TASKS, LANE): "0+2x700",
            series(families.RUN_TASKS, {**LANE, "instance": "build-2:10178"}): "0+1x700",
            series(families.RUN_DURATION, LANE, part="sum"): "0+20x700",
            series(families.RUN_DURATION, {**LANE, "instance": "build-2:10178"}, part="sum"): "0+20x700",
            series(families.RUN_DURATION, LANE, part="count"): "0+1x700",
        },
        then=(
            ("10h", recording.select_tasks(RECORDED, "5m"), _LANE_LEVEL, 15),
            ("10h", recording.select_run_seconds(RECORDED, "5m"), _LANE_LEVEL, 200),
            ("10h", recording.select_runs(RECORDED, "5m"), _LANE_LEVEL, 5),
            ("10h", recording.select_tasks(RECORDED, "6h"), _LANE_LEVEL, 361 * 3),
            ("10h", recording.select_run_seconds(RECORDED, "6h"), _LANE_LEVEL, 361 * 40),
            ("10h", recording.select_runs(RECORDED, "6h"), _LANE_LEVEL, 361),
        ),
    )


def _faults() -> Iterator[Stored]:
    for family in (families.STAGE_RUNS, families.TASK_ATTEMPTS):
        yield from (_fault(family, {"result": result}, beside={"result": "success"}) for result in FAILED)
    yield from (_fault(families.SLA_VIOLATIONS, {"severity": severity}) for severity in families.SEVERITIES)


def _fault(family: Family, kind: Mapping[str, str], beside: Mapping[str, str] = MappingProxyType({})) -> Stored:
    """Build the story of one fault at 13m; `beside`: an event that happens as often and is not a fault."""
    growing = {series(family, STAGE, **labels): "0x12 1x8" for labels in (kind, beside) if labels}
    recorded = recording.name_faults(family, RECORDED.window)
    return Stored(
        name=f"{' '.join(kind.values())} in {family.name} is recorded for stages with faults",
        given={**growing, series(family, _OTHER_HOST, **kind): "7x20"},
        then=(("15m", recorded, {**STAGE, **kind}, 1),),
        gone=(("19m", recorded),),
    )


def _beside(selector: str) -> str:
    """Return another stage of the same lane on the same host."""
    return selector.replace(f'stage="{STAGE["stage"]}"', 'stage="beside"')


def _long() -> Iterator[Stored]:
    yield Stored(
        name="weeks and months are the sum of their hours",
        step="1h",
        every="30h",
        given={format_series(_stored(select, "1h"), _LANE_LEVEL): "2x800" for select in (*_BUDGET, *_THROUGHPUT)},
        then=(
            *(("750h", _stored(select, "30d"), _LANE_LEVEL, 2 * 721) for select in _BUDGET),
            *(("750h", _stored(select, "7d"), _LANE_LEVEL, 2 * 169) for select in _THROUGHPUT),
        ),
    )
    yield Stored(
        name="hours are the sum of their windows, days of their hours",
        step="5m",
        every="1h",
        given={format_series(_stored(select, "5m"), _LANE_LEVEL): "2x900" for select in (*_BUDGET, *_THROUGHPUT)},
        then=(
            *(("73h", _stored(select, "1d"), _LANE_LEVEL, 25 * 24.4) for select in _BUDGET),
            *(("73h", _stored(select, "3d"), _LANE_LEVEL, 73 * 24.4) for select in _BUDGET),
            *(("73h", _stored(select, "1h"), _LANE_LEVEL, 24.4) for select in _THROUGHPUT),
        ),
    )


def _stored(select: Callable[[SeriesSelector, str], str], span: str) -> str:
    return select(RECORDED, span)
