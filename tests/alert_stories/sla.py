"""Stories of broken, near and predicted violations of limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from alert_stories import held
from alert_stories.model import LANE, STAGE, Firing, Shows, Story, series
from paropt_exporter import families
from paropt_exporter.families import Family

_WHERE = "Stage unit_tests of lane standard (project shop) on build-1:10178"
_LANE_WHERE = "Lane standard (project shop) on build-1:10178"
_UNTIL = "This resolves 15 minutes after the limit is kept again."


def iter_stories() -> Iterator[Story]:
    yield from _broken(
        "ParoptSlaViolation",
        families.SLA_BREACHED,
        "normal",
        Firing(
            severity="warning",
            labels=STAGE,
            description=f"{_WHERE} took longer than its limit of 30s, now or in its last run. {_UNTIL}",
            value="30s",
        ),
    )
    yield from _broken(
        "ParoptSlaCriticalViolation",
        families.SLA_BREACHED,
        "critical",
        Firing(
            severity="critical",
            labels=STAGE,
            description=f"{_WHERE} took longer than its critical limit of 30s: the lane was stopped. {_UNTIL}",
            value="30s",
        ),
    )
    yield from _broken(
        "ParoptLaneSlaViolation",
        families.LANE_SLA_BREACHED,
        "normal",
        Firing(
            severity="warning",
            labels=LANE,
            description=f"{_LANE_WHERE} took longer than its total limit of 30s, now or in its last run. {_UNTIL}",
            value="30s",
        ),
    )
    yield from _broken(
        "ParoptLaneSlaCriticalViolation",
        families.LANE_SLA_BREACHED,
        "critical",
        Firing(
            severity="critical",
            labels=LANE,
            description=f"{_LANE_WHERE} reached its critical total limit of 30s and was stopped. {_UNTIL}",
            value="30s",
        ),
    )
    yield from _near()
    yield from _predicted()


def _broken(alert: str, breached: Family, severity: str, firing: Firing) -> Iterator[Story]:
    place, limit = (STAGE, families.SLA_LIMIT) if breached is families.SLA_BREACHED else (LANE, families.LANE_SLA_LIMIT)
    other = "critical" if severity == "normal" else "normal"
    yield from held.iter_stories(
        alert,
        series(breached, place, severity=severity),
        firing,
        others=[series(breached, place, severity=other)],
        beside=series(limit, place),
        hold_minutes=0,
        keep_minutes=15,
    )
    yield _broken_now_and_then(alert, series(breached, place, severity=severity), firing, series(limit, place))


def _broken_now_and_then(alert: str, flag: str, firing: Firing, limit: str) -> Story:
    """Return a stage that breaks its limit in each third run of a minute: that is one alert, not ten."""
    return Story(
        alert=alert,
        shows=Shows.FIRING,
        given={flag: "0x4 " + "1 0 0 " * 10 + "0x30", limit: "30x70"},
        then={"4m": (), **{f"{minute}m": (firing,) for minute in range(5, 35)}, "47m": (firing,), "48m": ()},
    )


def _near() -> Iterator[Story]:
    alert = "ParoptSlaLimitNear"

    def running(near: str, limit: str = "600x90") -> Mapping[str, str]:
        return {series(families.SLA_LIMIT, STAGE): limit, series(families.SLA_NEAR, STAGE): near}

    firing = Firing(
        severity="warning",
        labels=STAGE,
        description=(
            f"{_WHERE} has run past its warning threshold for 30s, and is close to its limit of 10m 0s. This resolves "
            "15 minutes after it was last that close."
        ),
        value="10m 0s",
    )
    yield Story(
        alert=alert,
        step="15s",
        shows=Shows.FIRING,
        given=running("0x11 1x2 0x70"),
        then={"2m45s": (), "3m15s": (), "3m30s": (firing,), "3m45s": (firing,), "18m15s": (firing,), "18m45s": ()},
    )
    yield Story(
        alert=alert,
        step="15s",
        shows=Shows.SILENCE,
        given=running("0x11 1x1 0x70"),
        then={"3m": (), "3m15s": (), "3m30s": (), "3m45s": ()},
    )
    yield Story(
        alert=alert,
        step="15s",
        shows=Shows.RESTART,
        given=running("0x11 1 1 stale _x7 0x11 1x2 0x10", "600x13 stale _x7 600x30"),
        # The run that the restart ended no longer counts; the next one has its own warning.
        then={"3m15s": (), "3m30s": (), "8m45s": (), "9m": (firing,)},
    )


def _predicted() -> Iterator[Story]:
    alert, flag = "ParoptSlaBreachPredicted", series(families.SLA_PREDICTED_BREACH, STAGE)
    firing = Firing(
        severity="warning",
        labels=STAGE,
        description=f"{_WHERE} is expected to break its limit, by its progress and its past runs.",
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={flag: "0x3 1x4 0x9"},
        then={"1m15s": (), "1m30s": (firing,), "2m": (firing,), "2m15s": ()},
        step="15s",
    )
    yield Story(alert=alert, shows=Shows.SILENCE, given={flag: "0x4 1 0x9"}, then={"1m15s": (), "2m": ()}, step="15s")
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given={flag: "1x3 stale _ 1x9"},
        then={"45s": (firing,), "1m15s": (), "1m45s": (), "2m": (firing,)},
        step="15s",
    )
