"""Turns tasks, results and exceptions into bytes and back: pickle where it will do, cloudpickle where it won't."""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from paropt_exporter.errors import UnpicklableError

_PROTOCOL = pickle.HIGHEST_PROTOCOL
_MAIN = b"__main__"  # what is defined there must travel by value: workers never import the user's __main__
_MOST_CACHED = 1000

loads = pickle.loads


class RemoteTraceback(Exception):
    """Stands as the cause of an exception that a task raised in a worker: the traceback as it was there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Packer:
    """Pickles tasks for the workers of one pool; remembers functions that go by name.

    Modules that a worker could not import (a test's, a notebook's) go by value from then on, see `by_value`.
    """

    def __init__(self) -> None:
        self._named: dict[Callable[..., Any], bytes] = {}
        self._modules: set[str] = set()

    def pack(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[bytes, bytes]:
        """Return the pickles of function and arguments; b"" for no arguments. UnpicklableError when it can't be."""
        packed = self._named.get(function) if type(function) is FunctionType else None
        if packed is None:
            packed = self._dumps(function)
            if type(function) is FunctionType and "<" not in function.__qualname__ and not self._travels(function):
                if len(self._named) >= _MOST_CACHED:
                    self._named.clear()
                self._named[function] = packed
        return packed, self._dumps((arguments, keywords)) if arguments or keywords else b""

    def by_value(self, packed: tuple[bytes, bytes], missing: str) -> tuple[bytes, bytes] | None:
        """Pack a task again that a worker could not load for want of module `missing`; None if that can't help."""
        known = {name for name in tuple(sys.modules) if name == missing or name.startswith(missing + ".")}
        if not known:
            return None
        self._modules |= known
        self._named.clear()
        function = loads(packed[0])
        arguments, keywords = loads(packed[1]) if packed[1] else ((), {})
        return self.pack(function, arguments, keywords)

    def _travels(self, function: FunctionType) -> bool:
        return function.__module__ == "__main__" or function.__module__ in self._modules

    def _dumps(self, value: object) -> bytes:
        if not self._modules:
            try:
                packed = pickle.dumps(value, _PROTOCOL)
            except Exception:  # noqa: BLE001 -- user code runs in here; cloudpickle's own error is the one to tell
                packed = _MAIN
            if _MAIN not in packed:
                return packed
        return _by_value(value, self._modules)


def pack_initializer(function: Callable[..., object], arguments: tuple[Any, ...]) -> bytes:
    """Pickle a pool's initializer. UnpicklableError when it can't be."""
    return Packer()._dumps((function, arguments))


def dumps(value: object) -> bytes:
    """Pickle a result in a worker."""
    try:
        return pickle.dumps(value, _PROTOCOL)
    except Exception:  # noqa: BLE001 -- user code runs in here; cloudpickle's own error is the one to tell
        return _by_value(value, set())


def dump_error(error: BaseException) -> tuple[bytes, bool]:
    """Pickle an exception with its traceback as text; False: it can't travel, only a description of it."""
    text = "".join(traceback.format_exception(error))
    try:
        packed = dumps((error.with_traceback(None), text))
        loads(packed)  # a constructor that refuses its arguments shows only here
    except BaseException as trouble:  # noqa: BLE001 -- the user's exception class runs in here
        return pickle.dumps((f"{describe(error)}: it could not be sent back: {describe(trouble)}", text)), False
    return packed, True


def load_error(packed: bytes | bytearray | memoryview) -> BaseException:
    """Rebuild a task's exception, its traceback in the worker as its cause."""
    error, text = loads(packed)
    if not isinstance(error, BaseException):
        raise TypeError(f"expected an exception, found {error!r}")
    error.__cause__ = RemoteTraceback(text)
    return error


def load_any_error(packed: bytes | bytearray) -> BaseException:
    """Rebuild an exception, or what can be had of it."""
    try:
        return load_error(packed)
    except BaseException:  # noqa: BLE001 -- the user's exception class runs in here; its description remains
        return RuntimeError(str(loads(packed)[0]))


def describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 -- a __str__ that raises must not hide what happened
        return f"{type(error).__name__} (its text can't be had)"


def _by_value(value: object, modules: set[str]) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # it has no stubs

    registered: list[ModuleType] = []
    try:
        for name in modules & sys.modules.keys():
            cloudpickle.register_pickle_by_value(sys.modules[name])
            registered.append(sys.modules[name])
        packed: bytes = cloudpickle.dumps(value, _PROTOCOL)
    except Exception as error:
        raise UnpicklableError(f"{_shorten(value)} can't travel between processes: {describe(error)}") from error
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)
    return packed


def _shorten(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 -- a user's __repr__
        text = f"{type(value).__name__} object ({describe(error)})"
    return text if len(text) <= 200 else f"{text[:200]}..."
