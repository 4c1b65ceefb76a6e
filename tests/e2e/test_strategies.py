"""Each strategy works as named, by process ids, thread names and the overlap of recorded times."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from support import processes, projects
from support.in_process import call_command
from support.real_servers import HANG_SECONDS, run, serving

CALLS = """
    import json, os, pathlib, signal, threading, time

    def told(name, began):
        facts = [name, os.getpid(), os.getppid(), threading.current_thread().name, began, time.monotonic()]
        path = pathlib.Path("told") / f"{name}-{time.monotonic_ns()}-{os.getpid()}"
        path.write_text(json.dumps(facts))

    def wait(item=""):
        began = time.monotonic()
        time.sleep(0.15)
        told("wait", began)

    def burn(item=""):
        began = time.monotonic()
        until = time.thread_time() + 0.06
        while time.thread_time() < until:
            sum(range(1000))
        told("burn", began)

    def returns(): pass
    def exits(): os._exit(7)
    def dies(): os.kill(os.getpid(), signal.SIGKILL)
    def prints():
        while True:
            print("still printing")

    def hangs():
        pathlib.Path("hanging").write_text(str(os.getpid()))
        time.sleep(60)
"""
ITEMS = 'items: {list: ["1", "2", "3", "4", "5", "6", "7", "8"]}'
WAITING = f'name: waiting, call: "calls:wait", {ITEMS}'
MIXED = f'{WAITING}\nname: burning, call: "calls:burn", {ITEMS}'


@dataclass(frozen=True)
class Call:
    """One call, as it told about itself."""

    name: str
    pid: int
    parent: int
    thread: str
    began: float
    ended: float


def calls_of(folder: Path, *arguments: str, stages: str = MIXED) -> tuple[int, list[Call]]:
    """Run the stages. Return the exporter's pid and the calls' records, in order of their starts."""
    projects.write(folder, stages, calls=CALLS)
    (folder / "told").mkdir()
    with serving(folder, "--once", projects.ANY_PORT, *arguments) as command:
        assert command.process.wait(HANG_SECONDS) == 0, projects.messages(folder)
        calls = [Call(*json.loads(path.read_text())) for path in (folder / "told").iterdir()]
        return command.process.pid, sorted(calls, key=lambda call: call.began)


def most_at_once(calls: list[Call]) -> int:
    """How many calls went on at one moment, at most."""
    return max(sum(other.began <= call.began < other.ended for other in calls) for call in calls)


def test_thread_runs_calls_in_named_threads_of_the_exporter_side_by_side(tmp_path: Path) -> None:
    exporter, calls = calls_of(tmp_path, "--strategy", "thread", "--workers", "4", stages=WAITING)
    assert len(calls) == 8
    assert {call.pid for call in calls} == {exporter}
    assert all(call.thread.startswith("paropt-threads") for call in calls)
    assert 1 < most_at_once(calls) <= 4


def test_process_runs_calls_in_processes_of_their_own_side_by_side(tmp_path: Path) -> None:
    exporter, calls = calls_of(tmp_path, "--strategy", "process", "--workers", "4", stages=WAITING)
    assert len(calls) == 8
    assert exporter not in {call.pid for call in calls}
    assert 1 < len({call.pid for call in calls}) <= 4
    assert 1 < most_at_once(calls) <= 4


def test_sequential_never_overlaps(tmp_path: Path) -> None:
    _, calls = calls_of(tmp_path, "--strategy", "sequential", stages=WAITING)
    assert len(calls) == 8
    assert all(one.ended <= next_one.began for one, next_one in pairwise(calls))


def test_workers_bound_the_concurrent_tasks(tmp_path: Path) -> None:
    _, calls = calls_of(tmp_path, "--strategy", "thread", "--workers", "2", stages=WAITING)
    assert most_at_once(calls) == 2


@pytest.mark.parametrize("strategy", ["adaptive", "hybrid"])
def test_cpu_bound_calls_move_to_processes_and_waiting_ones_stay_in_threads(tmp_path: Path, strategy: str) -> None:
    # The first burner runs alone: beside another one, on a machine as busy as CI's, it could be taken for waiting.
    stages = 'name: first, call: "calls:burn"\n' + MIXED.replace(", items", ", needs: [first], items")
    exporter, calls = calls_of(tmp_path, "--strategy", strategy, "--workers", "2", stages=stages)
    assert {call.pid for call in calls if call.name == "wait"} == {exporter}
    first, *burners = (call for call in calls if call.name == "burn")
    assert first.pid == exporter
    assert len(burners) == 8
    assert exporter not in {call.pid for call in burners}
    assert most_at_once(calls) > 1


def test_next_exporter_starts_with_learned_profiles_of_calls(tmp_path: Path) -> None:
    stages = 'name: first, call: "calls:burn"'
    exporter, (first,) = calls_of(tmp_path, stages=stages)
    (tmp_path / "told").rename(tmp_path / "told before")
    again, (second,) = calls_of(tmp_path, stages=stages)
    assert (first.pid == exporter, second.pid == again) == (True, False)


@pytest.mark.parametrize("fatal", ["exits", "dies"])
def test_call_that_ends_its_process_fails_just_its_stage(tmp_path: Path, fatal: str) -> None:
    projects.write(tmp_path, f'name: fatal, call: "calls:{fatal}"\n{WAITING}', calls=CALLS)
    (tmp_path / "told").mkdir()
    ended = run(tmp_path, "--once", "--strategy", "process", "--workers", "2", projects.ANY_PORT)
    assert ended.returncode == 1, ended.stderr
    stages = projects.stages(projects.runs(tmp_path)[-1])
    result, message = stages.pop("fatal")
    assert result == "error"
    assert ("exited with code 7" if fatal == "exits" else "SIGKILL") in message
    assert "fatal" in message
    assert set(stages.values()) == {("success", "")}
    assert len(list((tmp_path / "told").iterdir())) == 8


def test_call_in_a_thread_is_abandoned_and_named_at_its_time_limit(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: hanging, call: "calls:hangs", timeout: 0.3', calls=CALLS)
    ended = run(tmp_path, "--once", "--strategy", "thread", projects.ANY_PORT)
    assert ended.returncode == 1
    assert projects.stages(projects.runs(tmp_path)[-1]) == {"hanging": ("timeout", "timed out after 0.3 s")}
    assert "left     hanging still runs in its thread" in ended.stdout


def test_abandoned_call_that_prints_changes_neither_the_exit_code_nor_the_output(tmp_path: Path) -> None:
    """It printed to the terminal after the summary, and the interpreter aborted at its end: exit code 134."""
    projects.write(tmp_path, 'name: printing, call: "calls:prints", timeout: 0.3', calls=CALLS)
    ended = run(tmp_path, "--once", "--strategy", "thread", projects.ANY_PORT)
    assert ended.returncode == 1
    assert "left     printing still runs in its thread" in ended.stdout
    assert "still printing" not in ended.stdout + ended.stderr


def test_call_in_a_process_is_killed_at_its_time_limit(tmp_path: Path) -> None:
    # The first call starts the worker and imports the module, which takes longer than the limit on a busy machine.
    stages = 'name: first, call: "calls:returns"\nname: hanging, call: "calls:hangs", timeout: 2, needs: [first]'
    projects.write(tmp_path, stages, calls=CALLS)
    with serving(tmp_path, "--strategy", "process", "--workers", "1", projects.ANY_PORT) as command:
        assert command.summary().startswith("standard failed")
        assert not processes.is_alive(projects.pid_in(tmp_path / "hanging"))
        command.stop()
    stage = projects.stages(projects.runs(tmp_path)[-1])["hanging"]
    assert stage == ("timeout", "timed out after 2 s")


def test_signals_reach_calls_in_processes_too(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: hanging, call: "calls:hangs"', calls=CALLS)
    with serving(tmp_path, "--strategy", "process", projects.ANY_PORT) as command:
        worker = projects.pid_in(tmp_path / "hanging")
        command.process.send_signal(signal.SIGTERM)
        command.process.communicate(timeout=HANG_SECONDS)
        assert command.process.returncode == 143
    assert not processes.is_alive(worker)


@pytest.mark.parametrize("strategy", ["thread", "process"])
def test_another_process_may_kill_a_worker_and_its_siblings_run_on(tmp_path: Path, strategy: str) -> None:
    stages = 'name: victim, run: "echo $$ > hanging; exec sleep 60", shell: true'
    if strategy == "process":
        stages = 'name: victim, call: "calls:hangs"'
    projects.write(tmp_path, f"{stages}\n{WAITING}", calls=CALLS)
    (tmp_path / "told").mkdir()
    with serving(tmp_path, "--once", "--strategy", strategy, "--workers", "4", projects.ANY_PORT) as command:
        os.kill(projects.pid_in(tmp_path / "hanging"), signal.SIGKILL)
        assert command.process.wait(HANG_SECONDS) == 1
    stages_of_run = projects.stages(projects.runs(tmp_path)[-1])
    result, message = stages_of_run.pop("victim")
    assert result == "error"
    assert "SIGKILL" in message
    assert set(stages_of_run.values()) == {("success", "")}


def test_automatic_sizes_follow_the_cpu_affinity(tmp_path: Path) -> None:
    projects.write(tmp_path, MIXED, calls=CALLS, lanes="lanes: {standard: {strategy: process, workers: auto}}")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        planned = json.loads(call_command(tmp_path, "plan", "--output", "json").stdout)
    finally:
        os.sched_setaffinity(0, allowed)
    assert planned["workers"]["start"] == 1, planned
