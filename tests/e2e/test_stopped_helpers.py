"""A task that stops the exporter's own helper processes stops neither time limits nor signals nor the end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support import processes, projects
from support.real_servers import HANG_SECONDS, run, serving

CALLS = """
    import os, pathlib, signal, time
    def stops_its_parent():
        os.kill(os.getppid(), signal.SIGSTOP)
    def stops_its_parent_and_hangs():
        stops_its_parent()
        time.sleep(600)
    def traces_its_parent_and_hangs():
        import ctypes
        held = ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0  # PTRACE_ATTACH; Yama may forbid it
        pathlib.Path("held").write_text(str(held))
        time.sleep(600)
    def stops_its_parent_and_exits():
        stops_its_parent()
        os._exit(7)
"""
STOPS = 'name: stops, run: "kill -STOP $PPID; echo $PPID > supervisor; sleep 600", shell: true'


def test_stopped_supervisor_goes_on_when_a_command_times_out(tmp_path: Path) -> None:
    projects.write(tmp_path, f"{STOPS}, timeout: 1s")
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 1, ended.stderr
    (one,) = projects.runs(tmp_path)
    assert projects.stages(one) == {"stops": ("timeout", "timed out after 1 s")}


def test_stopped_supervisor_goes_on_by_itself(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: stops, run: "kill -STOP $PPID", shell: true')
    assert run(tmp_path, "--once", projects.ANY_PORT).returncode == 0


def test_signal_ends_a_run_whose_supervisor_is_stopped(tmp_path: Path) -> None:
    projects.write(tmp_path, STOPS)
    with serving(tmp_path, projects.ANY_PORT) as command:
        supervisor = projects.pid_in(tmp_path / "supervisor")
        os.kill(supervisor, signal.SIGSTOP)
        command.process.send_signal(signal.SIGINT)
        command.process.communicate(timeout=HANG_SECONDS)
    assert command.process.returncode == 130
    assert processes.in_folder(tmp_path) == []


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("stops_its_parent", "success"),
        ("stops_its_parent_and_hangs", "timeout"),
        ("traces_its_parent_and_hangs", "timeout"),
        ("stops_its_parent_and_exits", "error"),
    ],
)
def test_stopped_forkserver_goes_on(tmp_path: Path, call: str, result: str) -> None:
    stages = f'name: stops, call: "calls:{call}", timeout: 2s\nname: more, call: "math:sqrt", items: {{list: ["1"]}}'
    projects.write(tmp_path, stages, calls=CALLS)
    run(tmp_path, "--once", "--strategy", "process", "--workers", "1", projects.ANY_PORT)
    (one,) = projects.runs(tmp_path)
    assert projects.stages(one)["stops"][0] == result


def test_fork_in_a_call_keeps_no_command_from_starting(tmp_path: Path) -> None:
    text = """
        import os, pathlib, time
        def forks(item):
            until = time.monotonic() + 3.0
            while time.monotonic() < until:
                if not os.fork():
                    time.sleep(30)
                    os._exit(0)
                time.sleep(0.02)
    """
    stages = 'name: forks, call: "forking:forks", items: {list: ["1"]}\nname: command, run: "true"'
    projects.write(tmp_path, stages, forking=text)
    ended = run(tmp_path, "--once", "--strategy", "thread", "--workers", "2", projects.ANY_PORT)
    assert ended.returncode == 0, ended.stderr
    shown = [line.split()[1] for line in ended.stderr.splitlines() if " succeeded in " in line]
    assert shown == ["command", "forks"]  # the children live for 30 s, the call for 3
