"""GitHub Actions: annotations at the lines of findings, folded outputs, and a table in the step's summary.

The screen prints the folded outputs, each when its task fails, so that a cancelled job has them too.

Workflow commands, their escapes and limits are those of GitHub's documentation. GitHub shows at most 10 error and 10
warning annotations of a step (50 of a job), and 1 MiB of its summary.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from msgspec import Struct

from paropt_exporter.errors import format_count
from paropt_exporter.events import Result, format_lane
from paropt_exporter.findings import Finding, Level
from paropt_exporter.plan import Plan
from paropt_exporter.reports.model import Attempt, FinishedRun, ReportedStage, find_repository_path
from paropt_exporter.terminal import visible

MOST_ANNOTATIONS = 10  # of each level in a step; GitHub drops further ones silently
MOST_SUMMARY_BYTES = 1 << 20  # of a longer one GitHub shows nothing
_MOST_ROWS, _MOST_FINDINGS = 100, 50  # in the summary
_SUMMARY_FILE = "GITHUB_STEP_SUMMARY"
_MARKS = {Result.SUCCESS: "✅", Result.SKIP: "⏭️", Result.CANCELLATION: "⏹️"}
_BAD_MARK, _LATE_MARK = "❌", "⚠️"


class _Annotation(Struct, frozen=True, kw_only=True):
    level: Level
    title: str
    message: str
    path: str | None = None
    line: int | None = None
    column: int | None = None

    @property
    def command(self) -> str:
        """Return the workflow command that shows it."""
        places = (("file", self.path), ("line", self.line), ("col", self.column), ("title", self.title))
        given = ",".join(f"{name}={_escape_property(str(value))}" for name, value in places if value is not None)
        return f"::{self.level.value} {given}::{_escape_data(self.message)}"


class GitHubReport:
    """Shows a run that has ended on the page of its GitHub job."""

    def __init__(self, show: Callable[[str], None], environment: Mapping[str, str]) -> None:
        """`show` prints lines to the step's log, as they are."""
        self._show = show
        self._environment = environment

    def prepare(self, plan: Plan) -> Plan:
        return plan

    def report(self, run: FinishedRun) -> None:
        """Print annotations, and append to the step's summary. Raises OSError."""
        commands = [annotation.command for annotation in limit_annotations(list(_iter_annotations(run)))]
        if commands:
            self._show("\n".join(commands))
        if path := self._environment.get(_SUMMARY_FILE):
            _append_text(Path(path), summary(run))


def limit_annotations(annotations: Sequence[_Annotation]) -> Iterator[_Annotation]:
    """Yield as many annotations of each level as GitHub shows. If there are more, the last one counts the others."""
    for level in Level:
        own = [annotation for annotation in annotations if annotation.level is level]
        if len(own) <= MOST_ANNOTATIONS:
            yield from own
            continue
        yield from own[: MOST_ANNOTATIONS - 1]
        left = len(own) - MOST_ANNOTATIONS + 1
        yield _Annotation(
            level=level, title=f"{left} more", message=f"{left} more {level.value}s: see the step's summary"
        )


def summary(run: FinishedRun) -> str:
    """Return the run as Markdown, bad news first."""
    record = run.record
    bad = [stage for stage in run.stages if stage.record.result.bad]
    rest = [stage for stage in run.stages if not stage.record.result.bad]
    words = {Result.SUCCESS: "succeeded", Result.CANCELLATION: "was interrupted"}
    lane = format_lane(record.lane, record.shard)
    lines = [
        f"### {_MARKS.get(record.result, _BAD_MARK)} {_escape_cell(lane)} {words.get(record.result, 'failed')}"
        f" in {record.duration_seconds:.1f} s",
        "",
        *([_escape_cell(run.own_fault), ""] if run.own_fault else []),
        "| | stage | result | duration | tasks | |",
        "|---|---|---|---:|---:|---|",
        *(_format_row(stage) for stage in [*bad, *rest][:_MOST_ROWS]),
    ]
    if (left := len(run.stages) - _MOST_ROWS) > 0:
        lines.append(f"| | … {left} more | | | | |")
    lines += ["", *chain.from_iterable(_iter_details(stage) for stage in bad[:_MOST_ROWS])]
    return _cut_summary("\n".join(lines) + "\n")


def _iter_annotations(run: FinishedRun) -> Iterator[_Annotation]:
    """Yield the findings of all failed stages in turn, so that no stage takes all the space; then the warnings."""
    stages = [list(_iter_stage_errors(stage, run)) for stage in run.stages if stage.record.result.bad]
    yield from (annotation for turn in zip_longest(*stages) for annotation in turn if annotation is not None)
    if run.own_fault:
        yield _Annotation(level=Level.ERROR, title=f"lane {run.record.lane} failed", message=run.own_fault)
    for stage in run.stages:
        yield from _iter_warnings(stage)


