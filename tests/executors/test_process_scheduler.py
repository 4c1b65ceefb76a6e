"""The scheduler of a ProcessPool, without processes: scripted events, and random histories of everything at once."""

from __future__ import annotations

import random

import pytest

from paropt_exporter.errors import TaskStopped, WorkerDied
from paropt_exporter.executors.processes.batches import WorkItem
from paropt_exporter.executors.processes.scheduler import Scheduler
from paropt_exporter.executors.processes.workers import Worker
from support.fake_processes import BRIEF, LONG, MEDIUM, PREFETCH_TASKS, FakePool, FakeProcess

HISTORIES = 10_000
SLOW_SECONDS = 0.01  # after which a batch counts as slow if another worker is idle
SLOWEST_SECONDS = 0.1  # after which it counts as slow in any case


def ready_pool(size: int = 1, *, most_tasks_per_worker: int | None = None) -> FakePool:
    pool = FakePool(size, most_tasks_per_worker=most_tasks_per_worker)
    pool.settle_down()
    return pool


def submit(pool: FakePool, count: int, function: bytes = BRIEF) -> None:
    for _ in range(count):
        pool.run(pool.submit(function))


def test_workers_start_as_the_size_asks_and_idle() -> None:
    pool = FakePool(2)
    assert repr(pool.scheduler) == "<Scheduler: 0 queued; fake-0: starting, fake-1: starting>"
    pool.settle_down()
    assert repr(pool.scheduler) == "<Scheduler: 0 queued; fake-0: idle, fake-1: idle>"


def test_submit_goes_to_an_idle_worker_and_the_next_ones_wait() -> None:
    pool = ready_pool(2)
    submit(pool, 5, LONG)
    assert repr(pool.scheduler) == "<Scheduler: 3 queued; fake-0: busy 1, fake-1: busy 1>"


def test_brief_tasks_travel_in_batches_of_a_workers_share() -> None:
    pool = ready_pool(2)
    submit(pool, 202)
    for process in list(pool.processes.values()):
        while process.running is None or len(process.batches) == 1:
            pool.step(process)
            if process.replies:
                break
    assert repr(pool.scheduler) == "<Scheduler: 200 queued; fake-0: busy 1, fake-1: busy 1>"
    for _ in range(4):
        pool.advance(pool.threads[0])
    assert repr(pool.scheduler) == "<Scheduler: 100 queued; fake-0: busy 100, fake-1: busy 1>"
    pool.settle_down()
    pool.check()


def test_long_task_travels_alone() -> None:
    pool = ready_pool(1)
    submit(pool, 1)
    submit(pool, 3, LONG)
    pool.settle_down()
    assert pool.process_of().claims == 0
    pool.check()


def test_busy_worker_gets_a_second_batch_once_many_tasks_wait() -> None:
    pool = ready_pool(1)
    submit(pool, 256)
    assert repr(pool.scheduler) == "<Scheduler: 255 queued; fake-0: busy 1>"
    submit(pool, 1)
    assert repr(pool.scheduler) == "<Scheduler: 0 queued; fake-0: busy 257>"
    pool.settle_down()
    pool.check()


def test_death_fails_the_running_task_and_the_others_run_elsewhere() -> None:
    pool = ready_pool(1)
    submit(pool, PREFETCH_TASKS + 1)
    process = pool.process_of()
    running = pool.step_into(process, task=3)
    process.end(-9)
    pool.settle_down()
    pool.check()
    assert isinstance(running.future.exception(0), WorkerDied)
    assert sum(item.future.exception(0) is not None for item in pool.items) == 1


def assert_only_the_slow_one_waits(pool: FakePool, process: FakeProcess, slow: WorkItem) -> None:
    """Check that other workers run all tasks but the one in which a process is, once that counts as slow."""
    pool.settle_down(except_for=[process])
    pool.now += SLOW_SECONDS
    pool.settle_down(except_for=[process])
    assert [item for item in pool.items if not item.future.done()] == [slow]
    pool.settle_down()
    pool.check()


def test_tasks_behind_a_slow_one_go_to_another_worker() -> None:
    pool = ready_pool(1)
    submit(pool, PREFETCH_TASKS + 1)
    process = pool.process_of()
    slow = pool.step_into(process, task=3)
    pool.run(pool.resize(2))
    assert_only_the_slow_one_waits(pool, process, slow)


