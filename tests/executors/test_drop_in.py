"""The executors take the place of the standard library's in other packages."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool
from contextlib import nullcontext
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock
from xmlrpc.client import ServerProxy

import cloudpickle  # type: ignore[import-untyped]  # it has no stubs
import pytest

from paropt_exporter import AdaptiveWorkerPool
from paropt_exporter.errors import InitializerFailed, UnpicklableError, WorkerDied
from paropt_exporter.events import Strategy
from paropt_exporter.executors import AdaptivePool, ProcessPool, ThreadPool
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes import process_handler
from paropt_exporter.executors.processes.forkservers import ForkServers
from paropt_exporter.executors.processes.transport import WorkerConnection
from support import pool_tasks
from support.command_scripts import make_fifo, open_fifo, read_fifo, write_fifo
from support.pool_tasks import HANG_SECONDS, Unloadable, Unpicklable, double, eventually, nothing, raise_it
from support.processes import read_printed, run_python


@pytest.mark.parametrize("pool_type", [ThreadPool, AdaptivePool])
@pytest.mark.parametrize("mock_type", [Mock, MagicMock])
def test_mock_is_a_task(pool_type: Callable[[], ThreadPool | AdaptivePool], mock_type: type[Mock]) -> None:
    with pool_type() as pool:
        assert pool.submit(mock_type(return_value=3)).result(HANG_SECONDS) == 3
        assert list(pool.map(mock_type(return_value=3), [1])) == [3]


class Unbound:
    """A proxy without its object, such as those of web frameworks outside of a request: any look at it raises."""

    @property  # type: ignore[misc]  # as such proxies have it
    def __class__(self) -> Any:
        raise RuntimeError("working outside of a request")

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("working outside of a request")

    def __call__(self, number: int = 1) -> int:
        return number + 1


@pytest.mark.parametrize("pool_type", [ThreadPool, AdaptivePool])
def test_proxy_without_its_object_is_a_task_and_a_result(pool_type: Callable[[], ThreadPool | AdaptivePool]) -> None:
    with pool_type() as pool:
        assert pool.submit(Unbound()).result(HANG_SECONDS) == 2
        assert pool.submit_named("named", Unbound(), 2).result(HANG_SECONDS) == 3
        assert list(pool.map(Unbound(), [1, 2])) == [2, 3]
        for buffersize in (None, 1):
            found = pool.map(lambda _: Unbound(), range(3), buffersize=buffersize)
            assert [type(each) for each in found] == [Unbound] * 3


@pytest.mark.parametrize("pool_type", [ThreadPool, ProcessPool, AdaptivePool])
def test_future_can_not_be_pickled(pool_type: Callable[[], ThreadPool | ProcessPool | AdaptivePool]) -> None:
    """A copy in another process would never settle."""
    with pool_type() as pool:
        for copy in (pickle.dumps, cloudpickle.dumps):
            with pytest.raises(TypeError, match="pickle"):
                copy(pool.submit(nothing))


@pytest.mark.parametrize(
    ("pool_type", "submit"),
    [
        (ThreadPool, lambda pool, *task: pool.submit(*task)),
        (ThreadPool, lambda pool, *task: pool.submit_named("named", *task)),
        (AdaptivePool, lambda pool, *task: pool.submit(*task)),
        (AdaptiveWorkerPool, lambda pool, *task: pool.submit_stage(2, "stage", *task)),
    ],
)
def test_failed_task_is_freed_without_a_garbage_collection(
    pool_type: Callable[[], Any], submit: Callable[..., Future[Any]]
) -> None:
    """Its exception has the frames of the task, and through them those of the worker that called it."""

    class Thing:
        pass

    def fail(_: Thing) -> None:
        raise ValueError

    with pool_type() as pool:
        gc.disable()
        try:
            thing = Thing()
            seen, future = weakref.ref(thing), submit(pool, fail, thing)
            assert isinstance(future.exception(HANG_SECONDS), ValueError)
            del thing, future
            assert eventually(lambda: seen() is None)
        finally:
            gc.enable()


def return_unloadable() -> Unloadable:
    return Unloadable()


@pytest.mark.parametrize("task", [(nothing, Unpicklable()), (return_unloadable,)], ids=["argument", "result"])
def test_kept_error_of_a_value_that_can_not_travel_keeps_no_pool_alive(task: tuple[Any, ...]) -> None:
    """The traceback of pickle's error led to the frames of `submit`, or to those of the worker's thread."""
    initializer = partial(nothing)
    pool, of_the_pool = ProcessPool(1, initializer=initializer), weakref.ref(initializer)
    error = pool.submit(*task).exception(HANG_SECONDS)
    assert isinstance(error, UnpicklableError)
    assert error.__cause__ is not None
    assert "pool_tasks.py" in str(error.__cause__.__cause__)  # the traceback as text
    del pool, initializer
    assert eventually(lambda: of_the_pool() is None)


def test_failed_items_of_a_dropped_map_are_freed_without_a_garbage_collection() -> None:
    class Thing:
        pass

    def fail(_: Thing) -> None:
        raise ValueError("no")

    with ThreadPool(1) as pool:
        gc.disable()
        try:
            thing = Thing()
            seen, results = weakref.ref(thing), pool.map(fail, [thing, thing])
            with pytest.raises(ValueError, match="no"):
                next(results)
            pool.submit(nothing).result(HANG_SECONDS)  # after the second item
            del thing, results
            assert eventually(lambda: seen() is None)
        finally:
            gc.enable()


@pytest.mark.parametrize("pool_type", [ThreadPool, AdaptivePool, AdaptiveWorkerPool])
def test_tasks_that_shut_their_own_pool_down_end(pool_type: Callable[[], Executor]) -> None:
    """Neither waits for itself or for the other. The standard executor raises an error instead of waiting."""
    pool, together = pool_type(), threading.Barrier(2)

    def shut_down() -> None:
        together.wait(HANG_SECONDS)
        pool.shutdown()

    futures = [pool.submit(shut_down) for _ in range(2)]
    assert [future.exception(HANG_SECONDS) for future in futures] == [None, None]
    pool.shutdown()


@pytest.mark.parametrize("pool_type", [ThreadPool, ProcessPool, AdaptivePool])
def test_callback_that_shuts_its_pool_down_lets_queued_tasks_run(
    pool_type: Callable[..., Executor], tmp_path: Path
) -> None:
    pool, fifo, ended = pool_type(max_workers=1), make_fifo(tmp_path), threading.Event()

    def shut_down(_: object) -> None:
        pool.shutdown()
        ended.set()

    first, queued = pool.submit(read_fifo, fifo), [pool.submit(nothing) for _ in range(3)]
    first.add_done_callback(shut_down)
    write_fifo(fifo, "go")
    assert ended.wait(HANG_SECONDS)
    assert [future.result(HANG_SECONDS) for future in queued] == [None] * 3
    pool.shutdown()


def test_method_of_a_remote_server_is_a_task() -> None:
    with ThreadPool(1) as pool, pytest.raises(OSError, match="refused"):
        pool.submit(ServerProxy("http://127.0.0.1:1").method).result(HANG_SECONDS)


def test_partial_has_the_label_of_its_function() -> None:
    class Named(partial):  # type: ignore[type-arg]  # a subclass is not flattened
        pass

    with ThreadPool(1) as pool:
        assert pool.submit(Named(partial(double, 1))).label == "double"


@pytest.mark.parametrize(
    ("pool", "most"),
    [
        (partial(ThreadPool, 3), 3), (partial(ProcessPool, 2), 2), (partial(AdaptivePool, max_workers=5), 5),
        (partial(AdaptivePool, Strategy.THREAD, 4), 4), (AdaptivePool, 64), (AdaptiveWorkerPool, 64),
        (partial(AdaptiveWorkerPool, "process_pool", 2), 2),
    ],
)  # fmt: skip
def test_number_of_workers_has_the_name_of_the_standard_executors(
    pool: Callable[[], ThreadPool | ProcessPool | AdaptivePool | AdaptiveWorkerPool], most: int
) -> None:
    with pool() as made:
        assert made._max_workers == most
        with pytest.raises(AttributeError):
            made._max_workers = 1  # type: ignore[misc]  # read-only


@pytest.mark.parametrize(("pool_type", "name"), [(ThreadPool, "_shutdown"), (ProcessPool, "_shutdown_thread")])
def test_shutdown_flag_has_the_name_of_the_standard_executors(
    pool_type: type[ThreadPool | ProcessPool], name: str
) -> None:
    with pool_type(1) as pool:
        assert getattr(pool, name) is False
    assert getattr(pool, name) is True


def test_fork_lock_is_refused_with_the_remedy_and_a_forkserver_lock_arrives() -> None:
    with pytest.raises(UnpicklableError, match=r"make it with multiprocessing.get_context\('forkserver'\)"):
        ProcessPool(1, initializer=nothing, initargs=(multiprocessing.get_context("fork").RLock(),))
    with ProcessPool(1, initializer=id, initargs=(multiprocessing.get_context("forkserver").RLock(),)) as pool:
        assert pool.submit(double, 1).result(HANG_SECONDS) == 2


def test_dask_tasks_see_the_initializers_values_and_not_the_callers_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dask: Any = import_module("dask")  # it has no types

    monkeypatch.setattr(pool_tasks, "SHARED", ["the caller's"])
    read = dask.delayed(pool_tasks.read_shared)()
    fork = multiprocessing.get_context("fork")
    with ProcessPool(1, fork) as pool:
        assert dask.compute(read, scheduler="processes", pool=pool) == ([],)
    with ProcessPool(1, fork, pool_tasks.share, ("passed",)) as pool:
        assert dask.compute(read, scheduler="processes", pool=pool) == (["passed"],)


SCRIPT_WITH_INITIALIZER = """
from functools import partial, wraps
from paropt_exporter import ProcessPool

