"""The bounds controller, interval by interval on a fake clock."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from paropt_exporter.autoscaling.bounds_controller import BoundsController, LaneReadings, Timing
from paropt_exporter.autoscaling.decisions import replay
from paropt_exporter.autoscaling.policy.query_size import PoolMeasurement, PoolReading
from paropt_exporter.autoscaling.policy.query_validity import Reading, reject_reading
from paropt_exporter.autoscaling.policy.size_bounds import Signal
from paropt_exporter.autoscaling.signals.local_counters import Rates
from paropt_exporter.autoscaling.state import ControlState
from paropt_exporter.events import Decision, PoolStatistics
from paropt_exporter.plan import Bounds
from paropt_exporter.testing import FakeClock, Recorder

POOL = PoolStatistics(
    name="commands", target=2, live=2, busy=2, idle=0, starting=0, draining=0, queued=0,
    oldest_queued_age_seconds=0.0, submitted=0, busy_seconds=0.0, slot_seconds=0.0, cpu_seconds=0.0,
    run_delay_seconds=0.0, epoch_timestamp_seconds=1.0,
)  # fmt: skip

QUIET = PoolMeasurement(sampled=0.0, scrape_seconds=15.0, size=2.0, depth=0.0, busy=2.0, cpu=0.0, delay=0.0)


class FakeSource:
    """A signal source whose readings the test sets."""

    def __init__(self) -> None:
        self.load: Reading = Reading(value=0.0)
        self.measurement: PoolMeasurement | None = None

    def read_signals(self) -> tuple[Signal, ...]:
        return (Signal(name="broker", use="load", target=20.0, reading=self.load),)

    def read_pool(
        self, statistics: PoolStatistics, local_rates: Callable[[float, float], Rates | None], window: float
    ) -> PoolReading:
        reading = Reading() if self.measurement is not None else reject_reading("no_data", "none")
        return PoolReading(
            pool=statistics.name, target=statistics.target, reading=reading, measurement=self.measurement
        )


class Lane:
    def __init__(self, source: str = "both") -> None:
        self.clock, self.source, self.recorder = FakeClock(), FakeSource(), Recorder()
        self.control_state = ControlState(Bounds(minimum=1, maximum=16, start=2), ("commands",), source=source)
        self.pools = [POOL]
        self.controller = BoundsController(
            self.control_state,
            self.source,
            lane=LaneReadings(pools=lambda: self.pools, size=lambda: 2, cores=lambda: 2.0),
            timing=Timing(interval_seconds=15.0, window_seconds=60.0, stable_seconds=60.0),
            emit=self.recorder.observe,
            clock=self.clock,
        )

    def interval(self) -> Decision:
        self.clock.advance(15.0)
        self.controller.step()
        return self.recorder.of(Decision)[-1]


def test_load_sets_the_floor() -> None:
    lane = Lane()
    lane.source.load = Reading(value=100.0)
    decision = lane.interval()
    assert lane.control_state.size_bounds.floor == 5
    assert (decision.action, decision.reason, decision.old_size, decision.new_size) == ("up", "load", 1, 5)
    assert decision.terms["load broker"] == 100.0


def test_rejected_load_holds_the_floor_with_its_reason() -> None:
    lane = Lane()
    lane.source.load = Reading(value=100.0)
    lane.interval()
    lane.source.load = reject_reading("stale", "old")
    decision = lane.interval()
    assert (decision.action, decision.reason) == ("hold", "stale")
    assert lane.control_state.size_bounds.floor == 5


def test_source_prometheus_sizes_by_query_results_alone() -> None:
    lane = Lane("prometheus")
    lane.source.measurement = replace(QUIET, depth=6.0)
    decision = lane.interval()
    assert lane.control_state.size_bounds.query_size == 8
    assert (decision.action, decision.reason, decision.new_size) == ("up", "demand", 8)


def test_pool_that_the_lane_no_longer_has_is_not_read() -> None:
    lane = Lane("prometheus")
    lane.pools.append(replace(POOL, name="threads"))  # of the strategy before a reload
    lane.source.measurement = replace(QUIET, depth=6.0)
    assert lane.interval().new_size == 8


def test_source_prometheus_gives_each_task_its_slots() -> None:
    lane = Lane("prometheus")
    lane.control_state.set_slots_per_task(1.5)
    lane.source.measurement = replace(QUIET, depth=6.0)
    assert lane.interval().new_size == 12


def test_hold_does_not_undo_a_resize_in_progress() -> None:
    lane = Lane("prometheus")
    lane.source.measurement = replace(QUIET, depth=6.0)
    assert lane.interval().new_size == 8
    lane.source.measurement = None  # while the lane still has its two workers
    assert lane.interval().reason == "no_data"
    assert lane.control_state.size_bounds.query_size == 8


def test_size_stays_and_no_data_shows_without_prometheus() -> None:
    lane = Lane("prometheus")
    for _ in range(3):
        assert lane.interval().reason == "no_data"
    assert lane.control_state.size_bounds.query_size == 2
    assert lane.control_state.snapshot().pools[0].no_data


def test_every_decision_replays_to_the_byte() -> None:
    lane = Lane("prometheus")
    for number in range(40):
        lane.source.load = Reading(value=float(number * 7 % 300)) if number % 5 else reject_reading("partial", "half")
        lane.source.measurement = replace(QUIET, sampled=lane.clock.now + 15.0, depth=float(number))
        lane.interval()
    decisions = lane.recorder.of(Decision)
    assert len(decisions) == 80
    assert all(replay(decision.situation, decision.choice).same for decision in decisions)
