"""Files are opened only if they are regular, and never through a link below `.paropt`."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from paropt_exporter import files
from paropt_exporter.files import UnexpectedFileType


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, make_socket, make_device_link, Path.mkdir])
def test_only_regular_files_are_read(tmp_path: Path, make: object) -> None:
    path = tmp_path / "unexpected"
    make(path)  # type: ignore[operator]  # each takes a path
    with pytest.raises(UnexpectedFileType) as caught:
        files.read_start(path, limit_bytes=10)
    assert (caught.value.strerror, caught.value.filename) == ("not a regular file", str(path))


def test_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.check_regular(tmp_path / "missing")


def test_links_are_followed_unless_the_caller_forbids_it(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("content")
    link.symlink_to(target)
    assert files.read_start(link, limit_bytes=4) == b"cont"
    with pytest.raises(UnexpectedFileType, match="a link, which is not followed here"):
        files.open_for_reading(link, follow_links=False)


def test_synced_file_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power failure can otherwise leave an empty paropt.yml where the old one was."""
    path, synced = tmp_path / "paropt.yml", list[tuple[int, bool]]()

    def sync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    files.replace_file(path, b"new", sync=True)
    assert synced == [(3, False)]
    files.replace_file(path, b"newer")
    assert len(synced) == 1


def test_links_below_the_private_folder_are_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("content")
    link = tmp_path / files.OWN_FOLDER / "link"
    files.make_folder(link.parent)
    link.symlink_to(outside)
    with pytest.raises(UnexpectedFileType):
        files.read_file(link, 100)
    files.replace_file(link, b"new")
    assert (outside.read_text(), link.read_text(), link.is_symlink()) == ("content", "new", False)


def test_error_of_a_replacement_names_the_file_alone(tmp_path: Path) -> None:
    """It ended in "-> None", or named the temporary file."""
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError) as of_rename:
        files.replace_file(path, b"new")
    with pytest.raises(OSError) as of_open:
        files.replace_file(tmp_path / ("x" * 255), b"new")  # the temporary file's name is longer
    assert str(of_rename.value) == f"[Errno 21] Is a directory: '{path}'"
    assert str(of_open.value) == f"[Errno 36] File name too long: '{tmp_path / ('x' * 255)}'"


def test_file_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"12345")
    assert files.read_file(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes") as caught:
        files.read_file(path, 4)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize(
    ("history", "place"), [(".paropt/history.db", ".paropt/functions.json"), ("a/h.db", "a/h.db.functions.json")]
)
def test_files_of_a_history_have_its_name_where_others_may_be_the_users(history: str, place: str) -> None:
    assert files.find_beside(Path(history), "functions.json") == Path(place)


def test_private_folder_is_closed_to_other_users(tmp_path: Path) -> None:
    folder = tmp_path / files.OWN_FOLDER / "runs"
    folder.parent.mkdir(0o755)
    files.make_folder(folder)
    assert [part.stat().st_mode & 0o777 for part in (folder.parent, folder)] == [0o700, 0o700]


def test_link_that_takes_the_place_of_a_private_folder_meanwhile_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, victim = tmp_path / ".paropt", tmp_path / "victim"
    victim.mkdir()
    victim.chmod(0o755)

    def look_too_early(_: Path) -> None:
        own.unlink(missing_ok=True)
        own.symlink_to(victim)

    monkeypatch.setattr(files, "check_no_links", look_too_early)
    with pytest.raises(files.UnexpectedFileType, match=str(own)):
        files.make_folder(own)
    with pytest.raises(files.UnexpectedFileType, match=str(own)):
        files.replace_file(own / "new", b"content")
    with pytest.raises(files.UnexpectedFileType, match=str(own)):
        files.open_regular(own / "new", os.O_WRONLY | os.O_CREAT)
    assert (victim.stat().st_mode & 0o777, [*victim.iterdir()]) == (0o755, [])


def test_lock_whose_folder_is_removed_meanwhile_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / ".paropt" / "runs" / "r1.lock"
    open_lock = files.open_lock

    def remove_folder(path: Path) -> int:
        monkeypatch.undo()
        lock.parent.rmdir()
        return open_lock(path)

    monkeypatch.setattr(files, "open_lock", remove_folder)
    os.close(files.create_lock(lock))
    assert lock.exists()
