"""ProcessPool runs tasks in processes and survives the death of its workers."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import importlib
import itertools
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, wait
from functools import cache, partial
from itertools import islice
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any, cast

import pytest

import paropt_exporter
from paropt_exporter import executors
from paropt_exporter.errors import InitializerFailed, TaskStopped, UnpicklableError, WorkerDied
from paropt_exporter.executors import ProcessPool, TaskFuture, processes
from paropt_exporter.executors.processes import forkservers, manager, process_handler, transport
from paropt_exporter.executors.processes.forkservers import ForkServers
from paropt_exporter.executors.processes.process_handler import ProcessHandler
from paropt_exporter.executors.processes.scheduler import Scheduler
from paropt_exporter.executors.processes.transport import WorkerConnection
from paropt_exporter.executors.worker import loop
from paropt_exporter.executors.worker.payload import Packed, Packer, Queued
from support.command_scripts import make_fifo, open_fifo, read_fifo, write_fifo
from support.environment import removed_while_copied
from support.interrupts import interrupted_at, shuts_down
from support.pool_tasks import (
    HANG_SECONDS,
    LIBRARY_LOCK,
    Large,
    LargeAndUnpicklable,
    OddError,
    Unloadable,
    Unpicklable,
    append,
    append_and_read,
    burn_in_child,
    double,
    eventually,
    grow_buffer,
    hold_memory,
    is_library_locked,
    nothing,
    pause_first_worker,
    raise_it,
    say_and_wait,
    set_variable,
    spin,
    start_grandchild,
)
from support.processes import children, is_alive, open_descriptors, read_printed


@pytest.fixture
def pool() -> Iterator[ProcessPool]:
    with ProcessPool(2) as pool:
        yield pool


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_repr_shows_workers_and_tasks() -> None:
    with ProcessPool(2, name="orders") as pool:
        assert repr(pool).endswith(" of 2 workers, 0 busy>")


def test_each_worker_has_its_own_session(pool: ProcessPool) -> None:
    pid, session = pool.submit(os.getpid).result(HANG_SECONDS), pool.submit(os.getsid, 0).result(HANG_SECONDS)
    assert pid != os.getpid()
    assert session != os.getsid(0)


def test_lambdas_closures_and_bound_methods_run_in_workers(pool: ProcessPool) -> None:
    base = 40
    assert pool.submit(lambda: base + 2).result(HANG_SECONDS) == 42
    assert pool.submit([3, 1].index, 1).result(HANG_SECONDS) == 1
    assert list(pool.map(lambda number: number + base, range(3))) == [40, 41, 42]


@pytest.mark.parametrize("imports", ["", "import multiprocessing\n"])  # it brings reducers of its own
def test_remote_traceback_names_the_scripts_file_and_line(tmp_path: Path, imports: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""{imports}from paropt_exporter import ProcessPool
def task(divisor):
    return 1 / divisor
with ProcessPool(1) as pool:
    print(pool.submit(task, 0).exception().__cause__.text)
""")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=HANG_SECONDS, check=True
    )
    line = 3 + bool(imports)
    assert f'File "{script}", line {line}, in task\n    return 1 / divisor\n' in done.stdout


def test_script_without_main_guard_gets_its_own_classes_back(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("""
from paropt_exporter.executors import ProcessPool
class Point:
    def __init__(self, x): self.x = x
class MyError(Exception): pass
def move(point):
    if point.x < 0: raise MyError(point.x)
    return Point(point.x + 1)
pool = ProcessPool(2)
point = pool.submit(move, Point(1)).result()
assert isinstance(point, Point) and point.x == 2
try:
    pool.submit(move, Point(-1)).result()
except MyError as error:
    print("caught", error)
pool.shutdown()
""")
    environment = {**os.environ, "PYTHONPATH": str(Path(paropt_exporter.__file__).parents[1])}
    for command in ([sys.executable, str(script)], [sys.executable, "-c", script.read_text()]):
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS)
        assert (found.stdout, found.stderr) == ("caught -1\n", "")


class Exits:
    """Its unpickling ends the interpreter, as far as that is possible."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, ("unpickled",)


def test_task_whose_arguments_exit_while_they_are_packed_again_fails(pool: ProcessPool) -> None:
    """The thread of its worker ended, and neither this task nor those behind it ever settled."""
    module = types.ModuleType("only_in_the_parent")
    exec("def first(value, _): return value", vars(module))
    sys.modules[module.__name__] = module
    try:
        with pytest.raises(UnpicklableError, match="only_in_the_parent"):
            pool.submit(module.first, 1, Exits()).result(HANG_SECONDS)
        assert pool.submit(pow, 2, 3).result(HANG_SECONDS) == 8
    finally:
        del sys.modules[module.__name__]


class ExitsOnce:
    """Pickled for a second time, it ends the interpreter, as far as that is possible."""

    pickled = 0

    def __reduce__(self) -> tuple[Any, ...]:
        self.pickled += 1
        if self.pickled == 2:
            sys.exit("pickled")
        return int, ()


def test_worker_starts_again_after_an_exit_in_the_pickling_of_its_initializer() -> None:
    """Its thread ended, and queued tasks waited for the next one that was submitted."""
    with ProcessPool(1, initializer=id, initargs=(ExitsOnce(),)) as pool:
        assert pool.submit(pow, 2, 3).result(HANG_SECONDS) == 8


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], int]:
    """A function of a module that only this process has."""
    module = types.ModuleType("only_here")
    exec("def here(number):\n    return number + 1\n", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return cast("Callable[[int], int]", module.here)


def test_functions_of_unimportable_modules_travel_by_value(pool: ProcessPool, here: Callable[[int], int]) -> None:
    assert [future.result(HANG_SECONDS) for future in [pool.submit(here, number) for number in range(40)]] == [
        number + 1 for number in range(40)
    ]


def test_stop_ends_a_task_that_is_pickled_again(
    pool: ProcessPool, here: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in no worker and in no queue at that moment, and ran after the stop."""
    future, stops, pack = TaskFuture[int](), list[bool](), Packer.pack_by_value

    def stop_first(packer: Packer, queued: Queued, missing: str) -> Packed | None:
        stops.append(pool.stop(future, TaskStopped("stop")))
        return pack(packer, queued, missing)

    monkeypatch.setattr(Packer, "pack_by_value", stop_first)
    pool.submit_future(future, here, (1,), {})
    assert isinstance(future.exception(HANG_SECONDS), TaskStopped)
    assert stops == [True]


def count_functions(name: str) -> int:
    return sum(type(each) is FunctionType and each.__name__ == name for each in gc.get_objects())


def test_worker_keeps_one_version_of_a_function_with_large_defaults(pool: ProcessPool) -> None:
    def make(data: bytes) -> Callable[[], int]:
        def with_large_default(data: bytes = data) -> int:
            return len(data)

        return with_large_default

    pool.resize(1)
    for length in range(1 << 16, (1 << 16) + 10):
        assert pool.submit(make(bytes(length))).result(HANG_SECONDS) == length
    assert pool.submit(count_functions, "with_large_default").result(HANG_SECONDS) == 1


def test_map_takes_chunksize_and_buffersize(pool: ProcessPool) -> None:
    assert list(pool.map(pow, [2] * 7, range(7), chunksize=3)) == [1, 2, 4, 8, 16, 32, 64]
    assert list(pool.map(double, range(50), buffersize=4)) == [2 * number for number in range(50)]


