"""Stories of error budgets: from recorded series, and from raw counters through the recordings to the alert."""

from __future__ import annotations

from collections.abc import Iterator

from alert_stories.model import RECORDED, STAGE, TARGET, Firing, Shows, Story, format_series, series, without
from paropt_exporter import families
from paropt_exporter.monitoring.alerts import recording

_BURN, _SPENT = "ParoptSlaErrorBudgetBurn", "ParoptSlaErrorBudgetSpent"
_PROJECT = without(TARGET, "instance")
# Rate in percent, spans, severity, minutes of a step; an alert is kept for as long as its short span.
_PAIRS = (
    (14.4, "1h", "5m", "critical", 1),
    (6, "6h", "30m", "critical", 5),
    (3, "1d", "2h", "warning", 5),
    (1, "3d", "6h", "warning", 5),
)
_SECONDS = {"5m": 300, "30m": 1800, "2h": 7200, "6h": 21600}


def iter_stories() -> Iterator[Story]:
    for pair in _PAIRS:
        yield from _iter_pair_stories(*pair)
    yield from _iter_spent_stories()


def _lane_labels(name: str) -> dict[str, str]:
    return {**_PROJECT, "lane": name}


def _build_burn_firing(lane: str, percent: str, long: str, short: str, severity: str) -> Firing:
    return Firing(
        severity=severity,
        labels={**_lane_labels(lane), "long": long, "short": short},
        description=(
            f"In lane {lane} (project shop) {percent} of the stage checks of the last {long} broke their limit, and it "
            "goes on. The target allows 1 %."
        ),
    )


def _iter_pair_stories(rate: float, long: str, short: str, severity: str, step: int) -> Iterator[Story]:
    """Yield lanes that burn just over the rate, and lanes each of which misses one condition by a little."""
    steps = _SECONDS[short] // 60 // step
    over, under = f"{2 * rate + 0.2:g}", f"{2 * rate - 0.2:g}"  # of 200 checks
    longest = _SECONDS[short] // 2

    def lane(
        name: str, *, checks: str = "200", broken: str = over, lately: str = over, every: str = ""
    ) -> dict[str, str]:
        interval = {series(families.RUN_INTERVAL, {**TARGET, "lane": name}): every} if every else {}
        return {
            format_series(recording.select_checks(RECORDED, long), _lane_labels(name)): f"{checks}x200",
            format_series(recording.select_violations(RECORDED, long), _lane_labels(name)): f"{broken}x200",
            format_series(recording.select_checks(RECORDED, short), _lane_labels(name)): "200x200",
            format_series(
                recording.select_violations(RECORDED, short), _lane_labels(name)
            ): f"{lately}x{steps + 2} 0x100",
            **interval,
        }

    percent = f"{rate + 0.1:.4g}%"
    few_percent = f"{2 * rate + 0.2:.4g}%"
    firing = (
        _build_burn_firing("busy", percent, long, short, severity),
        _build_burn_firing("just_often_enough", percent, long, short, severity),
        _build_burn_firing("just_enough_checks", few_percent, long, short, severity),
    )
    last = (2 * steps + 2) * step
    yield Story(
        alert=_BURN,
        shows=Shows.FIRING,
        step=f"{step}m",
        given={
            **lane("busy"),
            **lane("just_often_enough", every=f"{longest}x200"),
            **lane("just_enough_checks", checks="100"),
        },
        # The short span ends after its own length, and the alert is kept for as long again.
        then={"0m": firing, f"{last}m": firing, f"{last + step}m": ()},
    )
    yield Story(
        alert=_BURN,
        shows=Shows.SILENCE,
        step=f"{step}m",
        given={
            **lane("slow_burn", broken=under),
            **lane("over_by_now", lately=under),
            **lane("too_few_checks", checks="99"),
            **lane("seldom", every=f"{longest + 1}x200"),
            **lane("seldom_and_restarted", every=f"{longest + 1}x1 _ {longest + 1}x200"),
        },
        then={"0m": (), f"{2 * step}m": (), "30m": ()},
    )
    # Its interval is known for five minutes more.
    known = 2 * step + 5
    yield Story(
        alert=_BURN,
        shows=Shows.FIRING,
        step=f"{step}m",
        given=lane("repeated_no_more", every=f"{longest + 1}x1 stale"),
        then={
            "0m": (),
            f"{known - step}m": (),
            f"{known}m": (_build_burn_firing("repeated_no_more", percent, long, short, severity),),
        },
    )


