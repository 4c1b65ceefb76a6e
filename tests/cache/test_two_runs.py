"""Several checkouts and several processes at once share one store."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest

from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.keys import KeyLocks
from paropt_exporter.cache.open_cache import CacheSetup
from paropt_exporter.cache.result_keeper import ResultKeeper
from paropt_exporter.cache.stage_cache import StageCache
from paropt_exporter.clock import SystemClock
from paropt_exporter.engine.interfaces import KeptResult, StageLookup
from paropt_exporter.plan import PlannedStage, PlannedTask
from support.cached_project import CachedProject, print_sources

KEYS = ("1" * 64, "2" * 64)


def test_other_checkout_of_the_same_files_is_a_hit(tmp_path: Path) -> None:
    first, second = (
        CachedProject(tmp_path / name, tmp_path / "store", work={"lint": print_sources}) for name in ("one", "two")
    )
    for project in (first, second):
        project.write_file("src/a.py", "one")
        project.write_file("bin/lint", f"#!{project.root}/venv/bin/python\nprint()\n", mode=0o755)
        packages = "venv/lib/python3.11/site-packages"
        project.write_file("venv/pyvenv.cfg", "")
        project.write_file("venv/bin/python", "the interpreter", mode=0o755)
        project.write_file(f"{packages}/demo-1.dist-info/RECORD", f"../../../bin/demo,sha256={project.root.name},9\n")
        project.write_file(f"{packages}/demo-1.dist-info/direct_url.json", f"file://{project.root}")
        project.write_file(f"{packages}/demo.pth", f"{project.root}/src")
    first.run(first.build_stage("lint", env={"VIRTUAL_ENV": str(first.root / "venv")}))
    ran = second.run(second.build_stage("lint", env={"VIRTUAL_ENV": str(second.root / "venv")}))
    assert ran.is_cached("lint"), ran.stages["lint"].cache_note


def test_second_of_two_runs_waits_and_hits(tmp_path: Path) -> None:
    began, go_on = os.pipe(), os.pipe()

    def lint_slowly(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        os.write(began[1], b"x")
        os.read(go_on[0], 1)
        return print_sources(root, environ, task)

    project = CachedProject(tmp_path / "project", tmp_path / "store", work={"lint": lint_slowly})
    project.write_file("src/a.py", "one")
    stage = project.build_stage("lint")
    child = fork_run(project, stage)
    try:
        os.read(began[0], 1)
        threading.Timer(0.2, lambda: os.write(go_on[1], b"x")).start()
        ran = project.run(stage)
    finally:
        os.write(go_on[1], b"xx")
        os.waitpid(child, 0)
    assert ran.is_cached("lint") and ran.called == []
    assert ran.said == ["lint: waits for another run of it"]


def build_cache(
    project: CachedProject,
    *,
    root: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    find_refusal: Callable[[], str] | None = None,
) -> StageCache:
    """Return the cache of a process; the caller closes it."""
    return StageCache(
        CacheSetup(
            root=root or project.root,
            store=project.store,
            project="demo",
            environ=project.environ,
            clock=SystemClock(),
            say=say,
            find_refusal=find_refusal,
        )
    )


def fork_run(project: CachedProject, stage: PlannedStage) -> int:
    """Run the stage in a child of this process, whose pid is returned."""
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            project.run(stage)
        finally:
            os._exit(0)
    return child


@pytest.mark.parametrize("is_kept", [True, False])
def test_run_with_other_variables_waits_until_the_outputs_are_free(tmp_path: Path, is_kept: bool) -> None:
    """It restored its files between those of the first run, whose result had both."""
    began, go_on = os.pipe(), os.pipe()

    def build(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        project.write_file("dist/a", environ["LEVEL"])
        os.write(began[1], b"x")
        os.read(go_on[0], 1)
        project.write_file("dist/b", environ["LEVEL"])
        return ""

    project = CachedProject(tmp_path / "project", tmp_path / "store", work={"build": build})
    project.write_file("src/a.py", "one")
    stage = project.build_stage("build", outputs=("dist",), pass_env=("LEVEL",))
    project.environ["LEVEL"] = "1"
    if is_kept:
        os.write(go_on[1], b"x")
        project.run(stage)
        os.read(began[0], 1)
    project.environ["LEVEL"] = "2"
    child = fork_run(project, stage)
    try:
        os.read(began[0], 1)
        project.environ["LEVEL"] = "1"
        threading.Timer(0.2, lambda: os.write(go_on[1], b"xx")).start()
        ran = project.run(stage)
    finally:
        os.write(go_on[1], b"xx")
        os.waitpid(child, 0)
    assert ran.said == ["build: waits for another run of it"]
    project.environ["LEVEL"] = "2"
    assert project.run(stage).is_cached("build")
    assert [(project.root / "dist" / name).read_text() for name in "ab"] == ["2", "2"]


def test_run_that_is_killed_keeps_nothing_and_holds_no_lock(tmp_path: Path) -> None:
    def die(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    project = CachedProject(tmp_path / "project", tmp_path / "store", work={"lint": die})
    project.write_file("src/a.py", "one")
    stage = project.build_stage("lint")
    child = os.fork()
    if not child:
        project.run(stage)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    project.work["lint"] = print_sources
    assert project.run(stage).called == ["lint"]
    assert project.run(stage).is_cached("lint")


def test_locks_exclude_other_processes_and_end_with_them(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    ready, end = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(60)
        KeyLocks(tmp_path / "folder/lock").try_acquire(KEYS[:1])
        os.write(ready[1], b"x")
        os.read(end[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    locks = KeyLocks(tmp_path / "folder/lock")
    assert locks.try_acquire(KEYS[1:])
    assert not locks.try_acquire(KEYS)
    given_up = threading.Event()
    given_up.set()
    assert not locks.acquire(KEYS[:1], given_up, 10.0)
    os.write(end[1], b"x")
    os.waitpid(child, 0)
    assert locks.try_acquire(KEYS[:1])
    assert not locks.try_acquire(KEYS[:1])  # this process holds it
    locks.release(KEYS)
    assert locks.try_acquire(KEYS)
    locks.close()


def test_closed_locks_lock_nothing(tmp_path: Path) -> None:
    """A thread that waits for another run tries once more if the run ends meanwhile: it ended with a traceback."""
    closed, other = KeyLocks(tmp_path / "lock"), KeyLocks(tmp_path / "lock")
    assert closed.try_acquire(KEYS[:1])
    closed.close()
    assert closed.acquire(KEYS, threading.Event(), 0.0)
    assert other.try_acquire(KEYS)
    closed.release(KEYS)
    closed.close()
    other.close()


def test_run_that_has_waited_for_its_outputs_waits_for_its_key_too(tmp_path: Path) -> None:
    """It ran beside the run of another checkout that had the key."""
    project = CachedProject(tmp_path / "project", tmp_path / "store", work={"build": lambda *_: ""})
    project.write_file("src/a.py", "one")
    stage = project.build_stage("build", outputs=("dist",))
    project.run(stage)
    (kept,) = [path for path in (project.store.folder / "v1/ac").rglob("*") if path.is_file()]
    kept.unlink()
    outputs = hash_bytes(os.fsencode(f"outputs\0{os.path.realpath(project.root)}\0build"))
    here, elsewhere = KeyLocks(project.store.lock_path), KeyLocks(project.store.lock_path)
    assert here.try_acquire([outputs]) and elsewhere.try_acquire([kept.name])
    lines, reported = queue.SimpleQueue[str](), threading.Event()
    cache = build_cache(project, say=lines.put)
    cache.begin_run()
    cache.look_up(stage, lambda _: reported.set())
    for other in (here, elsewhere):
        assert lines.get(timeout=30) == "build: waits for another run of it"
        other.close()
    assert reported.wait(30)
    cache.end_run()
    cache.close()


@pytest.mark.parametrize("reads", [True, False])
def test_no_cache_runs_and_replaces_the_result(tmp_path: Path, reads: bool) -> None:
    project = CachedProject(tmp_path / "project", tmp_path / "store", work={"lint": lambda *_: "first"})
    project.write_file("src/a.py", "one")
    stage = project.build_stage("lint")
    project.run(stage)
    project.work["lint"] = lambda *_: "second"
    ran = project.run(stage, no_cache=not reads)
    assert ran.called == ([] if reads else ["lint"])
    assert project.run(stage).get_output("lint") == ("first" if reads else "second")


def test_slow_lookup_does_not_delay_the_end_of_a_run(tmp_path: Path) -> None:
    """A slow disk holds up the thread of the cache: here it is the line that the stage waits for another run."""
    project = CachedProject(tmp_path / "project", tmp_path / "store", work={"lint": print_sources})
    project.write_file("src/a.py", "one")
    stage = project.build_stage("lint")
    project.run(stage, no_cache=True)
    (kept,) = [path for path in (project.store.folder / "v1/ac").rglob("*") if path.is_file()]
    kept.unlink()
    other = KeyLocks(project.store.lock_path)
    assert other.try_acquire([kept.name])
    stalled, go_on, went_on, reported = (threading.Event() for _ in range(4))

    def stall(line: str) -> None:
        stalled.set()
        go_on.wait(30)
        went_on.set()

    cache = build_cache(project, say=stall)
    cache.begin_run()
    locked = threading.Event()
    other_stage = project.build_stage("build", outputs=("dist",))
    cache.look_up(other_stage, lambda _: locked.set())
    assert locked.wait(30)
    cache.look_up(stage, lambda _: reported.set())
    assert stalled.wait(30)
    cache.end_run()
    assert not went_on.is_set()
    other.release([kept.name])
    other.close()
    cache.begin_run()
    for each in (stage, other_stage):  # which the next run does not wait for
        reported.clear()
        cache.look_up(each, lambda _: reported.set())
        assert reported.wait(30)  # the next run has a thread of its own
    go_on.set()
    cache.end_run()
    cache.close()


def test_thread_that_is_left_behind_ends_and_touches_no_later_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its lookup was over, it ended the run of its successor: the results of that were lost, and its locks."""
    project = CachedProject(tmp_path / "project", tmp_path / "store", work={})
    project.write_file("src/a.py", "one")
    stage, slow_stage = project.build_stage("lint"), project.build_stage("slow", inputs=("auto",), traces_inputs=True)
    stalled, go_on, looked_up, flushed = (threading.Event() for _ in range(4))

    def stall() -> str:
        stalled.set()
        go_on.wait(30)
        return ""

    monkeypatch.setattr("paropt_exporter.cache.stage_cache._LOOKUP_END_SECONDS", 0.0)
    of_other_tests = threading.enumerate()
    cache = build_cache(project, find_refusal=stall)
    cache.begin_run()
    cache.look_up(slow_stage, lambda _: None)
    assert stalled.wait(30)
    (left_behind,) = [thread for thread in threading.enumerate() if thread not in of_other_tests]
    cache.end_run()
    monkeypatch.undo()
    cache.begin_run()
    cache.look_up(stage, lambda _: looked_up.set())
    assert looked_up.wait(30)
    go_on.set()
    left_behind.join(30)
    assert not left_behind.is_alive()
    cache.keep(stage, stage.tasks[0], KeptResult(succeeded=True, seconds=1.0, output="", item_seconds={}))
    cache.flush(stage, flushed.set)
    assert flushed.wait(30)
    cache.end_run()
    cache.close()
    assert project.run(stage).is_cached("lint")


