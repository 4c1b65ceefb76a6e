"""The live table on a terminal, while other threads print and log."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from msgspec.structs import replace

from paropt_exporter import logs
from paropt_exporter.cli import screen as screens
from paropt_exporter.cli.screen import ConsoleScreen
from paropt_exporter.events import LiveStage, Result, SlaLimit
from support import event_samples as samples
from support.lanes import plan, stage

LINES_EACH = 100


def shown(written: str) -> list[str]:
    """Return the lines on an endless terminal: rich moves up, erases lines and returns to their start."""
    lines, row, column = [""], 0, 0
    for move, up, text in re.findall(r"(\x1b\[(\d*)A|\x1b\[[0-9;?]*[A-Za-z]|\r|\n)|([^\x1b\r\n]+)", written):
        if text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
        elif move == "\n":
            row += 1
            lines.extend([""] * (row + 1 - len(lines)))
        elif move == "\r":
            column = 0
        elif move.endswith("A"):
            row = max(0, row - int(up or 1))
        elif move == "\x1b[2K":
            lines[row] = ""
    return lines


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 120) -> Iterator[Callable[[], str]]:
    """Replace stderr by a terminal. Yield a function that closes it and returns its output."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "100")
    master, slave = pty.openpty()
    chunks: list[bytes] = []

    def take() -> None:
        try:
            while chunk := os.read(master, 65536):
                chunks.append(chunk)
        except OSError:  # the other side is closed
            return

    reader = threading.Thread(target=take, name="terminal")
    reader.start()
    stream = os.fdopen(slave, "w", encoding="utf-8", buffering=1)

    def told() -> str:
        stream.close()
        reader.join(60)
        return b"".join(chunks).decode()

    monkeypatch.setattr("sys.stderr", stream)
    try:
        yield told
    finally:
        told()
        os.close(master)


def row(name: str) -> LiveStage:
    return LiveStage(
        lane="standard",
        stage=name,
        tasks=1,
        tasks_ended=0,
        started_timestamp_seconds=samples.START,
        cpu_seconds=0,
        memory_bytes=0,
        tasks_running=1,
    )


