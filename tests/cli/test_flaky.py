"""`history --flaky`, from runs of a real stage that fails now and then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import projects
from support.in_process import call_command
from support.real_servers import run
from support.repositories import Repository

# Fails in every run that finds no file "seen", which it makes, and which git ignores.
_FLAKY = 'name: flaky, run: "test -e seen || { touch seen; exit 1; }", shell: true'


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path)
    made.commit(**{".gitignore": "seen\n.paropt\n"})
    return made


def lane(folder: Path, *arguments: str) -> int:
    return run(folder, "--once", projects.ANY_PORT, *arguments).returncode


def flaky(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads(call_command(folder, "history", "--flaky", "--output", "json").stdout))


def test_failure_and_success_of_one_tree_state_are_flaky(repository: Repository) -> None:
    projects.write(repository.root, _FLAKY)
    repository.commit()
    assert (lane(repository.root), lane(repository.root)) == (1, 0)
    (found,) = flaky(repository.root)
    assert (found["stage"], found["first_attempts"], found["flaky_attempts"]) == ("flaky", 2, 1)
    assert 0 < found["ratio_low"] < found["ratio"] < found["ratio_high"] < 1


def test_success_after_a_change_is_not_flaky(repository: Repository) -> None:
    projects.write(repository.root, _FLAKY)
    repository.commit()
    assert lane(repository.root) == 1
    repository.write("code.py", "fixed = True")
    assert lane(repository.root) == 0
    assert flaky(repository.root) == []


def test_retry_needs_no_repository(tmp_path: Path) -> None:
    projects.write(tmp_path, _FLAKY + ", retries: {count: 1, backoff: 0}")
    ran = run(tmp_path, "--once", projects.ANY_PORT)
    assert ran.returncode == 0
    assert "flaky: failed, then passed with the same files" in ran.stdout
    assert [each["flaky_attempts"] for each in flaky(tmp_path)] == [1]
    assert "1 flaky stage, by the last 300 runs of each lane" in run(tmp_path, "history", "--flaky").stdout


def test_only_a_known_flaky_stage_is_retried(repository: Repository) -> None:
    projects.write(repository.root, _FLAKY + ", retries: {flaky: 1, backoff: 0}")
    repository.commit()
    assert (lane(repository.root), lane(repository.root)) == (1, 0)
    (repository.root / "seen").unlink()
    assert lane(repository.root) == 0, "known now, so the failure is retried"


def test_nothing_flaky_is_one_line(tmp_path: Path) -> None:
    projects.write(tmp_path, "name: ok, run: 'true'")
    assert lane(tmp_path) == 0
    assert call_command(tmp_path, "history", "--flaky").stdout == (
        "no stage has failed and passed with the same files in its last 300 runs\n"
    )


def test_negative_count_is_one_clear_error(tmp_path: Path) -> None:
    projects.write(tmp_path, "name: ok, run: 'true', retries: {flaky: -1}")
    checked = call_command(tmp_path, "check")
    assert checked.returncode == 2
    assert "stages[0].retries.flaky" in checked.stdout + checked.stderr


_QUARANTINED = 'name: t, run: "cat {item}", items: {list: [paropt.yml, gone]}, '


def test_failure_in_quarantine_is_green_and_in_every_report(tmp_path: Path) -> None:
    projects.write(tmp_path, _QUARANTINED + "quarantine: [{item: gone, owner: anna, until: 9999-12-31}]")
    ran = run(tmp_path, "--once", projects.ANY_PORT, "--report", "json=report.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shown = "failed in quarantine: gone (anna, until 9999-12-31)"
    assert shown in ran.stdout and shown in ran.stderr
    (stage,) = json.loads((tmp_path / "report.json").read_text())["stages"]
    assert stage["quarantined"] == ["gone (anna, until 9999-12-31)"]
    assert "in quarantine\n  t gone: anna, until 9999-12-31\n" in call_command(tmp_path, "history", "--flaky").stdout


def test_failure_after_a_quarantine_counts_and_its_end_is_shown(tmp_path: Path) -> None:
    projects.write(tmp_path, _QUARANTINED + "quarantine: [{item: gone, owner: anna, until: 2020-01-01}]")
    ran = run(tmp_path, "--once", projects.ANY_PORT)
    assert ran.returncode == 1
    assert "t: the quarantine of gone ended on 2020-01-01: its failures count again (anna)" in ran.stderr
    assert "t gone: anna, until 2020-01-01, which is over" in call_command(tmp_path, "history", "--flaky").stdout
    assert "warning: t: the quarantine of gone ended on 2020-01-01" in call_command(tmp_path, "check").stderr
