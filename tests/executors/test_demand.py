"""CPU demand in cores, from samples of core time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from paropt_exporter.cpu_demand import CoreTime, Switches, compute_undelayed_seconds, task_cpu_demand
from paropt_exporter.events import RunningTask
from paropt_exporter.executors.demand import ChildDemand, DemandMeter, build_samples, is_gil_bound, shows_demand


def running(label: str, run: float, *, wait: float = 0.0, at: float | None = None) -> RunningTask:
    return RunningTask(
        label=label,
        worker="w",
        started_seconds=10.0,
        cpu_seconds=run,
        memory_bytes=0,
        core_time=CoreTime(run, wait),
        sampled_seconds=at,
        children_sampled_seconds=at if run + wait > 0 else None,
    )


def sampled(meter: DemandMeter, now: float, *tasks: RunningTask) -> None:
    meter.sample(build_samples(tasks, now), now)


def test_demand_is_known_after_a_window_and_stays_with_the_stage() -> None:
    meter = DemandMeter()
    sampled(meter, 10.0, running("a[0]", 1.0))
    assert meter.get_task_demand("a[0]", "a") is None
    sampled(meter, 10.2, running("a[0]", 1.1))
    assert meter.get_task_demand("a[0]", "a") == pytest.approx(0.5)
    sampled(meter, 10.3)
    assert meter.get_group_demand("a") == pytest.approx(0.5)
    assert meter.get_group_demand("b") is None


@pytest.mark.parametrize(("label", "stage"), [("b[x]", "b[x]"), ("b[x][1]", "b[x]"), ("a[0][0]", "a[0]"), ("[b", "[b")])
def test_demand_of_a_stage_with_brackets_in_its_name_is_known(label: str, stage: str) -> None:
    meter = DemandMeter()
    sampled(meter, 10.0, running(label, 1.0))
    sampled(meter, 10.2, running(label, 1.1))
    assert meter.get_group_demand(stage) == pytest.approx(0.5)


def test_starved_burner_wants_a_whole_core() -> None:
    meter = DemandMeter()
    sampled(meter, 10.0, running("a", 0.0))
    sampled(meter, 10.1, running("a", 0.01, wait=0.09))
    assert meter.get_task_demand("a", "a") == pytest.approx(1.0)


def test_starved_start_of_a_command_that_then_sleeps_is_soon_outweighed() -> None:
    """Beside six busy loops, the other sleepers were held back for several times as long as the start had taken."""
    meter = DemandMeter()
    for tick in range(6):
        sampled(meter, 10.0 + tick / 10, running("a", 0.005 * tick, wait=0.095 * tick))
    assert meter.get_group_demand("a") == pytest.approx(1.0)
    for tick in range(1, 8):
        sampled(meter, 10.5 + tick / 10, running("a", 0.025, wait=0.475, at=10.5 + tick / 10))
    assert (meter.get_group_demand("a") or 0.0) < 0.1


def test_starved_computing_soon_outweighs_a_moment_of_sleep() -> None:
    """The shell of a command may wait for its first child when it is first sampled."""
    meter = DemandMeter()
    sampled(meter, 10.0, running("a", 0.0))
    sampled(meter, 10.06, running("a", 0.0, at=10.06))
    for tick in range(1, 6):
        sampled(meter, 10.06 + 0.06 * tick, running("a", 0.005 * tick, wait=0.055 * tick, at=10.06 + 0.06 * tick))
    assert (meter.get_group_demand("a") or 0.0) > 0.4


def test_ended_command_with_a_starved_start_counts_as_it_would_have_run_alone() -> None:
    """It waited two seconds for a core in its start, then slept for one."""
    assert task_cpu_demand(CoreTime(0.03, 2.0), 3.03) == pytest.approx(0.03, abs=0.01)
    assert compute_undelayed_seconds(CoreTime(0.03, 2.0), 3.03) == pytest.approx(1.03)


@pytest.mark.parametrize(
    ("run", "wait", "wall", "demand"),
    [
        (0.15, 1.2, 1.359, 1.0),  # computes; 9 ms of its waits were not counted
        (0.15, 1.2, 1.336, 1.0),  # likewise; 14 ms of them were counted twice
        (0.5, 2.5, 1.0, 3.0),  # three processes that compute
        (1.0, 3.0, 2.5, 1.6),  # two processes that compute in half of the time: their waits overlap
    ],
)
def test_ended_command_that_computed_on_a_crowded_machine_wants_its_cores(
    run: float, wait: float, wall: float, demand: float
) -> None:
    assert task_cpu_demand(CoreTime(run, wait), wall) == pytest.approx(demand, rel=0.02)


def in_thread(run: float, *, wait: float, at: float) -> RunningTask:
    task = running("a", run, wait=wait, at=at)
    return replace(task, thread_run_seconds=run, run_delay_seconds=wait)


def test_call_that_wakes_up_late_wants_no_core() -> None:
    """700 calls that sleep for 0.1 s ran six at a time beside 20 busy loops: they waited for a core a third of it."""
    meter = DemandMeter()
    for at, run, wait in ((10.0, 0.0001, 0.0), (10.1, 0.0001, 0.0), (10.16, 0.0001, 0.06), (10.25, 0.0002, 0.12)):
        sampled(meter, at, in_thread(run, wait=wait, at=at))
    assert (meter.get_group_demand("a") or 0.0) < 0.02
    assert meter.get_thread_demand("a", "a") < 0.02


def test_call_that_has_only_waited_for_a_core_is_not_measured_yet() -> None:
    meter = DemandMeter()
    sampled(meter, 10.0, in_thread(0.0001, wait=0.1, at=10.0))
    sampled(meter, 10.1, in_thread(0.0001, wait=0.2, at=10.1))
    assert meter.get_task_demand("a", "a") is None
    sampled(meter, 10.2, in_thread(0.004, wait=0.2961, at=10.2))
    assert meter.get_task_demand("a", "a") == pytest.approx(1.0)


def test_samples_of_a_call_that_mostly_waits_for_a_core_say_less_than_ended_calls() -> None:
    """200 calls that write a file and sleep for 20 ms ran two at a time beside load: samples read 0.65 of a core."""
    meter = DemandMeter()
    meter.learn_ended([("a", 10, 0.06, 2.0, 2.0)], 10.0)
    sampled(meter, 10.0, in_thread(0.001, wait=0.0, at=10.0))
    sampled(meter, 10.1, in_thread(0.002, wait=0.08, at=10.1))
    assert meter.get_task_demand("a", "a") == pytest.approx(0.03)
    for step in range(2, 7):  # then it is older than others were at their end
        at = 10.0 + step / 10
        sampled(meter, at, in_thread(0.01 * step, wait=0.09 * step, at=at))
    assert meter.get_task_demand("a", "a") == pytest.approx(1.0)


def test_call_without_a_child_process_shows_no_demand_of_children_until_it_could_have_started_one() -> None:
    """Its thread and the child's start were starved: the function read 0.06 of a core, and 16 children computed."""
    children = ChildDemand()
    for at, run in ((10.01, 0.0), (10.07, 0.0), (10.09, 0.001), (10.15, 0.006)):
        children.sample([("task", "f", running("a", run, wait=max(0.0, at - 10.09), at=at))], at)
    assert children.get("f") == pytest.approx(1.0, abs=0.1)


