"""Makes a worker a child of its parent process to multiprocessing: with its name, authentication key and tracker."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial

TYPE_CHECKING = False  # workers don't need typing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

_PROCESS, _SHARED_MEMORY = "multiprocessing.process", "multiprocessing.shared_memory"


def get_authkey() -> bytes:
    """Return the key to this process's managers and shared descriptors, or b"" if multiprocessing is not in use."""
    process = sys.modules.get(_PROCESS)
    return bytes(process.current_process().authkey) if process is not None else b""


def get_name() -> str:
    """Return this process's name, or "" if multiprocessing is not in use."""
    process = sys.modules.get(_PROCESS)
    return str(process.current_process().name) if process is not None else ""


def get_tracker() -> int | None:
    """Return the pipe to this process's resource tracker, or None if it shares no memory.

    Without it a worker that attaches a block of shared memory would start its own tracker, which removes the block
    when the worker exits.
    """
    if _SHARED_MEMORY not in sys.modules:
        return None
    from multiprocessing.resource_tracker import getfd

    return getfd()


def join_parent(name: str, parent: tuple[bytes, str, int], parent_tracker: int | None) -> None:
    """Become a child process called `name`, "pool-number". `parent`: its key, name and process id.

    If the parent does not use multiprocessing, and so has no key, this happens when a task imports it.
    """
    key, parent_name, parent_pid = parent
    if parent_tracker is None:
        _call_once_imported(_SHARED_MEMORY, _track_created_only)
    become_child = partial(_become_child, name, parent_name or "MainProcess", parent_pid)
    if not key and _PROCESS not in sys.modules:
        _call_once_imported(_PROCESS, become_child)
        return
    from multiprocessing import process

    become_child(process)
    if key:
        process.current_process().authkey = key
    if parent_tracker is not None:
        from multiprocessing import resource_tracker

        trackers: Any = resource_tracker
        trackers._resource_tracker._fd = parent_tracker  # as multiprocessing's own children do


def _become_child(name: str, parent_name: str, parent_pid: int, process: Any) -> None:
    own = process.current_process()
    own.name = name
    own._identity = (int(name.rpartition("-")[2]) + 1,)  # from 1, as for multiprocessing's own children
    with contextlib.suppress(OSError):  # a filter of system calls forbids it
        process._parent_process = process._ParentProcess(parent_name, parent_pid, os.pidfd_open(parent_pid))


def _track_created_only(module: Any) -> None:
    """Let this process's own resource tracker remove the blocks of shared memory that the process creates, no others.

    It would remove those that the process attaches, too, when the process exits: others may still use them. Processes
    that this one forks are left alone: they share its tracker, which counts a block once for all of them.
    """
    block, tracker, created, pid = module.SharedMemory, module.resource_tracker, set[str](), os.getpid()
    make, unlink = block.__init__, block.unlink

    def make_tracked(self: Any, name: str | None = None, create: bool = False, size: int = 0, **options: Any) -> None:
        make(self, name, create, size, **options)
        if create:
            created.add(self._name)
        elif is_tracked_elsewhere(self):
            tracker.unregister(self._name, "shared_memory")

    def unlink_tracked(self: Any) -> None:
        if is_tracked_elsewhere(self):
            tracker.register(self._name, "shared_memory")  # since `unlink` unregisters it
        created.discard(self._name)
        unlink(self)

    def is_tracked_elsewhere(self: Any) -> bool:
        is_ours = self._name in created or os.getpid() != pid
        return not is_ours and getattr(self, "_track", True)  # which is new in Python 3.13

    block.__init__, block.unlink = make_tracked, unlink_tracked


def _call_once_imported(name: str, on_import: Callable[[Any], None]) -> None:
    """Call `on_import` with a module, now or once it is imported."""
    if name in sys.modules:
        on_import(sys.modules[name])
    else:
        sys.meta_path.insert(0, _ImportHook(name, on_import))


class _ImportHook:
    """A finder of modules that calls `on_import` with one of them once it is imported."""

    def __init__(self, name: str, on_import: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._on_import = on_import

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        found: Any = next(filter(None, (finder.find_spec(name, path, target) for finder in sys.meta_path)), None)
        if found is not None:
            execute = found.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                self._on_import(module)

            found.loader.exec_module = execute_and_call
        return found
