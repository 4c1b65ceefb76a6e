"""Locks show that a run's process is alive."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

from paropt_exporter.history.run_lock import RunLocks


def test_a_run_is_locked_when_no_descriptor_is_left(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path / "runs")
    locks.reserve_descriptor()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        locks.acquire("r1")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        locks.release_all()
