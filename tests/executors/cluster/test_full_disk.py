"""A host whose disk is full takes no tasks, or fails those that need the disk, and the other hosts go on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paropt_exporter.events import Result
from paropt_exporter.executors.base import RemoteTaskOptions
from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.settings import ClusterError, ClusterSettings
from paropt_exporter.executors.commands.output import OutputFile
from support.dask_clusters import DaskCluster, open_pool

WAIT_SECONDS = 60.0
DISK_BYTES = 1_000_000
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def mount_small_disk(folder: Path) -> list[str]:
    """Return the words that start a program with a small disk of its own in `folder`; only the program sees it."""
    code = f'mount -t tmpfs -o size={DISK_BYTES} paropt "$0" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", code, str(folder)]


@pytest.fixture(scope="module")
def full_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A cluster whose only worker has a small disk, for its scratch folder and for temporary files."""
    folder = tmp_path_factory.mktemp("dask")
    (folder / "small").mkdir()
    mount = mount_small_disk(folder / "small")
    tried = subprocess.run([*mount, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no disk can be mounted here: {tried.stderr.strip()}")
    cluster = DaskCluster(folder)
    try:
        cluster.start_scheduler()
        cluster.start_worker("full", prefix=mount, folder="small", env={"TMPDIR": str(folder / "small")})
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def open_project(
    full_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], ClusterPool]]:
    """Return a function that connects a project whose files are larger than the small disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "project"
    root.mkdir()
    (root / "large.bin").write_bytes(os.urandom(2 * DISK_BYTES))
    opened: list[ClusterPool] = []

    def connect() -> ClusterPool:
        opened.append(ClusterPool(ClusterSettings(root=root, scheduler=full_cluster.address), 2))
        return opened[-1]

    yield connect
    for pool in opened:
        pool.close_within(0.0)


def test_host_without_room_for_the_files_takes_no_task(
    full_cluster: DaskCluster, open_project: Callable[[], ClusterPool], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ClusterError, match=r"^dask: no worker can take tasks: [^\n]*No space left on device[^\n]*$"):
        open_project().begin_run(())
    disk = os.statvfs(f"/proc/{full_cluster.processes[-1].pid}/root{full_cluster.folder / 'small'}")
    assert disk.f_bavail * disk.f_frsize > DISK_BYTES / 2  # no part of the files is left there
    good = full_cluster.start_worker("good", folder="good")
    caplog.clear()
    try:
        pool = open_project()
        pool.begin_run(())
        futures = [pool.submit_commands("t", [["test", "-s", "large.bin"]]) for _ in range(4)]
        outcomes = [future.result(WAIT_SECONDS) for future in futures]
    finally:
        good.kill()
    assert {outcome.result for outcome in outcomes} == {Result.SUCCESS}
    assert {outcome.measurement.worker.rpartition("/")[2] for outcome in outcomes} == {"good"}
    why = [record.__dict__["err"] for record in caplog.records if record.message == "a worker can't take tasks"]
    assert "No space left on device" in why[0]
    assert "\n" not in why[0]


def test_output_beyond_the_disk_is_named_and_costs_no_task(
    full_cluster: DaskCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = open_pool(full_cluster, tmp_path, size=1)
    try:
        options = RemoteTaskOptions(output_file=OutputFile(tmp_path / "out.txt"))
        large = ["head", "-c", str(2 * DISK_BYTES), "/dev/zero"]
        outcome = pool.submit_commands("large", [large], options=options).result(WAIT_SECONDS)
        assert (outcome.result, outcome.output_path) == (Result.SUCCESS, None)
        [told] = [record for record in caplog.records if "took only a part of the output" in record.message]
        assert told.__dict__["task"] == "large"
        assert pool.submit_commands("after", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
    finally:
        pool.close_within(0.0)
