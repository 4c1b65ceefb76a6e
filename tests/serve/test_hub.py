"""The socket of `serve`, with real connections: faulty clients, other versions, and runs that come back."""

from __future__ import annotations

import errno
import os
import queue
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter import descriptors
from paropt_exporter.clock import Clock, SystemClock
from paropt_exporter.engine.interfaces import MachineShare, MachineUsage
from paropt_exporter.errors import HistoryError, UsageError
from paropt_exporter.metrics import LaneLabels
from paropt_exporter.serve import hub as hub_module
from paropt_exporter.serve import link as link_module
from paropt_exporter.serve import messages, runtime_folder
from paropt_exporter.serve.fair_shares import Machine
from paropt_exporter.serve.hub import Hub
from paropt_exporter.serve.link import Link, Refused, build_hello, find_registration
from paropt_exporter.serve.messages import (
    PROTOCOL,
    AskStatus,
    BadMessage,
    Hello,
    LineBuffer,
    Registration,
    Status,
    decode_from_serve,
    encode,
)
from paropt_exporter.serve.page import ServePage
from paropt_exporter.serve.registry import RegisteredProject, Registry
from paropt_exporter.testing import FakeClock
from support.real_servers import HANG_SECONDS, eventually
from support.serve_process import check_page, render_text, sum_series

URL = "http://127.0.0.1:1/metrics"
HELLO = (  # of a process id
    b'{"type": "hello", "protocol": 2, "version": "1", "pid": %s, "lane": "fast", "process": "a",'
    b' "registration": {"project": "shop", "root": "/srv", "history": "/srv/history.db"}}\n'
)


