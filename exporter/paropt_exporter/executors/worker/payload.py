"""Pickles tasks, results and exceptions: with pickle if that is enough, otherwise with cloudpickle."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import sys
import traceback
from _thread import RLock
from collections.abc import Callable, Iterator, Sequence
from functools import _lru_cache_wrapper, partial
from types import (
    BuiltinFunctionType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    NoneType,
    WrapperDescriptorType,
)
from typing import Any, NoReturn, Protocol

from paropt_exporter.errors import UnpicklableError, describe, get_traceback
from paropt_exporter.executors.worker import main_module, run_chunk
from paropt_exporter.executors.worker.pickle_buffers import LARGE_BYTES, PickleBuffers, measure_large, share_large
from paropt_exporter.executors.worker.pickle_cache import PickleCacheKey

_PLACEHOLDER = getattr(functools, "Placeholder", object())  # since Python 3.14, for arguments in between
_PROTOCOL = pickle.HIGHEST_PROTOCOL
_MAIN = b"_main__"  # of main_module.NAMES: its definitions travel by value, as workers never import the user's main
_MOST_CACHED, _MOST_CACHED_BYTES = 1000, 1 << 26  # of functions; the largest function is kept all the same
# Whose equality is identity, or nearly.
_REMEMBERED = frozenset({FunctionType, BuiltinFunctionType, _lru_cache_wrapper, type})
# Before a function's pickle: whether a worker may keep the loaded function, keeps the latest version of it (as workers
# of the standard executors keep the functions of `__main__`, including the changes that tasks make), or loads it for
# each task.
ONCE, LATEST, AFRESH = b"1", b"2", b"0"
CHUNK = b"c"  # precedes these marks: the function is called for each item of a chunk
_PLAIN = frozenset({int, float, complex, bool, NoneType})  # types that marshal handles at less cost
_TEXTS = frozenset({str, bytes})
_SELF_CONTAINED = _PLAIN | _TEXTS  # a pickle of these refers to no definitions
_LONGEST_PLAIN = 1 << 10  # longer texts are not copied once more
_MOST_QUEUED_BYTES = 1 << 26  # of pickled arguments in a queue, if all tasks' are as large as the present one's

Arguments = bytes | PickleBuffers | tuple[Any, ...]  # a pickle of (positional, keywords), or plain positional ones
Packed = tuple[bytes, Arguments]


class UnpickledArguments:
    """The large arguments of a queued task, which are pickled when a worker gets it."""

    __slots__ = ("keywords", "positional")

    def __init__(self, positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.positional, self.keywords = positional, keywords


Queued = tuple[bytes, Arguments | UnpickledArguments]


class MappedFunction:
    """The function of a `map`, which is pickled once, when the first of the map's tasks is submitted."""

    def __init__(self, function: Callable[..., Any], label: str, *, in_chunks: bool) -> None:
        """Make one. `in_chunks`: a task calls it for each tuple of arguments in a chunk."""
        self.__qualname__ = label
        self._function, self.in_chunks = function, in_chunks
        self._packed: bytes | None = None

    def pack(self, packer: Packer) -> bytes:
        if self._packed is None:
            packed = packer.pack_function(self._function)
            self._packed = CHUNK + packed if self.in_chunks else packed
        return self._packed


class QueuedItem(Protocol):
    """An entry of a pool's queue."""

    @property
    def packed(self) -> Queued: ...


loads = pickle.loads
_registering = RLock()  # guards: cloudpickle's registry of modules that travel by value
# Another thread may hold it during the fork.
os.register_at_fork(after_in_child=_registering._at_fork_reinit)  # type: ignore[attr-defined]  # as in the library


