"""The suite's own bounds: a failed test ends, whatever its fixtures wait for, and leaves no process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.bounds import compute_left_seconds
from support.command_scripts import HANG_SECONDS, wait_until_gone

TESTS = Path(__file__).parent

WAITING_FIXTURE = """
import subprocess, pytest

@pytest.fixture
def child():
    children = []
    yield children
    children[0].wait()

def test_fails_while_its_child_runs(child):
    child.append(subprocess.Popen(["sleep", "600"]))
    print(f"pid={child[0].pid}.")
    assert False
"""

# Each wait in a test, in its fixtures, and at the exit of the interpreter is for an event that never comes.
MANY_WAITS = """
import threading, pytest

never = threading.Event()

@pytest.fixture
def outer():
    yield
    never.wait()

@pytest.fixture
def inner(outer):
    yield
    never.wait()

@pytest.mark.timeout(0.5)
def test_waits(inner):
    try:
        never.wait()
    finally:
        never.wait()

def test_runs_afterwards():
    pass
"""

ONE_WAIT = """
import threading, pytest

@pytest.mark.timeout(0.5)
def test_waits():
    threading.Event().wait()

def test_runs_afterwards():
    pass
"""

# pytest takes longer to report a failure than there is between two timeouts, as on a machine with much else to do.
SLOW_REPORT = """
import threading, pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call):
    if call.excinfo:
        threading.Event().wait(1.2)
"""

THREAD_AT_EXIT = """
import threading

def test_starts_a_thread_without_end():
    threading.Thread(target=threading.Event().wait).start()
"""


def run_pytest(folder: Path, content: str, *, hooks: str = "") -> subprocess.CompletedProcess[str]:
    """Run pytest with the suite's plugin, and short bounds, on a test file."""
    (folder / "conftest.py").write_text(
        "from support import bounds\nbounds.AGAIN_SECONDS = bounds.EXIT_SECONDS = 0.5\n" + hooks
    )
    (folder / "test_it.py").write_text(content)
    plugins = ("-p", "pytest_timeout", "-p", "support.bounds")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--timeout=20", "test_it.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent / "exporter")))},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def test_fixture_of_a_failed_test_does_not_wait_for_its_child(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, WAITING_FIXTURE)
    assert ended.stdout.splitlines()[-1].startswith("1 failed in ")
    pid = int(ended.stdout.partition("\npid=")[2].partition(".")[0])
    assert wait_until_gone([pid], 0) == []


def test_every_wait_of_a_test_and_its_fixtures_ends(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, MANY_WAITS)
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 1 passed, 1 error" in ended.stdout
    assert "took longer than 0.5 s" in ended.stdout


def test_timeout_interrupts_the_test_and_never_its_report(tmp_path: Path) -> None:
    """An exception in pytest's own code ends the session, and all other results are lost."""
    ended = run_pytest(tmp_path, ONE_WAIT, hooks=SLOW_REPORT)
    assert "INTERNALERROR" not in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("1 failed, 1 passed in ")


def test_interpreter_that_waits_for_a_thread_exits_with_an_error(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, THREAD_AT_EXIT)
    assert "1 passed" in ended.stdout
    assert "Timeout" in ended.stderr
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("seconds", "delay_seconds", "left_seconds"), [(120.0, 0.0, 0.0), (120.0, 112.0, 112.0), (600.0, 595.0, 0.0)]
)
def test_waits_for_a_core_do_not_count(seconds: float, delay_seconds: float, left_seconds: float) -> None:
    assert compute_left_seconds(120.0, seconds, delay_seconds) == left_seconds
