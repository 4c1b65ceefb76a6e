"""The request to the exporter, and the protocol of the screen that shows its progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from paropt_exporter.engine.interfaces import Stop
from paropt_exporter.engine.observers import Observer
from paropt_exporter.events import LiveStage, RunRecord
from paropt_exporter.plan import Plan, PlanOptions

if TYPE_CHECKING:
    from paropt_exporter.engine.workers import OutputLogs
    from paropt_exporter.reports import ReportOption

READER_SECONDS = 2.0  # for a stalled reader of the screen, once the exporter has to end


class Request(Struct, frozen=True, kw_only=True):
    """The settings of the command line; None leaves a setting to the config.

    `lane` may be `auto`; None: the one that has the selected stages. `options`: those of each plan, without
    `affected_by` and `retry`, which are found when a run is planned. `root`: the folder of a project without a config.
    `enter_root`: the config is in a folder above; run there. `affected`: run only the stages that the changes since
    `affected_ref` affect (None: since where the branch left its target). `watch`: run stages again when their inputs
    change. `no_cache`: run cached stages too, and replace their results.
    """

    config_path: Path | None
    root: Path
    lane: str | None
    once: bool
    watch: bool = False
    enter_root: bool = False
    every_seconds: float | None = None
    linger_seconds: float | None = None
    options: PlanOptions = field(default_factory=PlanOptions)
    failed_only: bool = False
    deadline_seconds: float | None = None
    affected: bool = False
    affected_ref: str | None = None
    no_cache: bool = False
    addresses: tuple[str, ...] = ()
    telemetry_path: str | None = None
    max_requests: int | None = None
    exporter_metrics: bool | None = None
    web_config: Path | None = None
    systemd_socket: bool = False
    push_url: str | None = None
    push_fail: bool = False
    push_instance: str | None = None
    textfile: Path | None = None
    reports: tuple[ReportOption, ...] = ()


class Screen(Observer, Protocol):
    """An observer that shows a run to a person, with facts that no event has."""

    @property
    def fault(self) -> str | None:
        """The reason why a summary could not be written, or None."""

    @property
    def is_shown(self) -> bool:
        """Whether all output is written."""

    @property
    def write_count(self) -> int:
        """The number of completed writes."""

    def notify_when_shown(self, tell: Callable[[], None]) -> None:
        """Call `tell`, from another thread, each time that all output is written."""

    def add_live_output(self, logs: OutputLogs | None) -> OutputLogs | None:
        """Return the logs, or some that also show output while a task runs."""

    def say(self, sentence: str) -> None:
        """Show one line."""

    def inform(self, sentence: str) -> None:
        """Show one line that a quiet screen leaves out."""

    def show_commands(self, text: str) -> None:
        """Show lines with commands for GitHub's runner, in which foreign text is escaped."""

    def fold_outputs(self, format_group: Callable[[str, str], str]) -> None:
        """Show failed tasks' outputs as lines, which `format_group` returns for a title and an output."""

    def begin_run(self, plan: Plan, live: Callable[[], tuple[LiveStage, ...]]) -> None:
        """Show the start of a run. `live` returns snapshots of its stages."""

    def show_stopping(self, stop: Stop, stages: int) -> None:
        """Show that a run begins to stop while so many stages run."""

    def end_run(self, record: RunRecord, *, metrics_url: str, until: str, keeps_output: bool) -> None:
        """Show the summary of a run that has ended.

        `until`: when the endpoint ends, which still serves. `keeps_output`: whether the output of tasks is kept.
        """
