"""Registrations: files that survive `serve`, and histories that are read again only if they changed."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest

from paropt_exporter import families
from paropt_exporter.aggregation import Totals
from paropt_exporter.clock import SystemClock
from paropt_exporter.history import History
from paropt_exporter.metrics import LaneLabels
from paropt_exporter.serve import registry as registry_module
from paropt_exporter.serve.link import find_registration
from paropt_exporter.serve.merging import to_number
from paropt_exporter.serve.messages import Registration
from paropt_exporter.serve.registry import CheckoutState, RegisteredProject, Registry, refresh_checkouts
from support.event_samples import START, run_ended, run_started


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "project" / ".paropt" / "history.db"
    with closing(History(path, project="shop", clock=SystemClock())) as opened:
        opened.observe(run_started())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "projects").mkdir(mode=0o700)
    return tmp_path / "projects"


def register(history: Path, *lanes: str) -> Registration:
    labels = tuple(LaneLabels(lane=lane, stages=()) for lane in lanes)
    return Registration(project="shop", root=str(history.parent), history=str(history), lanes=labels)


def test_registration_survives_a_restart_with_the_lanes_of_all_runs(folder: Path, history: Path) -> None:
    first = Registry(folder)
    first.register(register(history, "fast"))
    first.register(register(history, "heavy"))
    (project,) = Registry(folder).projects.values()
    assert [lane.lane for lane in project.registration.lanes] == ["fast", "heavy"]
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_project_without_a_history_is_forgotten_after_a_week(
    folder: Path, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week without it, that is, however long it was there before."""
    began = time.time()

    def start(day: float) -> Registry:
        monkeypatch.setattr(time, "time", lambda: began + day * 86_400)
        return Registry(folder)

    start(0).register(register(history, "fast"))
    unmounted = history.with_name("unmounted")
    history.rename(unmounted)
    assert len(start(30).projects) == 1
    assert len(start(36).projects) == 1
    registry = start(36)
    unmounted.rename(history)
    assert refresh_all(registry) == 0
    registry.store_changes()
    history.rename(unmounted)
    assert len(start(60).projects) == 1
    assert len(start(66).projects) == 1
    assert start(68).projects == {}
    assert list(folder.iterdir()) == []


def register_two_checkouts(folder: Path, tmp_path: Path) -> Registry:
    """Return a registry of the checkouts `one` and `other`, each with two runs."""
    registry = Registry(folder)
    for number, name in enumerate(("one", "other", "one", "other")):
        history = tmp_path / name / ".paropt" / "history.db"
        record_run(history, f"run-{number}")
        registry.register(register(history, "fast"))
    return registry


def test_checkout_that_joined_others_at_a_page_has_joined_after_a_restart(folder: Path, tmp_path: Path) -> None:
    registry = register_two_checkouts(folder, tmp_path)
    (tmp_path / "one").rename(tmp_path / "unmounted")
    registry = Registry(folder)
    assert refresh_all(registry) == 1
    (tmp_path / "unmounted").rename(tmp_path / "one")
    assert refresh_all(registry) == 1
    registry.store_changes()
    assert refresh_all(Registry(folder)) == 1


def test_checkout_that_was_missing_at_the_start_counts_as_before_or_joins_others(folder: Path, tmp_path: Path) -> None:
    """Its disk was not mounted yet. Beside another checkout, its earlier runs would count as new."""
    registry = register_two_checkouts(folder, tmp_path)
    assert refresh_all(registry) == 3  # the first one of the other was before it joined
    for missing, before, after in (({"one", "other"}, 0, 3), ({"one"}, 1, 1)):
        for name in missing:
            (tmp_path / name).rename(tmp_path / f"{name}.unmounted")
        registry = Registry(folder)
        assert refresh_all(registry) == before
        for name in missing:
            (tmp_path / f"{name}.unmounted").rename(tmp_path / name)
        assert refresh_all(registry) == after
    history = tmp_path / "one" / ".paropt" / "history.db"
    record_run(history, "later")
    assert refresh_all(registry) == 2
    registry.register(register(history, "fast"))
    assert refresh_all(Registry(folder)) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"project": "", "root": "", "history": ""}', b"\xff" * 100, b"[" * 100_000,
        b'{"project": "a", "root": "", "history": "/a\\u0000b"}',
    ],
)  # fmt: skip
def test_files_that_are_no_registrations_are_ignored(folder: Path, history: Path, content: bytes) -> None:
    Registry(folder).register(register(history, "fast"))
    (folder / "a.json").write_bytes(content)
    assert len(Registry(folder).projects) == 1
    assert (folder / "a.json").read_bytes() == content


