"""`make dist`: the same bytes for the same commit, and nothing in them that should not be published."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from paropt_exporter._version import __version__

ROOT = Path(__file__).parents[2]
SDIST, WHEEL = f"paropt_exporter-{__version__}.tar.gz", f"paropt_exporter-{__version__}-py3-none-any.whl"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_sdist_and_a_wheel_are_built(dist: Path) -> None:
    assert contents(dist).keys() == {SDIST, WHEEL}


def test_another_folder_umask_and_time_zone_give_the_same_bytes(
    dist: Path, build: Callable[..., Path], tmp_path: Path
) -> None:
    again = build(tmp_path / "elsewhere", umask=0o077, TZ="Pacific/Auckland", LC_ALL="C", PYTHONHASHSEED="7")
    assert contents(again) == contents(dist)


def test_the_sdist_has_every_file_of_the_repository(dist: Path, tracked: tuple[str, ...]) -> None:
    with tarfile.open(dist / SDIST) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names == {*tracked, "PKG-INFO"}


def test_the_wheel_has_the_package_and_nothing_besides(dist: Path, tracked: tuple[str, ...]) -> None:
    with zipfile.ZipFile(dist / WHEEL) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {path.removeprefix("exporter/") for path in tracked if path.startswith("exporter/")}
    assert names == package
    assert "paropt_exporter/py.typed" in names


def test_files_have_the_time_that_the_environment_sets(build: Callable[..., Path], tmp_path: Path) -> None:
    with tarfile.open(build(tmp_path / "tree", SOURCE_DATE_EPOCH="1700000000") / SDIST) as archive:
        assert {member.mtime for member in archive.getmembers()} == {1700000000}


@pytest.mark.parametrize(
    "folder", ["deploy", "docs", "exporter", "README.md", "pyproject.toml", "Makefile", "Dockerfile"]
)
def test_only_one_file_says_which_version_it_is(folder: str, tracked: tuple[str, ...]) -> None:
    ours = re.compile(rb"(?<![\d.])" + re.escape(__version__.encode()) + rb"(?![\d.])")
    texts = [path for path in tracked if path == folder or path.startswith(f"{folder}{os.sep}")]
    assert texts
    found = {path for path in texts if ours.search((ROOT / path).read_bytes())}
    assert found <= {"exporter/paropt_exporter/_version.py"}
