"""The variables that a cached stage sees, and those of them that are in its key."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter.plan.stage_environment import build_command_environment, select_keyed_variables
from support.cached_project import CachedProject


@pytest.fixture
def project(tmp_path: Path) -> CachedProject:
    return CachedProject(tmp_path / "project", tmp_path / "store", work={})


def test_variable_that_no_stage_asks_for_is_hidden(project: CachedProject) -> None:
    seen = build_command_environment(project.build_stage("lint"), {"PATH": "/bin", "LANG": "C", "SESSION": "7"})
    assert seen == {"PATH": "/bin", "LANG": "C", "TERM": "dumb"}


@pytest.mark.parametrize("cached", [True, False])
def test_virtual_environment_that_a_needed_stage_has_made_is_used(project: CachedProject, *, cached: bool) -> None:
    """In a fresh checkout, programs of `.venv` were not found, although a needed stage had just installed them."""
    environ = {"PATH": "/bin", "HOME": "/home/user"}
    tests = project.build_stage("tests", needs=("install",), cached=cached)
    alone, own_path = project.build_stage("alone", cached=cached), replace(tests, env={"PATH": "/opt"})
    keyed = select_keyed_variables(tests, environ)
    assert build_command_environment(tests, environ)["PATH"] == "/bin"
    (project.root / ".venv/bin").mkdir(parents=True)
    made = build_command_environment(tests, environ)
    assert (made["PATH"], made["VIRTUAL_ENV"]) == (f"{project.root}/.venv/bin:/bin", f"{project.root}/.venv")
    assert build_command_environment(alone, environ)["PATH"] == "/bin"
    assert build_command_environment(own_path, environ)["PATH"] == "/opt"
    assert select_keyed_variables(tests, environ) == keyed


def test_pattern_of_variables_takes_no_name_that_is_too_short(project: CachedProject) -> None:
    """Its beginning and its end may not overlap, as in fnmatch."""
    lint = project.build_stage("lint", pass_env=("A_*_B",))
    keyed = select_keyed_variables(lint, {"A_B": "1", "A__B": "2", "A_C_B": "3"})
    assert keyed == {"A__B": "2", "A_C_B": "3", "TERM": "dumb"}


def test_terminal_of_the_exporter_does_not_count(project: CachedProject) -> None:
    lint = project.build_stage("lint")
    keyed = [select_keyed_variables(lint, {"TERM": terminal}) for terminal in ("xterm", "screen")]
    assert keyed[0] == keyed[1]


def test_terminal_counts_for_a_stage_that_asks_for_it(project: CachedProject) -> None:
    lint = project.build_stage("lint", pass_env=("TERM",))
    assert select_keyed_variables(lint, {"TERM": "xterm"}) == {"TERM": "xterm"}


@pytest.mark.parametrize(
    ("value", "keyed"),
    [
        ("", ""),
        (" -j4 --jobserver-auth=3,4", ""),
        ("w -j3 --jobserver-auth=fifo:/tmp/GMfifo7 --jobserver-style=fifo", ""),
        ("-j8 --jobserver-auth=fifo:/proc/17/fd/5", ""),
        ("s -l3.5 --no-print-directory", "s"),
        ("ikw -j2 --jobserver-auth=3,4 -- CC=clang", "ik -- CC=clang"),
        (" -- DEBUG=1 -w", "-- DEBUG=1 -w"),
        ("-i", "-i"),
    ],
)
@pytest.mark.parametrize("of_stage", [True, False])
def test_flags_and_variables_of_make_count(project: CachedProject, value: str, keyed: str, *, of_stage: bool) -> None:
    """After `make check DEBUG=1`, whose recipe runs the lane, `make check` was a hit."""
    variables = {"MAKEFLAGS": value}
    stage = project.build_stage("lint", env=variables if of_stage else {})
    found = select_keyed_variables(stage, {} if of_stage else variables)
    assert found.get("MAKEFLAGS", "") == keyed
    assert build_command_environment(stage, {} if of_stage else variables)["MAKEFLAGS"] == value
