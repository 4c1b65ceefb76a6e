"""Real runs keep the output of their tasks, also when the exporter is killed or the disk is full."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from support import projects
from support.in_process import call_command
from support.real_servers import HANG_SECONDS, environment, eventually, installed_command, run, serving

STAGES = """
    name: lint, run: "printf 'one\\\\ntwo'; exit 1", shell: true
    name: unit, run: [./check, "{item}"], items: {list: [a, b]}, retries: {count: 1, backoff: 0.01}
    name: call, call: "calls:work"
    name: long, run: "seq 1 200000; exit 1", shell: true
"""
CHECK = "#!/bin/sh\necho $1 is tried\ntest $1 != b\n"
_FULL = "paropt-exporter: cannot write to standard output: No space left on device\n"
CALLS = "def work():\n    print('called')\n    raise ValueError('no')\n"


def project(folder: Path, check: str = CHECK) -> Path:
    (folder / "check").write_text(check)
    (folder / "check").chmod(0o755)
    return projects.write(folder, STAGES, calls=CALLS)


def test_whole_output_of_each_attempt_is_kept(tmp_path: Path) -> None:
    folder = project(tmp_path)
    ended = run(folder, "--once", projects.ANY_PORT)
    assert ended.returncode == 1
    assert "  output   paropt-exporter log --failed\n" in ended.stdout
    assert run(folder, "log", "lint").stdout == "one\ntwo\n"
    assert call_command(folder, "log", "long").stdout == "".join(f"{number}\n" for number in range(1, 200_001))
    tried = call_command(folder, "log", "unit[b]").stdout
    assert tried.count("b is tried") == 2
    assert "unit[1] b, attempt 2, failure" in tried
    assert call_command(folder, "log", "call").stdout.startswith("called\n")
    failed = call_command(folder, "log", "--failed").stdout
    assert "ValueError: no" in failed and "a is tried" not in failed


def test_latest_output_is_that_of_the_run_that_began_last(tmp_path: Path) -> None:
    folder = projects.write(tmp_path, 'name: lint, run: "echo $WHICH", shell: true')
    for which in ("first", "second"):
        assert run(folder, "--once", projects.ANY_PORT, WHICH=which).returncode == 0
    first, _ = sorted((folder / ".paropt" / "logs").iterdir())
    future = first.name.replace("20", "21", 1)
    first.rename(first.with_name(future))
    with closing(sqlite3.connect(folder / ".paropt" / "history.db", isolation_level=None)) as history:
        history.execute("UPDATE runs SET run_id = ? WHERE run_id = ?", (Path(future).stem, first.stem))
    assert call_command(folder, "log").stdout == "second\n"


def test_output_up_to_the_kill_of_an_exporter_can_be_read(tmp_path: Path) -> None:
    folder = projects.write(tmp_path, 'name: slow, run: "echo so far; exec sleep 60", shell: true')
    with serving(folder, projects.ANY_PORT) as command:
        eventually("output is kept", lambda: "so far" in call_command(folder, "log").stdout)
        command.process.send_signal(signal.SIGKILL)
        command.process.wait(HANG_SECONDS)
        assert run(folder, "log", "slow", "--follow").stdout == "so far\n"


def test_follow_shows_a_run_until_it_ends(tmp_path: Path) -> None:
    wait = "echo before; while ! test -e go; do sleep 0.05; done; echo after"
    folder = projects.write(tmp_path, f'name: slow, run: "{wait}", shell: true')
    with serving(folder, projects.ANY_PORT) as command:
        eventually("output is kept", lambda: "before" in call_command(folder, "log").stdout)
        follow = [installed_command(), "log", "--follow"]
        with subprocess.Popen(follow, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            assert following.stdout.readline() == "slow | before\n"
            (folder / "go").touch()
            assert following.stdout.read() == "slow | after\n"
            assert following.wait(HANG_SECONDS) == 0
        assert command.stop() == 0


@pytest.mark.parametrize(("target", "code", "errors"), [("| head -n 1", 0, ""), ("> /dev/full", 3, _FULL)])
def test_log_into_a_reader_that_leaves_or_a_full_disk_blames_no_log(
    tmp_path: Path, target: str, code: int, errors: str
) -> None:
    folder = projects.write(tmp_path, 'name: long, run: "seq 1 200000", shell: true')
    assert run(folder, "--once", projects.ANY_PORT).returncode == 0
    ended = subprocess.run(
        f"{installed_command()} log {target}", shell=True, cwd=folder, env=environment(), capture_output=True,
        text=True, timeout=HANG_SECONDS,
    )  # fmt: skip
    assert ended.returncode == code
    assert ended.stderr == errors


def test_log_that_can_not_be_written_costs_one_line_and_no_result(tmp_path: Path) -> None:
    folder = projects.write(tmp_path, 'name: lint, run: "echo one", shell: true')
    (folder / ".paropt").mkdir()
    (folder / ".paropt" / "logs").write_text("not a folder")
    done = run(folder, "--once", projects.ANY_PORT)
    assert done.returncode == 0
    assert done.stderr.count("the output of tasks is not kept") == 1
    assert "standard succeeded" in done.stdout


def test_logs_can_be_turned_off(tmp_path: Path) -> None:
    stage = 'name: long, run: "seq 1 1000; exit 1", shell: true'
    folder = projects.write(tmp_path, stage, lanes="history: {logs: false}")
    ended = run(folder, "--once", projects.ANY_PORT)
    assert ended.returncode == 1
    assert "paropt-exporter log" not in ended.stdout
    assert not (folder / ".paropt" / "logs").exists()
    asked = call_command(folder, "log")
    assert (asked.returncode, asked.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("strategy", ["thread", "process"])
def test_whole_output_of_a_call_is_kept(tmp_path: Path, strategy: str) -> None:
    calls = "def work():\n    for number in range(50_000):\n        print(number)\n    raise ValueError('no')\n"
    folder = projects.write(tmp_path, 'name: call, call: "calls:work"', calls=calls)
    assert run(folder, "--once", "--strategy", strategy, projects.ANY_PORT).returncode == 1
    printed, _, trace = call_command(folder, "log", "call").stdout.partition("\nTraceback")
    assert printed == "".join(f"{number}\n" for number in range(50_000))
    assert trace.endswith("ValueError: no\n")
