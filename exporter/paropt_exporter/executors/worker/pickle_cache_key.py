"""Finds out whether a function that travels by value may be pickled once for all: whether all it stands on holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, NoneType
from typing import Any

_ABSENT = object()
_PLAIN = (int, float, complex, bool, str, bytes, NoneType)


class PickleCacheKey:
    """What a function's pickle depends on: its own parts, those of the functions that it calls, and their globals."""

    __slots__ = ("_functions", "_globals")

    def __init__(self) -> None:
        self._functions: dict[FunctionType, tuple[CodeType, tuple[Any, ...] | None]] = {}
        self._globals: list[tuple[dict[str, Any], str, object]] = []

    def holds(self) -> bool:
        """Whether each part and each name is the object that it was."""
        for function, (code, defaults) in self._functions.items():
            if function.__code__ is not code or function.__defaults__ is not defaults or function.__dict__:
                return False
        for names, name, value in self._globals:  # noqa: SIM110 -- all() with a generator takes three times as long
            if names.get(name, _ABSENT) is not value:
                return False
        return True

    def take(self, function: FunctionType, goes_by_name: Callable[[Any], bool]) -> bool:
        """Add what a function stands on; False when it holds state, so that each task needs a copy of its own.

        State is a closure, an attribute, a default or a global that can change in its place, and a global that the
        function sets. Plain values and whatever `goes_by_name` are none.
        """
        if function in self._functions:
            return True
        defaults = function.__defaults__
        if function.__closure__ or function.__dict__ or function.__kwdefaults__:
            return False
        if any(type(value) not in _PLAIN for value in defaults or ()):
            return False
        self._functions[function] = function.__code__, defaults
        return all(self._take_code(function, code, goes_by_name) for code in _codes(function.__code__))

    def _take_code(self, function: FunctionType, code: CodeType, goes_by_name: Callable[[Any], bool]) -> bool:
        if _sets_globals(code):
            return False
        for name in code.co_names:  # names of attributes are among them: one more that is looked up does no harm
            value = function.__globals__.get(name, _ABSENT)
            self._globals.append((function.__globals__, name, value))
            if value is _ABSENT or type(value) in _PLAIN or goes_by_name(value):
                continue
            if type(value) is not FunctionType or not self.take(value, goes_by_name):
                return False
        return True


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if type(constant) is CodeType:
            yield from _codes(constant)


def _sets_globals(code: CodeType) -> bool:
    import dis

    return any(step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") for step in dis.get_instructions(code))
