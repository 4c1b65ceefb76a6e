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

    def running(deadline: str, near: str) -> Mapping[str, str]:
        return {series(families.SLA_DEADLINE, STAGE): deadline, series(families.SLA_NEAR, STAGE): near}

    def firing(left: str) -> Firing:
        return Firing(
            severity="warning",
            labels=STAGE,
            description=(
                f"{_WHERE} has run past its warning threshold for 30s, to within {left} of its limit. This resolves "
                "15 minutes after it was last that close."
            ),
            value=left,
        )

    # The limit is at 11m and half a second; the flag is of the scrape before.
    yield Story(
        alert=alert,
        every="15s",
        shows=Shows.FIRING,
        given=running("_ 660.5x20", "0x9 1x9 0x9"),
        then={
            "9m": (),
            "10m15s": (),
            "10m30s": (firing("30.5s"),),
            "11m": (firing("500ms"),),
            "11m15s": (firing("500ms"),),
            "26m": (firing("500ms"),),
            "26m15s": (),
        },
    )
    yield Story(
        alert=alert,
        every="15s",
        shows=Shows.SILENCE,
        given=running("_ 660x8 stale", "0x9 1x4 0x9"),
        then={"1m": (), "9m": (), "10m": (), "10m30s": (), "11m": ()},
    )
    yield Story(
        alert=alert,
        every="15s",
        shows=Shows.RESTART,
        given=running("_ 660x7 stale _ 1260x20", "0x7 stale _ 0x9 1x9"),
        # The run that the restart ended no longer counts; the one that starts at 11m has its own warning.
        then={"10m": (), "19m": (), "20m15s": (), "20m30s": (firing("30s"),)},
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
