"""Text that others wrote never acts on the terminal: not from a config, a command, a call, an item or a file's name."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from support import projects
from support.in_process import call_command
from support.real_servers import HANG_SECONDS, environment, installed_command, run

EVIL = "\u202egnp.exe\x1b[2J\x9b31m\x07\r\u2066"
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
LISTING = ["sh", "-c", "echo $0 >&2; exit 1", EVIL]
CONFIG = {
    "project": "demo",
    "stages": [
        {"number": 1, "name": "command", "run": ["printf", "%s\n", EVIL]},
        {"number": 2, "name": "failing", "run": ["sh", "-c", 'printf "%s\n" "$1"; exit 1', "sh", EVIL]},
        {"number": 3, "name": "items", "run": ["sh", "-c", "exit 1", "{item}"], "items": {"list": [EVIL]}},
        {"number": 4, "name": "missing", "run": [f"./{EVIL}"]},
        {"number": 5, "name": "called", "call": "calls:fail"},
        {"number": 6, "name": "absent", "call": "calls:nothing"},
        {"number": 7, "name": "listed", "run": ["echo", "{item}"], "items": {"command": LISTING}},
    ],
}
CALLS = f"def fail():\n    print({EVIL!r})\n    raise ValueError({EVIL!r})\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "paropt.yml").write_text(json.dumps(CONFIG))  # JSON is YAML, and escapes what YAML refuses
    (tmp_path / "calls.py").write_text(CALLS, encoding="utf-8")
    return tmp_path


def test_no_command_prints_terminal_escapes(project: Path) -> None:
    for arguments in (
        ("check",),
        ("plan",),
        ("--once", projects.ANY_PORT),
        ("--once", "-v", "--log.format=json", projects.ANY_PORT),
        ("--once", "--log.level=debug", "--output=json", projects.ANY_PORT),
        ("history",),
        ("explain",),
        ("check", "--lane", EVIL.replace("\x00", "")),
        ("history", "--lane", EVIL),
        ("history", "--compare", EVIL, EVIL),
        ("pin", "2", EVIL),
        ("plan", "--config.file", f"{EVIL}.yml"),
        (f"--{EVIL}",),
    ):
        ended = (run if "--once" in arguments else call_command)(project, *arguments)
        assert not ACTING.search(ended.stdout), (arguments, ended.stdout)
        assert not ACTING.search(ended.stderr), (arguments, ended.stderr)
        assert "internal error" not in ended.stderr


def test_faults_of_a_config_are_shown_harmlessly(tmp_path: Path) -> None:
    evil = {"stages": [{"number": EVIL, "name": EVIL, EVIL: EVIL, "run": ["true"], "needs": [EVIL]}], EVIL: 1}
    (tmp_path / "paropt.yml").write_text(json.dumps(evil))
    ended = call_command(tmp_path, "check")
    assert ended.returncode == 2
    assert not ACTING.search(ended.stdout + ended.stderr), ended.stderr
    assert "\\u202e" in ended.stderr


def test_terminal_gets_no_escapes_but_our_own(project: Path) -> None:
    for arguments in (("plan",), ("--once", "-v", projects.ANY_PORT), ("history",)):
        shown = on_terminal(project, *arguments)
        assert "standard" in shown
        assert "\u202e" not in shown
        assert "\x1b[2J" not in shown
        assert "\x9b" not in shown
        assert "\x07" not in shown


def on_terminal(folder: Path, *arguments: str) -> str:
    """Run the installed command on a terminal of its own and return all that it got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [installed_command(), *arguments],
        cwd=folder,
        env=environment(TERM="xterm-256color", COLUMNS="200"),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    got = bytearray()
    with process, open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123 -- a descriptor, no path
        try:
            while part := terminal.read(65536):
                got += part
        except OSError:  # the other side has gone
            pass
        process.wait(HANG_SECONDS)
    return got.decode(errors="replace")
