"""`log`: print the kept output of a run's tasks, also while it runs."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TextIO

from msgspec import Struct

from paropt_exporter import files
from paropt_exporter.cli.formatting import format_line, format_seconds
from paropt_exporter.cli.streams import is_write_error
from paropt_exporter.errors import UsageError, join_names
from paropt_exporter.executors.commands.output import clean_output
from paropt_exporter.task_logs.log_reader import DAMAGE_ERRORS, LoggedAttempt, LogReader, list_runs, open_log

_LATEST = "latest"
_KNOWN_RUNS = 5  # in an error message
_SEARCHED_RUNS = 20  # for a stage that the latest run lacks; not more, since logs may be large
_YEAR_DIGITS = 4  # an id begins with a year; fewer digits may be a stage's number
_FOLLOW_SECONDS = 0.2  # between two reads of a growing log


class LogRequest(Struct, frozen=True, kw_only=True):
    """The output to print. `words` name a run, a stage, or both in this order."""

    words: tuple[str, ...] = ()
    lane: str | None = None
    failed: bool = False
    follow: bool = False


class _Filter(Struct, frozen=True):
    """Selects attempts of a run: those of a stage, or of an item, by `word`; "" for all.

    The word is the name of a stage or `NAME[ITEM]`, with the name of an item, a part of it, or the item's number.
    `failed`: only those that failed, which `matches` leaves open, since it is known only at their end.
    """

    word: str
    failed: bool

    @property
    def stage(self) -> str:
        return self.word.partition("[")[0]

    @property
    def item(self) -> str:
        return self.word.partition("[")[2].removesuffix("]")

    def matches(self, attempt: LoggedAttempt) -> bool:
        if self.word in ("", attempt.stage):  # the name of a stage may have brackets
            return True
        return attempt.stage == self.stage and self._matches_item(attempt)

    def matches_while_running(self, attempt: LoggedAttempt) -> bool:
        """Return whether it is selected, as far as this is known before all items have begun: a number is no part."""
        is_meant = not self.item.isdecimal() or self.item in (str(attempt.task), attempt.item)
        return self.matches(attempt) and (is_meant or attempt.stage == self.word)

    def _matches_item(self, attempt: LoggedAttempt) -> bool:
        return self.item in ("", str(attempt.task)) or (attempt.item is not None and self.item in attempt.item)


def run(
    folder: Path,
    wanted: LogRequest,
    *,
    lives: Callable[[str], bool],
    stdout: TextIO,
    stderr: TextIO,
    wait: Callable[[float], object] | None = None,
    load_sequences: Callable[[list[str]], Mapping[str, int]] = lambda _: {},
) -> int:
    """Print the requested output from the logs in `folder`. Returns 0. With `follow` it blocks until the run has ended.

    `lives` returns whether the process of a run, by its id, is alive. `wait` waits for a number of seconds.
    `load_sequences` returns the place of each run in the order of starts, if the history has it. Raises UsageError if
    the run or the stage has no log.
    """
    run_id, stage = _resolve_words(folder, wanted, load_sequences)
    choice = _Filter(stage, wanted.failed)
    try:
        with closing(open_log(folder, run_id)) as file:
            reader = LogReader(file)
            if wanted.follow:
                _follow(reader, choice, lambda: lives(run_id), stdout, wait or threading.Event().wait)
            else:
                _print(reader, choice, run_id, folder, stdout, stderr)
    except OSError as error:
        if is_write_error(error, stdout):
            raise
        raise UsageError(f"the log of run {run_id} can't be read: {error.strerror or error}") from None
    except DAMAGE_ERRORS as error:
        raise UsageError(f"the log of run {run_id} is damaged: {error}") from None
    return 0


def _resolve_words(
    folder: Path, wanted: LogRequest, load_sequences: Callable[[list[str]], Mapping[str, int]]
) -> tuple[str, str]:
    """Return the run and the stage that the words name, with "" for all stages."""
    if len(wanted.words) > 2:
        raise UsageError(f"log takes a run and a stage, found {len(wanted.words)} words")
    runs = list_runs(folder)
    if not runs:
        if denied := files.find_denied_listing(folder):
            raise UsageError(f"cannot read {folder}: {denied}")
        raise UsageError(f"no logs yet in {folder}: run a lane first (`history: {{logs: false}}` keeps none)")
    if wanted.lane is not None and not (runs := [each for each in runs if _read_lane(folder, each) == wanted.lane]):
        raise UsageError(f"no log of a run of lane {wanted.lane}")
    runs = _move_latest_to_end(runs, load_sequences(runs))
    words = list(wanted.words)
    if not words:
        return runs[-1], ""
    found = _find_run(words[0], runs)
    if found is not None:
        return found, words[1] if len(words) > 1 else ""
    if len(words) > 1 or (len(words[0]) >= _YEAR_DIGITS and any(each.startswith(words[0]) for each in runs)):
        latest = ", ".join(runs[-_KNOWN_RUNS:])
        # Ids of runs begin with a digit, the names of most stages do not.
        is_stage = len(words) > 1 and not words[0][:1].isdigit()
        item = f"; an item stands in brackets: log {shlex.quote(f'{words[0]}[{words[1]}]')}" if is_stage else ""
        raise UsageError(f"no log, or more than one, matches run {words[0]!r}; the latest are {latest}{item}")
    return runs[-1], words[0]


def _move_latest_to_end(runs: list[str], sequences: Mapping[str, int]) -> list[str]:
    """Put the run that began last at the end. The order of names can be wrong within a second, or if a clock was set
    back.

    A run that the history lacks counts as newer if its name comes last.
    """
    if runs[-1] not in sequences:
        return runs
    latest = max(sequences, key=sequences.__getitem__)
    return [*(each for each in runs if each != latest), latest]


def _find_run(word: str, runs: list[str]) -> str | None:
    """Return the run with this id or unambiguous prefix of an id, or None."""
    if word == _LATEST:
        return runs[-1]
    fitting = [each for each in runs if each.startswith(word)]
    return fitting[0] if len(fitting) == 1 and word[:1].isdigit() else None


def _read_lane(folder: Path, run_id: str) -> str:
    """Return the lane of a run; "" if its log is damaged or missing."""
    try:
        with closing(open_log(folder, run_id)) as file:
            reader = LogReader(file)
            for _ in reader.read():
                break
            return reader.lane
    except (OSError, *DAMAGE_ERRORS):
        return ""


def _print(reader: LogReader, choice: _Filter, run_id: str, folder: Path, stdout: TextIO, stderr: TextIO) -> None:
    attempts = reader.read_all()
    chosen = _choose_attempts(attempts, choice)
    if not chosen:
        _explain_no_output(attempts, choice, run_id, folder, stderr)
    for attempt in chosen:
        output = clean_output(reader.read_output(attempt))
        if len(chosen) > 1:
            stdout.write(f"--- {_format_heading(attempt)}\n")
        elif not output:
            stderr.write(f"run {run_id}: no output of {_format_heading(attempt)}\n")
        stdout.write(output if output.endswith("\n") or not output else f"{output}\n")


def _choose_attempts(attempts: list[LoggedAttempt], choice: _Filter) -> list[LoggedAttempt]:
    """Return the attempts of the stage or of the item with this name, of the item with this number, or else of all
    items whose names contain the word.
    """
    own = [attempt for attempt in attempts if choice.matches(attempt)]
    whole = [attempt for attempt in own if attempt.stage == choice.word]
    named = [attempt for attempt in own if attempt.item == choice.item]
    meant = whole or named or [attempt for attempt in own if str(attempt.task) == choice.item] or own
    return [attempt for attempt in meant if attempt.failed or not choice.failed]


def _explain_no_output(
    attempts: list[LoggedAttempt], choice: _Filter, run_id: str, folder: Path, stderr: TextIO
) -> None:
    """Raise UsageError for an unknown stage or item, otherwise print that there is no output."""
    stages = dict.fromkeys(attempt.stage for attempt in attempts)
    if choice.word and choice.word not in stages and choice.stage not in stages:
        earlier = _find_run_of_stage(folder, choice.stage, before=run_id)
        known = f": choose from {join_names([*stages])}" if stages else ""
        remedy = f"; the last one with it: log {earlier} {shlex.quote(choice.stage)}" if earlier else known
        raise UsageError(f"run {run_id} has no output of a stage {choice.stage!r}{remedy}")
    own = [attempt for attempt in attempts if attempt.stage == choice.stage]
    if choice.item and choice.word not in stages and not any(choice.matches(attempt) for attempt in own):
        items = dict.fromkeys(attempt.item or str(attempt.task) for attempt in own)
        raise UsageError(
            f"run {run_id} has no output of an item {choice.item!r} of {choice.stage}: choose from "
            f"{format_line(join_names([*items]))}"
        )
    stderr.write(f"run {run_id}: {'nothing failed' if choice.failed else 'no output'}\n")


def _find_run_of_stage(folder: Path, stage: str, *, before: str) -> str | None:
    """Return the last run before `before` that has output of a stage, among the latest runs; None if there is none."""
    runs = list_runs(folder)
    earlier = runs[: runs.index(before)] if before in runs else []
    for run_id in reversed(earlier[-_SEARCHED_RUNS:]):
        with suppress(OSError, *DAMAGE_ERRORS), closing(open_log(folder, run_id)) as file:
            if any(attempt.stage == stage for attempt in LogReader(file).read_all()):
                return run_id
    return None


def _format_heading(attempt: LoggedAttempt) -> str:
    """Return the line above an attempt's output."""
    name = attempt.label if attempt.item is None else f"{attempt.label} {attempt.item}"
    number = f", attempt {attempt.number}" if attempt.number > 1 else ""
    if attempt.result is None:
        return f"{format_line(name)}{number}, no end recorded"
    message = f": {attempt.message}" if attempt.message else ""
    return format_line(f"{name}{number}, {attempt.result.value} after {format_seconds(attempt.seconds)}{message}")


