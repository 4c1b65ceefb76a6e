"""Gives a worker the multiprocessing state of its parent process: its authentication key and its resource tracker."""

from __future__ import annotations

import sys
from typing import Any


def get_authkey() -> bytes:
    """Return the key to this process's managers and shared descriptors, or b"" if multiprocessing is not in use."""
    process = sys.modules.get("multiprocessing.process")
    return bytes(process.current_process().authkey) if process is not None else b""


def get_tracker() -> int | None:
    """Return the pipe to this process's resource tracker, or None if it shares no memory.

    Without it a worker that attaches a block of shared memory would start its own tracker, which removes the block
    when the worker exits.
    """
    if "multiprocessing.shared_memory" not in sys.modules:
        return None
    from multiprocessing.resource_tracker import getfd

    return getfd()


def join_parent(parent_key: bytes, parent_tracker: int | None) -> None:
    """Take over the parent's key and tracker in a worker."""
    from multiprocessing import process

    process.current_process().authkey = parent_key
    if parent_tracker is not None:
        from multiprocessing import resource_tracker

        trackers: Any = resource_tracker
        trackers._resource_tracker._fd = parent_tracker  # as multiprocessing's own children do
