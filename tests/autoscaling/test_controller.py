"""The controller, step by step on a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Event as Flag
from types import SimpleNamespace

import pytest

from paropt_exporter.autoscaling import control_thread
from paropt_exporter.autoscaling.control_thread import (
    IDLE_TICK_SECONDS,
    TICK_SECONDS,
    ControlThread,
    StepBudget,
    start_admission,
)
from paropt_exporter.autoscaling.controller import QUIET_SECONDS, QUIET_TICK_SECONDS, Controller
from paropt_exporter.autoscaling.host_readings import CachedReading, HostReadings, read_memory_left_bytes
from paropt_exporter.autoscaling.lane_observer import ConcurrencyMeter, KnownStages, LaneObserver, PeakMeter
from paropt_exporter.autoscaling.policy.lane_size import LaneSizingState
from paropt_exporter.autoscaling.policy.stage_concurrency import StageLimitState, StageMeasurement
from paropt_exporter.autoscaling.state import ControlState, Override, SizeBounds
from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.engine.interfaces import Admission, Demand, StageCounts
from paropt_exporter.events import Decision, RunningTask
from paropt_exporter.host import RESERVE_BYTES, compute_reserve_bytes
from paropt_exporter.plan import Bounds
from paropt_exporter.testing import FakeClock, FakeWorkers, Recorder, Script
from support.lanes import Bench, plan, stage

HANG_SECONDS = 30.0


@dataclass
class FakeLane:
    """A run and its pools in one. `burn`: the part of a core that each running task uses."""

    clock: FakeClock
    waiting: int
    burn: float
    size: int = 2
    memory_bytes: int = 0
    since: float = 0.0  # the moment from which on they use it
    admission: Admission | None = None
    run_id: str = "r1"
    tasks: Mapping[str, int] | None = None  # of each pool, as the controller has set them last
    resize_reason: str = ""  # of the last change
    slots: Mapping[str, int] = field(default_factory=dict)

    def measure_demand(self) -> Demand:
        running = [f"a[{index}]" for index in range(min(self.size, self.waiting))]
        left = self.waiting - len(running)
        return Demand(
            ready=(("commands", "a", left),) if left else (),
            running=tuple(("commands", "a", label, 0.0) for label in running),
            slots=self.slots,
        )

    def resize(self, size: int) -> None:
        self.size = size

    def set_admission(self, admission: Admission | None) -> None:
        self.admission = admission

    def set_stage_limits(self, stages: Mapping[str, int]) -> None:
        raise AssertionError(f"a lane without counts of its stages is limited: {stages}")

    def running(self) -> tuple[RunningTask, ...]:
        return tuple(
            RunningTask(
                label=label,
                worker="commands-1",
                started_seconds=0.0,
                cpu_seconds=self.burn * (self.clock.now - self.since),
                core_time=CoreTime(self.burn * (self.clock.now - self.since)),
                memory_bytes=self.memory_bytes,
            )
            for _, _, label, _ in self.measure_demand().running
        )

    def get_pool_sizes(self, size: int) -> dict[str, int]:
        return {"commands": size}

    def get_targets(self) -> dict[str, int]:
        return {"commands": self.size}

    def resize_pools(
        self, size: int, reason: str, tasks: Mapping[str, int] | None = None
    ) -> tuple[tuple[str, int, int], ...]:
        self.tasks = tasks
        if size == self.size:
            return ()
        self.resize_reason = reason
        return (("commands", self.size, size),)


def build_controller(
    lane: FakeLane,
    recorder: Recorder,
    maximum: int = 32,
    *,
    control_state: ControlState | None = None,
    offer: Callable[[int], None] | None = None,
    total_bytes: int = 1 << 40,
    reserve_bytes: int = RESERVE_BYTES,
    known_peaks: Mapping[str, int] | None = None,
    known_demands: Mapping[str, float] | None = None,
    memory_age_seconds: float = 0.0,
) -> Controller:
    """Build a controller. `memory_age_seconds`: how old the reading of the available memory may be."""

    def read_memory() -> int:
        return total_bytes - sum(task.memory_bytes for task in lane.running())

    bounds = Bounds(minimum=1, maximum=maximum, start=2)
    return Controller(
        lane,
        lane,
        control_state=control_state or ControlState(bounds, ("commands",), source="local"),
        offer=offer,
        host=HostReadings(
            cores=lambda: 2.0,
            memory_available_bytes=CachedReading(read_memory, memory_age_seconds, lane.clock),
            memory_reserve_bytes=lambda: reserve_bytes,
        ),
        emit=recorder.observe,
        clock=lane.clock,
        known=KnownStages(peak_bytes=known_peaks or {}, cpu_demands=known_demands or {}),
    )


def open_thread(
    lane: FakeLane, make_controller: Callable[[], Controller], control_state: ControlState | None = None
) -> ControlThread:
    bounds = Bounds(minimum=1, maximum=32, start=2)
    return ControlThread(
        lane,
        lane,
        make_controller,
        control_state=control_state or ControlState(bounds, ("commands",), source="local"),
        host=HostReadings(cores=lambda: 2.0, memory_available_bytes=lambda: 0),
        cpu_demands={},
        peak_bytes={},
    )


def steps(controller: Controller, clock: FakeClock, seconds: float) -> None:
    for _ in range(round(seconds / 0.05)):
        clock.advance(0.05)
        controller.step()


class EnginePools:
    """The fake pools of a real engine, which have a worker for each task."""

    def __init__(self, workers: FakeWorkers) -> None:
        self._workers = workers

    def running(self) -> tuple[RunningTask, ...]:
        return self._workers.running()

    def get_pool_sizes(self, size: int) -> dict[str, int]:
        return {"commands": size}

    def get_targets(self) -> dict[str, int]:
        return {"commands": 1}

    def resize_pools(
        self, size: int, reason: str, tasks: Mapping[str, int] | None = None
    ) -> tuple[tuple[str, int, int], ...]:
        del size, reason, tasks
        return ()


def run_engine(bench: Bench, *, cores: float = 2.0, known_demands: Mapping[str, float] | None = None) -> None:
    """Run a plan, and let the controller size it for ten seconds."""
    control_state = ControlState(bench.engine.plan.workers, ("commands",), source="local")
    host = HostReadings(cores=lambda: cores, memory_available_bytes=lambda: 1 << 40, memory_reserve_bytes=lambda: 0)
    controller = Controller(
        bench.engine,
        EnginePools(bench.workers),
        control_state=control_state,
        host=host,
        emit=bench.recorder.observe,
        clock=bench.clock,
        known=KnownStages(cpu_demands=known_demands or {}),
    )
    start_admission(bench.engine, control_state, host, cpu_demands=known_demands or {}, peak_bytes={})
    for number in range(200):
        bench.inbox.at(bench.clock.now + 0.05 * number, controller.step)
    bench.run()


def test_tasks_of_several_slots_all_start_if_they_sleep() -> None:
    """The size counted tasks: eight of two slots got eight slots, so that four ran at once."""
    wide = stage("a", tasks=8, slots=2)
    bench = Bench(plan(wide, workers=Bounds(minimum=1, maximum=32, start=2)))
    run_engine(bench, known_demands={"a": 0.0})
    assert bench.workers.peak == 8


def test_stage_starts_beside_a_task_of_several_slots() -> None:
    """The size counted the running task of four slots as one: the next stage had no slot until it had ended."""
    stages = stage("wide", slots=4), stage("b", 3), stage("c", 4, needs=("b",))
    bench = Bench(
        plan(*stages, workers=Bounds(minimum=1, maximum=32, start=8)),
        {"wide": [Script(seconds=9.0)], "b": [Script(seconds=3.0)]},
    )
    run_engine(bench, cores=8.0)
    assert bench.starts["c"] - bench.starts["wide"] == pytest.approx(3.0, abs=0.1)


def test_sleeping_tasks_all_start_after_one_decision() -> None:
    clock, recorder = FakeClock(), Recorder()
    lane = FakeLane(clock, waiting=5, burn=0.0)
    steps(build_controller(lane, recorder), clock, 0.25)
    assert lane.size == 5
    (decision,) = recorder.of(Decision)
    assert (decision.action, decision.reason, decision.old_size, decision.new_size) == ("up", "demand", 2, 5)


def test_computing_tasks_keep_one_worker_per_core() -> None:
    clock, recorder = FakeClock(), Recorder()
    lane = FakeLane(clock, waiting=5, burn=1.0)
    steps(build_controller(lane, recorder), clock, 3.0)
    assert lane.size == 2
    (decision,) = recorder.of(Decision)
    assert (decision.action, decision.reason) == ("hold", "cpu_limit")


def test_small_container_holds_small_tasks() -> None:
    """The reserve was 256 MiB on every machine, so that a container of that size ran two tasks of 4 MiB at once."""
    clock, recorder = FakeClock(), Recorder()
    lane = FakeLane(clock, waiting=50, burn=0.0, memory_bytes=4 << 20)
    total = 256 << 20
    controller = build_controller(lane, recorder, total_bytes=total, reserve_bytes=compute_reserve_bytes(total))
    steps(controller, clock, 1.5)
    assert lane.size == 32


def test_known_peak_bounds_a_stage_by_memory() -> None:
    clock, recorder = FakeClock(), Recorder()
    lane = FakeLane(clock, waiting=50, burn=0.0, memory_bytes=100 << 20)
    steps(
        build_controller(lane, recorder, total_bytes=RESERVE_BYTES + (790 << 20), known_peaks={"a": 100 << 20}),
        clock,
        1.5,
    )
    assert lane.size == 7
    up, hold = recorder.of(Decision)
    assert (up.new_size, up.terms["memory_size"]) == (7, 7)
    assert (hold.action, hold.reason) == ("hold", "memory_limit")


def test_running_tasks_teach_the_peak_of_the_next() -> None:
    clock = FakeClock()
    lane = FakeLane(clock, waiting=50, burn=0.0, memory_bytes=200 << 20)
    steps(build_controller(lane, Recorder(), total_bytes=RESERVE_BYTES + (900 << 20)), clock, 1.5)
    assert lane.size == 4


def counts(running: int, waiting: int, busy: float, ended: int, *, delay: float = 0.0) -> StageCounts:
    return StageCounts(
        stage="a",
        running=running,
        waiting=waiting,
        busy_seconds=busy,
        delay_seconds=delay,
        ended=ended,
        fastest_seconds=0.05,
    )


def test_stage_is_measured_while_tasks_wait_and_again_after_a_change() -> None:
    meter = ConcurrencyMeter()
    meter.update([counts(4, 90, 0.0, 0)], (), 10.0)
    (observation,) = meter.update([counts(4, 50, 40.0, 40, delay=8.0)], (), 20.0)
    assert (observation.level.concurrency, observation.level.sample.count) == (4.0, 40)
    assert observation.level.sample.mean == pytest.approx(0.8), "without the wait for a core"
    meter.update([counts(4, 0, 80.0, 80, delay=8.0)], (), 30.0)
    (observation,) = meter.update([counts(4, 0, 120.0, 90, delay=8.0)], (), 40.0)
    assert observation.level.sample.count == 40, "nothing waited: the last tasks of a stage tell nothing"
    (observation,) = meter.update([counts(4, 50, 120.0, 90)], (StageLimitState(stage="a", changes=1),), 50.0)
    assert observation.level.sample.count == 0


def test_stage_is_measured_again_after_a_pin() -> None:
    """The time at the pinned size counted as one sample of the lane's own size."""
    host = HostReadings(cores=lambda: 2.0, memory_available_bytes=lambda: 0)
    observer, state = LaneObserver(host, KnownStages(), "fast"), LaneSizingState()

    def observe(now: float, count: StageCounts, *, limits_stages: bool) -> tuple[StageMeasurement, ...]:
        demand = Demand(ready=(("commands", "a", 50),), running=(), stages=(count,))
        observation = observer.observe(
            demand, now, {}, size=4, floor=1, ceiling=8, state=state, limits_stages=limits_stages
        )
        return observation.stages

    observe(10.0, counts(4, 90, 0.0, 0), limits_stages=True)
    assert observe(20.0, counts(1, 80, 10.0, 10), limits_stages=False) == ()
    (measured,) = observe(30.0, counts(4, 70, 20.0, 20), limits_stages=True)
    assert measured.level.sample.count == 0


