"""The guide's pool: each strategy works as named, and its metrics are measured."""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, wait
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic, process_time, thread_time

import pytest

from paropt_exporter import AdaptiveWorkerPool, ParallelizationStrategy, WorkerDied, WorkerPoolMetrics
from paropt_exporter.executors import AdaptivePool, ProcessPool, TaskFuture, ThreadPool, thread_only
from paropt_exporter.executors.counters import WorkerTime
from paropt_exporter.guide.worker_pool import EndedTask
from support.pool_tasks import burn_in_child, eventually
from support.processes import run_in_forked_child

HANG_SECONDS = 60.0
EVERY_STRATEGY = tuple(ParallelizationStrategy)
PARALLEL = tuple(each for each in ParallelizationStrategy if each is not ParallelizationStrategy.SEQUENTIAL)
IN_THREADS = (ParallelizationStrategy.THREAD_POOL, ParallelizationStrategy.HYBRID, ParallelizationStrategy.ADAPTIVE)

Make = Callable[..., AdaptiveWorkerPool]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make pools that are shut down at the end of the test."""
    pools: list[AdaptiveWorkerPool] = []

    def made(*arguments: object, **keywords: object) -> AdaptiveWorkerPool:
        pools.append(AdaptiveWorkerPool(*arguments, **keywords))  # type: ignore[arg-type]  # whatever the test gives
        return pools[-1]

    yield made
    for pool in pools:
        pool.shutdown(cancel_futures=True)


class Meeting:
    """Tasks that end only once all of them run at the same time."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)

    def attend(self) -> int:
        self._barrier.wait(HANG_SECONDS)
        return os.getpid()


def wait_for(seconds: float) -> None:
    threading.Event().wait(seconds)


def compute(seconds: float) -> int:
    """Hold a core, and the interpreter's lock, for that much CPU time."""
    until = thread_time() + seconds
    rounds = 0
    while thread_time() < until:
        rounds += 1
    return os.getpid()


def fail(message: str) -> None:
    raise ValueError(message)


def cpu_seconds(metrics: WorkerPoolMetrics, name: str) -> float:
    return sum(
        task.cpu_percent / 100 * task.duration_seconds for task in metrics.stage_metrics if task.stage_name == name
    )


# Strategies


@pytest.mark.parametrize("strategy", IN_THREADS)
def test_tasks_that_wait_run_at_the_same_time(make: Make, strategy: ParallelizationStrategy) -> None:
    pool, meeting = make(strategy), Meeting(3)
    for number in (2, 3, 4):
        pool.submit_stage(number, f"stage_{number}", meeting.attend)
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    assert all(task.parallelized for task in pool.metrics.stage_metrics)


def test_adaptive_runs_more_waiting_tasks_than_cores(make: Make) -> None:
    pool, meeting = make(), Meeting(12)
    for _ in range(12):
        pool.submit_stage(5, "wait", meeting.attend)
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    assert pool.size >= 12


def pids_until_one_is_another(submit: Callable[[], list[Future[int]]]) -> set[int]:
    """The processes that the tasks ran in, submitted again until one ran elsewhere.

    On a machine with more to do than cores, what computes may look as if it waited: then the next few tell.
    """
    pids, deadline = {os.getpid()}, monotonic() + HANG_SECONDS
    while pids == {os.getpid()} and monotonic() < deadline:
        pids |= {future.result(HANG_SECONDS) for future in submit()}
    return pids


def test_adaptive_moves_a_function_that_computes_to_processes(make: Make) -> None:
    pool = make()
    pids = pids_until_one_is_another(lambda: [pool.submit_stage(4, "compute", compute, 0.1) for _ in range(8)])
    assert pids - {os.getpid()}


