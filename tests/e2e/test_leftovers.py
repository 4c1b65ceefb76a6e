"""Processes that a stage's call starts end with the stage and with the exporter, however either ends."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from support import processes, projects
from support.command_scripts import wait_until_gone
from support.processes import children
from support.real_servers import HANG_SECONDS, eventually, run, serving

CALLS = """
    import os, pathlib, subprocess, sys, threading

    def started(**options):
        process = subprocess.Popen(["sleep", "60"], **options)
        pathlib.Path(f"{process.pid}.pid").touch()
        return process

    def waits():
        started().wait()

    def waits_for_one_with_an_empty_environment():
        started(env={}).wait()

    def waits_for_one_in_a_session_of_its_own():
        started(start_new_session=True).wait()

    def waits_for_one_of_another_thread():
        thread = threading.Thread(target=waits, daemon=True)
        thread.start()
        thread.join()

    def waits_for_daemon():
        os.system("setsid sleep 60 & touch $!.pid")
        threading.Event().wait(60)

    def leaves():
        started()

    def leaves_and_exits():
        started(start_new_session=True)
        os._exit(0)

    def leaves_daemon():
        os.system("setsid sleep 60 & touch $!.pid")
"""
WAITING = (
    "waits",
    "waits_for_one_with_an_empty_environment",
    "waits_for_one_in_a_session_of_its_own",
    "waits_for_one_of_another_thread",
    "waits_for_daemon",
)
STRATEGIES = ("thread", "adaptive", "process")
# Adaptive runs a call in a thread or in a process: it needs no combination with each way to start a process.
OF_PROCESSES = (("process", WAITING), ("adaptive", ("waits",)))
# Children without a parent end with the last of the calls that run beside theirs in threads.
ALONE_IN_THREADS = tuple(("thread", (call,)) for call in WAITING)


def write_calls(folder: Path, calls: Sequence[str], more: str = "") -> None:
    """Write a project with a stage for each call."""
    projects.write(folder, "\n".join(f'name: {call}, call: "calls:{call}"{more}' for call in calls), calls=CALLS)


def wait_for_pids(folder: Path, count: int = 1) -> list[int]:
    """Return the processes that calls have started, once there are so many."""
    eventually(f"{count} processes", lambda: len([*folder.glob("*.pid")]) == count)
    return [int(path.stem) for path in folder.glob("*.pid")]


@pytest.mark.parametrize(("strategy", "calls"), (*ALONE_IN_THREADS, *OF_PROCESSES))
def test_processes_of_a_call_end_with_its_timeout(tmp_path: Path, strategy: str, calls: tuple[str, ...]) -> None:
    seconds = len(calls)  # several workers start more slowly
    write_calls(tmp_path, calls, f", timeout: {seconds}s")
    with projects.served(tmp_path, "--strategy", strategy, "--workers", str(len(calls))):
        assert wait_until_gone(wait_for_pids(tmp_path, len(calls))) == []
    (one,) = projects.runs(tmp_path)
    assert projects.stages(one) == dict.fromkeys(calls, ("timeout", f"timed out after {seconds} s"))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("call", ["leaves", "leaves_daemon"])
def test_processes_that_a_call_leaves_end_with_the_call(tmp_path: Path, strategy: str, call: str) -> None:
    projects.write(tmp_path, f'name: leaves, call: "calls:{call}"', calls=CALLS)
    with projects.served(tmp_path, "--strategy", strategy):
        assert wait_until_gone(wait_for_pids(tmp_path)) == []
        said = "a call left processes behind: ended"  # once the exporter has heard that they are gone
        eventually("the exporter names them", lambda: projects.messages(tmp_path).count(said) == 1)
    (one,) = projects.runs(tmp_path)
    assert projects.stages(one) == {"leaves": ("success", "")}


@pytest.mark.parametrize(
    ("strategy", "number"),
    [("thread", signal.SIGINT), ("thread", signal.SIGTERM), ("process", signal.SIGTERM), ("adaptive", signal.SIGINT)],
)
def test_processes_of_a_call_end_with_a_signal_to_the_exporter(
    tmp_path: Path, strategy: str, number: signal.Signals
) -> None:
    projects.write(tmp_path, 'name: hangs, call: "calls:waits"', calls=CALLS)
    with serving(tmp_path, projects.ANY_PORT, "--strategy", strategy) as command:
        wait_for_pids(tmp_path)
        command.process.send_signal(number)
        command.process.communicate(timeout=HANG_SECONDS)
    assert command.process.returncode == 128 + number
    assert processes.in_folder(tmp_path) == []


@pytest.mark.parametrize(("strategy", "calls"), (("thread", WAITING), *OF_PROCESSES))
def test_processes_of_a_call_end_with_a_killed_exporter(tmp_path: Path, strategy: str, calls: tuple[str, ...]) -> None:
    write_calls(tmp_path, calls)
    with serving(tmp_path, projects.ANY_PORT, "--strategy", strategy, "--workers", str(len(calls))) as command:
        wait_for_pids(tmp_path, len(calls))
        left = processes.in_folder(tmp_path)
        wait_until_the_supervisor_has_looked(command.process.pid)
        command.process.kill()
        command.process.wait(HANG_SECONDS)
        assert wait_until_gone(left, 5.0) == []


def test_processes_of_a_call_that_exits_end_with_its_worker(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: exits, call: "calls:leaves_and_exits"', calls=CALLS)
    with projects.served(tmp_path, "--strategy", "process"):
        assert wait_until_gone(wait_for_pids(tmp_path)) == []


def test_shared_memory_of_one_call_outlives_the_end_of_anothers_processes(tmp_path: Path) -> None:
    text = """
        from multiprocessing import shared_memory
        import subprocess
        kept = []
        def makes():
            kept.append(shared_memory.SharedMemory(create=True, size=10))
            subprocess.Popen(["sleep", "60"])
        def reads():
            other = shared_memory.SharedMemory(kept[0].name)
            other.close()
            kept[0].close()
            kept[0].unlink()
    """
    stages = 'name: makes, call: "memory:makes"\nname: reads, call: "memory:reads", needs: [makes]'
    projects.write(tmp_path, stages, memory=text)
    ended = run(tmp_path, "--once", "--strategy", "thread", projects.ANY_PORT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "resource_tracker" not in ended.stderr


def test_next_start_ends_processes_of_a_killed_exporter_and_supervisor(tmp_path: Path) -> None:
    stages = 'name: command, run: "sleep 60 & echo $! > command; wait", shell: true\nname: hangs, call: "calls:waits"'
    projects.write(tmp_path, stages, calls=CALLS)
    with serving(tmp_path, projects.ANY_PORT, "--strategy", "thread", "--workers", "2") as command:
        left = [projects.pid_in(tmp_path / "command"), *wait_for_pids(tmp_path)]
        supervisor = processes.parent(processes.parent(left[0]))
        os.kill(supervisor, signal.SIGSTOP)
        command.process.kill()
        os.kill(supervisor, signal.SIGKILL)
        command.process.wait(HANG_SECONDS)
        (tmp_path / "paropt.yml").write_text("project: demo\nstages: [{number: 1, name: fine, run: 'true'}]\n")
        again = run(tmp_path, "--once", projects.ANY_PORT)
    assert again.returncode == 0, again.stderr
    (told,) = (line for line in again.stderr.splitlines() if "a killed exporter left behind" in line)
    assert all(f"sleep (pid {pid})" in told for pid in left)
    assert wait_until_gone(left, 0) == []


@pytest.mark.parametrize("unset", ["", "env -u PAROPT_RUN "])
def test_shell_with_the_environment_of_a_dead_run_can_start_the_next_one(tmp_path: Path, unset: str) -> None:
    """Somebody saved a run's environment (`env > file`): the start killed itself, or the shell that it came from."""
    projects.write(tmp_path, "name: fine, run: 'true'")
    project = hashlib.sha256(bytes(tmp_path.resolve())).hexdigest()[:16]
    script = f"{unset}{sys.executable} -m paropt_exporter --once {projects.ANY_PORT}; exit $?"
    environment = {**os.environ, "PAROPT_RUN": f"4194305-1-{project}"}  # above the highest process id
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, timeout=HANG_SECONDS, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def wait_until_the_supervisor_has_looked(exporter: int) -> None:
    """It runs only to look: its switches to idleness count the looks."""
    (supervisor,) = (pid for pid in children(exporter) if "supervisor" in processes.command_line(pid))
    eventually("the supervisor has started", lambda: _ignores_signals(supervisor))
    before = _pauses(supervisor)
    eventually("two looks", lambda: _pauses(supervisor) >= before + 3)


def _pauses(pid: int) -> int:
    return psutil.Process(pid).num_ctx_switches().voluntary


def _ignores_signals(pid: int) -> bool:
    (mask,) = re.findall(r"^SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(mask, 16) != 0
