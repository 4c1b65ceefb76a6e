"""Show a running lane to a person: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from paropt_exporter import logs
from paropt_exporter.cli import summary
from paropt_exporter.cli.formatting import format_line, format_seconds, wrap_for_terminal
from paropt_exporter.cli.live_output import LiveOutput
from paropt_exporter.cli.streams import LineStream, get_raw_stream, is_same_file
from paropt_exporter.cli.writer import BackgroundWriter
from paropt_exporter.clock import Clock, SystemClock
from paropt_exporter.engine.interfaces import Stop
from paropt_exporter.errors import format_count, shorten
from paropt_exporter.events import (
    Decision,
    Event,
    LiveStage,
    Result,
    RunRecord,
    SlaRecord,
    StageRecord,
    StageStarted,
    TaskRecord,
)
from paropt_exporter.executors.commands.output import is_cut
from paropt_exporter.plan import Flakiness, Plan
from paropt_exporter.terminal import GREEN, RED, YELLOW, paint, paint_summary, visible, wants_color

if TYPE_CHECKING:
    from rich.console import Console, Group

    from paropt_exporter.engine.workers import OutputLogs

log = logging.getLogger(__name__)

SIGN_OF_LIFE_SECONDS = 30.0  # CI systems cancel jobs without output for minutes
_RICH_STYLES = {"": "none", RED: "red", YELLOW: "yellow", GREEN: "green"}
_TIME_COLUMNS = 9  # of the time of day and a space before each line
_MOST_FAILED_TASKS = 3  # of a stage: as many as the summary has findings, each with its output of up to 64 KiB
_SHOWN_LINES = 40  # the last lines of a failed task's output: about a screenful
_FOLDED_LINES = 200  # of folded output
_COLUMNS_OF_TABLE = 7
_NAME = 1  # the column of the names
_FEWEST_COLUMNS_OF_TABLE = 4  # the name, ended tasks and seconds
_WIDTH_OF_ALL_COLUMNS = 60  # of a terminal, with some 20 columns for the names
_SHOWN_CHARACTERS = 1000  # of each line; all of the kept output may be one line


class ConsoleScreen:
    """An observer that shows progress on `err` and the summary on `out`.

    Guarantees: no method but `close` waits for a reader; control characters in output of tasks never reach the
    terminal. Both streams share one thread if they are the same file, which keeps their order.
    """

    def __init__(
        self,
        *,
        out: TextIO,
        err: TextIO,
        verbose: bool,
        json_output: bool,
        json_logs: bool = False,
        quiet: bool = False,
        again: str = "--failed",
        log_flags: str = "log --failed",
        color: Callable[[bool], bool] = lambda _: False,
        refresh_seconds: float = 0.25,
    ) -> None:
        self._out = LineStream(out)
        self._err = LineStream(err)
        self._verbose = verbose
        self._quiet = quiet
        self._again = again
        self._log_flags = log_flags
        self._folder = ""  # the project's, once a run has begun
        self._output_cut = False  # whether failed tasks printed more than was shown
        self._out_colored, self._err_colored = color(self._out.is_terminal), color(self._err.is_terminal)
        self._json_output = json_output
        self._json_logs = json_logs
        self._format_group: Callable[[str, str], str] | None = None
        self._default_limits: frozenset[str] = frozenset()  # lanes' default limits that no line has mentioned yet
        self._failed: dict[str, list[TaskRecord]] = {}  # by stage, the bad tasks that the summary describes
        self._progress = _Progress()
        self._usual: dict[str, float] = {}  # seconds by stage, from its last runs
        self._flakiness: dict[str, Flakiness] = {}
        self._clock = SystemClock()
        self._refresh_seconds = refresh_seconds
        self._live_output: LiveOutput | None = None
        self._table: _LiveTable | None = None  # only the thread that writes to `err` uses it
        self._tell_shown: Callable[[], None] | None = None
        self._err_writer = BackgroundWriter("paropt-stderr", say=self._write_line, tell_idle=self._on_idle)
        self._out_writer = self._err_writer
        if not is_same_file(out, err):
            self._out_writer = BackgroundWriter("paropt-stdout", say=self._out.write_line, tell_idle=self._on_idle)

    @property
    def fault(self) -> str | None:
        """The reason why a summary could not be written, or None."""
        return self._out.fault

    @property
    def is_shown(self) -> bool:
        """Whether all output is written."""
        return self._err_writer.is_idle and self._out_writer.is_idle

    @property
    def write_count(self) -> int:
        """The number of completed writes."""
        return self._err_writer.write_count + self._out_writer.write_count

    def notify_when_shown(self, tell: Callable[[], None]) -> None:
        """Call `tell`, from another thread, whenever all output is written."""
        self._tell_shown = tell

    def close(self, timeout_seconds: float) -> bool:
        """Wait until all output is written, or until no reader makes progress. Return whether it is written."""
        shown = self._err_writer.wait(timeout_seconds)
        return self._out_writer.wait(timeout_seconds) and shown

    def add_live_output(self, logs: OutputLogs | None) -> OutputLogs | None:
        """Return the logs, or some that also show the output of a task that runs alone, if all output is shown."""
        if not self._verbose or self._json_logs:
            return logs
        self._live_output = LiveOutput(logs, show=self.show, begin=lambda name: self._show_line(f"--- {name}"))
        return self._live_output

    def say(self, sentence: str) -> None:
        columns = None if self._json_logs else self._err.columns
        lines = wrap_for_terminal(f"{'':{_TIME_COLUMNS}}{sentence}", columns, _TIME_COLUMNS)
        self._show_line("\n".join(lines)[_TIME_COLUMNS:])

    def inform(self, sentence: str) -> None:
        if not self._quiet:
            self.say(sentence)

    def show(self, text: str) -> None:
        self._queue_write(lambda: self._write_text(text), text)

    def show_commands(self, text: str) -> None:
        self._queue_write(lambda: self._err.write_commands(text), text)

    def fold_outputs(self, format_group: Callable[[str, str], str]) -> None:
        self._format_group = format_group

    def begin_run(self, plan: Plan, live: Callable[[], tuple[LiveStage, ...]]) -> None:
        for writer, stream in ((self._err_writer, self._err), (self._out_writer, self._out)):
            writer.put(stream.resume)
        self._failed = {}
        self._output_cut = False
        if self._live_output is not None and self._format_group is None:
            self._live_output.begin_run(plan)
        with suppress(OSError):  # it was deleted
            self._folder = os.getcwd()  # noqa: PTH109 -- a text
        self._default_limits = plan.default_limits
        known = {} if plan.partial else {stage.name: stage.expected_seconds for stage in plan.stages}
        self._usual = {stage: seconds for stage, seconds in known.items() if seconds is not None}
        self._flakiness = {stage.name: stage.flakiness for stage in plan.stages if stage.flakiness is not None}
        self._progress = _Progress(stage.name for stage in plan.stages if not stage.skip)
        stages = self._progress.stages
        if self._quiet:
            return
        fields = {"event": "run_started", "lane": plan.lane, "stages": stages, "strategy": plan.strategy.value}
        shard = ""
        if plan.shard is not None:
            shard = f" shard {plan.shard} of split {plan.shard.split}"
            fields |= {"shard": str(plan.shard), "split": plan.shard.split}
        self._show_line(
            f"lane {plan.lane}{shard}: {format_count(stages, 'stage')}, {plan.strategy.value}", fields=fields
        )
        self._err_writer.put(lambda: self._start_progress(live))

    def observe(self, event: Event) -> None:
        self._progress.observe(event)
        match event:
            case StageStarted() if self._verbose:
                fields = {"event": "stage_started", "stage": event.stage, "pool": event.pool}
                self._show_line(f"{event.stage} started on {event.pool}", fields=fields)
            case TaskRecord():
                self._show_task(event)
            case SlaRecord():
                what = event.stage or f"lane {event.lane}"
                word = f"broke its SLA of {event.limit.max_seconds:g} s"
                near = f"has run {event.limit.warn_seconds:g} s of the {event.limit.max_seconds:g} s its SLA allows"
                origin, key = "", "sla" if event.stage else "total"
                if (event.stage or "") in self._default_limits:
                    self._default_limits = frozenset()  # one line mentions them
                    off = f"lanes: {{{event.lane}: {{{key}: null}}}}"
                    origin = f" (the lane's default; `{off}` in paropt.yml turns it off)"
                self._show_line(f"{what} {word if event.broken else near}{origin}", YELLOW, _describe_limit(event))
            case StageRecord():
                self._show_stage(event)
            case Decision() if self._verbose and not (self._live_output and self._live_output.has_begun):
                moved = event.old_size != event.new_size
                size = f"{event.old_size} -> {event.new_size}" if moved else f"stays at {event.new_size}"
                self._show_line(f"pool {event.pool} {size} ({event.reason})", fields=_describe_decision(event))
            case RunRecord():
                self._err_writer.put(self._stop_progress)
            case _:
                pass

    def show_stopping(self, stop: Stop, stages: int) -> None:
        verb = "killing" if stop.now else "stopping"
        again = ", again to kill" if stop.interrupted and not stop.now else ""
        what = f"{verb} {format_count(stages, 'stage')}{again}" if stages else "no stage is running"
        fields = {"event": verb, "reason": stop.reason, "stages": stages}
        self._show_line(f"{stop.reason}: {what}", YELLOW, fields)

    def end_run(self, record: RunRecord, *, metrics_url: str, until: str = "", keeps_output: bool = False) -> None:
        if self._json_output:
            from paropt_exporter.reports import run_json

            text = run_json.render_summary(record)
        else:
            serving = f"{metrics_url} until {until}" if metrics_url and until else metrics_url
            text = summary.format_summary(
                record,
                self._failed,
                metrics_url=serving,
                again=self._again,
                log_flags=self._log_flags if keeps_output and self._output_cut else "",
                usual=self._usual,
                flakiness=self._flakiness,
                folder=self._folder,
                columns=self._out.columns,
            )
        if self._json_logs:
            log.info(summary.format_headline(record), extra=_describe_run(record))
        self._err_writer.put(self._stop_progress)
        self._out_writer.put(lambda: self._write_summary(text), characters=len(text), lines=text.count("\n") + 1)

    def _keep_failed(self, record: TaskRecord) -> None:
        """Keep a bad task. If many stages failed, the summary shows one finding of each, so one task is enough."""
        kept = self._failed.setdefault(record.stage, [])
        if not kept or (len(kept) < _MOST_FAILED_TASKS and len(self._failed) <= summary.FEW_BAD):
            kept.append(record)

    def _show_task(self, record: TaskRecord) -> None:
        if record.result.bad and record.final:
            self._keep_failed(record)
        if not record.final:
            message = format_line(record.message[: summary.MESSAGES_WIDTH])
            # The message about a batch begins with its failed items.
            named = record.item is not None and record.message.startswith(record.item)
            name = record.stage if named else _format_name(record)
            self._show_line(
                f"{name}: {message}, attempt {record.attempt + 1} follows",
                fields=_describe_task(record),
            )
        live = self._live_output
        if live is not None and live.has_shown(record.stage, record.attempt):
            return
        if self._verbose or (record.result.bad and record.final):
            self._show_output(record)

    def _show_output(self, record: TaskRecord) -> None:
        lines = [format_line(line) for line in record.output.rstrip().splitlines()]
        if not lines:
            return
        fold = self._format_group if record.result.bad and not self._json_logs else None
        most = _FOLDED_LINES if fold else _SHOWN_LINES
        shown = lines if self._verbose else [shorten(line, _SHOWN_CHARACTERS) for line in lines[-most:]]
        name = _format_name(record)
        where = f", whole in {record.output_path}" if record.output_path else ""
        total = "" if is_cut(record.output) else f" of {len(lines)}"
        cut = f", last {len(shown)}{total} lines{where}" if len(shown) < len(lines) else ""
        is_whole = shown == lines and not is_cut(record.output)
        self._output_cut = self._output_cut or (not is_whole and not where and record.result.bad)
        if fold is not None:
            message = format_line(record.message[: summary.MESSAGES_WIDTH])
            self.show_commands(fold(f"{name}: {message}{cut}", "\n".join(shown)))
        else:
            self._show_line("\n".join([f"--- {name}{cut}", *shown, "---"]), fields=_describe_task(record))

    def _show_stage(self, record: StageRecord) -> None:
        if self._quiet and not record.result.bad:
            return
        took = format_seconds(record.duration_seconds)
        message = format_line(record.message[: summary.MESSAGES_WIDTH])
        fields = _describe_stage(record)
        if record.result is Result.SKIP:
            self._show_line(f"{record.stage} skipped: {message}", fields=fields)
        elif record.cached:
            self._show_line(f"{record.stage} cached: {summary.format_saved(record)}", fields=fields)
        elif record.result is Result.SUCCESS:
            usual = summary.find_usual_seconds(record, self._usual)
            slower = f", usually {format_seconds(usual)}" if usual else ""
            text = f"{record.stage} succeeded in {took}{slower}{summary.format_cache(record)}"
            if record.quarantined:
                text += f"; {summary.format_quarantined(record)}"
            self._show_line(text, fields=fields)
        else:
            word = "failed" if record.result.bad else "ended"  # the message says how: timed out, killed, stopped
            color = RED if record.result.bad else ""
            self._show_line(f"{record.stage} {word} after {took}: {message}", color, fields)

    def _show_line(self, text: str, color: str = "", fields: Mapping[str, object] | None = None) -> None:
        """Show a line. `fields` are its facts for JSON logs."""
        if self._json_logs:
            log.info(text, extra=fields)  # a log collector reads stderr, where each line must be a JSON object
            return
        line = f"{_format_time_of_day(self._clock)} {text}"
        self._queue_write(lambda: self._write_text(line, color), line)

    def _queue_write(self, write: Callable[[], None], text: str) -> None:
        self._err_writer.put(write, characters=len(text) or 1, lines=text.count("\n") + 1)

    # The methods below run on the writers' threads.

    def _on_idle(self) -> None:
        if self._tell_shown is not None and self.is_shown:
            self._tell_shown()

    def _write_text(self, text: str, color: str = "") -> None:
        color = color if self._err_colored else ""
        if self._table is not None:
            self._table.print(text, color)
        elif color:
            self._err.colored(paint(text, color))
        else:
            self._err.write_line(text)

    def _write_line(self, text: str) -> None:
        self._write_text(f"{_format_time_of_day(self._clock)} {text}")

    def _write_summary(self, text: str) -> None:
        if self._out_colored and not self._json_output:
            self._out.colored(paint_summary(text))
        else:
            self._out.write_line(text)
        if self._out.fault is not None:
            self._show_line(f"the summary could not be written: {self._out.fault}")

    def _start_progress(self, live: Callable[[], tuple[LiveStage, ...]]) -> None:
        if not self._err_writer.has_thread:
            return
        if self._err.is_terminal and not self._json_logs:
            console = _build_console(colored=self._err_colored)
            if console.is_terminal and not console.is_dumb_terminal:  # rich shows no table on dumb terminals
                self._table = _LiveTable(live, self._progress, console)
                self._err_writer.set_tick(self._table.refresh, self._refresh_seconds)
                return
        self._err_writer.set_tick(lambda: self._show_still_running(live), SIGN_OF_LIFE_SECONDS)

    def _stop_progress(self) -> None:
        self._err_writer.set_tick(None)
        table, self._table = self._table, None
        if table is not None:
            table.close()

    def _show_still_running(self, live: Callable[[], tuple[LiveStage, ...]]) -> None:
        running = ", ".join(f"{stage.stage} {stage.tasks_ended}/{stage.tasks}" for stage in live())
        others = f"; {self._progress}" if self._progress.waiting else ""
        self._show_line(f"still running: {running}{others}" if running else "still waiting")


class _Progress:
    """How many of a run's stages have ended, and how many wait.

    Stages that end without having run, such as cached and skipped ones, have ended.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._open = set(names)
        self._waiting = set(self._open)
        self.stages = len(self._open)

    @property
    def waiting(self) -> int:
        """The number of stages that have not started."""
        return len(self._waiting)

    def observe(self, event: Event) -> None:
        if isinstance(event, StageStarted | StageRecord):
            self._waiting.discard(event.stage)
        if isinstance(event, StageRecord):
            self._open.discard(event.stage)

    def __str__(self) -> str:
        ended = self.stages - len(self._open)
        verb = "waits" if self.waiting == 1 else "wait"
        return f"{ended} of {format_count(self.stages, 'stage')} ended, {self.waiting} {verb}"


