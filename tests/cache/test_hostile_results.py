"""A server or a store that lies costs a miss and a line: it deletes no file, writes none, and holds up no run."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.cache.entry import BadEntry, parse_entry
from paropt_exporter.cache.file_states import FileStates
from paropt_exporter.cache.remote import Digest, RemoteCache, RemoteFailed, format_action_result
from paropt_exporter.cache.result_store import LARGEST_ENTRY_BYTES
from paropt_exporter.plan import PlannedTask
from support.cached_project import CachedProject, print_sources
from support.http_servers import QuietHandler, run_http_server

Answer = Callable[[BaseHTTPRequestHandler], None]
EMPTY = hashlib.sha256(b"").hexdigest()


def build(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    (root / "dist").mkdir(exist_ok=True)
    (root / "dist/out").write_text("built here")
    return print_sources(root, environ, task)


@dataclass
class HostileServer:
    """A cache on HTTP that answers as a test says. `contents` are those of `cas`, and `special` answers by path."""

    url: str = ""
    entry: bytes = b""
    contents: dict[str, bytes] = field(default_factory=dict)
    special: dict[str, Answer] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)

    def keep(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.contents[digest] = content
        return digest

    def publish(self, key: str, **changed: object) -> None:
        """Answer every request for a result with this one."""
        values: dict[str, object] = {
            "version": 1, "key": key, "stage": "build", "item": None, "seconds": 1.0, "created": 1.0,
            "output": self.keep(b"from the server"), "files": [], "components": [], "listings": [],
            "leftovers": [],
        }  # fmt: skip
        self.publish_body(json.dumps(values | changed).encode())

    def publish_body(self, body: bytes) -> None:
        entry = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        self.entry = format_action_result(Digest(self.keep(entry), len(entry)), [])


class _Handler(QuietHandler):
    state: HostileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        part, _, name = self.path.removeprefix("/").partition("/")
        if self.path in self.state.special:
            self.state.special[self.path](self)
            return
        found = self.state.entry if part == "ac" else self.state.contents.get(name)
        self.reply(found or b"", status=404 if found is None else 200)


@contextmanager
def _serve() -> Iterator[HostileServer]:
    state = HostileServer()
    handler = type("Handler", (_Handler,), {"state": state})
    with run_http_server(handler) as port:
        state.url = f"http://127.0.0.1:{port}"
        try:
            yield state
        finally:
            state.stopped.set()


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with _serve() as state:
        yield state


@pytest.fixture
def project(tmp_path: Path) -> CachedProject:
    made = CachedProject(tmp_path / "project", tmp_path / "store", work={"build": build})
    made.write_file("src/a.py", "one")
    return made


def find_key(project: CachedProject) -> str:
    """Return the key of the stage, without a result of it in the store."""
    project.run(build_stage(project), no_cache=True)
    (kept,) = [path for path in (project.store.folder / "v1/ac").rglob("*") if path.is_file()]
    kept.unlink()
    (project.root / "dist/out").unlink(missing_ok=True)
    return kept.name


def build_stage(project: CachedProject) -> Any:
    return project.build_stage("build", outputs=("dist/**",))


def list_changes(victim: str) -> dict[str, dict[str, object]]:
    """Return entries in which something other than a digest stands, by the place of it."""
    return {
        "output": {"output": victim},
        "file": {"files": [["dist/out", "f", victim, 1]]},
        "listing": {"listings": [victim]},
    }


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("place", ["output", "file", "listing"])
def test_path_in_place_of_a_digest_deletes_no_file(
    project: CachedProject, server: HostileServer, tmp_path: Path, place: str, relative: bool
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    key = find_key(project)
    name = f"../../../../{victim.name}" if relative else str(victim)
    server.publish(key, **list_changes(name)[place])
    ran = project.run(build_stage(project), remote=RemoteCache(server.url))
    assert ran.called == ["build"] and len(ran.said) == 1
    project.write_file("src/a.py", "two")  # the reason of a miss is found by the listings of earlier results
    project.run(build_stage(project))
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("is_relative", [False, True])
def test_file_outside_of_the_project_that_a_result_needs_is_not_read(
    project: CachedProject, server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_relative: bool
) -> None:
    """With /proc/kcore, which has 128 TiB, the lookup would not end."""
    key = find_key(project)
    (tmp_path / "large").write_text("any")
    path = "../large" if is_relative else str(tmp_path / "large")
    server.publish(key, leftovers=[path])
    compared: list[str] = []
    take_snapshot = FileStates.take_snapshot

    def record(states: FileStates, found: Any, *rest: Any) -> Any:
        compared.extend(path for path, _ in found)
        return take_snapshot(states, found, *rest)

    monkeypatch.setattr(FileStates, "take_snapshot", record)
    ran = project.run(build_stage(project), remote=RemoteCache(server.url))
    assert ran.called == ["build"] and "src/a.py" in compared and path not in compared


@pytest.mark.parametrize(
    "path",
    [".git/hooks/pre-commit", "src/a.py", "paropt.yml", "dist", "../outside", "/tmp/x", "dist/../src/a.py", "dist/\0"],
)
def test_server_writes_no_file_that_the_stage_does_not_declare(
    project: CachedProject, server: HostileServer, path: str
) -> None:
    project.write_file(".git/hooks/pre-commit", "one")
    key = find_key(project)
    server.publish(key, files=[[path, "x", server.keep(b"evil"), 4]])
    ran = project.run(build_stage(project), remote=RemoteCache(server.url))
    assert ran.called == ["build"]
    assert not [each for each in project.root.rglob("*") if each.is_file() and each.read_bytes() == b"evil"]


@pytest.mark.parametrize(
    "body",
    [
        '{"version": 1, "key": "KEY", "seconds": 1e999, REST}',
        '{"version": 1, "key": "KEY", "seconds": NaN, REST}',
        '{"version": 1, "key": "KEY", "seconds": 1e308, REST}',
        '{"version": "' + "long" * 1000 + '", "key": "KEY", "seconds": 1.0, REST}',
        '{"version": 1, "key": "KEY", "seconds": -5, REST}',
        '{"version": 1, "key": "KEY", "seconds": ' + "9" * 400 + ", REST}",
        '{"version": 1, "key": "KEY", "seconds": 1.0, "files": [["dist/out", "f", "' + EMPTY + '", 1e999]], REST}',
        '{"version": 1, "key": "KEY", "seconds": 1.0, "item": {"a": 1}, REST}',
        '{"version": 1, "key": "KEY", "seconds": 1.0, "files": [["dist/out", "l", "a\\u0000b", 0]], REST}',
        '{"version": 1, "key": "KEY", "seconds": 1.0, "files": [["dist/out", "l", "\\ud800", 0]], REST}',
        '{"version": 1, "key": "KEY", "seconds": 1.0, "files": [["dist/out", "l", "", 0]], REST}',
        '{"version": 1, "key": "KEY", "seconds": 1.0, "files": [["dist/' + "d/" * 2500 + 'd", "l", "x", 0]], REST}',
        '{"version": 1, "key": "KEY", "seconds": 1.0, "files": [["dist/\\ud800", "f", "' + EMPTY + '", 0]], REST}',
        "[" * 100_000,
        "[]",
        "null",
    ],
)
def test_strange_values_of_a_result_are_a_miss_and_a_line(
    project: CachedProject, server: HostileServer, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    key = find_key(project)
    output = server.keep(b"from the server")
    rest = f'"stage": "build", "created": 1.0, "output": "{output}", "components": [], "listings": []'
    rest += "" if '"files"' in body else ', "files": []'
    rest += "" if '"item"' in body else ', "item": null'
    server.publish_body(body.replace("KEY", key).replace("REST", rest).encode())
    ran = project.run(build_stage(project), remote=RemoteCache(server.url))
    assert ran.called == ["build"]
    (line,) = ran.said
    assert len(line) < 500
    assert not caplog.records


def cut_off(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"x" * 10)
    request.close_connection = True


def redirect(request: BaseHTTPRequestHandler) -> None:
    request.send_response(302)
    request.send_header("Location", "http://127.0.0.1:1/")
    request.send_header("Content-Length", "0")
    request.end_headers()


def pack(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Encoding", "gzip")
    request.send_header("Content-Length", "4")
    request.end_headers()
    request.wfile.write(b"none")


def redirect_to_nothing(request: BaseHTTPRequestHandler) -> None:
    request.send_response(302)
    request.send_header("Location", "http://[::1")
    request.send_header("Content-Length", "0")
    request.end_headers()


def send_chunk_of_negative_size(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"-5\r\nhello\r\n")
    request.close_connection = True


@pytest.mark.parametrize("answer", [cut_off, redirect, pack, redirect_to_nothing, send_chunk_of_negative_size])
@pytest.mark.parametrize("part", ["ac", "entry", "content"])
def test_wrong_answer_costs_a_line_and_no_traceback(
    project: CachedProject, server: HostileServer, caplog: pytest.LogCaptureFixture, part: str, answer: Answer
) -> None:
    key = find_key(project)
    server.publish(key)
    output, entry = server.contents
    place = {"ac": f"/ac/{key}", "entry": f"/cas/{entry}", "content": f"/cas/{output}"}[part]
    server.special[place] = answer
    ran = project.run(build_stage(project), remote=RemoteCache(server.url))
    assert ran.called == ["build"]
    (line,) = ran.said
    assert line.startswith("the remote cache is not used")
    assert not caplog.records


def refuse(request: BaseHTTPRequestHandler) -> None:
    request.send_response(429)
    request.send_header("Content-Length", "0")
    request.end_headers()


@pytest.mark.parametrize(("retry_seconds", "is_cached"), [(0.0, True), (300.0, False)])
def test_server_that_failed_is_asked_again_by_later_runs(
    project: CachedProject, server: HostileServer, retry_seconds: float, is_cached: bool
) -> None:
    key = find_key(project)
    server.publish(key, files=[["dist/out", "f", server.keep(b"x"), 1]])
    server.special[f"/ac/{key}"] = refuse
    remote = RemoteCache(server.url, retry_seconds=retry_seconds)
    assert project.run(build_stage(project), remote=remote).called == ["build"]
    del server.special[f"/ac/{key}"]
    find_key(project)  # the second run finds no result here either
    assert project.run(build_stage(project), remote=remote).is_cached("build") is is_cached


def test_large_content_is_downloaded_in_bounded_memory(project: CachedProject, server: HostileServer) -> None:
    size = 64 << 20

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(size))
        request.end_headers()
        for _ in range(size >> 16):
            request.wfile.write(bytes(1 << 16))

    digest = hashlib.sha256()
    for _ in range(size >> 20):
        digest.update(bytes(1 << 20))
    key = find_key(project)
    server.publish(key, files=[["dist/out", "f", digest.hexdigest(), size]])
    server.special[f"/cas/{digest.hexdigest()}"] = answer
    tracemalloc.start()
    try:
        assert RemoteCache(server.url).fetch(key, project.store, threading.Event())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 4
    assert project.run(build_stage(project)).is_cached("build")
    assert (project.root / "dist/out").stat().st_size == size


@pytest.mark.parametrize(
    "values",
    [b"[]," * 5_000_000, b'"",' * 5_000_000, (b"[" * 900 + b"]" * 900 + b",") * 8000],
    ids=["lists", "texts", "lists in lists"],
)
def test_entry_of_millions_of_values_is_refused_in_bounded_memory(values: bytes) -> None:
    body = b'{"version": 1, "files": [' + values + b"0]}"
    content = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    assert len(content) < LARGEST_ENTRY_BYTES
    tracemalloc.start()
    try:
        with pytest.raises(BadEntry, match="more than 2,000,000 values"):
            parse_entry(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * LARGEST_ENTRY_BYTES


@pytest.mark.parametrize("declared_bytes", [1, 400])
def test_result_larger_than_the_store_is_a_miss_and_a_line(
    project: CachedProject, server: HostileServer, declared_bytes: int
) -> None:
    contents = [server.keep(bytes([number]) * 400) for number in range(4)]
    remote = RemoteCache(server.url)
    for _ in range(3):  # the contents of earlier runs count too
        files = [[f"dist/{number}", "f", content, declared_bytes] for number, content in enumerate(contents)]
        server.publish(find_key(project), files=files)
        ran = project.run(build_stage(project), remote=remote, limit_bytes=1000)
        assert ran.called == ["build"]
        assert ran.said == [
            "a result of the remote cache is not used: it has more than 1,000 bytes, the size of the store "
            "(PAROPT_CACHE_SIZE)"
        ]
    assert sum(map(project.store.has, contents)) <= 2
    assert remote.failure == ""


def test_server_that_drips_is_given_up(project: CachedProject, server: HostileServer) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100000")
        request.end_headers()
        while not server.stopped.wait(0.05):
            request.wfile.write(b"x")

    key = find_key(project)
    server.special[f"/ac/{key}"] = drip
    remote = RemoteCache(server.url, limit_seconds=0.3)
    ran = project.run(build_stage(project), remote=remote)
    assert ran.called == ["build"]
    (line,) = ran.said
    assert line.startswith("the remote cache is not used: GET ac/") and line.endswith("is too slow")
    for thread in (each for each in threading.enumerate() if each.name == "paropt-remote"):
        thread.join(10)
        assert not thread.is_alive()


def test_end_of_the_run_does_not_wait_for_a_download(project: CachedProject, server: HostileServer) -> None:
    asked, given_up = threading.Event(), threading.Event()

    def stall(request: BaseHTTPRequestHandler) -> None:
        asked.set()
        server.stopped.wait(30)

    key = find_key(project)
    server.special[f"/ac/{key}"] = stall
    remote = RemoteCache(server.url)

    def give_up() -> None:
        if asked.wait(10):
            given_up.set()

    threading.Thread(target=give_up, daemon=True).start()
    assert not remote.fetch(key, project.store, given_up)
    del server.special[f"/ac/{key}"]
    server.publish(key)
    assert remote.fetch(key, project.store, threading.Event())  # the next run of this process asks it again


def test_server_that_reads_slowly_is_given_up(project: CachedProject, server: HostileServer) -> None:
    key = find_key(project)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes no connection: the kernel's queue does
        remote = RemoteCache(f"http://127.0.0.1:{listener.getsockname()[1]}", writes=True, limit_seconds=0.3)
        project.run(build_stage(project), no_cache=True)
        entry = project.store.load(key)
        assert entry is not None
        with pytest.raises(RemoteFailed, match="is too slow"):
            remote.send(entry, project.store)
