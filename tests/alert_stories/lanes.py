"""Stories of lanes and stages."""

from __future__ import annotations

from collections.abc import Iterator

from alert_stories import held
from alert_stories.model import LANE, RECORDED, STAGE, TARGET, Firing, Shows, Story, format_series, series, without
from paropt_exporter import families
from paropt_exporter.monitoring.alerts import recording

_WHERE = "Stage unit_tests of lane standard (project shop) on build-1:10178"
_THROUGHPUT = "ParoptThroughputLow"
_INSIDE = "stage unit_tests of lane standard (project shop) on build-1:10178"


def iter_stories() -> Iterator[Story]:
    yield from _failing()
    yield from _stuck()
    yield from _flaky()
    yield from _overdue()
    yield from _throughput()
    yield from _cache()
    yield from _bottleneck(
        "ParoptStageSlow", "slow", "info", f"{_WHERE} takes more than 1.5 times as long as the lane's average stage."
    )
    yield from _bottleneck(
        "ParoptStageUneven",
        "uneven",
        "info",
        f"In {_INSIDE} the slowest task takes more than three times as long as the fastest.",
    )
    yield from _bottleneck(
        "ParoptStageGilBound",
        "gil_bound",
        "info",
        f"{_WHERE} is CPU-bound Python in threads: they take turns on one core.",
    )
    yield from held.iter_stories(
        "ParoptLaneUneven",
        series(families.LANE_BOTTLENECK, LANE, kind="uneven"),
        Firing(
            severity="info",
            labels={**LANE, "kind": "uneven"},
            description=(
                "In lane standard (project shop) on build-1:10178 the slowest stage takes more than three times as "
                "long as the fastest."
            ),
        ),
        others=[series(families.LANE_BOTTLENECK, LANE, kind=kind) for kind in ("under_used", "saturated")],
        hold_minutes=15,
    )


def _cache() -> Iterator[Story]:
    alert = "ParoptCacheUnusable"
    counter, other = (
        series(families.CACHE_LOOKUPS, {**STAGE, "result": "miss", "reason": reason}) for reason in ("store", "inputs")
    )
    firing = Firing(
        severity="info",
        labels=STAGE,
        description=(
            f"{_WHERE} ran within the last hour because the store of cached results, or a result in it, could not be "
            "used."
        ),
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={counter: "0x4 1x80"},
        then={"4m": (), "5m": (firing,), "64m": (firing,), "65m": ()},
    )
    yield Story(
        alert=alert, shows=Shows.SILENCE, given={counter: "7x40", other: "0x4 1x36"}, then={"5m": (), "40m": ()}
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given={counter: "0x4 1x4 stale _ 1x80"},
        then={"9m": (firing,), "12m": (firing,), "66m": ()},
    )


def _bottleneck(alert: str, kind: str, severity: str, description: str) -> Iterator[Story]:
    others = [other for other in families.STAGE_BOTTLENECKS if other != kind]
    yield from held.iter_stories(
        alert,
        series(families.BOTTLENECK, STAGE, kind=kind),
        Firing(severity=severity, labels={**STAGE, "kind": kind}, description=description),
        others=[series(families.BOTTLENECK, STAGE, kind=other) for other in others],
        hold_minutes=15,
    )


