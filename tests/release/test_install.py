"""The CI snippets install what the user names, and nothing that a stranger may have published under our name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter._version import __version__
from support.yaml_documents import load_yaml

ROOT = Path(__file__).parents[2]
GITHUB: dict[str, Any] = load_yaml((ROOT / "deploy/ci/github.yml").read_text())
GITLAB: dict[str, Any] = load_yaml((ROOT / "deploy/ci/gitlab-ci.yml").read_text())
(GITHUB_STEP,) = (step for step in GITHUB["jobs"]["checks"]["steps"] if step.get("name") == "install")
SCRIPTS = {"github": GITHUB_STEP["run"], "gitlab": GITLAB[".paropt"]["before_script"][0]}
every_script = pytest.mark.parametrize("which", SCRIPTS)


def run(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an install step as a runner's shell does, with the Python of these tests."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(
        command, env=os.environ | {"PATH": path} | env, capture_output=True, text=True, check=False, timeout=100
    )


@every_script
def test_a_wheel_is_installed_from_its_path(which: str, dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_TARGET": str(tmp_path / "site"), "PIP_INDEX_URL": ""}
    offline["PIP_NO_COMPILE"] = "1"  # most of its CPU time
    ended = run(SCRIPTS[which], PAROPT_PACKAGE=str(wheel), **offline)
    assert ended.returncode == 0, ended.stderr
    assert __version__ in (tmp_path / "site/paropt_exporter/_version.py").read_text()


@every_script
def test_without_a_package_the_step_fails_and_says_what_to_set(which: str) -> None:
    ended = run(SCRIPTS[which], PAROPT_PACKAGE="")
    assert ended.returncode != 0
    assert "PAROPT_PACKAGE: set this variable to a wheel" in ended.stderr


def test_no_page_installs_the_name_from_an_index() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.*"), ROOT / "Dockerfile"]
    texts = {page: page.read_text() for page in pages if page.is_file()}
    by_name = re.compile(r"pipx? install[^\n]*\s['\"]?paropt-exporter\b")
    assert [str(page) for page, text in texts.items() if by_name.search(text)] == []