def test_exception_has_the_worker_traceback_as_cause(pool: ProcessPool) -> None:
    error = pool.submit(raise_it, KeyError("lost")).exception(HANG_SECONDS)
    assert isinstance(error, KeyError)
    assert "raise_it" in str(error.__cause__)
    assert "forkserver" not in str(error.__cause__)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), BaseException("odd")])
def test_any_exception_fails_only_its_task(pool: ProcessPool, error: BaseException) -> None:
    assert type(pool.submit(raise_it, error).exception(HANG_SECONDS)) is type(error)
    assert pool.submit(double, 1).result(HANG_SECONDS) == 2
    assert not pool.statistics().deaths


def test_unpicklable_values_fail_their_task_with_a_clear_error(pool: ProcessPool) -> None:
    cases: dict[str, Future[Any]] = {
        "will not travel": pool.submit(nothing, Unpicklable()),
        "will not be loaded": pool.submit(nothing, Unloadable()),
        "result could not be sent back": pool.submit(Unpicklable),
        "result can't be loaded": pool.submit(Unloadable),
    }
    for text, future in cases.items():
        error = future.exception(HANG_SECONDS)
        assert isinstance(error, UnpicklableError), text
        assert text in str(error)
    assert pool.submit(double, 1).result(HANG_SECONDS) == 2
    assert not pool.statistics().deaths


class OddExit(SystemExit):
    def __init__(self, *, code: int, reason: str) -> None:
        super().__init__(code)
        self.reason = reason


def raise_odd() -> None:
    error = OddError("one", "two")
    error.add_note("three")
    raise error


def exit_oddly() -> None:
    raise OddExit(code=3, reason="no room")


def test_exception_with_a_constructor_of_its_own_arrives_whole(pool: ProcessPool) -> None:
    """Pickle calls the constructor with `args`, which it does not take. It was only described."""
    error, ended = pool.submit(raise_odd).exception(HANG_SECONDS), pool.submit(exit_oddly).exception(HANG_SECONDS)
    assert isinstance(error, OddError)
    assert (str(error), error.__notes__) == ("one and two", ["three"])
    assert isinstance(ended, OddExit)
    assert (ended.code, ended.reason) == (3, "no room")


class ConfigMissing(FileNotFoundError):
    def __init__(self, path: str) -> None:
        super().__init__(errno.ENOENT, "no config", path)


class PluginMissing(ImportError):
    def __init__(self, *, plugin: str) -> None:
        super().__init__(f"no plugin {plugin}", name=plugin)


class LoaderMissing(PluginMissing):
    name = property(lambda _: "loader")


def look_for_config() -> None:
    raise ConfigMissing("shop.ini")


def look_for_plugin(error: type[PluginMissing]) -> None:
    raise error(plugin="tea")


def test_exception_with_a_constructor_of_its_own_keeps_the_attributes_of_its_built_in_class(pool: ProcessPool) -> None:
    missing = pool.submit(look_for_config).exception(HANG_SECONDS)
    assert isinstance(missing, ConfigMissing)
    assert str(missing) == "[Errno 2] no config: 'shop.ini'"
    plugin = pool.submit(look_for_plugin, PluginMissing).exception(HANG_SECONDS)
    assert isinstance(plugin, PluginMissing)
    assert (str(plugin), plugin.name) == ("no plugin tea", "tea")
    loader = pool.submit(look_for_plugin, LoaderMissing).exception(HANG_SECONDS)
    assert isinstance(loader, LoaderMissing)  # though its property of the same name can't be set


def raise_odd_group() -> None:
    raise ExceptionGroup("unhandled errors", [OddError("one", "two"), ExceptionGroup("inner", [OddError("3", "4")])])


def test_group_of_exceptions_with_constructors_of_their_own_arrives_whole(pool: ProcessPool) -> None:
    error = pool.submit(raise_odd_group).exception(HANG_SECONDS)
    inner = "ExceptionGroup('inner', [OddError('3 and 4')])"
    assert repr(error) == f"ExceptionGroup('unhandled errors', [OddError('one and two'), {inner}])"
    assert error is not None
    assert "raise_odd_group" in str(error.__cause__)


class LockedError(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


def raise_locked() -> None:
    raise LockedError("no room")


def test_exception_that_cannot_be_pickled_is_described_in_one_line(pool: ProcessPool) -> None:
    """The description had the traceback in it once more, escaped."""
    error = pool.submit(raise_locked).exception(HANG_SECONDS)
    reason = "TypeError: cannot pickle '_thread.lock' object"
    assert str(error) == f"raise_locked: LockedError: no room: it could not be sent back: {reason}"


class Locked:
    def __init__(self) -> None:
        self.count = 0
        self.lock = threading.Lock()

    def get_count(self) -> int:
        return self.count


def test_error_names_the_part_of_a_function_that_cannot_be_pickled(pool: ProcessPool) -> None:
    lock, number = threading.Lock(), 5
    notebook: dict[str, Any] = {"lock": lock, "number": number}
    exec(compile("def use_lock(): return number, lock", "<notebook>", "exec"), notebook)
    for part, function in (
        ("global 'lock'", notebook["use_lock"]),
        ("global 'lock'", cache(notebook["use_lock"])),
        ("variable 'lock'", lambda: (number, lock)),
        ("attribute 'lock'", Locked().get_count),
    ):
        reason = f"can't travel between processes: {part}: TypeError: cannot pickle '_thread.lock' object"
        assert str(pool.submit(function).exception(HANG_SECONDS)).endswith(reason)


def test_error_of_arguments_that_cannot_be_pickled_names_the_task(pool: ProcessPool) -> None:
    for name, future in (
        ("nothing", pool.submit(nothing, Unpicklable())),
        ("named", pool.submit_named("named", nothing, Unpicklable())),
    ):
        error = future.exception(HANG_SECONDS)
        assert str(error).startswith(f"{name}: argument 1: <")
        assert error is not None and isinstance(error.__cause__, TypeError)


def test_error_names_the_argument_that_cannot_be_pickled(pool: ProcessPool) -> None:
    """With a table before it, the message showed the table's rows, and neither the connection nor its place."""
    lock, table = threading.Lock(), ["row"] * 1000
    for name, future in (("2", pool.submit(print, table, lock)), ("'file'", pool.submit(print, table, file=lock))):  # type: ignore[arg-type]
        assert f"print: argument {name}: <unlocked _thread.lock" in str(future.exception(HANG_SECONDS))
    with pytest.raises(UnpicklableError, match=r"initializer print: argument 2: <unlocked _thread.lock"):
        ProcessPool(1, initializer=print, initargs=(table, lock))


@pytest.mark.parametrize(
    ("function", "argument", "text", "code"),
    [
        (signal.raise_signal, signal.SIGKILL, "killed by SIGKILL (9)", -9),
        (signal.raise_signal, signal.SIGSEGV, "killed by SIGSEGV (11)", -11),
        (os._exit, 3, "exited with code 3", 3),
        (os._exit, 0, "exited with code 0", 0),
    ],
)
def test_dying_worker_fails_only_its_task_and_is_replaced(
    pool: ProcessPool, function: Callable[[int], object], argument: int, text: str, code: int
) -> None:
    others = [pool.submit(double, number) for number in range(50)]
    future = pool.submit_named("doomed", function, argument)
    others += [pool.submit(double, number) for number in range(50)]
    error = future.exception(HANG_SECONDS)
    assert isinstance(error, WorkerDied)
    assert isinstance(error, BrokenExecutor)
    assert str(error).startswith(f"doomed: {text} in worker ")
    assert str(error).endswith("perhaps by the out-of-memory killer") is (code == -signal.SIGKILL)
    assert error.exit_code_or_signal == code
    assert [future.result(HANG_SECONDS) for future in others] == [2 * number for number in range(50)] * 2
    assert eventually(lambda: pool.live == 2)
    assert pool.statistics().finished == {"success": 100, "failure": 0, "error": 1, "cancellation": 0}


def test_task_of_a_dead_worker_is_counted_before_its_future_settles(pool: ProcessPool) -> None:
    counted = list[int]()
    future = pool.submit(os._exit, 3)
    future.add_done_callback(lambda _: counted.append(pool.statistics().finished["error"]))
    assert eventually(lambda: bool(counted))
    assert counted == [1]


def test_worker_that_dies_idle_is_replaced(pool: ProcessPool) -> None:
    pid = pool.submit(os.getpid).result(HANG_SECONDS)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: pool.statistics().deaths == {"signal": 1} and pool.live == 2)
    assert pool.submit(double, 2).result(HANG_SECONDS) == 4


