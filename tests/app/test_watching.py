"""Changes of a watched lane, without events of files: what a scan finds, and whom it wakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from paropt_exporter import config
from paropt_exporter.app.watching import LaneWatch
from paropt_exporter.events import Result
from paropt_exporter.plan import Selection
from paropt_exporter.testing import FakeClock
from support.event_samples import run_ended, stage_ended
from support.repositories import Repository


def make_watch(
    folder: Path,
    wake: Callable[[], None] = lambda: None,
    read_clock: Callable[[], float] = lambda: 0.0,
    say: Callable[[str], None] = lambda line: None,
) -> LaneWatch:
    return LaneWatch(
        config.read_config(folder / "paropt.yml", root=folder),
        "standard",
        Selection(),
        interrupt=lambda stale, reason: None,
        wake=wake,
        say=say,
        read_clock=read_clock,
    )


class Watched:
    """A lane of one stage that reads `src`, watched; `woken` counts how often its next run was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.woken = 0
        (folder / "src").mkdir()
        (folder / "src/a.py").write_text("one")
        (folder / "paropt.yml").write_text("stages: [{number: 1, name: lint, run: 'true', inputs: [src]}]\n")
        self.clock = FakeClock()
        self.watch = make_watch(folder, wake=self._count, read_clock=self.clock.monotonic)
        self.watch.begin_run(["lint"])

    def change(self) -> None:
        """Change a file, whose event comes at once."""
        (self.folder / "src/a.py").write_text(str(self.clock.monotonic()))
        self.watch.look(1)

    def _count(self) -> None:
        self.woken += 1


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    yield Watched(tmp_path)


def test_watchdog_654_change_whose_event_was_lost_is_found_by_the_next_scan(watched: Watched) -> None:
    watched.watch.begin_run([])
    (watched.folder / "src/a.py").write_text("two")
    (watched.folder / "src/new.py").write_text("one")
    watched.watch.look()  # as it is called each 30 s, without any event
    assert watched.woken == 1
    assert watched.watch.choose_next() == ("lint",)


def test_scan_without_a_change_starts_no_run(watched: Watched) -> None:
    watched.watch.begin_run([])
    (watched.folder / "src/a.py").write_text("one")
    watched.watch.look()
    assert watched.woken == 0


def test_single_change_starts_a_run_at_once(watched: Watched) -> None:
    for _ in range(2):
        watched.watch.begin_run(["lint"])
        watched.watch.end_run(run_ended())
        watched.clock.advance(1.5)
        watched.change()
        assert watched.watch.compute_pause() == 0


def test_changes_that_follow_others_wait_for_the_last_of_them(watched: Watched) -> None:
    """As of a script that writes 1,000 files in a few seconds."""
    watched.watch.begin_run([])
    watched.change()
    watched.clock.advance(0.2)
    watched.change()
    assert watched.watch.compute_pause() == pytest.approx(0.5)
    watched.clock.advance(0.4)
    watched.change()
    assert watched.watch.compute_pause() == pytest.approx(0.5)
    watched.clock.advance(0.5)
    assert watched.watch.compute_pause() == 0


def test_changes_without_an_end_start_a_run_every_three_seconds(watched: Watched) -> None:
    starts = list[float]()
    watched.watch.begin_run([])
    for _ in range(80):
        watched.clock.advance(0.1)
        watched.change()
        if not watched.watch.compute_pause():
            starts.append(watched.clock.monotonic())
            watched.watch.begin_run(["lint"])
            watched.watch.end_run(run_ended())
    assert [round(later - earlier) for earlier, later in pairwise(starts)] == [3, 3]


@pytest.mark.parametrize("is_seen", [False, True], ids=["unseen", "seen before the run begins"])
def test_file_that_appeared_after_the_plan_was_made_is_not_lost(watched: Watched, *, is_seen: bool) -> None:
    """As a new test file, of which the plan has no task. A look at the files may come between the plan and the run."""
    for name in ("new", "newer"):
        (watched.folder / f"src/{name}.py").write_text("one")
        if is_seen:
            watched.watch.look(1)
        watched.watch.begin_run(["lint"])
        watched.watch.end_run(run_ended())
        assert watched.watch.choose_next() == ("lint",)
    watched.watch.begin_run(["lint"])
    watched.watch.end_run(run_ended())
    assert watched.watch.choose_next() == ()


