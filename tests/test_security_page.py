"""The commands, tests and numbers that SECURITY.md and docs/reliability.md name exist."""

from __future__ import annotations

import re
from pathlib import Path

from paropt_exporter.cli.flags import build_parser
from paropt_exporter.history.database import BUSY_SECONDS
from paropt_exporter.history.retention import KEEP_DECISIONS
from paropt_exporter.history.rows import OUTPUT_CHARACTERS
from paropt_exporter.history.store import KEEP_RUNS

ROOT = Path(__file__).parent.parent
SECURITY = (ROOT / "SECURITY.md").read_text()
RELIABILITY = (ROOT / "docs/reliability.md").read_text()


def test_every_command_is_called_safe_or_not() -> None:
    commands = re.findall(r"^    ([a-z]+)  +\S", build_parser().format_help(), re.MULTILINE)
    assert "replay" in commands
    table = SECURITY.partition("| command | safe? |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([a-z]+)`", row)} == {*commands}


def test_every_test_that_reliability_names_is_there() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(?:[\w/.]+::)?(test_\w+)`", RELIABILITY)
    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []
    files = re.findall(r"`(tests/[\w/]+\.py)", RELIABILITY)
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_the_numbers_are_those_of_the_code() -> None:
    for number in (f"{OUTPUT_CHARACTERS:,} characters", f"{KEEP_RUNS:,} runs", f"{KEEP_DECISIONS:,} decisions"):
        assert number in SECURITY
    assert f"after {BUSY_SECONDS:g} s" in RELIABILITY