def test_failed_lookup_leaves_no_lock_for_the_next_run_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = CachedProject(tmp_path / "project", tmp_path / "store", work={})
    project.write_file("src/a.py", "one")
    stage = project.build_stage("build", outputs=("dist",))
    cache = build_cache(project)
    answers: queue.SimpleQueue[StageLookup] = queue.SimpleQueue()

    def look_up() -> str:
        cache.begin_run()
        cache.look_up(stage, answers.put)
        (task,) = answers.get(timeout=30).misses.values()
        cache.end_run()
        return task.note

    with monkeypatch.context() as fault:
        fault.setattr("paropt_exporter.cache.stage_keys.read_inputs", Mock(side_effect=RuntimeError("a fault")))
        assert look_up() == "the cache failed: a fault"
    assert look_up() == "no result in the cache yet"
    cache.close()


def test_lookup_that_fails_after_a_miss_leaves_no_lock_for_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as for want of a descriptor for the module that keeps results."""
    project = CachedProject(tmp_path / "project", tmp_path / "store", work={})
    project.write_file("src/a.py", "one")
    stage = project.build_stage("build", outputs=("dist",))
    lines: list[str] = []
    caches = [build_cache(project), build_cache(project, say=lines.append)]
    answers: queue.SimpleQueue[StageLookup] = queue.SimpleQueue()
    notes = []
    for cache, keeper in zip(caches, (Mock(side_effect=OSError("a fault")), ResultKeeper), strict=True):
        monkeypatch.setattr("paropt_exporter.cache.result_keeper.ResultKeeper", keeper)
        cache.begin_run()
        cache.look_up(stage, answers.put)
        (task,) = answers.get(timeout=30).misses.values()
        notes.append(task.note)
    assert (notes, lines) == (["the cache failed: a fault", "no result in the cache yet"], [])
    for cache in caches:
        cache.end_run()
        cache.close()


def test_stage_that_has_ended_leaves_no_lock_for_another_run(tmp_path: Path) -> None:
    """The rest of its lane may run for minutes."""
    project = CachedProject(tmp_path / "project", tmp_path / "store", work={})
    project.write_file("src/a.py", "one")
    stage = project.build_stage("build", outputs=("dist",))
    lines: list[str] = []
    caches = [build_cache(project), build_cache(project, say=lines.append)]
    for cache in caches:
        cache.begin_run()
        answers: queue.SimpleQueue[StageLookup] = queue.SimpleQueue()
        cache.look_up(stage, answers.put)
        assert answers.get(timeout=30).misses
        ended = threading.Event()
        cache.flush(stage, ended.set)
        assert ended.wait(30)
    assert lines == []
    for cache in caches:
        cache.end_run()
        cache.close()


def test_checkout_behind_a_link_has_the_same_outputs(tmp_path: Path) -> None:
    project = CachedProject(tmp_path / "project", tmp_path / "store", work={})
    project.write_file("src/a.py", "one")
    (tmp_path / "link").symlink_to(project.root)
    stage = project.build_stage("build", outputs=("dist",))
    answered, waits = threading.Event(), threading.Event()
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        waits.set()

    caches = [build_cache(project, root=root, say=show) for root in (project.root, tmp_path / "link")]
    for cache, done in zip(caches, (answered, waits), strict=True):
        cache.begin_run()
        cache.look_up(stage, lambda _: answered.set())
        assert done.wait(30)
    assert lines == ["build: waits for another run of it"]
    for cache in caches:
        cache.end_run()
        cache.close()
