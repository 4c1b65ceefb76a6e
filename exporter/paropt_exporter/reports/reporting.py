"""Parse the flag `--report`, collect the events of a run in bounded memory, and make its reports at its end."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import files
from paropt_exporter.errors import DeliveryError, UsageError
from paropt_exporter.events import Decision, Event, RunRecord, RunStarted, SlaRecord, TaskRecord
from paropt_exporter.findings import find_findings
from paropt_exporter.plan import Plan
from paropt_exporter.reports.model import Attempt, FinishedRun, ReportedStage, ReportedTask

log = logging.getLogger(__name__)

JUNIT, GITHUB, GITLAB, JSON, TRACE, OTLP, NONE = KINDS = ("junit", "github", "gitlab", "json", "trace", "otlp", "none")
KINDS_WITH_FILE = (JUNIT, GITLAB, JSON, TRACE)
_OUTPUT_CHARACTERS = 16 * 1024  # of a failed attempt in a report
_MOST_OUTPUT_CHARACTERS = 8 * 1024 * 1024  # of all attempts of a run together
_MOST_FINDINGS = 200  # of an attempt: more than a page of any consumer shows
_MOST_RUN_FINDINGS = 5000  # of all attempts of a run together


class ReportOption(Struct, frozen=True):
    """A requested report. `path` is absolute; None for a report that goes to no file."""

    kind: str
    path: Path | None = None

    def __str__(self) -> str:
        return self.kind if self.path is None else f"{self.kind}={self.path}"


class RunReport(Protocol):
    """A report that goes to no file."""

    def prepare(self, plan: Plan) -> Plan:
        """Return the plan that is about to run, with the environment variables that the report adds."""

    def report(self, run: FinishedRun) -> None:
        """Report a run that has ended. Raises OSError or DeliveryError."""


def parse(texts: Sequence[str], environment: Mapping[str, str]) -> tuple[ReportOption, ...]:
    """Return the reports that the texts of `--report` request, each once. Raises UsageError for an invalid text.

    On GitHub's runners, which set GITHUB_ACTIONS, `github` is added unless `none` is among them.
    """
    options = [_parse_option(text) for text in texts]
    wanted = [option for option in dict.fromkeys(options) if option.kind != NONE]
    for path in (paths := [option.path for option in wanted if option.path is not None]):
        if paths.count(path) > 1:
            raise UsageError(f"--report: two reports would go to {path}: give each its own file")
    here = environment.get("GITHUB_ACTIONS") == "true"
    if here and not any(option.kind in (NONE, GITHUB) for option in options):
        wanted.append(ReportOption(GITHUB))
    return tuple(wanted)


class Reports:
    """An observer that collects a run's events, from which `write` makes the reports after the run's end.

    Guarantees: a file is written completely or not at all; a report that fails is logged in one line, and the others
    are made.
    """

    def __init__(
        self,
        wanted: Sequence[ReportOption],
        *,
        config: Path | None,
        top: Path,
        others: Mapping[str, RunReport] | None = None,
        count_delivery: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`others`: the reports that go to no file, by their kind. `top`: the repository's top folder.

        `count_delivery` is called after each delivery by OTLP, with whether it failed.
        """
        self._wanted = wanted
        self._others = others or {}
        self._count_delivery = count_delivery
        self._collector = Collector(config=config, top=top)

    def begin(self, plan: Plan) -> Plan:
        """Begin to collect the run of a plan; return the plan with the environment variables that reports add."""
        for report in self._others.values():
            plan = report.prepare(plan)
        self._collector.begin(plan)
        return plan

    def observe(self, event: Event) -> None:
        self._collector.observe(event)

    def write(self, record: RunRecord, *, log_path: Path | None) -> tuple[str, ...]:
        """Make each report of a run that has ended; return a message for each file that could not be written."""
        run = self._collector.finish(record, log=log_path)
        if run is None:
            return ()
        return tuple(fault for option in self._wanted if (fault := self._make_report(option, run)))

    def _make_report(self, option: ReportOption, run: FinishedRun) -> str:
        """Make one report; return a message if its file could not be written, otherwise ""."""
        why = ""
        try:
            if option.path is not None:
                write_file(option.path, _render(option.kind, run))
            else:
                self._others[option.kind].report(run)
        except (OSError, DeliveryError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            if option.path is not None:
                return f"the report {option} could not be written: {why}"
            place = {"path": str(error.filename)} if isinstance(error, OSError) and error.filename else {}
            log.warning("a report was not made", extra={"report": str(option), "err": why, **place})
        if option.kind == OTLP:
            self._count_delivery(bool(why))
        return ""


def write_file(path: Path, content: bytes) -> None:
    """Write a report atomically, and create its folders. Raises OSError, also if the path is not a regular file."""
    target = path.resolve() if path.is_symlink() else path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # the system's message would mean that the report exists
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target.parent)) from None
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise files.UnexpectedFileType(errno.EINVAL, "it is there and is not a file", str(path))
    files.replace_file(target, content)