def test_adaptive_sends_functions_that_it_does_not_know_to_processes_while_others_compute(make: Make) -> None:
    pool = make(initial_size=2)

    def four_functions() -> list[Future[int]]:
        stages = [
            lambda: compute(0.2),
            lambda: compute(0.2),
            lambda: compute(0.2),
            lambda: compute(0.2),
        ]
        return [pool.submit_stage(number, "compute", work) for number, work in enumerate(stages, 2)]

    assert pids_until_one_is_another(four_functions) - {os.getpid()}


def test_process_pool_runs_lambdas_closures_and_bound_methods_in_other_processes(make: Make) -> None:
    pool = make(ParallelizationStrategy.PROCESS_POOL, 2)
    captured = 20

    class Stages:
        offset = 1

        def run(self, number: int) -> tuple[int, int]:
            return os.getpid(), number + self.offset + captured

    futures = [
        pool.submit_stage(2, "lambda", lambda: (os.getpid(), captured)),
        pool.submit_stage(3, "bound", Stages().run, 3),
        pool.submit_stage(4, "partial", functools.partial(Stages().run, number=4)),
    ]
    results = [future.result(HANG_SECONDS) for future in futures]
    assert [value for _, value in results] == [20, 24, 25]
    assert os.getpid() not in {pid for pid, _ in results}


def test_hybrid_pool_runs_lambdas_and_keeps_thread_only_functions_in_threads(make: Make) -> None:
    pool, seen = make(ParallelizationStrategy.HYBRID), []

    @thread_only
    def note() -> None:
        compute(0.1)
        seen.append(os.getpid())

    for _ in range(4):
        pool.submit_stage(2, "note", note)
    pool.submit_stage(3, "lambda", lambda: seen.append(os.getpid()))
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    assert seen == [os.getpid()] * 5


def test_sequential_runs_one_task_after_another_in_order(make: Make) -> None:
    pool = make(ParallelizationStrategy.SEQUENTIAL, 4)
    order: list[int] = []
    for number in range(6):
        pool.submit_stage(number, "step", partial(order.append, number))
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    assert (order, pool.size) == ([0, 1, 2, 3, 4, 5], 1)
    assert not any(task.parallelized for task in pool.metrics.stage_metrics)


def test_strategy_may_be_given_by_its_value(make: Make) -> None:
    assert make("process_pool").strategy is ParallelizationStrategy.PROCESS_POOL


def test_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"there is no strategy 'thread': choose from thread_pool, process_pool, hybrid"
    ):
        AdaptiveWorkerPool("thread")


def test_number_in_place_of_a_strategy_names_the_argument_for_it() -> None:
    with pytest.raises(ValueError, match="adaptive; give a number of workers as initial_size=4"):
        AdaptiveWorkerPool(4)  # type: ignore[arg-type]


def test_async_function_is_rejected(make: Make) -> None:
    """Its call only makes a coroutine, so the stage succeeded without running a line."""

    async def check() -> None:
        raise ValueError

    pool = make(ParallelizationStrategy.THREAD_POOL, 1)
    with pytest.raises(TypeError, match=r"check is an async function: submit one that calls asyncio.run\("):
        pool.submit_stage(1, "check", check)
    assert pool.wait_all() == (True, [])


def test_repr_names_strategy_and_size() -> None:
    with AdaptiveWorkerPool(ParallelizationStrategy.THREAD_POOL, initial_size=3) as pool:
        assert repr(pool) == "<AdaptiveWorkerPool thread_pool: 3 workers>"


@pytest.mark.parametrize("size", [0, -1])
def test_size_below_one_is_rejected(size: int) -> None:
    with pytest.raises(ValueError, match=f"initial_size is {size}: expected at least 1"):
        AdaptiveWorkerPool(initial_size=size)


@pytest.mark.parametrize("size", ["4", 2.0, True])
def test_size_that_is_no_number_is_rejected(size: object) -> None:
    with pytest.raises(TypeError, match="expected a whole number"):
        AdaptiveWorkerPool(initial_size=size)  # type: ignore[arg-type]  # that is the test