def iter_restart_stories() -> Iterator[Story]:
    """Yield stories from raw counters through the recordings to the alerts, across a restart without history."""
    checks = series(families.SLA_CHECKS, STAGE)
    broken = series(families.SLA_VIOLATIONS, STAGE, severity="normal")
    burning = tuple(_build_burn_firing("standard", "20%", *pair[1:4]) for pair in _PAIRS)
    yield Story(
        alert=_BURN,
        shows=Shows.RESTART,
        given={checks: "0+5x70 stale _ 0+5x60", broken: "0+1x70 stale _ 0+1x60"},
        then={"70m": burning, "73m": burning, "75m": burning, "100m": burning},
    )
    spent = _build_overspent_firing("standard", "10%")
    yield Story(
        alert=_SPENT,
        shows=Shows.RESTART,
        given={checks: "0+0.1x190 stale _ 0+0.1x100", broken: "0+0.01x190 stale _ 0+0.01x100"},
        then={"100m": (), "192m": (spent,), "260m": (spent,)},
    )


def _iter_spent_stories() -> Iterator[Story]:
    def lane(
        name: str, *, checks: str = "199", broken: str = "2", recent: str = "1", recent_checks: str = "99"
    ) -> dict[str, str]:
        return {
            format_series(recording.select_checks(RECORDED, "30d"), _lane_labels(name)): f"{checks}x40",
            format_series(recording.select_violations(RECORDED, "30d"), _lane_labels(name)): f"{broken}x40",
            format_series(recording.select_checks(RECORDED, "3d"), _lane_labels(name)): f"{recent_checks}x40",
            format_series(recording.select_violations(RECORDED, "3d"), _lane_labels(name)): recent
            if " " in recent
            else f"{recent}x40",
        }

    firing = _build_overspent_firing("nightly", "1.005%")
    yield Story(
        alert=_SPENT,
        shows=Shows.FIRING,
        step="5m",
        given={
            **lane("nightly", recent="1x5 0x9"),
            series(families.RUN_INTERVAL, {**TARGET, "lane": "nightly"}): "2593x20",
        },
        then={"5m": (), "10m": (firing,), "25m": (firing,), "30m": ()},
    )
    # No burn rate is about lanes that run less than twice in six hours, however many stages they have. Once nothing
    # repeats such a lane any more, one is.
    many = (_build_overspent_firing("many_stages", "1.005%"),)
    yield Story(
        alert=_SPENT,
        shows=Shows.FIRING,
        given={
            **lane("many_stages", recent_checks="100"),
            series(families.RUN_INTERVAL, {**TARGET, "lane": "many_stages"}): "10801x2 _x2 10801x8 stale",
        },
        then={"9m": (), "10m": many, "17m": many, "19m": ()},
    )
    # Its interval is known for five minutes more.
    yield Story(
        alert=_SPENT,
        shows=Shows.FIRING,
        given={**lane("nightly"), series(families.RUN_INTERVAL, {**TARGET, "lane": "nightly"}): "2592x9 stale"},
        then={"24m": (), "25m": (firing,)},
    )
    yield Story(
        alert=_SPENT,
        shows=Shows.SILENCE,
        step="5m",
        given={
            **lane("within_budget", checks="201"),
            **lane("one_alone", checks="30", broken="1"),
            **lane("better_since", recent="0"),
            **lane("busy", recent_checks="100"),
            **lane("often", recent_checks="100"),
            series(families.RUN_INTERVAL, {**TARGET, "lane": "often"}): "10800x20",
            **lane("new"),
            series(families.RUN_INTERVAL, {**TARGET, "lane": "new"}): "2592x20",
        },
        then={"10m": (), "30m": ()},
    )


def _build_overspent_firing(lane: str, percent: str) -> Firing:
    return Firing(
        severity="warning",
        labels=_lane_labels(lane),
        description=(
            f"In lane {lane} (project shop) {percent} of the stage checks of the last 30d broke their limit. The "
            "target allows 1 %. This resolves after three days without another broken limit."
        ),
    )