class RemoteTraceback(Exception):
    """The cause of an exception that a task raised in a worker, or that pickle raised: its traceback, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Packer:
    """Pickles tasks for the workers of one pool, and caches the pickles of functions that can't change.

    The functions of a module that a worker could not import (a test's, a notebook's) travel by value from then on. In a
    long queue, large arguments are pickled only when a worker gets them: otherwise a hundred tasks with one table of
    100 MB would take 10 GB.
    """

    def __init__(self) -> None:
        self._known: dict[Callable[..., Any], tuple[bytes, PickleCacheKey | None]] = {}  # None: its pickle is its name
        self._known_bytes = 0
        self._modules: set[str] = set()
        self._last_large = b""  # the last large pickle of a function
        self._last_bytes = 0  # of the arguments that were pickled last

    def pack(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Packed:
        """Return the function for `load_function`, and the arguments. UnpicklableError if they can't be pickled."""
        packed, pickled = self.pack_queued(function, arguments, keywords, ())
        assert not isinstance(pickled, UnpickledArguments)  # there is no queue
        return packed, pickled

    def pack_queued(
        self,
        function: Callable[..., Any] | MappedFunction,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        queue: Sequence[QueuedItem],
    ) -> Queued:
        """Return the same for a task behind a queue; its arguments may be left for `pickle_arguments`."""
        known = self._known.get(function) if type(function) in _REMEMBERED else None  # type: ignore[arg-type]  # as seen
        if known is not None and (known[1] is None or known[1].is_valid()):
            packed = known[0]  # as almost always: without the calls below
        else:
            if type(function) is partial and _is_plain_partial(function):  # its function alone may be known
                arguments, keywords = function.args + arguments, function.keywords | keywords
                function = function.func
            packed = function.pack(self) if isinstance(function, MappedFunction) else self.pack_function(function)
        if keywords:
            return packed, self._pack_arguments(arguments, keywords, queue)
        for value in arguments:
            if not is_plain(value):
                return packed, self._pack_arguments(arguments, keywords, queue)
        return packed, arguments

    def pack_function(self, function: Callable[..., Any]) -> bytes:
        """Return the function for `load_function`, from the cache if nothing on which it depends has changed."""
        known = self._known.get(function) if type(function) in _REMEMBERED else None
        if known is not None and (known[1] is None or known[1].is_valid()):
            return known[0]
        return self._pack_function(function)

    def pickle_arguments(self, queued: Queued, label: str) -> Packed:
        """Return a task with its arguments pickled. If they can't be, return one that raises the error in a worker."""
        packed, arguments = queued
        if not isinstance(arguments, UnpickledArguments):
            return packed, arguments
        import threading  # here: workers don't need it

        try:
            return packed, self._pickle_arguments(arguments.positional, arguments.keywords, large=True)
        except UnpicklableError as error:
            return self.pack(_refuse, (f"{label}: {error}",), {})
        except BaseException as error:  # pickling runs the user's code; an exit would end a worker's thread
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C, in a thread that submits
            return self.pack(_refuse, (f"{label}: its arguments can't be pickled: {describe(error)}",), {})

    def pack_by_value(self, queued: Queued, missing: str) -> Packed | None:
        """Pack a task again for workers that lack module `missing`; None if this process lacks it too."""
        if not self.learn_module(missing):
            return None
        packed, arguments = queued
        if isinstance(arguments, UnpickledArguments):
            return self.pack(load_function(packed)[0], arguments.positional, arguments.keywords)
        return self.pack(load_function(packed)[0], *load_arguments(arguments))

    def learn_module(self, missing: str) -> bool:
        """Make a module and its submodules travel by value; return False if this process does not have it either."""
        known = {name for name in tuple(sys.modules) if name == missing or name.startswith(missing + ".")}
        self._modules |= known
        self._known.clear()
        self._known_bytes = 0
        return bool(known)

    def _pack_arguments(
        self, arguments: tuple[Any, ...], keywords: dict[str, Any], queue: Sequence[QueuedItem]
    ) -> bytes | PickleBuffers | UnpickledArguments:
        waiting = len(queue)
        asks_python = self._last_bytes * waiting > _MOST_QUEUED_BYTES
        large = measure_large((*arguments, *keywords.values()), asks_python=asks_python)
        if large * waiting > _MOST_QUEUED_BYTES:
            return UnpickledArguments(arguments, keywords)
        pickled = self._pickle_arguments(arguments, keywords, large=large > 0)
        self._last_bytes = size_bytes = len(pickled)
        if size_bytes * waiting > _MOST_QUEUED_BYTES and size_bytes >= LARGE_BYTES:
            return UnpickledArguments(arguments, keywords)  # many elements: pickled twice, but not held in memory twice
        return pickled

    def _pickle_arguments(
        self, arguments: tuple[Any, ...], keywords: dict[str, Any], *, large: bool
    ) -> bytes | PickleBuffers:
        if not large and not keywords and _SELF_CONTAINED.issuperset(map(type, arguments)):
            return share_large(pickle.dumps((arguments, keywords), _PROTOCOL))
        if large and not self._modules:
            try:
                pieces = PickleBuffers((arguments, keywords))
            except Exception:  # noqa: BLE001 -- user code runs in here; the fallback takes more types, or raises the error
                return share_large(self._dump_arguments(arguments, keywords))
            if _MAIN not in pieces and not _has_connections(pieces):
                return pieces if len(pieces) >= LARGE_BYTES else pieces.join()  # a list of numbers has a short pickle
        return share_large(self._dump_arguments(arguments, keywords))

    def _dump_arguments(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bytes:
        try:
            return self._dumps((arguments, keywords))
        except UnpicklableError:
            for name, value in (*enumerate(arguments, 1), *keywords.items()):
                try:
                    self._dumps(value)
                except UnpicklableError as error:
                    part = f"argument {name!r}"
                    raise _build_error(f"{part}: {error}", part) from error.__cause__
            raise

    def _pack_function(self, function: Callable[..., Any]) -> bytes:
        if module := main_module.find_importing(function):  # the pool's workers would import it again, and so on
            raise UnpicklableError(
                f"module {module} uses a process pool when it is imported, also by each worker: "
                'move this into a function, or below `if __name__ == "__main__":`'
            )
        key, in_main = None, False
        if not self._is_importable(function):
            in_main = type(function) in _REMEMBERED and main_module.defines(function)  # type: ignore[arg-type]  # its type
            key = PickleCacheKey(self._is_importable, self._dump_plainly, allows_state=in_main)
        lasts = key is None or key.add(function)
        packed = (LATEST if in_main else AFRESH) if key is not None and (key.has_state or not lasts) else ONCE
        packed += self._dumps(function)
        if lasts:
            self._known_bytes += len(packed)
            if len(self._known) >= _MOST_CACHED or self._known_bytes > _MOST_CACHED_BYTES:
                self._known.clear()
                self._known_bytes = len(packed)
            self._known[function] = packed, key
            return packed
        if len(packed) < LARGE_BYTES:
            return packed
        if packed != self._last_large:  # a queue must not hold a copy of a script's globals for each task
            self._last_large = packed
        return self._last_large

    def _is_importable(self, value: Any) -> bool:
        """Whether a worker can import a function, class or module by its name."""
        if type(value) is ModuleType:
            return self._has_module(value.__name__) and sys.modules[value.__name__] is value
        if not isinstance(value, (FunctionType, BuiltinFunctionType, type)) or not self._has_module(value.__module__):
            return False
        found: Any = sys.modules[value.__module__]
        for part in value.__qualname__.split("."):
            found = getattr(found, part, None)
        return found is value

    def _has_module(self, module: str | None) -> bool:
        return module in sys.modules and module not in main_module.NAMES and module not in self._modules

    def _dump_plainly(self, value: object) -> bytes | None:
        """Return a pickle that differs if a value was changed; None if it may hold definitions that travel by value."""
        if self._modules:
            return None
        try:
            packed = pickle.dumps(value, _PROTOCOL)
        except Exception:  # noqa: BLE001 -- user code runs in here
            return None
        return None if _MAIN in packed or _has_connections(packed) else packed

    def _dumps(self, value: object) -> bytes:
        if not self._modules:
            try:
                packed = pickle.dumps(value, _PROTOCOL)
            except Exception:  # noqa: BLE001 -- user code runs in here; cloudpickle's error is the one to report
                packed = _MAIN
            if _MAIN not in packed and not _has_connections(packed):
                return packed
        return _dumps_by_value(value, self._modules)


def _is_plain_partial(function: partial[Any]) -> bool:
    """Whether a call of the partial equals one of its function with its arguments first."""
    return not vars(function) and all(argument is not _PLACEHOLDER for argument in function.args)


def _refuse(message: str) -> NoReturn:
    """Raise the error of arguments that could not be pickled: this task runs in place of theirs."""
    raise UnpicklableError(message)


def is_plain(value: object) -> bool:
    """Whether a value is immutable and marshal handles it, so that it needs no pickle before it is sent."""
    kind = type(value)
    return kind in _PLAIN or (kind in _TEXTS and len(value) <= _LONGEST_PLAIN)  # type: ignore[arg-type]  # a text


def load_function(packed: bytes) -> tuple[Callable[..., Any], bool]:
    """Return a packed function, and whether all tasks with the same pickle may share it."""
    if packed[:1] == CHUNK:
        function, shared = load_function(packed[1:])
        return partial(run_chunk, function), shared
    return loads(memoryview(packed)[1:]), packed[:1] != AFRESH


def load_arguments(packed: Arguments | memoryview) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if type(packed) is tuple:
        return packed, {}
    return loads(packed.join() if type(packed) is PickleBuffers else packed)  # type: ignore[no-any-return, arg-type]  # told apart by type


def dumps_result(value: object) -> bytes | PickleBuffers:
    """Pickle a result in a worker, which sends it before it does anything else."""
    if measure_large((value,)):
        try:
            pieces = PickleBuffers(value, sent_at_once=True)
        except Exception:  # noqa: BLE001 -- user code runs in here; the fallback takes more types, or raises the error
            return share_large(dumps(value))
        if not _has_connections(pieces):
            return pieces if len(pieces) >= LARGE_BYTES else pieces.join()
    return share_large(dumps(value))


def dumps(value: object) -> bytes:
    try:
        packed = pickle.dumps(value, _PROTOCOL)
    except Exception:  # noqa: BLE001 -- user code runs in here; cloudpickle's error is the one to report
        return _dumps_by_value(value, set())
    return _dumps_by_value(value, set()) if _has_connections(packed) else packed


def _has_connections(packed: bytes | PickleBuffers) -> bool:
    """Whether a pickle contains multiprocessing's connections, whose descriptors plain pickle handles as numbers."""
    return "multiprocessing.connection" in sys.modules and b"multiprocessing.connection" in packed


def dump_error(error: BaseException) -> tuple[bytes, bool]:
    """Pickle an exception with its traceback as text, or its description and False if it can't be pickled."""
    text = _format_traceback(error)
    BaseException.with_traceback(error, None)
    try:
        return _dump_loadable((error, text)), True
    except BaseException as trouble:  # noqa: BLE001 -- the user's exception class runs in here
        with contextlib.suppress(BaseException):
            return _dump_loadable((_ErrorParts(error), text)), True
        # Not an UnpicklableError, which quotes the value that it was to pickle: here the exception with its traceback.
        cause = trouble.__cause__ if isinstance(trouble, UnpicklableError) and trouble.__cause__ else trouble
        return pickle.dumps((f"{describe(error)}: it could not be sent back: {describe(cause)}", text)), False


def replace_traceback(error: BaseException) -> BaseException:
    """Put the text of an exception's traceback in its place and return the exception.

    The frames of a traceback keep those of their callers alive: the pool, the task's arguments, the pickle.
    """
    text = _format_traceback(error)
    BaseException.with_traceback(error, None)
    with contextlib.suppress(Exception):  # the user's class may define these attributes
        error.__cause__, error.__context__ = RemoteTraceback(text), None
    return error


def _format_traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, get_traceback(error)))
    except BaseException:  # noqa: BLE001 -- formatting reads the exception's attributes, which are the user's
        return describe(error)