def _failing() -> Iterator[Story]:
    alert = "ParoptStageFailing"

    def failing(values: str) -> dict[str, str]:
        return {series(families.STAGE_FAILING, STAGE): values}

    def build_firing(after: str) -> Firing:
        return Firing(
            severity="warning",
            labels={**STAGE, "after": after},
            description=f"{_WHERE} failed, timed out or could not run, and no run of it has succeeded for {after}.",
        )

    firing, early = build_firing("15m"), build_firing("2m")
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given=failing("0x4 1x24 0x10"),
        then={"19m": (), "20m": (firing,), "29m": (firing,), "30m": ()},
    )
    interval = series(families.RUN_INTERVAL, LANE)
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={**failing("0x4 1x9 0x9"), interval: "60x30"},
        then={"7m": (), "8m": (early,), "14m": (early,), "15m": ()},
    )
    # Its runs end each 15 s, and rules are evaluated each minute.
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        step="15s",
        every="1m",
        given={**failing("0x19 1x60"), interval: "15x80"},
        then={"7m": (), "8m": (early,), "19m": (early,)},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        step="15s",
        every="1m",
        given={**failing(" ".join(["1 0 1 1"] * 20)), interval: "15x80"},
        then={"2m": (), "10m": (), "19m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={**failing("0x4 1x19 0x9"), interval: "61x30"},
        then={"7m": (), "19m": (), "20m": (firing,), "24m": (firing,), "25m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={**failing("0x4 1x40"), interval: "60x9 stale"},  # the lane does not repeat any more
        then={"8m": (early,), "14m": (early,), "15m": (), "29m": (), "30m": (firing,)},
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={**failing("0x4 1x4 stale"), interval: "60x30"},
        then={"9m": (early,), "14m": (early,), "15m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given={**failing("0x4 1x4 stale _x2 1x18 stale"), interval: "60x9 stale _x2 60x40"},
        then={"9m": (early,), "11m": (early,), "12m": (early,), "25m": (early,), "35m": (early,), "37m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={**failing("0x4 1x1 0 1x1 0x9"), interval: "60x30"},  # it recovers in time, twice
        then={"6m": (), "7m": (), "9m": (), "10m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given=failing("0x40"),
        then={"20m": (), "40m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given=failing("0x4 1x4 stale _x2 1x18 stale"),
        then={"19m": (), "20m": (firing,), "35m": (firing,), "37m": ()},
    )


def _stuck() -> Iterator[Story]:
    alert = "ParoptStageStuck"

    def stage(name: str, *, running: str, cpu: str, progress: str) -> dict[str, str]:
        place = {**LANE, "stage": name}
        return {
            series(families.STAGE_TASKS_RUNNING, place): running,
            series(families.STAGE_CPU, place): cpu,
            series(families.STAGE_PROGRESS, place): progress,
        }

    def firing(name: str) -> Firing:
        return Firing(
            severity="warning",
            labels={**LANE, "stage": name},
            description=(
                f"Stage {name} of lane standard (project shop) on build-1:10178 has been running for 15 minutes "
                "without using CPU and without ending a task."
            ),
        )

    # 0.5 s of CPU in a minute are 0.0083 cores, 0.7 s are 0.0117.
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        given={
            **stage("hangs", running="2x29 0x9", cpu="100+0.5x40", progress="0.5x40"),
            **stage("hangs_later", running="1x40", cpu="0+60x10 600x30", progress="0+0.05x10 0.5x30"),
        },
        then={
            "15m": (),
            "16m": (firing("hangs"),),
            "28m": (firing("hangs"),),
            "29m": (firing("hangs"),),
            "31m": (firing("hangs_later"),),
        },
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={
            **stage("computes", running="1x40", cpu="100+0.7x40", progress="0.5x40"),
            **stage("advances", running="1x40", cpu="100x40", progress="0x3 0.1x3 0.2x3 0.3x3 0.4x3 0.5x3 0.6x3 0.7x3"),
            **stage("waits_for_workers", running="0x40", cpu="100x40", progress="0.5x40"),
            **stage("ends", running="2x12 stale", cpu="100x40", progress="0.5x12 1x27"),
            **stage("not_known_to_run", running="1x9 stale", cpu="100x40", progress="0.5x40"),
        },
        then={"16m": (), "30m": ()},
    )
    ended = series(families.RUN_LAST_COMPLETION, LANE)
    waits = stage("waits", running="1x40", cpu="100x40", progress="0x40")
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # The last run ended at 10m, and the next one hangs from its start.
        given={**waits, ended: "600x9 1200x30"},
        then={"29m": (), "30m": (firing("waits"),), "39m": (firing("waits"),)},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        # Runs of five minutes, each of which begins when the one before has ended: no scrape sees the end of one.
        given={**waits, ended: "0x4 300x4 600x4 900x4 1200x4 1500x4 1800x4 2100x4"},
        then={"16m": (), "30m": (), "39m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # A busy host misses a scrape now and then.
        given=stage("hangs", running="1x9 stale 1x30", cpu="100x9 stale 100x30", progress="0.5x9 stale 0.5x30"),
        then={"15m": (), "16m": (firing("hangs"),)},
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        # The restart ends the stage that hung; the next run's hangs as well.
        given=stage("hangs", running="1x19 stale _ 1x40", cpu="100x19 stale _ 0x40", progress="0.5x19 stale _ 0x40"),
        then={"16m": (firing("hangs"),), "21m": (firing("hangs"),), "22m": (), "39m": (), "40m": (firing("hangs"),)},
    )


def _flaky() -> Iterator[Story]:
    alert = "ParoptStageFlaky"

    def stage(name: str, *, attempts: str, flaky: str) -> dict[str, str]:
        place = {**LANE, "stage": name}
        return {series(families.FIRST_ATTEMPTS, place): attempts, series(families.FLAKY_ATTEMPTS, place): flaky}

    def firing(name: str, ratio: str) -> Firing:
        return Firing(
            severity="info",
            labels={**LANE, "stage": name},
            description=(
                f"Stage {name} of lane standard (project shop) on build-1:10178: {ratio} of its first attempts "
                "within a day failed and later passed with the same files."
            ),
        )

    # A run each 10 minutes: 144 a day. The second flaky attempt at 8h10m; the first one leaves the window at 28h10m.
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        step="10m",
        given=stage("unit_tests", attempts="0+1x400", flaky="0x24 1x23 2x400"),
        then={
            "8h": (),
            "8h10m": (firing("unit_tests", "4.082%"),),
            "27h": (firing("unit_tests", "1.389%"),),
            "28h20m": (),
        },
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        step="10m",
        given={
            **stage("once", attempts="0+1x400", flaky="0x24 1x400"),
            **stage("rare", attempts="0+9x400", flaky="0x24 1x23 2x400"),
            **stage("steady", attempts="0+1x400", flaky="0x400"),
            **stage("once_a_day", attempts="0+0.5x400", flaky="0x24 1x155 2x400"),
            **stage("twice_a_day", attempts="0+2x400", flaky="0x150 2x148 4x400"),
            **stage("not_run", attempts="9x400", flaky="2x400"),
        },
        then={"5h": (), "9h": (), "25h": (), "33h": (), "51h": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        step="10m",
        # The counters continue from history.
        given=stage("unit_tests", attempts="0+1x50 stale _ 51+1x100", flaky="0x24 1x23 2x2 stale _ 2x100"),
        then={"8h10m": (firing("unit_tests", "4.082%"),), "9h": (firing("unit_tests", "3.846%"),)},
    )


def _overdue() -> Iterator[Story]:
    alert = "ParoptLaneNotSucceeding"

    def lane(
        name: str,
        *,
        success: str = "",
        failures: str = "0x60",
        stopped: str = "0x60",
        every: str = "600x60",
        started: str = "",
    ) -> dict[str, str]:
        place = {**TARGET, "lane": name}
        return {
            series(families.RUNS, place, result="failure"): failures,
            series(families.RUNS, place, result="cancellation"): stopped,
            series(families.RUNS, place, result="success"): "9x60",
            **({series(families.RUN_LAST_SUCCESS, place): success} if success else {}),
            **({series(families.RUN_INTERVAL, place): every} if every else {}),
            **({series(families.RUN_STARTED, place): started} if started else {}),
        }

    def firing(name: str) -> Firing:
        return Firing(
            severity="warning",
            labels={**TARGET, "lane": name},
            description=(
                f"Lane {name} (project shop) on build-1:10178 runs at an interval, and its last success is more than "
                "two intervals ago, or it has never succeeded."
            ),
        )

    fails, never = firing("fails"), firing("never")
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # A success at 10m, each 10 minutes expected: overdue after 30m.
        given={
            **lane("fails", success="600x60 3660x20"),
            **lane("never", failures="0x9 1x60", stopped="0x19 1x60"),
        },
        then={
            "34m": (),
            "35m": (never,),
            "45m": (never,),
            "46m": (fails, never),
            "60m": (fails, never),
            "61m": (never,),
        },
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # Of a shorter interval than two and a half minutes, five minutes count.
        given=lane("often", success="0x60", every="60x60"),
        then={"20m": (), "21m": (firing("often"),)},
    )
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # The first run begins at 1m: overdue after 21m. One scrape fails.
        given={
            **lane("first_run_goes_on", started="60x28 stale 60x30"),
            **lane("first_run_ended_without_success", started="60x26 stale", failures="0x26 1x30"),
        },
        then={
            "36m": (),
            "37m": (firing("first_run_goes_on"),),
            "60m": (firing("first_run_goes_on"),),
        },
    )
    never_yet = tuple(map(firing, ("never_repeated_no_more", "never_and_gone")))
    late = tuple(map(firing, ("repeated_no_more", "success_unknown")))
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        # Removed series last five minutes: none is left at 15m or at 45m.
        given={
            **lane("repeated_no_more", success="0x60", every="600x39 stale"),
            **lane("success_unknown", success="0x39 stale"),
            **lane("never_repeated_no_more", failures="5x60", every="600x39 stale"),
            **lane("never_and_gone", failures="5x39 stale", stopped="0x39 stale"),
            **lane("success_forgotten", success="600x9 stale", failures="5x34 0x40"),
        },
        then={
            "14m": (),
            "15m": never_yet,
            "29m": never_yet,
            "30m": (*never_yet, firing("success_forgotten")),
            "34m": (*never_yet, firing("success_forgotten")),
            "35m": never_yet,
            "36m": (*never_yet, *late),
            "43m": (*never_yet, *late),
            "45m": (),
        },
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        given={
            **lane("in_time", success="600x29 1800x30"),
            **lane("failed_once", failures="1x60"),
            # Each evaluation comes 20 s after the end of a run.
            **lane("longer_than_its_interval", success="0 40+60x58", every="5x60"),
            **lane("not_repeated", success="0x60", failures="5x60", started="0x60", every=""),
            **lane("starts_after_a_success", success="1200x60", started="0x60"),
        },
        then={"30m": (), "40m": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.RESTART,
        given={
            **lane("fails", success="600x32 stale _x2 600x30", every="600x32 stale _x2 600x30"),
            **lane("in_time", success="600x29 1800x3 stale _x2 1800x14", every="600x32 stale _x2 600x15"),
        },
        then={"45m": (), "46m": (fails,), "55m": (fails,)},
    )


def _throughput() -> Iterator[Story]:
    alert = _THROUGHPUT
    project = without(TARGET, "instance")

    def lane(name: str, *, tasks: str, before: str = "2000x72 1000x40", runs: str = "5x200") -> dict[str, str]:
        """Return a lane's last 6 hours in tasks of 100 s, and its past: 2 tasks per second, fewer from 6h on."""
        place = {**project, "lane": name}
        return {
            format_series(recording.select_tasks(RECORDED, "6h"), place): tasks,
            format_series(recording.select_run_seconds(RECORDED, "6h"), place): "100x200",
            format_series(recording.select_tasks(RECORDED, "7d"), place): before,
            format_series(recording.select_run_seconds(RECORDED, "7d"), place): "1000x200",
            format_series(recording.select_runs(RECORDED, "7d"), place): runs,
        }

    firing = _slower("slower", "1.58")
    yield Story(
        alert=alert,
        shows=Shows.FIRING,
        step="5m",
        given=lane("slower", tasks="158x83 200x9"),
        then={"6h25m": (), "6h30m": (firing,), "6h55m": (firing,), "7h": ()},
    )
    yield Story(
        alert=alert,
        shows=Shows.SILENCE,
        step="5m",
        given={**lane("steady", tasks="162x100"), **lane("new", tasks="158x100", runs="4x200")},
        then={"6h30m": (), "8h": ()},
    )


def iter_restart_stories() -> Iterator[Story]:
    """Yield stories from raw counters through the recordings to the alert, across a restart without history."""
    # 2 tasks a second of running for 8 hours, 1.5 after that: 6 hours later the whole span is slower.
    before, after = "0+4x480 1924+3x120 stale _ 0+3x400", "0+2x602 stale _ 0+2x400"
    yield Story(
        alert=_THROUGHPUT,
        shows=Shows.RESTART,
        every="5m",
        given={
            series(families.RUN_TASKS, LANE): before,
            series(families.RUN_DURATION, LANE, part="sum"): after,
            series(families.RUN_DURATION, LANE, part="count"): "0+1x601 stale _ 0+1x400",
        },
        then={"12h30m": (), "14h30m": (_slower("standard", "1.5"),), "15h": (_slower("standard", "1.5"),)},
    )
    # Half of the runs were cached in part for 10 hours, none after that: the others are as fast as before.
    yield Story(
        alert=_THROUGHPUT,
        shows=Shows.SILENCE,
        every="5m",
        given={
            series(families.TASK_ATTEMPTS, STAGE, result="success"): "0+3x600 1802+2x400",
            series(families.RUN_TASKS, LANE): "0+2x1000",
            series(families.RUN_DURATION, LANE, part="sum"): "0+10x1000",
            series(families.RUN_DURATION, LANE, part="count"): "0+1x1000",
        },
        then={"14h": (), "16h30m": ()},
    )


def _slower(lane: str, throughput: str) -> Firing:
    return Firing(
        severity="warning",
        labels={**without(TARGET, "instance"), "lane": lane},
        description=(
            f"Lane {lane} (project shop) did {throughput} tasks in a second of running over the last 6h, under 80 % of "
            "its rate over the 7d before."
        ),
    )
