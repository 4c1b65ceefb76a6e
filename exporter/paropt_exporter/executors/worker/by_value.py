"""Pickles functions and classes by value with cloudpickle, and keeps the file names that tracebacks show."""

from __future__ import annotations

import functools
import io
import sys
from abc import ABCMeta
from collections import ChainMap
from types import CodeType, FunctionType
from typing import Any, ClassVar

import cloudpickle  # type: ignore[import-untyped]  # it has no stubs

from paropt_exporter.executors.worker import initializer_globals, main_module

_WITH_SETTER = 6  # items of a reduction whose last one sets the state: that of a function or class
_PLAIN_METACLASSES = (type, ABCMeta)  # others, and typing.NamedTuple, may take no `__slots__`
_PLACEHOLDER = "<dynamic-code>"  # cloudpickle's file name, so that equal code has equal pickles on all machines


def _reduce_code(code: CodeType) -> Any:
    """Reduce code with the file that it was compiled from: workers read the same files, and tracebacks quote them."""
    function, arguments, *rest = cloudpickle.Pickler.dispatch_table[CodeType](code)
    # The arguments have bytes too, whose comparison with a text raises BytesWarning under -bb.
    named = tuple(
        code.co_filename if isinstance(value, str) and value == _PLACEHOLDER else value for value in arguments
    )
    return function, named, *rest


def _reduce_cached(cached: functools._lru_cache_wrapper[Any]) -> Any:
    """Reduce a function with `functools.cache` to its name, or to the function itself if a worker can't import it."""
    module = cached.__module__
    by_value = module == "__main__" or module in cloudpickle.list_registry_pickle_by_value()
    if by_value or module not in sys.modules or "<locals>" in cached.__qualname__:
        return _cache, (cached.__wrapped__, cached.cache_parameters())
    return cached.__reduce__()


def _cache(function: Any, parameters: Any) -> Any:
    return functools.lru_cache(**parameters)(function)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no stubs
    dispatch_table: ClassVar[Any] = ChainMap(
        {CodeType: _reduce_code, functools._lru_cache_wrapper: _reduce_cached}, cloudpickle.Pickler.dispatch_table
    )

    def reducer_override(self, value: Any) -> Any:
        reduced = super().reducer_override(value)
        if type(reduced) is not tuple or len(reduced) != _WITH_SETTER:
            return reduced
        if type(value) in _PLAIN_METACLASSES and "__slots__" in vars(value) and not issubclass(value, tuple):
            reduced[1][3]["__slots__"] = value.__slots__  # in the namespace of which a worker makes the class
        if type(value) is FunctionType and initializer_globals.belongs_to_module(value):
            reduced = _wrap_setter(reduced, initializer_globals.set_state)
        return _wrap_setter(reduced, main_module.set_state) if main_module.defines(value) else reduced


def _wrap_setter(reduced: tuple[Any, ...], setter: Any) -> tuple[Any, ...]:
    """Let `setter` set the state of an unpickled object. It receives the setter that would have, and the state."""
    make, arguments, state, *items, inner = reduced
    return make, arguments, (inner, state), *items, setter


def dumps(value: object, protocol: int) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()
