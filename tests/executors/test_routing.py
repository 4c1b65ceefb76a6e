"""Router chooses threads or processes by measurements, and saved profiles spare later pools the measuring."""

from __future__ import annotations

import json
import logging
import os
import threading
from concurrent.futures import wait
from pathlib import Path

import pytest

from paropt_exporter.cpu_demand import NO_SWITCHES, Switches
from paropt_exporter.events import Measurement, Strategy
from paropt_exporter.executors import AdaptivePool, ProcessPool, Router, lifetime
from paropt_exporter.executors.adaptive.routing import FunctionProfile, load_profiles, save_profiles
from support.pool_tasks import HANG_SECONDS, nothing, spin


def measured(
    *, cpu: float, wall: float = 1.0, delay: float = 0.0, pid: int | None = None, switches: Switches = NO_SWITCHES
) -> Measurement:
    return Measurement(
        worker="w", pid=os.getpid() if pid is None else pid, started_seconds=10.0, ended_seconds=10.0 + wall,
        cpu_seconds=cpu, run_delay_seconds=delay, switches=switches,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "place"),
    [
        (Strategy.THREAD, "threads"),
        (Strategy.SEQUENTIAL, "threads"),
        (Strategy.PROCESS, "processes"),
        (Strategy.HYBRID, "threads"),
        (Strategy.ADAPTIVE, "threads"),
    ],
)
def test_unknown_function_follows_the_strategy(strategy: Strategy, place: str) -> None:
    assert Router(strategy).choose("f") == place


@pytest.mark.parametrize("strategy", [Strategy.HYBRID, Strategy.ADAPTIVE])
def test_cpu_bound_function_moves_and_waiting_function_stays(strategy: Strategy) -> None:
    router = Router(strategy)
    router.learn("burns", measured(cpu=0.95), concurrent=1)
    router.learn("waits", measured(cpu=0.01), concurrent=8)
    assert (router.choose("burns"), router.choose("waits")) == ("processes", "threads")
    assert (router.is_gil_bound("burns"), router.is_gil_bound("waits")) == (True, False)


@pytest.mark.parametrize(("concurrent", "share"), [(2, 0.51), (4, 0.27), (8, 0.15)])
def test_burners_that_share_the_interpreter_lock_are_recognized(concurrent: int, share: float) -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("burns", measured(cpu=share), concurrent=concurrent)
    assert router.choose("burns") == "processes"


def test_function_that_once_computed_in_threads_is_not_bound_by_the_lock_for_good() -> None:
    """One reading counted for the whole run: 300 calls that slept for 30 ms of 35 ran one at a time, for 12 s."""
    router = Router(Strategy.THREAD)
    router.learn("f", measured(cpu=0.9), concurrent=1)
    assert router.is_gil_bound("f")
    for _ in range(3):
        router.learn("f", measured(cpu=0.15), concurrent=1)
    assert not router.is_gil_bound("f")


def test_threads_that_fill_the_lock_but_sleep_too_are_not_bound_by_it() -> None:
    """Six threads that each compute for 5 ms of 35 fill the lock, and computing ones would switch more often."""
    router = Router(Strategy.ADAPTIVE)
    router.learn("sleeps", measured(cpu=0.0053, wall=0.036, switches=Switches(3, 2)), concurrent=6)
    router.learn("computes", measured(cpu=0.0053, wall=0.036, switches=Switches(7, 2)), concurrent=6)
    assert [router.is_gil_bound(name) for name in ("sleeps", "computes")] == [False, True]
    assert router.get_cpu_demand("sleeps") == pytest.approx(0.147, abs=0.001)


@pytest.mark.parametrize(
    ("wall", "cpu", "delay", "switches", "bound"),
    [
        (0.804, 0.1000, 0.497, Switches(113, 304), True),  # computes
        (1.138, 0.1000, 0.855, Switches(121, 281), True),
        (0.056, 0.0053, 0.021, Switches(1, 8), False),  # computes for 5 ms, and sleeps for 30
        (0.498, 0.0206, 0.076, Switches(20, 27), False),  # computes for 1 ms, and sleeps for 20, again and again
    ],
)
def test_two_threads_are_recognized_beside_programs_that_preempt_them_often(
    *, wall: float, cpu: float, delay: float, switches: Switches, bound: bool
) -> None:
    """Measured at a load of 15 from short processes: a thread that computed ran for 0.2 ms at a time."""
    router = Router(Strategy.THREAD)
    router.learn("f", measured(cpu=cpu, wall=wall, delay=delay, switches=switches), concurrent=2)
    assert router.is_gil_bound("f") is bound