def test_files_that_each_planning_writes_do_not_start_runs_forever(watched: Watched) -> None:
    """As of an `items` command that writes a file with another name each time."""
    runs = 0
    while runs < 10 and (not runs or watched.watch.choose_next()):
        (watched.folder / f"src/new{runs}.py").write_text("one")
        watched.watch.look(1)
        watched.watch.begin_run(["lint"])
        watched.watch.end_run(run_ended())
        runs += 1
    assert runs == 4


def test_edit_before_a_run_begins_is_part_of_the_run(watched: Watched) -> None:
    (watched.folder / "src/a.py").write_text("two")
    watched.watch.begin_run(["lint"])
    watched.watch.end_run(run_ended())
    assert watched.watch.choose_next() == ()


def test_refused_config_runs_only_stages_with_a_changed_input(watched: Watched) -> None:
    watched.watch.begin_run([])
    watched.watch.press("r")
    watched.watch.begin_run(["lint"])
    (watched.folder / "paropt.yml").write_text("stages: [")
    watched.watch.look()
    assert watched.watch.reloads
    watched.watch.ignore_config_change()
    assert watched.watch.choose_next() == ()
    (watched.folder / "src/a.py").write_text("two")
    (watched.folder / "paropt.yml").write_text("stages: {")
    watched.watch.look()
    watched.watch.ignore_config_change()
    assert watched.watch.choose_next() == ("lint",)


def test_key_that_repeats_failures_says_that_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "paropt.yml").write_text("stages: [{name: lint, run: 'true'}]\n")
    said: list[str] = []
    watch = make_watch(tmp_path, say=said.append)
    watch.press("f")
    assert (watch.choose_next(), said) == (("lint",), [])
    watch.begin_run(["lint"])
    watch.end_run(run_ended(stages=(stage_ended("lint"),)))
    watch.press("f")
    assert (watch.choose_next(), said) == ((), ["all stages have passed: nothing to repeat"])


def test_key_that_repeats_failures_waits_for_the_end_of_the_run(tmp_path: Path) -> None:
    """Otherwise it repeated stages that were running, and then passed."""
    (tmp_path / "paropt.yml").write_text(
        "stages: [{number: 1, name: lint, run: 'true', inputs: [a]}, {number: 2, name: unit, run: 'true', inputs: [b]}]"
    )
    watch = make_watch(tmp_path)
    watch.begin_run(["lint", "unit"])
    watch.press("f")
    assert watch.choose_next() == ()
    watch.end_run(run_ended(stages=(stage_ended("lint", result=Result.FAILURE), stage_ended("unit"))))
    assert watch.choose_next() == ("lint",)


def test_next_run_is_explained_by_a_few_changed_files(tmp_path: Path) -> None:
    stages = ", ".join(f"{{name: s{n}, run: 'true', inputs: [{n}.txt]}}" for n in range(5))
    (tmp_path / "paropt.yml").write_text(f"stages: [{stages}]\n")
    watch = make_watch(tmp_path)
    watch.begin_run([f"s{n}" for n in range(5)])
    assert watch.describe_changes() == ""
    (tmp_path / "1.txt").write_text("new")
    watch.look(1)
    assert watch.describe_changes() == "1.txt changed"
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("newer")
    watch.look(1)
    assert watch.describe_changes() == "0.txt, 1.txt, 2.txt, … changed"
    watch.begin_run(watch.choose_next())
    assert watch.describe_changes() == ""


def test_change_of_a_stage_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    stage = "{{number: {0}, name: s{0}, run: 'true', inputs: [{0}.txt]}}"
    path = tmp_path / "paropt.yml"
    path.write_text(f"stages: [{stage.format(1)}, {stage.format(2)}]\n")
    watch = make_watch(tmp_path)
    watch.begin_run(["s1", "s2"])
    path.write_text(f"stages: [{stage.format(1)}]\n")
    watch.look(1)
    watch.reconfigure(config.read_config(path, root=tmp_path))
    assert watch.describe_changes() == "paropt.yml changed"
    watch.begin_run(watch.choose_next())
    (tmp_path / "1.txt").write_text("new")
    watch.look(1)
    assert watch.describe_changes() == "1.txt changed"


