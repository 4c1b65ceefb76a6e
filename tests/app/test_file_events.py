"""Events of files arrive, whatever the files are called."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.app.file_events import FileEvents

_SECONDS = 30.0


def test_name_that_is_not_utf_8_ends_no_watch(tmp_path: Path) -> None:
    bursts, said = threading.Semaphore(0), list[str]()
    with FileEvents(str(tmp_path), lambda _: False, lambda _: bursts.release(), said.append):
        assert bursts.acquire(timeout=_SECONDS)  # of the beginning
        for name in (b"first.py", b"caf\xe9.py", b"after.py"):
            (tmp_path / os.fsdecode(name)).touch()
            assert bursts.acquire(timeout=_SECONDS), name
    assert said == []


def test_pending_scan_is_made_without_an_event(tmp_path: Path) -> None:
    scans = threading.Semaphore(0)
    with FileEvents(
        str(tmp_path), lambda _: False, lambda _: scans.release(), list[str]().append, is_pending=lambda: True
    ):
        for _ in range(2):  # the first one follows the beginning
            assert scans.acquire(timeout=_SECONDS / 2)  # before the scan that follows each 30 s


def test_change_while_the_watches_were_set_up_is_looked_for(tmp_path: Path) -> None:
    scans = threading.Semaphore(0)

    def watch(*folders: str, **options: Any) -> Iterator[set[object]]:
        yield set()  # a timeout: the kernel sends events from now on
        options["stop_event"].wait()

    with FileEvents(str(tmp_path), lambda _: False, lambda _: scans.release(), list[str]().append, watch=watch):
        assert scans.acquire(timeout=_SECONDS)


def test_a_lane_starts_while_the_watches_are_set_up(tmp_path: Path) -> None:
    scans, lane_started = threading.Semaphore(0), threading.Event()

    def watch(*folders: str, **options: Any) -> Iterator[set[object]]:
        lane_started.wait()
        yield set()
        options["stop_event"].wait()

    with FileEvents(
        str(tmp_path),
        lambda _: False,
        lambda _: scans.release(),
        list[str]().append,
        poll_seconds=10 * _SECONDS,
        watch=watch,
    ):
        lane_started.set()
        assert scans.acquire(timeout=_SECONDS)


def test_pending_scan_is_made_without_an_event_where_the_kernel_sends_none(tmp_path: Path) -> None:
    """So a lock that a killed git left is waited for as long as with events."""
    scans = threading.Semaphore(0)

    def fail(*folders: str, **options: Any) -> Iterator[set[object]]:
        raise OSError("no inotify")

    with FileEvents(
        str(tmp_path),
        lambda _: False,
        lambda _: scans.release(),
        list[str]().append,
        is_pending=lambda: True,
        poll_seconds=10 * _SECONDS,
        watch=fail,
    ):
        assert scans.acquire(timeout=_SECONDS)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (OSError('OS file watch limit reached. about ["/home"] (Error { kind: MaxFilesWatch })'), 1),
        (RuntimeError("Error creating recommended watcher: Too many open files (os error 24)"), 3),
        (FileNotFoundError("a folder vanished"), 3),
    ],
)
def test_folder_without_events_is_checked_at_an_interval(tmp_path: Path, error: Exception, attempts: int) -> None:
    """The limit of inotify instances, which editors use up, is an error of another kind than that of watches."""
    scans, said, tried = threading.Semaphore(0), list[str](), list[dict[str, Any]]()

    def fail(*folders: str, **options: Any) -> Iterator[set[object]]:
        tried.append(options)
        raise error

    with FileEvents(
        str(tmp_path), lambda _: False, lambda _: scans.release(), said.append, poll_seconds=0.01, watch=fail
    ):
        assert all(scans.acquire(timeout=_SECONDS) for _ in range(3))
    reason = str(error).partition(". about")[0]
    assert said == [f"--watch: no file events ({reason}): checking every 0.01 s"]
    assert len(tried) == attempts


def test_folders_that_may_not_be_read_are_passed_over_only_if_there_are_some(tmp_path: Path) -> None:
    """If watchfiles passes over them, it reports no limit of watches, either."""
    scans, tried = threading.Semaphore(0), list[bool]()

    def deny(*folders: str, ignore_permission_denied: bool, **options: Any) -> Iterator[set[object]]:
        tried.append(ignore_permission_denied)
        if not ignore_permission_denied:
            raise PermissionError("secret")
        yield {"a.py"}
        options["stop_event"].wait()

    with FileEvents(str(tmp_path), lambda _: False, lambda _: scans.release(), list[str]().append, watch=deny):
        assert scans.acquire(timeout=_SECONDS)
    assert tried == [False, True]
