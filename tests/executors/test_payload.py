"""Pickles of tasks: which functions are pickled once, and which for each task."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest

from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes.batches import WorkItem
from paropt_exporter.executors.worker import by_value
from paropt_exporter.executors.worker.payload import (
    Packer,
    UnpickledArguments,
    dumps_result,
    load_arguments,
    load_function,
)
from paropt_exporter.executors.worker.pickle_buffers import PickleBuffers, measure_large
from support.pool_tasks import HANG_SECONDS
from support.processes import run_in_forked_child


def defined(source: str, name: str = "task", module: str = "__main__") -> Callable[..., Any]:
    """Return a function of a module that workers can't import, like a script's."""
    names: dict[str, Any] = {"__name__": module, "math": math}
    exec(source, names)
    return names[name]  # type: ignore[no-any-return]


STATELESS = [
    "def task(): return 1",
    "def task(x, y=2): return math.sqrt(x) + y",
    "FACTOR = 3\ndef task(x): return x * FACTOR",
    "def inner(x): return x + 1\ndef task(x): return inner(x)",
    "def task(n): return n if n < 2 else task(n - 1) + task(n - 2)",
    "task = lambda x: [y * 2 for y in range(x)]",
]
STATEFUL = [
    "SEEN = []\ndef task(x): SEEN.append(x)",
    "def task(x, seen=[]): seen.append(x)",
    "COUNT = 0\ndef task():\n global COUNT\n COUNT += 1",
    "SEEN = []\ndef inner(x): SEEN.append(x)\ndef task(x): inner(x)",
    "def task(): pass\ntask.calls = 0",
    "def make(box):\n def task(): box.append(1)\n return task\ntask = make([])",
    "def task(*, seen={}): return seen",
    "class Box: total = 0\ndef task(): Box.total += 1",
]


@pytest.mark.parametrize("source", STATELESS)
def test_stateless_function_is_pickled_once_and_kept(source: str) -> None:
    packer, task = Packer(), defined(source)
    first = packer.pack(task, (), {})[0]
    assert packer.pack(task, (), {})[0] is first
    assert load_function(first)[1]


class Queued(NamedTuple):
    packed: Any


def test_queued_tasks_of_a_function_with_large_globals_share_one_pickle() -> None:
    packer, task = Packer(), defined("TABLE = bytearray(1 << 17)\ndef task(): return len(TABLE)")
    queue = [Queued(packer.pack(task, (), {}))]
    first = queue[0].packed[0]
    assert packer.pack_queued(task, (), {}, queue)[0] is first
    task.__globals__["TABLE"] = bytearray(1 << 18)
    changed = packer.pack_queued(task, (), {}, queue)[0]
    assert load_function(changed)[0]() == 1 << 18


def test_functions_with_large_defaults_are_not_all_kept() -> None:
    """Each pickle has the value: those of a thousand lambdas were kept, however large."""
    packer, large, functions = Packer(), bytes(1 << 23), []
    for _ in range(20):
        function = lambda data=large: len(data)  # noqa: E731 -- as users write it
        functions.append(weakref.ref(function))
        assert packer.pack(function, (), {})[0] is packer.pack(function, (), {})[0]
    assert sum(function() is not None for function in functions) < 10


@pytest.mark.parametrize("source", STATEFUL)
def test_function_with_state_is_pickled_for_each_task(source: str) -> None:
    packer, task = Packer(), defined(source)
    first = packer.pack(task, (), {})[0]
    assert packer.pack(task, (), {})[0] is not first
    assert not load_function(first)[1]


COUNTED = """
from functools import wraps

def counted(function):
    calls = []
    @wraps(function)
    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)
    return call

@counted
def task(x): return x
"""
CLASS = """
class Base: pass
class Box(Base):
    total = 0
    @property
    def size(self): return FACTOR
    @staticmethod
    def make(): return Box()
FACTOR = 2
def task(): return Box.make().size
"""
CACHED = """
from functools import cache
SEEN = []
@cache
def task(x): SEEN.append(x)
"""
ENUM = """
from enum import Enum
class Size(Enum):
    SMALL = 1
    def scale(self): return self.value * FACTOR
    @property
    def label(self): return UNIT
