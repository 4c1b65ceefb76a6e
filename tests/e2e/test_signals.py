"""SIGINT and SIGTERM in each phase of the command: the right exit code, nothing left running, history closed."""

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
import time
from pathlib import Path

import pytest

from support import processes, projects
from support.command_scripts import wait_until_gone
from support.real_servers import HANG_SECONDS, environment, eventually, installed_command, serving

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
LONG = """
    name: long, run: "sleep 60 & echo $! > grandchild; echo $$ > pid; wait", shell: true
    name: later, run: "true", needs: [long]
"""
STUBBORN = """
    name: stubborn, run: [sh, -c, "trap '' TERM INT; sh -c 'echo $$ > pid; sleep 60; sleep 60' & wait; wait; sleep 60"]
    name: later, run: "true", needs: [stubborn]
"""


def last_run(folder: Path) -> tuple[str, str]:
    last = projects.runs(folder)[-1]
    return last["result"], last["reason"]


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_during_a_run_ends_it_with_its_own_code_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    projects.write(tmp_path, LONG)
    with serving(tmp_path, projects.ANY_PORT) as command:
        pid = projects.pid_in(tmp_path / "pid")
        command.process.send_signal(number)
        output, _ = command.process.communicate(timeout=HANG_SECONDS)
    assert command.process.returncode == 128 + number
    assert output.startswith(f"standard interrupted by {number.name}")
    assert f"later  skipped: interrupted by {number.name}" in output
    assert not processes.is_alive(pid)
    assert not processes.is_alive(projects.pid_in(tmp_path / "grandchild"))
    assert processes.in_folder(tmp_path) == []
    assert last_run(tmp_path) == ("cancellation", f"interrupted by {number.name}")
    assert "Traceback" not in projects.messages(tmp_path)


# The command as a process starts it that ignores SIGCHLD and has blocked all signals.
_INHERITED = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execv(sys.argv[1], sys.argv[1:])
"""
INHERITED = (sys.executable, "-c", _INHERITED, installed_command())


def test_failure_counts_if_the_parent_ignores_exit_codes(tmp_path: Path) -> None:
    """A failed command for items, or a failed git, had succeeded."""
    projects.write(tmp_path, 'name: each, run: "true {item}", items: {command: [sh, -c, "echo a; exit 7"]}')
    with serving(tmp_path, "--once", command=INHERITED) as command:
        output, _ = command.process.communicate(timeout=HANG_SECONDS)
    assert command.process.returncode == 1
    assert "failed (exit 7)" in output


def test_signal_ends_a_run_whose_parent_has_blocked_signals(tmp_path: Path) -> None:
    projects.write(tmp_path, LONG)
    with serving(tmp_path, "--once", command=INHERITED) as command:
        projects.pid_in(tmp_path / "pid")
        command.process.terminate()
        command.process.communicate(timeout=HANG_SECONDS)
    assert command.process.returncode == 128 + signal.SIGTERM


# The command with an hour between TERM and KILL, to which a second signal is one however soon it comes.
_LONG_GRACE = """
import sys
from paropt_exporter import signals
from paropt_exporter.cli.main import main
from paropt_exporter.engine import run
run.TERM_GRACE_SECONDS = 3600.0
signals._ONE_SIGNAL_SECONDS = 0.0
sys.exit(main())
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_second_signal_kills_commands_that_ignore_the_first(tmp_path: Path, number: signal.Signals) -> None:
    projects.write(tmp_path, STUBBORN)
    with serving(tmp_path, projects.ANY_PORT, command=(sys.executable, "-c", _LONG_GRACE)) as command:
        pid = projects.pid_in(tmp_path / "pid")
        command.process.send_signal(number)
        # Only once it was taken: two signals of one kind that are sent together arrive as one.
        first = f"interrupted by {number.name}: stopping 1 stage, again to kill"
        eventually("the first signal is taken", lambda: first in projects.messages(tmp_path))
        command.process.send_signal(number)
        command.process.communicate(timeout=HANG_SECONDS)
    assert command.process.returncode == 128 + number
    assert not processes.is_alive(pid)
    assert processes.in_folder(tmp_path) == []
    assert last_run(tmp_path)[0] == "cancellation"