@pytest.mark.parametrize("pid", [None, 1])
def test_wait_of_an_ended_call_for_a_core_is_no_demand(pid: int | None) -> None:
    """Beside 4 busy loops, calls that sleep for 30 ms of 35 and wait for 60 ms more read as 0.7 of a core."""
    router = Router(Strategy.ADAPTIVE)
    router.learn("sleeps", measured(cpu=0.005, wall=0.095, delay=0.06, pid=pid), concurrent=1)
    assert router.get_cpu_demand("sleeps") == pytest.approx(1 / 7)


def test_threads_that_compute_on_a_busy_machine_are_recognized() -> None:
    """Beside 16 busy loops, twelve threads of an ADAPTIVE pool computed for 30 s without moving to processes."""
    router = Router(Strategy.ADAPTIVE)
    starved = measured(cpu=0.0504, wall=2.8139, delay=1.0825, switches=Switches(318, 54))
    router.learn("burns", starved, concurrent=1)
    assert (router.choose("burns"), router.is_gil_bound("burns")) == ("processes", True)


def test_sample_that_may_show_sleep_or_a_wait_for_a_core_leads_to_a_trial() -> None:
    """The kernel adds a wait for a core only when it ends: until then, it looks like sleep."""
    router = Router(Strategy.ADAPTIVE)
    sample = measured(cpu=0.0122, wall=1.6572, delay=1.3192, switches=Switches(31, 3))
    router.learn("f", sample, concurrent=3, running=True)
    assert (router.choose("f"), router.needs_trial("f")) == ("threads", True)


@pytest.mark.parametrize("threads", [2, 8, 64])
def test_waiting_function_that_starts_to_compute_moves_after_two_trials(threads: int) -> None:
    """In threads its tasks last longer, so a trial hardly counted: it took 14 trials with 8 threads, 104 with 64."""
    router = Router(Strategy.ADAPTIVE)
    for _ in range(20):
        router.learn("f", measured(cpu=0.0001, wall=0.05), concurrent=1)
    for _ in range(2):
        for _ in range(threads):
            router.learn("f", measured(cpu=0.05, wall=0.05 * threads), concurrent=threads)
        assert router.needs_trial("f")
        router.learn("f", measured(cpu=0.05, wall=0.05, pid=1), concurrent=1)
    assert router.choose("f") == "processes"


@pytest.mark.parametrize("running", [True, False])
def test_only_an_ended_task_or_a_trial_removes_the_doubt_about_a_waiting_function(*, running: bool) -> None:
    """Samples of tasks that had just started removed it, and then the result of the trial hardly counted."""
    router = Router(Strategy.ADAPTIVE)
    seen_to_wait(router)
    router.learn("f", measured(cpu=0.02), concurrent=60)
    router.learn("f", measured(cpu=0.001, wall=0.02), concurrent=1, running=running)
    assert router.needs_trial("f") is running


def test_short_task_that_waited_for_a_core_stays_in_threads() -> None:
    """Beside others, a task of 0.1 ms took 4 ms, and a function whose results can't be pickled failed in a process."""
    router = Router(Strategy.ADAPTIVE)
    router.learn("short", measured(cpu=0.0001, wall=0.004, delay=0.0038), concurrent=1)
    assert (router.choose("short"), router.needs_no_decision("short")) == ("threads", True)


def test_brief_tasks_of_which_one_waited_for_the_lock_stay_in_threads() -> None:
    """Their mean demand was that of the brief ones, and their mean duration that of the other one."""
    router = Router(Strategy.ADAPTIVE)
    for cpu, wall in ((4e-6, 5e-6), (3e-4, 0.036), (6e-6, 7e-6), (6e-6, 7e-6)):
        router.learn("brief", measured(cpu=cpu, wall=wall), concurrent=1)
        assert router.choose("brief") == "threads"


def test_wait_for_a_core_counts_as_demand() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("burns", measured(cpu=0.4, delay=0.58), concurrent=1)
    assert router.choose("burns") == "processes"