FACTOR, UNIT = 2, "m"
def task(): return Size.SMALL.scale(), Size.SMALL.label
"""
CHANGES: list[tuple[str, Callable[[Any], object]]] = [
    (STATEFUL[0], lambda task: task.__globals__["SEEN"].append(1)),
    (STATEFUL[1], lambda task: task.__defaults__[0].append(1)),
    (STATEFUL[2], lambda task: task.__globals__.update(COUNT=1)),
    (STATEFUL[3], lambda task: task.__globals__["SEEN"].append(1)),
    (STATEFUL[4], lambda task: setattr(task, "calls", 1)),
    (STATEFUL[4], lambda task: setattr(task, "errors", 1)),
    (STATEFUL[6], lambda task: task.__kwdefaults__["seen"].update(a=1)),
    (STATEFUL[6], lambda task: setattr(task, "__kwdefaults__", {"seen": {1: 2}})),
    (STATEFUL[7], lambda task: setattr(task.__globals__["Box"], "total", 1)),
    (STATEFUL[7], lambda task: setattr(task.__globals__["Box"], "other", 1)),
    (COUNTED, lambda task: task.__closure__[0].cell_contents.append(1)),
    (COUNTED, lambda task: setattr(task.__wrapped__, "__defaults__", (1,))),
    (CLASS, lambda task: task.__globals__.update(FACTOR=3)),
    (CLASS, lambda task: setattr(task.__globals__["Base"], "size", 3)),
    (CLASS, lambda task: setattr(task.__globals__["Box"], "make", staticmethod(lambda: None))),
    (ENUM, lambda task: task.__globals__.update(FACTOR=3)),
    (ENUM, lambda task: task.__globals__.update(UNIT="km")),
    (ENUM, lambda task: setattr(task.__globals__["Size"], "scale", lambda self: self.value)),
    (CACHED, lambda task: task.__wrapped__.__globals__["SEEN"].append(1)),
]


def put_in_main(task: Callable[..., Any], patch: pytest.MonkeyPatch) -> None:
    patch.setitem(vars(sys.modules["__main__"]), "task", task)
    assert task.__qualname__ == "task"


@pytest.mark.parametrize(("source", "change"), CHANGES)
def test_function_of_the_main_module_with_state_is_pickled_again_when_it_has_changed(
    source: str, change: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    packer, task = Packer(), defined(source)
    put_in_main(task, monkeypatch)
    first = packer.pack(task, (), {})[0]
    assert packer.pack(task, (), {})[0] is first
    assert load_function(first)[1]
    change(task)
    second = packer.pack(task, (), {})[0]
    assert second != first
    assert packer.pack(task, (), {})[0] is second


@pytest.mark.parametrize(
    ("source", "change"),
    [
        # A plain pickle has the class by its name only.
        ("class Box: pass\nBOX = Box()\ndef task(): return BOX", lambda names: setattr(names["BOX"], "size", 1)),
        ("TABLE = bytearray(1 << 21)\ndef task(): return TABLE", lambda names: names["TABLE"].append(1)),
    ],
)
def test_change_of_state_that_is_not_compared_reaches_the_next_task(
    source: str, change: Callable[[dict[str, Any]], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    packer, task = Packer(), defined(source)
    put_in_main(task, monkeypatch)
    first = packer.pack(task, (), {})[0]
    assert load_function(first)[1]
    change(task.__globals__)
    assert packer.pack(task, (), {})[0] != first


def test_partial_travels_as_its_function_with_more_arguments() -> None:
    packer = Packer()
    function, arguments = packer.pack(partial(divmod, 7), (2,), {})
    assert function is packer.pack(divmod, (), {})[0]
    assert load_arguments(arguments) == ((7, 2), {})
    marked = partial(divmod, 7)
    marked.note = "an attribute"  # type: ignore[attr-defined]
    assert load_function(packer.pack(marked, (2,), {})[0])[0].note == "an attribute"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        lambda task: task.__globals__.update(FACTOR=5),
        lambda task: setattr(task, "__defaults__", (5,)),
        lambda task: setattr(task, "__code__", (lambda x=5: x * 5).__code__),
        lambda task: task.__globals__.update(abs=lambda x: 5),
    ],
)
def test_change_of_a_dependency_reaches_the_next_task(change: Callable[[Any], object]) -> None:
    packer, task = Packer(), defined("FACTOR = 3\ndef task(x=1): return abs(x) * FACTOR")
    assert load_function(packer.pack(task, (), {})[0])[0]() == 3
    change(task)
    assert load_function(packer.pack(task, (), {})[0])[0]() == task()
    assert task() != 3


def test_importable_functions_are_kept_and_bound_methods_are_not() -> None:
    packer = Packer()
    for function in (math.sqrt, len, int, test_importable_functions_are_kept_and_bound_methods_are_not):
        packed = packer.pack(function, (), {})[0]
        assert load_function(packed)[1]
        assert packer.pack(function, (), {})[0] is packed
    found: list[int] = []
    assert not load_function(packer.pack(found.append, (1,), {})[0])[1]


def test_equal_methods_travel_with_their_own_objects() -> None:
    packer = Packer()
    packs = [packer.pack(values.index, (1,), {})[0] for values in ([1], [1, 1], [0, 1])]
    assert [load_function(packed)[0](1) for packed in packs] == [0, 0, 1]


def test_wrapper_with_the_name_of_its_function_travels_by_value() -> None:
    inner = defined("def task(): return 1", module=__name__)  # no such name in this module
    assert load_function(Packer().pack(inner, (), {})[0])[0]() == 1


def test_module_made_at_run_time_is_state() -> None:
    task = defined("def task(): return box")
    task.__globals__["box"] = types.ModuleType("made_here")
    assert not load_function(Packer().pack(task, (), {})[0])[1]


@pytest.mark.parametrize(
    "arguments", [(), (1, 2.5, None, True, "text", b"bytes", 1j), ("x" * 2000,), ([1],), ((1, 2),)]
)
def test_arguments_arrive_unchanged(arguments: tuple[Any, ...]) -> None:
    assert load_arguments(Packer().pack(len, arguments, {})[1]) == (arguments, {})
    assert load_arguments(Packer().pack(len, arguments, {"key": 1})[1]) == (arguments, {"key": 1})


def test_mutable_arguments_are_copied_when_packed() -> None:
    values = [1]
    packed = Packer().pack(len, (values,), {})[1]
    values.append(2)
    assert load_arguments(packed) == (([1],), {})


LARGE = bytes(range(256)) * 1024


class Hidden:
    """Like a view of an array, it holds data that its size leaves out."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]  # as an array has none


