"""`make dist`: the same bytes for the same commit, and nothing in them that should not be published.

The CI snippets install it, and nothing that a stranger may have published under our name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from paropt_exporter._version import __version__
from support.yaml_documents import load_yaml

ROOT = Path(__file__).parents[2]
SBOM, SUMS = f"paropt_exporter-{__version__}.cdx.json", "SHA256SUMS"
SDIST, WHEEL = f"paropt_exporter-{__version__}.tar.gz", f"paropt_exporter-{__version__}-py3-none-any.whl"
GITHUB: dict[str, Any] = load_yaml((ROOT / "deploy/ci/github.yml").read_text())
GITLAB: dict[str, Any] = load_yaml((ROOT / "deploy/ci/gitlab-ci.yml").read_text())
(GITHUB_STEP,) = (step for step in GITHUB["jobs"]["checks"]["steps"] if step.get("name") == "install")
SCRIPTS = {"github": GITHUB_STEP["run"], "gitlab": GITLAB[".paropt"]["before_script"][0]}
every_script = pytest.mark.parametrize("which", SCRIPTS)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_sdist_a_wheel_an_sbom_and_their_sums_are_built(dist: Path) -> None:
    assert contents(dist).keys() == {SDIST, WHEEL, SBOM, SUMS}


def test_sums_are_those_of_the_other_files(dist: Path) -> None:
    files = contents(dist)
    listed = files.pop(SUMS).decode().splitlines()
    assert listed == sorted(
        (f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in files.items()),
        key=lambda line: line.split()[1],
    )


def test_another_time_folder_umask_locale_and_time_zone_give_the_same_bytes(
    dist: Path, build: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere, with a löng näme"
    odd = {"TZ": "Pacific/Auckland", "LC_ALL": "C", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "7", "HOME": str(tmp_path)}
    again = build(folder, umask=0o077, modified_seconds=1_000_000_000, **odd)
    assert contents(again) == contents(dist)


def test_the_sbom_lists_exactly_what_the_lock_pins(dist: Path) -> None:
    lock = re.sub(r"\\\n +", "", (ROOT / "requirements.lock").read_text())
    pinned = {}
    for line in (each for each in lock.splitlines() if "==" in each):
        name, version = line.split()[0].split("==")
        pinned[name, version] = {*re.findall(r"--hash=sha256:(\S+)", line)}
    sbom = json.loads(contents(dist)[SBOM])
    listed = {
        (each["name"], each["version"]): {found["content"] for found in each["hashes"]} for each in sbom["components"]
    }
    assert len(pinned) > 50
    assert listed == pinned
    assert (sbom["metadata"]["component"]["name"], sbom["metadata"]["component"]["version"]) == (
        "paropt-exporter",
        __version__,
    )


def test_the_sbom_is_valid_and_lists_what_users_install(dist: Path) -> None:
    text = contents(dist)[SBOM].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    scopes = {each["name"]: each["scope"] for each in json.loads(text)["components"]}
    direct = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {scopes[canonicalize_name(re.split("[<>=]", each)[0])] for each in direct} == {"required"}
    assert (scopes["pydantic-core"], scopes["distributed"], scopes["pytest"]) == ("required", "optional", "excluded")
    assert all(each["licenses"] for each in json.loads(text)["components"])


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


def test_files_have_the_time_that_the_environment_sets(dist: Path, committed_seconds: int) -> None:
    with tarfile.open(dist / SDIST) as archive:
        assert {member.mtime for member in archive.getmembers()} == {committed_seconds}


@pytest.mark.parametrize(
    "folder", ["deploy", "docs", "exporter", "README.md", "pyproject.toml", "Makefile", "Dockerfile"]
)
def test_only_one_file_says_which_version_it_is(folder: str, tracked: tuple[str, ...]) -> None:
    ours = re.compile(rb"(?<![\d.])" + re.escape(__version__.encode()) + rb"(?![\d.])")
    texts = [path for path in tracked if path == folder or path.startswith(f"{folder}{os.sep}")]
    assert texts
    found = {path for path in texts if ours.search((ROOT / path).read_bytes())}
    assert found <= {"exporter/paropt_exporter/_version.py"}


def run_step(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an install step as a runner's shell does, with the Python of these tests."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(
        command, env=os.environ | {"PATH": path} | env, capture_output=True, text=True, check=False, timeout=100
    )


def write_small_wheel(folder: Path) -> Path:
    """Write a wheel of our name with one module: `make wheel` installs the real one, with 330."""
    wheel, info = folder / WHEEL, f"paropt_exporter-{__version__}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("paropt_exporter/_version.py", f'__version__ = "{__version__}"\n')
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: paropt-exporter\nVersion: {__version__}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@every_script
def test_a_wheel_is_installed_from_its_path(which: str, tmp_path: Path) -> None:
    wheel = write_small_wheel(tmp_path)
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_TARGET": str(tmp_path / "site"), "PIP_INDEX_URL": ""}
    offline["PIP_NO_COMPILE"] = "1"  # most of its CPU time
    ended = run_step(SCRIPTS[which], PAROPT_PACKAGE=str(wheel), **offline)
    assert ended.returncode == 0, ended.stderr
    assert __version__ in (tmp_path / "site/paropt_exporter/_version.py").read_text()


@every_script
def test_without_a_package_the_step_fails_and_says_what_to_set(which: str) -> None:
    ended = run_step(SCRIPTS[which], PAROPT_PACKAGE="")
    assert ended.returncode != 0
    assert "PAROPT_PACKAGE: set this variable to a wheel" in ended.stderr


def test_no_page_installs_the_name_from_an_index() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.*"), ROOT / "Dockerfile"]
    texts = {page: page.read_text() for page in pages if page.is_file()}
    by_name = re.compile(r"pipx? install(?!.* --no-index )[^\n]* ['\"]?paropt-exporter\b")
    assert [str(page) for page, text in texts.items() if by_name.search(text)] == []