def decorate(function):
    @wraps(function)
    def call(*arguments):
        return function(*arguments)
    return call

connection = None
opened = {}
limit = 1

@decorate
def connect(address, port):
    global connection, closed
    connection, closed = f"{address}:{port}:{limit}", False
    opened[port] = connection

def ask(question):
    return question, connection, closed, opened, limit

with ProcessPool(1, initializer=partial(connect, "db"), initargs=(1,)) as pool:
    print(pool.submit(ask, "a").result())
    limit = 2
    print(*pool.map(ask, "b", chunksize=2))
print(connection, opened)
"""


def test_tasks_of_a_script_see_the_globals_that_its_initializer_set() -> None:
    """Its other globals are sent with each function, as the script has them then."""
    assert read_printed(SCRIPT_WITH_INITIALIZER).splitlines() == [
        "('a', 'db:1:1', False, {1: 'db:1:1'}, 1)", "('b', 'db:1:1', False, {1: 'db:1:1'}, 2)", "None {}",
    ]  # fmt: skip


SCRIPT_WITH_NESTED_POOL = """
from paropt_exporter import ProcessPool

class Connect:
    def __call__(self, address):
        global connection
        connection = address

def ask(question):
    return question, connection

def ask_inside(address):
    with ProcessPool(1, initializer=Connect(), initargs=(address,)) as pool:
        return *pool.submit(ask, "b").result(), connection