class Served:
    """A hub in this process."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.folder = folder
        self.clock = clock or SystemClock()
        self.beats: list[frozenset[int]] = []
        self.decisions = 0
        self.decides = threading.Event()  # cleared: the hub's thread stops at its next decision
        self.decides.set()
        runtime_folder.make_folder(folder)
        self.start()

    def start(self, *, awaited: Collection[int] = (), returning: Collection[int] = (), most_runs: int = 1000) -> None:
        registry = Registry(self.folder / runtime_folder.PROJECTS_NAME)
        listener = runtime_folder.listen(self.folder)
        self.hub = Hub(
            listener,
            registry,
            read_machine=self._read_machine,
            clock=self.clock,
            beat=lambda runs: self.beats.append(frozenset(runs)),
            awaited=awaited,
            returning=returning,
            most_runs=most_runs,
        )
        self.hub.start(URL)

    def _read_machine(self) -> Machine:
        self.decisions += 1
        self.decides.wait(HANG_SECONDS)
        return Machine(2.0)

    def connect(self) -> socket.socket:
        client = runtime_folder.connect(self.folder, HANG_SECONDS)
        assert client is not None
        return client

    def status(self) -> Status:
        with self.connect() as client:
            client.sendall(encode(AskStatus()))
            answer = decode_from_serve(read_line(client))
        assert isinstance(answer, Status)
        return answer


class FakeRun:
    """A run that confirms each share at once."""

    run_id = "r1"

    def __init__(self) -> None:
        self.shares: queue.Queue[MachineShare | None] = queue.Queue()

    def set_share(self, share: MachineShare | None) -> None:
        self.shares.put(share)

    def wait_for(self, cores: float | None) -> MachineShare | None:
        """Return the next share of so many cores; None: that it is alone."""
        while True:
            share = self.shares.get(timeout=HANG_SECONDS)
            if (None if share is None else share.cores) == cores:
                return share


def read_line(client: socket.socket) -> bytes:
    received, lines = LineBuffer(), list[bytes]()
    while not lines:
        part = client.recv(65536)
        if not part:
            raise EOFError
        lines.extend(received.add(part))
    return lines[0]


def register(tmp_path: Path, name: str = "shop") -> Registration:
    return find_registration(name, tmp_path, tmp_path / "history.db", (), {"commands": (1, 2)})


def usage(share: MachineShare | None, *, held: float = 0.0, wanted: float) -> MachineUsage:
    assert share is not None
    return MachineUsage(
        number=share.number, cores_held=held, cores_wanted=wanted, memory_held_bytes=0, memory_wanted_bytes=0
    )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    hub = Served(tmp_path / "runtime")
    yield hub
    hub.hub.close()


@pytest.fixture
def link(tmp_path: Path, served: Served) -> Iterator[Link]:
    hello = build_hello(register(tmp_path), lane="standard", limited=True)
    opened = Link(served.folder, hello, clock=SystemClock())
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"type": "usage", "number": 1}\n',
        b'{"type": "bye"}\n',
        b'{"type": "hello", "protocol": 2}\n',
        b'{"type": "state", "run_id": "", "samples": [["a", [], "b"]]}\n',
        HELLO % b"0",
        HELLO % b"-1",
        HELLO % b"2147483648",
    ],
)
def test_nonsense_ends_only_its_connection(served: Served, sent: bytes) -> None:
    with served.connect() as client:
        client.sendall(sent)
        assert client.recv(1) == b""
    assert served.status().runs == ()


@pytest.mark.parametrize(
    "field",
    ['"cores_held": -1', '"cores_wanted": 1e308', '"memory_held_bytes": -1', f'"memory_wanted_bytes": {1 << 64}'],
)
def test_usage_that_no_machine_has_ends_only_its_connection(tmp_path: Path, served: Served, field: str) -> None:
    with served.connect() as client:
        client.sendall(encode(build_hello(register(tmp_path), lane="standard", limited=True)))
        assert isinstance(decode_from_serve(read_line(client)), messages.Welcome)
        client.sendall(b'{"type": "usage", "number": 1, %s}\n' % field.encode())
        eventually("its connection has ended", lambda: not client.recv(1 << 16))
    assert served.status().runs == ()


def test_burst_of_reports_costs_few_decisions(tmp_path: Path, served: Served) -> None:
    with served.connect() as client:
        client.sendall(encode(build_hello(register(tmp_path), lane="standard", limited=True)))
        before = served.decisions
        client.sendall(encode(messages.Usage(cores_wanted=1.0)) * 1000 + encode(messages.Usage(cores_wanted=2.0)))
        eventually("the last one is known", lambda: [run.cores_wanted for run in served.status().runs] == [2.0])
    assert served.decisions - before < 100  # a burst arrives in a few pieces, and each look at the status is one


def test_status_of_many_projects_arrives_whole(tmp_path: Path, served: Served) -> None:
    registration = replace(register(tmp_path), root="/" + "x" * 3_000_000)
    opened = Link(served.folder, build_hello(registration, lane="fast", limited=True), clock=SystemClock())
    assert [project.root for project in served.status().projects] == [registration.root]
    opened.close()


def test_line_without_an_end_is_cut_off() -> None:
    received = LineBuffer(longest_bytes=10)
    assert received.add(b"12345") == []
    with pytest.raises(BadMessage, match="more than 10 bytes"):
        received.add(b"678901")


def test_run_of_another_protocol_is_refused_with_the_versions(tmp_path: Path, served: Served) -> None:
    hello = Hello(protocol=PROTOCOL + 1, version="9.9", pid=1, lane="standard", registration=register(tmp_path))
    with pytest.raises(Refused, match=r"the run 9\.9: use one version"):
        Link(served.folder, hello, clock=SystemClock())


def test_run_too_many_is_refused_with_the_reason_and_the_status_is_shown(tmp_path: Path, served: Served) -> None:
    served.hub.close()
    served.start(most_runs=1)
    first = Link(served.folder, build_hello(register(tmp_path), lane="fast", limited=True), clock=SystemClock())
    with pytest.raises(Refused, match="it has 1 run already"):
        Link(served.folder, build_hello(register(tmp_path), lane="fast", limited=True), clock=SystemClock())
    assert len(served.status().runs) == 1
    first.close()


@pytest.mark.parametrize("path", ["history.db", "", "/a\0b"])
@pytest.mark.parametrize("field", ["root", "history"])
def test_registration_without_absolute_paths_is_refused(served: Served, field: str, path: str) -> None:
    registration = replace(Registration(project="shop", root="/", history="/history.db"), **{field: path})
    with pytest.raises(Refused, match="absolute path"):
        Link(served.folder, build_hello(registration, lane="fast", limited=True), clock=SystemClock())


def test_values_that_this_version_can_not_format_cost_their_series_only(tmp_path: Path, served: Served) -> None:
    samples = (
        messages.Sample(family="paropt_pool_size", labels=("commands",), value=(1.0, 2.0), sum=3.0),
        messages.Sample(family="paropt_control_query_duration_seconds", labels=(), value=(1.0, 2.0), sum=3.0),
        messages.Sample(family="paropt_pool_workers", labels=("commands", "busy"), value=2.0),
    )
    page = ServePage(served.hub.take_views)
    with served.connect() as client:
        client.sendall(encode(build_hello(register(tmp_path), lane="standard", limited=True)))
        client.sendall(encode(messages.State(run_id="r1", samples=samples)))
        text = eventually("its page is there", lambda: find_workers(page))
    check_page(text)
    assert "paropt_pool_size{" not in text and "paropt_control_query_duration_seconds_sum" not in text
    eventually("it has gone", lambda: not served.status().runs)
    check_page(render_text(page))


def find_workers(page: ServePage) -> str:
    text = render_text(page)
    return text if "paropt_pool_workers{" in text else ""


def test_unknown_fields_of_a_newer_version_are_ignored(tmp_path: Path, served: Served) -> None:
    line = encode(build_hello(register(tmp_path), lane="standard", limited=True))
    with served.connect() as client:
        client.sendall(line.replace(b'"pid"', b'"tomorrow": [1], "pid"'))
        assert isinstance(decode_from_serve(read_line(client)), messages.Welcome)


def test_no_serve_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefusedError):
        Link(tmp_path, build_hello(register(tmp_path), lane="fast", limited=True), clock=SystemClock())


def test_run_without_a_thread_for_its_session_goes_on_alone(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, pytest.raises(BlockingIOError):
        patch.setattr(threading.Thread, "start", refuse)
        Link(served.folder, build_hello(register(tmp_path), lane="fast", limited=True), clock=SystemClock())
    eventually("its session has ended", lambda: not served.status().runs)


def test_future_time_of_a_dead_serve_delays_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "runtime"
    runtime_folder.make_folder(folder)
    runtime_folder.listen(folder).close()
    (folder / runtime_folder.LOCK_NAME).touch()
    tomorrow = time.time() + 86_400  # the clock was set back since then
    os.utime(folder / runtime_folder.LOCK_NAME, (tomorrow, tomorrow))
    with pytest.raises(ConnectionRefusedError):
        Link(folder, build_hello(register(tmp_path), lane="fast", limited=True), clock=SystemClock())


def test_folder_of_another_user_delays_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "runtime"
    runtime_folder.make_folder(folder)
    runtime_folder.listen(folder).close()
    (folder / runtime_folder.LOCK_NAME).touch()
    folder.chmod(0o777)
    assert not runtime_folder.has_just_died(folder, 60.0)


def test_run_gets_its_share_and_gives_it_back(served: Served, link: Link) -> None:
    run = FakeRun()
    link.begin_run(run)
    link.report_usage(usage(run.wait_for(0.0), wanted=5.0))
    share = run.wait_for(2.0)
    link.report_usage(usage(share, held=2.0, wanted=5.0))
    eventually("it is held", lambda: [each.cores_held for each in served.status().runs] == [2.0])
    eventually("the run follows it", lambda: link.limit_cores(8.0) == 2.0)
    link.end_run()
    eventually("it is free", lambda: [each.cores_granted for each in served.status().runs] == [0.0])
    eventually("the run knows it", lambda: link.limit_cores(8.0) == 1.0)


def test_run_is_counted_before_it_gets_a_share(tmp_path: Path) -> None:
    """Another `serve` that starts after a kill waits for this run before it passes on its cores."""
    stopped = FakeClock()
    served = Served(tmp_path / "runtime", clock=stopped)  # no second passes, so no beat is due but the first
    link = Link(served.folder, build_hello(register(tmp_path), lane="standard", limited=True), clock=stopped)
    run = FakeRun()
    link.begin_run(run)
    link.report_usage(usage(run.wait_for(0.0), wanted=5.0))
    run.wait_for(2.0)
    assert served.beats == [set(), {os.getpid()}]
    link.close()
    eventually("it is counted no more", lambda: served.beats == [set(), {os.getpid()}, set()])
    served.hub.close()


def test_runs_of_a_stopped_or_killed_serve_stay_counted(served: Served, link: Link) -> None:
    run = FakeRun()
    link.begin_run(run)
    run.wait_for(0.0)
    served.hub.close()
    assert served.beats[-1] == {os.getpid()}
    served.beats.clear()
    served.start(awaited=[os.getpid()])  # and it may be killed before the run is back
    eventually("it is back", lambda: served.status().runs)
    assert set(served.beats) == {frozenset({os.getpid()})}


def test_run_that_has_not_seen_its_smaller_share_comes_back_with_the_larger_one(served: Served, link: Link) -> None:
    run = FakeRun()
    link.begin_run(run)
    link.report_usage(usage(run.wait_for(0.0), wanted=5.0))
    share = run.wait_for(2.0)
    link.report_usage(usage(share, held=1.0, wanted=1.0))
    run.wait_for(1.0)  # it may start a task until it confirms this share
    served.hub.close()
    served.start(awaited=[os.getpid()])
    assert run.wait_for(2.0) is not None


def test_run_keeps_its_share_while_serve_restarts(served: Served, link: Link) -> None:
    run = FakeRun()
    link.begin_run(run)
    link.report_usage(usage(run.wait_for(0.0), wanted=5.0))
    link.report_usage(usage(run.wait_for(2.0), held=2.0, wanted=5.0))
    served.hub.close()
    assert link.limit_cores(8.0) == 2.0
    served.start(awaited=[os.getpid()])
    (back,) = eventually("it is back", lambda: served.status().runs)
    assert (back.cores_held, back.cores_granted) == (2.0, 2.0)


def test_run_survives_a_serve_that_sends_nonsense_behind_its_welcome(served: Served, link: Link) -> None:
    served.hub.close()
    welcome = messages.Welcome(protocol=PROTOCOL, version="9.9", pid=1, url=URL)
    with runtime_folder.listen(served.folder) as liar:
        liar.settimeout(HANG_SECONDS)
        for _ in range(2):  # it tries again
            client, _ = liar.accept()
            with client:
                assert read_line(client)
                client.sendall(encode(welcome) + b"nonsense\n")
    served.start()
    eventually("it is back", lambda: len(served.status().runs) == 1)


def test_run_goes_on_alone_after_an_internal_error_of_its_connection(
    link: Link, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread of the connection had ended, and the run waited for a share that never came."""

    def fail(_: bytes) -> None:
        raise RuntimeError("a fault of ours")

    run = FakeRun()
    link.begin_run(run)
    monkeypatch.setattr(link_module, "decode_from_serve", fail)
    assert run.wait_for(None) is None
    assert link.share is None
    assert "the connection to `paropt-exporter serve` failed" in caplog.text


