"""How stages fail: each in its own way, with its own result and message in summary, metrics and history."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import processes, projects
from support.real_servers import run, serving

STAGES = """
    name: failing, run: "echo the last words; exit 3", shell: true
    name: slow, run: [sleep, "60"], timeout: 0.3
    name: suicide, run: "kill -9 $$", shell: true
    name: murdered, run: "echo $$ > pid; exec sleep 60", shell: true
    name: missing, run: no-such-program --flag
    name: a_folder, run: ./folder
    name: not_executable, run: ./paropt.yml
    name: exit_137, run: "(exit 137); echo not reached", shell: true
    name: flaky, run: "test -e seen || { touch seen; exit 7; }", shell: true, retries: {count: 2, backoff: 0.01}
    name: hopeless, run: "exit 9", shell: true, retries: {count: 1, backoff: 0.01}
    name: deserted, run: "true", needs: [failing]
    name: raises, call: "calls:raises"
    name: exits, call: "calls:exits"
    name: not_there, call: "calls:raise"
    name: good, run: "true"
"""
CALLS = """
    def raises():
        print("before the fault")
        raise ValueError("not like this")
    def exits():
        raise SystemExit(5)
"""
EXPECTED = {
    "failing": ("failure", "exit 3"),
    "slow": ("timeout", "timed out after 0.3 s"),
    "suicide": ("error", "killed by SIGKILL (9)"),
    "murdered": ("error", "killed by SIGTERM (15)"),
    "missing": ("error", "cannot run 'no-such-program': not found on PATH"),
    "a_folder": ("error", "cannot run './folder'"),
    "not_executable": ("error", "cannot run './paropt.yml'"),
    "exit_137": ("failure", "exit 137"),
    "flaky": ("success", ""),
    "hopeless": ("failure", "exit 9 (after 2 attempts)"),
    "deserted": ("skip", "needs failing"),
    "raises": ("failure", "ValueError: not like this"),
    "exits": ("failure", "SystemExit: 5"),
    "not_there": ("error", "module 'calls' has no 'raise': did you mean 'raises'?"),
    "good": ("success", ""),
}


@dataclass
class Seen:
    """The results of a lane full of failures."""

    summary: str
    progress: str
    samples: dict[tuple[str, ...], float]
    history: dict[str, Any]
    code: int


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = projects.write(tmp_path_factory.mktemp("failures"), STAGES, calls=CALLS)
    (folder / "folder").mkdir()
    with serving(folder, projects.ANY_PORT, "--workers", "8") as command:
        os.kill(projects.pid_in(folder / "pid"), signal.SIGTERM)
        summary = projects.whole_summary(command)
        samples = projects.scraped(projects.url(folder))
        code = command.stop()
    yield Seen(summary, projects.messages(folder), samples, projects.runs(folder)[-1], code)


@pytest.mark.parametrize("stage", EXPECTED)
def test_each_stage_has_its_own_result_and_message_in_the_summary(seen: Seen, stage: str) -> None:
    (line,) = (line for line in seen.summary.splitlines() if line[4:].split(" ", 1)[0] == stage)
    result, message = EXPECTED[stage]
    assert line[2] == ("x" if result in ("failure", "timeout", "error") else " ")
    assert message in line
    assert ("skipped" in line) == (result == "skip")


@pytest.mark.parametrize("stage", EXPECTED)
def test_each_stage_has_its_own_result_in_the_metrics(seen: Seen, stage: str) -> None:
    last = {
        key[2]: value for key, value in seen.samples.items() if key[0] == "paropt_stage_last_result" and stage in key
    }
    assert {result for result, value in last.items() if value == 1} == {EXPECTED[stage][0]}


@pytest.mark.parametrize("stage", EXPECTED)
def test_each_stage_has_its_own_result_and_message_in_the_history(seen: Seen, stage: str) -> None:
    result, message = projects.stages(seen.history)[stage]
    assert (result, EXPECTED[stage][1] in message) == (EXPECTED[stage][0], True)


def test_run_has_failed_everywhere(seen: Seen) -> None:
    assert seen.summary.startswith("standard failed · 14 stages, 1 skipped, 14 tasks in ")
    assert seen.history["result"] == "failure"
    assert seen.samples["paropt_runs_total", "standard", "failure"] == 1
    assert seen.code == 1


def test_failure_shows_its_last_line_and_its_output(seen: Seen) -> None:
    lines = seen.summary.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("  x failing "))
    assert lines[at + 1].strip() == "the last words"
    assert "before the fault" in seen.progress
    assert "Traceback" in seen.progress


def test_retried_stage_says_so_and_counts_its_attempts(seen: Seen) -> None:
    assert "flaky: exit 7, attempt 2 follows" in seen.progress
    (flaky,) = (stage for stage in seen.history["stage_metrics"] if stage["stage_name"] == "flaky")
    assert (flaky["attempts"], flaky["tasks_failed"]) == (2, 0)
    assert "after 1 retry" in seen.summary
    attempts = "paropt_task_attempts_total", "standard"
    assert (seen.samples[*attempts, "failure", "flaky"], seen.samples[*attempts, "success", "flaky"]) == (1, 1)
    assert seen.samples[*attempts, "failure", "hopeless"] == 2


@pytest.mark.parametrize("strategy", ["thread", "process", "hybrid", "adaptive", "sequential"])
def test_call_that_raises_cancelled_error_ends_with_1_in_each_strategy(tmp_path: Path, strategy: str) -> None:
    calls = "import concurrent.futures\ndef cancelled(): raise concurrent.futures.CancelledError"
    projects.write(
        tmp_path, 'name: lost, call: "calls:cancelled"\nname: later, run: "true", needs: [lost]', calls=calls
    )
    ended = run(tmp_path, "--once", "--strategy", strategy, projects.ANY_PORT)
    assert ended.returncode == 1
    assert ended.stdout.startswith("standard failed")
    assert projects.stages(projects.runs(tmp_path)[-1]) == {
        "lost": ("failure", "CancelledError"),
        "later": ("skip", "needs lost"),
    }


def test_file_has_the_output_of_every_item_and_every_attempt(tmp_path: Path) -> None:
    items = ", ".join(f'"{number}"' for number in range(12))
    projects.write(
        tmp_path,
        f"""
        name: a, run: "echo a {{item}}; sleep .1; echo b {{item}}", shell: true, items: {{list: [{items}]}}, file: a.txt
        name: again, run: "echo try; exit 1", shell: true, retries: {{count: 2, backoff: 0.01}}, file: again.txt
        """,
    )
    for _ in range(2):  # a second run empties both files
        assert run(tmp_path, "--once", "--workers", "4", projects.ANY_PORT).returncode == 1
    lines = (tmp_path / "a.txt").read_text().splitlines()
    assert sorted(lines) == sorted(f"{letter} {number}" for letter in "ab" for number in range(12))
    assert [line[1:] for line in lines[::2]] == [line[1:] for line in lines[1::2]]  # each task in one piece
    assert (tmp_path / "again.txt").read_text() == "try\n" * 3


def test_pipe_in_place_of_a_stages_file_delays_no_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    projects.write(tmp_path, "name: one, run: echo hello, file: pipe")
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 0
    (line,) = [line for line in ended.stderr.splitlines() if "cannot write" in line]
    assert line.endswith(f'"cannot write the output to {tmp_path}/pipe: No such device or address"')


def test_call_whose_exception_has_no_text_ends_with_1_and_a_summary(tmp_path: Path) -> None:
    calls = """
        class Mute(Exception):
            def __str__(self): raise KeyboardInterrupt
        def mute(): raise Mute
    """
    projects.write(tmp_path, 'name: lost, call: "calls:mute"\nname: good, run: "true"', calls=calls)
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 1
    assert "Mute (its text could not be read)" in ended.stdout


@pytest.mark.parametrize("stream", ["None", "io.StringIO()", "closed()"])
def test_call_that_replaces_stdout_for_good_leaves_the_summary(tmp_path: Path, stream: str) -> None:
    calls = f"""
        import io, sys
        def closed():
            stream = io.StringIO()
            stream.close()
            return stream
        def takes():
            sys.stdout = {stream}
            sys.stderr = {stream}
    """
    projects.write(tmp_path, 'name: takes, call: "calls:takes"\nname: good, run: "true"', calls=calls)
    ended = run(tmp_path, "--once", "--strategy", "thread", projects.ANY_PORT)
    assert (ended.returncode, ended.stdout.splitlines()[0][:18]) == (0, "standard succeeded"), ended.stderr


def test_message_of_5_mb_leaves_a_small_history(tmp_path: Path) -> None:
    calls = "def big(): raise ValueError('x' * 5_000_000)"
    projects.write(tmp_path, 'name: lost, call: "calls:big"', calls=calls)
    assert run(tmp_path, "--once", projects.ANY_PORT).returncode == 1
    assert sum(path.stat().st_size for path in (tmp_path / ".paropt").glob("history.db*")) < 500_000


def test_run_with_failures_ends_with_1_and_a_good_one_with_0(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"\nname: bad, run: "false"')
    assert run(tmp_path, "--once", projects.ANY_PORT).returncode == 1
    projects.write(tmp_path, 'name: good, run: "true"')
    assert run(tmp_path, "--once", projects.ANY_PORT).returncode == 0


def test_critical_sla_ends_the_lane_with_4_terminates_the_others_and_names_the_skipped(tmp_path: Path) -> None:
    projects.write(
        tmp_path,
        """
        name: hasty, run: [sleep, "60"], sla: {max: 0.4, critical: true}
        name: other, run: "echo $$ > pid; exec sleep 60", shell: true
        name: later, run: "true", needs: [other]
        """,
    )
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 4, ended.stderr
    assert projects.stages(projects.runs(tmp_path)[-1]) == {
        "hasty": ("timeout", "broke its critical SLA of 0.4 s"),
        "other": ("cancellation", "stopped: hasty broke its critical SLA of 0.4 s"),
        "later": ("skip", "hasty broke its critical SLA of 0.4 s"),
    }
    assert not processes.is_alive(projects.pid_in(tmp_path / "pid"))
    assert "later  skipped\n" in ended.stdout, ended.stdout


def test_critical_total_ends_the_lane_with_4(tmp_path: Path) -> None:
    lane = "lanes: {standard: {strategy: thread, workers: 1, total: {max: 0.4, critical: true}}}"
    projects.write(tmp_path, 'name: long, run: [sleep, "60"]\nname: later, run: "true", needs: [long]', lanes=lane)
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 4
    assert projects.stages(projects.runs(tmp_path)[-1]) == {
        "long": ("cancellation", "stopped: standard broke its critical total of 0.4 s"),
        "later": ("skip", "standard broke its critical total of 0.4 s"),
    }


def test_breach_that_is_not_critical_alone_ends_with_0(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: soft, run: [sleep, "0.3"], sla: 0.1')
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 0
    assert "  ! soft" in ended.stdout
    assert "SLA 0.1 s, broken" in ended.stdout


@pytest.mark.parametrize("arguments", [("--fail-fast",), ("--lane", "docs")])
def test_fail_fast_ends_running_stages_and_starts_no_others(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    projects.write(
        tmp_path,
        """
        name: long, run: "touch running; exec sleep 60", shell: true
        name: bad, run: "until test -e running; do sleep 0.05; done; exit 1", shell: true
        name: later, run: "true", needs: [long]
        """,
    )
    ended = run(tmp_path, "--once", "--workers", "2", projects.ANY_PORT, *arguments)
    assert ended.returncode == 1
    assert projects.stages(projects.runs(tmp_path)[-1]) == {
        "long": ("cancellation", "stopped: fail-fast: bad failed"),
        "bad": ("failure", "exit 1"),
        "later": ("skip", "fail-fast: bad failed"),
    }


def test_keep_going_beats_the_docs_lane(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: bad, run: "false"\nname: good, run: [sleep, "0.3"]')
    run(tmp_path, "--once", "--lane", "docs", "--keep-going", projects.ANY_PORT)
    assert projects.stages(projects.runs(tmp_path)[-1])["good"] == ("success", "")


def test_history_that_cannot_be_written_ends_with_3_and_the_work_is_done(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "touch done", shell: true')
    (tmp_path / ".paropt").write_text("in the way: root may write anywhere, but not below a file")
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 3
    assert (tmp_path / "done").exists()
    assert "standard succeeded" in ended.stdout
    assert ".paropt" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_failed_runs_failed_stages_and_dependents_until_none_is_left(tmp_path: Path) -> None:
    projects.write(
        tmp_path,
        """
        name: good, run: "echo >> good", shell: true
        name: bad, run: "test -e repaired", shell: true
        name: needy, run: "true", needs: [bad]
        """,
    )
    assert run(tmp_path, "--once", projects.ANY_PORT).returncode == 1
    (tmp_path / "repaired").touch()
    assert run(tmp_path, "--once", "--failed", projects.ANY_PORT).returncode == 0
    assert projects.stages(projects.runs(tmp_path)[-1]).keys() == {"bad", "needy"}
    again = run(tmp_path, "--once", "--failed", projects.ANY_PORT)
    said = "paropt-exporter: --failed: nothing to run: no stage of lane standard failed when it last ran\n"
    assert (again.returncode, again.stderr) == (0, said)
