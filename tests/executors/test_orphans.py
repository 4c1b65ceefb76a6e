"""A worker reaps the zombies that have no owner, and no others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from paropt_exporter.executors.worker.orphans import LOOK_SECONDS, Orphans
from support.pool_tasks import eventually
from support.processes import is_alive


def dead_child() -> int:
    """Return the pid of a child that has exited and has no Popen object."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    assert eventually(lambda: not is_alive(pid))
    return pid


def test_unowned_zombie_is_reaped_at_the_second_call() -> None:
    orphans, pid = Orphans(), dead_child()
    assert not orphans.reap(0.0)
    assert Path(f"/proc/{pid}").exists()
    assert orphans.due_seconds == LOOK_SECONDS
    assert orphans.reap(LOOK_SECONDS)
    assert not Path(f"/proc/{pid}").exists()


def test_child_of_a_popen_object_is_not_reaped() -> None:
    orphans, child = Orphans(), subprocess.Popen(["false"])
    assert eventually(lambda: not is_alive(child.pid))
    orphans.reap(0.0)
    assert not orphans.reap(LOOK_SECONDS)
    assert child.wait() == 1


def test_live_child_is_not_reaped() -> None:
    orphans = Orphans()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        orphans.reap(0.0)
        assert not orphans.reap(LOOK_SECONDS)
        assert child.poll() is None