def test_threads_have_no_memory_of_their_own() -> None:
    peaks = PeakMeter()
    peaks.update([("threads", "calls", 900), ("processes", "calls", 100)], [("tests", 300)])
    assert (
        peaks.get_task_peak("threads", "calls"),
        peaks.get_task_peak("processes", "calls"),
        peaks.get_stage_peak("tests"),
    ) == (
        0,
        100,
        300,
    )


def test_workers_are_released_after_a_second_of_less_need() -> None:
    clock, recorder = FakeClock(), Recorder()
    lane = FakeLane(clock, waiting=8, burn=0.0)
    controller = build_controller(lane, recorder)
    steps(controller, clock, 1.0)
    assert lane.size == 8
    lane.waiting = 1
    steps(controller, clock, 0.9)
    assert lane.size == 8
    steps(controller, clock, 0.3)
    assert lane.size == 1


def test_controller_keeps_to_the_configs_bounds() -> None:
    clock = FakeClock()
    lane = FakeLane(clock, waiting=100, burn=0.0)
    steps(build_controller(lane, Recorder(), maximum=10), clock, 1.0)
    assert lane.size == 10


@pytest.mark.parametrize(
    ("bounds", "waiting", "size", "action", "reason"),
    [
        (SizeBounds(floor=1, ceiling=10, reason="load"), 100, 10, "hold", "bounds"),  # the signal asks for fewer
        (SizeBounds(floor=1, ceiling=6, reason="load"), 100, 6, "hold", "limit"),
        (SizeBounds(floor=4, ceiling=10, reason="load"), 0, 4, "up", "load"),
        (SizeBounds(floor=6, ceiling=6, reason="limit"), 100, 6, "up", "load"),
        (SizeBounds(floor=6, ceiling=6, reason="limit"), 100, 6, "hold", "limit"),  # the load asks for more than that
    ],
)
def test_reason_at_a_bound_is_the_signal_that_moved_it(
    bounds: SizeBounds, waiting: int, size: int, action: str, reason: str
) -> None:
    clock, recorder = FakeClock(), Recorder()
    control_state = ControlState(Bounds(minimum=1, maximum=10, start=2), ("commands",), source="both")
    control_state.set_size_bounds(bounds)
    lane = FakeLane(clock, waiting=waiting, burn=0.0)
    steps(build_controller(lane, recorder, control_state=control_state), clock, 3.0)
    assert lane.size == size
    assert (action, reason) in [(one.action, one.reason) for one in recorder.of(Decision)]


