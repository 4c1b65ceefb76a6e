"""The folder of a process for reports: folders of killed processes are removed, all others stay."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from paropt_exporter.engine.temporary_folder import TemporaryFolder

PREFIX = "paropt-test-"
HOLD = f"""
from paropt_exporter.engine.temporary_folder import TemporaryFolder
folder = TemporaryFolder({PREFIX!r})
(folder.path / "1.xml").touch()
print(folder.path, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_folder_of_a_killed_process_is_removed_and_that_of_a_live_one_stays() -> None:
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        first = TemporaryFolder(PREFIX)
        assert theirs.exists()
        other.kill()
        other.wait()
        second = TemporaryFolder(PREFIX)
    assert not theirs.exists()
    assert first.path.exists()
    for folder in (first, second):
        folder.close()
        assert not folder.path.exists()


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    """Links, files, and folders that others may write to are none of its own kind."""
    (tmp_path / "target").mkdir(mode=0o700)
    (tmp_path / f"{PREFIX}link").symlink_to("target")
    (tmp_path / f"{PREFIX}file").touch()
    (tmp_path / f"{PREFIX}open").mkdir(mode=0o755)
    (tmp_path / "paropt-other").mkdir(mode=0o700)
    before = sorted(tmp_path.iterdir())
    TemporaryFolder(PREFIX).close()
    assert sorted(tmp_path.iterdir()) == before


def test_new_folder_that_another_process_is_about_to_remove_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process has locked it before its owner could, and removes it a moment later."""
    make, taken = tempfile.mkdtemp, list[int]()

    def make_and_lock(prefix: str, dir: Path) -> str:  # noqa: A002 -- mkdtemp's name
        path = make(prefix=prefix, dir=dir)
        if not taken:
            taken.append(os.open(path, os.O_RDONLY))
            fcntl.flock(taken[0], fcntl.LOCK_EX)
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lock)
    folder = TemporaryFolder(PREFIX)
    (other,) = set(tmp_path.iterdir()) - {folder.path}
    os.close(taken[0])
    assert other.exists()
    folder.close()


def test_descriptor_that_a_call_has_closed_does_not_fail_the_end() -> None:
    folder = TemporaryFolder(PREFIX)
    os.closerange(folder.descriptor, folder.descriptor + 1)
    folder.close()
    assert not folder.path.exists()


def test_folder_without_write_permission_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(OSError, match="No such file"):
        TemporaryFolder(PREFIX)
