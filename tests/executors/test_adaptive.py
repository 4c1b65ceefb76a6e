"""AdaptivePool chooses the pool and the size by measuring tasks."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.errors import InitializerFailed, TaskStopped, UnpicklableError
from paropt_exporter.events import Measurement, RunningTask, Strategy
from paropt_exporter.executors import AdaptivePool, ProcessPool, TaskFuture, ThreadPool, procfs, thread_only
from paropt_exporter.executors import adaptive as package
from paropt_exporter.executors.adaptive import routing, scheduler
from paropt_exporter.executors.adaptive.backlog import Backlog, QueuedTask, get_function_key
from paropt_exporter.executors.adaptive.pools import PoolBounds, Pools
from paropt_exporter.executors.adaptive.routing import FunctionProfile, Router, load_profiles, save_profiles
from paropt_exporter.executors.adaptive.scheduler import AdaptiveScheduler, Monitor, Placement
from paropt_exporter.executors.processes import process_handler
from paropt_exporter.executors.processes import scheduler as process_scheduler
from paropt_exporter.executors.processes.transport import WorkerConnection
from support.command_scripts import make_fifo, read_fifo, write_fifo
from support.interrupts import act_before, interrupted_at, shuts_down
from support.pool_tasks import HANG_SECONDS, Large, append, double, eventually, nothing, raise_it, say_and_wait, spin


def test_each_strategy_uses_its_pools() -> None:
    with AdaptivePool(Strategy.PROCESS, 2) as pool:
        assert pool.submit(os.getpid).result(HANG_SECONDS) != os.getpid()
    for strategy in (Strategy.THREAD, Strategy.HYBRID, Strategy.ADAPTIVE, Strategy.SEQUENTIAL):
        with AdaptivePool(strategy, 2) as pool:
            assert pool.submit(os.getpid).result(HANG_SECONDS) == os.getpid()


def test_sequential_runs_one_after_another_in_order() -> None:
    order: list[int] = []
    with AdaptivePool(Strategy.SEQUENTIAL) as pool:
        for number in range(50):
            pool.submit(order.append, number) if number % 2 else pool.submit(partial(order.append, number))
    assert order == list(range(50))


def test_cpu_bound_work_moves_to_processes() -> None:
    with AdaptivePool() as pool:

        def run_elsewhere() -> bool:
            futures = [pool.submit(spin, 0.05) for _ in range(12)]
            return {future.result(HANG_SECONDS) for future in futures} != {os.getpid()}

        assert eventually(run_elsewhere)  # a busy machine starts processes late


def test_initializer_runs_in_each_thread_and_each_process() -> None:
    values, processes = set[str](), set[int]()
    with AdaptivePool(initializer=set_thread_value, initargs=("set",)) as pool:

        def run_elsewhere() -> bool:
            for future in [pool.submit(spin_and_get_value, 0.05) for _ in range(12)]:
                process, value = future.result(HANG_SECONDS)
                processes.add(process)
                values.add(value)
            return processes > {os.getpid()}

        assert eventually(run_elsewhere)  # a busy machine starts processes late
    assert values == {"set"}


_thread_values = threading.local()


def set_thread_value(value: str) -> None:
    _thread_values.value = value


def spin_and_get_value(seconds: float) -> tuple[int, str]:
    return spin(seconds), getattr(_thread_values, "value", "not set")


@pytest.mark.parametrize("strategy", ["adaptive", "hybrid", "thread", "process", "sequential"])
def test_tasks_fail_if_the_initializer_does(strategy: str) -> None:
    with AdaptivePool(strategy, initializer=raise_it, initargs=(ValueError("no database"),)) as pool:
        error = pool.submit(double, 2).exception(HANG_SECONDS)
    assert isinstance(error, InitializerFailed)
    assert "no database" in str(error)


@pytest.mark.parametrize("strategy", ["adaptive", "process"])
def test_tasks_run_in_threads_if_the_initializer_is_not_picklable(
    strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    reason = "spin can't be sent to a process, so its tasks run in threads: initializer id: argument 1"
    with AdaptivePool(strategy, initializer=id, initargs=(threading.Lock(),)) as pool:

        def try_process() -> bool:
            futures = [pool.submit(spin, 0.05) for _ in range(12)]
            assert {future.result(HANG_SECONDS) for future in futures} == {os.getpid()}
            return reason in caplog.text

        assert eventually(try_process)


def test_initializer_that_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        AdaptivePool(initializer=5)  # type: ignore[arg-type]


def test_waiting_tasks_get_threads_before_the_first_one_ends() -> None:
    barrier = threading.Barrier(12)  # opens only when all tasks run at once
    with AdaptivePool() as pool:
        futures = [pool.submit(barrier.wait, HANG_SECONDS) for _ in range(12)]
        assert wait(futures, HANG_SECONDS).not_done == set()
        assert sorted(future.result() for future in futures) == list(range(12))


def test_task_may_wait_for_the_first_task_of_another_function_in_a_pool_of_one_thread() -> None:
    with AdaptivePool(start=1) as pool:
        assert pool.submit(lambda: pool.submit(double, 2).result(HANG_SECONDS)).result(HANG_SECONDS) == 4


def test_tasks_that_end_before_a_sample_shows_anything_get_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """480 sleeps of 1 ms, all submitted before the first one had ended, ran on 2 of 8 threads."""
    monkeypatch.setattr(ThreadPool, "sample_running", lambda _, **__: ())
    gate, barrier = threading.Event(), threading.Barrier(12)  # opens only when all tasks run at once
    with AdaptivePool() as pool:
        first = pool.submit(wait_for, gate.wait)
        futures = [pool.submit(wait_for, barrier.wait) for _ in range(12)]
        make_short_known(pool, wait_for)  # as if one had ended
        gate.set()
        assert first.result(HANG_SECONDS) is True
        assert sorted(future.result(HANG_SECONDS) for future in futures) == list(range(12))


def wait_for(wait: Callable[[float], int]) -> int:
    return wait(5.0)


def make_short_known(pool: AdaptivePool, function: Callable[..., object]) -> None:
    """Let the pool know a function as one whose tasks wait for 2 ms."""
    for _ in range(5):
        measured = Measurement(worker="w", pid=os.getpid(), started_seconds=1.0, ended_seconds=1.002)
        pool.router.learn(get_function_key(function), measured, concurrent=1)


def test_short_tasks_that_wait_are_queued_behind_busy_threads() -> None:
    """The thread that had ended a task of 1 ms took as long to choose the next one as the standard executor's task."""
    gate = threading.Event()
    with AdaptivePool(Strategy.HYBRID, 1) as pool:
        make_short_known(pool, wait_for)
        futures = [pool.submit(wait_for, gate.wait) for _ in range(5)]
        assert (pool.busy, pool.statistics()[0].queued, pool.waiting) == (1, 1, 3)
        gate.set()
        assert [future.result(HANG_SECONDS) for future in futures] == [True] * 5