@pytest.mark.parametrize(
    ("floor", "size", "target", "reason"),
    [
        (2, 2, 10, "bounds"),  # the config's maximum cut the move short, from wherever it began
        (4, 2, 10, "load"),
        (4, 8, 4, "load"),
        (1, 8, 4, "limit"),
    ],
)
def test_reason_of_a_move_by_queries_is_the_bound_that_decides_it(
    floor: int, size: int, target: int, reason: str
) -> None:
    clock = FakeClock()
    lane = FakeLane(clock, waiting=100, burn=0.0, size=size)
    control_state = ControlState(Bounds(minimum=1, maximum=10, start=2), ("commands",), source="prometheus")
    ceiling = 4 if reason == "limit" else 10
    control_state.set_size_bounds(SizeBounds(floor=floor, ceiling=ceiling, query_size=target))
    steps(build_controller(lane, Recorder(), control_state=control_state), clock, 0.05)
    assert (lane.size, lane.resize_reason) == (target, reason)


def test_ceiling_that_cuts_the_floor_too_is_the_reason_for_fewer_workers() -> None:
    clock, recorder = FakeClock(), Recorder()
    lane = FakeLane(clock, waiting=100, burn=0.0, size=8)
    control_state = ControlState(Bounds(minimum=1, maximum=10, start=2), ("commands",), source="both")
    control_state.set_size_bounds(SizeBounds(floor=10, ceiling=4, reason="limit"))
    steps(build_controller(lane, recorder, control_state=control_state), clock, 0.05)
    assert [(one.action, one.new_size, one.reason) for one in recorder.of(Decision)] == [("down", 4, "limit")]


