"""Stories of pools and of the machine's memory."""

from __future__ import annotations

from collections.abc import Iterator

from alert_stories import held
from alert_stories.model import LANE, POOL, Firing, Shows, Story, series
from paropt_exporter import families

_WORKERS = "The workers of pool commands (project shop) on {} have been used for {} of their time"


def iter_stories() -> Iterator[Story]:
    yield from _under_used()
    yield from _saturated()
    yield from _lane("ParoptLaneUnderUsed", "under_used", "the workers were busy for less than 50 % of their time.")
    yield from _lane(
        "ParoptLaneSaturated",
        "saturated",
        "the workers were busy for more than 90 % of their time, while tasks waited.",
    )
    yield from _at_maximum()
    yield from _memory()
    yield from _dying()


def _on(host: str) -> dict[str, str]:
    return {**POOL, "instance": host}


def _use(host: str, busy: str, slots: str = "0+60x60") -> dict[str, str]:
    return {series(families.POOL_BUSY, _on(host)): busy, series(families.POOL_SLOT, _on(host)): slots}


def _under_used() -> Iterator[Story]:
    alert = "ParoptPoolUnderUsed"

    def pool(host: str, busy: str, *, size: str = "4x60", running: str = "") -> dict[str, str]:
        lane = {series(families.RUN_IN_PROGRESS, {**LANE, "instance": host}): running} if running else {}
        return {**_use(host, busy), series(families.POOL_SIZE, _on(host)): size, **lane}

    def firing(host: str, used: str = "48.33%") -> Firing:
        return Firing(severity="info", labels=_on(host), description=f"{_WORKERS.format(host, used)}, for 15 minutes.")

    # 29 s of 60 are 48.3 %, 31 s are 51.7 %.
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={
            **pool("lane", "0+29x30 930+60x20", running="1x60"),
            **pool("library", "0+29x60"),
            # `serve` has all lanes of a project, of which one runs.
            **pool("serve", "0+29x60", running="1x60"),
            series(families.RUN_IN_PROGRESS, {**LANE, "lane": "nightly", "instance": "serve"}): "0x60",
        },
        then={
            "15m": (),
            "16m": (firing("lane"), firing("library"), firing("serve")),
            "30m": (firing("lane"), firing("library"), firing("serve")),
            "31m": (firing("library"), firing("serve")),
        },
    )
    # Runs of 30 s, each minute, that keep 45 % of the workers busy; each evaluation comes during one of them.
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        step="15s",
        every="1m",
        given={
            **_use(
                "half_of_each_minute",
                " ".join(f"{54 * n} {54 * n + 27} {54 * n + 54}x1" for n in range(30)),
                "0+60x120",
            ),
            series(families.POOL_SIZE, _on("half_of_each_minute")): "4x120",
            series(families.RUN_IN_PROGRESS, {**LANE, "instance": "half_of_each_minute"}): " ".join(["1x1 0x1"] * 30),
        },
        then={"15m": (), "22m": (firing("half_of_each_minute", "42.95%"),)},
    )
    # Runs of 15 s, each minute, that keep all workers busy.
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        step="15s",
        every="1m",
        given={
            **_use("each_minute", " ".join(f"{60 * n} {60 * n}x2" for n in range(30)), "0+60x120"),
            series(families.POOL_SIZE, _on("each_minute")): "4x120",
            series(families.RUN_IN_PROGRESS, {**LANE, "instance": "each_minute"}): " ".join(["1 0x2"] * 30),
        },
        then={"16m": (), "25m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={
            **pool("used", "0+31x60", running="1x60"),
            **pool("small", "0+29x60", size="1x60", running="1x60"),
            **pool("between_runs", "0x60", running="0x60"),
        },
        then={"16m": (), "40m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # Removed series last five minutes: without a size there is no alert, without a lane the pool stands alone.
        given={**pool("gone", "0+29x60", size="4x19 stale"), **pool("alone", "0+29x60", running="0x9 stale")},
        then={
            "16m": (firing("gone"),),
            "23m": (firing("gone"),),
            "25m": (),
            "29m": (),
            "30m": (firing("alone"),),
        },
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given={
            **pool("lane", "0+29x19 stale _x2 0+29x30", size="4x19 stale _x2 4x30", running="1x19 stale _x2 1x30"),
            series(families.POOL_SLOT, _on("lane")): "0+60x19 stale _x2 0+60x30",
        },
        then={"16m": (firing("lane"),), "21m": (firing("lane"),), "24m": (firing("lane"),), "40m": (firing("lane"),)},
    )


def _saturated() -> Iterator[Story]:
    alert = "ParoptPoolSaturated"

    def pool(host: str, busy: str, waiting: str) -> dict[str, str]:
        return {**_use(host, busy), series(families.POOL_QUEUE_DEPTH, _on(host)): waiting}

    firing = Firing(
        severity="info",
        labels=_on("full"),
        description=f"{_WORKERS.format('full', '91.67%')} while tasks waited, for 15 minutes.",
    )
    # 55 s of 60 are 91.7 %, 53 s are 88.3 %.
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given=pool("full", "0+55x60", "0x4 1x29 0x20"),
        then={"24m": (), "25m": (firing,), "34m": (firing,), "35m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={
            **pool("not_quite", "0+53x60", "5x60"),
            **pool("caught_up_at_times", "0+60x60", "5x3 0 5x3 0 5x3 0 5x3 0 5x3 0 5x3 0 5x3 0 5x3 0"),
        },
        then={"16m": (), "30m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given={
            **pool("full", "0+55x19 stale _x2 0+55x30", "1x19 stale _x2 1x30"),
            series(families.POOL_SLOT, _on("full")): "0+60x19 stale _x2 0+60x30",
        },
        then={"16m": (firing,), "21m": (firing,), "24m": (firing,), "40m": (firing,)},
    )


