"""Pickles functions and classes by value with cloudpickle, and keeps the file names that tracebacks show."""

from __future__ import annotations

import functools
import io
import os
import sys
import threading
import typing
from _thread import _local
from abc import ABCMeta
from contextvars import Context, ContextVar
from types import CellType, CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import cloudpickle  # type: ignore[import-untyped]  # it has no stubs

from paropt_exporter.executors.worker import initializer_globals, main_module

_WITH_SETTER = 6  # items of a reduction whose last one sets the state: that of a function or class
_PLAIN_METACLASSES = (type, ABCMeta)  # others, and typing.NamedTuple, may take no `__slots__`
# Of the arguments of CodeType. cloudpickle passes a placeholder, so that equal code has equal pickles on all machines.
_FILE_NAME = 10
_CLOUDPICKLE_TABLE, _COPYREG_TABLE = cloudpickle.Pickler.dispatch_table.maps
_CLOUDPICKLE_NAMES = vars(cloudpickle.cloudpickle)
_own_classes: WeakSet[type] = WeakSet()  # that the program has sent to workers
# A plain lock would stop a thread whose signal handler or finalizer pickles a class while the thread holds it.
cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK = _class_lock = threading.RLock()
# Another thread may hold it during the fork.
os.register_at_fork(after_in_child=_class_lock._at_fork_reinit)  # type: ignore[attr-defined]  # as in the library


def _reduce_code(code: CodeType) -> Any:
    """Reduce code with the file that it was compiled from: workers read the same files, and tracebacks quote them."""
    function, arguments, *rest = _CLOUDPICKLE_TABLE[CodeType](code)
    return function, (*arguments[:_FILE_NAME], code.co_filename, *arguments[_FILE_NAME + 1 :]), *rest


def _is_importable(value: Any) -> bool:
    """Return whether a worker can import the module of something that pickles as its name."""
    module = value.__module__
    return module != "__main__" and module not in cloudpickle.list_registry_pickle_by_value() and module in sys.modules


def _reduce_cached(cached: functools._lru_cache_wrapper[Any]) -> Any:
    """Reduce a function with `functools.cache` to its name, or to the function itself if a worker can't import it."""
    if _is_importable(cached) and "<locals>" not in cached.__qualname__:
        return cached.__reduce__()
    return _cache, (cached.__wrapped__, cached.cache_parameters())


def _cache(function: Any, parameters: Any) -> Any:
    return functools.lru_cache(**parameters)(function)


def _reduce_cached_property(cached: functools.cached_property[Any]) -> Any:
    """Reduce a property without its lock, which it has before Python 3.12."""
    return _make_cached_property, (cached.func, cached.attrname)


def _make_cached_property(function: Any, name: str | None) -> Any:
    made = functools.cached_property(function)
    made.attrname = name
    return made


def _make_dispatcher() -> Any:
    return functools.singledispatch(_set_dispatcher)  # which replaces itself by the function's own implementations


def _set_dispatcher(dispatcher: Any, registry: dict[type, Any]) -> None:
    for kind, implementation in registry.items():
        dispatcher.register(kind, implementation)
    functools.update_wrapper(dispatcher, registry[object])


def _reduce_dispatcher_method(method: functools.singledispatchmethod[Any]) -> Any:
    """Reduce a method without its cache, which has weak references from Python 3.13 on."""
    return _make_dispatcher_method, (method.func, method.dispatcher)


def _make_dispatcher_method(function: Any, dispatcher: Any) -> Any:
    method: functools.singledispatchmethod[Any] = functools.singledispatchmethod(function)
    method.dispatcher = dispatcher
    return method


_DISPATCHER_CODE = _make_dispatcher().__code__


def _reduce_alias(alias: Any) -> Any:
    """Reduce a type or parameter that has a name, such as `UserId = NewType("UserId", int)`, as annotations use them.

    To its name, or to its parts if a worker can't import it. A worker needs neither bounds nor defaults.
    """
    if _is_importable(alias):
        return alias.__reduce__()
    parts: dict[str, Any] = {}
    if type(alias) is typing.NewType:
        parts = {"tp": alias.__supertype__}
    elif hasattr(alias, "__value__"):
        parts = {"value": alias.__value__, "type_params": alias.__type_params__}
    return _find_or_make, (type(alias), alias.__module__, alias.__name__, parts)