def test_fixed_lane_is_sized_only_while_pinned() -> None:
    clock, recorder = FakeClock(), Recorder()
    lane = FakeLane(clock, waiting=8, burn=0.0)
    control_state = ControlState(Bounds(minimum=2, maximum=2, start=2), ("commands",), source="local")
    controller = build_controller(lane, recorder, control_state=control_state)
    steps(controller, clock, 3.0)
    assert recorder.of(Decision) == []
    control_state.set_override(Override(mode="pin", size=5))
    steps(controller, clock, 1.0)
    assert lane.size == 5
    control_state.set_override(None)
    steps(controller, clock, 1.0)
    assert lane.size == 2
    assert [
        (decision.reason, decision.new_size) for decision in recorder.of(Decision) if decision.action != "hold"
    ] == [
        ("pinned", 5),
        ("bounds", 2),
    ]


def test_runs_of_a_paused_lane_start_with_the_size_at_which_it_was_paused() -> None:
    """They started with the config's or the usual size, and could not correct it."""
    clock = FakeClock()
    lane = FakeLane(clock, waiting=8, burn=0.0)
    control_state = ControlState(Bounds(minimum=1, maximum=16, start=2), ("commands",), source="local")
    controller = build_controller(lane, Recorder(), control_state=control_state)
    steps(controller, clock, 1.0)
    assert (lane.size, control_state.get_start_size(2)) == (8, 2)
    assert lane.tasks == {"commands": 8}
    control_state.set_override(Override(mode="pause"))
    steps(controller, clock, 1.0)
    assert (lane.size, control_state.get_start_size(2)) == (8, 8)
    lane.waiting = 12
    steps(controller, clock, 0.1)
    assert lane.tasks == {"commands": 12}, "other stages run now: their calls ran one at a time"