def _dump_loadable(value: object) -> bytes:
    packed = dumps(value)
    loads(packed)  # fails for an exception whose constructor takes other arguments than those in `args`
    return packed


class _ErrorParts:
    """Stands for an exception in a pickle that is loaded without a call of its class's constructor."""

    def __init__(self, error: BaseException) -> None:
        if any(vars(base).get("__slots__") for base in type(error).__mro__):
            raise TypeError("only its constructor sets its slots")
        args, state = _reduce_built_in(error)
        if isinstance(error, BaseExceptionGroup):
            args = args[0], [_ErrorParts(each) for each in error.exceptions]
        attributes = vars(error)
        fields = {name: value for name, value in state.items() if name not in attributes}
        self._parts = type(error), args, attributes, fields

    def __reduce__(self) -> tuple[Any, ...]:
        return _join_error_parts, self._parts


def _reduce_built_in(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments and the state of an exception as its built-in class has them: `args` lacks a file's name."""
    methods = (vars(base).get("__reduce__") for base in type(error).__mro__)
    reduce: Any = next(method for method in methods if type(method) is MethodDescriptorType)
    _, args, *state = reduce(error)
    return args, state[0] if state else {}


def _join_error_parts(
    kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any], fields: dict[str, Any]
) -> BaseException:
    error = kind.__new__(kind, *args)
    built_in = next(base for base in kind.__mro__ if type(vars(base).get("__init__")) is WrapperDescriptorType)
    vars(built_in)["__init__"](error, *args)  # sets attributes such as `code` of SystemExit
    vars(error).update(attributes)
    for name, value in fields.items():
        getattr(built_in, name).__set__(error, value)  # the class of the exception may have a property of this name
    return error