def test_tasks_prefetched_behind_a_single_slow_one_go_to_another_worker() -> None:
    pool = ready_pool(2)
    submit(pool, 1)
    process = next(process for process in pool.processes.values() if process.batches)
    slow = pool.step_into(process, task=0)
    submit(pool, 1)
    pool.settle_down(except_for=[process])  # the thread of the slow process waits for its reply
    submit(pool, 1)
    pool.step_into(next(process for process in pool.processes.values() if process.batches and not process.running), 0)
    submit(pool, 3 * PREFETCH_TASKS)
    assert_only_the_slow_one_waits(pool, process, slow)


def test_worker_without_work_takes_tasks_that_a_busy_one_has_not_begun() -> None:
    pool = ready_pool(2)
    submit(pool, 8, MEDIUM)
    first = next(process for process in pool.processes.values() if process.batches)
    running = pool.step_into(first, task=0)
    pool.settle_down(except_for=[first])
    assert [item for item in pool.items if not item.future.done()] == [running]
    pool.settle_down()
    pool.check()


def make_one_of_three_slow(count: int) -> tuple[FakePool, FakeProcess, FakeProcess]:
    """Return a pool with a worker in the first of several of `count` tasks, one in a single task, and an idle one."""
    pool = ready_pool(3)
    submit(pool, 3)
    slow, other, _ = processes = list(pool.processes.values())
    for process in processes:
        pool.step_into(process, 0)
    submit(pool, count)
    pool.step(slow)
    while pool.advance(pool.threads[0]):
        pass
    pool.step_into(slow, 0)
    pool.settle_down(except_for=[slow, other])
    return pool, slow, other


def test_tasks_behind_a_second_slow_one_go_to_the_idle_worker() -> None:
    pool, slow, _ = make_one_of_three_slow(10)
    pool.settle_down(except_for=[slow])
    pool.now += SLOW_SECONDS
    while pool.advance(pool.threads[0]):
        pass
    again = next(process for process in pool.processes.values() if process.batches and process is not slow)
    running = [pool.step_into(again, 0), slow.running]
    pool.settle_down(except_for=[slow, again])
    pool.now += SLOW_SECONDS
    pool.settle_down(except_for=[slow, again])
    assert [item for item in pool.items if not item.future.done()] == running[::-1]
    pool.settle_down()
    pool.check()


def test_tasks_of_a_slow_worker_that_exceed_a_batch_go_to_idle_workers() -> None:
    pool, _, other = make_one_of_three_slow(250)
    pool.now += SLOW_SECONDS
    pool.step(other)
    while pool.advance(pool.threads[1]):
        pass
    assert repr(pool.scheduler) == "<Scheduler: 0 queued; fake-0: busy 84, fake-1: busy 46, fake-2: busy 37>"
    pool.settle_down()
    pool.check()


def test_smaller_size_dismisses_idle_workers_now_and_busy_ones_after_their_task() -> None:
    pool = ready_pool(3)
    submit(pool, 2, LONG)
    pool.run(pool.resize(1))
    assert repr(pool.scheduler) == "<Scheduler: 0 queued; fake-0: draining, fake-1: busy 1, fake-2: busy 1>"
    pool.settle_down()
    pool.check()


def test_signal_handler_may_submit_during_a_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, is_surplus = ready_pool(2), Scheduler._is_surplus

    def submit_first(scheduler: Scheduler, worker: Worker) -> bool:
        if not pool.items:
            submit(pool, 2)
        return is_surplus(scheduler, worker)

    monkeypatch.setattr(Scheduler, "_is_surplus", submit_first)
    pool.run(pool.resize(1))
    pool.settle_down()
    pool.check()
    assert len(pool.scheduler.workers) == 1


def test_worker_that_starts_is_dismissed_only_when_it_is_ready() -> None:
    pool = FakePool(1)
    pool.run(pool.resize(3))
    pool.run(pool.resize(1))
    assert repr(pool.scheduler).count("starting") == 3
    pool.run(pool.resize(3))
    pool.settle_down()
    assert pool.started == 3


def test_ready_worker_stays_while_the_surplus_ones_start() -> None:
    pool = ready_pool(1)
    pool.run(pool.resize(3))
    pool.run(pool.resize(1))
    assert repr(pool.scheduler) == "<Scheduler: 0 queued; fake-0: idle, fake-1: starting, fake-2: starting>"
    submit(pool, 1)
    assert repr(pool.scheduler) == "<Scheduler: 0 queued; fake-0: busy 1, fake-1: starting, fake-2: starting>"
    pool.settle_down()
    assert repr(pool.scheduler) == "<Scheduler: 0 queued; fake-0: idle>"