@pytest.mark.parametrize("strategy", PARALLEL)
def test_pool_has_the_size_that_it_was_given(make: Make, strategy: ParallelizationStrategy) -> None:
    assert make(strategy, 3).size == 3


@pytest.mark.parametrize("strategy", EVERY_STRATEGY)
def test_without_a_size_a_pool_chooses_one(make: Make, strategy: ParallelizationStrategy) -> None:
    assert make(strategy, None).size >= 1


@pytest.mark.parametrize("strategy", EVERY_STRATEGY)
def test_size_before_the_first_task_is_the_size_with_which_that_starts(
    make: Make, strategy: ParallelizationStrategy
) -> None:
    """A resized ADAPTIVE pool named its new maximum, and a SEQUENTIAL one any number."""
    pool = make(strategy, 2)
    pool.resize(5)
    size = pool.size
    pool.submit_stage(2, "one", pow, 2, 3).result(HANG_SECONDS)
    assert pool.size == size


# Results


@pytest.mark.parametrize("strategy", EVERY_STRATEGY)
def test_several_tasks_under_one_number_keep_all_their_results(make: Make, strategy: ParallelizationStrategy) -> None:
    pool = make(strategy)
    pool.submit_stage(4, "unit_tests", int, "1")
    pool.submit_stage(4, "unit_tests", fail, "two is broken")
    pool.submit_stage(4, "unit_tests", int, "3")
    assert pool.wait_all(HANG_SECONDS) == (False, ["stage 4 (unit_tests): ValueError: two is broken"])
    metrics = pool.metrics
    assert [task.success for task in metrics.stage_metrics] == [True, False, True]
    assert (metrics.total_tasks, metrics.completed_tasks, metrics.failed_tasks) == (3, 2, 1)


def test_stage_gets_its_arguments_and_its_future_the_result(make: Make) -> None:
    future = make().submit_stage(2, "divide", divmod, 17, 5)
    assert future.result(HANG_SECONDS) == (3, 2)
    keyword = make().submit_stage(2, "parse", int, "ff", base=16)
    assert keyword.result(HANG_SECONDS) == 255


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_exit_out_of_a_task_is_that_task_s_failure(make: Make, error: BaseException) -> None:
    pool = make(ParallelizationStrategy.THREAD_POOL, 1)

    def leave() -> None:
        raise error

    pool.submit_stage(2, "leave", leave)
    pool.submit_stage(3, "stay", int)
    success, (told,) = pool.wait_all(HANG_SECONDS)
    assert not success
    assert told.startswith(f"stage 2 (leave): {type(error).__name__}")
    assert pool.metrics.completed_tasks == 1


def test_worker_that_dies_fails_only_its_task_and_is_named(make: Make) -> None:
    pool = make(ParallelizationStrategy.PROCESS_POOL, 1)
    dying = pool.submit_stage(2, "dies", os._exit, 7)
    pool.submit_stage(3, "lives", int)
    success, (told,) = pool.wait_all(HANG_SECONDS)
    assert not success
    assert told.startswith("stage 2 (dies): WorkerDied: dies: exited with code 7")
    assert isinstance(dying.exception(), WorkerDied)
    assert [task.success for task in pool.metrics.stage_metrics] == [False, True]


def test_wait_all_reports_only_tasks_since_the_last_call(make: Make) -> None:
    pool = make()
    pool.submit_stage(2, "first", fail, "once")
    assert pool.wait_all(HANG_SECONDS)[0] is False
    pool.submit_stage(2, "second", int)
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    assert pool.metrics.total_tasks == 2


def test_wait_all_names_unfinished_tasks_and_reports_them_the_next_time(make: Make) -> None:
    pool, go = make(ParallelizationStrategy.THREAD_POOL, 2), threading.Event()

    def late() -> None:
        go.wait(HANG_SECONDS)
        raise OSError("too late")

    pool.submit_stage(2, "done", int)
    pool.submit_stage(3, "late", late)
    assert pool.wait_all(timeout=0.05) == (False, ["stage 3 (late): not ended after 0.05 s"])
    go.set()
    assert pool.wait_all(HANG_SECONDS) == (False, ["stage 3 (late): OSError: too late"])


