"""Keep the global variables that a pool's initializer sets, for functions that travel by value.

Each by-value pickle brings a namespace of its own. Without this, tasks of a script would not see `global connection` of
its initializer.
"""

from __future__ import annotations

import sys
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType
from typing import TYPE_CHECKING, Any

from paropt_exporter.executors.worker import main_module

if TYPE_CHECKING:
    from collections.abc import Callable

_CONSTANTS = frozenset({
    BuiltinFunctionType, FunctionType, ModuleType, NoneType, bool, bytes, complex, float, int, str, type,
})  # fmt: skip
_ABSENT = object()
_BY_VALUE = "__paropt_by_value__"  # a name in the namespaces of functions that came by value

_kept: dict[str, dict[str, Any]] = {}  # by module; written once in a worker, before its first task


def belongs_to_module(function: FunctionType) -> bool:
    """Return whether the function's globals are a module's, loaded or by value in this worker, and not an `exec`'s."""
    spawned = function.__module__ == main_module.SPAWNED  # multiprocessing has copied the globals to the module
    return spawned or _BY_VALUE in function.__globals__ or _belongs_to_loaded_module(function)


def _belongs_to_loaded_module(function: FunctionType) -> bool:
    module = sys.modules.get(function.__globals__.get("__name__", ""))
    return module is not None and vars(module) is function.__globals__


def set_state(function: FunctionType, state: tuple[Callable[[FunctionType, Any], None], Any]) -> None:
    """Set a function's state as cloudpickle would, and then its globals that the initializer left here."""
    set_pickled, pickled = state
    set_pickled(function, pickled)
    function.__globals__[_BY_VALUE] = True
    if _kept:
        function.__globals__.update(_kept.get(function.__globals__["__name__"], {}))


def run_initializer(initializer: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Call the initializer. If it came by value, keep the globals that it sets, and mutable ones that it uses."""
    function = _unwrap(initializer)
    if not isinstance(function, FunctionType) or _belongs_to_loaded_module(function):
        initializer(*arguments)
        return
    names = function.__globals__
    before = dict(names)
    initializer(*arguments)
    _kept[names.get("__name__", "")] = {
        name: value
        for name, value in names.items()
        if value is not before.get(name, _ABSENT) or type(value) not in _CONSTANTS
    }


def _unwrap(call: object) -> object:
    """Return the function behind partials, methods, callable objects and decorators that use `functools.wraps`."""
    while True:
        if isinstance(call, partial):
            call = call.func
        elif isinstance(call, MethodType):
            call = call.__func__
        elif isinstance(call, FunctionType) and "__wrapped__" in call.__dict__:
            call = call.__dict__["__wrapped__"]
        elif isinstance(method := getattr(type(call), "__call__", None), FunctionType):  # noqa: B004 -- the function
            call = method
        else:
            return call