def test_worker_is_replaced_after_the_most_tasks_that_it_may_run() -> None:
    pool = ready_pool(1, most_tasks_per_worker=2)
    submit(pool, 6)
    pool.settle_down()
    pool.check()
    assert pool.started >= 3


def test_ended_process_leaves_the_time_in_which_it_was_ready_to_its_worker() -> None:
    pool = FakePool(1)
    pool.now += 3.0  # while it starts
    pool.settle_down()
    pool.now += 5.0
    pool.process_of().end(-9)
    pool.settle_down()
    (worker,) = pool.scheduler.workers
    assert worker.slot_seconds == pytest.approx(5.0)
    pool.check()


def test_tasks_that_were_taken_back_do_not_count_for_the_most_tasks() -> None:
    pool = ready_pool(1, most_tasks_per_worker=3)
    submit(pool, 3)
    process = pool.process_of()
    while len(process.batches) != 1 or len(process.batches[0].items) != 2:  # until it has the second batch
        pool.step(process)
        pool.advance(pool.threads[0])
    pool.step_into(process, task=0)
    pool.now += SLOWEST_SECONDS
    pool.settle_down(except_for=[process])
    assert repr(pool.scheduler) == "<Scheduler: 1 queued; fake-0: busy 2>"
    pool.settle_down()
    pool.check()
    assert pool.begun_by[1] == 3


def test_late_end_of_a_send_leaves_the_next_process_alone() -> None:
    pool = ready_pool(1)
    submit(pool, 1)
    (batch,) = pool.process_of().batches
    pool.process_of().end(-9)
    pool.settle_down()
    pool.scheduler.note_blocked(batch.process)
    pool.scheduler.note_sent(batch)
    submit(pool, 1)
    pool.settle_down()
    assert pool.items[1].future.exception(0) is None


def test_stopping_a_running_task_kills_its_worker() -> None:
    pool = ready_pool(1)
    submit(pool, 1)
    pool.step(pool.process_of())
    pool.run(pool.stop(pool.items[0]))
    assert pool.process_of().code == -15
    pool.settle_down()
    pool.check()
    assert isinstance(pool.items[0].future.exception(0), TaskStopped)


def test_stopping_a_task_that_its_worker_has_not_begun_kills_nothing() -> None:
    pool = ready_pool(1)
    submit(pool, PREFETCH_TASKS + 1)
    pool.step_into(pool.process_of(), task=3)
    pool.run(pool.stop(pool.items[7]))
    assert isinstance(pool.items[7].future.exception(0), TaskStopped)
    pool.settle_down()
    pool.check()
    assert pool.started == 1


def test_stopping_a_task_whose_result_is_on_its_way_kills_nothing() -> None:
    pool = ready_pool(1)
    submit(pool, PREFETCH_TASKS + 1)
    pool.step_into(pool.process_of(), task=3)
    pool.run(pool.stop(pool.items[2]))
    pool.settle_down()
    pool.check()
    assert pool.started == 1
    assert pool.items[2].future.exception(0) is None


def test_stop_that_kills_a_worker_just_after_its_task_is_no_failed_start() -> None:
    """The next process started late, after a warning that a worker had died."""
    pool = ready_pool(1)
    submit(pool, 1)
    while not pool.process_of().replies:
        pool.step(pool.process_of())
    pool.run(pool.stop(pool.items[0]))
    pool.settle_down()
    pool.check()
    assert pool.started == 2
    assert pool.scheduler.workers[0].retry_delay_seconds == 0


def test_stopping_a_queued_task_kills_nothing() -> None:
    pool = ready_pool(1)
    submit(pool, 2, LONG)
    pool.run(pool.stop(pool.items[1]))
    pool.settle_down()
    pool.check()
    assert pool.started == 1


def test_closed_pool_runs_its_queue_and_its_workers_exit() -> None:
    pool = ready_pool(2)
    submit(pool, 20)
    pool.run(pool.close())
    pool.settle_down()
    pool.check()
    assert all(item.future.exception(0) is None for item in pool.items)


def test_closing_a_pool_that_still_starts_dismisses_its_workers_at_once() -> None:
    pool = FakePool(1)
    pool.run(pool.close())
    assert repr(pool.scheduler) == "<Scheduler: 0 queued; fake-0: draining>"