with ProcessPool(1, initializer=Connect(), initargs=("db",)) as pool:
    print(pool.submit(ask, "a").result(), pool.submit(ask_inside, "inner").result())
"""


def test_globals_of_initializers_reach_the_tasks_of_a_pool_in_a_task() -> None:
    """The initializer is a callable object here. Each pool's tasks see the globals of their own pool's."""
    assert read_printed(SCRIPT_WITH_NESTED_POOL) == "('a', 'db') ('b', 'inner', 'db')\n"


SCRIPT_WITH_MESSAGES = """
import multiprocessing, pickle
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum
from paropt_exporter import ProcessPool

class Color(Enum):
    RED = 1

@dataclass
class Message:
    color: Color

Renamed = namedtuple("Original", "number")

def square(number):
    return number * number

def put(queue):
    queue.put(Message(Color.RED))
    return Message(Color.RED), Renamed(1)

def square_in_processes():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.map(square, [2]), pickle.loads(pickle.dumps(square)) is square

with multiprocessing.get_context("fork").Manager() as manager, ProcessPool(1) as pool:
    queue = manager.Queue()
    returned, renamed = pool.submit(put, queue).result()
    message = queue.get()
    print(type(message) is type(returned) is Message, message == returned, message.color is Color.RED)
    print(type(renamed) is Renamed)
    print(pool.submit(square_in_processes).result(), square(3))
"""


def test_tasks_of_a_script_can_pickle_its_classes_and_functions() -> None:
    """By name, as the standard executors' tasks: for a manager's queue here, and for a pool of processes in a task."""
    assert read_printed(SCRIPT_WITH_MESSAGES) == "True True True\nTrue\n([4], True) 9\n"


SCRIPT_WITH_SLOTS = """
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar
from paropt_exporter import ProcessPool

@dataclass(slots=True)
class Point:
    x: int

class Pair(NamedTuple):
    left: int

class Box(Generic[TypeVar("T")]):
    __slots__ = ("value", "__weakref__")
    def __init__(self, value):
        self.value = value

class Base:
    __slots__ = "name"

class Named(Base):
    __slots__ = ("__hidden",)
    def __init__(self, name):
        self.name, self.__hidden = name, 2 * name
    def read(self):
        return self.name, self.__hidden

def move(point, named):
    return Point(point.x + 1), Named(named.name + 1), hasattr(point, "__dict__"), hasattr(named, "__dict__")

with ProcessPool(1) as pool:
    point, named, *have_dicts = pool.submit(move, Point(1), Named(1)).result()
    print(point, type(point) is Point, named.read(), type(named) is Named, have_dicts)
    print(pool.submit(lambda: Box(Pair(1))).result().value)
"""


def test_instances_of_a_scripts_classes_with_slots_travel_both_ways() -> None:
    """cloudpickle drops the slots, so that the worker's instances came back with a dict that the class has not."""
    assert read_printed(SCRIPT_WITH_SLOTS) == "Point(x=2) True (2, 4) True [False, False]\nPair(left=1)\n"


SCRIPT_THAT_SPAWNS = """
import multiprocessing
from dataclasses import dataclass
from paropt_exporter import ProcessPool

@dataclass
class Point:
    x: int

offset = 0

def set_offset(value):
    global offset
    offset = value

def move(point):
    return Point(point.x + offset)

def use_pool():
    with ProcessPool(1, initializer=set_offset, initargs=(5,)) as pool:
        moved = pool.submit(move, Point(1)).result()
        print(moved, type(moved) is Point, pool.submit(move, Point(2)).result(), flush=True)

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=use_pool)
    child.start()
    child.join()
"""


