"""Gather the events of a run until it has ended, in bounded memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from paropt_exporter.events import Decision, Event, RunRecord, RunStarted, SlaRecord, TaskRecord
from paropt_exporter.findings import find_findings
from paropt_exporter.plan import Plan
from paropt_exporter.reports.model import Attempt, FinishedRun, ReportedStage, ReportedTask

_OUTPUT_CHARACTERS = 16 * 1024  # of an attempt that failed: what a report shows of it
_MOST_OUTPUT_CHARACTERS = 8 * 1024 * 1024  # of all attempts of a run together
_MOST_FINDINGS = 200  # of an attempt: more than any page of any consumer shows
_MOST_RUN_FINDINGS = 5000  # of all attempts of a run together


class Collector:
    """The events of one run after another. Not for several threads: events come in order, each once."""

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
        """Forget the run before; `plan` is of the run that is about to start."""
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
            case Decision():
                self._decisions.append(event)
            case _:
                pass

    def finish(self, record: RunRecord, *, log: Path | None) -> FinishedRun | None:
        """Return the run that has ended; None if its beginning was not seen."""
        if self._started is None or self._plan is None:
            return None
        tasks: dict[str, list[ReportedTask]] = defaultdict(list)
        for (stage, _), attempts in sorted(self._tasks.items()):
            tasks[stage].append(ReportedTask(tuple(attempts)))
        folders = {stage.name: self._plan.root / stage.cwd for stage in self._plan.stages}
        return FinishedRun(
            project=self._plan.project,
            root=self._plan.root,
            top=self._top,
            config=self._config,
            started=self._started,
            record=record,
            stages=tuple(
                ReportedStage(
                    record=stage,
                    tasks=tuple(tasks[stage.stage]),
                    folder=folders.get(stage.stage, self._plan.root),
                )
                for stage in sorted(record.stages, key=lambda stage: stage.number)
            ),
            slas=tuple(self._slas),
            decisions=tuple(self._decisions),
            start_sizes=_read_start_sizes(record),
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


def _read_start_sizes(record: RunRecord) -> Mapping[str, int]:
    return {pool.name: pool.start_size for pool in record.pools}