def test_cancelled_task_is_a_failure_that_says_so(make: Make) -> None:
    pool, go = make(ParallelizationStrategy.THREAD_POOL, 1), threading.Event()
    pool.submit_stage(2, "holds", go.wait, HANG_SECONDS)
    waiting = pool.submit_stage(3, "waits", int)
    assert waiting.cancel()
    go.set()
    assert pool.wait_all(HANG_SECONDS) == (False, ["stage 3 (waits): cancelled before it began"])
    with pytest.raises(CancelledError):
        waiting.result()
    metrics = pool.metrics
    assert (metrics.completed_tasks, metrics.failed_tasks) == (1, 1)
    assert metrics.min_task_duration_seconds > 0


def test_stage_may_submit_another_stage(make: Make) -> None:
    pool = make(ParallelizationStrategy.THREAD_POOL, 2)
    outer = pool.submit_stage(2, "outer", lambda: pool.submit_stage(3, "inner", int, "7"))
    assert outer.result(HANG_SECONDS).result(HANG_SECONDS) == 7
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    assert pool.metrics.completed_tasks == 2


def test_results_are_released_after_wait_all(make: Make) -> None:
    import gc
    import weakref

    class Large:
        pass

    pool, large = make(ParallelizationStrategy.THREAD_POOL, 1), Large()
    seen = weakref.ref(large)
    pool.submit_stage(2, "make", lambda kept: kept, large).result(HANG_SECONDS)
    pool.wait_all(HANG_SECONDS)
    pool.submit_stage(3, "next", int).result(HANG_SECONDS)  # the worker's own last reference goes with its next task
    del large
    gc.collect()
    assert seen() is None


# The executor


def test_it_is_a_whole_executor(make: Make) -> None:
    pool = make()
    assert isinstance(pool, Executor)
    assert pool.submit(int, "5").result(HANG_SECONDS) == 5
    assert list(pool.map(abs, [-1, 2, -3])) == [1, 2, 3]
    done, _ = wait([pool.submit_stage(2, "a", int)], HANG_SECONDS)
    assert len(done) == 1
    assert pool.metrics.total_tasks == 1  # tasks of no stage are not in the stages' metrics


def test_leaving_its_context_ends_it_after_its_tasks_and_metrics_stay() -> None:
    with AdaptiveWorkerPool(ParallelizationStrategy.THREAD_POOL, 2) as pool:
        futures = [pool.submit_stage(2, "a", compute, 0.01) for _ in range(4)]
    assert all(future.done() for future in futures)
    assert pool.metrics.completed_tasks == 4
    pool.shutdown()
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit_stage(2, "late", int)
    assert pool.metrics.total_tasks == 4
    assert pool.wait_all() == (True, [])


def test_pool_can_be_resized_while_it_works(make: Make) -> None:
    pool, meeting = make(ParallelizationStrategy.THREAD_POOL, 1), Meeting(4)
    for _ in range(4):
        pool.submit_stage(2, "meet", meeting.attend)
    pool.resize(4)
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    assert pool.size == 4


# Measurements


def test_cpu_is_in_percent_of_one_core_and_memory_in_megabytes(make: Make) -> None:
    pool = make(ParallelizationStrategy.PROCESS_POOL, 1)
    pool.submit_stage(2, "small", compute, 0.2)
    pool.submit_stage(3, "large", lambda: len(bytes(range(256)) * 400_000))
    pool.wait_all(HANG_SECONDS)
    small, large = pool.metrics.stage_metrics
    assert cpu_seconds(pool.metrics, "small") == pytest.approx(0.2, rel=0.1)
    assert 0 < small.cpu_percent <= 110
    assert large.memory_mb - small.memory_mb == pytest.approx(102.4, abs=20)


