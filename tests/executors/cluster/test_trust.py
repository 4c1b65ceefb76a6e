"""TLS between the two sides, and errors of one line where trust or an address is wrong."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
from msgspec.structs import replace

from paropt_exporter.app.parts import build_cluster_opener
from paropt_exporter.config import read_config
from paropt_exporter.errors import Interrupted
from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from paropt_exporter.executors.cluster.coordinator import Coordinator
from paropt_exporter.executors.cluster.dask_client import Source, check_address, read_address
from paropt_exporter.executors.cluster.membership import Membership
from paropt_exporter.executors.cluster.settings import ClusterError, ClusterSettings, TlsFiles
from support.dask_clusters import DaskCluster
from support.processes import run_python
from support.real_servers import eventually

WAIT_SECONDS = 60.0
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def write_certificates(folder: Path) -> TlsFiles:
    """Write an authority of its own, and a certificate that it signed."""
    folder.mkdir(parents=True)
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = TlsFiles(ca=folder / "ca.pem", cert=folder / "cert.pem", key=folder / "key.pem")
    authority.cert_pem.write_to_path(files.ca)
    issued.cert_chain_pems[0].write_to_path(files.cert)
    issued.private_key_pem.write_to_path(files.key)
    return files


@pytest.fixture
def tls_cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    write_certificates(tmp_path / "tls")
    cluster = DaskCluster(tmp_path, tls=tmp_path / "tls")
    try:
        cluster.start_scheduler()
        yield cluster
    finally:
        cluster.close()


def test_tasks_run_over_tls_and_strangers_are_refused_in_one_line(tls_cluster: DaskCluster, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    ours = TlsFiles(ca=folder / "ca.pem", cert=folder / "cert.pem", key=folder / "key.pem")
    strange = write_certificates(tmp_path / "strange")
    for tls in (strange, TlsFiles(ca=ours.ca, cert=strange.cert, key=strange.key)):
        with pytest.raises(ClusterError, match=r"^dask.scheduler: tls://[^\n]*: TLS failed: [^\n]*$"):
            check_address(tls_cluster.address, tls=tls, insecure=False)
    tls_cluster.start_worker("a")
    pool = ClusterPool(
        ClusterSettings(root=tmp_path, scheduler=tls_cluster.address, tls=ours, shared_root=str(tmp_path)), 1
    )
    try:
        assert pool.submit_commands("t", [["echo", "secured"]]).result(WAIT_SECONDS).output == "secured\n"
    finally:
        pool.close_within(0.0)


def test_plain_address_off_this_host_is_refused() -> None:
    with pytest.raises(ClusterError, match="has no TLS, and anyone who reaches it runs code"):
        check_address("tcp://192.0.2.1:8786", tls=None, insecure=False)


def test_worker_without_tls_off_this_host_gets_nothing(own_cluster: DaskCluster, tmp_path: Path) -> None:
    """The exporter would send it files and variables, and load its replies, over the network."""
    own_cluster.start_worker("far", host="127.0.0.2")
    settings = ClusterSettings(
        root=tmp_path, scheduler=own_cluster.address, shared_root=str(tmp_path), worker_timeout_seconds=0.5
    )
    with pytest.raises(ClusterError, match=r"can take tasks: tcp://127.0.0.2:\d+: it has no TLS, [^\n]*$"):
        ClusterPool(settings, 1)
    pool = ClusterPool(replace(settings, insecure=True, worker_timeout_seconds=WAIT_SECONDS), 1)
    try:
        assert pool.submit_commands("t", [["echo", "far"]]).result(WAIT_SECONDS).output == "far\n"
    finally:
        pool.close_within(0.0)


def test_tls_address_needs_certificates() -> None:
    with pytest.raises(ClusterError, match="needs certificates"):
        check_address("tls://127.0.0.1:8786", tls=None, insecure=False)


def test_missing_certificate_is_named(tmp_path: Path) -> None:
    files = write_certificates(tmp_path / "tls")
    missing = TlsFiles(ca=files.ca, cert=tmp_path / "no.pem", key=files.key)
    with pytest.raises(ClusterError, match=r"dask.tls.cert: there is no file .*no.pem"):
        check_address("tls://127.0.0.1:1", tls=missing, insecure=False)


def test_scheduler_that_is_not_there_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=rf"^dask.scheduler: no answer from {address}: ConnectionRefusedError"):
            check_address(address, tls=None, insecure=False)


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        (b"", "the scheduler does not answer within 0.5 s$"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Dask scheduler of this version answers there: [^\n]+$"),
    ],
    ids=["nothing", "http"],
)
def test_server_that_is_no_scheduler_is_one_line(tmp_path: Path, greeting: bytes, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        settings = ClusterSettings(root=tmp_path, scheduler=address, shared_root=str(tmp_path), reconnect_seconds=0.5)
        with ThreadPoolExecutor(1) as executor:
            connecting = executor.submit(ClusterPool, settings, 1)
            connections = [server.accept()[0] for _ in range(2)]  # that of the check, that of Dask
            connections[1].sendall(greeting)
            with pytest.raises(ClusterError, match=f"^dask: {address}: {message}"):
                connecting.result(WAIT_SECONDS)
            for each in connections:
                each.close()


def test_scheduler_file_gives_the_address(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    settings = ClusterSettings(root=tmp_path, scheduler_file=file)
    with pytest.raises(ClusterError, match=r"scheduler.json names no scheduler: FileNotFoundError"):
        read_address(settings)
    file.write_text('{"address": "tcp://127.0.0.1:8786"}')
    assert read_address(settings) == "tcp://127.0.0.1:8786"


def test_cluster_without_workers_is_one_line(own_cluster: DaskCluster, tmp_path: Path) -> None:
    settings = ClusterSettings(
        root=tmp_path, scheduler=own_cluster.address, shared_root=str(tmp_path), worker_timeout_seconds=0.2
    )
    with pytest.raises(ClusterError, match=r"^dask: no worker at tcp://\S+ can take tasks: none came within 0.2 s$"):
        ClusterPool(settings, 1)


def test_signal_ends_the_wait_for_workers(
    own_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods may take minutes. Ctrl-C and SIGTERM did nothing until the time was over."""
    wait_for_worker = Membership.wait_for_worker

    async def interrupt(members: Membership, address: str, timeout_seconds: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await wait_for_worker(members, address, timeout_seconds)

    monkeypatch.setattr(Membership, "wait_for_worker", interrupt)
    settings = ClusterSettings(
        root=tmp_path, scheduler=own_cluster.address, shared_root=str(tmp_path), worker_timeout_seconds=WAIT_SECONDS
    )
    arrived: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    try:
        with pytest.raises(Interrupted, match=r"^interrupted by SIGTERM before a run: it waited for the cluster$"):
            ClusterPool(settings, 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert arrived == [signal.SIGTERM]


def test_cluster_is_closed_before_a_signal_has_its_usual_effect(
    own_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM may end a process that uses the pool in its own code, and would leave the cluster's programs behind."""

    async def interrupt(members: Membership, address: str, timeout_seconds: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    done: list[str] = []
    close = Coordinator.close

    def record_close(coordinator: Coordinator) -> None:
        done.append("close")
        close(coordinator)

    monkeypatch.setattr(Membership, "wait_for_worker", interrupt)
    monkeypatch.setattr(Coordinator, "close", record_close)
    settings = ClusterSettings(
        root=tmp_path, scheduler=own_cluster.address, shared_root=str(tmp_path), worker_timeout_seconds=WAIT_SECONDS
    )
    before = signal.signal(signal.SIGTERM, lambda *_: done.append("signal"))
    try:
        with pytest.raises(Interrupted):
            ClusterPool(settings, 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done[:2] == ["close", "signal"]


def test_signal_before_the_cluster_is_opened_is_not_lost(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"^interrupted by SIGINT before a run$"):
        build_cluster_opener(read_config(None, root=tmp_path), lambda: signal.SIGINT)(1)


def test_worker_of_another_version_is_refused_in_one_line(own_cluster: DaskCluster, tmp_path: Path) -> None:
    """Its agent may have another form, so the version is compared first."""
    package = tmp_path / "other/paropt_exporter"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_version.py").write_text('__version__ = "0.0.1"\n')
    path = os.pathsep.join((str(package.parent), str(Path(__file__).parents[2])))
    own_cluster.start_worker("other", env={"PYTHONPATH": path}, prefix=["env"])
    settings = ClusterSettings(
        root=tmp_path, scheduler=own_cluster.address, shared_root=str(tmp_path), worker_timeout_seconds=5.0
    )
    with pytest.raises(ClusterError, match=r"can take tasks: \S+: it has paropt-exporter 0.0.1, this is [^\n]*$"):
        ClusterPool(settings, 1)


def test_worker_gets_no_byte_code_that_its_python_lacks() -> None:
    function, *arguments = pickle.loads(pickle.dumps(Source(double).build_call(4)))
    assert function is eval
    assert function(*arguments) == 8


def double(number: int) -> int:
    return 2 * number


def test_worker_whose_disk_was_of_no_use_is_tried_again_for_the_next_run(
    own_cluster: DaskCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_cluster.start_worker("good", folder="good")
    pool = ClusterPool(ClusterSettings(root=tmp_path, scheduler=own_cluster.address, shared_root=str(tmp_path)), 2)
    try:
        pool.begin_run(())
        fault = tmp_path / "bad/dask-scratch-space/paropt"
        fault.parent.mkdir(parents=True)
        fault.write_text("a file where the agent needs a folder")
        own_cluster.start_worker("bad", folder="bad")
        pool.begin_run(())
        eventually("the worker was refused", lambda: "a worker can't take tasks" in caplog.messages)
        assert "its scratch folder can't be used: FileExistsError" in caplog.records[-1].__dict__["err"]
        fault.unlink()
        pool.begin_run(())
        eventually("both take tasks", lambda: pool.live == 2)
    finally:
        pool.close_within(0.0)


def test_worker_with_an_unusable_disk_is_left_out(own_cluster: DaskCluster, tmp_path: Path) -> None:
    scratch = tmp_path / "bad/dask-scratch-space"
    scratch.mkdir(parents=True)
    (scratch / "paropt").write_text("a file where the agent needs a folder")
    own_cluster.start_worker("bad", folder="bad")
    own_cluster.start_worker("good", folder="good")
    pool = ClusterPool(ClusterSettings(root=tmp_path, scheduler=own_cluster.address, shared_root=str(tmp_path)), 2)
    try:
        futures = [pool.submit_commands("t", [["true"]]) for _ in range(4)]
        workers = {future.result(WAIT_SECONDS).measurement.worker for future in futures}
        assert {worker.rpartition("/")[2] for worker in workers} == {"good"}
    finally:
        pool.close_within(0.0)


def test_missing_extra_is_one_line() -> None:
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from pathlib import Path\n"
        "from paropt_exporter.app.parts import build_cluster_opener\n"
        "from paropt_exporter.config import read_config\n"
        "try:\n    build_cluster_opener(read_config(None, root=Path('.')), lambda: None)(1)\n"
        "except Exception as error:\n    print(error, error.exit_code)\n"
    )
    printed = run_python(code, check=True).stdout
    assert printed == "strategy dask: there is no module distributed: pip install 'paropt-exporter[dask]' 2\n"


def test_extra_that_is_too_old_is_one_line_with_the_reason(tmp_path: Path) -> None:
    """It was an internal error with exit code 3."""
    (tmp_path / "distributed.py").write_text("__version__ = '2019.1'\n")
    code = "from paropt_exporter.executors.cluster import dask_client; dask_client.require_distributed()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = run_python(code, env=environment)
    assert "ClusterError: strategy dask: distributed can't be imported (ImportError: cannot import" in ran.stderr


def test_lane_without_a_cluster_loads_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "paropt.yml").write_text("stages: [{number: 1, name: a, run: 'true'}]\n")
    code = (
        "import sys\nfrom paropt_exporter.cli.main import main\n"
        "try:\n    main(['--lane', 'standard', '--once'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in sys.modules if name.startswith(('distributed', 'dask', 'tornado'))"
        " or name.startswith('paropt_exporter.executors.cluster')])"
    )
    run = run_python(code, cwd=tmp_path, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
