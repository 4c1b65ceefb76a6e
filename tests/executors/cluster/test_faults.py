"""Faults of a cluster: killed workers, lost schedulers, killed coordinators."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil
import pytest

import soak_cluster
from paropt_exporter.errors import WorkerDied
from paropt_exporter.events import Result
from paropt_exporter.executors.base import RemoteTaskOptions
from paropt_exporter.executors.cluster import coordinator, dispatcher
from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.dispatcher import Dispatcher
from paropt_exporter.executors.cluster.settings import ClusterError, ClusterSettings
from paropt_exporter.executors.cluster.snapshot import Repository
from paropt_exporter.executors.cluster.work_items import WorkItem
from paropt_exporter.executors.commands.output import OutputFile
from support.cluster_tasks import (
    EXIT_VARIABLE,
    LIES,
    MALFORMED,
    answer_twice,
    begin_again,
    claim_a_long_duration,
    lose_temporary_folder,
    send_malformed,
    set_status,
    tell_lies,
)
from support.dask_clusters import DaskCluster, open_pool, run_on_workers
from support.network_namespaces import find_obstacle
from support.real_servers import eventually

WAIT_SECONDS = 60.0
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def start_sleeper(pool: ClusterPool, folder: Path, name: str) -> tuple[object, int]:
    """Start a command that signs the ledger and sleeps; return its future and its process, once it runs."""
    fifo = folder / f"{name}.fifo"
    os.mkfifo(fifo)
    code = f"echo {name} >> {folder / 'ledger'}; echo $$ > {fifo}; exec sleep 300"
    future = pool.submit_commands(name, [["sh", "-c", code]])
    return future, int(fifo.read_text())


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended. Its next parent may never reap it."""
    eventually(f"process {pid} has ended", lambda: not psutil.pid_exists(pid) or is_zombie(pid))


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_killed_worker_costs_its_task_one_attempt(own_cluster: DaskCluster, tmp_path: Path) -> None:
    victim = own_cluster.start_worker("victim")
    pool = open_pool(own_cluster, tmp_path)
    try:
        lost, pid = start_sleeper(pool, tmp_path, "lost")
        own_cluster.start_worker("other", folder="other-host")
        kept, _ = start_sleeper(pool, tmp_path, "kept")
        victim.kill()
        with pytest.raises(WorkerDied, match=r"lost: the worker victim on .* has gone"):
            lost.result(WAIT_SECONDS)  # type: ignore[attr-defined]
        wait_for_end(pid)
        assert pool.statistics().deaths == {"lost": 1}
        # A worker at the same address gets tasks, but not the lost one again.
        own_cluster.start_worker("victim", port=victim.port)
        assert [pool.submit(pow, 2, n).result(WAIT_SECONDS) for n in range(3)] == [1, 2, 4]
        assert pool.stop(kept, grace_seconds=0.0)  # type: ignore[arg-type]
        assert kept.result(WAIT_SECONDS).result is Result.CANCELLATION  # type: ignore[attr-defined]
        assert sorted((tmp_path / "ledger").read_text().split()) == ["kept", "lost"]
    finally:
        pool.close_within(0.0)