def test_cancelling_on_close_spares_tasks_that_were_begun() -> None:
    pool = ready_pool(1)
    submit(pool, 5, LONG)
    pool.run(pool.close(cancel_futures=True))
    pool.settle_down()
    pool.check()
    assert [item.future.cancelled() for item in pool.items] == [False, True, True, True, True]


def test_pool_whose_workers_can_not_start_fails_its_tasks() -> None:
    pool = FakePool(2)
    submit(pool, 3)
    pool.start_failures = 100
    pool.settle_down()
    pool.check()
    assert pool.scheduler.closed
    assert all(pool.items[0].future.exception(0) is item.future.exception(0) for item in pool.items)


def test_worker_that_leaves_a_failed_pool_does_not_fail_it_again() -> None:
    pool = FakePool(1)
    (worker,) = pool.scheduler.workers
    pool.scheduler.give_up(RuntimeError("no process"))
    assert pool.scheduler.reopen()
    assert not any(pool.scheduler.note_failed_start(worker) for _ in range(20))
    assert pool.scheduler.closed is None


def test_pause_before_a_start_doubles_up_to_five_seconds() -> None:
    pool = FakePool(1)
    (worker,) = pool.scheduler.workers
    pauses = []
    for _ in range(9):
        pauses.append(worker.retry_delay_seconds)
        pool.scheduler.note_failed_start(worker)
    assert pauses == [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]


@pytest.mark.parametrize("point", ["early", "late"])
def test_interrupted_submit_costs_a_worker_and_no_task(point: str) -> None:
    pool = ready_pool(1)
    pool.run(pool.submit(interrupted=point))
    pool.settle_down()
    submit(pool, 1)
    pool.settle_down()
    pool.check()
    assert pool.started == 2


def test_worker_that_dies_before_the_recovery_of_an_interrupted_submit_loses_no_task() -> None:
    pool = ready_pool(1)
    interrupted = pool.submit(interrupted="early")
    next(interrupted)
    next(interrupted)
    pool.process_of().end(-9)
    pool.settle_down()
    pool.run(interrupted)
    pool.settle_down()
    pool.check()
    assert pool.items[0].future.exception(0) is None


def test_tasks_of_an_interrupted_submit_are_not_taken_for_claimed_ones() -> None:
    """Two tasks that were not begun passed for begun: a stop of one killed the worker, and the other was lost."""
    pool = FakePool(1, prefetch_tasks=2)
    pool.settle_down()
    submit(pool, 4)
    pool.run(pool.submit(interrupted="early"))
    pool.run(pool.stop(pool.items[1]))
    assert isinstance(pool.items[1].future.exception(0), TaskStopped)
    assert not pool.process_of().ended
    pool.settle_down()
    pool.check()


def test_interrupted_withdrawal_of_claims_costs_a_worker_and_no_task() -> None:
    pool = ready_pool(1)
    submit(pool, PREFETCH_TASKS + 1)
    pool.step_into(pool.process_of(), task=3)
    (process,) = pool.scheduler.iter_processes()
    pool.interrupt_withdrawal(process)
    pool.run(pool.stop(pool.items[PREFETCH_TASKS]))
    assert not pool.process_of().ended
    pool.settle_down()
    pool.check()
    assert pool.started == 2
    assert [item.future.exception(0) for item in pool.items[:PREFETCH_TASKS]] == [None] * PREFETCH_TASKS


def test_process_with_unknown_claims_that_dies_loses_only_the_task_that_it_ran() -> None:
    pool = ready_pool(1)
    submit(pool, PREFETCH_TASKS + 1)
    running = pool.step_into(pool.process_of(), task=3)
    (process,) = pool.scheduler.iter_processes()
    pool.interrupt_withdrawal(process)
    pool.process_of().end(-9)
    pool.settle_down()
    pool.check()
    assert [item for item in pool.items if item.future.exception(0) is not None] == [running]


def test_slow_batch_is_noticed_after_a_death_with_a_single_task() -> None:
    pool = ready_pool(1)
    submit(pool, 1)
    pool.step_into(pool.process_of(), task=0)
    pool.process_of().end(-9)
    submit(pool, 20)
    while pool.process_of().pid == 1:
        pool.advance(pool.threads[0])
    pool.step(pool.process_of())
    pool.settle_down(except_for=[pool.process_of()])
    (worker,) = pool.scheduler.workers
    assert repr(pool.scheduler) == "<Scheduler: 0 queued; fake-0: busy 20>"
    assert worker.process is not None
    assert worker.process.tasks.get_slow_delay(pool.now) == SLOW_SECONDS


