"""A hostile checkout can't affect anything outside of it, whether a user inspects it or runs it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from support import hostile, projects
from support.in_process import call_command
from support.real_servers import run

# Safe in an untrusted checkout, as SECURITY.md says; --lane auto and `items: {command}` are not.
SAFE = (
    ("check",),
    ("plan",),
    ("history",),
    ("history", "--what-if", "2"),
    ("explain",),
    ("sla",),
    ("replay",),
    ("log",),
    ("log", "--follow"),
    ("pin", "2"),
    ("pause",),
    ("resume",),
    ("init", "--force"),
    ("completion", "bash"),
    ("cache", "info"),
    ("serve", "status"),
    ("--version",),
)
HOSTILE = """
    name: command, run: [sh, run.sh]
    name: shelled, run: sh run.sh, shell: true
    name: called, call: "pkg.inner:function"
    name: globbed, run: [echo, "{item}"], items: {glob: "*"}
    name: programs, run: ./run.sh
"""
RUNS = "import pathlib; (pathlib.Path(__file__).parent / 'ran').touch()\n"
LOOKING = (
    ("plan",),
    ("history",),
    ("history", "--what-if", "2"),
    ("history", "--compare", "a", "b"),
    ("explain",),
    ("sla",),
    ("replay",),
    ("log",),
    ("log", "20200101T000000-aaaaaa"),
    ("log", "20200102T000000-aaaaaa", "--follow"),
)


@pytest.mark.parametrize("trap", hostile.TRAPS)
def test_looking_at_a_hostile_checkout_changes_nothing(tmp_path: Path, trap: str) -> None:
    victims = hostile.outside(tmp_path / "mine")
    checkout = hostile.checkout(tmp_path / "checkout", trap, victims)
    before = hostile.state(tmp_path)
    for command in LOOKING:
        assert "internal error" not in call_command(checkout, *command).stderr, command
        assert hostile.state(tmp_path) == before, command


@pytest.mark.parametrize("trap", hostile.TRAPS)
@pytest.mark.parametrize("command", [("check",), ("init", "--force"), ("pin", "2")], ids=" ".join)
def test_check_init_and_pin_change_nothing_outside_of_a_hostile_checkout(
    tmp_path: Path, trap: str, command: tuple[str, ...]
) -> None:
    victims = hostile.outside(tmp_path / "mine")
    checkout = hostile.checkout(tmp_path / "checkout", trap, victims)
    before = hostile.state(victims)
    assert "internal error" not in call_command(checkout, *command).stderr
    assert hostile.state(victims) == before


@pytest.mark.parametrize("trap", hostile.TRAPS)
def test_run_writes_nothing_through_links_in_its_own_folder(tmp_path: Path, trap: str) -> None:
    victims = hostile.outside(tmp_path / "mine")
    checkout = hostile.checkout(tmp_path / "checkout", trap, victims, 'name: one, call: "calls:nap"')
    (checkout / "calls.py").write_text("def nap(): pass\n")
    before = hostile.state(victims)
    ended = run(checkout, "--once", projects.ANY_PORT)
    refused = ended.returncode == 3 and ended.stderr.startswith("paropt-exporter: history ")
    assert refused or "standard succeeded" in ended.stdout, ended.stderr
    assert "internal error" not in ended.stderr
    assert hostile.state(victims) == before


def hostile_code(folder: Path) -> Path:
    """Make a checkout in which whatever is run, imported or asked leaves a file `ran` somewhere."""
    folder.mkdir()
    projects.write(folder, HOSTILE)
    script = folder / "run.sh"
    script.write_text("#!/bin/sh\ntouch ran\n")
    script.chmod(0o755)
    for name in (
        "pkg/__init__.py",
        "pkg/inner.py",
        "yaml.py",
        "json.py",
        "sqlite3.py",
        "sitecustomize.py",
        "conftest.py",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(RUNS)
    for tool in ("ruff", "mypy", "pytest", "git", "make", "npm"):
        (folder / ".venv/bin").mkdir(parents=True, exist_ok=True)
        (folder / ".venv/bin" / tool).symlink_to(script)
        (folder / tool).symlink_to(script)
    (folder / "pyproject.toml").write_text("[tool.ruff]\n[tool.mypy]\n[tool.pytest.ini_options]\n")
    (folder / "package.json").write_text(json.dumps({"scripts": {"lint": "touch ran", "test": "touch ran"}}))
    (folder / "Makefile").write_text("X := $(shell touch ran)\ntest:\n\ttouch ran\n")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".git/config").write_text(f"[core]\n\tfsmonitor = {script}\n\thooksPath = {folder}\n[alias]\n")
    return folder


@pytest.fixture(scope="module")
def hostile_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of hostile code in which a lane has run, so that there is a history to look at."""
    checkout = hostile_code(tmp_path_factory.mktemp("hostile") / "checkout")
    run(checkout, "--once", projects.ANY_PORT)
    left = [*checkout.rglob("ran")]
    assert left, "the code leaves no file when it runs"
    for path in left:
        path.unlink()
    return checkout


