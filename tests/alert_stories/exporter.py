"""Stories of the exporter itself and of its controller."""

from __future__ import annotations

from collections.abc import Iterator

from alert_stories import held
from alert_stories.model import POOL, TARGET, Firing, Shows, Story, format_series, series, without
from paropt_exporter import families


def iter_stories() -> Iterator[Story]:
    yield from held.iter_stories(
        "ParoptControllerBlind",
        series(families.CONTROL_BLIND, POOL),
        Firing(
            severity="warning",
            labels=POOL,
            description=(
                "The controller of pool commands (project shop) on build-1:10178 has had no valid query result for 5 "
                "minutes. The pool keeps its size."
            ),
        ),
        others=[series(families.CONTROL_FLAPPING, POOL)],
        hold_minutes=5,
    )
    yield from held.iter_stories(
        "ParoptControllerFlapping",
        series(families.CONTROL_FLAPPING, POOL),
        Firing(
            severity="warning",
            labels=POOL,
            description=(
                "The size of pool commands (project shop) on build-1:10178 changed direction so often within an hour "
                "that it does not go down until the hour is over."
            ),
        ),
        others=[series(families.CONTROL_BLIND, POOL)],
        hold_minutes=5,
    )
    yield from held.iter_stories(
        "ParoptConfigReloadFailed",
        series(families.CONFIG_RELOAD_SUCCESSFUL, TARGET),
        Firing(
            severity="warning",
            labels=TARGET,
            description=(
                "The exporter on build-1:10178 (project shop) has refused its changed paropt.yml for 5 minutes, and "
                "runs with the one before."
            ),
        ),
        others=[],
        hold_minutes=5,
        bad=0,
    )
    yield from _iter_web_reload_stories()
    yield from held.iter_stories(
        "ParoptHistoryUnreadable",
        series(families.SERVE_HISTORY_READABLE, TARGET),
        Firing(
            severity="warning",
            labels=TARGET,
            description=(
                "`paropt-exporter serve` on build-1:10178 has not been able to read the history of project shop for 5 "
                "minutes: its totals are outdated."
            ),
        ),
        others=[],
        hold_minutes=5,
        bad=0,
    )
    yield from _iter_down_stories()
    yield from _iter_absent_stories()
    yield from _iter_dropped_stories()
    yield from _iter_deliveries_stories()


def _iter_web_reload_stories() -> Iterator[Story]:
    alert, (flag, other) = "ParoptWebConfigReloadFailed", _build_web_reload_flags()
    firing = Firing(
        severity="warning",
        labels=without(TARGET, "project"),
        description=(
            "build-1:10178 of job ci has refused its changed web config for 5 minutes, and serves with the one before."
        ),
    )
    yield from held.iter_stories(alert, flag, firing, others=[], hold_minutes=5, bad=0)
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # `serve` has the flag for each project, one of which comes later: that is one alert.
        given={flag: "1x4 0x29 1x9", other: "_x20 0x14 1x9"},
        then={"9m": (), "10m": (firing,), "30m": (firing,), "35m": ()},
    )


def _build_web_reload_flags() -> list[str]:
    return [series(families.WEB_CONFIG_RELOAD_SUCCESSFUL, {**TARGET, "project": name}) for name in ("shop", "docs")]


def _target(host: str) -> dict[str, str]:
    return {"job": "ci", "instance": host}


def _exporter(host: str, *, up: str, serves_on: str) -> dict[str, str]:
    return {
        **({format_series("up", _target(host)): up} if up else {}),
        series(families.SERVES_ON, {**_target(host), "project": "shop"}): serves_on,
    }


def _iter_down_stories() -> Iterator[Story]:
    alert = "ParoptExporterDown"
    firing = _down("build-1")
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given=_exporter("build-1", up="1x4 0x19 1x9", serves_on="1x4 stale _x18 1x9"),
        then={"9m": (), "10m": (firing,), "24m": (firing,), "25m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={
            **_exporter("ended_with_its_lane", up="1x4 0x30", serves_on="0x4 stale"),
            **_exporter("answers", up="1x40", serves_on="1x40"),
            format_series("up", _target("something_else")): "0x40",
        },
        then={"10m": (), "30m": ()},
    )
    until_it_answers, gap, long_gap, found = map(_down, ("until_it_answers", "gap", "long_gap", "found"))
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        step="5m",
        given={
            **_exporter("until_it_answers", up="1x1 0x300 1x40", serves_on="1x1 stale _x300 1x40"),
            # Prometheus was down for half an hour, for two and a half, for 22 and for 25.
            **_exporter("gap", up="1x1 0x300 stale _x5 0x40", serves_on="1x1 stale"),
            **_exporter("long_gap", up="1x1 0x300 stale _x29 0x9", serves_on="1x1 stale"),
            **_exporter("found", up="1x1 stale _x264 0x80", serves_on="1x1 stale"),
            **_exporter("forgotten", up="1x1 stale _x300 0x40", serves_on="1x1 stale"),
        },
        then={
            "22h15m": (until_it_answers, gap, long_gap),
            "22h20m": (until_it_answers, gap, long_gap, found),
            "25h10m": (until_it_answers, gap, long_gap, found),
            "25h15m": (found,),
            "25h50m": (gap, found),
            "27h55m": (gap, found),
        },
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given=_exporter("build-1", up="1x4 0x4 1x4 0x20", serves_on="1x4 stale _x3 1x4 stale"),
        then={"9m": (), "10m": (), "19m": (), "20m": (firing,)},
    )