def test_pool_in_a_spawned_child_runs_functions_of_the_script(tmp_path: Path) -> None:
    """There the script is the module `__mp_main__`, which a worker can't import either."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT_THAT_SPAWNS)
    command = [sys.executable, str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert (ended.stdout, ended.stderr) == ("Point(x=6) True Point(x=7)\n", "")


SCRIPT_WITH_STATE = """
from functools import partial
from paropt_exporter import ProcessPool

class Model:
    loaded = 0
    def predict(self, number):
        return number * factor[0]

model, factor = None, [2]

def predict(number):
    global model
    if model is None:
        model = Model()
        Model.loaded += 1
    return model.predict(number), Model.loaded

with ProcessPool(1) as pool:
    print([pool.submit(predict, number).result() for number in (1, 2)])
    print(list(pool.map(predict, [3, 4])), list(pool.map(predict, [5, 6, 7], chunksize=2)))
    print(pool.submit(partial(predict, number=8)).result(), pool.submit(partial(predict, 9)).result())
    factor[0] = 10
    print(list(pool.map(predict, [1, 2])), model)
"""


def test_state_of_a_script_lasts_in_a_worker_until_the_script_changes_it() -> None:
    """As in the standard executors, a model is loaded once in each worker. Changes in the program still arrive."""
    assert read_printed(SCRIPT_WITH_STATE).splitlines() == [
        "[(2, 1), (4, 1)]",
        "[(6, 1), (8, 1)] [(10, 1), (12, 1), (14, 1)]",
        "(16, 1) (18, 1)",
        "[(10, 1), (20, 1)] None",
    ]


SCRIPT_WITH_TABLE = """
from paropt_exporter import AdaptivePool, ProcessPool
from paropt_exporter.executors.processes.transport import WorkerConnection

TABLE = bytearray(1 << 22)
sent = []
send = WorkerConnection._send

def count_bytes(connection, parts):
    sent.append(sum(map(len, parts)))
    return send(connection, parts)

WorkerConnection._send = count_bytes

def read(index):
    return TABLE[index]

with ProcessPool(1) as pool:
    print(sum(pool.map(read, range(20))), sum(pool.map(read, range(20), chunksize=5)))
    print(sum(sent) < 3 * len(TABLE))
    TABLE[3] = 5
    print(sum(pool.map(read, range(20))), pool.submit(read, 3).result())
sent.clear()
with AdaptivePool("process", max_workers=1) as pool:
    print(sum(pool.map(read, range(20))), sum(sent) < 2 * len(TABLE))
"""


def test_map_sends_large_globals_of_a_script_once_to_each_worker() -> None:
    """Once for the map with chunks, too, which pickles them again."""
    assert read_printed(SCRIPT_WITH_TABLE) == "0 0\nTrue\n5 5\n5 True\n"


SCRIPT_WITH_CACHES = """
from functools import cache, lru_cache
from paropt_exporter import ProcessPool

@cache
def fibonacci(number):
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

@lru_cache(maxsize=3, typed=True)
def double(number):
    return 2 * number

def work(number):
    return fibonacci(number), double(number), double.cache_parameters()

with ProcessPool(1) as pool:
    print(pool.submit(fibonacci, 50).result(), pool.submit(work, 10).result())
"""


SCRIPT_WITH_A_CACHED_PROPERTY = """
from functools import cached_property
from paropt_exporter import ProcessPool

class Order:
    def __init__(self, price):
        self.price = price

    @cached_property
    def total(self):
        return 2 * self.price

def build(price):
    order = Order(price)
    return order if order.total else None

with ProcessPool(1) as pool:
    order = pool.submit(build, 3).result()
    print(vars(order), type(order) is Order, pool.submit(lambda order: order.total, Order(4)).result())
"""


def test_class_of_a_script_may_have_a_cached_property() -> None:
    """Before Python 3.12 it has a lock, which can't be pickled."""
    assert read_printed(SCRIPT_WITH_A_CACHED_PROPERTY) == "{'price': 3, 'total': 6} True 8\n"


def test_cached_functions_of_a_script_run_in_processes() -> None:
    assert read_printed(SCRIPT_WITH_CACHES) == "12586269025 (55, 20, {'maxsize': 3, 'typed': True})\n"


SCRIPT_WITH_CONTEXT_VARIABLES = """
from contextvars import ContextVar
from paropt_exporter import ProcessPool

user = ContextVar("user", default=["guest"])
order = ContextVar("order")

def read():
    return user.get(), order.get(), user.name

def work(number):
    order.set(number)
    return read()

user.set(["caller"])
with ProcessPool(1) as pool:
    print(pool.submit(work, 1).result(), list(pool.map(work, [2])), user.get())
"""


def test_functions_of_a_script_use_its_context_variables_in_processes() -> None:
    """They have their defaults there, as in a thread. cloudpickle refuses them."""
    printed = "(['guest'], 1, 'user') [(['guest'], 2, 'user')] ['caller']\n"
    assert read_printed(SCRIPT_WITH_CONTEXT_VARIABLES) == printed


