"""Makes a worker a child of its parent process to multiprocessing: with its name, authentication key and tracker."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any


def get_authkey() -> bytes:
    """Return the key to this process's managers and shared descriptors, or b"" if multiprocessing is not in use."""
    process = sys.modules.get("multiprocessing.process")
    return bytes(process.current_process().authkey) if process is not None else b""


def get_name() -> str:
    """Return this process's name, or "" if multiprocessing is not in use."""
    process = sys.modules.get("multiprocessing.process")
    return str(process.current_process().name) if process is not None else ""


def get_tracker() -> int | None:
    """Return the pipe to this process's resource tracker, or None if it shares no memory.

    Without it a worker that attaches a block of shared memory would start its own tracker, which removes the block
    when the worker exits.
    """
    if "multiprocessing.shared_memory" not in sys.modules:
        return None
    from multiprocessing.resource_tracker import getfd

    return getfd()


def join_parent(name: str, parent: tuple[bytes, str, int], parent_tracker: int | None) -> None:
    """Become a child process called `name`, "pool-number". `parent`: its key, name and process id."""
    from multiprocessing import process

    key, parent_name, parent_pid = parent
    own: Any = process.current_process()
    own.name, own.authkey = name, key
    own._identity = (int(name.rpartition("-")[2]) + 1,)  # from 1, as for multiprocessing's own children
    state: Any = process
    with contextlib.suppress(OSError):  # a filter of system calls forbids it
        state._parent_process = state._ParentProcess(parent_name, parent_pid, os.pidfd_open(parent_pid))
    if parent_tracker is not None:
        from multiprocessing import resource_tracker

        trackers: Any = resource_tracker
        trackers._resource_tracker._fd = parent_tracker  # as multiprocessing's own children do