class _LiveTable:
    """A live table of the running stages on a terminal, below the printed lines and stderr, and the lane's progress.

    Only one thread uses it. Others may print to stderr at the same time.
    """

    def __init__(self, live: Callable[[], tuple[LiveStage, ...]], progress: _Progress, console: Console) -> None:
        from rich.live import Live

        self._stages = live
        self._progress = progress
        self._rows: tuple[LiveStage, ...] = ()
        self._console = console
        self._view = Live(
            console=self._console,
            get_renderable=self._render,
            auto_refresh=False,  # rich's refresh thread acquires its locks in another order than a printing thread
            transient=True,
            redirect_stdout=False,
        )
        self._view.start()
        console.show_cursor()  # rich hides the cursor, and after Ctrl-Z or kill -9 the shell would have none

    def print(self, text: str, color: str = "") -> None:
        from rich.text import Text

        drawn, self._rows = self._rows, self._stages()
        with suppress(OSError), self._console:  # an OSError: the terminal is closed; the work goes on
            if [stage.stage for stage in drawn] != [stage.stage for stage in self._rows]:
                self._view.refresh()  # rich would print the line above the table as it was drawn last
            # Whole lines, which the terminal wraps, so that a copied line is the original. A style of `print` itself
            # would colour the table too.
            self._console.print(Text(visible(text), style=_RICH_STYLES[color]), soft_wrap=True)

    def refresh(self) -> None:
        self._rows = self._stages()  # outside of the console's lock, for which logging threads may wait
        with suppress(OSError), self._console:
            self._view.refresh()

    def close(self) -> None:
        with suppress(OSError), self._console:
            self._view.stop()

    def _render(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        shown = _COLUMNS_OF_TABLE if self._console.width >= _WIDTH_OF_ALL_COLUMNS else _FEWEST_COLUMNS_OF_TABLE
        for column in range(shown):
            table.add_column(no_wrap=column != _NAME)  # on a narrow terminal only names are cut
        room = self._console.height // 2  # ended stages are shown in the other half
        for stage in self._rows[:room]:
            mark, name, *others = _build_cells(stage)[:shown]
            style = "yellow" if _is_near_its_limit(stage) else "none"
            table.add_row(mark, Text(name, no_wrap=True, overflow="ellipsis"), *others, style=style)
        rest = [f"{left} more running"] if (left := len(self._rows[room:])) else []
        rest += [str(self._progress)] if self._progress.waiting else []
        # Below the table: as one of its cells it would be wrapped to the width of the names.
        line = Text(f"…  {'; '.join(rest)}", no_wrap=True, overflow="ellipsis")
        return Group(table, line) if rest else Group(table)


def _build_cells(stage: LiveStage) -> tuple[str, ...]:
    done = f"{stage.tasks_ended}/{stage.tasks}" if stage.tasks > 1 else ""
    elapsed, expected = stage.elapsed_seconds, stage.predicted_seconds
    about = f"of ~{expected:.0f} s" if expected is not None and expected >= max(elapsed, 1.0) else ""
    limit = f"limit {stage.sla.max_seconds:g} s" if stage.sla else ""
    share = f"{stage.cores:.1f} cores" if elapsed > 1 else ""
    return "·", visible(stage.stage), done, f"{elapsed:.0f} s", about, limit, share


def _is_near_its_limit(stage: LiveStage) -> bool:
    return stage.sla is not None and stage.elapsed_seconds >= stage.sla.warn_seconds


def _build_console(*, colored: bool) -> Console:
    """Return a console to which only one thread writes at a time.

    Rich computes the lines to erase before it writes. If a second thread wrote in between, a line would stay or be
    erased.
    """
    from rich.console import Console

    class OneAtATime(Console):
        def __enter__(self) -> Console:
            lock.acquire()
            return super().__enter__()

        def __exit__(self, *ended: Any) -> None:
            try:
                super().__exit__(*ended)
            finally:
                lock.release()

    lock = threading.RLock()  # guards: the terminal, from computing to writing
    return OneAtATime(file=get_raw_stream(sys.stderr), highlight=False, markup=False, no_color=not colored)


def _format_time_of_day(clock: Clock) -> str:
    return time.strftime("%H:%M:%S", time.localtime(clock.wall()))


def open_screen(
    *, verbose: bool, quiet: bool, json_output: bool, json_logs: bool, again: str, log_flags: str, color: str
) -> ConsoleScreen:
    """Return a screen on stdout and stderr that shows log lines, too. `quiet`: only failures, warnings, the summary."""
    screen = ConsoleScreen(
        out=sys.stdout,
        err=sys.stderr,
        verbose=verbose,
        quiet=quiet,
        json_output=json_output,
        json_logs=json_logs,
        again=again,
        log_flags=log_flags,
        color=lambda terminal: wants_color(color, os.environ, terminal=terminal),
    )
    logs.set_writer(screen.show)
    return screen


# Fields of JSON log lines, so that programs need not parse sentences.


def _describe_run(record: RunRecord) -> dict[str, object]:
    return {
        "event": "run_ended",
        "lane": record.lane,
        "run_id": record.run_id,
        "result": record.result.value,
        "duration_seconds": record.duration_seconds,
    }


def _describe_stage(record: StageRecord) -> dict[str, object]:
    return {
        "event": "stage_ended",
        "lane": record.lane,
        "stage": record.stage,
        "result": record.result.value,
        "duration_seconds": record.duration_seconds,
        "attempts": record.attempts,
        "reason": record.message,
        "tasks_cached": record.tasks_cached,
        "saved_seconds": record.saved_seconds,
        "cache_note": record.cache_note,
    }


def _format_name(record: TaskRecord) -> str:
    """Return the stage of a task, with its item."""
    if record.item is None:
        return record.stage
    return f"{record.stage} {format_line(record.item[: summary.MESSAGES_WIDTH])}"


def _describe_task(record: TaskRecord) -> dict[str, object]:
    return {
        "event": "task_ended",
        "lane": record.lane,
        "stage": record.stage,
        "task": record.task,
        "item": record.item,
        "attempt": record.attempt,
        "final": record.final,
        "result": record.result.value,
        "duration_seconds": record.duration_seconds,
        "exit_code": record.exit_code,
        "cached": record.cached,
    }


def _describe_limit(record: SlaRecord) -> dict[str, object]:
    return {
        "event": "sla_broken" if record.broken else "sla_warning",
        "lane": record.lane,
        "stage": record.stage,
        "elapsed_seconds": record.elapsed_seconds,
        "max_seconds": record.limit.max_seconds,
    }


def _describe_decision(decision: Decision) -> dict[str, object]:
    return {
        "event": "decision",
        "pool": decision.pool,
        "old_size": decision.old_size,
        "new_size": decision.new_size,
        "reason": decision.reason,
    }