SCRIPT_WITH_A_THREAD_LOCAL = """
import threading
from paropt_exporter import ProcessPool

local = threading.local()
local.count = 10

def add():
    local.count = getattr(local, "count", 0) + 1
    return local.count

def work():
    return add(), local.count

with ProcessPool(1) as pool:
    print([pool.submit(work).result() for _ in range(2)], local.count)
"""


def test_functions_of_a_script_use_a_thread_local_in_processes() -> None:
    """It is empty there at first, as in a thread, and lasts in the worker. cloudpickle refuses it."""
    assert read_printed(SCRIPT_WITH_A_THREAD_LOCAL) == "[(1, 1), (2, 2)] 10\n"


def test_thread_local_as_an_argument_is_refused() -> None:
    """Its content would be lost."""
    with ProcessPool(1) as pool, pytest.raises(UnpicklableError, match="_local"):
        pool.submit(repr, threading.local()).result(HANG_SECONDS)


def test_context_variable_as_an_argument_is_refused() -> None:
    """Its value would be lost."""
    with ProcessPool(1) as pool, pytest.raises(UnpicklableError, match="ContextVar"):
        pool.submit(repr, ContextVar("user")).result(HANG_SECONDS)


SCRIPT_WITH_CLASSES = """
from paropt_exporter import ProcessPool

calls = 0

class Counter:
    limit = 1

    def call(self):
        global calls
        calls += 1

def make_class():
    class Local(Counter):
        limit = 1

        def call(self):
            super().call()

    return Local

Local = make_class()

with ProcessPool(1) as pool:
    result = pool.submit(lambda: (Counter(), Local(), lambda: None))  # the last one makes the classes travel by value
    Counter.limit = Local.limit = 2
    counter, local, _ = result.result()
    counter.call()
    local.call()
    print(type(counter) is Counter, type(local) is Local, Counter.limit, Local.limit, calls)
    Local.limit = 3
    print(pool.submit(lambda: Local.limit).result())
"""


def test_class_that_comes_back_is_the_programs_own_and_unchanged() -> None:
    """cloudpickle gave it the attributes and methods of the worker's copy, with globals of their own."""
    assert read_printed(SCRIPT_WITH_CLASSES) == "True True 2 2 2\n3\n"


SCRIPT_WITH_SINGLEDISPATCH = """
from functools import singledispatch, singledispatchmethod
from paropt_exporter import ProcessPool

@singledispatch
def count(value):
    return 1

@count.register(list)
def _(value):
    return sum(map(count, value))

class Point:
    @singledispatchmethod
    def move(self, by):
        return "anywhere"

    @move.register
    def _(self, by: int):
        return by

@count.register
def _(value: Point):
    return 100

def work(value):
    return count(value)

with ProcessPool(1) as pool:
    print(pool.submit(count, [1, [2, 3]]).result(), pool.submit(work, Point()).result(), count.__name__)
    print(pool.submit(lambda: Point().move(3)).result(), pool.submit(lambda: count).result()([1, 2]))
"""


def test_singledispatch_functions_of_a_script_run_in_processes() -> None:
    assert read_printed(SCRIPT_WITH_SINGLEDISPATCH) == "3 100 count\n3 2\n"


SCRIPT_WITH_TYPES = """
from typing import Generic, NewType, ParamSpec, TypeVar, TypeVarTuple
from paropt_exporter import ProcessPool

UserId = NewType("UserId", int)
P, T, Ts = ParamSpec("P"), TypeVar("T"), TypeVarTuple("Ts")

def call(function: "Callable[P, T]", *args: P.args, **kwargs: P.kwargs) -> T:
    return function(*args, **kwargs)

def take(user: UserId, *rest: *Ts) -> tuple[UserId, *Ts]:
    return UserId(user), UserId, P, *rest

with ProcessPool(1) as pool:
    number, *types = pool.submit(call, take, UserId(3)).result()
    print(number, types == [UserId, P])
"""
SCRIPT_WITH_ALIASES = """
from paropt_exporter import ProcessPool

type Rows[T] = list[T]
type Numbers = Rows[int]

def take(rows: Numbers) -> Rows[str]:
    return [str(row) for row in rows], Rows, Rows[int]

with ProcessPool(1) as pool:
    rows, *types = pool.submit(take, [3]).result()
    print(rows, types == [Rows, Rows[int]])
"""


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        (SCRIPT_WITH_TYPES, "3 True\n"),
        pytest.param(
            SCRIPT_WITH_ALIASES,
            "['3'] True\n",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement is new in Python 3.12"),
        ),
    ],
)
def test_functions_of_a_script_may_have_annotations_that_pickle_by_name(script: str, printed: str) -> None:
    assert read_printed(script) == printed


def test_cancelled_await_cancels_a_task_that_has_not_started() -> None:
    started, release, ran = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        release.wait(HANG_SECONDS)

    async def cancel_queued(pool: Executor) -> None:
        loop = asyncio.get_running_loop()
        first = loop.run_in_executor(pool, block)
        queued = loop.run_in_executor(pool, ran.set)
        queued.cancel()
        loop.call_soon(release.set)  # after asyncio has cancelled the pool's future, which it does in a callback
        await first
        with pytest.raises(asyncio.CancelledError):
            await queued

    with ThreadPool(1) as pool:
        asyncio.run(cancel_queued(pool))
    assert started.is_set()
    assert not ran.is_set()


