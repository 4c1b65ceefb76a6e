"""The facts of a plan: stages, their tasks and limits, and the bounds of the pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from paropt_exporter.events import Scope, SlaLimit, Strategy
from paropt_exporter.executors.base import COMMANDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Steps that run one after another in one task, each an argument vector; the first failure ends the task."""

    steps: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A Python function, `module:function` (dots after the colon reach into classes), called with `arguments`."""

    target: str
    arguments: tuple[str, ...] = ()


Work = Commands | Call


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask:
    """One unit of work. `item` is the item that it was made for, None where the stage has no items.

    `items`: all items of a batch, of which `item` is then the name; empty for any other task. `apart`: parts of files
    of this stage that are items of their own, in whichever batch: a file's command leaves out those of other batches.
    """

    index: int
    item: str | None
    work: Work
    items: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """One stage, ready to run. `skip` says why it will not run, `fault` why it can't ("" where it will).

    A stage with a fault has no tasks and ends as an error with that message; the others run on.

    Each of its tasks holds `slots` slots and `memory_bytes` while it runs; the stage holds `locks` (and everything, if
    `exclusive`) from its first task's start to its last attempt's end. `expected_seconds` is its duration as the
    history has it, `expected_task_seconds` that of one of its tasks, `fastest_task_seconds` that of the fastest (None:
    unknown); `remaining_seconds` is the longest path from its start to the run's end.

    `template`: the commands with `{items}` still in them, where its tasks are batches of items; `junit`: whether the
    runner that they call is asked for a report, which has a result for each item. `scope` is the part of its work that
    this run does; a part has no limit. `never_succeeded`: it ran before, and never with success.
    """

    number: int
    name: str
    tasks: tuple[PlannedTask, ...]
    needs: tuple[str, ...] = ()
    pool: str = COMMANDS
    retries: int = 0
    backoff_seconds: float = 1.0
    timeout_seconds: float | None = None
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cwd: Path = Path()
    output_file: Path | None = None
    sla: SlaLimit | None = None
    locks: frozenset[str] = frozenset()
    exclusive: bool = False
    memory_bytes: int = 0
    slots: int = 1
    expected_seconds: float | None = None
    expected_task_seconds: float | None = None
    fastest_task_seconds: float | None = None
    remaining_seconds: float = 0.0
    skip: str = ""
    fault: str = ""
    template: Commands | None = None
    junit: bool = False
    scope: Scope = Scope.ALL
    never_succeeded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many workers a lane may have at once; `minimum == maximum` for a fixed number."""

    minimum: int
    maximum: int
    start: int

    @property
    def fixed(self) -> bool:
        return self.minimum == self.maximum


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One lane, ready to run. `stages` stand in the order of the longest remaining path, ties by number.

    `partial`: the command line left out stages, or gave some of them arguments. Such a run has no limit on its total.
    """

    project: str
    lane: str
    strategy: Strategy
    workers: Bounds
    stages: tuple[PlannedStage, ...]
    total: SlaLimit | None = None
    fail_fast: bool = False
    root: Path = Path()
    notes: tuple[str, ...] = ()
    partial: bool = False