def test_each_step_offers_spare_slots() -> None:
    clock, offered = FakeClock(), list[int]()
    lane = FakeLane(clock, waiting=1, burn=1.0)
    controller = build_controller(lane, Recorder(), offer=offered.append)
    steps(controller, clock, 0.1)
    assert offered == [1, 1], "two cores less one task"


def test_slots_of_a_task_stay_known_while_no_task_runs_or_waits() -> None:
    """Readings of Prometheus are older: they still count tasks that have just ended."""
    control_state = ControlState(Bounds(minimum=1, maximum=32, start=2), ("commands",), source="prometheus")
    lane = FakeLane(FakeClock(), waiting=5, burn=0.0, slots={"a": 4})
    controller = build_controller(lane, Recorder(), control_state=control_state)
    controller.step()
    assert control_state.slots_per_task == 4.0
    lane.waiting = 0
    lane.clock.advance(1.0)
    controller.step()
    assert control_state.slots_per_task == 4.0


def test_cores_are_allocated_by_demand_unless_the_size_is_fixed() -> None:
    clock = FakeClock()
    lane = FakeLane(clock, waiting=8, burn=1.0)
    control_state = ControlState(Bounds(minimum=1, maximum=32, start=2), ("commands",), source="local")
    controller = build_controller(lane, Recorder(), control_state=control_state, known_demands={"a": 0.4})
    host = HostReadings(cores=lambda: 2.0)
    start_admission(lane, control_state, host, cpu_demands={"a": 0.4}, peak_bytes={})
    assert lane.admission == Admission(cores=2.0, floor=1, stages={"a": 0.4})
    steps(controller, clock, 0.3)
    assert lane.admission is not None
    assert min(lane.admission.tasks.values()) == pytest.approx(1.0)
    assert lane.admission.stages["a"] > 0.7
    fixed = ControlState(Bounds(minimum=2, maximum=2, start=2), ("commands",), source="local")
    controller = build_controller(lane, Recorder(), control_state=fixed, offer=lambda _: None)
    lane.admission = None
    start_admission(lane, fixed, host, cpu_demands={"a": 0.4}, peak_bytes={})
    steps(controller, clock, 0.3)
    assert lane.admission is None


