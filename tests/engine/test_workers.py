"""The pools of a lane, with real threads and processes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from paropt_exporter import host
from paropt_exporter.engine import run_record
from paropt_exporter.engine.workers import PoolWorkers
from paropt_exporter.errors import InitializerFailed
from paropt_exporter.events import Measurement, PoolUse, Result, Scope, Strategy
from paropt_exporter.executors import TaskFuture, ThreadPool, procfs
from paropt_exporter.executors.adaptive.routing import FunctionProfile, save_profiles
from paropt_exporter.executors.base import RemotePool, RemoteTaskOptions
from paropt_exporter.executors.commands.command_pool import CommandOutcome
from paropt_exporter.executors.processes import process_handler, scheduler
from paropt_exporter.executors.processes.transport import WorkerConnection
from paropt_exporter.executors.worker import orphans
from paropt_exporter.plan import (
    COMMANDS,
    DASK,
    PROCESSES,
    THREADS,
    Bounds,
    Call,
    Commands,
    PlannedStage,
    PlannedTask,
    pytest_support,
)
from support.environment import removed_while_copied
from support.lanes import plan
from support.pool_tasks import eventually

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


def test_command_starts_while_a_call_removes_a_variable(workers: PoolWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    with removed_while_copied(monkeypatch):
        run(workers, COMMAND)


def test_start_of_a_call_reads_no_file_about_the_threads(workers: PoolWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    """While threads compute, each read waits for the GIL three times: 32 threads were busy for 45 % of their time."""
    run(workers, WAITS)  # the supervisor, the router and the first thread are there now
    readers, read = list[int](), procfs._read

    def note_reader(path: str) -> bytes:
        readers.append(threading.get_ident())
        return read(path)

    monkeypatch.setattr(procfs, "_read", note_reader)
    run(workers, WAITS)
    assert threading.get_ident() not in readers


class KeptOutput:
    """Logs that keep the output of each attempt."""

    def __init__(self) -> None:
        self.outputs: list[bytes] = []

    def open_sink(self, stage: str, task: int, label: str, item: str | None, attempt: int) -> KeptOutput:
        self.outputs.append(b"")
        return self

    def write(self, chunk: bytes) -> None:
        self.outputs[-1] += chunk

    def close(self, tail_of: Callable[[], bytes]) -> None:
        pass

    def has_kept(self, size_bytes: int) -> bool:
        return sum(map(len, self.outputs)) == size_bytes


def test_whole_output_of_a_call_is_kept_after_temporary_files_were_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service may run for months, and cleaners of /tmp remove what is old."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "prints.py").write_text("def much():\n    print('x' * 300_000)\n")
    stage, logs = stage_of("prints", THREADS, Call(target="prints:much")), KeptOutput()
    with closing(PoolWorkers(logs=logs)) as workers:
        workers.prepare(plan(stage, workers=1, strategy=Strategy.THREAD), 1)
        for count in (1, 2):
            run(workers, stage)
            assert eventually(partial(logs.has_kept, 300_001 * count))
            for folder in tmp_path.glob(f"{pytest_support.FOLDER_PREFIX}*"):
                shutil.rmtree(folder)


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The system gives no process until the fixture's value is undone."""

    def refuse(_: object) -> WorkerConnection:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(scheduler, "_MOST_FAILED_STARTS", 3)
    with pytest.MonkeyPatch.context() as shortage:
        shortage.setattr(process_handler, "WorkerConnection", refuse)
        yield shortage


def fail_for_lack_of_a_process(workers: PoolWorkers, stage: PlannedStage) -> None:
    with pytest.raises(InitializerFailed, match="can't start: the system allows no more processes"):
        run(workers, stage)


