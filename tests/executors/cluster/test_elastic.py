"""A cluster that this program starts grows with the target and shrinks again, without ending a busy worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from paropt_exporter.events import Result
from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.dask_client import HostedCluster, check_address
from paropt_exporter.executors.cluster.settings import ClusterError, ClusterSettings, TlsFiles
from support.real_servers import eventually
from support.secured import Authority

WAIT_SECONDS = 60.0
FACTORY = """
from distributed import LocalCluster

def make():
    return LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp://")

def adapts():
    cluster = make()
    cluster.adapt(maximum=1)
    return cluster

def fails():
    raise RuntimeError("no credentials")

class Flaky:
    scheduler_address = "tcp://127.0.0.1:1"

    def scale(self, count):
        if count == 1:
            raise OSError("no answer")
        open("scaled", "w").write(str(count))

    def close(self):
        open("closed", "w").close()

class Open:
    scheduler_address = "tcp://192.0.2.1:8786"

    def scale(self, count):
        pass

    def close(self):
        pass
"""
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Port .* is already in use"),  # as an error it would end Dask's worker
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "clusters.py").write_text(FACTORY)
    return tmp_path


@pytest.fixture
def pool(project: Path) -> Iterator[ClusterPool]:
    settings = ClusterSettings(
        root=project, factory="clusters:make", shared_root=str(project), idle_seconds=0.2, start_timeout_seconds=60.0
    )
    made = ClusterPool(settings, 1)
    try:
        yield made
    finally:
        made.close_within(0.0)


def test_cluster_of_a_factory_grows_to_8_and_shrinks_around_a_busy_worker(pool: ClusterPool, project: Path) -> None:
    os.mkfifo(project / "begun")
    os.mkfifo(project / "go")
    code = f"echo > {project / 'begun'}; cat {project / 'go'}; echo through"
    assert pool.live == 1
    pool.resize(8, reason="demand")
    eventually("8 workers", lambda: pool.live == 8)
    assert pool.statistics().starting == 0
    busy = pool.submit_commands("busy", [["sh", "-c", code]])
    (project / "begun").read_text()
    pool.resize(1, reason="demand")
    eventually("1 worker", lambda: pool.live == 1)
    (project / "go").write_text("")
    outcome = busy.result(WAIT_SECONDS)
    assert (outcome.result, outcome.output) == (Result.SUCCESS, "through\n")
    assert pool.statistics().deaths == {}
    assert pool.submit_commands("after", [["true"]]).result(WAIT_SECONDS).result is Result.SUCCESS


def test_cluster_that_can_not_be_sized_now_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A server that does not answer for a moment must not end the workers, and their tasks."""
    monkeypatch.chdir(project)
    hosted = HostedCluster(ClusterSettings(root=project, factory="clusters:Flaky", start_timeout_seconds=60.0))
    try:
        hosted.scale(1)
        hosted.scale(2)
        eventually("the second order was obeyed", (project / "scaled").exists)
        assert not (project / "closed").exists()
    finally:
        hosted.close()
    assert (project / "closed").exists()
    assert 'the cluster can\'t obey {"scale": 1}: OSError: no answer' in capfd.readouterr().err


def test_local_cluster_takes_no_modules_from_the_current_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "tornado.py").write_text("raise ImportError('a module of the project')")
    monkeypatch.chdir(project)
    HostedCluster(ClusterSettings(root=project, start_timeout_seconds=60.0)).close()


def test_local_cluster_takes_no_orders_of_other_users(tmp_path: Path) -> None:
    """Every user of the host can connect to its port, and Dask runs the code of everyone who can."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("stranger")
    hosted = HostedCluster(ClusterSettings(root=tmp_path, start_timeout_seconds=60.0))
    try:
        assert hosted.address.startswith("tls://127.0.0.1:")
        with pytest.raises(ClusterError, match="TLS failed"):
            check_address(hosted.address, tls=TlsFiles(ca=authority.file, cert=certificate, key=key), insecure=False)
    finally:
        hosted.close()


def test_local_cluster_has_no_pages_for_other_users(tmp_path: Path) -> None:
    hosted = HostedCluster(ClusterSettings(root=tmp_path, start_timeout_seconds=60.0))
    try:
        sockets = psutil.Process(hosted.pid).net_connections("tcp")
        ports = [each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN]
        assert [is_shown(port, page) for port in ports for page in ("health", "json/identity.json")] == [False] * 4
    finally:
        hosted.close()


def is_shown(port: int, page: str) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/{page}", timeout=WAIT_SECONDS).ok
    except requests.ConnectionError:  # it is a port for TLS
        return False


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("clusters:adapts", "dask.cluster: clusters:adapts adapts itself: leave out cluster.adapt()"),
        ("clusters:fails", "dask.cluster: clusters:fails could not start: RuntimeError: no credentials"),
        ("clusters:nothing", "dask.cluster: clusters:nothing could not start: AttributeError"),
        ("clusters:Open", "dask.cluster: tcp://192.0.2.1:8786 has no TLS, and anyone who reaches it runs code as its"),
    ],
)
def test_unusable_factory_is_one_line(project: Path, factory: str, message: str) -> None:
    settings = ClusterSettings(root=project, factory=factory, shared_root=str(project), start_timeout_seconds=60.0)
    with pytest.raises(ClusterError) as caught:
        ClusterPool(settings, 1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