def test_thread_pool_is_the_default_executor_of_an_event_loop() -> None:
    """asyncio accepts only a ThreadPoolExecutor there."""

    async def call_in_default(pool: ThreadPool) -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(pool)
        thread = await asyncio.to_thread(threading.current_thread)
        await loop.shutdown_default_executor()
        return thread.name

    pool = ThreadPool(1, thread_name_prefix="ours")
    assert isinstance(pool, ThreadPoolExecutor)
    assert asyncio.run(call_in_default(pool)) == "ours_0"
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(nothing)


def test_subclass_of_both_is_a_standard_executor_of_processes() -> None:
    """For packages that ask for the class, as the guide says."""

    class Processes(ProcessPool, ProcessPoolExecutor):
        pass

    with Processes(1, initializer=nothing) as pool:
        assert isinstance(pool, ProcessPoolExecutor)
        assert list(pool.map(double, [1, 2], chunksize=2)) == [2, 4]
        with pytest.raises(BrokenProcessPool):
            pool.submit(os._exit, 3).result(HANG_SECONDS)


def test_dead_worker_and_failed_initializer_are_caught_as_the_standard_errors() -> None:
    with ProcessPool(1) as pool, pytest.raises(BrokenProcessPool) as died:
        pool.submit(os._exit, 3).result(HANG_SECONDS)
    assert isinstance(died.value, WorkerDied)
    copy = pickle.loads(pickle.dumps(died.value))
    assert isinstance(copy, BrokenProcessPool)
    assert (str(copy), copy.exit_code_or_signal) == (str(died.value), 3)  # type: ignore[attr-defined]  # checked above
    broken: Any = partial(raise_it, ValueError("no"))
    for pool_type, error in ((ThreadPool, BrokenThreadPool), (ProcessPool, BrokenProcessPool)):
        with pool_type(1, initializer=broken) as failing:
            with pytest.raises(error) as failed:
                failing.submit(nothing).result(HANG_SECONDS)
            assert isinstance(failed.value, InitializerFailed)
            with pytest.raises(error):
                failing.submit(nothing)


@pytest.mark.parametrize("pool_type", [ThreadPool, ProcessPool])
def test_pool_whose_initializer_failed_can_be_dropped(pool_type: Callable[..., Executor]) -> None:
    """It kept the error that its tasks raised, and with it the frames that caught the error, where the pool was."""

    def use() -> weakref.ref[Executor]:
        broken: Any = partial(raise_it, ValueError("no"))
        with pool_type(1, initializer=broken) as pool, pytest.raises(InitializerFailed):
            pool.submit(nothing).result(HANG_SECONDS)
        return weakref.ref(pool)

    dropped = use()

    def is_gone() -> bool:
        gc.collect()
        return dropped() is None

    assert eventually(is_gone)


@pytest.mark.parametrize("pool_type", [ThreadPool, ProcessPool, AdaptivePool, AdaptiveWorkerPool])
def test_map_calls_a_submit_that_was_replaced(pool_type: Callable[[], Executor]) -> None:
    seen: list[int] = []
    with pool_type() as pool:
        submit = pool.submit

        def count_and_submit(fn: Callable[..., int], number: int) -> Future[int]:
            seen.append(number)
            return submit(fn, number)

        pool.submit = count_and_submit  # type: ignore[method-assign, assignment]  # as tqdm's process_map does
        assert list(pool.map(double, [1, 2])) == [2, 4]
    assert seen == [1, 2]