@pytest.mark.parametrize("command", SAFE, ids=" ".join)
def test_safe_command_runs_nothing_of_a_hostile_checkout(
    tmp_path: Path, hostile_history: Path, command: tuple[str, ...]
) -> None:
    checkout = shutil.copytree(hostile_history, tmp_path / "checkout", symlinks=True)
    ended = run(checkout, *command)
    assert "internal error" not in ended.stderr
    assert "no history yet" not in ended.stderr
    assert not [*tmp_path.rglob("ran"), *hostile_history.rglob("ran")]


def test_without_a_config_safe_commands_run_nothing_that_they_detect(tmp_path: Path) -> None:
    checkout = hostile_code(tmp_path / "checkout")
    (checkout / "paropt.yml").unlink()
    for command in SAFE:
        call_command(checkout, *command)
        assert not [*tmp_path.rglob("ran")], command


@pytest.mark.parametrize(
    "command", [("plan",), ("profile", "listed", "--runs", "1"), ("--once", projects.ANY_PORT)], ids=" ".join
)
def test_plan_profile_and_runs_do_run_the_command_that_lists_items(tmp_path: Path, command: tuple[str, ...]) -> None:
    projects.write(tmp_path, 'name: listed, run: [echo, "{item}"], items: {command: [touch, ran]}')
    run(tmp_path, *command)
    assert (tmp_path / "ran").exists()


def test_variables_of_the_environment_beat_the_checkout(tmp_path: Path) -> None:
    checkout = hostile_code(tmp_path / "checkout")
    ended = run(checkout, "check", PATH="/usr/bin:/bin")
    assert "internal error" not in ended.stderr
    assert not [*tmp_path.rglob("ran")]


def test_pin_talks_to_no_socket_behind_a_link(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".paropt/control").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        agent.setblocking(False)
        (checkout / ".paropt/control/1-abc.sock").symlink_to(tmp_path / "agent")
        assert call_command(checkout, "pin", "2").returncode == 2
        with pytest.raises(BlockingIOError):
            agent.accept()


@pytest.mark.parametrize("command", [("check",), ("plan",), ("history",), ("init", "--force")], ids=" ".join)
def test_config_that_is_a_pipe_is_not_waited_for(tmp_path: Path, command: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / "paropt.yml")
    ended = call_command(tmp_path, *command)
    assert ended.returncode in (0, 2)
    assert command[0] == "init" or "paropt.yml is not a regular file" in ended.stderr


@pytest.mark.parametrize("place", ["dist-info/RECORD", "dist-info/direct_url.json", "x.pth", "script"])
@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_pipe_or_device_in_an_environment_is_not_read(tmp_path: Path, place: str, target: str) -> None:
    packages = tmp_path / ".venv/lib/python3.11/site-packages"
    (packages / "evil-1.dist-info").mkdir(parents=True)
    (tmp_path / ".venv/pyvenv.cfg").touch()
    (tmp_path / ".venv/bin").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "tool" if place == "script" else packages / place.replace("dist-info", "evil-1.dist-info")
    if place == "script":
        path.write_text(f"#!{tmp_path / target}\n")
        path.chmod(0o755)
    else:
        path.symlink_to(tmp_path / target)
    projects.write(tmp_path, "name: one, run: ./tool, inputs: [paropt.yml]")
    ended = call_command(tmp_path, "plan", "--why")
    assert ended.returncode == 0
    assert "one: " in ended.stdout
    assert place == "script" or "not a regular file" in ended.stdout


@pytest.mark.parametrize("command", [("plan",), ("init",), ("check",)], ids=" ".join)
def test_folders_without_end_are_no_internal_error(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "tests").mkdir()
    with hostile.endless_folders(tmp_path / "tests"):
        assert "internal error" not in call_command(tmp_path, *command).stderr


def test_count_that_no_database_holds_is_a_usage_error(tmp_path: Path) -> None:
    ended = call_command(tmp_path, "history", "--limit", "9" * 30)
    assert (ended.returncode, "is more than" in ended.stderr) == (2, True)