@pytest.mark.parametrize("count", [5, 6])
def test_many_stages_that_passed_are_counted(tmp_path: Path, count: int) -> None:
    stages = "".join(f"  - {{number: {n}, name: s{n}, run: 'true'}}\n" for n in range(1, count + 1))
    (tmp_path / "paropt.yml").write_text(f"stages:\n{stages}")
    watch = make_watch(tmp_path)
    ended = tuple(stage_ended(f"s{n}") for n in range(1, count + 1))
    watch.end_run(run_ended(stages=ended))
    assert watch.describe().startswith("state: s1, s2, s3, s4, s5 passed" if count == 5 else "state: 6 stages passed")


@pytest.mark.parametrize("place", ["main", "main/sub", "linked", "outer/module"])
def test_change_waits_for_the_end_of_a_git_command(tmp_path: Path, place: str) -> None:
    main = Repository(tmp_path / "main")
    main.commit(a="1")
    main.git("worktree", "add", "--quiet", str(tmp_path / "linked"))
    Repository(tmp_path / "outer").add_submodule(main, "module")
    (tmp_path / "main/sub").mkdir()
    watched = Watched(tmp_path / place)
    lock = Path(main.git("-C", str(watched.folder), "rev-parse", "--absolute-git-dir"), "index.lock")
    lock.touch()
    (watched.folder / "src/a.py").write_text("two")
    watched.watch.look()
    assert (watched.watch.choose_next(), watched.watch.waits_for_git()) == ((), True)
    lock.unlink()
    watched.watch.look()
    assert (watched.watch.choose_next(), watched.watch.waits_for_git()) == (("lint",), False)


def test_checkout_that_takes_long_starts_nothing(tmp_path: Path) -> None:
    """Each look follows events, many in a second: their number says nothing about the age of git's lock."""
    Repository(tmp_path / "project")
    watched = Watched(tmp_path / "project")
    lock = tmp_path / "project/.git/index.lock"
    lock.touch()
    for number in range(100):
        (watched.folder / "src/a.py").write_text(str(number))
        watched.watch.look(events=10)
        assert watched.watch.waits_for_git()
    assert watched.watch.choose_next() == ()
    lock.unlink()
    watched.watch.look(events=1)
    assert (watched.watch.choose_next(), watched.watch.waits_for_git()) == (("lint",), False)


def test_lock_that_a_killed_git_left_is_ignored_in_the_end_whatever_changes(tmp_path: Path) -> None:
    Repository(tmp_path / "project")
    watched = Watched(tmp_path / "project")
    (tmp_path / "project/.git/index.lock").touch()
    (watched.folder / "src/a.py").write_text("two")
    for _ in range(1001):
        watched.watch.look(events=1)
    assert (watched.watch.choose_next(), watched.watch.waits_for_git()) == (("lint",), False)


def test_lock_that_a_killed_git_left_is_ignored_after_20_scans(tmp_path: Path) -> None:
    Repository(tmp_path / "project")
    watched = Watched(tmp_path / "project")
    (tmp_path / "project/.git/index.lock").touch()
    (watched.folder / "src/a.py").write_text("two")
    for _ in range(20):
        watched.watch.look()
        assert watched.watch.waits_for_git()
    watched.watch.look()
    assert (watched.watch.choose_next(), watched.watch.waits_for_git()) == (("lint",), False)
    watched.watch.begin_run([])
    (watched.folder / "src/a.py").write_text("three")
    watched.watch.look(events=1)
    assert (watched.watch.choose_next(), watched.watch.waits_for_git()) == (("lint",), False)


def test_stages_skipped_behind_a_failed_one_run_again_with_it(tmp_path: Path) -> None:
    needs = {"a": (), "b": ("a",), "c": ("b",), "d": ("c", "b"), "other": (), "last": ("d", "other")}
    stages = "".join(
        f"  - {{number: {number}, name: {name}, run: 'true', needs: {[*wanted]}, inputs: [{name}.txt]}}\n"
        for number, (name, wanted) in enumerate(needs.items(), 1)
    )
    (tmp_path / "paropt.yml").write_text(f"stages:\n{stages}")
    watch = make_watch(tmp_path)
    watch.begin_run(needs)
    ended = [
        msgspec.structs.replace(stage_ended(name, result=Result.SKIP), message=f"needs {wanted[0]}")
        if wanted
        else stage_ended(name, result=Result.FAILURE)
        for name, wanted in needs.items()
    ]
    watch.end_run(run_ended(stages=tuple(ended)))
    assert watch.choose_next() == ()
    (tmp_path / "a.txt").write_text("two")
    watch.look()
    assert watch.choose_next() == ("a", "b", "c", "d")  # not `last`: `other` has not passed


