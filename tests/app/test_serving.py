"""`serve` in this process: the failures that end it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from paropt_exporter.app import serving
from paropt_exporter.app.serving import FolderLock, FolderSocket, OtherServe
from paropt_exporter.errors import ParoptError, UsageError
from paropt_exporter.serve import runtime_folder
from paropt_exporter.serve.fair_shares import Machine
from support.real_servers import HANG_SECONDS


def test_serve_ends_when_the_thread_of_its_runs_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A `serve` that no longer answers runs must end, so that systemd starts it again."""

    def read_machine() -> Machine:
        if threading.current_thread() is not threading.main_thread():
            raise OSError("no such cgroup")
        return Machine(2.0)

    monkeypatch.setattr(serving, "_read_machine", read_machine)
    end = threading.Timer(HANG_SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
    end.start()
    request = serving.ServeRequest(addresses=("127.0.0.1:0",))
    with pytest.raises(ParoptError, match="the thread paropt-serve has failed") as raised:
        serving.serve_projects(request, {"PAROPT_SERVE": str(tmp_path / "runtime")}, lambda _: None)
    end.cancel()
    assert raised.value.exit_code == 3
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["no such cgroup"]


def test_serve_whose_folder_another_one_has_taken_names_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It told its user to start `serve` again, which is refused as long as the other one lives."""
    end = threading.Timer(HANG_SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
    end.start()
    with ExitStack() as other:

        def take_folder(_: str) -> None:
            (tmp_path / "serve.lock").unlink()
            (tmp_path / "serve.sock").unlink()
            other.enter_context(FolderLock(tmp_path / "serve.lock"))

        request = serving.ServeRequest(addresses=("127.0.0.1:0",))
        with pytest.raises(ParoptError, match=rf"another .* \(pid {os.getpid()}\) .*, so this one ends") as raised:
            serving.serve_projects(request, {"PAROPT_SERVE": str(tmp_path)}, take_folder)
    end.cancel()
    assert raised.value.exit_code == 3
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_lock_that_was_removed_is_taken_again(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "serve.lock") as lock:
        (tmp_path / "serve.lock").unlink()
        lock.retake_if_gone()
        with pytest.raises(OtherServe, match="another"), FolderLock(tmp_path / "serve.lock"):
            pass


def test_file_system_without_locks_is_not_another_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UsageError, match="No locks available: set PAROPT_SERVE"), FolderLock(tmp_path / "serve.lock"):
        pass


def test_serve_that_has_lost_its_folder_to_another_one_leaves_it_alone(tmp_path: Path) -> None:
    runtime_folder.make_folder(tmp_path)
    with ExitStack() as others:
        with FolderLock(tmp_path / "serve.lock") as lost:
            ours = FolderSocket(tmp_path, lost)
            others.enter_context(ours.open())
            (tmp_path / "serve.lock").unlink()
            other = others.enter_context(FolderLock(tmp_path / "serve.lock"))
            others.enter_context(FolderSocket(tmp_path, other).open())
            with pytest.raises(OtherServe):
                ours.reopen_if_gone()
        assert runtime_folder.identify_socket(tmp_path) is not None


def test_folder_that_can_not_be_made_again_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "user" / "paropt-exporter"
    runtime_folder.make_folder(folder)
    with FolderLock(folder / "serve.lock") as lock:
        ours = FolderSocket(folder, lock)
        with ours.open():
            shutil.rmtree(tmp_path / "user")
            (tmp_path / "user").touch()
            assert [ours.reopen_if_gone() for _ in range(3)] == [None] * 3
    assert [record.message for record in caplog.records] == ["runs can't find this process: its socket is gone"]