def test_short_tasks_let_those_of_another_function_pass() -> None:
    gate, order = threading.Event(), list[str]()
    with AdaptivePool(Strategy.HYBRID, 1) as pool:
        make_short_known(pool, order.append)
        pool.submit(wait_for, gate.wait)
        for _ in range(20):
            pool.submit(order.append, "many")
        pool.submit(append_one, order)
        gate.set()
    assert order.index("one") <= 2


def append_one(order: list[str]) -> None:
    order.append("one")


def test_each_end_of_a_task_considers_few_of_many_queued_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 functions of one task each took 1 ms of CPU time a task, since each start and end considered all of them."""
    considered, release = list[str](), threading.Event()
    choose_pool = scheduler.Placement.choose_pool

    def note_considered(placement: scheduler.Placement, key: str) -> str:
        considered.append(key)
        return choose_pool(placement, key)

    monkeypatch.setattr(scheduler.Placement, "choose_pool", note_considered)
    monkeypatch.setattr(scheduler, "_FIRST_SAMPLE_SECONDS", HANG_SECONDS)
    functions = [partial(release.wait, HANG_SECONDS) for _ in range(50)]
    with AdaptivePool(Strategy.ADAPTIVE, 1) as pool:
        futures = [pool.submit(_name(f"f{number}", function)) for number, function in enumerate(functions)]
        release.set()
        wait(futures, HANG_SECONDS)
    assert len(considered) < 5 * len(functions)


def _name(name: str, function: Callable[[], object]) -> Callable[[], object]:
    def call() -> object:
        return function()

    call.__qualname__ = name
    return call


def test_queued_tasks_have_no_condition() -> None:
    """With one each, a million queued tasks took 2.1 GB instead of 0.5."""
    release = threading.Event()
    with AdaptivePool(Strategy.ADAPTIVE, 1) as pool:
        futures = [pool.submit(release.wait, HANG_SECONDS) for _ in range(10)]
        assert [future._own_condition for future in futures[2:]] == 8 * [None]
        release.set()


def test_pool_notes_the_end_of_a_task_before_the_callbacks_of_the_program() -> None:
    """Otherwise a slow callback would hold the next task up."""
    release, ended = threading.Event(), list[int]()
    with AdaptivePool(Strategy.HYBRID, 1) as pool:
        pool.submit(release.wait, HANG_SECONDS)
        queued = pool.submit(nothing)
        queued.add_done_callback(lambda _: ended.append(pool._scheduler._backlog.counts["threads"]))
        release.set()
    assert ended == [0]


def test_brief_function_that_grows_long_is_measured_without_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was measured again only when its tasks queued: one that began to compute stayed in threads."""
    monkeypatch.setattr(routing, "_LEAST_UNMEASURED_SECONDS", 0.002)
    key = get_function_key(spin)
    with AdaptivePool(max_workers=2) as pool:
        pool.router.learn_duration(key, 1e-6, 1e-6)
        for _ in range(20):
            pool.submit(spin, 0.01).result(HANG_SECONDS)
        assert pool.router.get_queue_length(key, alone=False) == 0  # of a brief function, any number


def test_one_in_a_thousand_brief_tasks_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task that was due went through the backlog, where it was counted again, and so was not measured."""
    monkeypatch.setattr(routing, "_MEASURED_ONCE_SECONDS", 100.0)
    monkeypatch.setattr(routing, "_LEAST_UNMEASURED_SECONDS", 1.0)
    submit, profiled = ThreadPool.submit_future, list[bool]()

    def note_profiled(pool: ThreadPool, *task: Any, **options: Any) -> None:
        profiled.append(options["profiled"])
        submit(pool, *task, **options)

    monkeypatch.setattr(ThreadPool, "submit_future", note_profiled)
    with AdaptivePool() as pool:
        pool.router.learn_duration(get_function_key(double), 1e-6, 1e-6)
        for number in range(300):
            pool.submit(double, number)
    assert [place for place, chosen in enumerate(profiled) if chosen] == [99, 199, 299]


def test_brief_tasks_start_in_order_beside_queued_ones_of_another_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one to be measured waited in the backlog behind the other function's, and later ones passed it."""
    monkeypatch.setattr(routing, "_LEAST_UNMEASURED_SECONDS", 0.002)
    gate, order = threading.Event(), list[int]()
    with AdaptivePool(Strategy.HYBRID, 1) as pool:
        pool.router.learn_duration(get_function_key(order.append), 1e-6, 1e-6)
        waiting = [pool.submit(wait_for, gate.wait) for _ in range(3)]
        for number in range(50):
            pool.submit(order.append, number)
        gate.set()
    assert (order, len(waiting)) == (list(range(50)), 3)


def test_only_task_of_a_pool_is_not_sampled() -> None:
    """The thread took a quarter of the CPU time of an AdaptivePool that ran a single task."""
    gate = threading.Event()
    with AdaptivePool() as pool:
        first = pool.submit(gate.wait, HANG_SECONDS)
        assert eventually(lambda: pool.busy == 1)
        assert list_monitors() == []
        second = pool.submit(gate.wait, HANG_SECONDS)
        assert len(list_monitors()) == 1
        gate.set()
        assert (first.result(HANG_SECONDS), second.result(HANG_SECONDS)) == (True, True)


