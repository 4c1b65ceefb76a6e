"""multiprocessing's own objects travel to a ProcessPool's workers, as arguments and as the initializer's."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker, shared_memory
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.errors import UnpicklableError
from paropt_exporter.executors import ProcessPool
from support.pool_tasks import HANG_SECONDS, nothing
from support.processes import run_python

SPAWN: SpawnContext = multiprocessing.get_context("spawn")


@pytest.fixture
def pool() -> Iterator[ProcessPool]:
    with ProcessPool(2) as pool:
        yield pool


def put(queue: Any, value: object) -> None:
    queue.put(value)


def put_pid(queue: Any) -> None:
    queue.put(os.getpid())


def test_queue_is_an_argument_of_a_task(pool: ProcessPool) -> None:
    queue = SPAWN.Queue()
    for number in range(5):
        pool.submit(put, queue, number)
    assert sorted(queue.get(timeout=HANG_SECONDS) for _ in range(5)) == list(range(5))
    queue.close()


def test_queue_of_the_initializer_reaches_each_worker() -> None:
    queue = SPAWN.SimpleQueue()
    with ProcessPool(3, mp_context=SPAWN, initializer=put_pid, initargs=(queue,)) as pool:
        assert len({queue.get() for _ in range(3)}) == 3
        pool.resize(4)
        queue.get()
    queue.close()


def count_under(lock: Any, value: Any) -> None:
    for _ in range(50):
        with lock:
            value.value += 1


def test_locks_and_shared_values_work_across_workers(pool: ProcessPool) -> None:
    lock, value = SPAWN.Lock(), SPAWN.Value("i", 0, lock=False)
    for future in [pool.submit(count_under, lock, value) for _ in range(8)]:
        future.result(HANG_SECONDS)
    assert value.value == 400


def set_and_wait(mine: Any, others: Any) -> bool:
    mine.set()
    return bool(others.wait(HANG_SECONDS))


def test_events_synchronize_two_workers(pool: ProcessPool) -> None:
    first, second = SPAWN.Event(), SPAWN.Event()
    meeting = [pool.submit(set_and_wait, first, second), pool.submit(set_and_wait, second, first)]
    assert [future.result(HANG_SECONDS) for future in meeting] == [True, True]


def send(connection: Any, text: str) -> None:
    connection.send(text)
    connection.close()


def test_connection_travels_to_a_worker_and_back(pool: ProcessPool) -> None:
    reading, writing = SPAWN.Pipe(duplex=False)
    pool.submit(send, writing, "hello").result(HANG_SECONDS)
    assert reading.recv() == "hello"
    writing.close()
    returned = pool.submit(open_pipe).result(HANG_SECONDS)
    assert returned.recv() == "from inside"
    returned.close()
    reading.close()


def open_pipe() -> Any:
    reading, writing = multiprocessing.Pipe(duplex=False)
    writing.send("from inside")
    return reading


def test_manager_proxies_work_in_workers(pool: ProcessPool) -> None:
    with SPAWN.Manager() as manager:
        found, event = manager.dict(), manager.Event()
        pool.submit(fill, found, event)
        assert event.wait(HANG_SECONDS)
        assert found.copy() == {"a": 1}


def fill(found: Any, event: Any) -> None:
    found["a"] = 1
    event.set()


def write_into(name: str) -> None:
    block = shared_memory.SharedMemory(name)
    assert block.buf is not None
    block.buf[0] = 42
    block.close()


def test_shared_memory_survives_a_worker_that_attached_it() -> None:
    block = shared_memory.SharedMemory(create=True, size=16)
    try:
        with ProcessPool(1) as pool:
            pool.submit(write_into, block.name).result(HANG_SECONDS)
        again = shared_memory.SharedMemory(block.name)
        assert again.buf is not None
        assert again.buf[0] == 42
        again.close()
    finally:
        block.close()
        block.unlink()


WITHOUT_TRACKER = """
import sys
from paropt_exporter import ProcessPool

def attach(name):
    from multiprocessing.shared_memory import SharedMemory
    block = SharedMemory(name)
    SharedMemory(name).close()
    return block.buf[0]

def remove(name):
    from multiprocessing.shared_memory import SharedMemory
    SharedMemory(name).unlink()

def make():
    from multiprocessing.shared_memory import SharedMemory
    return SharedMemory(create=True, size=16).name

