"""Events of files arrive, whatever the files are called."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from paropt_exporter.app.watching import FileEvents

_SECONDS = 30.0


def test_name_that_is_not_utf_8_ends_no_watch(tmp_path: Path) -> None:
    bursts, said = threading.Semaphore(0), list[str]()
    with FileEvents(str(tmp_path), lambda _: False, bursts.release, said.append):
        for name in (b"first.py", b"caf\xe9.py", b"after.py"):
            (tmp_path / os.fsdecode(name)).touch()
            assert bursts.acquire(timeout=_SECONDS), name
    assert said == []


def test_pending_scan_is_made_without_an_event(tmp_path: Path) -> None:
    scans = threading.Semaphore(0)
    with FileEvents(str(tmp_path), lambda _: False, scans.release, list[str]().append, is_pending=lambda: True):
        assert scans.acquire(timeout=_SECONDS / 2)  # before the scan that follows each 30 s