def _follow(
    reader: LogReader, choice: _Filter, lives: Callable[[], bool], stdout: TextIO, wait: Callable[[float], object]
) -> None:
    lines = _LinePrinter(reader, choice, stdout)
    while True:
        gone = not lives()  # before the last read, so that no output is lost
        lines.print_new()
        if gone or reader.over:
            lines.print_rest()
            return
        wait(_FOLLOW_SECONDS)


class _LinePrinter:
    """Prints new output in whole lines. The unfinished last line of each attempt is kept until it ends."""

    def __init__(self, reader: LogReader, choice: _Filter, stdout: TextIO) -> None:
        self._reader = reader
        self._choice = choice
        self._stdout = stdout
        self._begun: dict[str, bytes] = {}  # by task label: a task has one attempt at a time

    def print_new(self) -> None:
        for attempt, position, size in self._reader.read():
            if not self._choice.failed and self._choice.matches_while_running(attempt):
                self._print(attempt.label, self._reader.read_piece(position, size))
        self._stdout.flush()

    def print_rest(self) -> None:
        """Print unfinished lines; with `failed`, the output of failed attempts, which are known only at the end."""
        if self._choice.failed:
            for attempt in _choose_attempts([*self._reader.attempts.values()], self._choice):
                self._print(attempt.label, self._reader.read_output(attempt))
                self._end_line(attempt.label)
        for label in list(self._begun):
            self._end_line(label)
        self._stdout.flush()

    def _end_line(self, label: str) -> None:
        if label in self._begun:
            self._print(label, b"\n")

    def _print(self, label: str, output: bytes) -> None:
        *lines, begun = (self._begun.pop(label, b"") + output).split(b"\n")
        if begun:
            self._begun[label] = begun
        prefix = "" if self._choice.stage == label else f"{format_line(label)} | "
        self._stdout.writelines(f"{prefix}{clean_output(line)}\n" for line in lines)