def test_function_that_wakes_up_late_stays_in_threads() -> None:
    router = Router(Strategy.ADAPTIVE)
    for _ in range(20):
        router.learn("sleeps", measured(cpu=0.0001, wall=0.107, delay=0.056), concurrent=1)
        router.learn("burns", measured(cpu=0.002, wall=0.1, delay=0.098), concurrent=1)  # beside 49 others
        router.learn("starves", measured(cpu=0.003, wall=0.4, delay=0.397), concurrent=1)
    places = [router.choose(name) for name in ("sleeps", "burns", "starves")]
    assert places == ["threads", "processes", "processes"]


def test_wait_of_a_short_run_for_a_core_is_no_demand() -> None:
    """At a load of 20 on 2 cores, sleeps of 1 ms ran 0.01 ms and waited 7 ms, and so got 2 threads, not 8."""
    router = Router(Strategy.ADAPTIVE)
    for _ in range(20):
        router.learn("sleeps", measured(cpu=0.00001, wall=0.0083, delay=0.0073), concurrent=1)
        router.learn("computes", measured(cpu=0.0004, wall=0.0083, delay=0.0079), concurrent=1)
    assert router.get_cpu_demand("sleeps") == pytest.approx(0.01)
    assert router.get_cpu_demand("computes") == pytest.approx(1.0)


def test_first_task_of_a_brief_function_is_not_measured() -> None:
    """The measurement took half of the CPU time of an AdaptivePool that ran a single task."""
    router = Router(Strategy.ADAPTIVE)
    assert [router.choose_to_measure(name) for name in ("short", "long")] == [False, False]
    router.learn_duration("short", 0.0001, 0.0001)
    router.learn_duration("long", 0.005, 0.0)
    assert [router.choose_to_measure(name) for name in ("short", "long")] == [False, True]
    assert (router.needs_no_decision("short"), router.get_cpu_demand("long")) == (True, None)


@pytest.mark.parametrize(("seconds", "expected"), [(1e-6, 1), (0.0009, 43), (0.004, 8), (0.5, 1000)])
def test_part_of_the_tasks_of_a_known_function_are_measured(seconds: float, expected: int) -> None:
    router = settled(seconds)
    assert sum(router.choose_to_measure("f") for _ in range(1000)) == pytest.approx(expected, abs=1)


def test_cpu_time_of_a_task_calls_for_a_measurement() -> None:
    """Half of all sleeps of 10 ms were measured, which took a third of the CPU time of an AdaptivePool."""
    router = settled(0.01)
    assert [router.choose_to_measure("f") for _ in range(12)] == [False, True, *10 * [False]]
    router.learn_duration("f", 0.01, 0.0002)
    assert not router.choose_to_measure("f")
    router.learn_duration("f", 0.02, 0.005)
    assert [router.choose_to_measure("f") for _ in range(2)] == [False, True]


def settled(seconds: float) -> Router:
    """Return a router that knows that f waits for so long."""
    router = Router(Strategy.ADAPTIVE)
    for _ in range(5):
        router.learn("f", measured(cpu=0.0, wall=seconds), concurrent=1)
    return router


def test_function_that_waits_in_processes_returns_to_threads() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("changes", measured(cpu=1.0), concurrent=1)
    for _ in range(5):
        router.learn("changes", measured(cpu=0.0, pid=1), concurrent=1)
    assert router.choose("changes") == "threads"


def test_short_tasks_stay_in_threads() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("short", measured(cpu=0.0005, wall=0.0005), concurrent=1)
    assert router.choose("short") == "threads"


def test_pinned_function_stays_with_its_reason() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.pin_to_threads("f", "it is marked thread_only")
    router.learn("f", measured(cpu=1.0), concurrent=1)
    assert (router.choose("f"), router.get_pin_reason("f")) == ("threads", "it is marked thread_only")


def seen_to_wait(router: Router) -> None:
    for _ in range(5):
        router.learn("f", measured(cpu=0.02), concurrent=1)


def test_waiting_functions_under_a_full_lock_need_a_trial() -> None:
    router = Router(Strategy.ADAPTIVE)
    seen_to_wait(router)
    router.learn("f", measured(cpu=0.02), concurrent=60)
    assert (router.choose("f"), router.needs_trial("f")) == ("threads", True)


