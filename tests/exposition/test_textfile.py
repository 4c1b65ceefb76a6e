"""The file for node_exporter is complete, readable and has a name of its own."""

from __future__ import annotations

import os
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paropt_exporter.errors import DeliveryError, UsageError
from paropt_exporter.exposition import sinks

SUCCESS = (
    b"# TYPE paropt_run_last_success_timestamp_seconds gauge\n"
    b'paropt_run_last_success_timestamp_seconds{lane="docs",project="shop"} 1.5e+09\n'
)


@pytest.fixture
def umask_077() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_file_can_be_read_by_others_whatever_the_umask(tmp_path: Path, umask_077: None) -> None:
    path = tmp_path / "a.prom"
    sinks.write_textfile(path, b"a 1\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.prom"]


def test_each_lane_of_each_project_has_its_own_name(tmp_path: Path) -> None:
    places = [("a", "b"), ("a", "c"), ("a b", "c"), ("a_b", "c"), ("a", "b_c"), ("../a", "ü")]
    names = [sinks.build_textfile_path(tmp_path, project=project, lane=lane).name for project, lane in places]
    assert len(set(names)) == len(names)
    assert all(name.endswith(".prom") and "/" not in name and not name.startswith(".") for name in names)


def test_names_that_are_too_long_for_a_file_are_cut_and_stay_different(tmp_path: Path) -> None:
    long = "обработка-данных-" * 4
    paths = [sinks.build_textfile_path(tmp_path, project=long, lane=lane) for lane in (f"{long}1", f"{long}2")]
    for path in paths:
        sinks.write_textfile(path, SUCCESS)
    assert sorted(tmp_path.glob("paropt_*.prom")) == sorted(paths)
    assert len(set(paths)) == 2


@pytest.mark.parametrize("folder", ["gone", "file", "/proc"])
def test_a_folder_that_can_not_be_written_to_is_a_usage_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write a file there"):
        sinks.check_textfile_folder(tmp_path / folder)


def test_a_page_without_a_last_success_keeps_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    sinks.write_textfile(path, SUCCESS)
    sinks.write_textfile(path, b"a 2\n")
    assert path.read_bytes() == b"a 2\n" + SUCCESS
    newer = SUCCESS.replace(b"1.5e", b"1.6e")
    sinks.write_textfile(path, newer)
    assert path.read_bytes() == newer


def test_help_texts_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    sinks.write_textfile(path, b"# HELP a Help.\n# TYPE a gauge\na 1\n")
    assert path.read_bytes() == b"# TYPE a gauge\na 1\n"


def test_an_unwritable_file_is_an_error_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    path.mkdir()  # even root can't rename a file over a folder
    with pytest.raises(DeliveryError, match="cannot write"):
        sinks.write_textfile(path, b"a 1\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.prom"]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_a_file(path: Path) -> None:
    (path.parent / "target").write_bytes(SUCCESS)
    path.symlink_to("target")


def socket_file(path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("place", [pipe, endless, link_to_a_file, socket_file])
def test_anything_but_a_regular_file_is_replaced_unread(tmp_path: Path, place: Callable[[Path], None]) -> None:
    path = tmp_path / "a.prom"
    place(path)
    sinks.write_textfile(path, b"a 1\n")
    assert path.read_bytes() == b"a 1\n"
    assert not path.is_symlink()


def test_a_file_of_endless_lines_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    with path.open("wb") as file:
        file.truncate(200_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + SUCCESS)
    tracemalloc.start()
    try:
        sinks.write_textfile(path, b"a 1\n")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert path.read_bytes() == b"a 1\n" + SUCCESS