@pytest.mark.parametrize("value", [LARGE, bytearray(LARGE), "ü" * 100_000, [LARGE], {"a": LARGE, "b": [1, 2]}])
def test_large_values_arrive_unchanged(value: object) -> None:
    assert load_arguments(Packer().pack(len, (value, 1), {"key": value})[1]) == ((value, 1), {"key": value})


def test_large_bytes_are_not_copied_but_mutable_buffers_are() -> None:
    pieces = Packer().pack(len, (LARGE,), {})[1]
    assert isinstance(pieces, PickleBuffers)
    assert any(part is LARGE for part in pieces.parts)
    changing = bytearray(LARGE)
    packed = Packer().pack(len, (changing,), {})[1]
    changing[0] = 255
    assert load_arguments(packed)[0] == (LARGE,)


def test_result_that_is_sent_at_once_is_not_copied() -> None:
    result = bytearray(LARGE)
    packed = dumps_result(result)
    assert isinstance(packed, PickleBuffers)
    assert any(type(part) is memoryview and part.obj is result for part in packed.parts)
    assert pickle.loads(packed.join()) == LARGE
    assert b"__main__" not in packed


@pytest.mark.parametrize("value", [[LARGE, LARGE[1:], LARGE[2:]], Hidden(3 * LARGE)], ids=["elements", "hidden"])
def test_arguments_and_results_that_do_not_look_large_go_through_shared_memory(value: object) -> None:
    """The data of views and of polars' tables are not part of their objects' size."""
    assert measure_large((value,)) == 0
    for packed in (Packer().pack(len, (value,), {})[1], dumps_result(value)):
        assert isinstance(packed, PickleBuffers)
    assert load_arguments(Packer().pack(len, (value,), {})[1]) == ((value,), {})


