"""A pool of a real Dask cluster does what the local pools do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from paropt_exporter.errors import CallFailed, UnpicklableError, WorkerDied
from paropt_exporter.events import Result
from paropt_exporter.executors.base import RemoteTaskOptions
from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.commands.command_pool import CommandPool
from support.cluster_tasks import EXIT_VARIABLE, kill_own_process, raise_no_pickle, return_exit, return_no_pickle
from support.command_scripts import BURNER
from support.pool_tasks import eventually

WAIT_SECONDS = 60.0
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.mark.parametrize(
    "step",
    [("true",), ("sh", "-c", "echo out; exit 3"), ("sh", "-c", "kill -9 $$"), ("no-such-program",)],
    ids=lambda step: step[-1],
)
def test_command_has_the_outcome_of_a_local_run(pool: ClusterPool, tmp_path: Path, step: tuple[str, ...]) -> None:
    with CommandPool(1) as local:
        wanted = local.submit_commands("local", [step], cwd=tmp_path).result(WAIT_SECONDS)
    found = pool.submit_commands("remote", [step]).result(WAIT_SECONDS)
    assert (found.result, found.exit_code, found.signal, found.output, found.message) == (
        wanted.result, wanted.exit_code, wanted.signal, wanted.output, wanted.message,
    )  # fmt: skip


def test_command_runs_in_its_folder_with_its_variables(pool: ClusterPool, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    options = RemoteTaskOptions(folder="sub", env={"PAROPT_TEST": "yes"})
    found = pool.submit_commands("t", [["sh", "-c", "pwd; echo $PAROPT_TEST"]], options=options).result(WAIT_SECONDS)
    assert found.output == f"{tmp_path / 'sub'}\nyes\n"


def test_cpu_of_a_burner_is_measured_on_the_worker(pool: ClusterPool) -> None:
    outcome = pool.submit_commands("burn", [["python3", "-S", "-c", BURNER, "0.5"]]).result(WAIT_SECONDS)
    measured = outcome.measurement
    assert measured.cpu_seconds == pytest.approx(float(outcome.output), rel=0.1)
    assert measured.ended_seconds - measured.started_seconds >= measured.cpu_seconds * 0.9


def test_call_returns_its_output(pool: ClusterPool, tmp_path: Path) -> None:
    (tmp_path / "remote_checks.py").write_text("def check(word):\n    print('checked', word)\n")
    outcome = pool.submit_call("t", "remote_checks:check", ("x",)).result(WAIT_SECONDS)
    assert outcome.output == "checked x\n"


def test_failing_call_fails_alone(pool: ClusterPool, tmp_path: Path) -> None:
    (tmp_path / "failing_checks.py").write_text("def check():\n    raise ValueError('no')\n")
    failed = pool.submit_call("t", "failing_checks:check", ())
    with pytest.raises(CallFailed, match="ValueError: no"):
        failed.result(WAIT_SECONDS)
    assert pool.submit(pow, 2, 3).result(WAIT_SECONDS) == 8


def test_dying_call_costs_one_attempt(pool: ClusterPool) -> None:
    with pytest.raises(WorkerDied, match="SIGKILL"):
        pool.submit(kill_own_process).result(WAIT_SECONDS)
    assert pool.submit(pow, 2, 3).result(WAIT_SECONDS) == 8
    assert pool.live == 2


@pytest.mark.parametrize("function", [return_no_pickle, raise_no_pickle])
def test_result_that_cannot_be_pickled_fails_its_task(pool: ClusterPool, function: object) -> None:
    assert callable(function)
    with pytest.raises((UnpicklableError, ValueError), match=r"can't travel|bad value"):
        pool.submit(function).result(WAIT_SECONDS)
    assert pool.submit(pow, 2, 3).result(WAIT_SECONDS) == 8


def test_result_that_exits_where_it_is_loaded_fails_its_task(
    pool: ClusterPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXIT_VARIABLE, "1")  # in this process only: the workers load it without harm
    with pytest.raises(WorkerDied, match="can't be read: SystemExit: the class of a result exits"):
        pool.submit(return_exit).result(20)
    assert pool.submit(pow, 2, 3).result(20) == 8


def test_stopped_command_gets_its_grace(pool: ClusterPool, tmp_path: Path) -> None:
    fifo = tmp_path / "begun"
    code = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye')));"
        f"open({str(fifo)!r}, 'w').close(); signal.pause()"
    )
    os.mkfifo(fifo)
    future = pool.submit_commands("t", [[sys.executable, "-c", code]])
    fifo.read_text()
    assert pool.stop(future, grace_seconds=30.0)
    outcome = future.result(WAIT_SECONDS)
    assert (outcome.result, outcome.output) == (Result.CANCELLATION, "bye\n")


def test_queued_task_is_cancelled_at_once(pool: ClusterPool, tmp_path: Path) -> None:
    busy = []
    for name in ("one", "two"):
        os.mkfifo(tmp_path / name)
        busy.append(pool.submit_commands("busy", [["sh", "-c", f"echo > {tmp_path / name}; exec sleep 60"]]))
        (tmp_path / name).read_text()
    queued = pool.submit_commands("queued", [["touch", str(tmp_path / "ran")]])
    assert pool.stop(queued)
    assert queued.cancelled()
    for future in busy:
        pool.stop(future, grace_seconds=0.0)
        future.result(WAIT_SECONDS)
    pool.submit(pow, 2, 2).result(WAIT_SECONDS)
    assert not (tmp_path / "ran").exists()


def test_statistics_add_up_at_rest(pool: ClusterPool) -> None:
    futures = [pool.submit(pow, 2, n) for n in range(50)] + [pool.submit_commands("f", [["false"]])]
    for future in futures:
        future.exception(WAIT_SECONDS)
    assert eventually(lambda: pool.statistics().live == 2)  # the first worker may do it all before the second is there
    statistics = pool.statistics()
    assert statistics.submitted == sum(statistics.finished.values()) == 51
    assert statistics.finished[Result.SUCCESS] == 50
    assert statistics.finished[Result.FAILURE] == 1
    assert (statistics.live, statistics.busy, statistics.queued) == (2, 0, 0)
    assert 0 < statistics.busy_seconds <= statistics.slot_seconds


def test_wide_task_keeps_no_more_workers_busy_than_there_are(pool: ClusterPool, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    wide = RemoteTaskOptions(slots=8)
    assert eventually(lambda: pool.statistics().live == 2)
    future = pool.submit_commands("wide", [["sh", "-c", f"echo > {fifo}; read x < {fifo}"]], options=wide)
    fifo.read_text()
    statistics = pool.statistics()
    fifo.write_text("go\n")
    assert future.result(WAIT_SECONDS).result is Result.SUCCESS
    assert (statistics.live, statistics.busy) == (2, 1)


def test_smaller_target_lets_running_tasks_finish(pool: ClusterPool) -> None:
    pool.resize(1, reason="demand")
    futures = [pool.submit_commands("t", [["true"]]) for _ in range(3)]
    assert [future.result(WAIT_SECONDS).result for future in futures] == [Result.SUCCESS] * 3
    assert pool.target == 1


def test_task_of_a_closed_pool_is_refused(pool: ClusterPool) -> None:
    pool.close_within(0.0)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(pow, 2, 2)
