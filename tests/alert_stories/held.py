"""Stories of alerts on a 0/1 gauge, whose value lasts five minutes after its exporter; gauge and hold differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alert_stories.model import Firing, Shows, Story


def iter_stories(
    alert: str,
    flag: str,
    firing: Firing,
    *,
    others: Sequence[str],
    beside: str = "",
    hold_minutes: int,
    keep_minutes: int = 0,
    bad: int = 1,
) -> Iterator[Story]:
    """Yield the stories of a flag that goes up at 5m and down at 35m; the alert holds it for some minutes first.

    It is kept for `keep_minutes` after the condition. `others`: flags that are up and mean something else. `beside`: a
    series that always has the value 30. `bad`: the flag's value while it is up, if not 1.
    """
    good = 1 - bad
    there, fires = ({beside: "30x60"} if beside else {}), 5 + hold_minutes
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={flag: f"{good}x4 {bad}x29 {good}x9", **there},
        then={
            f"{fires - 1}m": (),
            f"{fires}m": (firing,),
            f"{34 + keep_minutes}m": (firing,),
            f"{35 + keep_minutes}m": (),
        },
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={flag: f"{good}x40", **dict.fromkeys(others, "1x40"), **there},
        then={"5m": (), "40m": ()},
    )
    if beside:
        yield from _partly_gone(alert, flag, firing, beside, keep_minutes)
    gap = {beside: "30x22 stale _x2 30x13 stale"} if beside else {}
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given={flag: f"{good}x4 {bad}x17 stale _x2 {bad}x13 stale", **gap},
        # It is back after three minutes, and stops at 40m; five minutes bridge that.
        then={
            **{f"{minute}m": (firing,) for minute in (22, 23, 25, 26, 39, 44, 44 + keep_minutes)},
            f"{45 + keep_minutes}m": (),
        },
    )


def _partly_gone(alert: str, flag: str, firing: Firing, beside: str, keep_minutes: int) -> Iterator[Story]:
    """Yield stories of a limit that is removed from the config: each of its series lasts five minutes."""
    for gone, there in ((flag, beside), (beside, flag)):
        value = {flag: "1", beside: "30"}
        yield Story(
            alert=alert,
            shows=Shows.FIRING,
            given={gone: f"{value[gone]}x9 stale", there: f"{value[there]}x30"},
            then={
                "9m": (firing,),
                "13m": (firing,),
                f"{14 + keep_minutes}m": (firing,),
                f"{15 + keep_minutes}m": (),
                f"{30 + keep_minutes}m": (),
            },
        )