def test_only_task_is_sampled_if_it_is_measured_in_full() -> None:
    """Of three child processes of 60 MB it reported 68 MB: only samples, while they live, show their total memory."""
    gate = threading.Event()
    with AdaptivePool() as pool:
        future = pool.submit_named("named", gate.wait, HANG_SECONDS)
        assert len(list_monitors()) == 1
        gate.set()
        assert future.result(HANG_SECONDS) is True


def test_program_that_runs_each_function_once_saves_their_profiles(tmp_path: Path) -> None:
    """The first task of each function was only timed: with one in each run of the program, none was ever known."""
    with AdaptivePool(memory=tmp_path / "functions.json") as pool:
        pool.submit(double, 1).result(HANG_SECONDS)
        pool.submit(spin, 0.002).result(HANG_SECONDS)
    saved = {profile.function for profile in load_profiles(tmp_path / "functions.json")}
    assert saved == {get_function_key(double), get_function_key(spin)}


def test_first_tasks_are_prepared_for_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the very first one: a pool that runs a single task takes no samples. It is prepared by the second."""
    prepare, submit = ThreadPool.prepare_samples, ThreadPool.submit_future
    seen: list[object] = []

    def note_preparation(pool: ThreadPool) -> None:
        seen.append("prepare")
        prepare(pool)

    def note_submit(pool: ThreadPool, *task: Any, **options: Any) -> None:
        seen.append(options["sampled"])
        submit(pool, *task, **options)

    monkeypatch.setattr(ThreadPool, "prepare_samples", note_preparation)
    monkeypatch.setattr(ThreadPool, "submit_future", note_submit)
    gate = threading.Event()
    with AdaptivePool(start=2) as pool:
        pool.submit(gate.wait, HANG_SECONDS)
        pool.submit(wait_for, gate.wait)
        gate.set()
    assert (seen[0], {*seen[1:3]}) == (False, {True, "prepare"})


@pytest.mark.parametrize("place", [(AdaptiveScheduler, "prepare_samples"), (threading.Thread, "start")])
def test_interrupt_before_the_monitor_starts_does_not_prevent_its_start(
    monkeypatch: pytest.MonkeyPatch, place: tuple[type, str]
) -> None:
    """The pool took the thread for running, and never again added threads for waiting functions."""
    gate = threading.Event()

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with AdaptivePool() as pool:
        pool.submit(gate.wait, HANG_SECONDS)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(*place, interrupt)
            pool.submit(gate.wait, HANG_SECONDS)
        pool.submit(gate.wait, HANG_SECONDS)
        assert len(list_monitors()) == 1
        gate.set()


def test_second_task_of_a_function_is_submitted_once_the_first_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thread submits, the first task waits for the GIL, and each task queued meanwhile needs a decision."""
    monkeypatch.setattr(scheduler, "_TRIAL_SECONDS", HANG_SECONDS)
    with AdaptivePool() as pool:
        first = pool.submit(eventually, lambda: pool.waiting > 0)
        pool.submit(eventually, lambda: True)
        assert first.done()


def test_second_task_of_a_function_is_submitted_while_the_first_runs() -> None:
    gate = threading.Event()
    with AdaptivePool() as pool:
        pool.submit(gate.wait, HANG_SECONDS)
        second = pool.submit(gate.wait, HANG_SECONDS)
        gate.set()
        assert second.result(HANG_SECONDS)


class ScriptedSamples:
    """Stands in for the samples of a pool's threads, of which each runs one task.

    `asked`: for each sample that would read a task's child processes, whether the scheduler wanted them. `states`:
    likewise for the state of the task's thread.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[bool] = []
        self.states: list[bool] = []
        self.reading_seconds = 0.0  # before the child processes are read
        self._now = 100.0
        monkeypatch.setattr(ThreadPool, "sample_running", self._sample)
        monkeypatch.setattr(scheduler, "monotonic", lambda: self._now)
        monkeypatch.setattr(Monitor, "wake", lambda _: None)  # only the test takes samples
        bounds = PoolBounds(strategy=Strategy.ADAPTIVE, cores=2, max_workers=None, start=2)
        self._scheduler = AdaptiveScheduler(bounds, profiles_path=None)
        self._future: TaskFuture[Any] = TaskFuture()

    @contextmanager
    def running(self, function: Callable[..., Any], *arguments: object) -> Iterator[None]:
        self._key = get_function_key(function)
        self._scheduler.submit(QueuedTask(self._future, self._key, function, arguments, {}))
        yield
        self._scheduler.close()
        self._future.result(HANG_SECONDS)
        self._scheduler.join()

    def sample(
        self,
        *,
        at: float,
        run_seconds: float = 0.0,
        wait_seconds: float = 0.0,
        is_runnable: bool = False,
        is_late: bool = False,
    ) -> None:
        """Take a sample at this age of the task, which ran and waited for a core for so long, and slept otherwise."""
        self._now, self._time, self._is_runnable = 100.0 + at, CoreTime(run_seconds, wait_seconds), is_runnable
        self._scheduler.sample_running(is_late=is_late)

    def get_cpu_demand(self) -> float | None:
        """Return the demand of the function, as far as the scheduler knows it."""
        return self._scheduler.router.get_cpu_demand(self._key)

    def _sample(
        self, *, children: Callable[[TaskFuture[Any]], bool], state: Callable[[TaskFuture[Any]], bool], **__: Any
    ) -> Any:
        self.states.append(state(self._future))
        self._now += self.reading_seconds
        age = self._now - 100.0
        if (
            self._time.wait_seconds < 0.9 * age
        ):  # otherwise a pool's threads are taken for computing, and no children are read
            self.asked.append(children(self._future))
        task = RunningTask(
            label="task", worker="thread", started_seconds=100.0, cpu_seconds=0.0, memory_bytes=0,
            run_delay_seconds=self._time.wait_seconds, core_time=self._time, sampled_seconds=self._now,
            thread_run_seconds=self._time.run_seconds, is_runnable=self._is_runnable,
        )  # fmt: skip
        return ((self._future, task),)


def test_function_without_child_processes_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that started its process after 20 ms counted as one without for good: all its tasks ran at once."""
    samples, gate = ScriptedSamples(monkeypatch), threading.Event()
    with samples.running(gate.wait, HANG_SECONDS):
        for at in (0.03, 0.04, 0.06, 0.08, 0.11, 0.15, 0.20):
            samples.sample(at=at)
        gate.set()
    assert samples.asked == [True, False, True, False, True, False, True]