def test_run_that_another_serve_refuses_says_so_once(tmp_path: Path, served: Served) -> None:
    """As after an upgrade of `serve`: without its page the metrics of a run are on none."""
    said = queue.Queue[str]()
    hello = build_hello(register(tmp_path), lane="standard", limited=True)
    opened = Link(served.folder, hello, clock=SystemClock(), say=said.put)
    served.hub.close()
    with runtime_folder.listen(served.folder) as other:
        other.settimeout(HANG_SECONDS)
        for _ in range(3):
            client, _ = other.accept()
            with client:
                assert read_line(client)
                client.sendall(encode(messages.Refusal(reason="use one version")))
    served.start()
    eventually("it is back", lambda: served.status().runs)
    opened.close()
    assert said.get_nowait() == "`paropt-exporter serve` refuses this run, which goes on alone: use one version"
    assert said.empty()


def test_end_of_serve_gives_no_run_the_cores_of_another(tmp_path: Path, served: Served) -> None:
    """Each run keeps its share until `serve` is back: together they have no more than the machine."""
    pids = (os.getpid(), os.getppid())
    links, runs = list[Link](), (FakeRun(), FakeRun())
    for run, pid in zip(runs, pids, strict=True):
        hello = replace(build_hello(register(tmp_path), lane="standard", limited=True), pid=pid)
        links.append(Link(served.folder, hello, clock=SystemClock()))
        links[-1].begin_run(run)
        links[-1].report_usage(usage(run.wait_for(0.0), wanted=1.0))
    for run, link in zip(runs, links, strict=True):
        link.report_usage(usage(run.wait_for(1.0), held=1.0, wanted=2.0))
    eventually("both want more", lambda: [each.cores_wanted for each in served.status().runs] == [2.0, 2.0])
    served.hub.close()
    served.start(awaited=pids)
    eventually("both are back", lambda: len(served.status().runs) == 2)
    assert not [share for run in runs for share in run.shares.queue if share is None or share.cores > 1.0]
    for link in links:
        link.close()