@pytest.mark.parametrize("strategy", [ParallelizationStrategy.THREAD_POOL, ParallelizationStrategy.PROCESS_POOL])
def test_cpu_time_of_child_processes_counts_for_the_task_that_ran_them(
    make: Make, strategy: ParallelizationStrategy
) -> None:
    pool = make(strategy)
    pool.submit_stage(2, "waits", threading.Event().wait, 0.05)
    short = pool.submit_stage(3, "short", burn_in_child, 0.2)
    long = pool.submit_stage(4, "long", burn_in_child, 0.5)
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    for name, future in {"short": short, "long": long}.items():
        assert cpu_seconds(pool.metrics, name) == pytest.approx(future.result(), rel=0.1)
    assert cpu_seconds(pool.metrics, "waits") < 0.05


def test_utilization_is_busy_time_over_slot_time(make: Make) -> None:
    pool, meeting = make(ParallelizationStrategy.THREAD_POOL, 4), Meeting(2)
    for _ in range(2):  # they compute, and end, at the same time
        pool.submit_stage(2, "half", lambda: (meeting.attend(), compute(0.2), meeting.attend()))
    pool.wait_all(HANG_SECONDS)
    assert pool.metrics.worker_utilization == pytest.approx(50, abs=12)


def test_time_without_work_does_not_count_as_unused(make: Make) -> None:
    pool = make(ParallelizationStrategy.THREAD_POOL, 1)
    for _ in range(2):
        pool.submit_stage(2, "works", compute, 0.1)
        pool.wait_all(HANG_SECONDS)
        threading.Event().wait(0.3)
    assert pool.metrics.worker_utilization > 50  # 25 if the 0.6 seconds without work counted


def test_metrics_are_a_true_snapshot_while_tasks_run(make: Make) -> None:
    pool, go, ran = make(ParallelizationStrategy.THREAD_POOL, 2), threading.Event(), threading.Event()
    pool.submit_stage(2, "done", ran.set).result(HANG_SECONDS)
    ran.wait(HANG_SECONDS)
    pool.submit_stage(3, "runs", go.wait, HANG_SECONDS)
    pool.submit_stage(4, "runs_too", go.wait, HANG_SECONDS)
    pool.submit_stage(5, "queued", int)
    before = pool.metrics
    go.set()
    pool.wait_all(HANG_SECONDS)
    assert (before.total_tasks, before.completed_tasks, before.failed_tasks) == (4, 1, 0)
    assert [task.stage_name for task in before.stage_metrics] == ["done"]
    assert pool.metrics.completed_tasks == 4
    assert [task.stage_number for task in pool.metrics.stage_metrics] == [2, 3, 4, 5]
    assert pool.metrics.total_duration_seconds > before.total_duration_seconds


def test_task_is_in_the_metrics_as_soon_as_its_result_is_there(make: Make) -> None:
    pool = make(ParallelizationStrategy.THREAD_POOL, 2)
    for count in range(1, 200):
        pool.submit_stage(2, "short", int).result(HANG_SECONDS)
        assert pool.metrics.completed_tasks == count


def test_stages_tell_when_they_ran_with_a_time_zone(make: Make) -> None:
    pool = make()
    before = datetime.now(UTC)
    pool.submit_stage(2, "a", compute, 0.05)
    pool.wait_all(HANG_SECONDS)
    (task,) = pool.metrics.stage_metrics
    slack = timedelta(seconds=0.005)
    assert before - slack <= task.start_time < task.end_time <= datetime.now(UTC) + slack
    assert (task.end_time - task.start_time).total_seconds() == pytest.approx(task.duration_seconds, abs=1e-5)
    assert task.worker_id
    assert pool.metrics.timestamp.tzinfo is not None