def test_slow_batch_is_noticed_after_a_single_task_was_taken_back() -> None:
    pool = ready_pool(1)
    submit(pool, PREFETCH_TASKS + 1)
    (worker,) = pool.scheduler.workers
    pool.woken.add(worker)  # its thread finds the second batch
    pool.settle_down(except_for=[pool.process_of()])
    pool.now += SLOWEST_SECONDS
    pool.settle_down(except_for=[pool.process_of()])
    assert repr(pool.scheduler) == f"<Scheduler: {PREFETCH_TASKS + 1} queued; fake-0: busy {PREFETCH_TASKS + 1}>"
    assert worker.process is not None
    while worker.process.tasks.slow:
        pool.step(pool.process_of())
        pool.advance(pool.threads[0])
    assert worker.process is not None
    assert worker.process.tasks.get_slow_delay(pool.now) == pytest.approx(SLOW_SECONDS)
    pool.settle_down()
    pool.check()


def test_worker_gets_no_batch_while_another_one_is_being_sent() -> None:
    pool = ready_pool(1)
    submit(pool, PREFETCH_TASKS)
    first, second = pool.submit(), pool.submit()
    for _ in range(3):
        next(first)  # it has begun to send
    for _ in range(PREFETCH_TASKS):
        pool.scheduler.queue.append(pool.make_item(BRIEF))
    pool.run(second)
    assert repr(pool.scheduler) == f"<Scheduler: {PREFETCH_TASKS + 1} queued; fake-0: busy {PREFETCH_TASKS + 1}>"
    pool.run(first)
    pool.settle_down()
    pool.check()


@pytest.mark.parametrize("share", range(10))
def test_random_histories_lose_nothing_and_begin_nothing_twice(share: int) -> None:
    for seed in range(share, HISTORIES, 10):
        try:
            _play(random.Random(seed))
        except AssertionError as error:
            raise AssertionError(f"history {seed}: {error}") from error


def _play(choice: random.Random) -> None:
    """Let threads and processes take turns at random while tasks come and workers die; then let all come to rest."""
    most_tasks, prefetch_tasks = choice.choice([None, None, None, 1, 3]), choice.choice((2, PREFETCH_TASKS))
    pool = FakePool(choice.randint(1, 3), most_tasks_per_worker=most_tasks, prefetch_tasks=prefetch_tasks)
    pool.is_partial, pool.is_unloadable = (lambda: choice.random() < 0.1), (lambda: choice.random() < 0.03)
    events = choice.randint(3, 12)
    while events:
        drawn = choice.random()
        if drawn < 0.45:
            pool.advance(choice.choice(pool.threads)) if pool.threads else None
        elif drawn < 0.85:
            pool.step(choice.choice(list(pool.processes.values()))) if pool.processes else None
        else:
            events -= 1
            _do_something(pool, choice)
    pool.start_failures = 0
    pool.settle_down()
    pool.check()


def _interrupted(choice: random.Random) -> str:
    return choice.choice(("early", "late")) if choice.random() < 0.02 else ""


def _do_something(pool: FakePool, choice: random.Random) -> None:
    drawn = choice.random()
    if drawn < 0.5:
        function = choice.choice((BRIEF, BRIEF, MEDIUM, LONG))
        for _ in range(choice.choice((1, 1, 2, 5, 30))):
            pool.threads.append(pool.submit(function, interrupted=_interrupted(choice)))
    elif drawn < 0.65:
        pool.threads.append(pool.resize(choice.randint(1, 4)))
    elif drawn < 0.75 and pool.processes:
        choice.choice(list(pool.processes.values())).end(choice.choice((-9, 0, 1)))
    elif drawn < 0.82 and pool.items:
        pool.threads.append(pool.stop(choice.choice(pool.items)))
    elif drawn < 0.9 and pool.items:
        choice.choice(pool.items).future.cancel()
    elif drawn < 0.95:
        pool.now += choice.choice((0.001, 0.02))
    elif drawn < 0.97:
        pool.start_failures = choice.randint(1, 3)
    elif drawn < 0.99:
        pool.threads.append(pool.close(cancel_futures=choice.random() < 0.5))
    else:
        pool.threads.append(pool.end_workers())