def test_series_reach_the_page_and_counters_stay_when_the_run_has_gone(tmp_path: Path, served: Served) -> None:
    series: dict[tuple[str, tuple[str, ...]], float] = {
        ("paropt_pool_tasks_submitted_total", ("commands",)): 3.0,
        ("paropt_pool_size", ("commands",)): 2.0,
    }
    page = ServePage(served.hub.take_views)
    for name in ("one", "two"):
        hello = build_hello(register(tmp_path, name), lane="standard", limited=True)
        opened = Link(served.folder, hello, clock=SystemClock(), collect=lambda: series)
        opened.end_run()
        eventually("its series are there", lambda: "paropt_pool_size{" in render_text(page))
        opened.close()
    eventually("both have gone", lambda: not served.status().runs)
    text = render_text(page)
    check_page(text)
    assert sum_series(text, "paropt_pool_tasks_submitted_total") == 6
    assert sum_series(text, "paropt_pool_size") == 0
    assert sum_series(text, "paropt_serve_history_readable") == 0  # there are none


def open_session(served: Served, hello: Hello, submitted: float | None = None) -> socket.socket:
    """Register, and send the counter of a pool's tasks."""
    client = served.connect()
    client.sendall(encode(hello))
    assert isinstance(decode_from_serve(read_line(client)), messages.Welcome)
    if submitted is not None:
        sample = messages.Sample(family="paropt_pool_tasks_submitted_total", labels=("commands",), value=submitted)
        client.sendall(encode(messages.State(run_id="r1", samples=(sample,))))
    return client