def test_memory_is_allocated_by_the_peaks_of_earlier_runs_before_the_first_step() -> None:
    lane = FakeLane(FakeClock(), waiting=8, burn=0.0)
    control_state = ControlState(Bounds(minimum=1, maximum=32, start=8), ("commands",), source="local")
    host = HostReadings(cores=lambda: 2.0, memory_available_bytes=lambda: 900, memory_reserve_bytes=lambda: 100)
    start_admission(lane, control_state, host, cpu_demands={}, peak_bytes={"a": 300})
    assert lane.admission == Admission(cores=2.0, floor=1, peak_bytes={"a": 300}, memory_bytes=800)


def test_running_tasks_keep_the_memory_that_they_held_at_the_last_reading() -> None:
    """Tasks that took theirs since then counted twice: as many others started, beyond the memory that was left."""
    clock, allowed = FakeClock(), []
    lane = FakeLane(clock, waiting=8, burn=0.0)
    controller = build_controller(
        lane, Recorder(), known_peaks={"a": 300}, total_bytes=5000, reserve_bytes=0, memory_age_seconds=0.2
    )
    for memory_bytes in (0, 200, 200):
        lane.memory_bytes = memory_bytes
        steps(controller, clock, 0.1)
        assert lane.admission is not None
        assert lane.admission.peak_bytes == {"a": 300}
        allowed.append((lane.admission.memory_bytes, sum(lane.admission.held_bytes.values())))
    assert allowed == [(5000, 0), (5000, 0), (3400, 1600)]


def test_memory_is_read_again_once_a_task_has_ended() -> None:
    clock = FakeClock()
    lane = FakeLane(clock, waiting=2, burn=0.0, memory_bytes=300)
    controller = build_controller(lane, Recorder(), known_peaks={"a": 300}, total_bytes=5000, reserve_bytes=0)
    steps(controller, clock, 0.05)
    assert lane.admission is not None
    assert (lane.admission.memory_bytes, lane.admission.held_bytes) == (4400, {"a[0]": 300, "a[1]": 300})
    lane.waiting = 1
    steps(controller, clock, 0.05)
    assert (lane.admission.memory_bytes, lane.admission.held_bytes) == (4700, {"a[0]": 300})


def test_size_raised_by_a_wrong_reading_is_back_within_two_seconds() -> None:
    clock = FakeClock()
    lane = FakeLane(clock, waiting=2000, burn=0.0)
    controller = build_controller(lane, Recorder(), maximum=16)
    steps(controller, clock, 0.2)
    assert lane.size == 16
    lane.burn, lane.since = 1.0, clock.now
    steps(controller, clock, 2.0)
    assert lane.size <= 3


class LaneWithIdleThreads(FakeLane):
    """It also has a pool of threads, whose tasks have ended, and processes that no task has needed yet."""

    threads = 7

    def get_pool_sizes(self, size: int) -> dict[str, int]:
        return {"commands": size, "processes": size, "threads": size}

    def get_targets(self) -> dict[str, int]:
        return {"commands": self.size, "threads": self.threads}

    def resize_pools(
        self, size: int, reason: str, tasks: Mapping[str, int] | None = None
    ) -> tuple[tuple[str, int, int], ...]:
        old, self.threads = self.threads, max(1, min(size, (tasks or {}).get("threads", 1)))
        changed = (("commands", self.size, size), ("threads", old, self.threads))
        return tuple((pool, before, after) for pool, before, after in changed if before != after)


def test_pool_without_tasks_shrinks_for_the_lack_of_them() -> None:
    clock, recorder = FakeClock(), Recorder()
    lane = LaneWithIdleThreads(clock, waiting=50, burn=1.0, size=8)
    steps(build_controller(lane, recorder), clock, 3.0)
    downs = [(one.pool, one.reason, one.new_size) for one in recorder.of(Decision) if one.action == "down"]
    assert sorted(downs) == [("commands", "cpu_limit", 2), ("threads", "plan", 1)]


def test_pool_keeps_the_workers_that_it_needed_within_the_last_second() -> None:
    """It fell to the present need one second after its highest one, though it had needed more a moment ago."""
    clock, recorder = FakeClock(), Recorder()
    lane = FakeLane(clock, waiting=10, burn=0.0, size=10)
    controller = build_controller(lane, recorder)
    controller.step()
    lane.waiting = 9
    steps(controller, clock, 0.95)
    lane.waiting = 2
    steps(controller, clock, 0.5)
    assert lane.tasks == {"commands": 9}
    steps(controller, clock, 0.6)
    assert lane.tasks == {"commands": 2}


