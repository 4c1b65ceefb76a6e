"""Show the output of a task line by line while it runs, if it runs alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paropt_exporter.cli.formatting import format_line
from paropt_exporter.executors.commands.output import OutputSink, clean_output

if TYPE_CHECKING:
    from paropt_exporter.engine.workers import OutputLogs
    from paropt_exporter.plan import Plan

_MOST_BYTES = 1 << 16  # of a line that is not shown yet


class LiveOutput:
    """Opens sinks that show output in addition to those of the logs, for the stage that runs alone.

    That is the stage of one task which needs all others of the plan, directly or not, so that they have ended before.
    """

    def __init__(self, logs: OutputLogs | None, *, show: Callable[[str], None], begin: Callable[[str], None]) -> None:
        """`begin` shows the heading of an attempt, `show` a line of its output; any thread may call both."""
        self._logs = logs
        self._show = show
        self._begin = begin
        self._alone = ""
        self._shown: set[int] = set()  # attempts

    def begin_run(self, plan: Plan) -> None:
        self._alone, self._shown = find_lone_stage(plan), set()

    @property
    def has_begun(self) -> bool:
        """Whether the last task of the run has begun."""
        return bool(self._shown)

    def has_shown(self, stage: str, attempt: int) -> bool:
        return stage == self._alone and attempt in self._shown

    def open_sink(self, stage: str, task: int, label: str, item: str | None, attempt: int) -> OutputSink | None:
        kept = None if self._logs is None else self._logs.open_sink(stage, task, label, item, attempt)
        if stage != self._alone:
            return kept
        self._shown.add(attempt)
        return _LiveSink(kept, show=self._show, begin=lambda: self._begin(stage))


def find_lone_stage(plan: Plan) -> str:
    """Return the stage that needs all others of a plan, directly or not, if it has one task, or ""."""
    stages = [stage for stage in plan.stages if not stage.skip]
    needed = {need for stage in stages for need in stage.needs}
    last = [stage for stage in stages if stage.name not in needed]
    return last[0].name if len(last) == 1 and len(last[0].tasks) == 1 else ""


class _LiveSink:
    """Shows each line when it is complete, and gives all output to the sink of the logs."""

    def __init__(self, kept: OutputSink | None, *, show: Callable[[str], None], begin: Callable[[], None]) -> None:
        self._kept = kept
        self._show = show
        self._begin = begin
        self._has_begun = False
        self._pending = b""

    def write(self, chunk: bytes) -> None:
        if self._kept is not None:
            self._kept.write(chunk)
        complete, newline, rest = (self._pending + chunk).rpartition(b"\n")
        self._pending = rest
        if newline:
            self._show_lines(complete)
        if len(self._pending) > _MOST_BYTES:
            self._show_pending()

    def close(self, tail_of: Callable[[], bytes]) -> None:
        if self._kept is not None:
            self._kept.close(tail_of)
        if self._pending:
            self._show_pending()
        if self._has_begun:
            self._show("---")

    def _show_pending(self) -> None:
        pending, self._pending = self._pending, b""
        self._show_lines(pending)

    def _show_lines(self, output: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._begin()
        self._show("\n".join(map(format_line, clean_output(output).split("\n"))))