def test_numbers_of_many_tasks_fit_together(make: Make) -> None:
    pool, began = make(ParallelizationStrategy.THREAD_POOL, 4), monotonic()
    for number in range(200):
        pool.submit_stage(2 + number % 5, f"stage_{number % 5}", fail if number % 10 == 0 else str, "x")
    success, errors = pool.wait_all(HANG_SECONDS)
    metrics = pool.metrics
    assert (success, len(errors)) == (False, 20)
    assert (metrics.total_tasks, metrics.completed_tasks, metrics.failed_tasks) == (200, 180, 20)
    assert metrics.min_task_duration_seconds <= metrics.avg_task_duration_seconds <= metrics.max_task_duration_seconds
    assert 0 < metrics.total_duration_seconds <= monotonic() - began
    assert metrics.throughput_tasks_per_second == pytest.approx(180 / metrics.total_duration_seconds)
    assert 0 <= metrics.worker_utilization <= 100


def test_pool_that_ran_nothing_has_zeros_and_no_infinity(make: Make) -> None:
    metrics = make().metrics
    assert metrics.avg_task_duration_seconds == metrics.min_task_duration_seconds == metrics.total_duration_seconds == 0
    assert (metrics.bottlenecks, metrics.stage_metrics) == ([], [])
    json.dumps(metrics.to_dict(), allow_nan=False)


@pytest.mark.parametrize("strategy", EVERY_STRATEGY)
def test_metrics_of_failures_too_are_strictly_json(make: Make, strategy: ParallelizationStrategy) -> None:
    pool = make(strategy)
    pool.submit_stage(2, "ok", int)
    pool.submit_stage(3, "broken", fail, "ümlaut\n")
    pool.submit_stage(4, "unpicklable", lambda: threading.Lock())
    pool.wait_all(HANG_SECONDS)
    plain = json.loads(json.dumps(pool.metrics.to_dict(), allow_nan=False))
    assert plain["strategy"] == strategy.value
    assert plain["stage_metrics"][1]["error_message"] == "ValueError: ümlaut\n"
    assert datetime.fromisoformat(plain["stage_metrics"][0]["end_time"]).tzinfo is not None
    assert set(plain["stage_metrics"][0]) == {
        "stage_number", "stage_name", "start_time", "end_time", "duration_seconds", "worker_id", "success",
        "error_message", "cpu_percent", "memory_mb", "parallelized",
    }  # fmt: skip


# Bottlenecks


def test_computing_in_threads_is_high_cpu_usage(make: Make) -> None:
    pool = make(ParallelizationStrategy.THREAD_POOL, 2)
    for _ in range(4):
        pool.submit_stage(4, "compute", compute, 0.1)
    pool.submit_stage(5, "children", burn_in_child, 0.2)
    pool.wait_all(HANG_SECONDS)
    high = [sentence for sentence in pool.metrics.bottlenecks if "High CPU usage" in sentence]
    assert len(high) == 1
    assert high[0].startswith("compute is CPU-bound Python in threads")
    assert any("PROCESS_POOL" in advice for advice in pool.metrics.recommendations)


def test_computing_in_processes_is_no_bottleneck_of_its_kind(make: Make) -> None:
    pool = make(ParallelizationStrategy.PROCESS_POOL, 2)
    for _ in range(4):
        pool.submit_stage(4, "compute", compute, 0.05)
    pool.wait_all(HANG_SECONDS)
    assert not any("High CPU usage" in sentence for sentence in pool.metrics.bottlenecks)