def close_descriptors() -> None:
    os.closerange(3, 64)


def close_descriptors_and_stay() -> None:
    threading.Thread(target=signal.pause).start()
    close_descriptors()


def replace_results() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, loop.RESULTS)
    os.close(nowhere)


@pytest.mark.parametrize(
    ("task", "end"),
    [
        (close_descriptors, "exited with code 1"),
        (close_descriptors_and_stay, "killed by SIGKILL (9)"),
    ],
)
def test_task_that_takes_its_workers_descriptors_fails_alone(
    pool: ProcessPool, task: Callable[[], None], end: str
) -> None:
    error = pool.submit(task).exception(HANG_SECONDS)
    assert isinstance(error, WorkerDied)
    assert end in str(error)
    assert pool.submit(double, 2).result(HANG_SECONDS) == 4
    futures = [pool.submit(double, number) for number in range(200)]
    assert [future.result(HANG_SECONDS) for future in futures] == [2 * number for number in range(200)]


def test_results_of_later_tasks_arrive_after_a_task_that_replaced_their_pipe(pool: ProcessPool) -> None:
    wait([pool.submit(double, number) for number in range(200)])  # known to be short: they travel in batches now
    pool.submit(replace_results).result(HANG_SECONDS)
    futures = [pool.submit(double, number) for number in range(200)]
    assert [future.result(HANG_SECONDS) for future in futures] == [2 * number for number in range(200)]


def replace_results_among_others(number: int) -> int:
    if number == 150:
        replace_results()
    return number


def test_task_that_replaces_the_pipe_for_results_fails_with_the_rest_of_its_batch() -> None:
    with ProcessPool(1) as pool:
        wait([pool.submit(replace_results_among_others, -number) for number in range(200)])
        futures = [pool.submit(replace_results_among_others, number) for number in range(1000)]
        errors = [future.exception(HANG_SECONDS) for future in futures]
    failed = [number for number, error in enumerate(errors) if error is not None]
    assert failed[0] == 150
    assert failed == list(range(150, 150 + len(failed)))
    assert len(failed) < 800
    assert all(isinstance(errors[number], WorkerDied) for number in failed)


def make_descriptors_blocking() -> None:
    for descriptor in range(loop.SOCKET, loop.MEMORY):
        os.set_blocking(descriptor, True)


def test_task_that_makes_its_workers_descriptors_blocking_delays_no_pool() -> None:
    with ProcessPool(1) as pool:
        pool.submit(make_descriptors_blocking).result(HANG_SECONDS)
        pid = pool.submit(os.getpid).result(HANG_SECONDS)
        os.kill(pid, signal.SIGKILL)  # then the pool takes its claims back
        assert pool.submit(double, 2).result(HANG_SECONDS) == 4


@pytest.mark.parametrize(("workers", "count"), [(1, 300), (1, 4000), (2, 4000)])
def test_death_fails_only_the_running_task_and_no_task_runs_twice(tmp_path: Path, workers: int, count: int) -> None:
    log = tmp_path / "log"
    with ProcessPool(workers) as pool:
        wait([pool.submit(append_or_die, str(log), -number) for number in range(1, 40)])  # known to be short now
        log.write_text("")
        futures = [pool.submit(append_or_die, str(log), number) for number in range(count)]
        failed = [number for number, future in enumerate(futures) if future.exception(HANG_SECONDS) is not None]
    assert failed == list(range(150, count, 500))
    assert sorted(map(int, log.read_text().split())) == list(range(count))


def append_or_die(path: str, number: int) -> None:
    append(path, str(number))
    if number % 500 == 150:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("count", [40, 4000])
def test_tasks_behind_an_unexpectedly_slow_one_run_elsewhere(tmp_path: Path, fifo: Path, count: int) -> None:
    log = tmp_path / "log"
    with ProcessPool(1) as pool:
        wait([pool.submit(slow_for_once, str(log), str(fifo), -number) for number in range(1, 40)])
        futures = [pool.submit(slow_for_once, str(log), str(fifo), number) for number in range(count)]
        assert eventually(lambda: "\n20\n" in log.read_text())
        pool.resize(2)
        assert not wait(futures[:20] + futures[21:], HANG_SECONDS).not_done
        assert not futures[20].done()
        write_fifo(fifo, "go on")
        futures[20].result(HANG_SECONDS)
    assert len(log.read_text().split()) == 39 + count


def slow_for_once(path: str, fifo: str, number: int) -> None:
    if number == 20:
        append_and_read(path, "20", fifo)
    else:
        append(path, str(number))


def test_hundred_random_kills_lose_nothing_and_settle_nothing_twice() -> None:
    random.seed(7)
    settled: Counter[int] = Counter()
    with ProcessPool(3) as pool:
        forkserver = pool.submit(os.getppid).result(HANG_SECONDS)
        futures: list[Future[int]] = []
        for _ in range(100):
            # Idle workers that are killed again and again start after longer and longer pauses.
            futures += [pool.submit(spin, 0.001) for _ in range(20)]
            for future in futures[-20:]:
                future.add_done_callback(lambda future: settled.update([id(future)]))
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(random.choice(children(forkserver)), signal.SIGKILL)
            assert eventually(lambda: pool.live == 3)
        wait(futures, HANG_SECONDS)
        errors = [future.exception(0) for future in futures]
        found = pool.statistics()
    assert all(error is None or isinstance(error, WorkerDied) for error in errors)
    assert sorted(settled) == sorted(map(id, futures))
    assert set(settled.values()) == {1}
    assert found.finished["error"] == sum(error is not None for error in errors) > 0
    assert found.finished["success"] + found.finished["error"] == 2001


def test_stopping_a_running_task_ends_its_worker_and_child_processes(pool: ProcessPool, fifo: Path) -> None:
    future = pool.submit_named("server", start_grandchild, str(fifo))
    grandchild = int(read_fifo(fifo))
    error = TaskStopped("over its limit")
    assert pool.stop(future, error, grace_seconds=10)
    assert future.exception(HANG_SECONDS) is error
    assert eventually(lambda: not is_alive(grandchild))
    assert eventually(lambda: pool.live == 2)
    assert not pool.stop(future, error)
    assert pool.statistics().finished["cancellation"] == 1
    assert pool.statistics().deaths == {"stopped": 1}