def _find_or_make(kind: Any, module: str, name: str, parts: dict[str, Any]) -> Any:
    """Return this program's own object of that name, or make one."""
    found = getattr(sys.modules.get(module), name, None)
    if type(found) is kind:
        return found
    make = FunctionType(_make.__code__, {"__name__": module})  # whose module becomes that of the object
    return make(kind, name, parts)


def _make(kind: Any, name: str, parts: dict[str, Any]) -> Any:
    return kind(name, **parts)


_ALIASES = [
    kind
    for name in ("NewType", "ParamSpec", "TypeVarTuple", "TypeAliasType")
    if (kind := getattr(typing, name, None)) is not None  # the last is new in Python 3.12
]


class _ContextVariable:
    """Stands for a context variable among the globals of a function: a worker makes one with its name and default."""

    def __init__(self, variable: ContextVar[Any]) -> None:
        self._variable = variable

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            default = Context().run(self._variable.get)
        except LookupError:  # it has none
            return ContextVar, (self._variable.name,)
        return functools.partial(ContextVar, self._variable.name, default=default), ()


# The same one for all functions of a pickle, which then share the variable.
_get_context_variable = functools.lru_cache(maxsize=1000)(_ContextVariable)


class _ThreadLocal:
    """Stands for a `threading.local` among the globals of a function: a worker's thread begins with an empty one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _local, ()


_thread_locals: WeakKeyDictionary[_local, _ThreadLocal] = WeakKeyDictionary()  # one each, as for context variables


_REDUCERS: dict[Any, Any] = {
    **dict.fromkeys(_ALIASES, _reduce_alias),
    CodeType: _reduce_code,
    functools._lru_cache_wrapper: _reduce_cached,
    functools.cached_property: _reduce_cached_property,
    functools.singledispatchmethod: _reduce_dispatcher_method,
}


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no stubs
    @property
    def dispatch_table(self) -> dict[Any, Any]:
        """Return the reducers by type: in one dict, since the pickler looks there for each object."""
        return {**_COPYREG_TABLE, **_CLOUDPICKLE_TABLE, **_REDUCERS}

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is CodeType or kind is CellType or (kind is FunctionType and value.__globals__ is _CLOUDPICKLE_NAMES):
            return NotImplemented  # at once, for the parts of each function and the names of cloudpickle's own ones
        reduced = super().reducer_override(value)
        if type(reduced) is not tuple or len(reduced) != _WITH_SETTER:
            return reduced
        if type(value) is FunctionType and value.__code__ is _DISPATCHER_CODE:  # its cache has weak references
            return _make_dispatcher, (), dict(value.registry), None, None, _set_dispatcher  # type: ignore[attr-defined]  # of singledispatch
        if kind is FunctionType:
            names = reduced[2][1]["__globals__"]
            for name, found in tuple(names.items()):
                if type(found) is ContextVar:
                    names[name] = _get_context_variable(found)
                elif type(found) is _local:
                    names[name] = _thread_locals.setdefault(found, _ThreadLocal())
        if type(value) in _PLAIN_METACLASSES and "__slots__" in vars(value) and not issubclass(value, tuple):
            reduced[1][3]["__slots__"] = value.__slots__  # in the namespace of which a worker makes the class
        if isinstance(value, type):
            if not main_module.is_worker():
                _own_classes.add(value)
            reduced = _wrap_setter(reduced, _set_class_state)
        if type(value) is FunctionType and initializer_globals.belongs_to_module(value):
            reduced = _wrap_setter(reduced, initializer_globals.set_state)
        return _wrap_setter(reduced, main_module.set_state) if main_module.defines(value) else reduced


def _set_class_state(value: type, state: tuple[Any, Any]) -> None:
    """Set the state of a class, unless it is the program's own: a worker's copy of it has other globals."""
    set_pickled, pickled = state
    if value not in _own_classes:
        set_pickled(value, pickled)


def _wrap_setter(reduced: tuple[Any, ...], setter: Any) -> tuple[Any, ...]:
    """Let `setter` set the state of an unpickled object. It receives the setter that would have, and the state."""
    make, arguments, state, *items, inner = reduced
    return make, arguments, (inner, state), *items, setter


def dumps(value: object, protocol: int) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()