def test_hold_names_the_pools_that_the_run_uses_with_their_own_sizes() -> None:
    clock, recorder = FakeClock(), Recorder()
    lane = LaneWithIdleThreads(clock, waiting=50, burn=1.0)
    steps(build_controller(lane, recorder), clock, 3.0)
    held = [(one.pool, one.new_size) for one in recorder.of(Decision) if one.action == "hold"]
    assert held[-2:] == [("commands", 2), ("threads", 1)]


def test_recommended_size_drops_a_contradicted_peak() -> None:
    clock = FakeClock()
    lane = FakeLane(clock, waiting=2000, burn=0.0)
    control_state = ControlState(Bounds(minimum=1, maximum=16, start=2), ("commands",), source="local")
    stepped = Flag()
    controller = build_controller(lane, Recorder(), control_state=control_state, offer=lambda _: stepped.set())
    steps(controller, clock, 0.2)
    lane.burn, lane.since = 1.0, clock.now
    steps(controller, clock, 2.0)
    stepped.clear()
    with open_thread(lane, lambda: controller, control_state):
        assert stepped.wait(HANG_SECONDS)
    assert control_state.snapshot().pools[0].recommended_size <= 3


def test_run_that_ends_before_the_first_step_recommends_its_own_size() -> None:
    lane = FakeLane(FakeClock(), waiting=9, burn=0.0, size=5)
    control_state = ControlState(Bounds(minimum=1, maximum=16, start=2), ("commands",), source="local")
    thread = open_thread(lane, lambda: build_controller(lane, Recorder()), control_state)
    thread.__exit__()
    assert control_state.snapshot().pools[0].recommended_size == 5


def count_steps(controller: Controller, clock: FakeClock, seconds: float) -> int:
    """Count the steps that are due within that time while no task waits."""
    taken = 0
    for _ in range(round(seconds / IDLE_TICK_SECONDS)):
        clock.advance(IDLE_TICK_SECONDS)
        taken += not controller.is_quiet()
    return taken


def test_steps_are_rarer_once_nothing_has_changed_for_seconds() -> None:
    clock = FakeClock()
    controller = build_controller(FakeLane(clock, waiting=1, burn=0.0), Recorder())
    assert count_steps(controller, clock, QUIET_SECONDS) == round(QUIET_SECONDS / IDLE_TICK_SECONDS)
    assert count_steps(controller, clock, 10.0) <= 10.0 / QUIET_TICK_SECONDS + 1


def test_waiting_task_ends_the_quiet_at_once() -> None:
    clock = FakeClock()
    lane = FakeLane(clock, waiting=1, burn=0.0)
    controller = build_controller(lane, Recorder())
    count_steps(controller, clock, 10.0)
    lane.waiting = 5
    assert not controller.is_quiet()


def test_failed_step_is_logged_once_and_the_next_one_sizes_the_lane(caplog: pytest.LogCaptureFixture) -> None:
    lane, offered, failures = FakeLane(FakeClock(), waiting=9, burn=0.0), Flag(), iter(range(3))

    def offer(_: int) -> None:
        if next(failures, None) is not None:
            raise OSError("no such cgroup")
        offered.set()

    controller = build_controller(lane, Recorder(), offer=offer)
    with open_thread(lane, lambda: controller):
        assert offered.wait(HANG_SECONDS)
    assert [record.message for record in caplog.records] == [
        "a step of the controller failed; later failures are not logged"
    ]