def load_error(packed: bytes | bytearray | memoryview) -> BaseException:
    """Load a task's exception, with its traceback in the worker as its cause."""
    error, text = loads(packed)
    if not isinstance(error, BaseException):
        raise TypeError(f"expected an exception, found {error!r}")
    error.__cause__ = RemoteTraceback(text)
    return error


def load_any_error(packed: bytes | bytearray) -> BaseException:
    """Load an exception, or a RuntimeError with its description."""
    try:
        return load_error(packed)
    except BaseException:  # noqa: BLE001 -- the user's exception class runs in here; its description remains
        return RuntimeError(str(loads(packed)[0]))


def _dumps_by_value(value: object, modules: set[str]) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # it has no stubs

    if "multiprocessing" in sys.modules:
        from paropt_exporter.executors.worker.mp_reduction import dumps as to_bytes
    else:
        from paropt_exporter.executors.worker.by_value import dumps as to_bytes
    with _registering:
        wanted = modules | main_module.list_spawned()
        registered = (sys.modules.keys() & wanted) - cloudpickle.list_registry_pickle_by_value()
        try:
            for name in registered:
                cloudpickle.register_pickle_by_value(sys.modules[name])
            packed: bytes = to_bytes(value, _PROTOCOL)
        except Exception as error:  # pickling runs the user's code
            part = _find_unpicklable_part(value, to_bytes)
            reason = f"{part}: {describe(error)}" if part else describe(error)
            raise _build_error(f"{_shorten(value)} can't travel between processes: {reason}", part) from error
        finally:
            for name in registered:
                cloudpickle.unregister_pickle_by_value(sys.modules[name])
    return packed


