"""Readers of stdout and stderr that stop reading: the lane goes on, its limits hold, and signals end it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import processes, projects
from support.real_servers import HANG_SECONDS, environment, eventually, installed_command

NOISE = "".join(
    f'name: noisy_{number}, run: "yes a line of noise that fills any pipe | head -c 30000", shell: true\n'
    for number in range(8)
)
PIPE_BYTES = 4096
LANE = "lanes: {standard: {strategy: thread, workers: 2}}"
HANGS = 'name: last, run: "echo $$ > pid; exec sleep 60", shell: true, needs: [noisy_7]'
TIMES_OUT = 'name: last, run: [sleep, "60"], timeout: 0.2, needs: [noisy_7]'
AFTER = 'name: after, run: "touch after; exit 1", shell: true, needs: [noisy_7]'


@contextmanager
def stalled(
    folder: Path, *arguments: str, stream: str, blocks: bool = True
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the command with a pipe behind one of its streams, and yield it with the unread end.

    `blocks`: False for a pipe that is shared with a program that has made it non-blocking.
    """
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(writer, blocks)
    out, error = (writer if name == stream else subprocess.DEVNULL for name in ("stdout", "stderr"))
    process = subprocess.Popen(
        [installed_command(), *arguments],
        cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=error,
    )  # fmt: skip
    os.close(writer)
    try:
        yield process, reader
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(HANG_SECONDS)
        os.close(reader)


@pytest.mark.parametrize("blocks", [True, False])
def test_stalled_stderr_delays_no_task_and_no_timeout(tmp_path: Path, *, blocks: bool) -> None:
    projects.write(tmp_path, f"{NOISE}{AFTER}\n{TIMES_OUT}", lanes=LANE)
    arguments = (projects.ANY_PORT, "--verbose", "--once")
    with stalled(tmp_path, *arguments, stream="stderr", blocks=blocks) as (process, reader):
        eventually("the tasks behind the noise ran", (tmp_path / "after").exists)
        eventually("the run ended", lambda: (tmp_path / ".paropt/history.db").exists() and projects.runs(tmp_path))
        assert process.poll() is None  # it waits for its reader
        with os.fdopen(os.dup(reader), "rb") as lines:
            text = lines.read().decode()
        assert process.wait(HANG_SECONDS) == 1
    assert re.search(r"last failed after [0-9.]+ s: timed out after 0.2 s", text)
    assert projects.stages(projects.runs(tmp_path)[-1])["last"] == ("timeout", "timed out after 0.2 s")


def test_full_pipe_that_does_not_block_loses_no_output(tmp_path: Path) -> None:
    """The command wrote 4096 bytes, said "write could not complete without blocking" and exited with 3."""
    whole = subprocess.check_output([installed_command(), "completion", "bash"], cwd=tmp_path, env=environment())
    with stalled(tmp_path, "completion", "bash", stream="stdout", blocks=False) as (process, reader):
        eventually("the pipe is full", lambda: count_waiting_bytes(reader) == PIPE_BYTES)
        with os.fdopen(os.dup(reader), "rb") as lines:
            assert lines.read() == whole
        assert process.wait(HANG_SECONDS) == 0


def count_waiting_bytes(reader: int) -> int:
    return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_lane_whose_stderr_is_stalled(tmp_path: Path, number: signal.Signals) -> None:
    projects.write(tmp_path, f"{NOISE}{HANGS}", lanes=LANE)
    with stalled(tmp_path, projects.ANY_PORT, "--verbose", stream="stderr") as (process, _):
        pid = projects.pid_in(tmp_path / "pid")
        process.send_signal(number)
        assert process.wait(HANG_SECONDS) == 128 + number
        assert not processes.is_alive(pid)
    assert projects.runs(tmp_path)[-1]["result"] == "cancellation"


@pytest.mark.parametrize("arguments", [(), ("--once",)], ids=["serving", "once"])
def test_signal_ends_a_command_without_a_reader_of_its_summary(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    stages = "\n".join(f'name: {"a_long_name_" * 4}{number}, run: "true"' for number in range(100))
    projects.write(tmp_path, stages, lanes=LANE)
    with stalled(tmp_path, projects.ANY_PORT, *arguments, stream="stdout") as (process, reader):
        select.select([reader], [], [], HANG_SECONDS)  # the summary has begun
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_SECONDS) == 0  # the run was over
    assert projects.runs(tmp_path)[-1]["result"] == "success"


def test_runs_continue_without_a_reader_of_their_summaries(tmp_path: Path) -> None:
    stages = "\n".join(f'name: {"a_long_name_" * 4}{number}, run: "true"' for number in range(100))
    projects.write(tmp_path, stages + '\nname: count, run: "echo >> count", shell: true', lanes=LANE)
    with stalled(tmp_path, projects.ANY_PORT, "--every", "10ms", stream="stdout") as (process, _):
        eventually("a third run", lambda: (tmp_path / "count").exists() and len((tmp_path / "count").read_text()) >= 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_SECONDS) in (0, 143)


def test_ctrl_s_in_a_terminal_stops_the_screen_alone(tmp_path: Path) -> None:
    projects.write(tmp_path, f"{NOISE}{HANGS}", lanes=LANE)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [installed_command(), "--verbose", projects.ANY_PORT], cwd=tmp_path, env=environment(TERM="xterm-256color"),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    try:
        os.write(ours, b"\x13")  # Ctrl-S
        pid = projects.pid_in(tmp_path / "pid")
        process.send_signal(signal.SIGINT)
        assert process.wait(HANG_SECONDS) == 130
        assert not processes.is_alive(pid)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(HANG_SECONDS)
        os.close(ours)
        os.close(theirs)