def _lane(alert: str, kind: str, what: str) -> Iterator[Story]:
    yield from held.iter_stories(
        alert,
        series(families.LANE_BOTTLENECK, LANE, kind=kind),
        Firing(
            severity="info",
            labels={**LANE, "kind": kind},
            description=f"In the last run of lane standard (project shop) on build-1:10178 {what}",
        ),
        others=[
            series(families.LANE_BOTTLENECK, LANE, kind=other) for other in families.LANE_BOTTLENECKS if other != kind
        ],
        hold_minutes=15,
    )


def _at_maximum() -> Iterator[Story]:
    alert = "ParoptPoolAtMaximum"

    def pool(
        host: str, *, target: str = "8x60", minimum: str = "7x60", waiting: str = "1x60", maximum: str = "8x60"
    ) -> dict[str, str]:
        return {
            series(families.POOL_SIZE_TARGET, _on(host)): target,
            series(families.POOL_SIZE_MIN, _on(host)): minimum,
            series(families.POOL_SIZE_MAX, _on(host)): maximum,
            series(families.POOL_QUEUE_DEPTH, _on(host)): waiting,
        }

    firing = Firing(
        severity="warning",
        labels=_on("full"),
        description=(
            "Pool commands (project shop) on full has been at its maximum of 8 workers for 15 minutes while tasks "
            "waited."
        ),
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given=pool("full", target="7x4 8x25 7x20", waiting="0x4 1x60"),
        then={"24m": (), "25m": (firing,), "30m": (firing,), "31m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={
            **pool("below", target="7x60"),
            **pool("fixed", minimum="8x60"),
            **pool("caught_up_at_times", waiting="5x3 0 5x3 0 5x3 0 5x3 0 5x3 0 5x3 0 5x3 0 5x3 0"),
        },
        then={"20m": (), "30m": ()},
    )
    for size in ("target", "minimum", "maximum"):  # each lasts five minutes alone
        steady = {"target": "8", "minimum": "7", "maximum": "8"}[size]
        yield Story(
            alert=alert,
            shows=Shows.FIRING,
            given=pool("full", **{size: f"{steady}x19 stale"}),
            then={"15m": (firing,), "23m": (firing,), "25m": ()},
        )
    gap = "{0}x19 stale _x2 {0}x30"
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given=pool("full", target=gap.format(8), minimum=gap.format(1), maximum=gap.format(8), waiting=gap.format(3)),
        then={"14m": (), "15m": (firing,), "21m": (firing,), "24m": (firing,), "40m": (firing,)},
    )


def _memory() -> Iterator[Story]:
    alert = "ParoptMemoryPressure"

    def host(name: str, left: str, limit: str = "16000000000x60", *, project: str = "shop") -> dict[str, str]:
        labels = {"job": "ci", "instance": name, "project": project}
        return {series(families.HOST_MEMORY, labels): left, series(families.HOST_MEMORY_LIMIT, labels): limit}

    firing = Firing(
        severity="warning",
        labels={"job": "ci", "instance": "full"},
        description=(
            "full of job ci has had less than 10 % of its memory left for 5 minutes, now 9.375%; its cgroup's limit "
            "counts."
        ),
    )
    left = "8000000000x4 1500000000x14 8000000000x20"
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # `serve` has the host's memory for each project.
        given={**host("full", left), **host("full", left, project="wiki")},
        then={"9m": (), "10m": (firing,), "19m": (firing,), "20m": ()},
    )
    yield Story(alert=alert, shows=Shows.SILENCE, given=host("roomy", "1700000000x60"), then={"10m": (), "30m": ()})
    for gone in ({"left": "1500000000x9 stale"}, {"left": "1500000000x60", "limit": "16000000000x9 stale"}):
        yield Story(
            alert=alert,
            shows=Shows.FIRING,
            given=host("full", **gone),
            then={"9m": (firing,), "13m": (firing,), "15m": ()},  # each lasts five minutes alone
        )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given=host("full", "1500000000x9 stale _x2 1500000000x9 stale", "16000000000x9 stale _x2 16000000000x9 stale"),
        then={"5m": (firing,), "11m": (firing,), "13m": (firing,), "27m": (firing,), "28m": ()},
    )


def _dying() -> Iterator[Story]:
    alert = "ParoptWorkersDying"

    def deaths(host: str, **causes: str) -> dict[str, str]:
        return {series(families.POOL_DEATHS, _on(host), cause=cause): values for cause, values in causes.items()}

    def firing(host: str, count: int) -> Firing:
        return Firing(
            severity="warning",
            labels=_on(host),
            description=(
                f"At least {count} workers of pool commands (project shop) on {host} died in the last 15 minutes."
            ),
        )

    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given=deaths("ill", signal="0x19 1x4 2x30", exit="0x26 1x23", initializer="0x50", stopped="0x50"),
        then={"26m": (), "27m": (firing("ill", 3),), "34m": (firing("ill", 3),), "35m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={
            **deaths("well", signal="0x19 1x30", exit="0x26 1x23", stopped="0+1x50"),
            **deaths("seldom", signal="0x9 1x15 2x15 3x15"),
        },
        then={"27m": (), "30m": (), "45m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given=deaths("ill", signal="0x19 1x2 2x2 stale _ 0x2 1x20"),
        then={"30m": (), "31m": (firing("ill", 3),), "34m": (firing("ill", 3),), "35m": ()},
    )
