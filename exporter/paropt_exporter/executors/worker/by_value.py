"""Pickles functions and classes by value with cloudpickle, and keeps the file names that tracebacks show."""

from __future__ import annotations

import functools
import io
import sys
from collections import ChainMap
from types import CodeType, FunctionType
from typing import Any, ClassVar

import cloudpickle  # type: ignore[import-untyped]  # it has no stubs

from paropt_exporter.executors.worker import initializer_globals

_PLACEHOLDER = "<dynamic-code>"  # cloudpickle's file name, so that equal code has equal pickles on all machines


def _reduce_code(code: CodeType) -> Any:
    """Reduce code with the file that it was compiled from: workers read the same files, and tracebacks quote them."""
    function, arguments, *rest = cloudpickle.Pickler.dispatch_table[CodeType](code)
    named = tuple(code.co_filename if value == _PLACEHOLDER else value for value in arguments)
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

    def reducer_override(self, value: object) -> Any:
        reduced = super().reducer_override(value)
        if type(value) is not FunctionType or type(reduced) is not tuple:
            return reduced
        if not initializer_globals.belongs_to_module(value):
            return reduced
        make, arguments, state, *items, setter = reduced
        return make, arguments, (setter, state), *items, initializer_globals.set_state


def dumps(value: object, protocol: int) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()
