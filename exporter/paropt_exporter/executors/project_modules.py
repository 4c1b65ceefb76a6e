"""Let calls import the modules of a project again after a change, since a process runs calls of several runs."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_State = tuple[int, int, int] | None  # of a file: time, size and inode; None: there is no file
_TICK_NS = 20_000_000  # the kernel's clock of files may be that late
_PACKAGE_FOLDERS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")  # of virtual environments
_OURS = __name__.partition(".")[0]


class ProjectModules:
    """The modules of a project that this process has imported, with the states of their files at the last look.

    Not thread-safe. No call may run meanwhile: it may import a module.
    """

    def __init__(self) -> None:
        self._root = ""
        self._files: dict[str, str] = {}  # by the names of modules; "": a namespace package
        self._states: dict[str, _State] = {}
        self._count = 0  # of all modules of the process
        self._looked_ns = time.time_ns()

    def forget_changed(self, root: str) -> None:
        """Remove all modules of the project in `root` from `sys.modules` if the file of one has changed.

        All of them, since modules keep the names that they have imported from others. Extension modules stay. Those of
        the project before it are removed too: a worker of a cluster serves several, which may have equal names.
        """
        if root != self._root:
            self._leave_project()
            self._root = root
        before_ns, self._looked_ns = self._looked_ns, time.time_ns() - _TICK_NS
        if self._count != len(sys.modules):
            self._files = dict(_iter_files(root))
        states = {name: _read_state(path) for name, path in self._files.items() if path}
        if any(self._has_changed(name, state, before_ns) for name, state in states.items()):
            self._forget()
            states = {}
        self._states, self._count = states, len(sys.modules)

    def _leave_project(self) -> None:
        if self._root:
            self._files = dict(_iter_files(self._root))
            self._forget()
            sys.path[:] = [entry for entry in sys.path if entry != self._root]

    def _forget(self) -> None:
        for name in self._files:
            sys.modules.pop(name, None)
        self._files = {}
        importlib.invalidate_caches()

    def _has_changed(self, name: str, state: _State, before_ns: int) -> bool:
        """Return whether a file differs from the last look or, if its module is new, has changed since then."""
        if name in self._states:
            return state != self._states[name]
        return state is None or state[0] >= before_ns


def _iter_files(root: str) -> Iterator[tuple[str, str]]:
    """Yield the modules below a folder with their files, "" for a namespace package."""
    folders = os.path.abspath(root), os.path.realpath(root)  # noqa: PTH100 -- keeps links
    tops = tuple(f"{folder}{os.sep}" for folder in folders)
    for name, module in tuple(sys.modules.items()):
        top = name.partition(".")[0]
        if top in (_OURS, "__main__") or top in sys.stdlib_module_names:
            continue
        if not issubclass(type(module), ModuleType):  # such as a library of cffi, which claims to be a module
            continue
        names = object.__getattribute__(module, "__dict__")  # any other access would load a lazy module
        file = names.get("__file__") or ""
        place = file or _read_first(names.get("__path__"))
        if not isinstance(place, str) or not place.startswith(tops) or any(each in place for each in _PACKAGE_FOLDERS):
            continue
        if not file or file.endswith(".py"):
            yield name, file


def _read_first(path: Any) -> object:
    """Return the first folder of a package's `__path__`; None if it has none."""
    try:
        return next(iter(path or ()), None)
    except (AttributeError, KeyError, TypeError):  # a namespace package below one that is no longer in `sys.modules`
        return None


def _read_state(path: str) -> _State:
    try:
        status = os.stat(path)  # noqa: PTH116 -- for each call
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