def test_closed_pool_settles_the_tasks_of_a_worker_that_may_be_cut_off(
    own_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the pool is closed, they wait for the grace of a partition."""
    monkeypatch.setattr(dispatcher, "_SILENT_SECONDS", 0.0)
    victim = own_cluster.start_worker("victim")
    pool = open_pool(own_cluster, tmp_path)
    try:
        lost, _ = start_sleeper(pool, tmp_path, "lost")
        victim.kill()
        eventually("the worker is lost", lambda: pool.statistics().deaths == {"lost": 1})
        assert not lost.done()  # type: ignore[attr-defined]
    finally:
        pool.close_within(0.0)
    with pytest.raises(WorkerDied, match="without an answer"):
        lost.result(WAIT_SECONDS)  # type: ignore[attr-defined]
    assert pool.statistics().finished["error"] == 1


def test_closed_pool_tells_waiters_that_queued_tasks_are_cancelled(shared_cluster: DaskCluster, tmp_path: Path) -> None:
    pool = open_pool(shared_cluster, tmp_path, size=1)
    try:
        start_sleeper(pool, tmp_path, "running")
        queued = pool.submit(pow, 2, 2)
    finally:
        pool.close_within(0.0)
    assert wait([queued], WAIT_SECONDS).done == {queued}
    assert queued.cancelled()


def test_task_that_is_submitted_while_the_pool_is_closed_is_cancelled(
    shared_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client  # here, since it takes a third of a second in each worker of pytest-xdist

    pool = open_pool(shared_cluster, tmp_path)
    accepted, closing, queued = threading.Event(), threading.Event(), threading.Event()
    submit = Dispatcher.submit
    close: Any = Client.close  # it has no types
    futures: list[Any] = []

    def submit_late(dispatcher: Dispatcher, item: WorkItem) -> None:
        accepted.set()
        closing.wait(WAIT_SECONDS)
        submit(dispatcher, item)
        queued.set()

    async def close_late(client: Any) -> None:
        closing.set()
        await asyncio.to_thread(queued.wait, WAIT_SECONDS)
        await close(client)

    monkeypatch.setattr(Dispatcher, "submit", submit_late)
    monkeypatch.setattr(Client, "close", close_late)
    submitting = threading.Thread(target=lambda: futures.append(pool.submit(pow, 2, 2)))
    submitting.start()
    accepted.wait(WAIT_SECONDS)
    pool.close_within(0.0)
    submitting.join(WAIT_SECONDS)
    assert wait(futures, WAIT_SECONDS).done == set(futures)
    assert [future.cancelled() for future in futures] == [True]


def test_closed_pool_ends_the_beginning_of_a_run(
    shared_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread reads the files then, and ends later."""
    pool = ClusterPool(ClusterSettings(root=tmp_path, scheduler=shared_cluster.address), 1)
    begun, closed = threading.Event(), threading.Event()

    def read_long(*_: object) -> None:
        begun.set()
        closed.wait(WAIT_SECONDS)

    monkeypatch.setattr(Repository, "take", read_long)
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(pool.begin_run, ())
        begun.wait(WAIT_SECONDS)
        pool.close_within(0.0)
        closed.set()
        with pytest.raises(ClusterError, match="the pool was closed"):
            run.result(WAIT_SECONDS)


def test_late_result_of_a_given_up_task_is_dropped_with_a_line(
    own_cluster: DaskCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = own_cluster.start_worker("frozen")
    pool = open_pool(own_cluster, tmp_path, size=1)
    os.mkfifo(tmp_path / "go")
    try:
        code = f"echo $$ > {tmp_path / 'begun'}; cat {tmp_path / 'go'}"
        os.mkfifo(tmp_path / "begun")
        late = pool.submit_commands("late", [["sh", "-c", code]])
        command = int((tmp_path / "begun").read_text())
        worker.send_signal(signal.SIGSTOP)
        pool.give_up(late)
        with pytest.raises(WorkerDied, match="its worker did not answer the order to stop"):
            late.result(WAIT_SECONDS)
        (tmp_path / "go").write_text("")
        wait_for_end(command)
        worker.send_signal(signal.SIGCONT)
        assert pool.submit_commands("after", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
        assert "a result came after its task was given up: dropped" in caplog.messages
        assert isinstance(late.exception(0), WorkerDied)
        assert sum(pool.statistics().finished.values()) == pool.statistics().submitted == 2
    finally:
        pool.close_within(0.0)


@pytest.mark.parametrize("lie", LIES)
def test_reply_that_makes_no_sense_fails_its_task(own_cluster: DaskCluster, tmp_path: Path, lie: str) -> None:
    own_cluster.start_worker("liar")
    pool = open_pool(own_cluster, tmp_path, size=1)
    try:
        assert pool.submit_commands("before", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
        run_on_workers(own_cluster, tell_lies, lie)
        with pytest.raises(WorkerDied, match=f"told: its reply .*{lie}"):
            pool.submit_commands("told", [["true"]]).result(WAIT_SECONDS)
        assert pool.live == 1
    finally:
        pool.close_within(0.0)


def test_task_takes_no_longer_than_the_time_since_it_was_sent(own_cluster: DaskCluster, tmp_path: Path) -> None:
    """The totals on the page would keep a false duration for good."""
    own_cluster.start_worker("liar")
    pool = open_pool(own_cluster, tmp_path, size=1)
    try:
        assert pool.submit_commands("before", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
        run_on_workers(own_cluster, claim_a_long_duration)
        measured = pool.submit_commands("told", [["true"]]).result(WAIT_SECONDS).measurement
        assert measured.ended_seconds - measured.started_seconds < WAIT_SECONDS
        assert pool.statistics().busy_seconds < 2 * WAIT_SECONDS
    finally:
        pool.close_within(0.0)


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_message_costs_its_worker_and_a_line(
    own_cluster: DaskCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    monkeypatch.setenv(EXIT_VARIABLE, "1")
    liar = own_cluster.start_worker("liar")
    pool = open_pool(own_cluster, tmp_path, size=1)
    try:
        assert pool.submit_commands("before", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
        run_on_workers(own_cluster, send_malformed, kind)
        with pytest.raises(WorkerDied, match=r"told: lost: the worker liar on .* has gone"):
            pool.submit_commands("told", [["true"]]).result(WAIT_SECONDS)
        liar.kill()  # after a second the pool would take it again, for the next task too
        eventually("the pool has no worker", lambda: pool.live == 0)
        own_cluster.start_worker("honest", folder="other-host")
        assert pool.submit_commands("after", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
    finally:
        pool.close_within(0.0)
    assert {record.message for record in caplog.records} == {"messages can't be read: their connection ends"}
    assert not [record for record in caplog.records if record.exc_info]


def test_tasks_of_an_earlier_session_are_killed_before_a_later_one_begins(
    own_cluster: DaskCluster, tmp_path: Path
) -> None:
    """Their coordinator has given them up, and may run them again; the end of their connection may not arrive."""
    own_cluster.start_worker("a")
    pool = open_pool(own_cluster, tmp_path, size=1)
    try:
        running, pid = start_sleeper(pool, tmp_path, "running")
        run_on_workers(own_cluster, begin_again)
        wait_for_end(pid)
        assert isinstance(running.exception(WAIT_SECONDS), WorkerDied)  # type: ignore[attr-defined]
    finally:
        pool.close_within(0.0)


@pytest.mark.parametrize("comes_first", ["pool", "pause"])
def test_paused_worker_gets_no_task_until_it_goes_on(
    own_cluster: DaskCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture, comes_first: str
) -> None:
    """A task that was sent there would wait, while other workers are idle."""
    own_cluster.start_worker("a")
    own_cluster.start_worker("b")
    if comes_first == "pause":
        run_on_workers(own_cluster, set_status, "a", "paused")
    pool = open_pool(own_cluster, tmp_path)
    try:
        if comes_first == "pool":
            eventually("both workers take tasks", lambda: pool.live == 2)
            run_on_workers(own_cluster, set_status, "a", "paused")
        eventually("a line tells of it", lambda: caplog.messages)
        tasks = [pool.submit_commands(f"task[{number}]", [["true"]]) for number in range(4)]
        assert [task.result(WAIT_SECONDS).result for task in tasks] == [Result.SUCCESS] * 4
        run_on_workers(own_cluster, set_status, "a", "running")
        eventually("both workers take tasks", lambda: pool.live == 2)
    finally:
        pool.close_within(0.0)
    assert caplog.messages == ["Dask has paused a worker: it gets no task until it goes on"]


def test_worker_without_a_folder_for_temporary_files_fails_only_tasks_that_need_one(
    own_cluster: DaskCluster, tmp_path: Path
) -> None:
    own_cluster.start_worker("a")
    pool = open_pool(own_cluster, tmp_path, size=1)
    options = RemoteTaskOptions(output_file=OutputFile(tmp_path / "output"))
    try:
        assert pool.submit_commands("before", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
        run_on_workers(own_cluster, lose_temporary_folder)
        with pytest.raises(FileNotFoundError, match="/proc/nonexistent"):
            pool.submit_commands("told", [["true"]], options=options).result(WAIT_SECONDS)
        assert pool.submit_commands("after", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
        assert not any(pool.statistics().deaths.values())
    finally:
        pool.close_within(0.0)


def test_reply_that_comes_twice_counts_once(own_cluster: DaskCluster, tmp_path: Path) -> None:
    own_cluster.start_worker("stammerer")
    pool = open_pool(own_cluster, tmp_path, size=1)
    try:
        assert pool.submit(pow, 2, 0).result(WAIT_SECONDS) == 1
        run_on_workers(own_cluster, answer_twice)
        assert [pool.submit(pow, 2, n).result(WAIT_SECONDS) for n in range(10)] == [2**n for n in range(10)]
        assert pool.live == 1
        assert pool.statistics().finished["success"] == 11
        assert not any(pool.statistics().deaths.values())
    finally:
        pool.close_within(0.0)


def test_second_coordinator_connects_while_tasks_of_the_first_keep_all_threads(
    own_cluster: DaskCluster, tmp_path: Path
) -> None:
    own_cluster.start_worker("only")
    first = open_pool(own_cluster, tmp_path, size=1)
    try:
        long, _ = start_sleeper(first, tmp_path, "long")
        second = open_pool(own_cluster, tmp_path, size=1)
        try:
            queued = second.submit_commands("queued", [["true"]])
            assert second.live == 1
            assert first.stop(long, grace_seconds=0.0)  # type: ignore[arg-type]
            assert queued.result(WAIT_SECONDS).result is Result.SUCCESS
        finally:
            second.close_within(0.0)
    finally:
        first.close_within(0.0)


def test_closed_pool_leaves_no_process(shared_cluster: DaskCluster, tmp_path: Path) -> None:
    pool = open_pool(shared_cluster, tmp_path)
    future, pid = start_sleeper(pool, tmp_path, "t")
    pool.close_within(0.0)
    wait_for_end(pid)
    assert isinstance(future.exception(0), WorkerDied)  # type: ignore[attr-defined]


_COORDINATOR = """
import sys
from pathlib import Path
from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.settings import ClusterSettings

root = Path(sys.argv[2])
pool = ClusterPool(ClusterSettings(root=root, scheduler=sys.argv[1], shared_root=str(root)), 2)
code = f"echo $$ > {root / 'fifo'}; exec sleep 300"
pool.submit_commands("t", [["sh", "-c", code]]).result(300)
"""


def test_killed_coordinator_leaves_no_process(shared_cluster: DaskCluster, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    coordinator = subprocess.Popen([sys.executable, "-c", _COORDINATOR, shared_cluster.address, str(tmp_path)])
    try:
        pid = int((tmp_path / "fifo").read_text())
        coordinator.send_signal(signal.SIGKILL)
        wait_for_end(pid)
    finally:
        coordinator.kill()
        coordinator.wait(WAIT_SECONDS)


def test_lost_scheduler_fails_running_tasks_and_then_the_queue(own_cluster: DaskCluster, tmp_path: Path) -> None:
    own_cluster.start_worker("a")
    pool = open_pool(own_cluster, tmp_path, size=1, reconnect_seconds=2.0)
    try:
        running, pid = start_sleeper(pool, tmp_path, "running")
        queued = pool.submit_commands("queued", [["true"]])
        assert own_cluster.scheduler is not None
        own_cluster.scheduler.kill()
        with pytest.raises(WorkerDied, match="lost"):
            running.result(WAIT_SECONDS)  # type: ignore[attr-defined]
        wait_for_end(pid)
        with pytest.raises(ClusterError, match="scheduler has been away for 2 s: systemd or Kubernetes must restart"):
            queued.result(WAIT_SECONDS)
    finally:
        pool.close_within(0.0)


def test_queue_fails_if_a_server_that_never_answers_takes_the_schedulers_place(
    own_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a scheduler that hangs as it starts: Dask's client would wait for it without end."""
    monkeypatch.setattr(coordinator, "_HANDSHAKE_SECONDS", 0.5)
    own_cluster.start_worker("a")
    scheduler = own_cluster.scheduler
    assert scheduler is not None
    pool = open_pool(own_cluster, tmp_path, size=1, reconnect_seconds=2.0)
    try:
        start_sleeper(pool, tmp_path, "running")
        queued = pool.submit_commands("queued", [["true"]])
        scheduler.kill()
        with (
            socket.create_server(("127.0.0.1", scheduler.port)),
            pytest.raises(ClusterError, match="the scheduler has been away for 2 s"),
        ):
            queued.result(WAIT_SECONDS)
    finally:
        pool.close_within(0.0)


def test_queue_fails_if_the_scheduler_hangs(
    own_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection to a stopped process stays, and no further task would begin."""
    monkeypatch.setattr(coordinator, "_HANDSHAKE_SECONDS", 0.5)
    monkeypatch.setattr(coordinator, "_ASK_SECONDS", 0.2)
    own_cluster.start_worker("a")
    pool = open_pool(own_cluster, tmp_path, size=1, reconnect_seconds=1.0)
    try:
        running, pid = start_sleeper(pool, tmp_path, "running")
        queued = pool.submit_commands("queued", [["true"]])
        assert own_cluster.scheduler is not None
        own_cluster.scheduler.send_signal(signal.SIGSTOP)
        with pytest.raises(WorkerDied, match="lost: the scheduler has gone"):
            running.result(WAIT_SECONDS)  # type: ignore[attr-defined]
        wait_for_end(pid)
        with pytest.raises(ClusterError, match="the scheduler has been away for 1 s"):
            queued.result(WAIT_SECONDS)
    finally:
        pool.close_within(0.0)
    assert "the scheduler does not answer: its connection is cut" in caplog.messages
    assert not [record for record in caplog.records if record.exc_info]


def test_scheduler_that_comes_back_is_used_again(own_cluster: DaskCluster, tmp_path: Path) -> None:
    own_cluster.start_worker("a")
    pool = open_pool(own_cluster, tmp_path, size=1)
    try:
        running, _ = start_sleeper(pool, tmp_path, "running")
        queued = pool.submit_commands("queued", [["true"]])
        assert own_cluster.scheduler is not None
        port = own_cluster.scheduler.port
        own_cluster.scheduler.kill()
        assert isinstance(running.exception(WAIT_SECONDS), WorkerDied)  # type: ignore[attr-defined]
        own_cluster.start_scheduler(port=port)
        own_cluster.start_worker("b")
        assert queued.result(WAIT_SECONDS).result is Result.SUCCESS
        assert (tmp_path / "ledger").read_text() == "running\n"
    finally:
        pool.close_within(0.0)


def test_scheduler_that_goes_again_while_it_comes_back_is_watched(
    own_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed.core import PooledRPCCall  # as above

    own_cluster.start_worker("a")
    pool = open_pool(own_cluster, tmp_path, size=1, reconnect_seconds=8.0)
    identify: Any = PooledRPCCall.__getattr__  # it has no types
    refused = threading.Event()

    def refuse_once(call: Any, name: str) -> Any:
        """Fail the first question for workers, as if the scheduler had gone again."""
        caller: Any = sys._getframe(3).f_code.co_name
        if name != "identity" or caller != "_watch_connection" or refused.is_set():
            return identify(call, name)
        refused.set()
        raise OSError("the scheduler has gone again")

    try:
        assert own_cluster.scheduler is not None
        port = own_cluster.scheduler.port
        own_cluster.scheduler.kill()
        eventually("the loss is noticed", lambda: pool.live == 0)
        monkeypatch.setattr(PooledRPCCall, "__getattr__", refuse_once)
        own_cluster.start_scheduler(port=port)
        own_cluster.start_worker("b")
        assert refused.wait(WAIT_SECONDS)
        assert pool.submit_commands("before", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
        own_cluster.scheduler.kill()
        eventually("its worker is lost", lambda: pool.live == 0)
        with pytest.raises(ClusterError, match="scheduler has been away"):
            pool.submit_commands("after", [["true"]]).result(WAIT_SECONDS)
    finally:
        pool.close_within(0.0)


def test_queue_fails_if_no_worker_comes_back(own_cluster: DaskCluster, tmp_path: Path) -> None:
    worker = own_cluster.start_worker("a")
    pool = open_pool(own_cluster, tmp_path, size=1, start_timeout_seconds=0.5)
    try:
        running, _ = start_sleeper(pool, tmp_path, "running")
        queued = pool.submit_commands("queued", [["true"]])
        worker.kill()
        assert isinstance(running.exception(WAIT_SECONDS), WorkerDied)  # type: ignore[attr-defined]
        with pytest.raises(ClusterError, match=r"^dask: no worker for \d s"):
            queued.result(WAIT_SECONDS)
    finally:
        pool.close_within(0.0)


@pytest.mark.timeout(400)  # each partition lasts for Dask's time-out; little of that is CPU time
def test_random_kills_and_partitions_lose_no_task_and_begin_none_twice(tmp_path: Path) -> None:
    kills, partitions = 10, 0 if find_obstacle() else 2  # test_partition.py says why there is none
    counts = soak_cluster.soak(tmp_path, tasks=200, kills=kills, partitions=partitions)
    faults = kills + partitions
    assert faults / 2 <= counts.pop("retries") <= 2 * faults  # each worker has a task and one ahead
    assert counts == {"lost": 0, "begun twice": 0, "ran beside its retry": 0, "processes left": 0}
