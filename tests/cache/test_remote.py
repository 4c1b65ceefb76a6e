"""A remote cache: results of one host are found on another, over Bazel's HTTP protocol, from a real nginx."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import requests

from paropt_exporter.cache.remote import (
    Access,
    BadMessage,
    Digest,
    RemoteCache,
    _format_field,
    _format_number,
    format_action_result,
    open_remote,
    parse_action_result,
)
from paropt_exporter.config.host_config import HostConfig
from paropt_exporter.errors import UsageError
from paropt_exporter.plan import PlannedTask
from support.cached_project import CachedProject, print_sources
from support.real_servers import free_port, webdav

TOKEN = "s3cret"
WRITER = Access(read_headers=lambda: {"Authorization": f"Bearer {TOKEN}"})
OTHER = Access(read_headers=lambda: {"Authorization": "Bearer wrong"})
ENTRY = Digest("a" * 64, 300)


def build(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    (root / "dist").mkdir(exist_ok=True)
    (root / "dist/out").write_text(print_sources(root, environ, task))
    (root / "dist/out").chmod(0o755)
    return "built"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with webdav(tmp_path / "nginx", token=TOKEN) as url:
        yield url


def make_host(folder: Path, name: str) -> CachedProject:
    """Return the project on a host with a store of its own."""
    made = CachedProject(folder / name / "project", folder / name / "store", work={"build": build})
    made.write_file("src/a.py", "one")
    return made


def list_files(tmp_path: Path, part: str) -> list[Path]:
    return [path for path in (tmp_path / "nginx/files" / part).rglob("*") if path.is_file()]


def test_result_of_one_host_is_a_hit_on_another(tmp_path: Path, server: str) -> None:
    first, second = make_host(tmp_path, "one"), make_host(tmp_path, "two")
    stage = first.build_stage("build", outputs=("dist",))
    first.run(stage, remote=RemoteCache(server, access=WRITER, writes=True))
    ran = second.run(second.build_stage("build", outputs=("dist",)), remote=RemoteCache(server))
    assert ran.is_cached("build") and ran.get_output("build") == "built"
    assert (second.root / "dist/out").read_text() == "src/a.py: one\n"
    assert (second.root / "dist/out").stat().st_mode & 0o100
    assert second.run(second.build_stage("build", outputs=("dist",))).is_cached("build")  # now in its own store


def test_result_with_a_file_that_was_there_is_a_hit_only_where_it_is(tmp_path: Path, server: str) -> None:
    """Such as a `.gitkeep` that all checkouts have, or the page of a source that is gone, which only one has."""
    first, second = make_host(tmp_path, "one"), make_host(tmp_path, "two")
    first.write_file("dist/old", "")
    first.run(first.build_stage("build", outputs=("dist",)), remote=RemoteCache(server, access=WRITER, writes=True))
    stage = second.build_stage("build", outputs=("dist",))
    assert second.run(stage, remote=RemoteCache(server)).called == ["build"]
    (second.root / "dist/out").unlink()
    second.write_file("dist/old", "")
    shutil.rmtree(second.store.folder)
    assert second.run(stage, remote=RemoteCache(server)).is_cached("build")


def test_other_hosts_result_comes_in_place_of_one_whose_leftover_is_gone(tmp_path: Path, server: str) -> None:
    first, second = make_host(tmp_path, "one"), make_host(tmp_path, "two")
    second.write_file("dist/old", "")
    stage = second.build_stage("build", outputs=("dist",))
    second.run(stage)
    first.run(first.build_stage("build", outputs=("dist",)), remote=RemoteCache(server, access=WRITER, writes=True))
    (second.root / "dist/old").unlink()
    assert second.run(stage, remote=RemoteCache(server)).is_cached("build")
    assert [path.name for path in (second.root / "dist").iterdir()] == ["out"]


def test_server_is_not_asked_about_a_result_that_can_not_be_restored(tmp_path: Path) -> None:
    host, server_that_is_away = make_host(tmp_path, "one"), RemoteCache(f"http://127.0.0.1:{free_port()}")
    stage = host.build_stage("build", outputs=("dist",))
    host.run(stage)
    shutil.rmtree(host.root / "dist")
    (tmp_path / "outside").mkdir()
    (host.root / "dist").symlink_to(tmp_path / "outside")
    ran = host.run(stage, remote=server_that_is_away)
    assert "can't be restored" in ran.stages["build"].cache_note
    assert server_that_is_away.failure == ""


def test_empty_output_and_empty_file_are_uploaded(tmp_path: Path, server: str) -> None:
    """The server refused them (400), and the cache was not used for the next five minutes."""

    def touch(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        (root / "dist").mkdir()
        (root / "dist/empty").touch()
        return ""

    first, second = make_host(tmp_path, "one"), make_host(tmp_path, "two")
    first.work["build"] = touch
    ran = first.run(
        first.build_stage("build", outputs=("dist",)), remote=RemoteCache(server, access=WRITER, writes=True)
    )
    assert ran.said == []
    stage = second.build_stage("build", outputs=("dist",))
    assert second.run(stage, remote=RemoteCache(server)).is_cached("build")
    assert (second.root / "dist/empty").read_bytes() == b""


def test_untrusted_host_reads_only(tmp_path: Path, server: str) -> None:
    host = make_host(tmp_path, "one")
    host.run(host.build_stage("build", outputs=("dist",)), remote=RemoteCache(server))
    assert list_files(tmp_path, "ac") == list_files(tmp_path, "cas") == []


def test_refused_write_is_one_line_and_the_result_stays_here(tmp_path: Path, server: str) -> None:
    host = make_host(tmp_path, "one")
    stage = host.build_stage("build", outputs=("dist",))
    ran = host.run(stage, remote=RemoteCache(server, access=OTHER, writes=True))
    (line,) = ran.said
    assert line.startswith("the remote cache is not used: PUT cas/") and line.endswith("was answered with 403")
    assert host.run(stage).is_cached("build")


def test_token_that_has_rotated_is_read_again(tmp_path: Path, server: str) -> None:
    """A service of `--every` opens the remote cache once."""
    host, token = make_host(tmp_path, "one"), tmp_path / "token"
    token.write_text("old")
    environ = {"PAROPT_CACHE_URL": server, "PAROPT_CACHE_TOKEN_FILE": str(token), "PAROPT_CACHE_WRITE": "1"}
    remote = open_remote(environ, HostConfig())
    token.write_text(TOKEN)
    assert host.run(host.build_stage("build", outputs=("dist",)), remote=remote).said == []
    assert list_files(tmp_path, "ac") != []
    token.unlink()
    host.write_file("src/a.py", "two")
    (line,) = host.run(host.build_stage("build", outputs=("dist",)), remote=remote).said
    assert line == f"the remote cache is not used: cannot read the secret in {token}: No such file or directory"


def test_server_that_is_away_costs_one_line_for_all_stages(tmp_path: Path) -> None:
    host = make_host(tmp_path, "one")
    host.work["other"] = build
    remote = RemoteCache(f"http://127.0.0.1:{free_port()}", writes=True)
    ran = host.run(host.build_stage("build"), host.build_stage("other", number=2), remote=remote)
    assert sorted(ran.called) == ["build", "other"]
    (line,) = ran.said
    assert line.startswith("the remote cache is not used: GET failed")


@pytest.mark.parametrize("part", ["ac", "cas"])
@pytest.mark.parametrize("content", [b"", b"something else", b"\x0a\xff\xff\xff\xff\x0f"])
def test_damaged_answer_is_a_miss_and_one_line(tmp_path: Path, server: str, part: str, content: bytes) -> None:
    first, second = make_host(tmp_path, "one"), make_host(tmp_path, "two")
    stage = first.build_stage("build", outputs=("dist",))
    first.run(stage, remote=RemoteCache(server, access=WRITER, writes=True))
    for path in list_files(tmp_path, part):
        path.write_bytes(content)
    ran = second.run(second.build_stage("build", outputs=("dist",)), remote=RemoteCache(server))
    assert ran.called == ["build"] and len(ran.said) == 1
    assert (second.root / "dist/out").read_text() == "src/a.py: one\n"


def test_missing_content_is_a_miss(tmp_path: Path, server: str) -> None:
    first, second = make_host(tmp_path, "one"), make_host(tmp_path, "two")
    first.run(first.build_stage("build", outputs=("dist",)), remote=RemoteCache(server, access=WRITER, writes=True))
    shutil.rmtree(tmp_path / "nginx/files/cas")
    ran = second.run(second.build_stage("build", outputs=("dist",)), remote=RemoteCache(server))
    assert (ran.called, ran.said) == (["build"], [])


def test_content_that_the_server_has_is_not_uploaded_again(tmp_path: Path, server: str) -> None:
    for name in ("one", "two"):
        host = make_host(tmp_path, name)
        host.run(host.build_stage("build", outputs=("dist",)), remote=RemoteCache(server, access=WRITER, writes=True))
        contents = {path: path.stat().st_mtime_ns for path in list_files(tmp_path, "cas")}
        if name == "one":
            first = contents
            shutil.rmtree(tmp_path / "nginx/files/ac")
    assert len(list_files(tmp_path, "ac")) == 1
    assert contents.items() >= first.items()


def test_result_under_a_foreign_key_is_refused(tmp_path: Path, server: str) -> None:
    first, second = make_host(tmp_path, "one"), make_host(tmp_path, "two")
    first.run(first.build_stage("build", outputs=("dist",)), remote=RemoteCache(server, access=WRITER, writes=True))
    second.write_file("src/a.py", "other")
    second.run(second.build_stage("build", outputs=("dist",)))
    (own,) = [path for path in (second.store.folder / "v1/ac").rglob("*") if path.is_file()]
    shutil.rmtree(second.store.folder)
    (other,) = list_files(tmp_path, "ac")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    requests.put(f"{server}/ac/{own.name}", data=other.read_bytes(), headers=headers, timeout=10)
    ran = second.run(second.build_stage("build", outputs=("dist",)), remote=RemoteCache(server))
    assert ran.called == ["build"]
    assert ran.said == ["the remote cache is not used: an entry has the key of another one"]


def test_only_the_environment_names_the_server(tmp_path: Path) -> None:
    assert open_remote({}, HostConfig()) is None
    token = tmp_path / "token"
    token.write_text("abc\n")
    remote = open_remote(
        {"PAROPT_CACHE_URL": "http://cache/pull/17", "PAROPT_CACHE_TOKEN_FILE": str(token)}, HostConfig()
    )
    assert remote is not None and not remote.writes
    remote = open_remote({"PAROPT_CACHE_URL": "http://cache", "PAROPT_CACHE_WRITE": "1"}, HostConfig())
    assert remote is not None and remote.writes


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PAROPT_CACHE_URL": "cache:80"}, "expected a URL like"),
        ({"PAROPT_CACHE_URL": "http://a:b@cache"}, "a URL with a password or a query would be logged"),
        ({"PAROPT_CACHE_URL": "http://cache/?token=s3cret"}, "a URL with a password or a query would be logged"),
        ({"PAROPT_CACHE_URL": "http://cache", "PAROPT_CACHE_TOKEN_FILE": "/gone"}, "cannot read the secret in /gone"),
    ],
)
def test_bad_setting_is_one_clear_error(environ: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_remote(environ, HostConfig())


def test_action_result_is_the_message_of_the_protocol() -> None:
    message = format_action_result(ENTRY, [("dist/out", Digest("b" * 64, 5), True)])
    expected = (
        b"\x12\x52" + b"\x0a\x08dist/out" + b"\x12\x44" + b"\x0a\x40" + b"b" * 64 + b"\x10\x05" + b"\x20\x01"
        b"\x42\x45" + b"\x0a\x40" + b"a" * 64 + b"\x10\xac\x02"
    )
    assert message == expected
    assert parse_action_result(message) == ENTRY
    assert parse_action_result(b"\x20\x00" + message + b"\x4d\x00\x00\x00\x00") == ENTRY  # other fields are skipped


@pytest.mark.parametrize("length", range(0, 160, 7))
def test_cut_message_is_refused(length: int) -> None:
    message = format_action_result(ENTRY, [("dist/out", Digest("b" * 64, 5), True)])
    with pytest.raises(BadMessage):
        parse_action_result(message[:length])


def test_digest_of_many_fields_is_refused_in_bounded_memory() -> None:
    message = _format_field(8, b"".join(_format_number(number, 0) for number in range(20, 100_000)))
    tracemalloc.start(1)
    try:
        with pytest.raises(BadMessage, match="no entry"):
            parse_action_result(message)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(message)
    finally:
        tracemalloc.stop()


def test_message_of_many_fields_is_refused() -> None:
    with pytest.raises(BadMessage, match="more than 1,000,000 fields"):
        parse_action_result(_format_number(20, 0) * 1_100_000 + format_action_result(ENTRY, []))


def test_server_has_plain_results_and_contents(tmp_path: Path, server: str) -> None:
    host = make_host(tmp_path, "one")
    host.run(host.build_stage("build", outputs=("dist",)), remote=RemoteCache(server, access=WRITER, writes=True))
    (action,) = list_files(tmp_path, "ac")
    entry = parse_action_result(action.read_bytes())
    body = (tmp_path / "nginx/files/cas" / entry.hash).read_bytes()
    assert entry.size_bytes == len(body)
    assert json.loads(body.partition(b"\n")[2])["stage"] == "build"
