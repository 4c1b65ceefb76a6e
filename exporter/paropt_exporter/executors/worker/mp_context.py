"""Makes a worker one of multiprocessing's family: the key of its owner's managers, and its resource tracker."""

from __future__ import annotations

import sys
from typing import Any


def get_authkey() -> bytes:
    """Return what opens this process's managers and shared descriptors; b"" while multiprocessing is not in use."""
    process = sys.modules.get("multiprocessing.process")
    return bytes(process.current_process().authkey) if process is not None else b""


def get_tracker() -> int | None:
    """Return the pipe to this process's resource tracker; None while it shares no memory.

    Without it a worker that looks at a block of shared memory would start a tracker of its own, and that removes the
    block when the worker goes.
    """
    if "multiprocessing.shared_memory" not in sys.modules:
        return None
    from multiprocessing.resource_tracker import getfd

    return getfd()


def join_parent(owners_key: bytes, owners_tracker: int | None) -> None:
    """Take over in a worker what its owner has."""
    from multiprocessing import process

    process.current_process().authkey = owners_key
    if owners_tracker is not None:
        from multiprocessing import resource_tracker

        trackers: Any = resource_tracker
        trackers._resource_tracker._fd = owners_tracker  # as multiprocessing's own children do
