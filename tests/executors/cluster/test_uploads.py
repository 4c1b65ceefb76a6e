"""Each host receives the files once for each run, and sends outputs, reports and whole outputs back."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paropt_exporter.events import Result
from paropt_exporter.executors.base import REPORT_PATH, RemoteTaskOptions
from paropt_exporter.executors.cluster import host_files, transfers
from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.file_sync import choose_destination
from paropt_exporter.executors.cluster.messages import RemoteFile
from paropt_exporter.executors.cluster.settings import ClusterError, ClusterSettings
from paropt_exporter.executors.cluster.snapshot import Repository, Snapshot
from paropt_exporter.executors.commands.command_pool import CommandOutcome
from paropt_exporter.executors.commands.output import OutputFile
from support.cluster_tasks import set_clock_ahead
from support.dask_clusters import DaskCluster, open_pool, run_on_workers
from support.real_servers import eventually

WAIT_SECONDS = 60.0
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "project"
    (root / "sub").mkdir(parents=True)
    (root / "word.txt").write_text("first\n")
    return root


@pytest.fixture
def pool(shared_cluster: DaskCluster, project: Path) -> Iterator[ClusterPool]:
    made = ClusterPool(ClusterSettings(root=project, scheduler=shared_cluster.address), 2)
    try:
        yield made
    finally:
        made.close_within(0.0)


def test_command_runs_in_a_copy_of_the_files(pool: ClusterPool, project: Path) -> None:
    pool.begin_run(())
    outcome = pool.submit_commands("t", [["sh", "-c", "cat word.txt; touch made; pwd"]]).result(WAIT_SECONDS)
    word, folder = outcome.output.split()
    assert word == "first"
    assert Path(folder) != project
    assert not (project / "made").exists()


def test_next_run_has_the_changed_files(pool: ClusterPool, project: Path) -> None:
    pool.begin_run(())
    (project / "word.txt").write_text("second\n")
    pool.begin_run(())
    outcomes = [pool.submit_commands("t", [["cat", "word.txt"]]) for _ in range(4)]
    assert [outcome.result(WAIT_SECONDS).output for outcome in outcomes] == ["second\n"] * 4


def run_on_each_worker(pool: ClusterPool, project: Path, line: str, *, workers: int) -> list[CommandOutcome]:
    """Run a line of shell on so many workers at once: each has begun before the first one goes on."""
    fifos = [project.parent / f"fifo-{number}" for number in range(workers)]
    for fifo in fifos:
        os.mkfifo(fifo)
    futures = [pool.submit_commands("t", [["sh", "-c", f"echo > {fifo}; {line}"]]) for fifo in fifos]
    for fifo in fifos:
        fifo.read_text()
    return [future.result(WAIT_SECONDS) for future in futures]


def test_worker_that_comes_later_gets_the_snapshot_of_the_run(
    pool: ClusterPool, shared_cluster: DaskCluster, project: Path
) -> None:
    pool.begin_run(())
    (project / "word.txt").write_text("changed during the run\n")
    late = shared_cluster.start_worker("late", folder="another-host")
    try:
        eventually("the late worker takes tasks", lambda: pool.live == 3)
        pool.resize(3)
        outcomes = run_on_each_worker(pool, project, "cat word.txt", workers=3)
        assert [outcome.output for outcome in outcomes] == ["first\n"] * 3
        assert any(outcome.measurement.worker.endswith("/late") for outcome in outcomes)
    finally:
        late.kill()


def test_host_that_lost_its_copy_gets_the_snapshot_again(own_cluster: DaskCluster, project: Path) -> None:
    """Such as by a service that removes old files from /tmp, or by another session that has used the copy since."""
    own_cluster.start_worker("a")
    first = own_cluster.start_worker("b", folder="other-host")
    pool = ClusterPool(ClusterSettings(root=project, scheduler=own_cluster.address), 2)
    try:
        pool.begin_run(())
        eventually("both have the files", lambda: pool.live == 2)
        first.kill()
        eventually("the worker is gone", lambda: pool.live == 1)
        (copy,) = (own_cluster.folder / "other-host").glob("*/paropt/*/commit")
        shutil.rmtree(copy.parent)
        own_cluster.start_worker("c", folder="other-host")
        eventually("the new worker takes tasks", lambda: pool.live == 2)
        outcomes = run_on_each_worker(pool, project, "cat word.txt", workers=2)
        assert [outcome.output for outcome in outcomes] == ["first\n"] * 2
    finally:
        pool.close_within(0.0)


def test_call_finds_its_module_in_the_copy(pool: ClusterPool, project: Path) -> None:
    (project / "travelling.py").write_text("def check():\n    print(__file__)\n")
    pool.begin_run(())
    output = pool.submit_call("t", "travelling:check", ()).result(WAIT_SECONDS).output
    assert output.strip().endswith("/files/travelling.py")
    assert str(project) not in output


def test_outputs_come_back_also_from_a_failure(pool: ClusterPool, project: Path) -> None:
    (project / "word.txt").write_text("committed\n")
    pool.begin_run(())
    make = "mkdir -p reports/deep; echo one > reports/a.xml; echo two > reports/deep/b.xml; echo no > other.xml; exit 1"
    options = RemoteTaskOptions(outputs=("reports/**/*.xml",))
    assert pool.submit_commands("t", [["sh", "-c", make]], options=options).result(WAIT_SECONDS).exit_code == 1
    assert (project / "reports/a.xml").read_text() == "one\n"
    assert (project / "reports/deep/b.xml").read_text() == "two\n"
    assert not (project / "other.xml").exists()


def test_output_comes_back_whatever_its_date(pool: ClusterPool, project: Path) -> None:
    """Such as a file from an archive, or of a reproducible build."""
    pool.begin_run(())
    options = RemoteTaskOptions(outputs=("made",))
    done = pool.submit_commands("t", [["touch", "-d", "2001-01-01", "made"]], options=options)
    assert done.result(WAIT_SECONDS).result is Result.SUCCESS
    assert (project / "made").exists()


def test_outputs_come_back_from_a_file_server_with_another_clock(own_cluster: DaskCluster, project: Path) -> None:
    own_cluster.start_worker("a")
    run_on_workers(own_cluster, set_clock_ahead)
    pool = ClusterPool(ClusterSettings(root=project, scheduler=own_cluster.address), 1)
    options = RemoteTaskOptions(outputs=("made",))
    try:
        pool.begin_run(())
        done = pool.submit_commands("t", [["cp", "word.txt", "made"]], options=options)
        assert done.result(WAIT_SECONDS).result is Result.SUCCESS
        assert (project / "made").exists()
    finally:
        pool.close_within(0.0)


def test_large_output_file_comes_back_in_pieces(pool: ClusterPool, project: Path) -> None:
    pool.begin_run(())
    options = RemoteTaskOptions(outputs=("big.bin",))
    make = ["python3", "-c", "open('big.bin', 'wb').write(bytes(range(256)) * 40_000)"]
    assert pool.submit_commands("t", [make], options=options).result(WAIT_SECONDS).result is Result.SUCCESS
    assert (project / "big.bin").read_bytes() == bytes(range(256)) * 40_000


def test_whole_output_reaches_the_file_of_the_stage(pool: ClusterPool, project: Path) -> None:
    pool.begin_run(())
    options = RemoteTaskOptions(output_file=OutputFile(project / "out.txt"))
    outcome = pool.submit_commands("t", [["seq", "1", "200000"]], options=options).result(WAIT_SECONDS)
    assert outcome.output_path == str(project / "out.txt")
    assert (project / "out.txt").read_text() == "".join(f"{number}\n" for number in range(1, 200_001))


def test_full_disk_for_the_file_of_the_stage_costs_no_task(
    pool: ClusterPool, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As for a local command. The task failed, and its log lacked the output."""
    pool.begin_run(())
    chunks: list[bytes] = []
    sink = SimpleNamespace(write=chunks.append, close=lambda _: None)
    options = RemoteTaskOptions(output_file=OutputFile(Path("/dev/full")), open_sink=lambda: sink)
    outcome = pool.submit_commands("t", [["echo", "hello"]], options=options).result(WAIT_SECONDS)
    assert (outcome.result, outcome.output_path) == (Result.SUCCESS, None)
    assert b"".join(chunks) == b"hello\n"
    assert "cannot write the output to /dev/full: No space left on device" in caplog.messages


