"""The report for GitHub, read back as its runner reads workflow commands."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.events import Result, StageRecord, TaskRecord
from paropt_exporter.reports import github
from paropt_exporter.reports.model import FinishedRun
from support.finished_runs import LIMIT, attempt, finished, stage, stopped_at_critical_total

_COMMAND = re.compile(r"^::(?P<name>[\w-]+)(?: (?P<properties>[^:]*(?:%3A[^:]*)*))?::(?P<data>.*)$")


@dataclass
class Command:
    name: str
    data: str
    properties: dict[str, str] = field(default_factory=dict)


def unescaped(text: str, *, in_property: bool = False) -> str:
    for code, character in [("%3A", ":"), ("%2C", ",")] if in_property else []:
        text = text.replace(code, character)
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def commands(shown: list[str]) -> list[Command]:
    """The commands that a runner obeys among the lines of a step's log."""
    found: list[Command] = []
    stopped = ""
    for line in "\n".join(shown).splitlines():
        if stopped:
            stopped = "" if line.strip() == f"::{stopped}::" else stopped
            continue
        if match := _COMMAND.match(line.strip()):
            pairs = [pair.partition("=") for pair in (match["properties"] or "").split(",") if pair]
            properties = {name: unescaped(value, in_property=True) for name, _, value in pairs}
            command = Command(match["name"], unescaped(match["data"]), properties)
            stopped = command.data if command.name == "stop-commands" else ""
            found.append(command)
    return found


def shown(run: FinishedRun, **environment: str) -> list[str]:
    lines: list[str] = []
    github.GitHubReport(lines.append, environment).report(run)
    return lines


def annotations_of(run: FinishedRun) -> list[Command]:
    return [command for command in commands(shown(run)) if command.name in ("error", "warning")]


def failing(name: str, number: int, output: str, **fields: Any) -> tuple[StageRecord, tuple[TaskRecord, ...]]:
    return stage(name, number, attempt(name, result=Result.FAILURE, message="exit 1", output=output), **fields)


def ruff(count: int, path: str = "a.py") -> str:
    return "".join(f"{path}:{n}:5: F401 `x{n}` imported but unused\n" for n in range(1, count + 1))


def test_a_finding_is_an_annotation_at_its_line() -> None:
    (found,) = annotations_of(finished(failing("lint", 1, ruff(1))))
    assert (found.name, found.data) == ("error", "`x1` imported but unused")
    assert found.properties == {"file": "a.py", "line": "1", "col": "5", "title": "lint: F401"}


def test_files_are_named_from_the_top_of_the_repository() -> None:
    run = finished(failing("lint", 1, ruff(1)), root=Path("/repo/backend"), top=Path("/repo"), cwd="src")
    assert annotations_of(run)[0].properties["file"] == "backend/src/a.py"


def test_a_file_outside_the_repository_is_in_the_text_instead() -> None:
    (found,) = annotations_of(finished(failing("lint", 1, ruff(1, "/usr/lib/a.py"))))
    assert "file" not in found.properties
    assert found.data == "/usr/lib/a.py:1:5: `x1` imported but unused [F401]"


def test_a_failure_without_findings_shows_the_end_of_its_output() -> None:
    (found,) = annotations_of(finished(failing("build", 1, "1\n2\n3\nlast\n")))
    assert (found.properties, found.data) == ({"title": "build failed"}, "exit 1\n2\n3\nlast")


def test_beyond_githubs_limit_each_stage_gets_one_error_and_the_rest_are_counted() -> None:
    found = annotations_of(finished(failing("lint", 1, ruff(55)), failing("types", 2, ruff(3, "b.py"))))
    assert len(found) == github.MOST_ANNOTATIONS
    assert [each.properties.get("file") for each in found[:4]] == ["a.py", "b.py", "a.py", "b.py"]
    assert found[-1].data == "49 more errors: see the step's summary"
    full = annotations_of(finished(failing("lint", 1, ruff(github.MOST_ANNOTATIONS))))
    assert full[-1].data == f"`x{github.MOST_ANNOTATIONS}` imported but unused"


def test_warnings_have_room_of_their_own() -> None:
    slow = [
        stage(f"slow{n}", n, attempt(f"slow{n}", seconds=2.5), sla=LIMIT, warned=True, duration_seconds=2.5)
        for n in range(2, 14)
    ]
    found = annotations_of(finished(failing("lint", 1, ruff(55)), *slow))
    assert [each.name for each in found] == ["error"] * 10 + ["warning"] * 10
    assert found[10].data == "slow2 took 2.5 s and came near its SLA of 3 s"


