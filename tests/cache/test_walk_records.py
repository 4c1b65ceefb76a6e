"""Records of walks: an unchanged stage is known by them, and no change of its files passes unseen."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.file_states import FileStates
from paropt_exporter.cache.keys import KeyLocks
from paropt_exporter.cache.stage_keys import StageReader
from paropt_exporter.plan import PlannedStage
from support.cached_project import CachedProject, print_sources
from support.pool_tasks import eventually

Change = Callable[[Path], object]


@pytest.fixture
def project(tmp_path: Path) -> CachedProject:
    made = CachedProject(tmp_path / "project", tmp_path / "store", work={"lint": print_sources})
    for name in ("src/a.py", "src/deep/b.py", "src/notes", "src/cache/CACHEDIR.TAG", "src/cache/c.py", "setup.cfg"):
        made.write_file(name, "one")
    return made


class Reader:
    """Reads a stage as processes one after another do, each with the index that the one before has left."""

    def __init__(self, project: CachedProject) -> None:
        self._root = project.root
        self._index = project.root.parent / "index"
        self.states = self._open()

    def read_whole(self, stage: PlannedStage) -> str:
        """Read all files, save the index, and return the key."""
        states = self._open()
        reading = self._build(states).read(stage)
        states.save()
        return reading.list_digests()[0]

    def read_recorded(self, stage: PlannedStage) -> str | None:
        """Return the key by the record, or None."""
        self.states = self._open()
        reading = self._build(self.states).read_recorded(stage)
        return None if reading is None else reading.list_digests()[0]

    def _open(self) -> FileStates:
        return FileStates(os.fspath(self._root), self._index, read_clock_ns=lambda: 1 << 62)

    def _build(self, states: FileStates) -> StageReader:
        return StageReader(self._root, states, {"PATH": f"{self._root}/bin"}, b"secret")


def test_unchanged_stage_has_its_key_by_the_record_and_reads_no_file(project: CachedProject) -> None:
    stage, reader = project.build_stage("lint", inputs=("src/**/*.py",)), Reader(project)
    assert reader.read_recorded(stage) is None
    key = reader.read_whole(stage)
    assert reader.read_recorded(stage) == key
    assert reader.states.read_count == 0


def rewrite(name: str, content: str = "two") -> Change:
    return lambda root: (root / name).write_text(content)


def rewrite_with_old_times(root: Path) -> None:
    path = root / "src/a.py"
    before = path.stat()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_link(root: Path) -> None:
    (root / "src/a.py").rename(root / "src/other")
    (root / "src/a.py").symlink_to("other")


def link_folder(root: Path) -> None:
    (root / "outside").mkdir()
    (root / "outside/d.py").write_text("one")
    (root / "src/linked").symlink_to("../outside")


def replace_file_by_folder(root: Path) -> None:
    (root / "src/notes").unlink()
    (root / "src/notes").mkdir()
    (root / "src/notes/d.py").write_text("one")


def replace_file_by_link_to_folder(root: Path) -> None:
    (root / "outside").mkdir()
    (root / "src/notes").unlink()
    (root / "src/notes").symlink_to("../outside")


CHANGES: dict[str, Change] = {
    "content": rewrite("src/a.py"),
    "content of a file below": rewrite("src/deep/b.py"),
    "content with old times": rewrite_with_old_times,
    "mode": lambda root: (root / "src/a.py").chmod(0o755),
    "new file": rewrite("src/deep/new.py"),
    "new folder": lambda root: shutil.copytree(root / "src/deep", root / "src/deeper"),
    "file gone": lambda root: (root / "src/deep/b.py").unlink(),
    "folder gone": lambda root: shutil.rmtree(root / "src/deep"),
    "all gone": lambda root: shutil.rmtree(root / "src"),
    "new name": lambda root: (root / "src/a.py").rename(root / "src/z.py"),
    "link in place of a file": replace_by_link,
    "link to a folder": link_folder,
    "folder in place of another file": replace_file_by_folder,
    "link in place of another file": replace_file_by_link_to_folder,
    "cache that is no longer one": lambda root: (root / "src/cache/CACHEDIR.TAG").unlink(),
    "folder that becomes a cache": rewrite("src/deep/CACHEDIR.TAG"),
    "named file": rewrite("docs/named"),
    "missing file that appears": rewrite("docs/missing"),
    "settings": rewrite("setup.cfg"),
    "new settings": rewrite("pyproject.toml"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_change_is_seen(project: CachedProject, change: Change) -> None:
    project.write_file("docs/named", "one")
    inputs = ("src/**/*.py", "docs/named", "docs/missing")
    stage, reader = project.build_stage("lint", inputs=inputs), Reader(project)
    key = reader.read_whole(stage)
    assert reader.read_recorded(stage) == key
    change(project.root)
    assert reader.read_recorded(stage) is None
    assert Reader(project).read_whole(stage) != key or change is CHANGES["link in place of another file"]


@pytest.mark.parametrize("folder", ["src", "src/deep"])
def test_folder_that_was_moved_behind_a_link_is_seen(project: CachedProject, folder: str) -> None:
    """Its names, and the inodes and times of its files, are the same, but a program finds a link in its place."""
    stage, reader = project.build_stage("lint", inputs=("src",)), Reader(project)
    key = reader.read_whole(stage)
    (project.root / folder).rename(project.root / "moved")
    (project.root / folder).symlink_to(project.root / "moved")
    assert reader.read_recorded(stage) is None
    assert Reader(project).read_whole(stage) != key


def test_file_that_no_pattern_names_changes_nothing(project: CachedProject) -> None:
    stage, reader = project.build_stage("lint", inputs=("src/**/*.py",)), Reader(project)
    key = reader.read_whole(stage)
    (project.root / "src/notes").write_text("two")
    (project.root / "src/cache/c.py").write_text("two")
    assert reader.read_recorded(stage) == key


def test_links_have_no_record(project: CachedProject) -> None:
    (project.root / "src/link").symlink_to("a.py")
    stage, reader = project.build_stage("lint"), Reader(project)
    reader.read_whole(stage)
    assert reader.read_recorded(stage) is None


def test_young_file_has_no_record(project: CachedProject) -> None:
    stage = project.build_stage("lint")
    index = project.root.parent / "index"
    for _ in range(2):
        states = FileStates(os.fspath(project.root), index)  # by the real clock the files are young
        assert StageReader(project.root, states, {}, b"").read_recorded(stage) is None
        StageReader(project.root, states, {}, b"").read(stage)
        states.save()


def test_files_of_an_item_count_beside_the_record(project: CachedProject) -> None:
    project.write_file("items/one", "1")
    stage = project.build_stage("lint", items=("one",), inputs=("src/**", "items/{item}"))
    reader = Reader(project)
    key = reader.read_whole(stage)
    assert reader.read_recorded(stage) == key
    project.write_file("items/one", "2")
    assert reader.read_recorded(stage) not in (key, None)


def test_stage_with_outputs_of_thousands_of_items_is_soon_known(project: CachedProject) -> None:
    items = tuple(
        f"day{number}" for number in range(3000)
    )  # 9 million patterns, if each were compared with all outputs
    stage = project.build_stage("load", items=items, inputs=("raw/{item}.csv",), outputs=("out/{item}.csv",))
    reader = Reader(project)
    assert reader.read_recorded(stage) is None
    assert reader.read_whole(stage) == reader.read_recorded(stage)


def test_changed_output_of_a_needed_stage_is_seen(project: CachedProject) -> None:
    project.write_file("dist/out", "1")
    stage, reader = project.build_stage("lint", needed_outputs=("dist",)), Reader(project)
    key = reader.read_whole(stage)
    assert reader.read_recorded(stage) == key
    project.write_file("dist/out", "2")
    assert reader.read_recorded(stage) is None


@pytest.fixture
def old_project(project: CachedProject, tmp_path: Path) -> CachedProject:
    """Return the project with a cache that trusts the times of its files at once."""
    return CachedProject(project.root, tmp_path / "store", work={"lint": print_sources}, trusts_after_seconds=-10.0)


def test_recorded_stage_whose_content_is_damaged_runs_and_says_why(old_project: CachedProject) -> None:
    stage = old_project.build_stage("lint")
    old_project.run(stage)
    assert old_project.run(stage).is_cached("lint")
    for path in (old_project.store.folder / "v1/cas").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    ran = old_project.run(stage)
    assert ran.called == ["lint"]
    assert ran.stages["lint"].cache_note == "a content of the cache is damaged"
    assert old_project.run(stage).is_cached("lint")


def test_recorded_stage_that_waited_for_another_run_keeps_its_result(old_project: CachedProject) -> None:
    """Its content was damaged, so it ran, but with the record in place of the list of its files: nothing was kept."""
    stage = old_project.build_stage("lint", outputs=("dist",))
    old_project.run(stage)
    assert old_project.run(stage).is_cached("lint")
    for path in (old_project.store.folder / "v1/cas").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    other = KeyLocks(old_project.store.lock_path)
    assert other.try_acquire([hash_bytes(os.fsencode(f"outputs\0{os.path.realpath(old_project.root)}\0lint"))])

    def release_when_it_waits() -> None:
        assert eventually(lambda: old_project.says == ["lint: waits for another run of it"])
        other.close()

    releasing = threading.Thread(target=release_when_it_waits)
    releasing.start()
    assert old_project.run(stage).called == ["lint"]
    releasing.join()
    assert old_project.run(stage).is_cached("lint")


def test_recorded_stage_with_another_command_says_so(old_project: CachedProject) -> None:
    old_project.run(old_project.build_stage("lint"))
    ran = old_project.run(old_project.build_stage("lint", words=("--strict",)))
    assert (ran.called, ran.stages["lint"].cache_note) == (["lint"], "its command changed")


def test_no_cache_runs_a_recorded_stage(old_project: CachedProject) -> None:
    stage = old_project.build_stage("lint")
    old_project.run(stage)
    assert old_project.run(stage, no_cache=True).called == ["lint"]
    assert old_project.run(stage).is_cached("lint")
