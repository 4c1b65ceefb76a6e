"""Tells whether the pickle of a function that travels by value still holds."""

from __future__ import annotations

from abc import ABCMeta
from enum import EnumType
from functools import _lru_cache_wrapper, cached_property, lru_cache
from types import CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, NoneType

TYPE_CHECKING = False  # workers don't need typing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import CellType
    from typing import Any

_MOST_DATA_BYTES = 1 << 20  # of mutable values, which are pickled with each task to compare them
_MOST_CODES = 1000
_ABSENT = object()
_CONSTANTS = frozenset({int, float, complex, bool, str, bytes, NoneType, GetSetDescriptorType, MemberDescriptorType})
_METHODS = frozenset({FunctionType, cached_property, classmethod, property, staticmethod})
# Attributes of classes that the interpreter and decorators set, and that do not change later.
_FIXED = frozenset({
    "__abstractmethods__", "__annotations__", "__dataclass_fields__", "__dataclass_params__", "__match_args__",
    "__slots__", "__static_attributes__", "_abc_impl",
})  # fmt: skip


class PickleCacheKey:
    """The objects on which a function's pickle depends: its parts, those of functions that it calls, their globals.

    Functions, classes and constants are compared by identity. Other values, such as lists, are compared by a plain
    pickle of them, which takes a hundredth of the time of a pickle by value.
    """

    __slots__ = (
        "_allows_state", "_cells", "_data", "_data_pickle", "_dump", "_functions", "_is_importable", "_names", "_sizes",
        "has_state",
    )  # fmt: skip

    def __init__(
        self,
        is_importable: Callable[[Any], bool],
        dump: Callable[[object], bytes | None],
        *,
        allows_state: bool,
    ) -> None:
        """Make an empty key.

        `dump` pickles values, or returns None if that would not show a change. `allows_state`: whether functions are
        accepted that depend on something which a task may change. The key keeps that alive.
        """
        self._is_importable, self._dump, self._allows_state = is_importable, dump, allows_state
        self._functions: dict[FunctionType, tuple[CodeType, tuple[Any, ...] | None, dict[str, Any] | None]] = {}
        self._names: list[tuple[Mapping[str, Any], str, object]] = []
        self._cells: list[tuple[CellType, object]] = []
        self._sizes: dict[int, tuple[Mapping[str, Any], int]] = {}  # of namespaces, by their owner's id
        self._data: list[object] = []
        self._data_pickle: bytes | None = None
        self.has_state = False  # whether a task may change something on which the function depends

    def is_valid(self) -> bool:
        """Whether the pickle would be the same now."""
        for function, (code, defaults, keywords) in self._functions.items():
            if function.__code__ is not code or function.__defaults__ is not defaults:
                return False
            if function.__kwdefaults__ is not keywords:
                return False
        for names, name, value in self._names:
            if names.get(name, _ABSENT) is not value:
                return False
        for namespace, size in self._sizes.values():
            if len(namespace) != size:
                return False
        for cell, value in self._cells:
            if _read_cell(cell) is not value:
                return False
        return not self._data or self._dump(self._data) == self._data_pickle

    def add(self, function: object) -> bool:
        """Add a function and all its dependencies; return False if they can't be compared."""
        if type(function) not in (FunctionType, type, _lru_cache_wrapper) or not self._add_value(function):
            return False
        if not self._data:
            return True
        self._data_pickle = packed = self._dump(self._data)
        return packed is not None and len(packed) <= _MOST_DATA_BYTES

    def _add_value(self, value: Any) -> bool:
        kind = type(value)
        if kind in _CONSTANTS or value is _ABSENT or self._is_importable(value):
            return True
        if kind is EnumType:
            return self._add_enum(value)
        if kind is FunctionType:
            return self._add_function(value)
        if kind in (staticmethod, classmethod):
            return self._add_value(value.__func__)
        if kind is cached_property:
            return self._add_value(value.func)
        if kind is property:
            return all(map(self._add_value, (value.fget, value.fset, value.fdel)))
        if not self._note_state():
            return False
        if kind in (type, ABCMeta):
            return self._add_class(value)
        if kind is _lru_cache_wrapper:
            return self._add_value(value.__wrapped__)
        self._data.append(value)
        return True

    def _note_state(self) -> bool:
        self.has_state = True
        return self._allows_state

    def _add_function(self, function: FunctionType) -> bool:
        if function in self._functions:
            return True
        keywords = function.__kwdefaults__
        self._functions[function] = function.__code__, function.__defaults__, keywords
        self._add_namespace(function)
        if (function.__closure__ or function.__dict__ or keywords) and not self._note_state():
            return False
        return (
            all(map(self._add_value, function.__defaults__ or ()))
            and all(self._add_name(keywords, name) for name in keywords or ())  # type: ignore[arg-type]  # not if None
            and all(self._add_name(function.__dict__, name) for name in function.__dict__)
            and all(map(self._add_cell, function.__closure__ or ()))
            and all(self._add_code(function, code) for code in _iter_code(function.__code__))
        )

    def _add_class(self, cls: type) -> bool:
        if id(cls) in self._sizes:
            return True
        self._add_namespace(cls)
        names = vars(cls)
        return all(map(self._add_value, cls.__bases__)) and all(
            name in _FIXED or self._add_name(names, name) for name in tuple(names)
        )

    def _add_enum(self, cls: EnumType) -> bool:
        """Add the methods of an enumeration; its members do not change."""
        if id(cls) in self._sizes:
            return True
        self._add_namespace(cls)
        names = vars(cls)
        methods = [name for name in names if type(names[name]) in _METHODS]
        return all(map(self._add_value, cls.__bases__)) and all(self._add_name(names, name) for name in methods)

    def _add_code(self, function: FunctionType, code: CodeType) -> bool:
        if _sets_globals(code) and not self._note_state():
            return False
        # `co_names` includes the names of attributes, which does no harm.
        return all(self._add_name(function.__globals__, name) for name in code.co_names)

    def _add_cell(self, cell: CellType) -> bool:
        value = _read_cell(cell)
        self._cells.append((cell, value))
        return self._add_value(value)

    def _add_name(self, names: Mapping[str, Any], name: str) -> bool:
        value = names.get(name, _ABSENT)
        self._names.append((names, name, value))
        return self._add_value(value)

    def _add_namespace(self, owner: FunctionType | type) -> None:
        names = vars(owner)
        self._sizes[id(owner)] = names, len(names)


def _read_cell(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return _ABSENT


def _iter_code(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if type(constant) is CodeType:
            yield from _iter_code(constant)


@lru_cache(_MOST_CODES)
def _sets_globals(code: CodeType) -> bool:
    import dis

    return any(step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") for step in dis.get_instructions(code))