@pytest.mark.usefixtures("logger_as_before")
def test_lines_and_logs_of_many_threads_are_above_the_table_which_is_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heights = count()  # a table of another height each time
    drawn = threading.Event()

    def live() -> tuple[LiveStage, ...]:
        height = next(heights)
        if height > 20:
            drawn.set()
        return tuple(row(f"stage_{number}") for number in range(height % 7))

    with terminal(monkeypatch) as told:
        logs.configure("info", "logfmt")
        screen = ConsoleScreen(out=io.StringIO(), err=sys.stderr, verbose=False, json_output=False, refresh_seconds=0)
        screen.begin_run(plan(stage("lint")), live)
        assert drawn.wait(60)

        def say() -> None:
            for number in range(LINES_EACH):
                screen.say(f"said {number}")

        def log() -> None:
            for number in range(LINES_EACH):
                logging.getLogger("paropt_exporter.test").info("logged", extra={"number": number})

        threads = [threading.Thread(target=target, name=target.__name__) for target in (say, log, say, log)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        screen.end_run(samples.run_ended(), metrics_url="")
        assert screen.close(60)
        lines = [line for line in shown(told()) if line]
    begun, *rest = lines
    assert begun.endswith("lane standard: 1 stage, adaptive")
    assert len(rest) == 4 * LINES_EACH
    assert all(
        re.fullmatch(r"(\d\d:){2}\d\d said \d+ *|ts=\S+ level=info msg=logged number=\d+ *", line) for line in rest
    )


@pytest.mark.usefixtures("logger_as_before")
def test_word_wider_than_the_terminal_is_left_for_the_terminal_to_break(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/".join(["a_folder_of_a_long_path"] * 12) + "/test.py"
    with terminal(monkeypatch) as told:
        screen = ConsoleScreen(out=io.StringIO(), err=sys.stderr, verbose=False, json_output=False, refresh_seconds=0)
        screen.begin_run(plan(stage("lint")), tuple)
        screen.say(f"see {path}")
        screen.end_run(samples.run_ended(), metrics_url="")
        assert screen.close(60)
        assert any(line.endswith(f" {path}") for line in shown(told()))


def draw(monkeypatch: pytest.MonkeyPatch, rows: tuple[LiveStage, ...], columns: int = 120) -> str:
    """Return what a terminal of 100 lines gets while these stages run and the table is drawn three times."""
    drawn, looks = threading.Event(), count()

    def live() -> tuple[LiveStage, ...]:
        if next(looks) > 2:
            drawn.set()
        return rows

    with terminal(monkeypatch, columns) as told:
        screen = ConsoleScreen(out=io.StringIO(), err=sys.stderr, verbose=False, json_output=False, refresh_seconds=0)
        screen.begin_run(plan(stage("lint")), live)
        assert drawn.wait(60)
        screen.end_run(samples.run_ended(), metrics_url="")
        assert screen.close(60)
        return told()


@pytest.mark.usefixtures("logger_as_before")
def test_running_stages_beyond_half_the_terminal_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = draw(monkeypatch, tuple(row(f"stage_{number}") for number in range(75)))
    assert "stage_49" in written
    assert "stage_50" not in written
    assert "…  25 more running; 0 of 1 stage ended, 1 waits" in written


@pytest.mark.usefixtures("logger_as_before")
def test_table_has_the_time_and_cores_that_were_measured_whatever_the_wall_clock_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn, looks = threading.Event(), count()

    def live() -> tuple[LiveStage, ...]:
        if next(looks) > 2:
            drawn.set()
        return (replace(row("lint"), elapsed_seconds=12.0, cores=1.5, cpu_seconds=0.1),)

    with terminal(monkeypatch) as told:  # the stage began in another year
        screen = ConsoleScreen(out=io.StringIO(), err=sys.stderr, verbose=False, json_output=False, refresh_seconds=0)
        screen.begin_run(plan(stage("lint")), live)
        assert drawn.wait(60)
        screen.end_run(samples.run_ended(), metrics_url="")
        assert screen.close(60)
        assert re.search(r"lint +12 s +1\.5 cores", told())


@pytest.mark.usefixtures("logger_as_before")
def test_table_has_the_expected_duration_and_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = SlaLimit(max_seconds=20.0, warn_seconds=16.0)
    stages = (
        replace(row("lint"), elapsed_seconds=3.0, predicted_seconds=12.4, sla=limit),
        replace(row("overdue"), elapsed_seconds=15.0, predicted_seconds=14.0),
        replace(row("short"), elapsed_seconds=0.1, predicted_seconds=0.2),
    )
    lines = draw(monkeypatch, stages)
    assert re.search(r"lint +3 s +of ~12 s +limit 20 s +0\.0 cores", lines)
    assert re.search(r"overdue +15 s +0\.0 cores", lines)
    assert re.search(r"short +0 s\s", lines)


@pytest.mark.usefixtures("logger_as_before")
def test_each_stage_has_one_line_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = SlaLimit(max_seconds=30.0, warn_seconds=24.0)
    names = ("integration_tests_of_the_payments", "lint")
    stages = tuple(replace(row(name), elapsed_seconds=3.0, predicted_seconds=12.4, sla=limit) for name in names)
    written = draw(monkeypatch, stages, columns=40)
    assert re.search(
        r"·  integration_tests_of_the_paym…    3 s\s+·  lint +3 s\s+…  0 of 1 stage ended, 1 waits", written
    )


@pytest.mark.usefixtures("logger_as_before")
def test_table_counts_the_stages_that_ended_and_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = threading.Semaphore(0)

    def live() -> tuple[LiveStage, ...]:
        drawn.release()
        return (row("lint"),)

    with terminal(monkeypatch) as told:
        screen = ConsoleScreen(out=io.StringIO(), err=sys.stderr, verbose=False, json_output=False, refresh_seconds=0)
        screen.begin_run(plan(*(stage(name) for name in ("lint", "types", "unit", "docs"))), live)
        screen.observe(samples.stage_started("lint"))
        for _ in range(3):
            assert drawn.acquire(timeout=60)
        screen.observe(samples.stage_ended("types", result=Result.SKIP))
        screen.observe(samples.stage_ended("unit"))
        for _ in range(3):
            assert drawn.acquire(timeout=60)
        screen.end_run(samples.run_ended(), metrics_url="")
        assert screen.close(60)
        written = told()
    assert "…  0 of 4 stages ended, 3 wait" in written
    assert "…  2 of 4 stages ended, 1 waits" in written


@pytest.mark.usefixtures("logger_as_before")
def test_no_stage_is_shown_as_running_below_the_line_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    running = ["lint"]
    with terminal(monkeypatch) as told:
        screen = ConsoleScreen(
            out=io.StringIO(), err=sys.stderr, verbose=False, json_output=False, refresh_seconds=3600
        )
        screen.begin_run(plan(stage("lint")), lambda: tuple(map(row, running)))
        screen.say("it begins")
        assert screen.close(60)
        running[:] = ["types"]
        screen.say("lint has ended")
        screen.end_run(samples.run_ended(), metrics_url="")
        assert screen.close(60)
        _, _, written = told().partition("it begins")
    before, _, after = written.partition("lint has ended")
    assert "·  lint" in before
    assert "·  types" in after
    assert "·  lint" not in after


@pytest.mark.usefixtures("logger_as_before")
def test_line_of_a_failure_does_not_color_the_stages_that_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as told:
        screen = ConsoleScreen(
            out=io.StringIO(),
            err=sys.stderr,
            verbose=False,
            json_output=False,
            color=lambda _: True,
            refresh_seconds=3600,
        )
        screen.begin_run(plan(stage("lint"), stage("types")), lambda: (row("types"),))
        screen.observe(samples.stage_ended("lint", result=Result.FAILURE))
        screen.end_run(samples.run_ended(), metrics_url="")
        assert screen.close(60)
        written = told()
    assert re.search(r"\x1b\[31m[\d:]+ lint failed", written)
    assert "·  types" in written
    assert "\x1b[31m·" not in written


@pytest.mark.usefixtures("logger_as_before")
def test_cursor_stays_visible_below_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-Z and kill -9 the shell had none."""
    written = draw(monkeypatch, (row("lint"),))
    assert written.index("\x1b[?25l") < written.index("\x1b[?25h") < written.rindex("lint")


@pytest.mark.usefixtures("logger_as_before")
@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_terminal_without_a_table_gets_signs_of_life(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    asked = threading.Event()

    def live() -> tuple[LiveStage, ...]:
        asked.set()
        return (row("lint"),)

    with terminal(monkeypatch) as told:
        monkeypatch.setenv("TERM", term)
        monkeypatch.setattr(screens, "SIGN_OF_LIFE_SECONDS", 0.0)
        screen = ConsoleScreen(out=io.StringIO(), err=sys.stderr, verbose=False, json_output=False, refresh_seconds=0)
        screen.begin_run(plan(stage("lint")), live)
        assert asked.wait(60)
        screen.end_run(samples.run_ended(), metrics_url="")
        assert screen.close(60)
        assert "still running: lint 0/1; 0 of 1 stage ended, 1 waits" in told()