class Bound:
    """Can't be pickled, and so neither can its methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def compute(self) -> int:
        compute(0.02)
        return os.getpid()


def test_function_that_cannot_be_sent_to_a_process_is_reported(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    pool = make(ParallelizationStrategy.PROCESS_POOL, 2)
    futures = [pool.submit_stage(4, "bound", Bound().compute) for _ in range(5)]
    assert {future.result(HANG_SECONDS) for future in futures} == {os.getpid()}
    pool.wait_all(HANG_SECONDS)
    (said,) = [record for record in caplog.records if "can't be sent to a process" in record.message]
    assert said.levelname == "WARNING"
    assert "Bound.compute" in said.message
    assert "attribute '_lock': TypeError: cannot pickle '_thread.lock' object" in said.message
    (fact,) = [sentence for sentence in pool.metrics.bottlenecks if "can't be sent to a process" in sentence]
    assert "Bound.compute" in fact and "5 tasks ran in threads" in fact and "lock" in fact
    assert any("Bound.compute" in advice and "__reduce__" in advice for advice in pool.metrics.recommendations)


def test_waiting_in_a_fixed_process_pool_is_reported(make: Make) -> None:
    pool = make(ParallelizationStrategy.PROCESS_POOL, 2)
    for _ in range(2):
        pool.submit_stage(4, "waits", wait_for, 1.5)  # on a busy machine waking up takes a tenth of a second
        pool.submit_stage(5, "computes", compute, 0.1)
    pool.wait_all(HANG_SECONDS)
    (fact,) = [sentence for sentence in pool.metrics.bottlenecks if "waits: in processes" in sentence]
    assert fact.startswith("waits waits: ")
    assert any("waits: use THREAD_POOL" in advice for advice in pool.metrics.recommendations)


def test_stage_much_longer_than_the_average_is_named_with_advice(make: Make) -> None:
    pool = make(ParallelizationStrategy.THREAD_POOL, 3)
    for number, name in ((2, "short"), (3, "brief")):
        pool.submit_stage(number, name, threading.Event().wait, 0.05)
    pool.wait_all(HANG_SECONDS)
    longest = max(task.duration_seconds for task in pool.metrics.stage_metrics)  # waking up takes longer under load
    pool.submit_stage(4, "long", threading.Event().wait, 8 * longest)
    pool.wait_all(HANG_SECONDS)
    metrics = pool.metrics
    assert any(sentence.startswith("long is slow: 2.") for sentence in metrics.bottlenecks)
    assert any(sentence.startswith("stages are uneven") for sentence in metrics.bottlenecks)
    assert any(advice.startswith("long: submit it as several tasks") for advice in metrics.recommendations)


def test_more_workers_than_work_are_under_used(make: Make) -> None:
    pool = make(ParallelizationStrategy.THREAD_POOL, 8)
    pool.submit_stage(2, "alone", compute, 0.2)
    pool.wait_all(HANG_SECONDS)
    assert pool.metrics.worker_utilization < 50
    assert any(sentence.startswith("workers were busy") for sentence in pool.metrics.bottlenecks)
    assert any("fewer than 8 workers" in advice for advice in pool.metrics.recommendations)


def test_one_worker_with_a_queue_is_saturated(make: Make) -> None:
    pool = make(ParallelizationStrategy.THREAD_POOL, 1)
    started, released, last = threading.Event(), threading.Event(), threading.Event()

    def wait_for_release() -> None:
        started.set()
        released.wait(HANG_SECONDS)

    pool.submit_stage(2, "queued", wait_for_release)
    pool.submit_stage(2, "queued", int)
    pool.submit_stage(2, "queued", last.wait, HANG_SECONDS)
    assert started.wait(HANG_SECONDS)
    started_seconds = pool.metrics.total_duration_seconds
    assert eventually(lambda: pool.metrics.total_duration_seconds > started_seconds + 0.1)
    released.set()
    # While the last task runs, the ratio rises, however long the thread had waited for a core before.
    assert eventually(lambda: any("while tasks waited" in sentence for sentence in pool.metrics.bottlenecks))
    assert any("more than 1 workers" in advice for advice in pool.metrics.recommendations)
    last.set()


def test_measured_pool_costs_its_host_nothing_while_it_rests(make: Make) -> None:
    pool = make()
    pool.submit_stage(2, "a", int).result(HANG_SECONDS)
    pool.wait_all()
    before = process_time()
    threading.Event().wait(0.5)
    assert process_time() - before < 0.1


def test_signal_handler_may_read_metrics_during_any_call_of_another_thread(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread had a lock of the pools, in which the handler came, and the other thread waited for it."""
    pool, in_pools, read = make(ParallelizationStrategy.THREAD_POOL), threading.Event(), threading.Event()
    list_pools, waited = AdaptivePool.pools, list[bool]()

    def list_as_if_locked(inner: AdaptivePool) -> tuple[ThreadPool | ProcessPool, ...]:
        if threading.current_thread() is not threading.main_thread():
            in_pools.set()
            waited.append(read.wait(HANG_SECONDS))
        return list_pools(inner)

    monkeypatch.setattr(AdaptivePool, "pools", list_as_if_locked)
    submits = threading.Thread(target=pool.submit_stage, args=(4, "tests", abs, -1))
    submits.start()
    assert in_pools.wait(HANG_SECONDS)
    assert pool.metrics.stage_metrics == []
    read.set()
    submits.join()
    assert pool.wait_all() == (True, [])
    assert all(waited)