def test_definitions_of_main_travel_by_value_beside_large_bytes() -> None:
    here = defined("class task: pass")
    packed = Packer().pack(len, (LARGE, here), {})[1]
    assert isinstance(packed, bytes)
    assert load_arguments(packed)[0][1].__name__ == "task"


def test_name_of_main_in_the_content_of_large_bytes_changes_nothing() -> None:
    named = b"__main__" * 10_000
    packed = Packer().pack(len, (named,), {})[1]
    assert isinstance(packed, PickleBuffers)
    assert any(part is named for part in packed.parts)


def test_value_whose_size_raises_counts_as_small() -> None:
    class Odd:
        def __sizeof__(self) -> int:
            raise RuntimeError("no size")

    assert measure_large((Odd(),), asks_python=True) == 0


class Table:
    """Like a table of pandas, it determines its size in Python. `asked` counts how often."""

    asked = 0

    def __sizeof__(self) -> int:
        Table.asked += 1
        return 1 << 30


def test_size_in_python_is_not_asked_unless_it_may_keep_a_queue_small() -> None:
    packer, queue = Packer(), [WorkItem(TaskFuture(), (b"", ()), False, 0.0)] * 1000
    assert not isinstance(packer.pack_queued(len, (Table(),), {}, queue)[1], UnpickledArguments)
    dumps_result(Table())
    assert Table.asked == 0
    packer.pack(len, (LARGE,), {})  # so the arguments that follow may be large, too
    assert isinstance(packer.pack_queued(len, (Table(),), {}, queue)[1], UnpickledArguments)
    assert Table.asked == 1


class Pausing:
    """An object whose pickling waits for the test."""

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def __reduce__(self) -> tuple[type[int], tuple[()]]:
        self.begun.set()
        self.goes_on.wait(HANG_SECONDS)
        return int, ()


def test_child_that_was_forked_while_another_thread_pickled_can_pickle() -> None:
    packer, value = Packer(), Pausing()
    packer.learn_module(__name__)  # so that it pickles by value
    thread = threading.Thread(target=packer.pack, args=(abs, (value,), {}), daemon=True)
    thread.start()
    assert value.begun.wait(HANG_SECONDS)
    try:
        assert run_in_forked_child(lambda: Packer().pack(defined("task = lambda: 7"), (), {})) == 0
    finally:
        value.goes_on.set()
        thread.join(HANG_SECONDS)


def pack_class(at_hash: Callable[[], object]) -> bytes:
    """Pickle a new class by value, and call a function while cloudpickle looks the class up under its lock."""
    source = """
class Meta(type):
    def __hash__(cls):
        at_hash()
        return type.__hash__(cls)
at_hash = int
class task(metaclass=Meta):
    pass
names = globals()
"""
    names: Any = defined(source, "names")
    names["at_hash"] = at_hash
    try:
        return by_value.dumps(names["task"], pickle.HIGHEST_PROTOCOL)
    finally:
        names["at_hash"] = int


def test_class_can_be_pickled_while_the_same_thread_pickles_one() -> None:
    """A signal handler or finalizer that submitted a task with one stopped its thread in cloudpickle's lock."""
    packed: list[bytes] = []
    thread = threading.Thread(target=pack_class, args=(lambda: packed.append(pack_class(int)),), daemon=True)
    thread.start()
    thread.join(HANG_SECONDS)
    assert not thread.is_alive()
    assert packed


def test_child_that_was_forked_while_another_thread_pickled_a_class_can_pickle_one() -> None:
    pausing = Pausing()
    thread = threading.Thread(target=pack_class, args=(pausing.__reduce__,), daemon=True)
    thread.start()
    assert pausing.begun.wait(HANG_SECONDS)
    try:
        assert run_in_forked_child(lambda: pack_class(int)) == 0
    finally:
        pausing.goes_on.set()
        thread.join(HANG_SECONDS)


def test_functions_travel_where_a_comparison_of_bytes_with_text_is_an_error() -> None:
    """Python's own -bb; their code has both."""
    code = "from paropt_exporter.executors.worker import by_value; by_value.dumps(lambda: 1, 5)"
    subprocess.run([sys.executable, "-bb", "-c", code], check=True, timeout=HANG_SECONDS)