def test_thread_that_only_waited_for_a_core_does_not_count_as_childless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seven calls of `subprocess.run` all ran at once on 2 cores beside 20 busy loops: the first forked late."""
    samples, gate = ScriptedSamples(monkeypatch), threading.Event()
    with samples.running(gate.wait, HANG_SECONDS):
        samples.sample(at=0.025, wait_seconds=0.024)
        samples.sample(at=0.030, wait_seconds=0.024)
        samples.sample(at=0.035, wait_seconds=0.024)
        gate.set()
    assert samples.asked == [True, True]


def test_child_processes_of_an_unknown_function_are_read_however_long_reading_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples, gate = ScriptedSamples(monkeypatch), threading.Event()
    samples.reading_seconds = 0.01
    with samples.running(gate.wait, HANG_SECONDS):
        samples.sample(at=0.003)
        samples.sample(at=0.006)
        assert samples.get_cpu_demand() == 0
        samples.sample(at=0.009)
        gate.set()
    assert samples.asked == [True, True, False]


def test_thread_that_waits_for_a_core_or_for_the_gil_is_not_taken_for_a_sleeping_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No sample has a wait that goes on. Beside 6 busy loops on 2 cores, 16 calls of `subprocess.run` ran at once."""
    samples, gate = ScriptedSamples(monkeypatch), threading.Event()
    with samples.running(gate.wait, HANG_SECONDS):
        for at, is_runnable, is_late in ((0.003, False, False), (0.006, True, False), (0.009, False, True)):
            samples.sample(at=at, is_runnable=is_runnable, is_late=is_late)
            assert samples.get_cpu_demand() is None
        samples.sample(at=0.012)
        assert samples.get_cpu_demand() == 0
        samples.sample(at=0.015)
        gate.set()
    assert samples.states == [True, True, True, True, False]


class Outcome:
    pass


def test_last_sample_of_a_function_does_not_keep_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the task ended while it was sampled, no other sample followed."""
    monkeypatch.setattr(Monitor, "wake", lambda _: None)  # only the test takes samples
    monkeypatch.setattr(scheduler, "_TRIAL_SAMPLE_SECONDS", 0.0)
    started, gate = threading.Event(), threading.Event()

    def make() -> Outcome:
        started.set()
        gate.wait(HANG_SECONDS)
        return Outcome()

    with AdaptivePool() as pool:
        future = pool.submit(make)
        assert started.wait(HANG_SECONDS)
        pool._scheduler.sample_running()
        gate.set()
        result = weakref.ref(future.result(HANG_SECONDS))
        del future
        assert eventually(lambda: gc.collect() >= 0 and result() is None)  # the thread may hold it for a moment


def test_unknown_function_that_runs_now_and_then_shows_its_demand_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may start a child process any moment."""
    samples, gate = ScriptedSamples(monkeypatch), threading.Event()
    with samples.running(gate.wait, HANG_SECONDS):
        for number in range(1, 6):
            samples.sample(at=0.003 * number, run_seconds=0.0003 * number)
            assert samples.get_cpu_demand() is None
        samples.sample(at=0.021, run_seconds=0.0021)
        assert samples.get_cpu_demand() == pytest.approx(0.1)
        gate.set()


def list_monitors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "adaptive-monitor" in thread.name]


def test_pool_retries_a_refused_monitor_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    refused: list[threading.Thread] = []

    def refuse_once(thread: threading.Thread) -> None:
        if "adaptive-monitor" in thread.name and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    barrier = threading.Barrier(12)  # opens only when all tasks run at once
    with AdaptivePool() as pool:
        assert wait([pool.submit(barrier.wait, HANG_SECONDS) for _ in range(12)], HANG_SECONDS).not_done == set()
    assert refused


def fail_as_runtime_error(*_: object) -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise RuntimeError("release unlocked lock")


def end_the_thread(thread: threading.Thread, ends: threading.Event) -> None:
    """As the library does after a TimeoutError in `start`: the thread is alive, but ends before it runs."""
    thread.run = ends.wait  # type: ignore[assignment,method-assign]
    thread.start()
    raise KeyboardInterrupt


