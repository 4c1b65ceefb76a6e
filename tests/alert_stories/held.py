"""Stories of alerts on a 0/1 gauge that outlives its exporter for five minutes: they differ in gauge and hold only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alert_stories.model import Firing, Shows, Story


def stories(
    alert: str, flag: str, firing: Firing, *, others: Sequence[str], beside: str = "", hold_minutes: int
) -> Iterator[Story]:
    """Yield the stories of a flag that goes up at 5m and down at 35m; the alert holds it for some minutes first.

    `others`: flags that are up and mean something else. `beside`: a series that is always there, with the value 30.
    """
    there, fires = ({beside: "30x60"} if beside else {}), 5 + hold_minutes
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={flag: "0x4 1x29 0x9", **there},
        then={f"{fires - 1}m": (), f"{fires}m": (firing,), "34m": (firing,), "35m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={flag: "0x40", **dict.fromkeys(others, "1x40"), **there},
        then={"5m": (), "40m": ()},
    )
    if beside:
        yield from _partly_gone(alert, flag, firing, beside)
    gap = {beside: "30x22 stale _x2 30x13 stale"} if beside else {}
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given={flag: "0x4 1x17 stale _x2 1x13 stale", **gap},
        # Back after three minutes; gone for good at 40m, which five minutes bridge.
        then={**{f"{minute}m": (firing,) for minute in (22, 23, 25, 26, 39, 44)}, "45m": ()},
    )


def _partly_gone(alert: str, flag: str, firing: Firing, beside: str) -> Iterator[Story]:
    """Yield what a limit does that is taken out of the config: each series alone is remembered for five minutes."""
    for gone, there in ((flag, beside), (beside, flag)):
        value = {flag: "1", beside: "30"}
        yield Story(
            alert=alert,
            shows=Shows.FIRING,
            given={gone: f"{value[gone]}x9 stale", there: f"{value[there]}x30"},
            then={"9m": (firing,), "13m": (firing,), "15m": (), "30m": ()},
        )
