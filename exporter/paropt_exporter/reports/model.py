"""A run as reports see it: its stages, their tasks, the attempts and findings of each, and the paths of files.

A consumer of reports names files relative to the repository's top folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from paropt_exporter.events import (
    Decision,
    ItemRecord,
    Result,
    RunRecord,
    RunStarted,
    SlaRecord,
    StageRecord,
    TaskRecord,
)
from paropt_exporter.findings import Finding

_TOPS = ("GITHUB_WORKSPACE", "CI_PROJECT_DIR")  # variables of GitHub and GitLab with the folder of the checkout


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt. `output` is the end of its output, empty for a success; `findings` were found in its output."""

    record: TaskRecord
    output: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        """The stage, with the item if there is one."""
        return self.record.stage if self.record.item is None else f"{self.record.stage} {self.record.item}"


class ReportedTask(Struct, frozen=True):
    """A task with its attempts, the first one first; there is at least one.

    `unchanged`: the items of its batch whose earlier results still hold, so that no attempt included them.
    """

    attempts: tuple[Attempt, ...]
    unchanged: tuple[str, ...] = ()

    @property
    def items(self) -> tuple[ItemRecord, ...]:
        """The items of a batch, each with its last result: a retry includes only the items that failed."""
        cached = {item: ItemRecord(item=item, result=Result.SUCCESS, seconds=None) for item in self.unchanged}
        ran = {item.item: item for attempt in self.attempts for item in attempt.record.items}
        return tuple({**ran, **cached}.values())

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    @property
    def label(self) -> str:
        """Return the item, or the stage's name where the stage has no items."""
        record = self.last.record
        return record.stage if record.item is None else record.item


class ReportedStage(Struct, frozen=True, kw_only=True):
    """A stage as it ended. `folder`: where its commands ran, to which the paths of findings are relative."""

    record: StageRecord
    tasks: tuple[ReportedTask, ...] = ()
    folder: Path = Path()

    @property
    def failed_tasks(self) -> tuple[ReportedTask, ...]:
        return tuple(task for task in self.tasks if task.last.record.result.bad)


class FinishedRun(Struct, frozen=True, kw_only=True):
    """A run that has ended. `log` is the file with the whole output of its tasks, if it is kept.

    `top` is the top folder of the repository, which `root`, the folder of the config, may be or lie in.
    """

    project: str
    root: Path
    top: Path
    config: Path | None
    started: RunStarted
    record: RunRecord
    stages: tuple[ReportedStage, ...]
    slas: tuple[SlaRecord, ...] = ()
    decisions: tuple[Decision, ...] = ()
    log: Path | None = None

    @property
    def own_fault(self) -> str:
        """Why the run failed apart from its failed stages: the lane reached its critical total. Otherwise empty."""
        stage_failed = any(stage.record.result.bad for stage in self.stages)
        has_own = self.record.reached_critical_total or (self.record.result.bad and not stage_failed)
        return self.record.reason if has_own else ""

    def attempts(self) -> Iterator[Attempt]:
        """Yield every attempt of the run, stage by stage."""
        for stage in self.stages:
            for task in stage.tasks:
                yield from task.attempts


def find_top_folder(root: Path, environment: Mapping[str, str]) -> Path:
    """Return the top folder of the checkout around `root`, as the CI's variables have it; otherwise `root`."""
    tops = [Path(environment[name]) for name in _TOPS if environment.get(name)]
    return next((top for top in tops if _normalize(root).is_relative_to(_normalize(top))), root)


@lru_cache(maxsize=1024)  # a file often has many findings
def find_repository_path(path: str | None, folder: Path, top: Path) -> str | None:
    """Return a path, absolute or relative to `folder`, as a path relative to `top`; None if it is outside `top`."""
    if path is None:
        return None
    try:
        return _normalize(folder / path).relative_to(_normalize(top)).as_posix()
    except ValueError:
        return None


def _normalize(path: Path) -> Path:
    """Return the path without `.` and `..`. Links are not followed, since a repository knows files by their names."""
    return Path(os.path.normpath(path.absolute()))