@pytest.mark.parametrize("pool_type", [ThreadPool, AdaptivePool, AdaptiveWorkerPool])
@pytest.mark.parametrize("buffersize", [None, 2])
def test_tasks_of_a_map_may_produce_its_next_items(
    pool_type: Callable[[], ThreadPool | AdaptivePool | AdaptiveWorkerPool], buffersize: int | None
) -> None:
    """So each item is queued before the next one is read."""
    items: queue.Queue[int | None] = queue.Queue()
    items.put(0)

    def add_next(number: int) -> int:
        items.put(number + 1 if number < 5 else None)
        return number

    found = iter(lambda: items.get(timeout=HANG_SECONDS), None)
    with pool_type() as pool:
        assert list(pool.map(add_next, found, buffersize=buffersize)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("pool_type", [ThreadPool, AdaptivePool])
def test_items_before_an_error_of_a_maps_input_run(pool_type: Callable[[], ThreadPool | AdaptivePool]) -> None:
    seen: list[int] = []

    def broken() -> Iterator[int]:
        yield from (1, 2)
        raise KeyError("no more")

    with pool_type() as pool, pytest.raises(KeyError, match="no more"):
        pool.map(seen.append, broken())
    assert sorted(seen) == [1, 2]


@pytest.mark.parametrize("pool_type", [ThreadPool, ProcessPool, AdaptivePool])
def test_buffersize_is_checked_as_in_python_3_14(
    pool_type: Callable[[], ThreadPool | ProcessPool | AdaptivePool],
) -> None:
    with pool_type() as pool:
        with pytest.raises(TypeError, match="buffersize must be an integer or None"):
            pool.map(double, [1], buffersize=2.0)  # type: ignore[arg-type]  # that is the mistake
        with pytest.raises(ValueError, match="buffersize must be None or > 0"):
            pool.map(double, [1], buffersize=0)


def test_map_calls_the_submit_of_a_subclass() -> None:
    class Named(ThreadPool):
        submitted = 0

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
            self.submitted += 1
            return super().submit(fn, *args, **kwargs)

    with Named() as pool:
        assert list(pool.map(double, [1, 2])) == [2, 4]
        assert pool.submitted == 2


@pytest.mark.parametrize("pool_type", [ThreadPool, ProcessPool, AdaptivePool])
def test_refused_tasks_leave_nothing_behind(
    pool_type: Callable[[], ThreadPool | ProcessPool | AdaptivePool],
) -> None:
    """One error for all of them would keep the frames of each submit in its traceback."""
    pool = pool_type()
    pool.shutdown()
    for _ in range(3):
        with pytest.raises(RuntimeError, match="after shutdown") as refused:
            pool.submit(nothing)
    assert len(refused.traceback) <= 4


@pytest.mark.parametrize("end_workers", [ProcessPool.kill_workers, ProcessPool.terminate_workers])
def test_workers_end_at_once_as_in_python_3_14(end_workers: Callable[[ProcessPool], object], tmp_path: Path) -> None:
    pool = ProcessPool(1)
    begun = tmp_path / "begun"
    running, queued = pool.submit(pool_tasks.say_and_wait, str(begun)), pool.submit(nothing)
    assert eventually(begun.exists)
    end_workers(pool)
    assert isinstance(running.exception(HANG_SECONDS), WorkerDied)
    assert queued.cancelled()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(nothing)
    pool.shutdown()


@pytest.mark.parametrize("end_workers", [ProcessPool.kill_workers, ProcessPool.terminate_workers])
@pytest.mark.parametrize("is_forked", [False, True])
def test_workers_that_are_starting_end_at_once_too(
    end_workers: Callable[[ProcessPool], object], is_forked: bool, tmp_path: Path
) -> None:
    """Their process ids are not known yet: they ran their initializer and a task each, however long these take."""
    fifo = make_fifo(tmp_path)
    pool = ProcessPool(1, initializer=read_fifo, initargs=(fifo,))
    future = pool.submit(nothing)
    with open_fifo(fifo) if is_forked else nullcontext():  # the initializer waits until it is closed
        end_workers(pool)
        assert future.cancelled()
        pool.shutdown()


def test_worker_that_is_requested_while_its_pool_is_ended_ends_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pools: queue.Queue[ProcessPool] = queue.Queue()

    def request(forkservers: ForkServers) -> WorkerConnection:
        connection = WorkerConnection(forkservers)
        pools.get().terminate_workers()
        return connection

    monkeypatch.setattr(process_handler, "WorkerConnection", request)
    pool = ProcessPool(1, initializer=read_fifo, initargs=(make_fifo(tmp_path),))
    pools.put(pool)
    pool.shutdown()
    assert "initializer failed" not in caplog.text  # as it does if nothing writes for some time


SCRIPT_WITH_A_THREAD = """
import threading
from paropt_exporter import {kind}

def say_at_the_end():
    threading.main_thread().join()
    print("waited for")

def start_thread():
    threading.Thread(target=say_at_the_end).start()
    return threading.current_thread().daemon

with {kind}() as pool:
    print(pool.submit(start_thread).result())
"""


@pytest.mark.parametrize("kind", ["ThreadPool", "AdaptivePool"])
def test_interpreter_waits_for_a_thread_that_a_task_has_started(kind: str) -> None:
    """A thread inherits whether it is a daemon, and tasks of the standard executors run in no daemons."""
    assert read_printed(SCRIPT_WITH_A_THREAD.format(kind=kind)) == "False\nwaited for\n"


SCRIPT_WITH_AN_EXIT_HANDLER = """
import atexit
from paropt_exporter import {kind}

@atexit.register
def use_a_new_pool():
    try:
        {kind}().submit(abs, -1)
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.parametrize("kind", ["ThreadPool", "ProcessPool", "AdaptivePool", "AdaptiveWorkerPool"])
def test_pool_that_an_exit_handler_makes_takes_no_tasks(kind: str) -> None:
    """As in the standard library: the interpreter does not wait for tasks any more."""
    assert (
        read_printed(SCRIPT_WITH_AN_EXIT_HANDLER.format(kind=kind))
        == "cannot schedule new futures after interpreter shutdown\n"
    )


MODULE_WITH_A_POOL = """
from paropt_exporter import ProcessPool

class Order:
    pass

def work(order):
    pass

with ProcessPool(1) as pool:
    print(pool.submit({function}, Order()).exception())
"""


@pytest.mark.parametrize("function", ["work", "isinstance"])
def test_pool_at_the_top_level_of_a_module_does_not_start_workers_without_end(tmp_path: Path, function: str) -> None:
    """Each worker imported the module, made a pool of its own, and so on: thousands of processes in a minute."""
    (tmp_path / "orders.py").write_text(MODULE_WITH_A_POOL.format(function=function))
    ended = run_python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import orders")
    assert "module orders uses a process pool when it is imported" in ended.stdout
    assert ended.stderr == ""


SCRIPT_WITH_A_FINAL_OBJECT = """
from paropt_exporter import AdaptivePool, ProcessPool, ThreadPool

def initialize():
    pass

def work():
    return 1

class Final:
    def __del__(self):
        print("finalized")

final = Final()
pool = {pool}
print(pool.submit(work).result())
"""


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(
    "pool",
    ["ThreadPool(1, initializer=initialize)", "ProcessPool(1, initializer=initialize)", 'AdaptivePool("process")'],
)
def test_objects_of_a_script_are_finalized_at_exit(pool: str, *, closed: bool) -> None:
    """A pool that kept the script's functions would keep its globals until the interpreter has ended."""
    script = SCRIPT_WITH_A_FINAL_OBJECT.format(pool=pool)
    ended = run_python(f"{script}pool.shutdown()\n" if closed else script)
    assert (ended.stdout, ended.stderr) == ("1\nfinalized\n", "")


SCRIPT_WITH_OPTIONS = """
import sys
from paropt_exporter import ProcessPool

def read_flags():
    flags = [value for name, value in zip(sys.flags.__match_args__, sys.flags) if name != "safe_path"]
    return flags, sys._xoptions, sys.stdout.write_through

with ProcessPool(1) as pool:
    assert pool.submit(read_flags).result() == read_flags(), pool.submit(read_flags).result()
"""


def test_workers_have_the_flags_and_options_of_the_interpreter() -> None:
    """Among them are -X utf8, on which the default encoding of files depends, and -u, without which output is late."""
    options = ["-OO", "-bb", "-s", "-u", "-X", "utf8", "-X", "int_max_str_digits=5000", "-X", "dev", "-W", "error"]
    command = [sys.executable, *options, "-c", SCRIPT_WITH_OPTIONS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert (ended.stderr, ended.returncode) == ("", 0)


def test_pool_of_a_module_starts_no_workers_in_workers_that_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a pool of 8 processes would start 64 more. With its first task it does."""
    (tmp_path / "with_a_pool.py").write_text(
        "from paropt_exporter import ProcessPool\n"
        "POOL = ProcessPool(2)\n"
        "def look():\n"
        "    found = POOL.statistics()\n"
        "    return found.starting + found.live, POOL.submit(abs, -3).result(), POOL.target\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = import_module("with_a_pool")
    with module.POOL as pool:
        assert pool.submit(module.look).result(HANG_SECONDS) == (0, 3, 2)


def test_program_that_embeds_python_names_the_interpreter_of_workers(tmp_path: Path) -> None:
    """Its own executable, `sys.executable`, is no Python."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nNAMED=yes exec {sys.executable} "$@"\n')
    interpreter.chmod(0o700)
    script = f"""
import multiprocessing, pathlib, sys
from paropt_exporter import ProcessPool
sys.executable = "/bin/false"
multiprocessing.set_executable({str(interpreter)!r})
with ProcessPool(1) as pool:
    print("NAMED=yes" in pool.submit(pathlib.Path.read_text, pathlib.Path("/proc/self/environ")).result())
"""
    assert read_printed(script) == "True\n"


def test_frozen_program_is_refused_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its executable is the program, as PyInstaller makes it: as a fork server it would start one more of them."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(RuntimeError, match="use a ThreadPool"):
        ProcessPool(1)
    with AdaptivePool(Strategy.HYBRID) as pool:
        assert pool.submit(double, 1).result(HANG_SECONDS) == 2


SCRIPT_THAT_FORKS = """
import os, sys, threading, warnings
from functools import partial
from paropt_exporter import AdaptivePool, AdaptiveWorkerPool, ProcessPool, ThreadPool

warnings.simplefilter("ignore", DeprecationWarning)
made = threading.local()
pools = [ThreadPool(2, "mine", partial(setattr, made, "number", 3)), ThreadPool(2), ProcessPool(1)]
pools += [AdaptivePool(), AdaptiveWorkerPool()]
child = os.fork()
found = [pools[0].submit(getattr, made, "number").result(), list(pools[1].map(abs, range(3)))]
found += [pool.submit(abs, -4).result() for pool in pools]
for pool in pools:
    pool.shutdown()
print(found, {thread.name for thread in threading.enumerate()}, flush=True)
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_unused_pool_works_in_a_forked_child() -> None:
    """As the module-level executors of packages do under a server that forks its workers."""
    ended = run_python(SCRIPT_THAT_FORKS)
    line = "[3, [0, 1, 2], 4, 4, 4, 4, 4] {'MainThread'}"
    assert (ended.stdout.splitlines(), ended.stderr) == ([line, line, "0"], "")