def test_links_pipes_folders_and_files_of_others_are_ignored(folder: Path, history: Path) -> None:
    Registry(folder).register(register(history, "fast"))
    (good,) = folder.iterdir()
    kept = folder.with_name("kept")
    good.rename(kept)
    (folder / "link.json").symlink_to(kept)
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (folder / "second-name.json").hardlink_to(kept)
    assert Registry(folder).projects == {}


def test_folder_that_takes_no_file_costs_only_the_memory_of_it(folder: Path, history: Path) -> None:
    registry = Registry(folder)
    folder.rmdir()
    project = registry.register(register(history, "fast"))
    assert registry.projects == {project.key: project}


@pytest.mark.parametrize("changed_at", [1, int(time.time()) + 3600], ids=["long ago", "before the clock was set back"])
def test_history_is_read_again_only_after_a_change(history: Path, changed_at: int) -> None:
    os.utime(history, (changed_at, changed_at))
    project = RegisteredProject(register(history, "fast"))
    project.refresh()
    read = project.revision
    project.refresh()
    assert (project.revision, project.fault) == (read, "")
    with closing(History(history, project="shop", clock=SystemClock())) as opened:
        opened.mark_interrupted_runs()
    project.refresh()
    counted = sum(value for (name, _), value in project.values.totals.counters.items() if name == families.RUNS.name)
    assert counted == 1


def test_change_in_the_log_of_a_linked_history_is_read(history: Path, tmp_path: Path) -> None:
    with closing(History(history, project="shop", clock=SystemClock())):
        pass
    os.utime(history, (1, 1))
    link = tmp_path / "history.db"
    link.symlink_to(history)
    project = RegisteredProject(find_registration("shop", tmp_path, link, (), {}))
    project.refresh()
    with closing(History(history, project="shop", clock=SystemClock())) as opened:
        opened.mark_interrupted_runs()
        project.refresh()
    assert count_runs(project) == 1


def test_checkout_has_one_registration_by_whatever_path_it_was_reached(folder: Path, tmp_path: Path) -> None:
    checkout, link = tmp_path / "checkout", tmp_path / "link"
    checkout.mkdir()
    link.symlink_to(checkout)
    registry = Registry(folder)
    for root in (checkout, link, checkout / ".." / "checkout"):
        registry.register(find_registration("shop", root, root / ".paropt" / "history.db", (), {}))
        registry.register(find_registration("shop", root, root / ".." / "shared.db", (), {}))
    histories = [checkout / ".paropt" / "history.db", tmp_path / "shared.db"]
    assert sorted(registry.projects) == sorted(("shop", str(path)) for path in histories)


def test_link_in_a_checkouts_own_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".paropt").symlink_to("/elsewhere")
    history = tmp_path / ".paropt" / "history.db"
    assert find_registration("shop", tmp_path, history, (), {}).history == str(history)


def test_history_that_is_gone_or_foreign_keeps_the_last_values(history: Path) -> None:
    with closing(History(history, project="shop", clock=SystemClock())) as opened:
        opened.mark_interrupted_runs()
    project = RegisteredProject(register(history, "fast"))
    project.refresh()
    values = project.values
    for part in history.parent.glob("history.db*"):
        part.unlink()
    project.refresh()
    assert project.values == values
    assert "no history yet" in project.fault
    history.write_text("no database")
    project.refresh()
    assert project.values == values
    assert "not a database" in project.fault