def test_controller_that_can_not_be_made_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Its modules load during the run, and an upgrade may just be replacing them."""
    lane, stepped, failures = FakeLane(FakeClock(), waiting=9, burn=0.0), Flag(), iter(range(2))
    controller = build_controller(lane, Recorder(), offer=lambda _: stepped.set())

    def make_controller() -> Controller:
        if next(failures, None) is not None:
            raise ImportError("no module of that name")
        return controller

    with open_thread(lane, make_controller):
        assert stepped.wait(HANG_SECONDS)
    assert len(caplog.records) == 1


def test_failed_attempt_to_make_a_controller_counts_as_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the next one would follow after a tick: 33 imports a second."""
    costs, failed, ticks = list[float](), Flag(), count()
    clock = SimpleNamespace(thread_time=lambda: float(next(ticks)), monotonic=lambda: 0.0)
    monkeypatch.setattr(control_thread, "time", clock)

    class RecordingBudget(StepBudget):
        def spend(self, cpu_seconds: float, now: float) -> None:
            costs.append(cpu_seconds)

        def get_pause_seconds(self, *, has_waiting_tasks: bool) -> float:
            return 0.0

    def make_controller() -> Controller:
        if len(costs) > 1:
            failed.set()
        raise ImportError("no module of that name")

    monkeypatch.setattr(control_thread, "StepBudget", RecordingBudget)
    with open_thread(FakeLane(FakeClock(), waiting=9, burn=0.0), make_controller):
        assert failed.wait(HANG_SECONDS)
    assert costs[0] == 1.0


def test_lane_without_tasks_makes_no_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    """All its stages may be cached; their lookup outlasts the first tick."""
    lane, looked, ticks, made = FakeLane(FakeClock(), waiting=0, burn=0.0), Flag(), count(), Flag()
    controller = build_controller(lane, Recorder(), offer=lambda _: None)

    class EndlessBudget(StepBudget):
        def get_pause_seconds(self, *, has_waiting_tasks: bool) -> float:
            if next(ticks) >= 3:
                looked.set()
            return 0.0

    def make_controller() -> Controller:
        made.set()
        return controller

    monkeypatch.setattr(control_thread, "StepBudget", EndlessBudget)
    with open_thread(lane, make_controller):
        assert looked.wait(HANG_SECONDS)
        assert not made.is_set()
        lane.waiting = 1
        assert made.wait(HANG_SECONDS)


def test_expensive_steps_are_spread_over_time() -> None:
    """A failed attempt to load the controller is such a step."""
    clock = FakeClock()
    budget = StepBudget(clock.monotonic())
    for _ in range(100):
        clock.advance(budget.get_pause_seconds(has_waiting_tasks=True))
        budget.spend(0.02, clock.monotonic())
    assert clock.monotonic() == pytest.approx((100 * 0.02 - 0.05) / 0.03, rel=0.05)


def test_first_steps_follow_each_other_at_once_though_they_are_expensive() -> None:
    """After a pause of half a second, a command that sleeps for a second may have ended before it was measured."""
    clock = FakeClock()
    budget = StepBudget(clock.monotonic())
    for cost in (0.003, 0.003, 0.012, 0.014, 0.004, 0.007):
        assert budget.get_pause_seconds(has_waiting_tasks=True) == TICK_SECONDS
        clock.advance(TICK_SECONDS)
        budget.spend(cost, clock.monotonic())


def test_cheap_steps_earn_no_more_than_the_advance() -> None:
    clock = FakeClock()
    budget = StepBudget(clock.monotonic())
    for _ in range(1000):
        clock.advance(budget.get_pause_seconds(has_waiting_tasks=False))
        budget.spend(0.0002, clock.monotonic())
    assert budget.get_pause_seconds(has_waiting_tasks=False) == IDLE_TICK_SECONDS
    budget.spend(0.08, clock.monotonic())
    assert budget.get_pause_seconds(has_waiting_tasks=True) == pytest.approx(0.03 / 0.03, rel=0.1)


def test_memory_of_a_full_cgroup_is_known(tmp_path: Path) -> None:
    """None left read as unknown, so that memory bounded no size just when there was none."""
    folder = tmp_path / "sys/fs/cgroup/a"
    folder.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/a\n")
    (folder / "memory.max").write_text("1000")
    (folder / "memory.current").write_text("1200")
    assert read_memory_left_bytes(tmp_path, lambda: (1 << 33, 1 << 32)) == 1
    assert read_memory_left_bytes(tmp_path / "proc", lambda: (0, 0)) == 0


def test_old_reading_is_refreshed() -> None:
    clock = FakeClock()
    values = iter((4.0, 2.0))
    cores = CachedReading(lambda: next(values), 1.0, clock)
    assert [cores(), cores()] == [4.0, 4.0]
    clock.advance(1.0)
    assert cores() == 2.0
