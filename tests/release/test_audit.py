"""`make audit`: advisories fail it, and an index that has none is never mistaken for one without findings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KNOWN = [{"id": "PYSEC-2020-96", "fix_versions": ["5.3.1"], "aliases": ["CVE-2020-1747"], "description": "x"}]
CANARY = {"name": "pyyaml", "version": "5.3", "vulns": KNOWN}
CLEAN = {"name": "requests", "version": "2.32.0", "vulns": []}


def audit(folder: Path, canary: object, lock: object, *flags: str) -> tuple[int, str]:
    """Run the check with a program in pip-audit's place that prints these answers. Return exit code and output."""
    program = folder / "pip-audit"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"print({render(lock)!r} if '--require-hashes' in sys.argv else {render(canary)!r})\n"
    )
    program.chmod(0o755)
    command = [sys.executable, str(ROOT / ".ci/audit.py"), "--pip-audit", str(program), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


def render(answers: Any) -> str:
    return answers if isinstance(answers, str) else json.dumps({"dependencies": answers, "fixes": []})


def test_packages_without_advisories_pass(tmp_path: Path) -> None:
    assert audit(tmp_path, [CANARY], [CLEAN]) == (0, "no known advisory for any package of requirements.lock\n")


def test_advisory_fails_and_names_the_fixed_version(tmp_path: Path) -> None:
    code, text = audit(tmp_path, [CANARY], [CLEAN, {**CANARY, "name": "bad"}])
    assert (code, text) == (1, "bad 5.3: PYSEC-2020-96, fixed in 5.3.1\n")


@pytest.mark.parametrize(
    ("canary", "lock", "reason"),
    [
        ([{**CANARY, "vulns": []}], [CLEAN], "the index has none for pyyaml==5.3"),
        ([{"name": "pyyaml", "skip_reason": "not found"}], [CLEAN], "which has one (not found)"),
        ([CANARY], [CLEAN, {"name": "odd", "skip_reason": "not found"}], "the index does not know odd"),
        ("no JSON", [CLEAN], "pip-audit printed no answer"),
        ([CANARY], "", "pip-audit printed no answer"),
    ],
)
def test_index_without_advisories_is_skipped_and_fails_only_if_required(
    tmp_path: Path, canary: object, lock: object, reason: str
) -> None:
    code, text = audit(tmp_path, canary, lock)
    assert code == 0
    assert text.startswith("SKIPPED: no advisories were looked up: ") and reason in text
    assert audit(tmp_path, canary, lock, "--required") == (1, text)


def test_missing_pip_audit_is_skipped_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / ".ci/audit.py"), "--pip-audit", str(tmp_path / "gone")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "gone: No such file or directory" in ended.stdout