def test_unexpected_error_of_one_history_is_a_fault_of_its_project(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was one of the whole page, so that no project had any series."""

    def fail(_: History) -> Totals:
        raise ValueError("not a total")

    monkeypatch.setattr(History, "load_totals", fail)
    project = RegisteredProject(register(history, "fast"))
    project.refresh()
    assert project.fault == "ValueError: not a total"


def test_deleted_checkout_keeps_its_last_values_and_is_no_fault(history: Path) -> None:
    project = RegisteredProject(register(history, "fast"))
    project.refresh()
    values = project.values
    shutil.rmtree(history.parent)
    project.refresh()
    assert project.values == values
    assert project.fault == ""


def test_checkout_with_an_unusable_path_is_a_fault(tmp_path: Path) -> None:
    root = tmp_path / ("x" * 300)  # as without permission for its parent, which tests of root always have
    project = RegisteredProject(register(root / "history.db", "fast"))
    project.refresh()
    assert project.fault


def count_runs(project: RegisteredProject) -> float:
    counters = project.values.totals.counters
    return sum(value for (name, _), value in counters.items() if name == families.RUNS.name)


def record_run(history: Path, run_id: str, *, at: float = START) -> None:
    """Record a run that was killed."""
    with closing(History(history, project="shop", clock=SystemClock())) as opened:
        opened.observe(run_started(run_id=run_id, at=at))
    with closing(History(history, project="shop", clock=SystemClock())) as opened:
        opened.mark_interrupted_runs()


def test_totals_of_a_history_that_begins_again_are_added_to_the_earlier_ones(tmp_path: Path) -> None:
    """`git clean -fdx` removes a history; other checkouts of the project are in the same sum."""
    history = tmp_path / "shop" / ".paropt" / "history.db"
    project = RegisteredProject(register(history, "fast"))
    total = 0
    for runs in (1, 2, 1):
        for _ in range(runs):
            total += 1
            record_run(history, f"run-{total}")
        project.refresh()
        assert count_runs(project) == total
        shutil.rmtree(history.parent)
        project.refresh()
        assert count_runs(project) == total


def describe_last_run(project: RegisteredProject) -> tuple[int, str] | None:
    last = project.values.last_run
    return None if last is None else (last.sequence, last.run_id)


def test_history_of_a_run_in_progress_is_read_once(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one takes a second; each event changes it."""
    reads = list[History]()
    with closing(History(history, project="shop", clock=SystemClock())) as running:
        running.observe(run_started(run_id="live"))
        load = History.load_totals

        def load_between_changes(opened: History) -> Totals:
            totals = load(opened)
            running.observe(run_ended(run_id=f"live-{len(reads)}"))
            reads.append(opened)
            return totals

        monkeypatch.setattr(History, "load_totals", load_between_changes)
        project = RegisteredProject(register(history, "fast"))
        project.refresh()
        assert (len(reads), describe_last_run(project)) == (1, (2, "live"))  # the moment before the change
        project.refresh()
        assert (len(reads), describe_last_run(project)) == (2, (3, "live-0"))


def test_history_that_seems_another_one_while_it_changes_is_read_again(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read without locks may see half of a change."""

    def change(*_: object) -> bool:
        os.utime(history)
        return False

    project = RegisteredProject(register(history, "fast"))
    record_run(history, "known")
    project.refresh()
    total = count_runs(project)
    with monkeypatch.context() as patched:
        patched.setattr(History, "has_held_run", change)
        os.utime(history)
        project.refresh()
        assert count_runs(project) == total
    project.refresh()
    assert count_runs(project) == total


def test_runs_that_are_removed_for_their_age_make_no_other_history(history: Path) -> None:
    record_run(history, "known")
    project = RegisteredProject(register(history, "fast"))
    project.refresh()
    known = count_runs(project)
    with closing(History(history, project="shop", clock=SystemClock(), keep_runs=1)) as opened:
        opened.observe_all((run_started(run_id="next"), run_ended(run_id="next")))
        assert opened.find_run("known") is None
    project.refresh()
    assert count_runs(project) == known + 1


def test_long_history_is_not_that_of_a_deleted_checkout(folder: Path, tmp_path: Path) -> None:
    """It no longer has the runs of the time at which the deleted one had only a few."""
    long, short = (tmp_path / name / ".paropt" / "history.db" for name in ("long", "short"))
    for history, at in ((long, START), (short, START + 100)):
        with closing(History(history, project="shop", clock=SystemClock(), keep_runs=2)) as opened:
            for number in range(4 if history is long else 1):
                run_id = f"{history.parent.parent.name}-{number}"
                opened.observe_all((run_started(run_id, at=at + number), run_ended(run_id, at=at + number)))
    registry = Registry(folder)
    registry.register(register(short, "fast"))
    assert refresh_all(registry) == 1
    shutil.rmtree(short.parent)
    registry.register(register(long, "fast"))
    assert refresh_all(registry) == 1
    record_run(long, "next")
    assert refresh_all(registry) == 2


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("mounted", [False, True])
def test_first_run_of_a_checkout_that_is_back_after_the_start_counts(
    folder: Path, tmp_path: Path, *, joined: bool, mounted: bool
) -> None:
    """As of a CI job in a folder of an earlier one: its run was left out as one from before it joined the others."""
    one, other = (tmp_path / name / ".paropt" / "history.db" for name in ("one", "other"))
    registry = Registry(folder)
    for number, history in enumerate((other, one) if joined else (one, other)):
        record_run(history, f"run-{number}")
        registry.register(register(history, "fast"))
    (tmp_path / "one").rename(tmp_path / "unmounted")
    registry = Registry(folder)
    before = refresh_all(registry)
    if mounted:
        (tmp_path / "unmounted").rename(tmp_path / "one")
    else:
        one.parent.mkdir(parents=True)
        History(one, project="shop", clock=SystemClock()).close()
    registry.register(register(one, "fast"))
    record_run(one, "again")
    assert refresh_all(registry) == before + 1
    assert refresh_all(Registry(folder)) == before + 1


def refresh_all(registry: Registry) -> float:
    """Read all histories; return the runs of all checkouts together."""
    checkouts = tuple(registry.projects.values())
    refresh_checkouts(checkouts)
    return sum(count_runs(project) for project in checkouts if project.is_known)


@pytest.mark.parametrize("scraped", [True, False])
def test_runs_that_a_copied_checkout_shares_count_once(folder: Path, tmp_path: Path, scraped: bool) -> None:
    one, other = (tmp_path / name / ".paropt" / "history.db" for name in ("one", "other"))
    for number in range(3):
        record_run(one, f"shared-{number}")
    registry = Registry(folder)
    registry.register(register(one, "fast"))
    if scraped:
        assert refresh_all(registry) == 3
    shutil.copytree(one.parent, other.parent)
    record_run(one, "of-one")
    record_run(other, "before-it-joins")
    registry.register(register(other, "fast"))
    record_run(other, "of-the-other")
    assert refresh_all(registry) == 5
    assert refresh_all(Registry(folder)) == 5
    shutil.rmtree(other.parent)
    record_run(other, "of-a-clean-checkout")
    assert refresh_all(registry) == 6
    assert refresh_all(Registry(folder)) == 5  # without the runs of the history that was removed


@pytest.mark.parametrize("later", ["", "of-one", "of-the-other"])
def test_history_that_is_replaced_by_a_siblings_copy_counts_the_siblings_runs_once(
    folder: Path, tmp_path: Path, later: str
) -> None:
    one, other = (tmp_path / name / ".paropt" / "history.db" for name in ("one", "other"))
    registry = Registry(folder)
    for number, history in enumerate((one, other, one, other)):
        record_run(history, f"run-{number}")
        registry.register(register(history, "fast"))
        refresh_all(registry)
    total = refresh_all(registry)
    shutil.copy(one, other)
    if later:
        record_run(one if later == "of-one" else other, later)
        total += later == "of-one"  # what a checkout has run before it joins others does not count
    assert refresh_all(registry) == total
    record_run(other, "next")
    registry.register(register(other, "fast"))
    assert refresh_all(registry) == total + 1
    restarted = refresh_all(Registry(folder))
    record_run(other, "after-the-restart")
    assert refresh_all(Registry(folder)) == restarted + 1


def restore(history: Path, cache: Path) -> None:
    """Replace the folder of a history by the cached one, if there is one, as a job of CI does."""
    shutil.rmtree(history.parent, ignore_errors=True)
    if cache.exists():
        shutil.copytree(cache, history.parent)


@pytest.mark.parametrize("scraped", [True, False])
def test_runs_of_a_history_that_a_job_restores_from_a_cache_count_once(
    folder: Path, tmp_path: Path, *, scraped: bool
) -> None:
    """Each job of a pull request restores the history of the main branch, and none saves its own."""
    history, cache = tmp_path / "work" / ".paropt" / "history.db", tmp_path / "cache"
    registry = Registry(folder)
    for number, saves in enumerate((True, True, False, False, True, False), 1):
        restore(history, cache)
        if scraped:
            refresh_all(registry)
        registry.register(register(history, "fast"))
        record_run(history, f"run-{number}", at=START + number)
        if saves:
            shutil.copytree(history.parent, cache, dirs_exist_ok=True)
        assert refresh_all(registry) == number

    restore(history, cache)
    restarted = Registry(folder)
    before = refresh_all(restarted)
    record_run(history, "after-the-restart", at=START + 10)
    assert refresh_all(restarted) == before + 1


def test_runs_of_an_old_backup_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their ids are forgotten by then."""
    monkeypatch.setattr(registry_module, "_MOST_RUN_IDS", 1)
    history, backup = tmp_path / "shop" / ".paropt" / "history.db", tmp_path / "backup"
    project = RegisteredProject(register(history, "fast"))
    record_run(history, "old", at=START)
    shutil.copytree(history.parent, backup)
    for number in (1, 2):
        record_run(history, f"run-{number}", at=START + number)
        project.refresh()
    restore(history, backup)
    project.refresh()
    assert count_runs(project) == 3


@pytest.mark.parametrize("scraped", [True, False])
def test_runs_that_checkouts_of_one_host_pass_on_by_a_cache_count_once(
    folder: Path, tmp_path: Path, *, scraped: bool
) -> None:
    """Two runners take turns with the history of the main branch."""
    cache, registry = tmp_path / "cache", Registry(folder)
    for number, name in enumerate(("one", "other") * 3, 1):
        history = tmp_path / name / ".paropt" / "history.db"
        restore(history, cache)
        if scraped:
            refresh_all(registry)
        registry.register(register(history, "fast"))
        record_run(history, f"run-{number}", at=START + number)
        if scraped:
            assert refresh_all(registry) == number
        shutil.copytree(history.parent, cache, dirs_exist_ok=True)
    assert refresh_all(registry) == 6


def test_checkout_that_was_moved_counts_once(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    places = [tmp_path / name for name in ("a", "b")]
    for number, place in enumerate((*places, places[0]), 1):
        if number > 1:
            next(each for each in places if each != place).rename(place)
        history = place / ".paropt" / "history.db"
        record_run(history, f"run-{number}")
        registry.register(Registration(project="shop", root=str(place), history=str(history)))
        checkouts = tuple(registry.projects.values())
        for project in checkouts:
            project.refresh(checkouts)
        assert sum(map(count_runs, checkouts)) == number


def run_jobs(registry: Registry, folder: Path, *numbers: int, name: str = "run") -> None:
    """Record a run in a new checkout for each number, and delete the checkout after a page."""
    for number in numbers:
        history = folder / f"job-{number}" / ".paropt" / "history.db"
        project = registry.register(register(history, f"lane-{number}"))
        record_run(history, f"{name}-{number}")
        refresh_all(registry)
        registry.keep_counters(project, {(families.CONFIG_RELOADS.name, ("success",)): 1.0})
        shutil.rmtree(history.parent)


def test_many_deleted_checkouts_are_known_as_a_few(folder: Path, tmp_path: Path) -> None:
    """A job that made a checkout of its own took 115 KB of `serve`, and 0.1 ms of each page, until it restarted."""
    registry = Registry(folder, most_deleted=2)
    run_jobs(registry, tmp_path, 0, 1, 2, 3, 4)
    registry.merge_deleted(())
    assert refresh_all(registry) == 5
    assert [project.registration.root for project in registry.projects.values()] == [
        str(tmp_path / f"job-{number}" / ".paropt") for number in (3, 4)
    ]
    lanes = {lane.lane for project in registry.projects.values() for lane in project.registration.lanes}
    assert lanes == {f"lane-{number}" for number in range(5)}
    stored = Registry(folder).projects.values()
    for projects in (registry.projects.values(), stored):
        assert sum(sum(map(to_number, project.ended.values())) for project in projects) == 5
    run_jobs(registry, tmp_path, 0, 3, name="later")
    registry.merge_deleted(())
    assert refresh_all(registry) == 7
    assert len(registry.projects) == 2


def test_deleted_checkout_with_a_run_is_known_apart(folder: Path, tmp_path: Path) -> None:
    registry = Registry(folder, most_deleted=1)
    run_jobs(registry, tmp_path, 0, 1, 2)
    first = next(iter(registry.projects.values()))
    registry.merge_deleted([first])
    assert first in registry.projects.values()
    assert refresh_all(registry) == 3


def move_checkout(registry: Registry, tmp_path: Path, name: str, other: str) -> None:
    """Move a checkout, run it at its new path, and make a page."""
    (tmp_path / name).rename(tmp_path / other)
    history = tmp_path / other / ".paropt" / "history.db"
    registry.register(Registration(project="shop", root=str(tmp_path / other), history=str(history)))
    record_run(history, f"run-{other}")
    refresh_all(registry)


def start_checkout(registry: Registry, tmp_path: Path, name: str) -> RegisteredProject:
    """Register a checkout with a run, whose process has ended."""
    history = tmp_path / name / ".paropt" / "history.db"
    record_run(history, f"run-{name}")
    project = registry.register(Registration(project="shop", root=str(tmp_path / name), history=str(history)))
    refresh_all(registry)
    registry.keep_counters(project, {(families.CONFIG_RELOADS.name, ("success",)): 1.0})
    return project


def count_ended(registry: Registry) -> float:
    return sum(sum(map(to_number, project.ended.values())) for project in registry.projects.values())


def test_counters_of_a_moved_checkout_stay_in_the_sum(folder: Path, tmp_path: Path) -> None:
    registry = Registry(folder)
    start_checkout(registry, tmp_path, "a")
    move_checkout(registry, tmp_path, "a", "b")
    registry.merge_deleted(())
    assert [name_checkout(project) for project in registry.projects.values()] == ["b"]
    assert (refresh_all(registry), count_ended(registry)) == (2, 1)
    assert (refresh_all(Registry(folder)), count_ended(Registry(folder))) == (2, 1)


def test_counters_of_a_checkout_that_was_moved_during_a_run_stay_in_the_sum(folder: Path, tmp_path: Path) -> None:
    """It stays registered until the run has ended, and the other one may have been moved or merged by then."""
    registry = Registry(folder, most_deleted=1)
    moved = start_checkout(registry, tmp_path, "a")
    move_checkout(registry, tmp_path, "a", "b")
    move_checkout(registry, tmp_path, "b", "c")
    start_checkout(registry, tmp_path, "d")
    registry.merge_deleted([moved])
    assert [name_checkout(project) for project in registry.projects.values()] == ["a", "c", "d"]
    for name in ("c", "d"):
        shutil.rmtree(tmp_path / name)
    registry.merge_deleted([moved])
    assert [name_checkout(project) for project in registry.projects.values()] == ["a", "d"]
    registry.merge_deleted(())
    assert [name_checkout(project) for project in registry.projects.values()] == ["d"]
    assert (refresh_all(registry), count_ended(registry)) == (3, 2)  # the run of d was before it joined


def name_checkout(project: RegisteredProject) -> str:
    return Path(project.registration.root).name


def test_moved_checkout_that_had_joined_others_counts_the_same_after_a_restart(folder: Path, tmp_path: Path) -> None:
    registry = Registry(folder)
    for name in ("a", "b"):  # b joins a, and its first run does not count
        start_checkout(registry, tmp_path, name)
    record_run(tmp_path / "b" / ".paropt" / "history.db", "counts")
    assert refresh_all(registry) == 2
    move_checkout(registry, tmp_path, "b", "c")
    registry.merge_deleted(())
    assert refresh_all(registry) == 3
    assert refresh_all(Registry(folder)) == 3


def test_new_history_at_the_path_of_a_moved_checkout_counts_from_its_next_run(folder: Path, tmp_path: Path) -> None:
    """The moved one is still registered there, for a run that has not ended."""
    registry = Registry(folder)
    moved = start_checkout(registry, tmp_path, "a")
    move_checkout(registry, tmp_path, "a", "b")
    shutil.copytree(tmp_path / "b", tmp_path / "a")
    registry.merge_deleted([moved])
    assert (refresh_all(registry), moved.state) == (2, CheckoutState.MOVED)
    assert registry.register(moved.registration) is moved
    record_run(Path(moved.registration.history), "again")
    assert (refresh_all(registry), count_ended(registry)) == (3, 1)


def test_registration_that_a_full_disk_refused_is_written_with_the_next_page(folder: Path, history: Path) -> None:
    registry = Registry(folder)
    folder.rmdir()
    registry.register(register(history, "fast"))
    folder.mkdir(mode=0o700)
    registry.store_changes()
    assert len(Registry(folder).projects) == 1