def _iter_stage_errors(stage: ReportedStage, run: FinishedRun) -> Iterator[_Annotation]:
    for task in stage.failed_tasks:
        for finding in task.last.findings:
            yield _annotate_finding(finding, stage, run)
        if not task.last.findings:
            yield _annotate_failure(task.last)
    if not stage.failed_tasks:
        yield _Annotation(level=Level.ERROR, title=f"{stage.record.stage} failed", message=stage.record.message)


def _annotate_finding(finding: Finding, stage: ReportedStage, run: FinishedRun) -> _Annotation:
    path = find_repository_path(finding.path, stage.folder, run.top)
    about = finding.test or finding.rule
    return _Annotation(
        level=finding.level,
        title=f"{stage.record.stage}: {about}" if about else stage.record.stage,
        message=finding.message if path else finding.text,
        path=path,
        line=finding.line if path else None,
        column=finding.column if path else None,
    )


def _annotate_failure(attempt: Attempt) -> _Annotation:
    end = [line for line in attempt.output.splitlines() if line.strip()][-3:]
    return _Annotation(
        level=Level.ERROR, title=f"{attempt.name} failed", message="\n".join([attempt.record.message, *end])
    )


def _iter_warnings(stage: ReportedStage) -> Iterator[_Annotation]:
    record = stage.record
    if record.sla is not None and (record.warned or record.broken):
        word = "broke" if record.broken else "came near"
        message = (
            f"{record.stage} took {record.duration_seconds:.1f} s and {word} its SLA of {record.sla.max_seconds:g} s"
        )
        yield _Annotation(level=Level.WARNING, title=f"{record.stage} is slow", message=message)
    flaky = [task for task in stage.tasks if task.last.record.result is Result.SUCCESS and len(task.attempts) > 1]
    for task in flaky:
        message = f"{task.label} succeeded only at attempt {len(task.attempts)}: {task.attempts[0].record.message}"
        yield _Annotation(level=Level.WARNING, title=f"{record.stage} is flaky", message=message)


def format_group(title: str, output: str) -> str:
    """Return a folded output. A random token keeps the runner from executing workflow commands in it."""
    token = secrets.token_hex(16)
    return "\n".join(
        [
            f"::group::{_escape_data(title)}",
            f"::stop-commands::{token}",
            visible(output),
            f"::{token}::",
            "::endgroup::",
        ]
    )


def _format_row(stage: ReportedStage) -> str:
    record = stage.record
    late = record.result is Result.SUCCESS and (record.warned or record.broken)
    mark = _LATE_MARK if late else _MARKS.get(record.result, _BAD_MARK)
    took = f"{record.duration_seconds:.1f} s" if record.started_timestamp_seconds is not None else ""
    retries = record.retries
    quarantined = f"failed in quarantine: {', '.join(record.quarantined)}" if record.quarantined else ""
    note = record.message or quarantined or (f"after {retries} retr{'y' if retries == 1 else 'ies'}" if retries else "")
    cells = (mark, _escape_cell(record.stage), record.result.value, took, str(record.tasks), _escape_cell(note))
    return f"| {' | '.join(cells)} |"


def _iter_details(stage: ReportedStage) -> Iterator[str]:
    """Yield the findings of a failed stage, folded."""
    findings = [finding for task in stage.failed_tasks for finding in task.last.findings]
    if not findings:
        return
    count = format_count(len(findings), "finding")
    yield f"<details><summary>{_escape_html(visible(stage.record.stage))}: {count}</summary>"
    yield ""
    # as code: elsewhere GitHub shows `:100:`, such as the line in `app.py:100:5`, as an emoji
    yield from (f"* <code>{_escape_cell(finding.text)}</code>" for finding in findings[:_MOST_FINDINGS])
    if (left := len(findings) - _MOST_FINDINGS) > 0:
        yield f"* … {left} more"
    yield "\n</details>\n"


def _cut_summary(text: str) -> str:
    """Return the text, cut after the last line that fits into GitHub's limit."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= MOST_SUMMARY_BYTES // 2:
        return text
    kept = encoded[: MOST_SUMMARY_BYTES // 2].decode("utf-8", "ignore")
    return kept[: kept.rfind("\n") + 1] + "\n… cut\n"


def _append_text(path: Path, text: str) -> None:
    # the runner's file, to which other steps append too
    with path.open("a", encoding="utf-8", errors="replace") as file:
        file.write(text)


def _escape_cell(text: str) -> str:
    """Return text that Markdown and HTML show as it is, on one line."""
    shown = " ".join(visible(text).split())
    for character in "\\`*_[]|~#":
        shown = shown.replace(character, f"\\{character}")
    return _escape_html(shown)


def _escape_html(text: str) -> str:
    """Return text that HTML shows as it is. In a line with an HTML element, Markdown does not apply."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")


def _escape_data(text: str) -> str:
    """Return a workflow command's value, escaped for the runner."""
    return visible(text.replace("\r", " ")).replace("%", "%25").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")