def _build_error(text: str, part: str) -> UnpicklableError:
    error = UnpicklableError(text)
    error.part = part
    return error


def _find_unpicklable_part(value: object, to_bytes: Callable[[object, int], bytes]) -> str:
    """Return "global 'lock'" for a function that uses this lock; "" if the reason is no part of a function."""
    name = ""
    try:
        for name, part in list(_iter_parts(value)):  # noqa: B007 -- the name of the part at which pickling fails
            to_bytes(part, _PROTOCOL)
    except Exception:  # noqa: BLE001 -- as above
        return name
    return ""


def _iter_parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield the objects that a function or a bound method takes along, each with its kind and name."""
    if not isinstance(value, FunctionType):
        value = getattr(value, "__wrapped__", value)  # of a cached function
    if isinstance(value, MethodType):
        yield from ((f"attribute {name!r}", part) for name, part in getattr(value.__self__, "__dict__", {}).items())
        return
    if not isinstance(value, FunctionType):
        return
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            yield f"variable {name!r}", cell.cell_contents
    for name in value.__code__.co_names:
        if name in value.__globals__:
            yield f"global {name!r}", value.__globals__[name]


def _shorten(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 -- a user's __repr__
        text = f"{type(value).__name__} object ({describe(error)})"
    return text if len(text) <= 200 else f"{text[:200]}..."