def ignore_term(path: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say_and_wait(path)


def test_task_that_ignores_term_is_killed_after_the_grace(pool: ProcessPool, fifo: Path) -> None:
    future = pool.submit(ignore_term, str(fifo))
    read_fifo(fifo)
    assert pool.stop(future, TaskStopped("stop"), grace_seconds=0.1)
    assert isinstance(future.exception(HANG_SECONDS), TaskStopped)


def test_stopping_a_queued_task_keeps_it_from_running(tmp_path: Path, fifo: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    with ProcessPool(1) as pool:
        first = pool.submit(append_and_read, str(log), "first", str(fifo))
        queued = pool.submit(append, str(log), "queued")
        assert eventually(lambda: "first" in log.read_text())
        assert pool.stop(queued, TaskStopped("stop"))
        write_fifo(fifo, "go on")
        first.result(HANG_SECONDS)
    assert isinstance(queued.exception(0), TaskStopped)
    assert log.read_text() == "first\n"


def test_stopped_queued_task_is_begun_by_no_worker_meanwhile(
    tmp_path: Path, fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that became idle at that moment ran the task, which nothing could stop any more."""
    log, fail = tmp_path / "log", TaskFuture.fail_queued
    log.touch()
    with ProcessPool(1) as pool:
        first = pool.submit(append_and_read, str(log), "first", str(fifo))
        queued = pool.submit(append, str(log), "queued")
        assert eventually(lambda: "first" in log.read_text())

        def end_first_task(future: TaskFuture[Any], error: BaseException) -> bool:
            if future is queued:
                write_fifo(fifo, "go on")
                first.result(HANG_SECONDS)
            return fail(future, error)

        monkeypatch.setattr(TaskFuture, "fail_queued", end_first_task)
        assert pool.stop(queued, TaskStopped("stop"))
    assert isinstance(queued.exception(0), TaskStopped)
    assert log.read_text() == "first\n"
    assert pool.statistics().finished["cancellation"] == 1


def test_stop_ends_a_task_that_another_thread_has_just_submitted(
    tmp_path: Path, fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An AdaptivePool submits its queued tasks from other threads."""
    log, fail, future = tmp_path / "log", TaskFuture.fail_queued, TaskFuture[None]()
    with ProcessPool(1) as pool:
        pool.submit(nothing).result(HANG_SECONDS)

        def submit_first(stopped: TaskFuture[Any], error: BaseException) -> bool:
            if not log.exists():
                pool.submit_future(future, append_and_read, (str(log), "run", str(fifo)), {})
                assert eventually(log.exists)
            return fail(stopped, error)

        monkeypatch.setattr(TaskFuture, "fail_queued", submit_first)
        assert pool.stop(future, TaskStopped("stop"))
        assert isinstance(future.exception(HANG_SECONDS), TaskStopped)


def test_worker_begins_a_task_whose_future_another_thread_has_locked(fifo: Path) -> None:
    """`wait` locks all its futures. A signal handler that interrupted it and shut the pool down waited without end."""
    with ProcessPool(1) as pool:
        first, queued = pool.submit(Path.read_text, fifo), pool.submit(nothing)
        with queued._condition:
            write_fifo(fifo, "go on")
            first.result(HANG_SECONDS)
            assert eventually(queued.running)
        queued.result(HANG_SECONDS)


def test_interrupted_submission_loses_no_notice_of_a_cancelled_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait` in another thread did not return."""
    future, notify = TaskFuture[None](), TaskFuture.notify_cancelled
    future.cancel()

    def interrupt(_: TaskFuture[Any]) -> None:
        monkeypatch.setattr(TaskFuture, "notify_cancelled", notify)
        raise KeyboardInterrupt

    with ProcessPool(1) as pool:
        pool.submit(nothing).result(HANG_SECONDS)
        assert eventually(lambda: bool(pool._manager.scheduler.idle))
        monkeypatch.setattr(TaskFuture, "notify_cancelled", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.submit_future(future, nothing, (), {})
        assert not wait([future], HANG_SECONDS).not_done
    assert pool.statistics().finished["cancellation"] == 1


def test_signal_handler_may_end_workers_while_a_task_is_stopped() -> None:
    """Both continue a fork server that a task has stopped, under a lock."""
    servers, ended = ForkServers(), threading.Event()

    def handle_signal(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code is not ForkServers.resume.__code__:
            return None
        if event == "line":
            servers.resume()
        return handle_signal

    def resume() -> None:
        sys.settrace(handle_signal)
        servers.resume()
        ended.set()

    threading.Thread(target=resume, daemon=True).start()
    assert ended.wait(HANG_SECONDS)


def test_measurements_count_child_processes_even_unreaped_ones(pool: ProcessPool) -> None:
    for waited in (True, False):
        future = pool.submit_named("children", burn_in_child, 0.3, wait=waited)
        used = future.result(HANG_SECONDS)
        assert future.measurement is not None
        assert future.measurement.cpu_seconds == pytest.approx(used, rel=0.1)


COSTLY_MODULE = """
from time import process_time
began = process_time()
while process_time() - began < 0.3:
    pass
def task():
    return 1
"""


def test_import_of_a_tasks_module_is_not_counted_as_its_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paropt_costly_module.py").write_text(COSTLY_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    task = importlib.import_module("paropt_costly_module").task
    with ProcessPool(1) as pool:
        future = pool.submit_named("costly", task)
        assert future.result(HANG_SECONDS) == 1
        assert future.measurement is not None
        assert future.measurement.cpu_seconds < 0.1


def test_peak_memory_is_that_of_the_task(pool: ProcessPool) -> None:
    peaks = []
    for size in (100_000_000, 20_000_000):
        future = pool.submit_named("memory", hold_memory, size)
        future.result(HANG_SECONDS)
        assert future.measurement is not None
        peaks.append(future.measurement.memory_peak_bytes)
    assert peaks[0] - peaks[1] == pytest.approx(80_000_000, abs=20_000_000)


def test_running_task_shows_its_wait_for_a_core() -> None:
    burners = 2 * len(os.sched_getaffinity(0))
    with ProcessPool(burners) as crowded:
        futures = [crowded.submit(spin, 2.0) for _ in range(burners)]
        assert eventually(lambda: any(task.run_delay_seconds > 0.1 for task in crowded.running()))
        for future in futures:
            crowded.stop(future, TaskStopped("seen"), grace_seconds=0)


def test_statistics_have_the_waits_of_running_tasks() -> None:
    """A pool of long tasks that waited for cores seemed to sleep, and was given more workers."""
    burners = 2 * len(os.sched_getaffinity(0))
    with ProcessPool(burners) as crowded:
        futures = [crowded.submit(spin, 2.0) for _ in range(burners)]
        assert eventually(lambda: crowded.statistics().run_delay_seconds > 0.1)
        assert not any(future.done() for future in futures)
        for future in futures:
            crowded.stop(future, TaskStopped("seen"), grace_seconds=0)


class FakeDelay:
    """Stands in for the wait for a core of a worker process. A function that is loaded there adds to it."""

    seconds = 0.0

    @classmethod
    def install(cls) -> None:
        loop.read_run_delay = lambda: cls.seconds  # in the worker's process


class WaitsWhileLoaded:
    """A function, like one whose module is imported first. The import waits three seconds for a core, by that clock."""

    def __call__(self) -> None:
        FakeDelay.seconds += 0.25

    def __reduce__(self) -> tuple[Callable[[], WaitsWhileLoaded], tuple[()]]:
        return load_late, ()


def load_late() -> WaitsWhileLoaded:
    until = time.monotonic() + 0.002  # faster imports don't count
    while time.monotonic() < until:
        pass
    FakeDelay.seconds += 3.0
    return WaitsWhileLoaded()


def test_wait_for_a_core_while_a_function_is_loaded_is_not_part_of_its_task() -> None:
    """A task of 1.5 s of sleep had waited 3 s for a core, for its module, and so seemed to want two cores."""
    with ProcessPool(1, initializer=FakeDelay.install) as pool:
        future = pool.submit_named("late", WaitsWhileLoaded())
        future.result(HANG_SECONDS)
        assert future.measurement is not None
        assert future.measurement.run_delay_seconds == pytest.approx(0.25)


def test_running_task_shows_its_cpu_and_memory(pool: ProcessPool) -> None:
    future = pool.submit_named("spinning", spin, 0.5)
    assert eventually(lambda: any(task.cpu_seconds > 0.1 for task in pool.running()))
    (task,) = pool.running()
    assert (task.label, task.memory_bytes > 1_000_000) == ("spinning", True)
    assert pool.statistics().cpu_seconds >= 0.1
    future.result(HANG_SECONDS)
    assert pool.statistics().cpu_seconds >= 0.45


def test_new_size_is_reached_without_a_submit(pool: ProcessPool) -> None:
    for size in (4, 1, 3):
        pool.resize(size)
        assert eventually(lambda size=size: pool.live == size)  # type: ignore[misc]  # the default is the test's
    with pytest.raises(ValueError, match="expected 1 to"):
        pool.resize(0)


def test_rapid_resizes_lose_nothing(pool: ProcessPool) -> None:
    done = threading.Event()

    def storm() -> None:
        size = 0
        while not done.wait(0.01):
            size = (size + 3) % 5
            pool.resize(1 + size)

    stormer = threading.Thread(target=storm, daemon=True)
    stormer.start()
    results = [future.result(HANG_SECONDS) for future in [pool.submit(double, number) for number in range(3000)]]
    done.set()
    stormer.join()
    assert results == [2 * number for number in range(3000)]
    assert pool.statistics().finished["success"] == 3000


def wait_for(event: Any) -> None:
    event.wait()


def test_resizes_during_start_make_no_more_processes_than_the_largest_size(pool: ProcessPool) -> None:
    forkserver = pool.submit(os.getppid).result(HANG_SECONDS)
    assert eventually(lambda: len(children(forkserver)) == 2)
    may_begin = multiprocessing.get_context("spawn").Event()
    counts: list[int] = []

    def count() -> int:
        counts.append(len(children(forkserver)) - 2)
        return counts[-1]

    with ProcessPool(1, initializer=wait_for, initargs=(may_begin,)) as slow:
        for _ in range(5):
            slow.resize(4)
            assert eventually(lambda: count() >= 4)
            slow.resize(1)
        slow.resize(4)
        may_begin.set()
        assert eventually(lambda: count() == slow.live == 4)
    assert max(counts) == 4


@pytest.mark.parametrize("sends_first", [True, False])
def test_thread_that_learns_late_of_a_dead_fork_server_keeps_its_successor(
    monkeypatch: pytest.MonkeyPatch, *, sends_first: bool
) -> None:
    servers, send = ForkServers(), socket.send_fds
    connections, successors = [WorkerConnection(servers)], list[int]()

    def start_another() -> None:
        """Start a worker in place of another thread that has learned of the death first."""
        monkeypatch.setattr(socket, "send_fds", send)
        connections.append(WorkerConnection(servers))
        successors.append(servers.pid)

    def send_beside_another(*arguments: Any) -> int:
        if not sends_first:
            start_another()
        try:
            return send(*arguments)
        except ConnectionError:
            start_another()
            raise

    os.kill(servers.pid, signal.SIGKILL)
    os.waitid(os.P_PID, servers.pid, os.WEXITED | os.WNOWAIT)
    monkeypatch.setattr(socket, "send_fds", send_beside_another)
    try:
        connections.append(WorkerConnection(servers))
        assert successors == [servers.pid]
    finally:
        for connection in connections:
            connection.close()
        servers.close()


def test_worker_is_replaced_after_max_tasks_per_child() -> None:
    with ProcessPool(1, max_tasks_per_child=2) as pool:
        pids = [pool.submit(os.getpid).result(HANG_SECONDS) for _ in range(6)]
        assert not pool.statistics().deaths
    assert len(set(pids)) == 3


def leave_work_for_the_exit(path: str) -> None:
    def append_after_the_main_thread() -> None:
        threading.main_thread().join()
        append(path, "thread")

    threading.Thread(target=append_after_the_main_thread).start()
    atexit.register(append, path, "handler")
    sys.stdout.write("printed")


def leave_file_open(path: str) -> None:
    vars(sys)["left"] = Path(path).open("w")  # noqa: SIM115 -- that is the point
    vars(sys)["left"].write("written")


class AppendsWhenDeleted:
    def __init__(self, path: str) -> None:
        self.path = path

    def __del__(self) -> None:
        append(self.path, "deleted")


def leave_object(path: str) -> None:
    vars(sys.modules["__main__"])["left"] = AppendsWhenDeleted(path)


@pytest.mark.parametrize(
    ("leave", "left", "printed"),
    [
        (leave_work_for_the_exit, "thread\nhandler\n", "printed"),
        (leave_file_open, "written", ""),
        (leave_object, "", ""),
    ],
)
def test_exiting_worker_waits_for_threads_calls_handlers_and_flushes_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], leave: Callable[[str], None], left: str, printed: str
) -> None:
    """It skips the rest of the interpreter's teardown, as the standard executor's workers do."""
    path = tmp_path / "left"
    path.touch()
    with ProcessPool(1) as pool:
        pool.submit(leave, str(path)).result(HANG_SECONDS)
    assert (path.read_text(), capfd.readouterr()) == (left, (printed, ""))


def test_initializer_runs_in_each_worker_and_its_failure_is_reported() -> None:
    with ProcessPool(1, initializer=set_variable, initargs=("PAROPT_TEST", "set")) as pool:
        assert pool.submit(os.getenv, "PAROPT_TEST").result(HANG_SECONDS) == "set"
    with ProcessPool(1, initializer=raise_it, initargs=(ValueError("no database"),)) as pool:
        error = pool.submit(nothing).exception(HANG_SECONDS)
    assert isinstance(error, InitializerFailed)
    assert "no database" in str(error)


def test_worker_starts_while_another_thread_removes_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with removed_while_copied(monkeypatch), ProcessPool(1) as pool:
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8


class PathEntry(str):
    """An entry of the import path, as some libraries of paths make them."""

    __slots__ = ()


def test_import_path_may_have_entries_of_a_subclass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [PathEntry(tmp_path), *sys.path])
    with ProcessPool(1) as pool:
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8


def test_program_may_have_no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker started, and tasks failed after 20 s."""
    monkeypatch.delattr(sys, "argv")
    with ProcessPool(1) as pool:
        assert pool.submit(eval, "sys.argv", {"sys": sys}).result(HANG_SECONDS) == []


def test_initargs_may_be_a_list() -> None:
    arguments: Any = ["PAROPT_TEST", "set"]  # typeshed wants a tuple; the library takes any iterable
    with ProcessPool(1, initializer=set_variable, initargs=arguments) as pool:
        assert pool.submit(os.getenv, "PAROPT_TEST").result(HANG_SECONDS) == "set"


def test_failing_initializer_fails_the_tasks_of_a_closed_pool() -> None:
    pool = ProcessPool(1, initializer=raise_it, initargs=(ValueError("no database"),))
    future = pool.submit(nothing)
    pool.shutdown(wait=False)
    assert isinstance(future.exception(HANG_SECONDS), InitializerFailed)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(nothing)
    pool.shutdown()


def test_failing_initializer_tells_waiting_threads_of_cancelled_tasks() -> None:
    pool = ProcessPool(1, initializer=raise_it, initargs=(ValueError("no database"),))
    future = pool.submit(nothing)
    assert future.cancel()
    assert wait([future], HANG_SECONDS).not_done == set()
    pool.shutdown()
    assert pool.statistics().finished["cancellation"] == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_failing_initializer_is_logged_with_one_traceback(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    with ProcessPool(workers, initializer=raise_it, initargs=(ValueError("no database"),)) as pool:
        assert isinstance(pool.submit(nothing).exception(HANG_SECONDS), InitializerFailed)
    assert {record.message for record in caplog.records} == {"initializer failed"}
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.levelname == "CRITICAL"
    assert caplog.text.count("in raise_it\n") == 1
    assert "ValueError: no database" in caplog.text


def test_workers_take_over_the_recursion_limit() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 7)
    try:
        with ProcessPool(1) as pool:
            assert pool.submit(sys.getrecursionlimit).result(HANG_SECONDS) == limit + 7
    finally:
        sys.setrecursionlimit(limit)


def test_workers_take_over_the_limit_on_digits() -> None:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        with ProcessPool(1) as pool:
            assert len(pool.submit(str, 10**5000).result(HANG_SECONDS)) == 5001
    finally:
        sys.set_int_max_str_digits(limit)


def test_workers_of_a_new_pool_have_the_time_zone_of_the_program(
    pool: ProcessPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.submit(nothing).result(HANG_SECONDS)  # the fork server runs
    monkeypatch.setenv("TZ", "TST-7")
    with ProcessPool(1) as new:
        assert new.submit(time.localtime, 0.0).result(HANG_SECONDS).tm_hour == 7


def test_starting_worker_of_a_thread_that_fails_is_killed(monkeypatch: pytest.MonkeyPatch, fifo: Path) -> None:
    """Its process id is not known yet: it ran its initializer beside that of its successor."""
    run = ProcessHandler.run
    pids: list[int] = []

    def fail_once(handler: ProcessHandler) -> None:
        if not pids:
            pids.append(int(read_fifo(fifo)))
            raise MemoryError
        run(handler)

    monkeypatch.setattr(ProcessHandler, "run", fail_once)
    with ProcessPool(1, initializer=pause_first_worker, initargs=(fifo,)) as pool:
        pool.submit(nothing).result(HANG_SECONDS)
        assert eventually(lambda: not is_alive(pids[0]))


def test_worker_whose_preparation_fails_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread ended, and tasks that were queued by then waited for the next one that was submitted."""
    send, submitted, failed = WorkerConnection.send_preparation, threading.Event(), threading.Event()

    def fail_once(connection: WorkerConnection, body: bytes) -> None:
        submitted.wait(HANG_SECONDS)
        if not failed.is_set():
            failed.set()
            raise MemoryError
        send(connection, body)

    monkeypatch.setattr(WorkerConnection, "send_preparation", fail_once)
    with ProcessPool(1) as pool:
        future = pool.submit(nothing)
        submitted.set()
        assert future.result(HANG_SECONDS) is None


def test_failure_after_the_exit_of_a_worker_touches_no_closed_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claims of the process were withdrawn once more, from a descriptor that may be another file's by then."""
    failed: list[str] = []

    def fail(_: ProcessHandler, message: str, code: int | None, *, gives_up: bool) -> None:
        del code, gives_up
        failed.append(message)
        raise MemoryError

    monkeypatch.setattr(ProcessHandler, "_handle_unexpected_exit", fail)
    with ProcessPool(1) as pool:
        os.kill(pool.submit(os.getpid).result(HANG_SECONDS), signal.SIGKILL)
        assert eventually(lambda: bool(failed))
        assert pool.submit(pow, 2, 3).result(HANG_SECONDS) == 8
        assert pool.statistics().deaths == {"signal": 1}


def test_task_of_a_dead_worker_fails_though_its_exit_can_not_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise MemoryError

    monkeypatch.setattr(process_handler, "describe_exit", fail)
    with ProcessPool(1) as pool:
        error = pool.submit(os._exit, 3).exception(HANG_SECONDS)
        assert isinstance(error, WorkerDied)
        assert "abandoned: MemoryError" in str(error)
        assert pool.submit(pow, 2, 3).result(HANG_SECONDS) == 8
        assert pool.statistics().finished["error"] == 1


def test_crash_loop_ends_with_its_cause() -> None:
    with ProcessPool(1, initializer=os._exit, initargs=(7,)) as pool:
        error = pool.submit(nothing).exception(HANG_SECONDS)
    assert isinstance(error, InitializerFailed)
    assert "exited with code 7" in str(error)


def exit_if_there(path: Path) -> None:
    if path.exists():
        os._exit(7)


def test_failed_pool_takes_tasks_after_it_was_reopened(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    with ProcessPool(2, initializer=exit_if_there, initargs=(broken,)) as pool:
        assert isinstance(pool.submit(nothing).exception(HANG_SECONDS), InitializerFailed)
        with pytest.raises(InitializerFailed):
            pool.submit(nothing)
        assert isinstance(pool.failure, InitializerFailed)
        broken.unlink()
        assert pool.reopen()
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8
        assert eventually(lambda: pool.failure is None)
        assert eventually(lambda: pool.live == 2)
        assert not pool.reopen()
    assert not pool.reopen()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(nothing)


def test_large_arguments_and_results_arrive(pool: ProcessPool) -> None:
    large = bytes(30_000_000)
    futures = [pool.submit(bytes, large) for _ in range(3)]
    assert [len(future.result(HANG_SECONDS)) for future in futures] == [30_000_000] * 3


def reverse(data: bytes) -> bytes:
    return data[::-1]


def test_values_of_all_sizes_arrive_in_one_burst() -> None:
    """They take turns in batches, alone behind another task, and in shared memory, which has room for one."""
    values = [bytes([number % 256]) * (number * 7919 % 300_000) + b"end" for number in range(200)]
    with ProcessPool(1) as pool:
        pool.submit(reverse, b"").result(HANG_SECONDS)
        sizes = [pool.submit(len, value) for value in values]
        reversed_values = [pool.submit(reverse, value) for value in values]
        assert [future.result(HANG_SECONDS) for future in sizes] == [len(value) for value in values]
        assert [future.result(HANG_SECONDS) for future in reversed_values] == [value[::-1] for value in values]


def test_large_results_of_held_tasks_arrive_though_earlier_ones_are_unread(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    with ProcessPool(1) as pool:
        wait([pool.submit(log_and_fill, str(log), -1, 1) for _ in range(40)])
        futures = [pool.submit(log_and_fill, str(log), number, 66_000) for number in range(6)]
        futures[0].add_done_callback(
            lambda _: eventually(lambda: not futures[3].running() or "\n3\n" in log.read_text())
        )
        for number, future in enumerate(futures):
            assert future.result(HANG_SECONDS) == bytes([number]) * 66_000


def log_and_fill(path: str, number: int, size: int) -> bytes:
    if number < 0:
        time.sleep(0.001)  # so its tasks are known to be longer than a batch, and short enough to be held
    append(path, str(number))
    return bytes([max(0, number)]) * size


def test_large_arguments_of_queued_tasks_are_pickled_when_a_worker_gets_them(fifo: Path) -> None:
    pickled = Large.pickled
    with ProcessPool(1) as pool:
        first = pool.submit(Path.read_text, fifo)
        futures = [pool.submit(str.upper, Large()) for _ in range(20)]  # type: ignore[arg-type]  # a str once pickled
        assert Large.pickled <= pickled + 1
        write_fifo(fifo, "go on")
        assert first.result(HANG_SECONDS) == "go on"
        assert [future.result(HANG_SECONDS) for future in futures] == ["LARGE"] * 20
    assert Large.pickled == pickled + 20


def test_task_may_resize_the_result_of_the_one_before() -> None:
    with ProcessPool(1) as pool:
        added = [1] * 500 + [100_000] * 5  # the first ones are short, so that the others travel with them
        sizes = [len(future.result()) for future in [pool.submit(grow_buffer, size) for size in added]]
    assert sizes == list(itertools.accumulate(added))


@pytest.mark.parametrize("error", [TypeError("will not travel"), SystemExit(3), KeyboardInterrupt("of pickle")])
def test_queued_arguments_that_can_not_be_pickled_fail_their_task_alone(fifo: Path, error: BaseException) -> None:
    with ProcessPool(1) as pool:
        pool.submit(Path.read_text, fifo)
        before, bad, behind = (
            pool.submit(nothing),
            pool.submit(nothing, LargeAndUnpicklable(error)),
            pool.submit(double, 2),
        )
        write_fifo(fifo, "go on")
        with pytest.raises(UnpicklableError, match=rf"nothing: .*can't .*: {type(error).__name__}: {error}"):
            bad.result(HANG_SECONDS)
        assert before.exception(HANG_SECONDS) is None
        assert behind.result(HANG_SECONDS) == 4
        assert pool.statistics().finished["failure"] == 1


def test_fork_during_work_leaves_the_pool_to_its_process(pool: ProcessPool) -> None:
    code = """
import os, warnings
from paropt_exporter.executors import ProcessPool, ThreadPool
warnings.simplefilter("ignore", DeprecationWarning)
pools = [ProcessPool(2), ThreadPool(2)]
futures = [pool.submit(abs, -1) for pool in pools for _ in range(100)]
pid = os.fork()
if pid == 0:
    for pool in pools:
        try:
            pool.submit(abs, 1)
        except RuntimeError as error:
            print("child:", error, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(sum(future.result() for future in futures))
"""
    found = read_printed(code)
    assert found.count("child: this pool belongs to the parent process") == 2
    assert found.endswith("200\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_or_grandchild_outlives_the_parent(number: int, fifo: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from paropt_exporter.executors import ProcessPool
from support.pool_tasks import start_grandchild
pool = ProcessPool(2)
print(pool.submit(__import__("os").getpid).result(), flush=True)
pool.submit(start_grandchild, {str(fifo)!r}).result()
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    worker = int(owner.stdout.readline())
    grandchild = int(read_fifo(fifo))
    owner.send_signal(number)
    owner.communicate()
    assert eventually(lambda: not is_alive(worker) and not is_alive(grandchild))


def test_parent_that_is_interrupted_twice_leaves_no_worker(fifo: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from paropt_exporter.executors import ProcessPool
from support.pool_tasks import start_grandchild
pool = ProcessPool(1)
pool.submit(start_grandchild, {str(fifo)!r}).result()
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    grandchild = int(read_fifo(fifo))
    while owner.poll() is None:
        owner.send_signal(signal.SIGINT)  # result() raises the first one; at its end the script waits for the task
        with contextlib.suppress(subprocess.TimeoutExpired):
            owner.wait(0.05)
    owner.communicate()
    assert eventually(lambda: not is_alive(grandchild))


@pytest.mark.parametrize(
    "pool", ["ProcessPool(1)", "AdaptivePool('process', 1)", "AdaptiveWorkerPool('process_pool', 1)"]
)
@pytest.mark.parametrize("waits", [".result()", ""], ids=["in the block", "at its end"])
def test_one_interrupt_ends_a_script_with_a_long_task(fifo: Path, pool: str, waits: str) -> None:
    """The terminal interrupts the standard executor's workers too; ours have sessions of their own."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from paropt_exporter import AdaptivePool, AdaptiveWorkerPool, ProcessPool
from support.pool_tasks import start_grandchild
with {pool} as pool:
    pool.submit(start_grandchild, {str(fifo)!r})
    pool.submit(print, "begun"){waits}
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    grandchild = int(read_fifo(fifo))
    owner.send_signal(signal.SIGINT)
    printed, _ = owner.communicate(timeout=HANG_SECONDS)
    assert (printed, owner.returncode) == (b"", -signal.SIGINT)
    assert eventually(lambda: not is_alive(grandchild))


def test_interrupted_shutdown_that_cancels_loses_no_task(tmp_path: Path) -> None:
    line, interrupted = 1, True
    while interrupted:
        fifo, pool = make_fifo(tmp_path, str(line)), ProcessPool(1)
        futures: list[Future[Any]] = [pool.submit(Path.read_text, fifo)]
        with open_fifo(fifo):
            futures += [pool.submit(nothing) for _ in range(3)]
            interrupted = interrupted_at(line, lambda pool=pool: pool.shutdown(False, cancel_futures=True), processes)  # type: ignore[misc]
        pool.shutdown()
        assert wait(futures, HANG_SECONDS).not_done == set(), line
        line += 3  # each takes a third of a second on a busy machine
    assert line > 20


def test_shutdown_after_an_interrupted_one_ends_idle_workers() -> None:
    """A process that was to be dismissed waited for tasks without end."""
    line, interrupted = 1, True
    while interrupted:
        pool = ProcessPool(1)
        assert eventually(lambda pool=pool: bool(pool._scheduler.idle))  # type: ignore[misc]
        interrupted = interrupted_at(line, lambda pool=pool: pool.shutdown(wait=False), processes)  # type: ignore[misc]
        assert shuts_down(pool), line
        line += 1
    assert line > 20


def read_or_return(path: Path | None) -> None:
    if path is not None:
        path.read_text()


@pytest.mark.parametrize("place", [0, 2], ids=["running", "not begun"])
def test_interrupted_stop_loses_no_other_task(tmp_path: Path, place: int) -> None:
    """The claims that it had withdrawn were lost: tasks that the worker held waited for as long as the pool lived."""
    line, interrupted, attempts = 1, True, itertools.count()
    while interrupted:
        fifo, earlier = (make_fifo(tmp_path, f"{name}{next(attempts)}") for name in ("fifo", "earlier"))
        with ProcessPool(1) as pool:
            wait([pool.submit(read_or_return, None) for _ in range(5)])  # known to be short: they travel together
            pool.submit(Path.read_text, earlier)
            futures = [pool.submit(read_or_return, path) for path in (fifo, None, None, None)]
            write_fifo(earlier, "")
            with open_fifo(fifo):
                held = all(future.running() for future in futures)  # unless they took long, on a busy machine: again
                if held:
                    stop = partial(pool.stop, futures[place], TaskStopped("stop"))
                    interrupted = interrupted_at(line, stop, processes)
            assert wait(futures, HANG_SECONDS).not_done == set(), line
            errors = [future.exception() for number, future in enumerate(futures) if number != place]
            assert errors == [None] * 3, line
        line += 3 * held
    assert line > 40


def test_tasks_of_a_signal_handler_during_a_stop_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were taken back in place of those whose claims the stop had withdrawn, and ran here and there."""
    withdraw = WorkerConnection.withdraw_claims
    ran, names = tmp_path / "ran", [*map(str, range(200))]
    later: list[TaskFuture[None]] = []

    def withdraw_and_submit(connection: WorkerConnection) -> int:
        unclaimed = withdraw(connection)
        if not later:
            later.extend(processes_pool.submit(append, str(ran), name) for name in names)
        return unclaimed

    with ProcessPool(1) as processes_pool:
        wait([processes_pool.submit(append, os.devnull, "") for _ in range(5)])  # known to be short
        earlier, fifo = make_fifo(tmp_path, "earlier"), make_fifo(tmp_path, "fifo")
        processes_pool.submit(Path.read_text, earlier)
        running = processes_pool.submit(Path.read_text, fifo)
        held = [processes_pool.submit(append, str(ran), name) for name in ("first", "stopped", "last")]
        write_fifo(earlier, "")
        with open_fifo(fifo):
            monkeypatch.setattr(WorkerConnection, "withdraw_claims", withdraw_and_submit)
            assert processes_pool.stop(held[1], TaskStopped("stop"))
        tasks: list[TaskFuture[Any]] = [running, *held, *later]
        assert wait(tasks, HANG_SECONDS).not_done == set()
    assert sorted(ran.read_text().split()) == sorted(["first", "last", *names])


def test_signal_handler_may_close_a_pool_that_notifies_of_cancelled_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shutdown failed with `deque mutated during iteration`."""
    fifo = make_fifo(tmp_path, "fifo")

    def close_before(items: Iterable[Any], most: int) -> Iterator[Any]:
        found = islice(items, most)
        monkeypatch.undo()
        processes_pool.shutdown(wait=False, cancel_futures=True)
        return found

    with ProcessPool(1) as processes_pool:
        processes_pool.submit(Path.read_text, fifo)
        queued = [processes_pool.submit(nothing) for _ in range(3)]
        with open_fifo(fifo):
            monkeypatch.setattr(manager, "islice", close_before)
            processes_pool.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in queued] == [True, True, True]


def test_timeout_of_a_signal_handler_loses_no_order_to_end_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an OSError, as if the fork server were gone: the task was never stopped, and its pool never shut down."""

    def time_out(_: object) -> bytes:
        monkeypatch.undo()
        raise TimeoutError

    fifo = make_fifo(tmp_path, "fifo")
    with ProcessPool(1) as processes_pool:
        running = processes_pool.submit(Path.read_text, fifo)
        with open_fifo(fifo):
            monkeypatch.setattr(forkservers, "marshal", types.SimpleNamespace(dumps=time_out))
            with pytest.raises(TimeoutError):
                processes_pool.stop(running, TaskStopped("stop"), grace_seconds=0)
            assert isinstance(running.exception(HANG_SECONDS), TaskStopped)


def test_timeout_of_a_signal_handler_while_a_worker_is_dismissed_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sockets:
        @property
        def SHUT_WR(self) -> int:  # noqa: N802 -- the library's name
            monkeypatch.undo()
            raise TimeoutError

    with ProcessPool(1) as processes_pool:
        processes_pool.submit(nothing).result(HANG_SECONDS)
        monkeypatch.setattr(transport, "socket", Sockets())
        with pytest.raises(TimeoutError):
            processes_pool.shutdown(wait=False)


def test_interrupted_stop_loses_no_task_that_is_not_sent_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It failed with WorkerDied, though its process had never received it."""
    send, withdraw = WorkerConnection.send_task, WorkerConnection.withdraw_claims
    sends, goes_on, interrupts = threading.Event(), threading.Event(), [KeyboardInterrupt]

    def send_later(connection: WorkerConnection, *arguments: Any, **options: Any) -> bool:
        if not sends.is_set():
            sends.set()
            goes_on.wait(HANG_SECONDS)
        return send(connection, *arguments, **options)

    def interrupt_withdrawal(connection: WorkerConnection) -> int:
        count = withdraw(connection)
        for interrupt in interrupts:
            interrupts.clear()
            raise interrupt
        return count

    with ProcessPool(1) as pool:
        assert eventually(lambda: bool(pool._scheduler.idle))
        monkeypatch.setattr(WorkerConnection, "send_task", send_later)
        monkeypatch.setattr(WorkerConnection, "withdraw_claims", interrupt_withdrawal)
        submitting = threading.Thread(target=pool.submit, args=(double, 3), daemon=True)
        submitting.start()
        assert sends.wait(HANG_SECONDS)
        (item,) = (item for process in pool._scheduler.iter_processes() for item in process.tasks.assigned.values())
        with pytest.raises(KeyboardInterrupt):
            pool.stop(item.future, TaskStopped("stop"))
        goes_on.set()
        assert item.future.result(HANG_SECONDS) == 6


def test_interrupted_resize_adds_its_workers_later() -> None:
    line, interrupted = 1, True
    while interrupted:
        pool = ProcessPool(1)
        interrupted = interrupted_at(line, lambda pool=pool: pool.resize(2), executors)  # type: ignore[misc]
        pool.resize(2)
        assert eventually(lambda pool=pool: pool.live == 2), line  # type: ignore[misc]
        assert shuts_down(pool), line
        line += 1
    assert line > 20


def test_batch_that_the_system_refuses_goes_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux refuses one without memory for it. The worker and the pool waited for each other."""
    send, refused = socket.socket.sendmsg, threading.Event()

    def refuse_once(connection: socket.socket, *arguments: Any) -> int:
        if refused.is_set():
            return send(connection, *arguments)
        refused.set()
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    with ProcessPool(1) as pool:
        worker = pool.submit(os.getpid).result(HANG_SECONDS)
        monkeypatch.setattr(socket.socket, "sendmsg", refuse_once)
        assert pool.submit(os.getpid).result(HANG_SECONDS) != worker
        assert refused.is_set()


def test_pool_survives_the_death_of_its_fork_server(pool: ProcessPool) -> None:
    forkserver = pool.submit(os.getppid).result(HANG_SECONDS)
    assert eventually(lambda: pool.live == 2)
    os.kill(forkserver, signal.SIGKILL)  # its workers go with it
    assert eventually(lambda: sum(pool.statistics().deaths.values()) == 2 and pool.live == 2)
    assert pool.submit(os.getppid).result(HANG_SECONDS) != forkserver


def test_worker_that_starts_while_a_lock_is_held_does_not_inherit_it() -> None:
    """A plain fork would copy the held lock, and no thread of the copy would release it."""
    with LIBRARY_LOCK, ProcessPool(1) as pool:
        assert pool.submit(is_library_locked).result(HANG_SECONDS) is False


def test_tasks_finish_at_interpreter_exit() -> None:
    code = """
from paropt_exporter.executors import ProcessPool
pool = ProcessPool(1)
for number in range(3):
    pool.submit(print, number, flush=True)
"""
    assert read_printed(code) == "0\n1\n2\n"


def test_shutdown_closes_all_descriptors() -> None:
    with ProcessPool(1) as pool:
        pool.submit(nothing).result(HANG_SECONDS)
    before = open_descriptors(os.getpid())
    for _ in range(3):
        with ProcessPool(2) as pool:
            pool.submit(nothing).result(HANG_SECONDS)
            pool.submit(os._exit, 1).exception(HANG_SECONDS)
            pool.resize(4)
    assert open_descriptors(os.getpid()) == before


def test_shutdown_that_cancels_looks_for_no_task_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers began nearly all of 50,000 short tasks meanwhile, and 200,000 took minutes."""
    searched = list[Any]()
    monkeypatch.setattr(Scheduler, "withdraw", lambda _, item: searched.append(item))
    with ProcessPool(1) as pool:
        futures = [pool.submit(time.sleep, 0.01) for _ in range(100)]
        pool.shutdown(wait=False, cancel_futures=True)
        assert pool.statistics().queued <= 1  # the task that the starting worker is about to take
    assert searched == []
    assert all(future.done() for future in futures)