def test_child_process_that_has_not_run_yet_makes_its_function_a_parent() -> None:
    """On a busy machine it waits for its first core. The function counted as one that waits: 16 children computed."""
    children = ChildDemand()
    children.sample([("task", "f", replace(running("f", 0.0, at=10.005), children_sampled_seconds=10.005))], 10.005)
    assert children.is_unmeasured("f")
    children.sample([("task", "f", running("f", 0.0, wait=0.055, at=10.06))], 10.06)
    assert children.get("f") == pytest.approx(1.0)


def test_samples_of_child_processes_count_from_when_they_were_taken() -> None:
    """A monitor that waited for a core after its second sample read 0.1 of a core, and 16 children computed."""
    children = ChildDemand()
    children.sample([("task", "f", running("f", 0.0, wait=0.001, at=10.01))], 10.01)
    children.sample([("task", "f", running("f", 0.03, wait=0.031, at=10.07))], 10.5)
    assert children.get("f") == pytest.approx(1.0)


def test_call_that_waits_before_it_starts_a_child_process_wants_little() -> None:
    children = ChildDemand()
    for at in (10.01, 10.2, 10.5, 10.9):
        children.sample([("task", "f", running("a", 0.0, at=at))], at)
    children.sample([("task", "f", running("a", 0.1, at=11.0))], 11.0)
    assert children.get("f") == pytest.approx(0.125, abs=0.03)


def test_short_core_waits_do_not_raise_the_demand_of_a_half_idle_task() -> None:
    meter = DemandMeter()
    sampled(meter, 10.0, running("a", 0.0))
    sampled(meter, 10.2, running("a", 0.08, wait=0.04))
    assert meter.get_task_demand("a", "a") == pytest.approx(0.5)


def test_several_threads_want_several_cores() -> None:
    meter = DemandMeter()
    sampled(meter, 10.0, running("a", 0.0))
    sampled(meter, 10.1, running("a", 0.05, wait=0.25))
    assert meter.get_task_demand("a", "a") == pytest.approx(3.0)


@pytest.mark.parametrize("at", [0.0, 10.0])
def test_repeated_sample_is_no_measurement(at: float) -> None:
    meter = DemandMeter({"a": 1.0})
    for moment in (10.0, 10.5, 11.0):
        sampled(meter, moment, running("a", 0.0, at=at))
    assert meter.get_task_demand("a", "a") == 1.0


def test_demand_follows_a_running_task_quickly() -> None:
    meter = DemandMeter()
    for tick in range(4):
        sampled(meter, 10.0 + tick * 0.06, running("a", tick * 0.06))
    assert meter.get_task_demand("a", "a") == pytest.approx(1.0)
    for tick in range(8):
        sampled(meter, 10.24 + tick * 0.06, running("a", 0.24))
    assert (meter.get_task_demand("a", "a") or 1.0) < 0.1