@pytest.mark.parametrize(("cpu", "place"), [(0.02, "threads"), (1.0, "processes")])
def test_trial_in_a_process_decides(cpu: float, place: str) -> None:
    router = Router(Strategy.ADAPTIVE)
    seen_to_wait(router)
    router.learn("f", measured(cpu=0.02), concurrent=60)
    for _ in range(2):
        router.learn("f", measured(cpu=cpu, pid=1), concurrent=1)
    assert (router.choose("f"), router.needs_trial("f")) == (place, False)


def test_pinned_function_needs_no_trial() -> None:
    router = Router(Strategy.ADAPTIVE)
    seen_to_wait(router)
    router.pin_to_threads("f", "it is marked thread_only")
    router.learn("f", measured(cpu=0.02), concurrent=60)
    assert not router.needs_trial("f")


def test_known_cpu_bound_function_starts_in_processes(tmp_path: Path) -> None:
    memory = tmp_path / "functions.json"
    save_profiles(memory, [FunctionProfile(function=f"{spin.__module__}.spin", cpu_demand=1.0, seconds=0.05)])
    with AdaptivePool(memory=memory) as pool:
        assert pool.submit(spin, 0.01).result(HANG_SECONDS) != os.getpid()


@pytest.mark.parametrize("warm", [False, True])
def test_thread_computes_meanwhile_only_if_processes_start_slowly(tmp_path: Path, *, warm: bool) -> None:
    memory = tmp_path / "functions.json"
    save_profiles(memory, [FunctionProfile(function=f"{spin.__module__}.spin", cpu_demand=1.0, seconds=0.05)])
    lifetime.FORK_SERVERS.close()
    if warm:
        with ProcessPool(1) as pool:
            pool.submit(nothing).result(HANG_SECONDS)
    with AdaptivePool(memory=memory) as adaptive:
        futures = [adaptive.submit(spin, 0.02) for _ in range(12)]
        here = sum(future.result(HANG_SECONDS) == os.getpid() for future in futures)
    assert here == 0 if warm else here > 0


def test_pool_saves_its_profiles(tmp_path: Path) -> None:
    memory = tmp_path / "functions.json"
    with AdaptivePool(memory=memory) as pool:
        wait([pool.submit_named("spin", spin, 0.02) for _ in range(4)], HANG_SECONDS)
    (profile,) = load_profiles(memory)
    assert profile.function == f"{spin.__module__}.spin"
    assert profile.cpu_demand > 0.1  # a waiting function has almost none


def test_known_waiting_function_gets_threads_before_the_first_sample(tmp_path: Path) -> None:
    memory = tmp_path / "functions.json"
    name = f"{threading.Barrier.wait.__module__}.{threading.Barrier.wait.__qualname__}"
    save_profiles(memory, [FunctionProfile(function=name, cpu_demand=0.0, seconds=1.0)])
    barrier = threading.Barrier(12)  # opens only when all tasks run at once
    with AdaptivePool(memory=memory) as pool:
        futures = [pool.submit(barrier.wait, HANG_SECONDS) for _ in range(12)]
        assert pool.target >= 12
        assert wait(futures, HANG_SECONDS).not_done == set()


def test_newest_profile_replaces_the_old_one_of_its_function(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "functions.json"
    old, other = (FunctionProfile(function=name, cpu_demand=0.5, seconds=1.0) for name in ("old", "other"))
    save_profiles(path, [old, other])
    newer = FunctionProfile(function="old", cpu_demand=1.0, seconds=2.0)
    save_profiles(path, [newer])
    assert load_profiles(path) == (other, newer)
    assert [entry.name for entry in path.parent.iterdir()] == ["functions.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"functions": 3}',
        '{"functions": {"a": {"cpu_demand": 7, "seconds": 1, "children_demand": 0}}}',
        '{"functions": {"a": {"cpu_demand": NaN, "seconds": 1, "children_demand": 0}}}',
        '{"functions": {"a": {"cpu_demand": "x", "seconds": 1, "children_demand": 0}}}',
        "\0",
    ],
)
def test_invalid_profiles_are_logged_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = tmp_path / "functions.json"
    path.write_text(content)
    with caplog.at_level(logging.WARNING), AdaptivePool(memory=path) as pool:
        assert pool.submit(nothing).result(HANG_SECONDS) is None
    assert "can't be read" in caplog.text
    assert "functions" in json.loads(path.read_text())


def test_unwritable_profiles_are_logged_without_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), AdaptivePool(memory=tmp_path) as pool:
        assert pool.submit(nothing).result(HANG_SECONDS) is None
    assert "can't be saved" in caplog.text
