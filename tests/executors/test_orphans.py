"""A worker waits for zombies that nobody else will wait for, and for no others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from paropt_exporter.executors.worker.orphans import LOOK_SECONDS, Orphans
from support.pool_tasks import eventually
from support.processes import is_alive


def dead_child() -> int:
    """Return a child that has ended and that no object knows."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    assert eventually(lambda: not is_alive(pid))
    return pid


def test_a_zombie_that_nobody_knows_is_waited_for_at_the_second_look() -> None:
    orphans, pid = Orphans(), dead_child()
    assert not orphans.reap(0.0)
    assert Path(f"/proc/{pid}").exists()
    assert orphans.due_seconds == LOOK_SECONDS
    assert orphans.reap(LOOK_SECONDS)
    assert not Path(f"/proc/{pid}").exists()


def test_the_child_of_a_popen_object_is_left_to_it() -> None:
    orphans, child = Orphans(), subprocess.Popen(["false"])
    assert eventually(lambda: not is_alive(child.pid))
    orphans.reap(0.0)
    assert not orphans.reap(LOOK_SECONDS)
    assert child.wait() == 1


def test_a_child_that_lives_is_left_alone() -> None:
    orphans = Orphans()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        orphans.reap(0.0)
        assert not orphans.reap(LOOK_SECONDS)
        assert child.poll() is None