class Collector:
    """Collects the events of one run after another. Not thread-safe: events come in order, each once."""

    def __init__(self, *, config: Path | None, top: Path) -> None:
        self._config = config
        self._top = top
        self._started: RunStarted | None = None
        self._plan: Plan | None = None
        self._tasks: dict[tuple[str, int], list[Attempt]] = defaultdict(list)
        self._slas: list[SlaRecord] = []
        self._decisions: list[Decision] = []
        self._room_characters = _MOST_OUTPUT_CHARACTERS
        self._room_findings = _MOST_RUN_FINDINGS

    def begin(self, plan: Plan) -> None:
        """Forget the previous run; `plan` is that of the run that is about to start."""
        self._plan = plan
        self._started = None
        self._tasks.clear()
        self._slas.clear()
        self._decisions.clear()
        self._room_characters = _MOST_OUTPUT_CHARACTERS
        self._room_findings = _MOST_RUN_FINDINGS

    def observe(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._started = event
            case TaskRecord():
                self._tasks[event.stage, event.task].append(self._make_attempt(event))
            case SlaRecord():
                self._slas.append(event)
            case Decision() if self._plan is not None:  # the bounds controller also decides between two runs
                self._decisions.append(event)
            case _:
                pass

    def finish(self, record: RunRecord, *, log: Path | None) -> FinishedRun | None:
        """Return the run that has ended; None if its start was not observed."""
        plan, self._plan = self._plan, None
        if self._started is None or plan is None:
            return None
        tasks: dict[str, list[ReportedTask]] = defaultdict(list)
        batches = {
            (stage.name, task.index): task.items for stage in plan.stages if stage.cached for task in stage.tasks
        }
        for (stage, index), attempts in sorted(self._tasks.items()):
            unchanged = _list_unchanged(batches.get((stage, index), ()), attempts[0].record)
            tasks[stage].append(ReportedTask(tuple(attempts), unchanged))
        folders = {stage.name: plan.root / stage.cwd for stage in plan.stages}
        return FinishedRun(
            project=plan.project,
            root=plan.root,
            top=self._top,
            config=self._config,
            started=self._started,
            record=record,
            stages=tuple(
                ReportedStage(
                    record=stage,
                    tasks=tuple(tasks[stage.stage]),
                    folder=folders.get(stage.stage, plan.root),
                )
                for stage in sorted(record.stages, key=lambda stage: stage.number)
            ),
            slas=tuple(self._slas),
            decisions=tuple(self._decisions),
            log=log,
        )

    def _make_attempt(self, record: TaskRecord) -> Attempt:
        if not record.result.bad:
            return Attempt(record=replace(record, output=""))
        output = record.output[-min(_OUTPUT_CHARACTERS, self._room_characters) :] if self._room_characters else ""
        self._room_characters -= len(output)
        most = min(_MOST_FINDINGS, self._room_findings)
        findings = find_findings(record.output, most) if most else ()
        self._room_findings -= len(findings)
        return Attempt(record=replace(record, output=""), output=output, findings=findings)


def _list_unchanged(items: Sequence[str], first: TaskRecord) -> tuple[str, ...]:
    """Return the items of a cached stage's batch that its first attempt did not include."""
    ran = {each.item for each in first.items}
    return tuple(item for item in items if item not in ran)


def _parse_option(text: str) -> ReportOption:
    kind, equals, name = text.partition("=")
    if kind not in KINDS:
        raise UsageError(f"--report: there is no kind {kind!r}: choose from {', '.join(KINDS)}")
    if kind not in KINDS_WITH_FILE:
        if equals:
            raise UsageError(f"--report: {kind} goes to no file: give --report {kind}")
        return ReportOption(kind)
    if not name:
        raise UsageError(f"--report: {kind} needs a file: --report {kind}=FILE")
    path = Path(name).absolute()
    if name == "-" or path.is_relative_to("/dev"):
        raise UsageError(f"--report: {name} is no file: name one (--output json prints the run as JSON)")
    if files.is_folder(path):
        raise UsageError(f"--report: {name} is a folder: name a file")
    return ReportOption(kind, path)


def _render(kind: str, run: FinishedRun) -> bytes:
    """Return the content of a report that goes to a file. Its module is imported only now."""
    from paropt_exporter.reports import gitlab, junit, run_json, trace

    renderers = {
        JUNIT: junit.render,
        GITLAB: gitlab.render,
        JSON: run_json.render,
        TRACE: trace.render,
    }
    return renderers[kind](run)