def test_history_is_read_before_the_run_that_waits_for_its_welcome_changes_it(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = list[socket.socket]()
    add = Registry.register

    def add_unanswered(registry: Registry, registration: Registration) -> RegisteredProject:
        answered.extend(select.select([client], [], [], 0)[0])
        return add(registry, registration)

    monkeypatch.setattr(Registry, "register", add_unanswered)
    with served.connect() as client:
        client.sendall(encode(build_hello(register(tmp_path), lane="standard", limited=True)))
        assert isinstance(decode_from_serve(read_line(client)), messages.Welcome)
    assert answered == []


def count_submitted(page: ServePage) -> float:
    return sum_series(render_text(page), "paropt_pool_tasks_submitted_total")


def test_counters_of_a_run_that_comes_back_count_once(tmp_path: Path, served: Served) -> None:
    """A `serve` that was stopped for a while loses its runs, which register again with the same counters."""
    page = ServePage(served.hub.take_views)
    hello = build_hello(register(tmp_path), lane="standard", limited=True)
    with open_session(served, hello, 3.0):
        eventually("it is counted", lambda: count_submitted(page) == 3.0)
    eventually("its connection has ended", lambda: not served.status().runs)
    assert count_submitted(page) == 3.0
    with open_session(served, hello):
        assert count_submitted(page) == 3.0
        with open_session(served, hello, 4.0):  # before the end of the earlier connection
            assert len(served.status().runs) == 1
            eventually("it goes on", lambda: count_submitted(page) == 4.0)


def test_first_page_of_another_serve_waits_for_the_series_of_its_runs(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside those of ended runs, a counter that lacks them would fall: `rate()` would count all of it again."""
    monkeypatch.setattr(hub_module, "RETURN_SECONDS", HANG_SECONDS)
    (tmp_path / "history.db").touch()  # a project without a history is forgotten
    page = ServePage(served.hub.take_views)
    ended = replace(build_hello(register(tmp_path), lane="standard", limited=True), process="ended")
    with open_session(served, ended, 5.0) as client:
        client.sendall(encode(messages.Bye()))
        eventually("it is counted", lambda: count_submitted(page) == 5.0)
    series: dict[tuple[str, tuple[str, ...]], float] = {("paropt_pool_tasks_submitted_total", ("commands",)): 3.0}
    hello = build_hello(register(tmp_path), lane="standard", limited=True)
    link = Link(served.folder, hello, clock=SystemClock(), collect=lambda: series)
    eventually("both are counted", lambda: count_submitted(page) == 8.0)
    served.hub.close()
    served.start(returning=[os.getpid()])
    assert count_submitted(ServePage(served.hub.take_views)) == 8.0
    link.close()


def test_page_waits_for_no_run_that_has_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RETURN_SECONDS", 10 * HANG_SECONDS)
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    served.hub.close()
    served.start(returning=[ended.pid])
    assert served.hub.take_views() == ()


def test_counters_of_killed_runs_add_up(tmp_path: Path, served: Served) -> None:
    page = ServePage(served.hub.take_views)
    for number in range(1, 3):
        killed = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        hello = replace(build_hello(register(tmp_path), lane="standard", limited=True), pid=killed.pid)
        with open_session(served, hello, 3.0):
            eventually("it is counted", lambda total=3.0 * number: count_submitted(page) == total)
        killed.kill()
        killed.communicate()
        beats = len(served.beats)
        eventually("two beats have found its end", lambda beats=beats: len(served.beats) > beats + 1)
        assert count_submitted(page) == 3.0 * number


def test_counters_of_ended_runs_outlast_a_restart(tmp_path: Path, served: Served) -> None:
    """If the sum fell, `rate()` would count those of the run that goes on once more."""
    (tmp_path / "history.db").touch()
    one, other = (build_hello(register(tmp_path), lane="standard", limited=True) for _ in range(2))
    page = ServePage(served.hub.take_views)
    with open_session(served, one, 5.0), open_session(served, other, 3.0) as client:
        eventually("both are counted", lambda: count_submitted(page) == 8.0)
        client.sendall(encode(messages.Bye()))
        eventually("the other one has ended", lambda: len(served.status().runs) == 1)
        served.hub.close()
    served.start()
    page = ServePage(served.hub.take_views)
    with open_session(served, one, 6.0):
        eventually("it is back", lambda: count_submitted(page) == 9.0)


def test_interval_of_a_killed_run_stays_beside_a_run_without_one(tmp_path: Path, served: Served) -> None:
    page = ServePage(served.hub.take_views)
    repeating, single = (
        replace(register(tmp_path), lanes=(LaneLabels(lane="standard", stages=(), interval_seconds=interval),))
        for interval in (60.0, None)
    )
    with open_session(served, build_hello(repeating, lane="standard", limited=True)):
        with open_session(served, build_hello(single, lane="standard", limited=True)):
            pass
        eventually("it has ended", lambda: len(served.status().runs) == 1)
    eventually("both have ended", lambda: not served.status().runs)
    text = render_text(page)
    assert sum_series(text, "paropt_run_interval_seconds", lane="standard") == 60.0


def test_last_series_arrive_even_if_they_do_not_fit_into_the_sockets_buffer(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = threading.Event()

    def send_all(connection: socket.socket, content: bytes) -> None:
        sends.set()
        super(socket.socket, connection).sendall(content)

    series: dict[tuple[str, tuple[str, ...]], float] = {
        ("paropt_pool_tasks_submitted_total", (f"pool{number}",)): 1.0 for number in range(20_000)
    }
    page = ServePage(served.hub.take_views)
    hello = build_hello(register(tmp_path), lane="standard", limited=True)
    opened = Link(served.folder, hello, clock=SystemClock(), collect=lambda: series)
    eventually("it is registered", lambda: served.status().runs)
    monkeypatch.setattr(link_module, "_LAST_SECONDS", HANG_SECONDS)
    monkeypatch.setattr(socket.socket, "sendall", send_all)
    served.decides.clear()
    opened.end_run()
    closing = threading.Thread(target=opened.close)
    closing.start()
    eventually("it waits, or has given up", lambda: sends.is_set() or not closing.is_alive())
    served.decides.set()
    closing.join(HANG_SECONDS)
    eventually("it has gone", lambda: not served.status().runs)
    assert count_submitted(page) == len(series)


def test_series_that_can_not_be_collected_end_no_run(tmp_path: Path, served: Served) -> None:
    def fail() -> dict[tuple[str, tuple[str, ...]], float]:
        raise HistoryError("the disk has failed")

    hello = build_hello(register(tmp_path), lane="standard", limited=True)
    opened = Link(served.folder, hello, clock=SystemClock(), collect=fail)
    opened.begin_run(FakeRun())
    opened.end_run()
    opened.close()
    eventually("it has gone", lambda: not served.status().runs)


def test_run_joins_a_serve_that_answers_late(tmp_path: Path) -> None:
    folder = tmp_path / "runtime"
    runtime_folder.make_folder(folder)
    silent = runtime_folder.listen(folder)
    said: list[str] = []
    hello = build_hello(register(tmp_path), lane="standard", limited=True)
    opened = Link(folder, hello, clock=SystemClock(), say=said.append, answer_seconds=0.1)
    assert (opened.url, opened.share) == ("", None)
    assert said == ["`paropt-exporter serve` does not answer: sizing alone until it does"]
    silent.close()
    served = Served(folder)
    eventually("it has joined", lambda: len(served.status().runs) == 1 and opened.share is not None)
    opened.close()
    served.hub.close()


def test_folder_without_room_for_a_socket_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="set PAROPT_SERVE"):
        runtime_folder.listen(tmp_path / "none")


def test_text_that_is_no_unicode_is_escaped(tmp_path: Path) -> None:
    hello = build_hello(register(tmp_path, "a\udcff"), lane="standard", limited=True)
    decoded = messages.decode_from_run(encode(hello).strip())
    assert isinstance(decoded, Hello)
    assert decoded.registration.project == "a\\udcff"
    sample = messages.build_sample(("paropt_pool_size", ("a\udcff",)), 1.0)
    state = messages.decode_from_run(encode(messages.State(run_id="r1", samples=(sample,))).strip())
    assert isinstance(state, messages.State)
    assert state.samples[0].labels == ("a\\udcff",)


@pytest.mark.parametrize(
    ("decode", "line"),
    [
        (messages.decode_from_run, b'{"type":"hello","protocol":2,"version":"\xff"}'),
        (messages.decode_from_serve, b'{"type":"refusal","reason":"\xff"}'),
    ],
)
def test_line_that_is_not_utf8_is_an_invalid_message(decode: Callable[[bytes], object], line: bytes) -> None:
    with pytest.raises(BadMessage, match="utf-8"):
        decode(line)


def test_no_descriptor_left_costs_a_client_a_wait_and_the_log_one_line(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, refusals = socket.socket.accept, [OSError(errno.EMFILE, os.strerror(errno.EMFILE)) for _ in range(3)]

    def accept_in_the_end(listener: socket.socket) -> tuple[socket.socket, object]:
        if refusals:
            raise refusals.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", accept_in_the_end)
    monkeypatch.setattr(hub_module, "_ACCEPT_PAUSE_SECONDS", 0.001)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(HANG_SECONDS)
        client.connect(str(served.folder / runtime_folder.SOCKET_NAME))
        client.sendall(encode(AskStatus()))
        assert isinstance(decode_from_serve(client.recv(1 << 16)), Status)
    assert not refusals
    assert [record.message for record in caplog.records] == ["can't accept a run"]


@pytest.fixture
def short_of_descriptors(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A hub that may have four descriptors, and takes one run and one other client."""
    served.hub.close()
    monkeypatch.setattr(descriptors, "get_limit", lambda: 4)
    served.start()
    return served


def test_runs_take_a_quarter_of_the_descriptors(tmp_path: Path, short_of_descriptors: Served) -> None:
    hello = build_hello(register(tmp_path), lane="fast", limited=True)
    run = Link(short_of_descriptors.folder, hello, clock=SystemClock())
    with pytest.raises(Refused, match="it has 1 run already"):
        Link(short_of_descriptors.folder, hello, clock=SystemClock())
    run.close()


def test_clients_take_half_of_the_descriptors(short_of_descriptors: Served) -> None:
    with ExitStack() as stack:
        first, _, third = (stack.enter_context(short_of_descriptors.connect()) for _ in range(3))
        assert third.recv(1) == b""
        first.sendall(encode(AskStatus()))
        assert isinstance(decode_from_serve(read_line(first)), Status)