def _down(host: str) -> Firing:
    return Firing(
        severity="warning",
        labels=_target(host),
        description=(
            f"{host} of job ci has not answered for 5 minutes. It is one of those that serve until they are stopped."
        ),
    )


def _iter_absent_stories() -> Iterator[Story]:
    alert = "ParoptExporterAbsent"
    firing = Firing(
        severity="warning",
        labels=without(TARGET, "instance"),
        description=(
            "Project shop of job ci had an exporter within the last day and has had none for 15 minutes: Prometheus "
            "has no target for it."
        ),
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given=_exporter("build-1", up="1x4 stale _x24 1x9", serves_on="1x4 stale _x24 1x9"),
        then={"19m": (), "20m": (firing,), "29m": (firing,), "30m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={
            **_exporter("pod-1", up="1x4 stale", serves_on="1x4 stale"),
            **_exporter("pod-2", up="_x4 1x30", serves_on="_x4 1x30"),
        },
        then={"20m": (), "30m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={
            **_exporter("down_but_a_target", up="1x4 0x30", serves_on="1x4 stale"),
            **_exporter("ended_with_its_lane", up="1x4 stale", serves_on="0x4 stale"),
        },
        then={"20m": (), "30m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # An exporter that was removed for a day is not coming back.
        step="5m",
        given=_exporter("build-1", up="1x1 stale", serves_on="1x1 stale"),
        then={"24h": (firing,), "24h10m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given=_exporter("build-1", up="1x4 stale _x9 1x4 stale", serves_on="1x4 stale _x9 1x4 stale"),
        then={"14m": (), "20m": (), "34m": (), "35m": (firing,)},
    )


def _iter_dropped_stories() -> Iterator[Story]:
    alert = "ParoptObservationsDropped"
    labels = {**TARGET, "observer": "history"}
    counter = series(families.OBSERVATIONS_DROPPED, labels)
    firing = Firing(
        severity="warning",
        labels=labels,
        description=(
            "The observer history of the exporter on build-1:10178 (project shop) could not process records in the "
            "last 15 minutes, and lacks them."
        ),
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={counter: "0x4 1x40"},
        then={"4m": (), "5m": (firing,), "19m": (firing,), "20m": ()},
    )
    yield Story(alert=alert, shows=Shows.SILENCE, given={counter: "7x40"}, then={"5m": (), "40m": ()})
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given={counter: "0x4 1x4 stale _ 0x30"},
        then={"9m": (firing,), "12m": (firing,), "20m": ()},
    )


def _iter_deliveries_stories() -> Iterator[Story]:
    alert = "ParoptDeliveriesFailing"
    labels = {**TARGET, "target": "pushgateway"}
    failing = series(families.DELIVERY_FAILING, labels)
    firing = Firing(
        severity="warning",
        labels=labels,
        description=(
            "The exporter on build-1:10178 (project shop) failed to deliver the final values of its last run "
            "(pushgateway)."
        ),
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # A lane that runs each half hour: the next run's delivery resolves it.
        given={failing: "0x4 1x30 0x10"},
        then={"4m": (), "5m": (firing,), "35m": (firing,), "36m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # It ends with the exporter.
        given={failing: "0x4 1x4 stale"},
        then={"9m": (firing,), "13m": (firing,), "20m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={
            failing: "0x40",
            series(families.DELIVERIES, labels, result="failure"): "7x40",
            series(families.DELIVERY_FAILING, {**labels, "target": "otlp"}): "_x20 0x20",
        },
        then={"5m": (), "25m": (), "40m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given={failing: "0x4 1x4 stale _x2 1x20"},
        then={"9m": (firing,), "12m": (firing,), "20m": (firing,)},
    )