@pytest.mark.parametrize(
    ("number", "work", "code"), [*((number, "true", 0) for number in SIGNALS), (signal.SIGTERM, "false", 1)]
)
def test_signal_while_only_serving_ends_with_the_last_runs_code(
    tmp_path: Path, number: signal.Signals, work: str, code: int
) -> None:
    projects.write(tmp_path, f'name: quick, run: "{work}"')
    with serving(tmp_path, projects.ANY_PORT) as command:
        projects.whole_summary(command)
        assert command.stop(number) == code
    assert processes.in_folder(tmp_path) == []
    assert last_run(tmp_path)[0] == ("success" if code == 0 else "failure")


def test_signal_while_waiting_for_the_next_start_ends_the_wait(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: quick, run: "true"')
    with serving(tmp_path, projects.ANY_PORT, "--every", "1h") as command:
        projects.whole_summary(command)
        assert command.stop() == 0


# Delivers Ctrl-C at the moment at which the command imports a module.
_INTERRUPTED_IMPORT = """
import signal, sys
module, = sys.argv[1:]
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv[1:] = ["plan"]
from paropt_exporter.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["cli.plain_flags", "cli.flags", "errors", "logs", "cli.commands"])
def test_ctrl_c_while_the_command_loads_ends_it_without_a_traceback(tmp_path: Path, module: str) -> None:
    projects.write(tmp_path, 'name: quick, run: "true"')
    command = [sys.executable, "-c", _INTERRUPTED_IMPORT, f"paropt_exporter.{module}"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "arguments", [("--once", projects.ANY_PORT), ("plan",), ("profile", "listed")], ids=lambda a: a[0]
)
def test_signal_while_items_are_listed_ends_the_listing_and_starts_nothing(
    tmp_path: Path, number: signal.Signals, arguments: tuple[str, ...]
) -> None:
    """It ran on for up to a minute: the lane heard of the signal after it, `plan` and `profile` left it behind."""
    projects.write(tmp_path, 'name: listed, run: "touch {item}", items: {command: "sh items.sh"}')
    (tmp_path / "items.sh").write_text("echo item; sleep 60 & echo $! > child; echo $$ > listing; sleep 60\n")
    process = subprocess.Popen(
        [installed_command(), *arguments], cwd=tmp_path, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    listing = [projects.pid_in(tmp_path / name) for name in ("child", "listing")]
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode in (128 + number, -number), errors
    assert "Traceback" not in errors
    assert not (tmp_path / "item").exists()
    assert wait_until_gone(listing) == []


@pytest.mark.parametrize(("number", "unbuffered"), [*((number, "") for number in SIGNALS), (signal.SIGTERM, "1")])
def test_signal_while_the_summary_is_written_still_ends_in_order(
    tmp_path: Path, number: signal.Signals, unbuffered: str
) -> None:
    stages = "\n".join(f'name: {"a_long_name_" * 4}{n}, run: "true"' for n in range(150))
    projects.write(tmp_path, stages)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)  # the summary does not fit: the command stays in the middle of it
    with (tmp_path / "stderr.log").open("w") as log:
        process = subprocess.Popen(
            [installed_command(), "--once", "--workers", "8", projects.ANY_PORT],
            cwd=tmp_path, env=environment(PYTHONUNBUFFERED=unbuffered), stdin=subprocess.DEVNULL, stdout=writer,
            stderr=log,
        )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader, "rb") as output:
        first = output.read(1)
        process.send_signal(number)
        text = (first + output.read()).decode()
    assert process.wait(HANG_SECONDS) == 0  # the run was over: nothing was interrupted
    assert text.startswith("standard succeeded")
    assert text.endswith("\n") and "\n  pools    commands 8" in text
    assert last_run(tmp_path)[0] == "success"
    assert "Traceback" not in projects.messages(tmp_path)


class Terminal:
    """A terminal of its own for the command; `seen` collects what appears on it."""

    def __init__(self, folder: Path, *arguments: str, **env: str) -> None:
        self._ours, theirs = pty.openpty()
        self._theirs = theirs
        self.before = termios.tcgetattr(theirs)
        self.seen = b""
        self.process = subprocess.Popen(
            [installed_command(), *arguments],
            cwd=folder, env=environment(TERM="xterm-256color", **env), stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip

    def read_until(self, pattern: bytes) -> None:
        deadline = time.monotonic() + HANG_SECONDS
        while not re.search(pattern, self.seen):
            ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self._ours, 1 << 16)

    def end(self) -> int:
        """Wait for the end while reading on, and return the exit code."""
        done = os.pidfd_open(self.process.pid)
        try:
            while True:
                ready, _, _ = select.select([self._ours, done], [], [], HANG_SECONDS)
                assert ready, "the command hangs"
                if self._ours not in ready:
                    return self.process.wait(HANG_SECONDS)
                self.seen += os.read(self._ours, 1 << 16)
        finally:
            os.close(done)

    @property
    def settings(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(HANG_SECONDS)
        os.close(self._ours)
        os.close(self._theirs)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_during_live_progress_leaves_the_terminal_as_it_was(tmp_path: Path, number: signal.Signals) -> None:
    projects.write(tmp_path, LONG)
    terminal = Terminal(tmp_path, projects.ANY_PORT)
    try:
        terminal.read_until(rb"\x1b\[\?25l")  # the live table has hidden the cursor
        projects.pid_in(tmp_path / "pid")
        terminal.process.send_signal(number)
        assert terminal.end() == 128 + number
        assert terminal.settings == terminal.before
        assert terminal.seen.rindex(b"\x1b[?25h") > terminal.seen.rindex(b"\x1b[?25l")
        assert b"standard interrupted" in terminal.seen
    finally:
        terminal.close()


def test_ctrl_c_on_the_terminal_reaches_the_run_once_and_its_commands_in_order(tmp_path: Path) -> None:
    projects.write(tmp_path, LONG)
    terminal = Terminal(tmp_path, projects.ANY_PORT)
    try:
        projects.pid_in(tmp_path / "pid")
        os.killpg(terminal.process.pid, signal.SIGINT)  # as the terminal does: to the whole foreground group
        assert terminal.end() == 130
        assert processes.in_folder(tmp_path) == []
    finally:
        terminal.close()
    assert last_run(tmp_path) == ("cancellation", "interrupted by SIGINT")


def test_escapes_in_output_never_reach_the_terminal(tmp_path: Path) -> None:
    projects.write(
        tmp_path, r"""name: rude, run: "printf '\\033]0;owned\\007\\033[31mred\\033[2J\\n'; exit 1", shell: true"""
    )
    terminal = Terminal(tmp_path, "--once", "--verbose", projects.ANY_PORT, NO_COLOR="1", COLUMNS="20")
    try:
        assert terminal.end() == 1
    finally:
        terminal.close()
    eventually("red is shown", lambda: b"red" in terminal.seen)
    for escape in (b"\x1b]0;", b"\x07", b"\x1b[31m", b"\x1b[2J"):
        assert escape not in terminal.seen


def test_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: quick, run: "true"')
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does; a child inherits it
    try:
        with serving(tmp_path, projects.ANY_PORT) as command:
            projects.whole_summary(command)
            command.process.send_signal(signal.SIGHUP)
            assert command.stop(signal.SIGTERM) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def _supervisor_of(exporter: int) -> int:
    """The exporter's child that starts its commands."""
    found = processes.children(exporter)
    return next(pid for pid in found if "supervisor.event_loop" in processes.command_line(pid))


def test_two_interrupts_end_a_lane_whose_supervisor_is_stopped(tmp_path: Path) -> None:
    projects.write(tmp_path, LONG)
    with serving(tmp_path, projects.ANY_PORT, command=(sys.executable, "-c", _LONG_GRACE)) as command:
        pid = projects.pid_in(tmp_path / "pid")
        supervisor = _supervisor_of(command.process.pid)
        os.kill(supervisor, signal.SIGSTOP)
        command.process.send_signal(signal.SIGINT)
        eventually("the first signal is taken", lambda: "later skipped" in projects.messages(tmp_path))
        command.process.send_signal(signal.SIGINT)
        command.process.communicate(timeout=HANG_SECONDS)
    assert command.process.returncode == 130
    assert not processes.is_alive(pid)
    assert not processes.is_alive(supervisor)
    assert processes.in_folder(tmp_path) == []


def test_command_that_ended_while_the_exporter_was_stopped_has_not_timed_out(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: quick, run: "touch began; sleep 0.3; touch ended", shell: true, timeout: 3')
    with serving(tmp_path, "--once", projects.ANY_PORT) as command:
        eventually("the command runs", (tmp_path / "began").exists)
        command.process.send_signal(signal.SIGSTOP)
        eventually("the command ended", (tmp_path / "ended").exists)
        ended = time.monotonic()
        eventually("its limit and a second more have passed", lambda: time.monotonic() > ended + 4.0)
        command.process.send_signal(signal.SIGCONT)
        assert command.process.wait(HANG_SECONDS) == 0, projects.messages(tmp_path)