@pytest.mark.parametrize("interrupt", [fail_as_runtime_error, end_the_thread])
def test_interrupt_of_the_start_of_the_monitor_is_raised_and_leaves_the_next_start_possible(
    interrupt: Callable[[threading.Thread, threading.Event], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool took it for a refusal by the system, or never sampled again: tasks that wait got no threads."""
    start, ends = threading.Thread.start, threading.Event()

    def start_or_interrupt(thread: threading.Thread) -> None:
        if "adaptive-monitor" in thread.name:
            monkeypatch.undo()
            interrupt(thread, ends)
        start(thread)

    barrier = threading.Barrier(12)  # opens only when all tasks run at once
    with AdaptivePool() as pool:
        monkeypatch.setattr(threading.Thread, "start", start_or_interrupt)
        futures = [pool.submit(barrier.wait, HANG_SECONDS)]
        with pytest.raises(KeyboardInterrupt):
            pool.submit(barrier.wait, HANG_SECONDS)
        ends.set()
        futures += [pool.submit(barrier.wait, HANG_SECONDS) for _ in range(10)]
        assert wait(futures, HANG_SECONDS).not_done == set()
        assert [future.exception() for future in futures] == [None] * 11


@pytest.mark.parametrize("strategy", [Strategy.ADAPTIVE, Strategy.HYBRID])
def test_tasks_run_in_threads_while_the_system_refuses_a_process_pool(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start

    def refuse_process_workers(thread: threading.Thread) -> None:
        if "process" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_process_workers)
    with AdaptivePool(strategy, 2) as pool:
        learned = [pool.submit(spin, 0.05).result(HANG_SECONDS) for _ in range(3)]
        pids = {future.result(HANG_SECONDS) for future in [pool.submit(spin, 0.02) for _ in range(20)]}
        assert {*learned, *pids} == {os.getpid()}
        refusals = caplog.text.count("no process pool: its tasks run in threads for now")
        assert 1 <= refusals <= 10  # one a second
        monkeypatch.undo()
        assert eventually(lambda: pool.submit(spin, 0.02).result(HANG_SECONDS) != os.getpid())


def test_tasks_run_in_threads_once_the_system_has_given_no_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All later tasks that compute failed, until the program made another pool."""

    def refuse(_: object) -> WorkerConnection:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(process_scheduler, "_MOST_FAILED_STARTS", 3)
    monkeypatch.setattr(process_handler, "WorkerConnection", refuse)
    with AdaptivePool(Strategy.ADAPTIVE, 2) as pool:
        assert eventually(lambda: isinstance(pool.submit(spin, 0.02).exception(HANG_SECONDS), InitializerFailed))
        pids = {future.result(HANG_SECONDS) for future in [pool.submit(spin, 0.02) for _ in range(20)]}
        assert pids == {os.getpid()}
        assert "no process pool: its tasks run in threads for now" in caplog.text
        monkeypatch.undo()
        assert eventually(lambda: pool.submit(spin, 0.02).result(HANG_SECONDS) != os.getpid())


def test_map_of_a_process_strategy_takes_chunks() -> None:
    """As with a ProcessPool. A function that can't be sent to a process gets its chunks in threads."""
    lock = threading.Lock()

    def double_locked(number: int) -> int:
        with lock:
            return 2 * number

    with AdaptivePool(Strategy.PROCESS, 2) as pool:
        assert list(pool.map(double, range(10), chunksize=4)) == list(range(0, 20, 2))
        assert list(pool.map(double_locked, range(10), chunksize=4)) == list(range(0, 20, 2))
        assert [each.finished["success"] for each in pool.statistics()] == [3, 3]
        with pytest.raises(ValueError, match="chunksize must be >= 1"):
            pool.map(double, [1], chunksize=0)


def test_chunk_of_a_brief_function_that_computes_runs_in_a_process() -> None:
    """The function alone stays in threads."""

    def spin_briefly(_: int) -> int:
        return spin(0.0002)

    with AdaptivePool() as pool:
        list(pool.map(spin_briefly, range(10)))

        def run_elsewhere() -> bool:
            return set(pool.map(spin_briefly, range(2000), chunksize=200)) != {os.getpid()}

        assert eventually(run_elsewhere)  # a busy machine starts processes late


@pytest.mark.parametrize("strategy", [Strategy.ADAPTIVE, Strategy.HYBRID])
def test_chunks_are_measured_as_tasks_by_their_size(strategy: Strategy) -> None:
    """After brief small chunks, large ones that compute went to threads, and counted as calls of the function alone."""
    gate, key = threading.Event(), get_function_key(wait_for)
    with AdaptivePool(strategy, 1) as pool:
        results = pool.map(wait_for, [gate.wait] * 7, chunksize=3)
        assert eventually(lambda: bool(pool.running()))
        assert [task.label for task in pool.running()] == [f"{key} in chunks of up to 4"]
        gate.set()
        assert list(results) == [True] * 7
        assert [each.finished["success"] for each in pool.statistics()] == [3]
        assert pool.router.get_cpu_demand(f"{key} in chunks of up to 4") is not None
        assert pool.router.get_cpu_demand(key) is None


def test_functions_that_stay_in_threads_need_no_chunks() -> None:
    for function, strategy in ((double, Strategy.THREAD), (thread_only(lambda number: 2 * number), Strategy.ADAPTIVE)):
        with AdaptivePool(strategy) as pool:
            assert list(pool.map(function, range(10), chunksize=4)) == list(range(0, 20, 2))
            assert [each.finished["success"] for each in pool.statistics()] == [10]


def test_shutdown_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    for _ in range(50):
        with AdaptivePool() as pool:
            assert list(pool.map(double, range(20))) == list(range(0, 40, 2))
        assert set(threading.enumerate()) <= before


def run_alone(pool: AdaptivePool, function: Callable[[], int], reason: str) -> bool:
    """Run a task and return whether its function stays in threads for this reason by now."""
    future = pool.submit(function)
    assert future.result(HANG_SECONDS) == os.getpid()
    return reason in pool.router.get_pin_reason(future.label)


def test_unmovable_functions_stay_in_threads_with_a_reason() -> None:
    lock = threading.Lock()

    def locked() -> int:
        with lock:
            return spin(0.01)

    @thread_only
    def marked() -> int:
        return spin(0.01)

    with AdaptivePool() as pool:
        for function, reason in ((locked, "can't travel"), (marked, "thread_only")):
            # One at a time: several threads that lack a core and the lock may look for a while as if they waited.
            assert eventually(partial(run_alone, pool, function, reason))
            futures = [pool.submit(function) for _ in range(8)]
            assert {future.result(HANG_SECONDS) for future in futures} == {os.getpid()}
        (fallback,) = pool.fallbacks
        assert "locked" in fallback.function and "lock" in fallback.reason and fallback.tasks > 0


def make_lock() -> threading.Lock:
    spin(0.01)
    return threading.Lock()


@pytest.mark.parametrize("strategy", [Strategy.ADAPTIVE, Strategy.HYBRID])
def test_function_whose_result_can_not_be_sent_back_stays_in_threads(strategy: Strategy) -> None:
    """All its tasks but the first ones failed."""

    def has_failed(pool: AdaptivePool) -> bool:
        return isinstance(pool.submit(make_lock).exception(HANG_SECONDS), UnpicklableError)

    with AdaptivePool(strategy, 2) as pool:
        assert eventually(partial(has_failed, pool)), pool.fallbacks
        futures = [pool.submit(make_lock) for _ in range(8)]
        assert [future.exception(HANG_SECONDS) for future in futures] == [None] * 8
        (fallback,) = pool.fallbacks
        assert "make_lock" in fallback.function and "could not be sent back" in fallback.reason


def test_wait_for_a_core_after_the_end_of_a_task_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task seemed to have taken no time without its waits, so the function counted as brief, and stayed in threads.

    The run delay is read after the end, for which the thread may have to wait.
    """
    delays = itertools.count(step=3600.0)
    monkeypatch.setattr(procfs, "read_run_delay_seconds", lambda _path: next(delays))
    with ThreadPool(1) as pool:
        future = pool.submit_named("spin", spin, 0.01)
        future.result(HANG_SECONDS)
    measured = future.measurement
    assert measured is not None
    wall_seconds = measured.ended_seconds - measured.started_seconds
    assert measured.run_delay_seconds == max(0.0, wall_seconds - measured.cpu_seconds)


def test_task_submitted_after_an_unsendable_result_was_seen_runs_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for a future may go on before the future's callbacks are called."""
    late, note_done = threading.Event(), AdaptiveScheduler._on_task_done

    def note_done_late(state: AdaptiveScheduler, future: TaskFuture[Any]) -> None:
        if isinstance(future.exception(), UnpicklableError):
            late.wait(HANG_SECONDS)
        note_done(state, future)

    monkeypatch.setattr(AdaptiveScheduler, "_on_task_done", note_done_late)
    with AdaptivePool(Strategy.HYBRID, 4) as pool:
        assert eventually(lambda: pool.submit(make_lock).exception(HANG_SECONDS) is not None)
        future = pool.submit(make_lock)
        try:
            assert future.exception(HANG_SECONDS) is None
        finally:
            late.set()


def test_ended_task_does_not_wake_the_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two switches of threads for each task doubled the time of those that last a millisecond."""
    checks, never = list[bool](), threading.Event()
    must_wake = Monitor._must_wake

    def count_checks(monitor: Monitor) -> bool:
        checks.append(must_wake(monitor))
        return checks[-1]

    monkeypatch.setattr(Monitor, "_must_wake", count_checks)
    monkeypatch.setattr(scheduler, "_FIRST_SAMPLE_SECONDS", HANG_SECONDS)
    with AdaptivePool(Strategy.ADAPTIVE, 2) as pool:
        for _ in range(50):
            pool.submit(never.wait, 0.002).result(HANG_SECONDS)
        assert len(checks) < 10


def test_unpicklable_waiting_function_is_no_fallback() -> None:
    release = threading.Event()
    release.set()
    with AdaptivePool() as pool:
        for _ in range(8):
            pool.submit(lambda: release.wait(HANG_SECONDS)).result(HANG_SECONDS)
        assert pool.fallbacks == ()


def test_queued_task_can_be_cancelled_or_stopped() -> None:
    release = threading.Event()
    with AdaptivePool(Strategy.THREAD, 1) as pool:
        first = pool.submit(release.wait, HANG_SECONDS)
        cancelled, stopped = pool.submit(nothing), pool.submit(nothing)
        assert cancelled.cancel()
        assert pool.stop(stopped, TaskStopped("no longer wanted"))
        release.set()
        assert first.result(HANG_SECONDS)
        assert isinstance(stopped.exception(0), TaskStopped)


@pytest.mark.parametrize("strategy", [Strategy.ADAPTIVE, Strategy.HYBRID])
def test_thousands_of_cancelled_tasks_hold_up_no_other(strategy: Strategy) -> None:
    release = threading.Event()
    with AdaptivePool(strategy, 1) as pool:
        first = pool.submit(release.wait, HANG_SECONDS)
        queued = [pool.submit(release.wait, HANG_SECONDS) for _ in range(5000)]
        last = pool.submit(double, 1)
        assert all(future.cancel() for future in queued if not future.running())
        release.set()
        assert first.result(HANG_SECONDS)
        assert last.result(HANG_SECONDS) == 2
        assert wait(queued, HANG_SECONDS).not_done == set()


def test_shutdown_ends_whose_last_queued_tasks_were_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their drop must wake it: it looks for tasks between the end of the running one and the drop, and waits again."""
    looks = threading.Semaphore(0)

    def look(backlog: Backlog) -> bool:
        looks.release()
        return not backlog.count_queued() and not backlog.submitted

    monkeypatch.setattr(Backlog, "is_empty", property(look))
    for name in ("learn", "learn_duration"):  # between the end and the drop
        monkeypatch.setattr(Router, name, lambda *_, **__: looks.acquire(timeout=HANG_SECONDS))
    release = threading.Event()
    pool = AdaptivePool(Strategy.HYBRID, 1)
    pool.submit(release.wait, HANG_SECONDS)
    queued = [pool.submit(nothing) for _ in range(3)]
    ended = threading.Thread(target=pool.shutdown, daemon=True)
    ended.start()
    assert looks.acquire(timeout=HANG_SECONDS)
    assert all(future.cancel() for future in queued)
    release.set()
    ended.join(HANG_SECONDS)
    assert not ended.is_alive()


@pytest.mark.parametrize("strategy", [Strategy.ADAPTIVE, Strategy.HYBRID])
@pytest.mark.parametrize("queued", [0, 4])
def test_interrupt_anywhere_in_submit_loses_no_task(strategy: Strategy, queued: int) -> None:
    """A task that was on its way to a pool then was lost with its slot, and a shutdown waited for it forever."""
    line, interrupted, never = 1, True, threading.Event()
    while interrupted:
        pool = AdaptivePool(strategy, 2)
        futures = [pool.submit(never.wait, 0.002) for _ in range(queued)]
        interrupted = interrupted_at(line, lambda pool=pool: pool.submit(never.wait, 0.002), package)  # type: ignore[misc]
        futures.append(pool.submit(never.wait, 0.002))
        assert wait(futures, HANG_SECONDS).not_done == set(), line
        assert shuts_down(pool), line
        line += 1
    assert line > 20


@pytest.mark.parametrize("strategy", [Strategy.ADAPTIVE, Strategy.HYBRID])
def test_tasks_after_an_interrupted_submit_wait_for_no_other_function(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def interrupt(_: AdaptiveScheduler) -> None:
        raise KeyboardInterrupt

    with AdaptivePool(strategy, 2) as pool:
        pool.submit(release.wait, HANG_SECONDS)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(AdaptiveScheduler, "dispatch", interrupt)
            pool.submit(double, 3)
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8
        release.set()


def test_task_whose_pickling_exits_fails_and_leaves_its_slot() -> None:
    with AdaptivePool(Strategy.HYBRID, 1) as pool:
        pool.router.load_profiles([FunctionProfile(function=get_function_key(double), cpu_demand=1.0, seconds=1.0)])
        with pytest.raises(SystemExit):
            pool.submit(double, ExitsAsPickled())  # type: ignore[arg-type]
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8


class ExitsAsPickled:
    def __reduce__(self) -> str:
        raise SystemExit(3)


def test_interrupted_shutdown_that_cancels_loses_no_task() -> None:
    line, interrupted = 1, True
    while interrupted:
        release, pool = threading.Event(), AdaptivePool(Strategy.HYBRID, 1)
        futures = [pool.submit(release.wait, HANG_SECONDS) for _ in range(4)]
        shutdown = partial(pool.shutdown, wait=False, cancel_futures=True)
        interrupted = interrupted_at(line, shutdown, package)
        release.set()
        pool.shutdown()
        assert wait(futures, HANG_SECONDS).not_done == set(), line
        line += 1
    assert line > 20


def test_shutdown_finishes_submitted_tasks_and_refuses_new_ones() -> None:
    pool = AdaptivePool()
    futures = [pool.submit(double, number) for number in range(100)]
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(nothing)
    pool.shutdown()
    assert [future.result(0) for future in futures] == [2 * number for number in range(100)]
    assert (pool.live, pool.busy, pool.waiting) == (0, 0, 0)


def test_functions_with_one_label_are_routed_apart(tmp_path: Path) -> None:
    computing, waiting = f"{spin.__module__}.spin", f"{os.getpid.__module__}.getpid"
    memory = tmp_path / "functions.json"
    profiles = {computing: 1.0, waiting: 0.0}
    save_profiles(memory, [FunctionProfile(function=n, cpu_demand=d, seconds=1.0) for n, d in profiles.items()])
    with AdaptivePool(memory=memory) as pool:
        assert pool.submit_named("stage", spin, 0.01).result(HANG_SECONDS) != os.getpid()
        assert pool.submit_named("stage", os.getpid).result(HANG_SECONDS) == os.getpid()
    assert {profile.function for profile in load_profiles(memory)} == {computing, waiting}


def meet(barrier: threading.Barrier | None) -> int:
    return barrier.wait(HANG_SECONDS) if barrier is not None else 0


def known_as_brief(pool: AdaptivePool) -> None:
    wait([pool.submit(meet, None) for _ in range(50)], HANG_SECONDS)
    assert pool.router.needs_no_decision(f"{meet.__module__}.meet")


def test_brief_function_that_starts_to_wait_gets_threads() -> None:
    barrier = threading.Barrier(12)  # opens only when all tasks run at once
    with AdaptivePool() as pool:
        known_as_brief(pool)
        futures = [pool.submit(meet, barrier) for _ in range(12)]
        assert sorted(future.result(HANG_SECONDS) for future in futures) == list(range(12))


def test_task_of_a_brief_function_can_be_stopped() -> None:
    barrier = threading.Barrier(2)
    with AdaptivePool() as pool:
        known_as_brief(pool)
        future = pool.submit(meet, barrier)
        error = TaskStopped("enough")
        assert pool.stop(future, error)
        assert future.exception(HANG_SECONDS) is error
        barrier.abort()


def test_stopping_a_task_under_process_strategy_ends_its_worker(tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    with AdaptivePool(Strategy.PROCESS, 1) as pool:
        future = pool.submit(say_and_wait, str(fifo))
        assert read_fifo(fifo) == "here"
        error = TaskStopped("over its limit")
        assert pool.stop(future, error, grace_seconds=HANG_SECONDS)
        assert future.exception(HANG_SECONDS) is error
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8
        assert pool.statistics()[0].deaths == {"stopped": 1}


def test_large_arguments_are_pickled_for_free_workers_only_under_process_strategy(tmp_path: Path) -> None:
    """A hundred tasks with one table of 100 MB took 10 GB."""
    fifo, pickled = make_fifo(tmp_path), Large.pickled
    with AdaptivePool(Strategy.PROCESS, 1) as pool:
        first = pool.submit(Path.read_text, fifo)
        futures = [pool.submit(str.upper, Large()) for _ in range(20)]  # type: ignore[arg-type]  # a str once pickled
        assert Large.pickled == pickled + 1
        write_fifo(fifo, "go on")
        assert first.result(HANG_SECONDS) == "go on"
        assert [future.result(HANG_SECONDS) for future in futures] == ["LARGE"] * 20


def test_stop_ends_a_task_of_the_backlog_that_a_worker_has_just_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo, fail = make_fifo(tmp_path), TaskFuture.fail_queued
    with AdaptivePool(Strategy.PROCESS, 1) as pool:
        first = pool.submit(Path.read_text, fifo)
        log, large = str(tmp_path / "log"), Large()
        _, queued = pool.submit(append, log, large), pool.submit(say_and_wait, log, large)  # type: ignore[arg-type]  # as above

        def end_first_task(future: TaskFuture[Any], error: BaseException) -> bool:
            if not first.done():
                write_fifo(fifo, "go on")
                assert eventually(queued.running)
            return fail(future, error)

        monkeypatch.setattr(TaskFuture, "fail_queued", end_first_task)
        assert pool.stop(queued, TaskStopped("stop"))
        assert isinstance(queued.exception(HANG_SECONDS), TaskStopped)


def test_pool_shuts_down_after_an_interrupt_of_the_callbacks_of_a_cancelled_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waited without end for a task that it had submitted."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPool, "submit_future", lambda *_, **__: None)  # its threads are busy
    monkeypatch.setattr(AdaptiveScheduler, "_on_task_done", interrupt)
    pool = AdaptivePool(Strategy.HYBRID, 1)
    future = pool.submit(abs, -1)
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    assert shuts_down(pool)


def test_pool_samples_although_another_thread_has_locked_the_future_of_its_task() -> None:
    """A signal handler that interrupted that thread, and used the pool, waited without end."""
    goes_on = threading.Event()
    with AdaptivePool(Strategy.ADAPTIVE, 1) as pool:
        running = pool.submit(goes_on.wait, HANG_SECONDS)
        with running._condition:
            sampling = threading.Thread(target=pool._scheduler.sample_running, daemon=True)
            sampling.start()
            sampling.join(HANG_SECONDS)
            assert not sampling.is_alive()
        goes_on.set()


def test_signal_handler_may_submit_while_a_task_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both took the same task: IndexError, or the loss of the next one."""
    choose, submitted = Placement.choose_pool, list[Future[int]]()
    with AdaptivePool(Strategy.HYBRID, 2) as pool:

        def submit_first(placement: Placement, key: str) -> str:
            if not submitted:
                submitted.append(pool.submit(abs, -2))
            return choose(placement, key)

        monkeypatch.setattr(Placement, "choose_pool", submit_first)
        submitted.insert(0, pool.submit(abs, -1))
        assert [future.result(HANG_SECONDS) for future in submitted] == [1, 2]


def test_timeout_of_a_signal_handler_is_no_refusal_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an OSError: the alarm was lost, and a task failed with it."""

    def time_out(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise TimeoutError

    with AdaptivePool(Strategy.HYBRID, 1) as pool:
        monkeypatch.setattr(ThreadPool, "submit_future", time_out)
        with pytest.raises(TimeoutError):
            pool.submit(abs, -1)


def test_timeout_of_a_signal_handler_is_no_refusal_of_a_process_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm was lost, and tasks ran in threads."""

    def time_out(*_: object, **__: object) -> None:
        raise TimeoutError

    pools = Pools(PoolBounds(strategy=Strategy.HYBRID, cores=1, max_workers=1, start=1), threading.RLock(), nothing)
    monkeypatch.setattr(ProcessPool, "__init__", time_out)
    with pools.get("threads"), pytest.raises(TimeoutError):
        pools.get_processes()


def test_resize_during_a_change_of_the_number_of_threads_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads that the monitor added then stayed beyond the new maximum."""
    pools = Pools(PoolBounds(strategy=Strategy.ADAPTIVE, cores=2, max_workers=8, start=2), threading.RLock(), nothing)
    resize = ThreadPool.resize

    def lower_maximum(pool: ThreadPool, size: int, *, reason: str = "caller") -> None:
        monkeypatch.undo()
        pools.resize(1, "caller")
        resize(pool, size, reason=reason)

    with pools.get("threads") as threads:
        pools.sizes["threads"] = 8
        monkeypatch.setattr(ThreadPool, "resize", lower_maximum)
        pools.apply_size("threads", "demand")
        assert threads.target == 1


def test_timeout_of_a_signal_handler_ends_the_wait_for_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def time_out(_: TaskFuture[Any]) -> None:
        monkeypatch.undo()
        raise TimeoutError

    with AdaptivePool(max_workers=1) as pool:
        pool.submit(go.wait)
        monkeypatch.setattr(TaskFuture, "_get_condition", time_out)
        try:
            with pytest.raises(TimeoutError):
                pool.submit(go.wait)
        finally:
            go.set()


def test_task_whose_submission_a_signal_handler_interrupts_to_close_the_pool_is_refused() -> None:
    """Its future failed with the RuntimeError of the thread pool."""
    pool = AdaptivePool(Strategy.HYBRID, 2)
    pool.submit(abs, -1).result(HANG_SECONDS)
    closes = act_before(Backlog.enqueue, "tasks.append(task)", partial(pool.shutdown, wait=False))
    with closes, pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(double, 1)
    assert shuts_down(pool)


def test_shutdown_after_an_interrupted_stop_ends() -> None:
    """The future's callbacks were interrupted, and the pool waited for the end of the stopped task."""
    line, interrupted = 1, True
    while interrupted:
        pool, release = AdaptivePool(Strategy.HYBRID, 2), threading.Event()
        blocked = pool.submit_named("blocked", release.wait, HANG_SECONDS)
        assert eventually(blocked.running)
        interrupted = interrupted_at(line, lambda pool=pool, task=blocked: pool.stop(task, TaskStopped()), package)  # type: ignore[misc]
        release.set()
        assert shuts_down(pool), line
        line += 1
    assert line > 10


def test_unpicklable_task_runs_in_threads_under_process_strategy() -> None:
    lock = threading.Lock()
    with AdaptivePool(Strategy.PROCESS, 2) as pool:
        assert pool.submit(lambda: (lock.locked(), os.getpid())).result(HANG_SECONDS) == (False, os.getpid())


def test_repr_shows_the_pools_in_use() -> None:
    with AdaptivePool(Strategy.THREAD, 2) as pool:
        assert repr(pool) == "<AdaptivePool: not used yet>"
        assert pool.submit(abs, -1).result(HANG_SECONDS) == 1
        assert repr(pool).startswith("<AdaptivePool: <ThreadPool threads: ")


@pytest.mark.parametrize("strategy", [Strategy.PROCESS, Strategy.HYBRID])
def test_task_stopped_while_its_pool_refuses_it_delays_no_other(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any
    error: Exception
    if strategy is Strategy.PROCESS:  # it is asked twice: before and after the task was queued
        kind, error, attempt = ProcessPool, UnpicklableError("a lock"), 2
    else:
        kind, error, attempt = ThreadPool, RuntimeError("can't start new thread"), 1
    submit, attempts = kind.submit_future, itertools.count(1)

    def refuse(pool: Any, future: Any, function: Any, *rest: Any, **profiled: Any) -> None:
        if function is not str:
            submit(pool, future, function, *rest, **profiled)
            return
        if next(attempts) == attempt:
            adaptive.stop(future, TaskStopped("stopped"))
        raise error

    monkeypatch.setattr(kind, "submit_future", refuse)
    adaptive = AdaptivePool(strategy, 1)
    stopped = adaptive.submit(str, 1)
    assert isinstance(stopped.exception(HANG_SECONDS), TaskStopped)
    assert adaptive.submit(abs, -1).result(HANG_SECONDS) == 1
    closing = threading.Thread(target=adaptive.shutdown, daemon=True)
    closing.start()
    closing.join(HANG_SECONDS)
    assert not closing.is_alive()


def test_forked_child_writes_no_profiles(tmp_path: Path) -> None:
    with AdaptivePool(memory=tmp_path / "profiles") as pool:
        pool.submit(spin, 0.02).result(HANG_SECONDS)
        child = os.fork()
        if not child:
            pool.shutdown()
            os._exit(0)
        os.waitpid(child, 0)
        assert not (tmp_path / "profiles").exists()
    assert (tmp_path / "profiles").exists()