with ProcessPool(1) as pool:
    print(pool.submit(attach, sys.argv[1]).result())
    pool.submit(remove, sys.argv[2]).result()
    print(pool.submit(make).result())
"""


def test_shared_memory_survives_a_worker_without_a_tracker_of_its_program() -> None:
    """The program has not loaded the module when the worker starts. The worker's own tracker ends after it."""
    attached, removed = (shared_memory.SharedMemory(create=True, size=16) for _ in range(2))
    try:
        done = run_python(WITHOUT_TRACKER, attached.name, removed.name, check=True)  # returns after all trackers
        value, made = done.stdout.split()
        assert value == "0"
        assert "KeyError" not in done.stderr
        assert [Path("/dev/shm", name).exists() for name in (attached.name, removed.name, made)] == [True, False, False]
    finally:
        attached.close()
        attached.unlink()
        removed.close()
        resource_tracker.unregister(f"/{removed.name}", "shared_memory")


FORKING = """
from multiprocessing import get_context
from paropt_exporter import ProcessPool

def fill(name):
    from multiprocessing.shared_memory import SharedMemory
    block = SharedMemory(name)
    block.buf[0] = 7

def share_with_a_child():
    from multiprocessing.shared_memory import SharedMemory
    first = SharedMemory(create=True, size=16)  # from now on the worker has a tracker
    context = get_context("fork")
    names = context.SimpleQueue()
    child = context.Process(target=lambda: fill(names.get()))
    child.start()
    block = SharedMemory(create=True, size=16)
    names.put(block.name)
    child.join()
    value = block.buf[0]
    for each in (first, block):
        each.close()
        each.unlink()
    return value

with ProcessPool(1) as pool:
    print(pool.submit(share_with_a_child).result())
"""


def test_shared_memory_of_a_worker_stays_tracked_when_its_child_attaches_it() -> None:
    done = run_python(FORKING, check=True)
    assert done.stdout == "7\n"
    assert "KeyError" not in done.stderr  # of the tracker, which no longer knew the block


def test_lock_of_the_fork_context_is_refused_with_advice(pool: ProcessPool) -> None:
    lock = multiprocessing.get_context("fork").Lock()
    error = pool.submit(nothing, lock).exception(HANG_SECONDS)
    assert isinstance(error, UnpicklableError)
    assert "get_context('forkserver')" in str(error)
    with pytest.raises(UnpicklableError, match="forkserver"):
        ProcessPool(1, initializer=nothing, initargs=(lock,))


def describe_process() -> tuple[str, tuple[int, ...], bool, str, int | None, bool]:
    own, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    assert parent is not None
    return own.name, own._identity, own.daemon, parent.name, parent.pid, parent.is_alive()


def test_worker_is_a_child_process_to_multiprocessing() -> None:
    """Programs ask for the name to know where they run, and for the number to place progress bars."""
    with ProcessPool(1, name="shop") as pool:
        found = pool.submit(describe_process).result(HANG_SECONDS)
    assert found == ("shop-0", (1,), False, "MainProcess", os.getpid(), True)


def test_threading_lock_is_refused(pool: ProcessPool) -> None:
    assert isinstance(pool.submit(nothing, threading.Lock()).exception(HANG_SECONDS), UnpicklableError)


def test_max_tasks_per_child_excludes_the_fork_context() -> None:
    with pytest.raises(ValueError, match="'fork'"):
        ProcessPool(1, mp_context=multiprocessing.get_context("fork"), max_tasks_per_child=3)


SCRIPT_WITHOUT_MULTIPROCESSING = """
import os, sys
from paropt_exporter import ProcessPool

def look():
    import multiprocessing
    own = multiprocessing.current_process()
    return multiprocessing.parent_process().pid, multiprocessing.parent_process().name, own.name

for _ in range(2):  # the fork server of the second pool may have imported the module
    with ProcessPool(1) as pool:
        assert pool.submit(look).result() == (os.getpid(), "MainProcess", "processes-0")
assert "multiprocessing" not in sys.modules
"""


def test_worker_is_a_child_to_a_task_that_imports_multiprocessing() -> None:
    """Also if the program has not imported it: packages ask for the parent to tell a worker from the program."""
    command = [sys.executable, "-c", SCRIPT_WITHOUT_MULTIPROCESSING]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert (ended.stderr, ended.returncode) == ("", 0)
