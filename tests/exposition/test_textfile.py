"""The file for node_exporter: whole, readable, alone in its name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from paropt_exporter.errors import DeliveryError, UsageError
from paropt_exporter.exposition import textfile

SUCCESS = (
    b"# HELP paropt_run_last_success_timestamp_seconds When.\n"
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
    textfile.write(path, b"a 1\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.prom"]


def test_each_lane_of_each_project_has_its_own_name(tmp_path: Path) -> None:
    places = [("a", "b"), ("a", "c"), ("a b", "c"), ("a_b", "c"), ("../a", "ü")]
    names = [textfile.path_for(tmp_path, project=project, lane=lane).name for project, lane in places]
    assert len(set(names)) == len(names)
    assert all(name.endswith(".prom") and "/" not in name and not name.startswith(".") for name in names)


@pytest.mark.parametrize("folder", ["gone", "file", "/proc"])
def test_a_folder_that_can_not_be_written_to_is_a_usage_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no file can be written there"):
        textfile.path_for(tmp_path / folder, project="a", lane="b")


def test_a_page_without_a_last_success_keeps_the_one_that_the_file_knows(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    textfile.write(path, SUCCESS)
    textfile.write(path, b"a 2\n")
    assert path.read_bytes() == b"a 2\n" + SUCCESS
    newer = SUCCESS.replace(b"1.5e", b"1.6e")
    textfile.write(path, newer)
    assert path.read_bytes() == newer


def test_a_file_that_can_not_be_written_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    path.mkdir()  # even root can't rename a file over a folder
    with pytest.raises(DeliveryError, match="cannot write"):
        textfile.write(path, b"a 1\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.prom"]
