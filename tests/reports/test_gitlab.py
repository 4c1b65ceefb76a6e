"""The report for GitLab, held against the format that its documentation describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from paropt_exporter.events import Result
from paropt_exporter.reports import gitlab
from paropt_exporter.reports.model import FinishedRun
from support.finished_runs import attempt, finished, stage, stopped_at_critical_total

# "Code Quality report format": what is required, and which values severity may have.
SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "location", "severity"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "minLength": 1},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": r"^(?!\./|/|\.\./)."},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
    },
}


def read(run: FinishedRun) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(gitlab.render(run))
    jsonschema.validate(entries, SCHEMA)
    fingerprints = [entry["fingerprint"] for entry in entries]
    assert len(set(fingerprints)) == len(fingerprints)
    return entries


def failing(output: str, name: str = "lint", **fields: Any) -> Any:
    return stage(name, 1, attempt(name, result=Result.FAILURE, message="exit 1", output=output, **fields))


def test_each_finding_is_an_entry_at_its_line() -> None:
    (entry,) = read(finished(failing("./src/a.py:3:5: F401 `os` imported but unused\n")))
    assert entry["location"] == {"path": "src/a.py", "lines": {"begin": 3}}
    assert (entry["check_name"], entry["description"]) == ("F401", "`os` imported but unused")
    assert entry["severity"] == "major"


def test_a_warning_is_minor() -> None:
    assert read(finished(failing("a.c:3:5: warning: unused variable\n")))[0]["severity"] == "minor"


def test_the_same_finding_twice_has_two_fingerprints_that_do_not_depend_on_lines() -> None:
    before = read(finished(failing("a.py:3:5: F401 unused\na.py:9:5: F401 unused\n")))
    after = read(finished(failing("a.py:4:5: F401 unused\na.py:10:5: F401 unused\n")))
    assert [entry["fingerprint"] for entry in before] == [entry["fingerprint"] for entry in after]


@pytest.mark.parametrize(
    ("output", "check"), [("Would reformat: a.py\n", "lint"), ("a.py:0:1: E902 FileNotFoundError\n", "E902")]
)
def test_a_finding_about_a_whole_file_is_at_its_first_line(output: str, check: str) -> None:
    (entry,) = read(finished(failing(output)))
    assert (entry["check_name"], entry["location"]) == (check, {"path": "a.py", "lines": {"begin": 1}})


def test_a_failure_without_findings_is_shown_at_the_config() -> None:
    run = finished(
        failing("boom\n", item="b"),
        root=Path("/repo/backend"),
        top=Path("/repo"),
        config=Path("/repo/backend/paropt.yaml"),
    )
    (entry,) = read(run)
    assert entry["location"] == {"path": "backend/paropt.yaml", "lines": {"begin": 1}}
    assert entry["description"] == "lint b: exit 1"


def test_a_finding_outside_the_repository_is_shown_at_the_config_with_its_place() -> None:
    (entry,) = read(finished(failing("/usr/lib/a.py:3:5: F401 unused\n")))
    assert entry["location"]["path"] == "paropt.yml"
    assert entry["description"] == "/usr/lib/a.py:3:5: unused [F401]"


def test_a_failing_test_is_named() -> None:
    output = "=== short test summary info ===\nFAILED tests/test_a.py::test_sum - assert 1 == 2\n"
    (entry,) = read(finished(failing(output, "unit")))
    assert entry["description"] == "tests/test_a.py::test_sum: assert 1 == 2"


def test_a_stage_that_could_not_be_planned_is_an_entry() -> None:
    (entry,) = read(finished(stage("unit", 1, result=Result.ERROR, message="no items")))
    assert entry["description"] == "unit: no items"


@pytest.mark.parametrize("number", [1, 2])
def test_only_the_last_attempt_counts(number: int) -> None:
    first = attempt("lint", result=Result.FAILURE, message="exit 1", output="a.py:3:5: F401 unused\n")
    assert len(read(finished(stage("lint", 1, *[first, attempt("lint", number=2)][:number])))) == 2 - number


def test_a_flood_of_findings_is_bounded() -> None:
    output = "".join(f"a.py:{number}:5: F401 unused\n" for number in range(1, 1001))
    tasks = [attempt("lint", task=task, result=Result.FAILURE, output=output) for task in range(40)]
    entries = read(finished(stage("lint", 1, *tasks)))
    assert len([entry for entry in entries if entry["check_name"] == "F401"]) == 5000
    assert len([entry for entry in entries if entry["check_name"] == "lint"]) == 40 - 5000 / 200


def test_a_good_run_has_an_empty_report() -> None:
    assert read(finished(stage("lint", 1, attempt("lint")))) == []


def test_lane_that_reached_its_critical_total_is_an_entry() -> None:
    (entry,) = read(stopped_at_critical_total())
    assert entry["description"] == "lane standard: standard broke its critical total of 8 s"
