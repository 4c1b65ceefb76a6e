"""The command ends, whatever a call left running in its threads or processes, and names it in one line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support import processes, projects
from support.real_servers import HANG_SECONDS, environment, installed_command

CALLS = """
    import atexit, concurrent.futures, multiprocessing, os, pathlib, signal, threading, time

    def naps():
        time.sleep(600)

    def interrupts_and_naps():
        os.kill(os.getpid(), signal.SIGTERM)
        naps()

    def leaves_executor():
        concurrent.futures.ThreadPoolExecutor(thread_name_prefix="left").submit(naps)

    def leaves_thread():
        threading.Thread(target=naps, name="left_0", daemon=False).start()

    def leaves_process():
        multiprocessing.get_context("spawn").Process(target=naps, name="left_0").start()

    def exits_with_0():
        os._exit(0)

    def thread_exits_with_0():
        threading.Thread(target=exits_with_0).start()
        naps()

    def fails_and_leaves_a_handler_that_exits():
        atexit.register(exits_with_0)
        raise ValueError

    def forks():
        child = os.fork() or os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    def becomes_another_program():
        os.execlp("/bin/true", "true")

    def forks_and_execs():
        child = os.fork() or becomes_another_program()
        assert os.waitpid(child, 0)[1] == 0

    def leaves_a_handler_that_hangs():
        atexit.register(naps)

    def leaves_thread_and_a_handler():
        atexit.register(pathlib.Path("handled").touch)
        leaves_thread()

    def leaves_thread_and_a_handler_that_waits_for_it():
        thread = threading.Thread(target=naps, name="left_0", daemon=False)
        thread.start()
        atexit.register(thread.join)
"""
LEFT = ("leaves_executor", "leaves_thread", "leaves_process", "leaves_thread_and_a_handler_that_waits_for_it")


def once(folder: Path, call: str, strategy: str, beside: str = "") -> subprocess.CompletedProcess[str]:
    stages = [f'name: leaves, call: "calls:{call}"', *([beside] if beside else [])]
    projects.write(folder, "\n".join(stages), calls=CALLS)
    return subprocess.run(
        [installed_command(), "--once", "--strategy", strategy, projects.ANY_PORT],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,  # of 600 that they nap
    )


@pytest.mark.parametrize(
    ("strategy", "call"),
    # Adaptive runs a call in a thread or in a process: it needs no combination with each call.
    [*((strategy, call) for strategy in ("thread", "process") for call in LEFT), ("adaptive", "leaves_thread")],
)
def test_once_ends_processes_and_threads_of_calls(tmp_path: Path, strategy: str, call: str) -> None:
    ended = once(tmp_path, call, strategy)
    assert ended.returncode == 0, ended.stderr
    assert "standard succeeded" in ended.stdout
    told = [line for line in ended.stderr.splitlines() if "left" in line]
    assert len(told) == 1, ended.stderr
    if strategy != "process" and call != "leaves_process":
        assert told[0].endswith("still running, ended with the exporter: thread left_0")
    assert processes.in_folder(tmp_path) == []


@pytest.mark.parametrize(
    ("call", "code"), [("exits_with_0", 3), ("thread_exits_with_0", 3), ("fails_and_leaves_a_handler_that_exits", 1)]
)
def test_call_that_exits_the_exporter_is_no_success(tmp_path: Path, call: str, code: int) -> None:
    ended = once(tmp_path, call, "thread")
    assert ended.returncode == code, ended.stderr
    assert f"a call ended the exporter by os._exit(0): exit code {code}" in ended.stderr


def test_call_that_replaces_the_exporter_fails(tmp_path: Path) -> None:
    ended = once(tmp_path, "becomes_another_program", "thread")
    assert ended.returncode == 1
    assert "os.exec of '/bin/true' would end the exporter" in ended.stdout


@pytest.mark.parametrize("call", ["forks", "forks_and_execs"])
def test_fork_in_a_call_keeps_its_exit_code(tmp_path: Path, call: str) -> None:
    assert once(tmp_path, call, "thread").returncode == 0


def test_exit_handler_that_hangs_is_ended_after_5_s(tmp_path: Path) -> None:
    ended = once(tmp_path, "leaves_a_handler_that_hangs", "thread")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.endswith("exit handlers of calls ended after 5 s with the exporter\n")


def test_interrupt_beside_a_call_that_goes_on_leaves_no_traceback(tmp_path: Path) -> None:
    ended = once(tmp_path, "interrupts_and_naps", "thread", 'name: command, run: "sleep 60"')
    assert ended.returncode == 143
    assert "Traceback" not in ended.stderr, ended.stderr


def test_handlers_of_a_call_run_at_the_exit_though_a_thread_is_left(tmp_path: Path) -> None:
    assert once(tmp_path, "leaves_thread_and_a_handler", "thread").returncode == 0
    assert (tmp_path / "handled").exists()
