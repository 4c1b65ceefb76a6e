"""Workers on hosts of their own, in network namespaces: one is cut off, and its task must not run twice at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from paropt_exporter.errors import WorkerDied
from paropt_exporter.events import Result
from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.settings import ClusterSettings
from support.dask_clusters import DaskCluster
from support.network_namespaces import Network, find_obstacle

WAIT_SECONDS = 60.0
# Dask's lowest: a connection is given up after as long without an answer. Its default is 30 s.
TCP_TIMEOUT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s"}
GRACE_SECONDS = 18.0
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def network() -> Iterator[Network]:
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    made = Network()
    try:
        yield made
    finally:
        made.close()


def test_cut_off_worker_has_killed_its_task_before_the_task_fails_here(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*next(iter(TCP_TIMEOUT.items())))
    cluster, fifo = DaskCluster(tmp_path), tmp_path / "fifo"
    os.mkfifo(fifo)
    try:
        cluster.start_scheduler(host=network.address)
        near, far = network.add_host(), network.add_host()
        cluster.start_worker("far", namespace=far, folder="far")
        settings = ClusterSettings(
            root=tmp_path, scheduler=cluster.address, insecure=True, shared_root=str(tmp_path),
            partition_grace_seconds=GRACE_SECONDS,
        )  # fmt: skip
        pool = ClusterPool(settings, 2)
        try:
            cut = pool.submit_commands("cut", [["sh", "-c", f"echo $$ > {fifo}; exec sleep 300"]])
            pid = int(fifo.read_text())
            cluster.start_worker("near", namespace=near, folder="near")
            network.cut(far)
            with pytest.raises(WorkerDied, match=r"lost: .* without an answer"):
                cut.result(WAIT_SECONDS)
            assert not psutil.pid_exists(pid)
            assert pool.submit_commands("again", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS
        finally:
            pool.close_within(0.0)
    finally:
        cluster.close()