def test_rejected_task_is_no_failure_of_a_wait_that_had_begun(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait failed: unsupported format string passed to NoneType.__format__."""
    pool, waits, found = make(ParallelizationStrategy.THREAD_POOL), threading.Event(), list[tuple[bool, list[str]]]()
    waiting = threading.Thread(target=lambda: found.append(pool.wait_all()))

    wait_for = threading.Condition.wait_for

    def note_and_wait(condition: threading.Condition, predicate: Callable[[], bool], timeout: float | None) -> bool:
        waits.set()
        return wait_for(condition, predicate, timeout)

    def reject(*_: object) -> None:
        waiting.start()
        assert waits.wait(HANG_SECONDS)
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(threading.Condition, "wait_for", note_and_wait)
    monkeypatch.setattr(AdaptivePool, "submit_named", reject)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit_stage(4, "tests", abs, -1)
    waiting.join(HANG_SECONDS)
    assert found == [(True, [])]


def test_signal_handler_may_submit_a_stage_while_metrics_are_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Set changed size during iteration`."""
    pool, gate, done = make(ParallelizationStrategy.THREAD_POOL, 1), threading.Event(), TaskFuture.done

    def submit_before(future: TaskFuture[object]) -> bool:
        monkeypatch.undo()
        pool.submit_stage(2, "late", abs, -1)
        return done(future)

    pool.submit_stage(1, "waits", gate.wait)
    monkeypatch.setattr(TaskFuture, "done", submit_before)
    assert pool.metrics.stage_metrics == []
    gate.set()
    assert pool.wait_all() == (True, [])
    assert len(pool.metrics.stage_metrics) == 2


class SlowObserver:
    """An observer of stages that holds the pool's lock until the test goes on."""

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self.ended_runs = 0

    def note_submitted(self, _number: int, _name: str, _submitted_seconds: float) -> None:
        self.begun.set()
        assert self.goes_on.wait(HANG_SECONDS)

    def note_ended(self, _task: EndedTask) -> None:
        pass

    def note_run_end(self, _worker_time: WorkerTime) -> None:
        self.ended_runs += 1


def test_forked_child_neither_waits_for_tasks_nor_ends_the_run(make: Make) -> None:
    """It waited for the pool's lock, which a thread of the parent held."""
    pool, observer = make(ParallelizationStrategy.THREAD_POOL), SlowObserver()
    pool.observe_stages(observer, lambda: None)
    submits = threading.Thread(target=pool.submit_stage, args=(4, "tests", abs, -1))
    submits.start()
    assert observer.begun.wait(HANG_SECONDS)

    def use_in_child() -> None:
        assert pool.wait_all() == (True, [])
        pool.shutdown()
        assert not observer.ended_runs

    try:
        assert run_in_forked_child(use_in_child) == 0
    finally:
        observer.goes_on.set()
        submits.join()
    assert pool.wait_all() == (True, [])
    assert observer.ended_runs == 1