def test_report_of_a_runner_comes_back(pool: ClusterPool, project: Path) -> None:
    pool.begin_run(())
    report = project / "report.xml"
    options = RemoteTaskOptions(report=report, env={"WHERE": f"--junitxml={REPORT_PATH}"})
    write = ["sh", "-c", "echo '<report/>' > ${WHERE#--junitxml=}"]
    pool.submit_commands("t", [write], options=options).result(WAIT_SECONDS)
    assert report.read_text() == "<report/>\n"


def test_only_named_variables_travel(pool: ClusterPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAROPT_SECRET", "secret")
    pool.begin_run(())
    options = RemoteTaskOptions(env={"PAROPT_NAMED": "named"})
    outcome = pool.submit_commands("t", [["env"]], options=options).result(WAIT_SECONDS)
    assert "PAROPT_NAMED=named" in outcome.output
    assert "secret" not in outcome.output


def test_worker_that_comes_as_a_run_ends_gets_the_files_of_both_runs_in_turn(
    own_cluster: DaskCluster, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cluster.start_worker("a")
    pool = ClusterPool(ClusterSettings(root=project, scheduler=own_cluster.address), 2)
    call, send, take = transfers.call_worker, transfers.send_bytes, Repository.take
    receiving, begun, begins_next = "", threading.Event(), threading.Event()
    meanwhile: list[str] = []

    async def record_call(client: Any, address: str, function: Any, *arguments: Any) -> Any:
        if address == receiving and function is not transfers.write_piece:
            meanwhile.append(function.__name__)
        return await call(client, address, function, *arguments)

    async def send_until_the_next_run(client: Any, address: str, data: bytes, path: str) -> None:
        nonlocal receiving
        receiving = address
        begun.set()
        await asyncio.to_thread(begins_next.wait, WAIT_SECONDS)
        await send(client, address, data, path)
        receiving = ""

    def take_next(repository: Repository, include: Sequence[str]) -> Snapshot:
        begins_next.set()
        return take(repository, include)

    try:
        pool.begin_run(())
        monkeypatch.setattr(transfers, "call_worker", record_call)
        monkeypatch.setattr(transfers, "send_bytes", send_until_the_next_run)
        monkeypatch.setattr(Repository, "take", take_next)
        own_cluster.start_worker("b", folder="other-host")
        assert begun.wait(WAIT_SECONDS)
        (project / "word.txt").write_text("second\n")
        pool.begin_run(())
        assert meanwhile == []
        assert pool.live == 2
    finally:
        pool.close_within(0.0)


def test_call_of_a_worker_that_hangs_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection to a stopped process stays: a run would not begin, though other workers are fit."""

    class HungWorker:
        """A client, and a worker that never answers."""

        def rpc(self, _address: str) -> HungWorker:
            return self

        async def run(self, **_arguments: object) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(transfers, "_ANSWER_SECONDS", 0.0)
    with pytest.raises(OSError, match=r"^tcp://far:1 does not answer$"):
        asyncio.run(transfers.call_worker(HungWorker(), "tcp://far:1", print))


def test_upload_beyond_its_limit_is_refused_in_one_line(shared_cluster: DaskCluster, project: Path) -> None:
    (project / "large.bin").write_bytes(os.urandom(100_000))
    settings = ClusterSettings(root=project, scheduler=shared_cluster.address, upload_max_bytes=50_000)
    pool = ClusterPool(settings, 1)
    try:
        with pytest.raises(ClusterError, match=r"^dask: no worker can take tasks: .*more than max, 50,000"):
            pool.begin_run(())
    finally:
        pool.close_within(0.0)


def test_files_of_a_task_beyond_the_limit_fail_it_in_one_line(shared_cluster: DaskCluster, project: Path) -> None:
    settings = ClusterSettings(root=project, scheduler=shared_cluster.address, upload_max_bytes=1_000_000)
    pool = ClusterPool(settings, 1)
    try:
        pool.begin_run(())
        options = RemoteTaskOptions(outputs=("*.bin",), output_file=OutputFile(project / "out.txt"))
        for bytes_each, fails in ((300_000, False), (700_000, True)):
            make = f"head -c {bytes_each} /dev/zero | tee a.bin > b.bin"
            error = pool.submit_commands("t", [["sh", "-c", make]], options=options).exception(WAIT_SECONDS)
            assert (error is not None) is fails
        assert str(error) == (
            "t: its files could not be fetched: OSError: they have more than 1,000,000 bytes, dask.upload.max: "
            "write less, or raise it"
        )
        assert sorted(path.stat().st_size for path in project.glob("*.bin")) == [300_000, 700_000]
        endless = ["head", "-c", "2000000", "/dev/zero"]
        failed = pool.submit_commands("t", [endless], options=options)
        assert isinstance(failed.exception(WAIT_SECONDS), ClusterError)
        assert (project / "out.txt").stat().st_size <= 1_000_000
        assert pool.submit_commands("after", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
    finally:
        pool.close_within(0.0)


def test_too_many_outputs_fail_their_task_in_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_files, "MOST_OUTPUTS", 2)
    for name in "ab":
        (project / name).touch()
    assert len(host_files.find_outputs(str(project), ["?"], 0.0)) == 2
    (project / "c").touch()
    with pytest.raises(OSError, match=r"^its outputs are 3 files, more than 2: name fewer, or pack them$"):
        host_files.find_outputs(str(project), ["?"], 0.0)


def test_outputs_are_regular_files_that_changed_since_the_start(project: Path) -> None:
    (project / "a").touch()
    os.mkfifo(project / "b")
    changed_seconds = (project / "a").stat().st_ctime
    found = host_files.find_outputs(str(project), ["?"], changed_seconds)
    assert [each.name for each in found] == ["a"]
    assert host_files.find_outputs(str(project), ["?"], changed_seconds + 60.0) == ()


def test_outputs_that_are_in_their_place_are_not_looked_for(shared_cluster: DaskCluster, project: Path) -> None:
    """Their number and size have no limit: nothing travels."""
    pool = open_pool(shared_cluster, project, size=1)
    options = RemoteTaskOptions(outputs=("many/**",))
    make = f"mkdir many && cd many && seq {host_files.MOST_OUTPUTS + 1} | xargs touch"
    try:
        pool.begin_run(())
        done = pool.submit_commands("t", [["sh", "-c", make]], options=options)
        assert done.result(WAIT_SECONDS).result is Result.SUCCESS
    finally:
        pool.close_within(0.0)


def test_reply_carries_small_files_up_to_a_size(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_files, "MOST_INLINE_BYTES", 3)
    for name in "abc":
        (project / name).write_text(name * (2 if name < "c" else 1))
    assert [each.content for each in host_files.find_outputs(str(project), ["?"], 0.0)] == [b"aa", None, b"c"]


def test_output_that_another_task_removes_meanwhile_costs_no_task(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = host_files.read_small

    def remove_first(path: Path, **facts: Any) -> RemoteFile:
        (project / "a").unlink(missing_ok=True)
        return read(path, **facts)

    monkeypatch.setattr(host_files, "read_small", remove_first)
    for name in "ab":
        (project / name).touch()
    assert [each.name for each in host_files.find_outputs(str(project), ["?"], 0.0)] == ["b"]


def test_missing_program_is_named_before_the_run(
    pool: ClusterPool, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    pool.begin_run(("sh", "no-such-program"))
    assert any("no no-such-program" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("name", ["../outside.xml", "/etc/passwd", "other.txt", "reports/../conf.py"])
def test_worker_cannot_write_where_no_pattern_asks(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="no pattern of outputs asks for"):
        choose_destination(tmp_path, name, ("*.xml", "reports/**/*.*"))


@pytest.mark.parametrize("name", ["", ".", "sub/..", ".git", "sub/.git"])
def test_worker_cannot_write_beside_the_project_or_name_gits_folder(tmp_path: Path, name: str) -> None:
    """A file is written beside its place first, and a file `.git` says which config git reads."""
    with pytest.raises(OSError, match="no pattern of outputs asks for"):
        choose_destination(tmp_path, name, ("**",))


def test_worker_cannot_write_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/reports").symlink_to(tmp_path)
    with pytest.raises(OSError, match="no pattern of outputs asks for"):
        choose_destination(tmp_path / "root", "reports/a.xml", ("reports/*.xml",))