def test_prior_demand_counts_until_it_is_outweighed() -> None:
    meter = DemandMeter({"a": 0.0})
    assert meter.get_group_demand("a") == 0.0
    meter.learn_ended([("a", 2, 2.0, 2.0, 2.0)], 10.0)
    assert (meter.get_group_demand("a") or 0.0) > 0.8


def test_ended_tasks_count_once() -> None:
    meter = DemandMeter()
    meter.learn_ended([("a", 1, 1.0, 1.0, 1.0)], 10.0)
    meter.learn_ended([("a", 1, 1.0, 1.0, 1.0)], 10.1)
    meter.learn_ended([("a", 2, 1.0, 2.0, 2.0)], 10.1)
    assert meter.get_group_demand("a") == pytest.approx(0.5, abs=0.05)


def test_threads_that_fill_the_interpreter_lock_want_a_core_each() -> None:
    meter = DemandMeter()
    for now, run in ((10.0, 0.0), (10.1, 0.05), (10.2, 0.1), (10.3, 0.15)):
        tasks = [replace(running(f"a[{number}]", run), thread_run_seconds=run) for number in range(2)]
        sampled(meter, now, *tasks)
    assert meter.get_task_demand("a[0]", "a") == pytest.approx(0.5)
    assert (meter.get_group_demand("a") or 0.0) > 0.9


@pytest.mark.parametrize(
    ("what", "wall", "run", "wait", "voluntary", "involuntary"),
    [
        ("2 threads", 0.8556, 0.1001, 0.6486, 54, 91),
        ("2 threads", 5.3104, 0.1001, 4.4952, 207, 77),
        ("2 threads, beside many short processes", 0.7700, 0.1002, 0.4410, 135, 443),
        ("6 threads, beside many short processes", 1.0330, 0.0303, 0.5170, 166, 122),
        ("12 threads", 2.8139, 0.0504, 1.0825, 318, 54),
        ("12 threads", 4.6441, 0.0503, 2.7196, 384, 49),
        ("48 threads", 0.8181, 0.0203, 0.4877, 64, 28),
    ],
)
def test_threads_that_compute_under_one_gil_on_a_busy_machine_are_recognized(
    what: str, wall: float, run: float, wait: float, voluntary: int, involuntary: int
) -> None:
    """Their demand, run / (wall - wait), was at most 0.5, and 0.026 for each of 12 threads."""
    assert is_gil_bound(CoreTime(run, wait), wall, Switches(voluntary, involuntary)), what


@pytest.mark.parametrize(
    ("what", "wall", "run", "wait", "voluntary", "involuntary"),
    [
        ("sleeps 50 ms", 0.0505, 0.0001, 0.0005, 1, 1),
        ("sleeps 50 ms", 0.1183, 0.0001, 0.0682, 1, 0),
        ("sleeps 20 ms, preempted as it wakes up", 0.0206, 0.00014, 0.00023, 6, 3),
        ("sleeps 5 ms at a time", 0.2146, 0.0004, 0.0122, 42, 2),
        ("sleeps 1 ms at a time", 0.4315, 0.0014, 0.3247, 100, 0),
        ("sleeps 1 ms at a time in 48 threads", 0.1207, 0.0006, 0.0145, 119, 5),
        ("computes for a tenth", 1.2960, 0.0508, 0.7395, 37, 46),
        ("computes for 1 ms, sleeps for 20", 0.4800, 0.0212, 0.0690, 35, 81),
        ("computes for 5 ms, sleeps for 30", 0.0560, 0.0053, 0.0210, 1, 8),
        ("computes for a tenth", 2.9046, 0.0506, 2.1835, 72, 33),
    ],
)
def test_threads_that_sleep_on_a_busy_machine_are_not_bound_by_the_gil(
    what: str, wall: float, run: float, wait: float, voluntary: int, involuntary: int
) -> None:
    assert not is_gil_bound(CoreTime(run, wait), wall, Switches(voluntary, involuntary)), what


@pytest.mark.parametrize(
    ("age", "run", "wait", "switches", "shows"),
    [
        (0.02, 0.0001, 0.0, Switches(), True),  # sleeps, on an idle machine
        (0.02, 0.0001, 0.0199, Switches(), False),  # has only waited for a core
        (0.06, 0.0001, 0.05, Switches(1, 0), False),  # likewise, after a sleep
        (0.06, 0.0001, 0.01, Switches(1, 0), True),  # sleeps, on a busy machine
        (0.2371, 0.0006, 0.092, Switches(30, 1), False),  # sleeps a little at a time, or waits for the GIL
        (0.2371, 0.0076, 0.092, Switches(30, 1), True),  # a thread that computes would have been preempted
        (0.4, 0.0006, 0.092, Switches(60, 1), True),  # too old to go on waiting
    ],
)
def test_sample_shows_a_demand_once_it_can_not_be_a_mere_wait(
    *, age: float, run: float, wait: float, switches: Switches, shows: bool
) -> None:
    task = replace(running("a", run, at=10.0 + age), thread_run_seconds=run, run_delay_seconds=wait, switches=switches)
    assert shows_demand(task) is shows