def test_a_flaky_task_is_a_warning() -> None:
    run = finished(
        stage("unit", 1, attempt("unit", result=Result.FAILURE, message="exit 1"), attempt("unit", number=2))
    )
    (found,) = annotations_of(run)
    assert (found.name, found.data) == ("warning", "unit succeeded only at attempt 2: exit 1")


def test_a_good_run_says_nothing() -> None:
    assert shown(finished(stage("lint", 1, attempt("lint")))) == []


def test_commands_in_a_tasks_output_are_not_obeyed() -> None:
    output = "::error file=x::not ours\n::stop-commands::a\n::endgroup::\n::set-env name=PATH::/evil\n"
    found = commands([github.format_group("build: exit 1", output), *shown(finished(failing("build", 1, output)))])
    assert [command.name for command in found] == ["group", "stop-commands", "endgroup", "error"]


@given(st.text(), st.text())
def test_any_text_stays_one_annotation_in_one_group(message: str, output: str) -> None:
    record = attempt("build", item=message, result=Result.FAILURE, message=message, output=output)
    printed = [github.format_group(message, output), *shown(finished(stage("build", 1, record)))]
    assert [command.name for command in commands(printed)] == ["group", "stop-commands", "endgroup", "error"]


def summary_of(run: FinishedRun, folder: Path) -> str:
    path = folder / "summary.md"
    shown(run, GITHUB_STEP_SUMMARY=str(path))
    return path.read_text(encoding="utf-8")


def test_the_summary_has_a_row_for_each_stage_bad_ones_first(tmp_path: Path) -> None:
    skipped = stage("deploy", 4, result=Result.SKIP, message="needs unit")
    run = finished(stage("lint", 1, attempt("lint")), failing("unit", 2, ruff(1)), skipped)
    assert summary_of(run, tmp_path).splitlines()[:8] == [
        "### ❌ standard failed in 8.0 s",
        "",
        "| | stage | result | duration | tasks | |",
        "|---|---|---|---:|---:|---|",
        "| ❌ | unit | failure | 2.0 s | 1 | exit 1 |",
        "| ✅ | lint | success | 2.0 s | 1 |  |",
        "| ⏭️ | deploy | skip |  | 1 | needs unit |",
        "",
    ]


def test_the_summary_names_items_that_failed_in_quarantine(tmp_path: Path) -> None:
    failed = stage("e2e", 1, attempt("e2e"), quarantined=("pay.py (anna, until 2026-12-24)",))
    row = "| ✅ | e2e | success | 2.0 s | 1 | failed in quarantine: pay.py (anna, until 2026-12-24) |"
    assert row in summary_of(finished(failed), tmp_path).splitlines()


def test_the_summary_is_appended_to_what_other_steps_wrote(tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("before\n")
    assert summary_of(finished(stage("lint", 1, attempt("lint"))), tmp_path).startswith("before\n### ")


def test_the_summary_keeps_within_what_github_takes(tmp_path: Path) -> None:
    many = [failing(f"stage{n}", n, "".join(f"{'p' * 400}{m}.py:1:1: F401 x\n" for m in range(60))) for n in range(300)]
    text = summary_of(finished(*many), tmp_path)
    assert len(text.encode()) < github.MOST_SUMMARY_BYTES
    assert "… 200 more" in text


@given(st.text(min_size=1))
def test_no_text_of_a_stage_breaks_the_table(message: str) -> None:
    failed = stage("build", 1, attempt("build", result=Result.FAILURE, message=message))
    (row,) = [line for line in github.summary(finished(failed)).splitlines() if line.startswith("| ❌")]
    assert len(re.findall(r"(?<!\\)\|", row.replace("\\\\", ""))) == 7
    assert "<" not in row


def test_findings_are_folded_under_the_name_of_their_stage() -> None:
    """In the line of an HTML element a backslash would be shown."""
    text = github.summary(finished(failing("unit_tests <b>", 1, ruff(1))))
    assert "<details><summary>unit_tests &lt;b&gt;: 1 finding</summary>\n\n* <code>a.py:1:5: " in text


def test_lines_of_findings_are_code_in_which_github_shows_no_emoji() -> None:
    """Elsewhere it shows `:100:` and `:1234:` as emoji."""
    text = github.summary(finished(failing("lint", 1, "a.py:100:5: F401 `os` imported but unused\n")))
    assert "* <code>a.py:100:5: \\`os\\` imported but unused \\[F401\\]</code>\n" in text


def test_lane_that_reached_its_critical_total_is_an_error_and_in_the_summary(tmp_path: Path) -> None:
    run = stopped_at_critical_total()
    (error,) = annotations_of(run)
    fault = "standard broke its critical total of 8 s"
    assert (error.name, error.properties["title"], error.data) == ("error", "lane standard failed", fault)
    assert fault in summary_of(run, tmp_path).splitlines()
