"""The pools of a lane, with real threads and processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from paropt_exporter.engine import report
from paropt_exporter.engine.workers import PoolWorkers
from paropt_exporter.events import PoolUse, Strategy
from paropt_exporter.plan import COMMANDS, THREADS, Call, Commands, PlannedStage, PlannedTask
from support.lanes import plan

HANG_SECONDS = 30.0


def stage_of(name: str, pool: str, work: Commands | Call) -> PlannedStage:
    return PlannedStage(number=2, name=name, tasks=(PlannedTask(index=0, item=None, work=work),), pool=pool)


WAITS = stage_of("waits", THREADS, Call(target="os:getpid"))
COMMAND = stage_of("command", COMMANDS, Commands(steps=(("true",),)))


@pytest.fixture
def workers() -> Iterator[PoolWorkers]:
    with closing(PoolWorkers()) as workers:
        workers.prepare(plan(WAITS, COMMAND, workers=2, strategy=Strategy.THREAD), 2)
        yield workers


def run(workers: PoolWorkers, stage: PlannedStage) -> None:
    workers.start(stage, stage.tasks[0], stage.name).future.result(HANG_SECONDS)


def use(workers: PoolWorkers) -> dict[str, PoolUse]:
    return {use.name: use for use in workers.get_pool_uses()}


def test_pool_without_tasks_adds_no_worker_time(workers: PoolWorkers) -> None:
    run(workers, COMMAND)
    uses = use(workers)
    assert (uses[THREADS].busy_seconds, uses[THREADS].slot_seconds) == (0.0, 0.0)
    assert uses[COMMANDS].slot_seconds >= uses[COMMANDS].busy_seconds > 0.0
    assert report.compute_busy_ratio(tuple(uses.values())) == pytest.approx(
        uses[COMMANDS].busy_seconds / uses[COMMANDS].slot_seconds
    )


def test_peak_has_the_reason_of_the_move_to_it() -> None:
    tasks = tuple(PlannedTask(index=index, item=None, work=COMMAND.tasks[0].work) for index in range(4))
    many = PlannedStage(number=2, name="many", tasks=tasks, pool=COMMANDS)
    with closing(PoolWorkers()) as workers:
        workers.prepare(plan(many, workers=2), 2)
        for size, reason in ((3, "demand"), (2, "bounds"), (3, "plan")):
            workers.resize_pools(size, reason)
        (used,) = workers.get_pool_uses()
    assert (used.start_size, used.peak_size, used.reason) == (2, 3, "demand")


def test_worker_time_of_a_pool_ends_with_its_last_task(workers: PoolWorkers) -> None:
    run(workers, WAITS)
    rested = use(workers)[THREADS].slot_seconds
    run(workers, COMMAND)
    assert use(workers)[THREADS].slot_seconds == rested > 0.0
    run(workers, WAITS)
    assert use(workers)[THREADS].slot_seconds > rested


def test_worker_time_starts_again_with_the_next_run(workers: PoolWorkers) -> None:
    run(workers, WAITS)
    workers.prepare(plan(WAITS, COMMAND, workers=2, strategy=Strategy.THREAD), 2)
    assert (use(workers)[THREADS].busy_seconds, use(workers)[THREADS].slot_seconds) == (0.0, 0.0)