def test_stage_skipped_for_a_need_of_a_stage_that_had_passed_runs_again_with_it(tmp_path: Path) -> None:
    """Of a -> b -> c, only a and c ran, and a failed."""
    needs = {"a": "", "b": "a", "c": "b"}
    stages = "".join(
        f"  - {{number: {number}, name: {name}, run: 'true', needs: [{wanted}], inputs: [{name}.txt]}}\n"
        for number, (name, wanted) in enumerate(needs.items(), 1)
    )
    (tmp_path / "paropt.yml").write_text(f"stages:\n{stages}")
    watch = make_watch(tmp_path)
    watch.begin_run(needs)
    watch.end_run(run_ended(stages=tuple(map(stage_ended, needs))))
    watch.begin_run("ac")
    skipped = msgspec.structs.replace(stage_ended("c", result=Result.SKIP), message="needs a")
    watch.end_run(run_ended(stages=(stage_ended("a", result=Result.FAILURE), skipped)))
    assert watch.choose_next() == ()
    (tmp_path / "a.txt").write_text("two")
    watch.look()
    assert watch.choose_next() == ("a", "c")


def test_stages_that_fail_fast_stopped_run_with_the_next_change(tmp_path: Path) -> None:
    stages = {
        "lint": ("", Result.FAILURE), "unit": ("", Result.CANCELLATION), "e2e": ("unit", Result.SKIP),
        "deploy": ("lint", Result.SKIP), "types": ("", Result.SUCCESS),
    }  # fmt: skip
    lines = "".join(
        f"  - {{number: {number}, name: {name}, run: 'true', needs: [{need}], inputs: [{name}.txt]}}\n"
        for number, (name, (need, _)) in enumerate(stages.items(), 1)
    )
    (tmp_path / "paropt.yml").write_text(f"stages:\n{lines}")
    watch = make_watch(tmp_path)
    watch.begin_run(stages)
    ended = [stage_ended(name, result=result) for name, (_, result) in stages.items()]
    stopped = [msgspec.structs.replace(stage, message="fail-fast: lint failed") for stage in ended]
    watch.end_run(run_ended(stages=tuple(stopped)))
    assert watch.choose_next() == ()  # the failed stage has not changed
    (tmp_path / "unit.txt").write_text("two")
    watch.look()
    assert watch.choose_next() == ("unit", "e2e")  # without the failed stage, which would stop them again
    (tmp_path / "lint.txt").write_text("two")
    watch.look()
    assert watch.choose_next() == ("lint", "unit", "e2e", "deploy")


def test_stage_that_changes_its_own_input_in_each_run_waits_for_another_change(tmp_path: Path) -> None:
    """A run without such a change between them begins the count again."""
    watched, said = Watched(tmp_path), list[str]()
    watched.watch = make_watch(tmp_path, say=said.append)
    for number, changes in enumerate((True, True, False, True, True, True, True)):
        assert not said
        watched.watch.begin_run(["lint"])
        if changes:
            (tmp_path / "src/a.py").write_text(f"run {number}")
        watched.watch.end_run(run_ended())
        assert watched.watch.choose_next() == (("lint",) if changes and number < 6 else ())
    (line,) = said
    assert line.startswith("--watch: src/a.py changed during 4 runs of lint in a row")


def test_changed_stage_runs_after_the_stages_that_it_needs_unless_these_have_passed(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("one")
    (tmp_path / "paropt.yml").write_text(
        "stages:\n"
        "  - {number: 1, name: build, run: 'true', inputs: [lib]}\n"
        "  - {number: 2, name: unit, run: 'true', inputs: [src], needs: [build]}\n"
    )
    watch = make_watch(tmp_path)
    for build, chosen in ((Result.FAILURE, ("build", "unit")), (Result.SUCCESS, ("unit",))):
        watch.begin_run(["build"])
        watch.end_run(run_ended(stages=(stage_ended("build", result=build),)))
        (tmp_path / "src/a.py").write_text(f"after a {build}")
        watch.look(1)
        assert watch.choose_next() == chosen