def test_pool_that_got_no_process_is_tried_again_in_the_next_run(
    no_process: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A service failed in all later runs, until it was restarted."""
    stage = stage_of("call", PROCESSES, Call(target="os:getpid"))
    planned = plan(stage, workers=2, strategy=Strategy.PROCESS)
    with closing(PoolWorkers()) as workers:
        workers.prepare(planned, 2)
        fail_for_lack_of_a_process(workers, stage)
        assert 1 <= [record.msg for record in caplog.records].count("a worker could not be started") <= 2  # once each
        no_process.undo()
        workers.prepare(planned, 2)
        run(workers, stage)


def test_calls_follow_a_changed_strategy(workers: PoolWorkers) -> None:
    """With another `strategy` in paropt.yml, an exporter with `--every` ended with KeyError: 'threads'."""
    for strategy, pool in ((Strategy.THREAD, THREADS), (Strategy.PROCESS, PROCESSES), (Strategy.THREAD, THREADS)):
        stage = stage_of("call", pool, Call(target="os:getpid"))
        workers.prepare(plan(stage, workers=2, strategy=strategy), 2)
        assert workers.choose_pool(stage, stage.tasks[0]) == pool


def test_routed_calls_stay_in_threads_once_the_system_has_given_no_process(
    no_process: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profiles = tmp_path / "functions.json"
    save_profiles(profiles, [FunctionProfile(function="os:getpid", cpu_demand=1.0, seconds=1.0)])
    stage = stage_of("computes", THREADS, Call(target="os:getpid"))
    planned = plan(stage, workers=2, strategy=Strategy.ADAPTIVE)
    with closing(PoolWorkers(profiles)) as workers:
        workers.prepare(planned, 2)
        fail_for_lack_of_a_process(workers, stage)
        assert workers.start(stage, stage.tasks[0], "again").pool == THREADS
        assert caplog.records[-1].msg == "no processes for calls: they stay in threads"
        no_process.undo()
        workers.prepare(planned, 2)
        assert workers.start(stage, stage.tasks[0], "first").pool == THREADS  # no worker is ready yet
        assert eventually(lambda: workers.start(stage, stage.tasks[0], "later").pool == PROCESSES)


def use(workers: PoolWorkers) -> dict[str, PoolUse]:
    return {use.name: use for use in workers.get_pool_uses()}


def test_pool_without_tasks_adds_no_worker_time(workers: PoolWorkers) -> None:
    run(workers, COMMAND)
    uses = use(workers)
    assert (uses[THREADS].busy_seconds, uses[THREADS].slot_seconds) == (0.0, 0.0)
    assert uses[COMMANDS].slot_seconds >= uses[COMMANDS].busy_seconds > 0.0
    assert run_record.compute_busy_ratio(tuple(uses.values())) == pytest.approx(
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


def test_pool_has_no_workers_for_slots_that_its_tasks_fill() -> None:
    """With eight workers for two tasks of four slots each, six are idle, and the lane is called under-used."""
    tasks = tuple(PlannedTask(index=index, item=None, work=COMMAND.tasks[0].work) for index in range(6))
    wide = PlannedStage(number=2, name="wide", tasks=tasks, pool=COMMANDS, slots=4)
    narrow = PlannedStage(number=3, name="narrow", tasks=tasks[:2], pool=COMMANDS)
    with closing(PoolWorkers()) as workers:
        workers.prepare(plan(wide, workers=8), 8)
        assert workers.get_targets() == {COMMANDS: 2}
        assert workers.get_pool_sizes(8) == {COMMANDS: 8}  # in slots: the next run starts with this size
        workers.resize_pools(3, "pinned")
        assert workers.get_targets() == {COMMANDS: 1}  # a task that fits nowhere runs alone
        workers.prepare(plan(wide, narrow, workers=8), 8)
        assert workers.get_targets() == {COMMANDS: 3}  # two narrow ones, and a wide one in the six slots left


def test_size_of_a_cluster_is_in_slots() -> None:
    """The cluster counts the slots of its tasks: as a number of tasks, the size let half of them run."""
    tasks = tuple(PlannedTask(index=index, item=None, work=COMMAND.tasks[0].work) for index in range(6))
    wide = PlannedStage(number=2, name="wide", tasks=tasks, pool=DASK, remote=RemoteTaskOptions(slots=2), slots=2)
    few = replace(wide, tasks=tasks[:2])
    with ClusterWithoutTests(1, name=DASK) as cluster, closing(open_workers(cluster)) as workers:
        workers.prepare(plan(wide, workers=8, strategy=Strategy.DASK), 8)
        assert workers.get_targets() == {DASK: 8}
        workers.prepare(plan(few, workers=8, strategy=Strategy.DASK), 8)
        assert workers.get_targets() == {DASK: 4}


def test_command_in_place_of_a_call_is_not_bound_by_the_lock(workers: PoolWorkers) -> None:
    assert workers._routing is not None
    measured = Measurement(worker="", pid=os.getpid(), started_seconds=0.0, ended_seconds=1.0, cpu_seconds=1.0)
    workers._routing.learn("os:getpid", measured, concurrent=1)
    assert workers.is_gil_bound("waits")
    workers.prepare(plan(replace(COMMAND, name="waits"), workers=2, strategy=Strategy.THREAD), 2)
    assert not workers.is_gil_bound("waits")


def test_targets_are_of_the_pools_that_the_run_uses() -> None:
    with closing(PoolWorkers()) as workers:
        workers.prepare(plan(WAITS, COMMAND, workers=Bounds(minimum=1, maximum=8, start=2)), 2)
        assert set(workers.get_pool_sizes(2)) == {COMMANDS, PROCESSES, THREADS}
        assert workers.get_targets() == {COMMANDS: 1, THREADS: 1}


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


@pytest.mark.parametrize("strategy", [Strategy.ADAPTIVE, Strategy.DASK])
def test_routed_calls_get_a_process_for_each_task_and_core(
    strategy: Strategy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `strategy: dask` these are the calls of stages with `local: true`, which shared one process."""
    monkeypatch.setattr(host, "count_cpu_workers", lambda: 3)
    profiles = tmp_path / "functions.json"
    save_profiles(profiles, [FunctionProfile(function="os:getpid", cpu_demand=1.0, seconds=1.0)])
    tasks = tuple(PlannedTask(index=index, item=None, work=Call(target="os:getpid")) for index in range(4))
    stage = PlannedStage(number=2, name="computes", tasks=tasks, pool=THREADS)
    with closing(PoolWorkers(profiles)) as workers:
        workers.prepare(plan(stage, workers=Bounds(minimum=1, maximum=8, start=8), strategy=strategy), 8)
        assert workers.choose_pool(stage, tasks[0]) == PROCESSES
        assert workers.get_pool_size(PROCESSES) == 3
        assert set(workers.get_pool_sizes(8)) == {PROCESSES, THREADS}


def test_person_or_query_may_give_routed_calls_more_processes_than_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane that was pinned at six ran two calls at once on two cores."""
    monkeypatch.setattr(host, "count_cpu_workers", lambda: 2)
    profiles = tmp_path / "functions.json"
    save_profiles(profiles, [FunctionProfile(function="os:getpid", cpu_demand=1.0, seconds=1.0)])
    tasks = tuple(PlannedTask(index=index, item=None, work=Call(target="os:getpid")) for index in range(4))
    stage = PlannedStage(number=2, name="computes", tasks=tasks, pool=THREADS)
    planned = plan(stage, workers=Bounds(minimum=1, maximum=8, start=2), strategy=Strategy.ADAPTIVE)
    with closing(PoolWorkers(profiles)) as workers:
        workers.prepare(planned, 2)
        assert workers.get_pool_size(PROCESSES) == 2
        workers.resize_pools(6, "pinned")
        assert workers.get_pool_size(PROCESSES) == 4
        workers.prepare(planned, 6, allocates_cores=False)
        assert workers.get_pool_size(PROCESSES) == 4


class ClusterWithoutTests(ThreadPool):
    """A pool of another host on which pytest finds no test."""

    def begin_run(self, programs: tuple[str, ...]) -> None: ...

    def submit_commands(self, label: str, steps: object, *, options: RemoteTaskOptions) -> TaskFuture[CommandOutcome]:
        assert options.report is not None
        options.report.write_text("<testsuites/>")
        outcome = CommandOutcome(
            result=Result.FAILURE, message="exit 5", exit_code=5, signal=None, output="", output_path=None,
            measurement=Measurement(worker="", pid=1, started_seconds=0.0, ended_seconds=1.0, cpu_seconds=0.0),
            stopped=False,
        )  # fmt: skip
        return self.submit_named(label, lambda: outcome)


def open_workers(cluster: ClusterWithoutTests) -> PoolWorkers:
    return PoolWorkers(open_cluster=lambda _: cast("RemotePool", cluster))


@pytest.mark.parametrize(
    ("scope", "is_split", "planned", "result"),
    [
        (Scope.ALL, False, ("a.py",), Result.FAILURE),
        (Scope.ITEMS, False, ("a.py",), Result.SUCCESS),
        (Scope.ALL, False, ("a.py", "cached.py"), Result.SUCCESS),
        (Scope.ARGUMENTS, False, ("a.py",), Result.FAILURE),
        (Scope.ARGUMENTS, True, ("a.py",), Result.SUCCESS),  # other shards have the tests of `-- -k login`
    ],
)
def test_remote_batch_without_tests_fails_only_a_whole_stage(
    scope: Scope, is_split: bool, planned: tuple[str, ...], result: Result
) -> None:
    task = PlannedTask(index=0, item=None, work=Commands(steps=(("pytest", "a.py"),)), items=("a.py",))
    tasks = (replace(task, items=planned),)
    stage = PlannedStage(
        number=2, name="tests", tasks=tasks, pool=DASK, remote=RemoteTaskOptions(), junit=True, scope=scope,
        is_split=is_split,
    )  # fmt: skip
    with (
        ClusterWithoutTests(1, name=DASK) as cluster,
        closing(open_workers(cluster)) as workers,
    ):
        workers.prepare(plan(stage, workers=1, strategy=Strategy.DASK), 1)
        attempt = workers.start(stage, task, "tests")
        attempt.future.result(HANG_SECONDS)
        assert attempt.outcome().result is result


def test_zombies_that_came_to_this_process_are_reaped_between_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose init process is the exporter, with commands for items that leave processes behind."""
    monkeypatch.setattr(orphans, "LOOK_SECONDS", 0.0)
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    with closing(PoolWorkers()) as workers:
        workers.release_workers(1)
        workers.release_workers(1)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize(("is_split", "result"), [(False, Result.FAILURE), (True, Result.SUCCESS)])
def test_remote_batch_of_a_shard_may_have_no_tests_for_the_arguments(*, is_split: bool, result: Result) -> None:
    task = PlannedTask(index=0, item=None, work=Commands(steps=(("pytest", "a.py"),)), items=("a.py",))
    stage = stage_of("tests", DASK, task.work)
    stage = replace(
        stage, tasks=(task,), remote=RemoteTaskOptions(), junit=True, scope=Scope.ARGUMENTS, is_split=is_split
    )
    with ClusterWithoutTests(1, name=DASK) as cluster, closing(open_workers(cluster)) as workers:
        workers.prepare(plan(stage, workers=1, strategy=Strategy.DASK), 1)
        attempt = workers.start(stage, task, "tests")
        attempt.future.result(HANG_SECONDS)
        assert attempt.outcome().result is result
