"""This repository's own lane: what a change of one file runs, and that CI never takes a result from the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support import projects
from support.real_servers import run

ROOT = Path(__file__).parents[2]
_PARTS = ("exporter", "tests", "benchmarks", "deploy", ".ci", "pyproject.toml", "paropt.yml")
_PROGRAMS = ("ruff", "mypy", "pytest", "bandit", "paropt-exporter")
# What `make test` may do with the command: nothing of it runs a lane.
_HARMLESS = re.compile(r"paropt-exporter (--version|generate|init|check)\b")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a copy of the repository whose programs do nothing."""
    for name in _PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".paropt"))
        else:
            shutil.copy(source, tmp_path / name)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in _PROGRAMS:
        (tmp_path / ".venv/bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    return tmp_path


def test_after_a_change_of_one_test_file_only_its_group_runs_and_says_why(repository: Path) -> None:
    first = run(repository, "--once", projects.ANY_PORT)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "5 stages, 5 cached" in run(repository, "--once", projects.ANY_PORT).stdout
    path = repository / "tests/cli/test_color.py"
    path.write_text(f"{path.read_text()}\n")
    again = run(repository, "--once", projects.ANY_PORT)
    assert "5 of 6 items unchanged; tests/cli/test_color.py changed" in again.stdout
    for stage in ("quality_gates", "type_checking"):  # they read it too
        assert re.search(rf"{stage} .*tests/cli/test_color.py changed", again.stdout)
    for stage in ("integration_tests", "security_scan"):
        assert re.search(rf"{stage} +cached", again.stdout)


def test_ci_takes_no_result_from_the_cache() -> None:
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "make test"
    hidden = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    listed = subprocess.run(
        ["make", "-n", "test"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    words = re.findall(r"bin/paropt-exporter[^&;|\\]*", listed.stdout)
    assert words and all(_HARMLESS.search(each) or "--no-cache" in each for each in words)
