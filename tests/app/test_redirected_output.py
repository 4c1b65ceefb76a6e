"""Log files that are rotated while the exporter writes to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from paropt_exporter.app.redirected_output import RedirectedOutput


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exporter.log"


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    """A descriptor like those of a shell's `> exporter.log`, which don't append."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT, 0o640)
    yield opened
    os.close(opened)


def test_moved_file_is_created_again_with_its_mode(path: Path, descriptor: int) -> None:
    output = RedirectedOutput([descriptor])
    os.write(descriptor, b"before\n")
    moved = path.rename(path.with_name("exporter.log.1"))
    os.write(descriptor, b"between\n")
    output.follow()
    os.write(descriptor, b"after\n")
    assert moved.read_text() == "before\nbetween\n"
    assert path.read_text() == "after\n"
    assert path.stat().st_mode & 0o777 == 0o640 & ~read_umask()


def read_umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def test_file_that_the_rotator_created_is_continued(path: Path, descriptor: int) -> None:
    output = RedirectedOutput([descriptor])
    path.rename(path.with_name("exporter.log.1"))
    path.write_text("rotated\n")
    output.follow()
    os.write(descriptor, b"after\n")
    assert path.read_text() == "rotated\nafter\n"


def test_deleted_file_is_created_again(path: Path, descriptor: int) -> None:
    output = RedirectedOutput([descriptor])
    path.unlink()
    output.follow()
    os.write(descriptor, b"after\n")
    assert path.read_text() == "after\n"


def test_truncated_file_goes_on_without_a_hole(path: Path, descriptor: int) -> None:
    output = RedirectedOutput([descriptor])
    os.write(descriptor, b"before\n" * 1000)
    os.truncate(path, 0)
    output.follow()
    os.write(descriptor, b"after\n")
    assert path.read_bytes() == b"after\n"


def test_file_that_stays_is_left_alone(path: Path, descriptor: int) -> None:
    output, before = RedirectedOutput([descriptor]), path.stat()
    output.follow()
    assert os.path.samestat(os.fstat(descriptor), before)


def test_two_descriptors_of_one_file_stay_together(path: Path, descriptor: int) -> None:
    other = os.dup(descriptor)
    try:
        output = RedirectedOutput([descriptor, other])
        path.rename(path.with_name("exporter.log.1"))
        output.follow()
        os.write(descriptor, b"one\n")
        os.write(other, b"two\n")
    finally:
        os.close(other)
    assert path.read_text() == "one\ntwo\n"


@pytest.mark.parametrize("lost", [0, 1])
def test_output_that_was_discarded_goes_to_its_file_again(path: Path, descriptor: int, lost: int) -> None:
    """`discard_output` does so after an error, such as a full disk."""
    both = (descriptor, os.dup(descriptor))
    try:
        output = RedirectedOutput(both)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, both[lost])
        os.close(nowhere)
        output.follow()
        for each in both:
            os.write(each, b"after\n")
    finally:
        os.close(both[1])
    assert path.read_text() == "after\nafter\n"


@pytest.mark.parametrize("trap", ["link", "pipe", "folder"])
def test_anything_else_in_the_files_place_is_not_written(
    path: Path, descriptor: int, trap: str, caplog: pytest.LogCaptureFixture
) -> None:
    output = RedirectedOutput([descriptor])
    moved, victim = path.rename(path.with_name("exporter.log.1")), path.with_name("victim")
    victim.write_text("mine\n")
    if trap == "link":
        path.symlink_to(victim)
    elif trap == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    output.follow()
    output.follow()
    os.write(descriptor, b"after\n")
    assert victim.read_text() == "mine\n"
    assert moved.read_text() == "after\n"
    assert caplog.text.count("can't be created again") == 1


def test_pipes_and_closed_descriptors_are_left_alone(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    gone = os.open(tmp_path, os.O_RDONLY)
    os.close(gone)
    try:
        RedirectedOutput([writing, gone]).follow()
        os.write(writing, b"x")
        assert os.read(reading, 9) == b"x"
    finally:
        os.close(reading)
        os.close(writing)
