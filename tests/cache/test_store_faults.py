"""A store that fails in any way costs a miss and one line, never a wrong result."""

from __future__ import annotations

import errno
import json
import os
import pwd
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from paropt_exporter.cache import result_store
from paropt_exporter.cache.entry import OutputFile, UnreadableFile, parse_entry
from paropt_exporter.cache.result_store import Store, find_store_folder, open_store
from paropt_exporter.errors import UsageError
from paropt_exporter.events import CacheReason
from paropt_exporter.plan import PlannedTask
from support.cached_project import CachedProject, print_sources

TEXT = "x" * 70_000


def build(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    (root / "dist").mkdir(exist_ok=True)
    (root / "dist/out").write_text(TEXT)
    return print_sources(root, environ, task)


@pytest.fixture
def project(tmp_path: Path) -> CachedProject:
    made = CachedProject(tmp_path / "project", tmp_path / "store", work={"build": build})
    made.write_file("src/a.py", "one")
    return made


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """Let writes beyond so many bytes of a file fail."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def list_store(project: CachedProject, part: str) -> list[Path]:
    return [path for path in (project.store.folder / "v1" / part).rglob("*") if path.is_file()]


def test_results_are_closed_to_other_users_whatever_the_umask(project: CachedProject) -> None:
    before = os.umask(0)
    try:
        project.run(project.build_stage("build", inputs=("src",), outputs=("dist",)))
    finally:
        os.umask(before)
    written = list_store(project, ".")
    assert {path.parts[-3] for path in written} >= {"ac", "cas"}
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}


def test_full_disk_keeps_nothing_and_says_so_in_one_line(project: CachedProject) -> None:
    def build_small(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        output = build(root, environ, task)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return output

    stage = project.build_stage("build", outputs=("dist",))
    project.store.prepare()
    project.store.read_secret()
    project.work["build"] = build_small
    with full_disk(0):
        ran = project.run(stage)
    assert ran.called == ["build"]
    (line,) = ran.said
    assert line.startswith("build: not cached: the result is not kept: File too large")
    assert not [path for path in list_store(project, "ac") + list_store(project, "cas") if path.stat().st_size]
    project.work["build"] = build
    assert project.run(stage).called == ["build"]
    assert project.run(stage).is_cached("build")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("part", ["ac", "cas"])
@pytest.mark.parametrize("spoil", [damage, cut], ids=["bad", "half-written"])
def test_damaged_file_is_a_miss_in_one_line_and_then_replaced(
    project: CachedProject, part: str, spoil: Callable[[Path], None]
) -> None:
    stage = project.build_stage("build", outputs=("dist",))
    project.run(stage)
    for path in list_store(project, part):
        spoil(path)
    shutil.rmtree(project.root / "dist")
    ran = project.run(stage)
    assert (ran.called, ran.get_reason("build")) == (["build"], CacheReason.STORE)
    assert "damaged" in ran.stages["build"].cache_note
    assert (project.root / "dist/out").read_text() == TEXT
    shutil.rmtree(project.root / "dist")
    assert project.run(stage).is_cached("build")
    assert (project.root / "dist/out").read_text() == TEXT


def test_entry_of_a_newer_version_is_a_miss(project: CachedProject) -> None:
    import hashlib

    stage = project.build_stage("build", outputs=("dist",))
    project.run(stage)
    (path,) = list_store(project, "ac")
    values = json.loads(path.read_bytes().partition(b"\n")[2])
    body = json.dumps({**values, "version": 2}).encode()
    path.write_bytes(f"{hashlib.sha256(body).hexdigest()}\n".encode() + body)
    ran = project.run(stage)
    assert ran.called == ["build"]
    assert ran.stages["build"].cache_note == "an entry of the cache has version 2, which this program does not know"


def test_newer_layout_lies_beside_this_one(project: CachedProject) -> None:
    (project.store.folder / "v2").mkdir(parents=True)
    (project.store.folder / "v2/ac").write_text("not a folder")
    stage = project.build_stage("build")
    project.run(stage)
    assert project.run(stage).is_cached("build")


def test_store_that_is_a_file_is_a_miss_in_one_line(project: CachedProject) -> None:
    project.store.folder.write_text("")
    ran = project.run(project.build_stage("build"))
    assert (ran.called, ran.get_reason("build")) == (["build"], CacheReason.STORE)
    assert ran.stages["build"].cache_note == (
        f"the cache is not used: File exists ({project.store.folder}): set PAROPT_CACHE_DIR to another folder"
    )


def test_store_that_is_usable_again_is_used_by_the_next_run_of_a_process(project: CachedProject) -> None:
    stage = project.build_stage("build", inputs=("src",), outputs=("dist",))
    project.store.folder.write_text("")
    with closing(project.build_cache()) as cache:
        assert project.run_with(cache, stage).get_reason("build") is CacheReason.STORE
        project.store.folder.unlink()
        assert project.run_with(cache, stage).get_reason("build") is CacheReason.NEW
        assert project.run_with(cache, stage).is_cached("build")


def test_store_that_others_may_write_to_is_not_used(project: CachedProject) -> None:
    stage = project.build_stage("build")
    project.run(stage)
    project.store.folder.chmod(0o777)
    ran = project.run(stage)
    assert ran.called == ["build"]
    assert "other users may write to" in ran.stages["build"].cache_note


def test_first_runs_that_begin_together_have_one_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each made its own, and the later run found no result of the earlier one."""
    one, other = Store(tmp_path / "store"), Store(tmp_path / "store")
    one.prepare()

    secrets = list[bytes]()

    def find_none() -> None:
        monkeypatch.undo()
        secrets.append(other.read_secret())

    monkeypatch.setattr(one, "find_secret", find_none)
    assert [one.read_secret()] == secrets


def test_empty_secret_is_replaced(tmp_path: Path) -> None:
    """A power cut had left it: digests of variables without a key can be guessed, and a remote cache gets them."""
    store = Store(tmp_path / "store")
    store.prepare()
    store.secret_path.touch()
    assert store.find_secret() is None
    secret = store.read_secret()
    assert len(secret) == 32
    assert store.find_secret() == store.read_secret() == secret


def test_half_written_files_are_not_damaged_ones(project: CachedProject) -> None:
    """Another process writes them now, or was killed while it did."""
    for folder in ("ac", "cas"):
        project.write_file(f"../store/v1/{folder}/aa/.aabbccdd.00000000", "half")
    assert [*project.store.list_faulty()] == []
    assert (project.store.folder / "v1/ac/aa/.aabbccdd.00000000").exists()


def test_contents_that_are_evicted_during_a_check_are_not_damaged(
    project: CachedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cache verify` beside `cache prune` called them damaged, and ended with 1."""
    project.run(project.build_stage("build", inputs=("src",), outputs=("dist",)))
    listed = [*project.store.list_files()]
    monkeypatch.setattr(Store, "list_files", lambda _: iter(listed))
    project.store.prune(0, spare_young=False)
    assert [*project.store.list_faulty()] == []


def test_files_that_could_not_be_read_are_not_damaged(project: CachedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor, `cache verify` removed all results."""
    stage = project.build_stage("build", inputs=("src",), outputs=("dist",))
    project.run(stage)
    listed = [*project.store.list_files()]
    monkeypatch.setattr(Store, "list_files", lambda _: iter(listed))
    with no_descriptors():
        faulty = [*project.store.list_faulty()]
    assert [file for file, _ in faulty] == listed
    assert {type(error) for _, error in faulty} == {UnreadableFile}
    assert project.run(stage).is_cached("build")


def test_result_that_could_not_be_read_once_is_kept(project: CachedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = project.build_stage("build", inputs=("src",), outputs=("dist",))
    project.run(stage)
    read = result_store._read_whole

    def fail_once(path: str, limit_bytes: int) -> bytes:
        monkeypatch.setattr(result_store, "_read_whole", read)
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE), path)

    monkeypatch.setattr(result_store, "_read_whole", fail_once)
    assert project.run(stage).is_cached("build")


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let each open of a file fail."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_store_deleted_during_the_run_keeps_nothing_wrong(project: CachedProject) -> None:
    def build_and_delete(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        shutil.rmtree(project.store.folder)
        return build(root, environ, task)

    stage = project.build_stage("build", outputs=("dist",))
    project.work["build"] = build_and_delete
    assert project.run(stage).stages["build"].result.value == "success"
    project.work["build"] = build
    project.run(stage)
    assert project.run(stage).is_cached("build")


def test_output_that_changes_while_it_is_stored_is_not_kept(project: CachedProject) -> None:
    project.store.prepare()
    path = project.root / "file"
    path.write_text("new")
    with path.open("rb") as source, pytest.raises(Exception, match="changed while it was stored"):
        project.store.add_file(source, "0" * 64, 3)
    assert not list_store(project, "cas")


def test_least_recently_used_results_go_when_the_store_is_full(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", limit_bytes=3000)
    store.prepare()
    digests = [store.add(bytes([number]) * 1000) for number in range(5)]
    for age, digest in enumerate(digests):
        os.utime(store.folder / "v1/cas" / digest[:2] / digest, (1_000_000 + age, 1_000_000 + age))
    assert store.prune() == (3, 3000)
    assert [store.has(digest) for digest in digests] == [False, False, False, True, True]


def test_notes_on_tasks_without_a_result_are_removed_after_a_month(project: CachedProject) -> None:
    """Those of renamed items and deleted projects stayed for good."""
    month_ago = time.time() - 31 * 86400
    kept, gone = (project.build_stage("build", item=item) for item in ("kept", "gone"))
    project.run(kept)
    (kept_note,) = list_store(project, "last")
    before = {*list_store(project, "ac")}
    project.run(gone)
    (gone_note,) = {*list_store(project, "last")} - {kept_note}
    for path in {*list_store(project, "ac")} - before:
        path.unlink()
    project.store.prune()
    assert {*list_store(project, "last")} == {kept_note, gone_note}
    for path in (kept_note, gone_note):
        os.utime(path, (month_ago, month_ago))
    project.store.prune()
    assert list_store(project, "last") == [kept_note]


def test_index_of_a_checkout_without_runs_is_removed_after_a_month(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    old, new = store.index_folder / "old", store.index_folder / "new"
    for path in (old, new):
        path.write_bytes(b"index")
    month_ago = time.time() - 31 * 86400
    os.utime(old, (month_ago, month_ago))
    store.prune_if_full()
    assert (old.exists(), new.exists()) == (False, True)


def test_run_leaves_the_store_within_its_size(project: CachedProject) -> None:
    stage = project.build_stage("build", outputs=("dist",))
    for number in range(6):
        project.write_file("src/a.py", str(number))
        project.run(stage, limit_bytes=1000)
        for path in list_store(project, "cas") + list_store(project, "ac"):
            os.utime(path, (1_000_000, 1_000_000))
    project.write_file("src/a.py", "last")
    project.run(stage, limit_bytes=1000)
    assert sum(file.size_bytes for file in project.store.list_files()) <= 2 * TEXT.__len__() + 10_000


def test_result_larger_than_the_store_costs_no_other_one(project: CachedProject) -> None:
    small, large = project.build_stage("build", outputs=("dist",)), project.build_stage("large", outputs=("data",))
    project.work["large"] = write_a_megabyte
    project.run(small)
    for _ in range(2):
        assert project.run(large, limit_bytes=100_000).said == [
            "large: not cached: its outputs have 1,000,000 bytes, the whole cache 100,000: raise PAROPT_CACHE_SIZE"
        ]
    again = project.run(small, large, limit_bytes=100_000)
    assert (again.is_cached("build"), again.get_reason("large")) == (True, CacheReason.UNCACHEABLE)


def write_a_megabyte(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    (root / "data").write_bytes(b"x" * 1_000_000)
    return ""


def test_files_of_the_store_are_listed_only_when_it_may_be_full(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", limit_bytes=3000)
    store.prepare()
    first = store.add(b"a" * 1000)
    store.prune_if_full()  # the first call lists the files
    (store.folder / "v1/cas/zz").mkdir()
    (store.folder / "v1/cas/zz/unknown").write_bytes(bytes(4000))
    os.utime(store.folder / "v1/cas/zz/unknown", (1_000_000, 1_000_000))
    store.add(b"b" * 1000)
    store.prune_if_full()
    assert (store.folder / "v1/cas/zz/unknown").exists()
    store.add(b"c" * 1500)
    store.prune_if_full()
    assert not (store.folder / "v1/cas/zz/unknown").exists()
    assert store.has(first)


@pytest.mark.parametrize("content", ["", "x y", "10 99999999999", "10 1000"], ids=["empty", "bad", "future", "old"])
def test_unknown_size_of_the_store_lists_its_files(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path / "store", limit_bytes=100)
    store.prepare()
    digest = store.add(b"a" * 1000)
    os.utime(store.find_content(digest), (1_000_000, 1_000_000))
    (store.folder / "v1/size").write_text(content)
    store.prune_if_full()
    assert not store.has(digest)


def test_folder_of_the_store_follows_the_environment(tmp_path: Path) -> None:
    assert find_store_folder({"PAROPT_CACHE_DIR": "/a/b"}) == Path("/a/b")
    assert find_store_folder({"XDG_CACHE_HOME": "/a", "HOME": "/h"}) == Path("/a/paropt-exporter")
    assert find_store_folder({"XDG_CACHE_HOME": "relative", "HOME": "/h"}) == Path("/h/.cache/paropt-exporter")


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_user_without_a_home_folder_gets_no_folder_in_the_project(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder named `~`, or `relative`, was made in the project, with all results in it."""
    assert find_store_folder(environ) == Path(pwd.getpwuid(os.geteuid()).pw_dir, ".cache/paropt-exporter")
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 2)  # the user of a container may have no entry
    assert find_store_folder(environ) == Path("/nonexistent/.cache/paropt-exporter")


def test_invalid_size_is_one_clear_error() -> None:
    assert open_store({"PAROPT_CACHE_SIZE": "2GB"}).limit_bytes == 2_000_000_000
    with pytest.raises(UsageError, match="PAROPT_CACHE_SIZE: expected a size like 2GiB"):
        open_store({"PAROPT_CACHE_SIZE": "much"})


def test_entry_with_a_path_out_of_the_project_restores_nothing(project: CachedProject, tmp_path: Path) -> None:
    from msgspec.structs import replace

    stage = project.build_stage("build", outputs=("dist",))
    project.run(stage)
    (path,) = list_store(project, "ac")
    entry = parse_entry(path.read_bytes())
    evil = OutputFile("../evil", "f", entry.files[0].value, entry.files[0].size_bytes)
    project.store.save(replace(entry, files=(evil,)))
    ran = project.run(stage)
    assert ran.called == ["build"]
    assert "leads out of the project" in ran.stages["build"].cache_note
    assert not (tmp_path / "evil").exists()
