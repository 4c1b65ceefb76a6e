"""Put the definitions of the program's `__main__` that arrive by value into that of the worker, under their names.

So a task can pickle them, and instances of its classes, by name as in the program: for a queue, a file or a pool.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # type checkers know the name; workers have no need of typing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, FunctionType, ModuleType
    from typing import Any

SPAWNED = "__mp_main__"  # the program's `__main__` in children that multiprocessing has spawned
NAMES = ("__main__", SPAWNED)
_MARK = "__paropt_worker__"  # a name in the `__main__` of a worker
_named: list[str] = []  # the names in a worker's `__main__` that the present tasks have brought


def mark_worker() -> None:
    """Note that this process is a worker, whose own `__main__` has no definitions of the user."""
    vars(sys.modules["__main__"])[_MARK] = True


def is_worker() -> bool:
    """Return whether this process is a worker, or was forked from one."""
    return _MARK in vars(sys.modules["__main__"])


def find_importing(function: object) -> str:
    """Return the name of the module that this worker is importing and that uses a pool with `function`; or ""."""
    if not is_worker():
        return ""
    name = getattr(function, "__module__", None)
    while isinstance(name, str) and name:  # its module or a package around it, if another thread imports it
        if _is_importing(sys.modules.get(name)):
            return name
        name = name.rpartition(".")[0]
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name == "<module>" and _is_importing(sys.modules.get(name)):
            return str(name)
        frame = frame.f_back
    return ""


def _is_importing(module: ModuleType | None) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False) is True


def list_spawned() -> set[str]:
    """Return the name of `__main__` if multiprocessing has spawned this process: cloudpickle would import it."""
    return {SPAWNED} if sys.modules["__main__"].__name__ == SPAWNED else set()


def defines(value: FunctionType | type) -> bool:
    """Return whether `__main__` has a function or class under its own name."""
    return value.__module__ in NAMES and vars(sys.modules["__main__"]).get(value.__qualname__) is value


def set_state(value: FunctionType | type, state: tuple[Callable[[Any, Any], object], Any]) -> None:
    """Set the state of a definition of `__main__` as its pickle says, and name it in the worker's."""
    set_pickled, pickled = state
    set_pickled(value, pickled)
    if is_worker():  # otherwise the program has its own
        vars(sys.modules["__main__"])[value.__qualname__] = value
        _named.append(value.__qualname__)


def keep_names() -> None:
    """Keep the names that the initializer has brought, or a function that the worker keeps."""
    _named.clear()


def release_names() -> None:
    """Remove the other names after their tasks: definitions hold their globals, which may be large."""
    while _named:
        vars(sys.modules["__main__"]).pop(_named.pop(), None)
