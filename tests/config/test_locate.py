"""Which config file is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter.config import discover
from paropt_exporter.errors import UsageError


def test_the_flag_wins_over_the_environment_and_that_over_the_folder(tmp_path: Path) -> None:
    for name in ("paropt.yml", "flag.yml", "variable.yml"):
        (tmp_path / name).touch()
    variable = {"PAROPT_CONFIG_FILE": str(tmp_path / "variable.yml")}
    assert discover(str(tmp_path / "flag.yml"), variable, folder=tmp_path) == tmp_path / "flag.yml"
    assert discover(None, variable, folder=tmp_path) == tmp_path / "variable.yml"
    assert discover(None, {}, folder=tmp_path) == tmp_path / "paropt.yml"


def test_no_file_is_no_fault_and_the_other_spelling_is_found(tmp_path: Path) -> None:
    assert discover(None, {"PAROPT_CONFIG_FILE": ""}, folder=tmp_path) is None
    (tmp_path / "paropt.yaml").touch()
    assert discover(None, {}, folder=tmp_path) == tmp_path / "paropt.yaml"


def test_two_files_are_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "paropt.yaml").touch()
    (tmp_path / "paropt.yml").touch()
    with pytest.raises(UsageError, match="remove one"):
        discover(None, {}, folder=tmp_path)


@pytest.mark.parametrize("named", ["missing.yml", "", "a\0b"])
def test_a_file_that_was_named_must_be_there(tmp_path: Path, named: str) -> None:
    with pytest.raises(UsageError, match=r"--config.file: there is no file"):
        discover(named, {}, folder=tmp_path)
