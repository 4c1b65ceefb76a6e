"""A lane's size by query results alone."""

from __future__ import annotations

from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.query_size import (
    NO_DATA_AFTER,
    PoolMeasurement,
    PoolReading,
    QuerySizeDecision,
    QuerySizeObservation,
    QuerySizeState,
    compute_size_by_queries,
    decide_query_size,
)
from paropt_exporter.autoscaling.policy.query_validity import Reading, reject_reading

SCRAPE = 15.0


def seen(
    *, depth: float = 0.0, busy: float = 2.0, cpu: float = 0.0, size: float = 2.0, sampled: float = 0.0
) -> PoolMeasurement:
    return PoolMeasurement(
        sampled=sampled, scrape_seconds=SCRAPE, size=size, depth=depth, busy=busy, cpu=cpu, delay=0.0
    )


class Lane:
    """A lane from 1 to 32 that is decided at each scrape."""

    def __init__(self, size: int = 2) -> None:
        self.now, self.size, self.target, self.state = 0.0, size, size, QuerySizeState()
        self.floor, self.ceiling = 1, 32

    def sees(self, seen: PoolMeasurement | Reading, *, rescue: int = 0) -> QuerySizeDecision:
        self.now += SCRAPE
        reading = seen if isinstance(seen, Reading) else Reading()
        pool = PoolReading(
            pool="commands",
            target=self.target,
            reading=reading,
            measurement=None if isinstance(seen, Reading) else replace(seen, sampled=self.now),
        )
        step = decide_query_size(
            QuerySizeObservation(
                now=self.now,
                stable_seconds=180.0,
                cores=2.0,
                size=self.size,
                floor=self.floor,
                ceiling=self.ceiling,
                pools=(pool,),
                state=self.state,
                rescue_size=rescue,
            )
        )
        self.size = self.target = step.size
        self.state = step.state
        return step


def test_every_waiting_or_running_task_gets_a_worker() -> None:
    assert compute_size_by_queries((seen(depth=8.0, busy=2.0),), cores=2.0).size == 10


def test_computing_work_is_bounded_by_the_cores() -> None:
    wanted = compute_size_by_queries((seen(depth=30.0, busy=2.0, cpu=1.0),), cores=2.0)
    assert (wanted.size, wanted.reason) == (4, "cpu_limit")


def test_each_task_gets_all_its_slots() -> None:
    """With as many slots as tasks, only two of twelve tasks of four slots would run at once."""
    waits = compute_size_by_queries((seen(depth=10.0, busy=2.0),), cores=2.0, slots_per_task=4.0)
    assert (waits.size, waits.reason) == (48, "demand")
    computes = compute_size_by_queries((seen(depth=30.0, busy=2.0, cpu=1.0),), cores=2.0, slots_per_task=2.5)
    assert (computes.size, computes.reason) == (10, "cpu_limit")
    mixed = compute_size_by_queries((seen(depth=9.0, busy=2.0),), cores=2.0, slots_per_task=25 / 11)
    assert mixed.size == 25


def test_tenfold_load_is_followed_by_one_move() -> None:
    lane = Lane()
    assert lane.sees(seen(depth=18.0, busy=2.0)).size == 20
    sizes = [lane.sees(seen(depth=0.0, busy=20.0, size=float(lane.size))).size for _ in range(20)]
    assert set(sizes) == {20}


def test_decisions_wait_for_four_scrapes_after_a_resize() -> None:
    lane = Lane()
    lane.sees(seen(depth=18.0))
    held = [lane.sees(seen(depth=30.0, busy=2.0, size=2.0)) for _ in range(3)]  # the readings still show the old size
    held += [lane.sees(seen(depth=30.0, busy=20.0, size=20.0)) for _ in range(4)]
    assert {(step.size, step.reason) for step in held} == {(20, "settling")}
    assert lane.sees(seen(depth=30.0, busy=20.0, size=20.0)).size == 32


def test_rejected_readings_hold_the_size_and_three_are_no_data() -> None:
    lane = Lane(8)
    steps = [lane.sees(reject_reading("stale", "old")) for _ in range(NO_DATA_AFTER + 1)]
    assert {(step.size, step.action, step.reason) for step in steps} == {(8, "hold", "stale")}
    assert [step.no_data for step in steps] == [False, False, True, True]
    assert not lane.sees(seen(busy=8.0, size=8.0)).no_data


def test_lane_without_data_grows_only_to_rescue_an_sla() -> None:
    lane = Lane(8)
    for _ in range(5):
        lane.sees(reject_reading("query_failed", "refused"))
    saved = lane.sees(reject_reading("query_failed", "refused"), rescue=12)
    assert (saved.size, saved.action, saved.reason) == (12, "up", "rescue")
    assert lane.sees(reject_reading("query_failed", "refused"), rescue=4).size == 12


def test_rejected_readings_do_not_keep_a_size_beyond_the_bounds_of_other_signals() -> None:
    lane = Lane(8)
    lane.ceiling = 4  # a limit signal was above its target
    cut = lane.sees(reject_reading("stale", "old"), rescue=12)
    assert (cut.size, cut.action, cut.reason) == (4, "down", "bounds")
    assert lane.sees(seen(busy=4.0, size=4.0)).reason == "settling"  # like any other move
    lane.floor, lane.ceiling = 6, 32  # a load signal asks for more
    raised = lane.sees(seen(busy=4.0, size=4.0))
    assert (raised.size, raised.action, raised.reason) == (6, "up", "bounds")


def test_size_falls_only_after_the_stable_time() -> None:
    lane = Lane()
    lane.sees(seen(depth=18.0, busy=2.0))
    sizes = [lane.sees(seen(busy=2.0, size=float(lane.size))).size for _ in range(14)]
    assert sizes[:11] == [20] * 11
    assert sizes[-1] < 20
