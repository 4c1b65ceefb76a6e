"""What is asked of the exporter, and where a person watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from paropt_exporter.engine import Observer
from paropt_exporter.engine.interfaces import Stop
from paropt_exporter.events import LiveStage, RunRecord, Strategy
from paropt_exporter.plan import Bounds, Plan, Selection

if TYPE_CHECKING:
    from paropt_exporter.reports import ReportOption


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for; None: as the config says. `root` is where a project without a config lives.

    `enter_root`: the config was found in a folder above, and the lane runs as if it had been started there.
    """

    config_path: Path | None
    root: Path
    lane: str
    once: bool
    enter_root: bool = False
    every_seconds: float | None = None
    linger_seconds: float | None = None
    selection: Selection = field(default_factory=Selection)
    arguments: tuple[str, ...] = ()
    failed_only: bool = False
    fail_fast: bool | None = None
    strategy: Strategy | None = None
    workers: Bounds | None = None
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
    """Where a person watches: an observer that is also told what no record says."""

    @property
    def fault(self) -> str | None:
        """Why a summary could not be written, if one couldn't."""

    @property
    def is_shown(self) -> bool:
        """Whether the readers have taken everything."""

    @property
    def write_count(self) -> int:
        """How many writes the readers have taken so far."""

    def notify_when_shown(self, tell: Callable[[], None]) -> None:
        """Call `tell`, from another thread, each time that the readers have taken everything."""

    def say(self, sentence: str) -> None:
        """Show one line."""

    def show(self, text: str) -> None:
        """Show lines as they are, for a program that reads them."""

    def begin_run(self, plan: Plan, live: Callable[[], tuple[LiveStage, ...]]) -> None:
        """A run is about to start; `live` tells how its stages stand."""

    def show_stopping(self, stop: Stop, stages: int) -> None:
        """Show that a run begins to stop while so many stages run."""

    def end_run(self, record: RunRecord, *, metrics_url: str, until: str, keeps_output: bool) -> None:
        """Show the summary of a run that has ended.

        `until`: when the endpoint ends, which still serves. `keeps_output`: whether the output of tasks is kept.
        """
