"""StageCollector exports the stages of a pool on a program's own registry, and records its runs in a history."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from paropt_exporter import AdaptiveWorkerPool, ParallelizationStrategy, StageCollector, ThreadPool
from paropt_exporter.clock import SystemClock
from paropt_exporter.events import Result
from paropt_exporter.history import History
from paropt_exporter.history.summaries import RunSummary
from support import real_servers
from support.in_process import call_command
from support.processes import run_in_forked_child

HANG_SECONDS = 60.0
LANE = {"project": "shop", "lane": "nightly"}


def place(stage: str, **labels: str) -> dict[str, str]:
    return {**LANE, "stage": stage, **labels}


def export(pool: AdaptiveWorkerPool, history: Path | None = None) -> tuple[CollectorRegistry, StageCollector]:
    registry = CollectorRegistry()
    collector = StageCollector(pool, project="shop", lane="nightly", history=history)
    registry.register(collector)
    return registry, collector


def read_runs(path: Path) -> tuple[RunSummary, ...]:
    with closing(History(path, project="shop", clock=SystemClock(), for_reading=True)) as history:
        return history.load_runs()


@pytest.fixture
def pool() -> Iterator[AdaptiveWorkerPool]:
    with AdaptiveWorkerPool(ParallelizationStrategy.THREAD_POOL, 2) as pool:
        yield pool


def test_pool_without_stages_is_refused_before_the_history_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with ThreadPool(1) as threads, pytest.raises(TypeError, match="has no stages: expected an AdaptiveWorkerPool"):
        StageCollector(threads, project="shop", lane="nightly", history=path)  # type: ignore[arg-type]
    assert not path.exists()


def test_history_may_be_a_string(pool: AdaptiveWorkerPool, tmp_path: Path) -> None:
    StageCollector(pool, project="shop", lane="nightly", history=f"{tmp_path}/history.db").close()
    assert read_runs(tmp_path / "history.db") == ()


def test_stages_of_a_run_reach_the_page(pool: AdaptiveWorkerPool) -> None:
    registry, _ = export(pool)
    pool.submit_stage(2, "load", sum, [1, 2])
    pool.submit_stage(2, "load", sum, [3, 4])
    pool.submit_stage(3, "parse", int, "nine")
    assert not pool.wait_all(HANG_SECONDS)[0]
    read = registry.get_sample_value
    assert read("paropt_stage_runs_total", place("load", result="success")) == 1
    assert read("paropt_stage_runs_total", place("parse", result="failure")) == 1
    assert read("paropt_stage_runs_total", place("parse", result="success")) == 0
    assert read("paropt_task_attempts_total", place("load", result="success")) == 2
    assert read("paropt_stage_duration_seconds_count", place("load")) == 1
    assert read("paropt_stage_last_result", place("parse", result="failure")) == 1
    assert read("paropt_runs_total", {**LANE, "result": "failure"}) == 1
    assert read("paropt_run_tasks_total", LANE) == 3
    assert read("paropt_run_in_progress", LANE) == 0
    assert read("paropt_stage_info", place("load", number="2", pool="threads")) == 1
    assert read("paropt_run_last_success_timestamp_seconds", LANE) is None


def test_running_stage_is_on_the_page_before_its_run_ends(pool: AdaptiveWorkerPool) -> None:
    registry, _ = export(pool)
    release = threading.Event()
    waiting = pool.submit_stage(2, "load", release.wait, HANG_SECONDS)
    pool.submit_stage(2, "load", int).result(HANG_SECONDS)
    read = registry.get_sample_value
    assert read("paropt_run_in_progress", LANE) == 1
    assert read("paropt_stage_running", place("load")) == 1
    assert read("paropt_stage_progress_ratio", place("load")) == 0.5
    assert read("paropt_task_attempts_total", place("load", result="success")) == 1
    assert read("paropt_stage_runs_total", place("load", result="success")) == 0
    release.set()
    assert waiting.result(HANG_SECONDS)
    assert read("paropt_stage_running", place("load")) == 0
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    assert read("paropt_stage_runs_total", place("load", result="success")) == 1


def test_wait_that_times_out_leaves_the_run_open(pool: AdaptiveWorkerPool) -> None:
    registry, _ = export(pool)
    release = threading.Event()
    pool.submit_stage(2, "load", release.wait, HANG_SECONDS)
    assert not pool.wait_all(timeout=0)[0]
    assert registry.get_sample_value("paropt_run_in_progress", LANE) == 1
    release.set()
    assert pool.wait_all(HANG_SECONDS)[0]
    assert registry.get_sample_value("paropt_runs_total", {**LANE, "result": "success"}) == 1


def test_each_wait_ends_a_run_in_the_history(tmp_path: Path, pool: AdaptiveWorkerPool) -> None:
    path = tmp_path / ".paropt/history.db"
    _, collector = export(pool, path)
    for numbers in ([1, 2], [3, "x"]):
        for number in numbers:
            pool.submit_stage(2, "load", abs, number)  # type: ignore[arg-type]  # one of them fails
        pool.wait_all(HANG_SECONDS)
    good, bad = read_runs(path)
    assert (good.lane, good.strategy, good.result) == ("nightly", "thread", Result.SUCCESS)
    assert [(stage.stage, stage.number, stage.tasks, stage.result) for stage in good.stages] == [
        ("load", 2, 2, Result.SUCCESS)
    ]
    assert (bad.result, bad.reason, bad.stages[0].tasks_failed) == (Result.FAILURE, "load failed", 1)
    assert "bad operand type" in bad.stages[0].message
    collector.close()


def test_totals_continue_in_the_next_program(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    for count in (1, 2):
        with AdaptiveWorkerPool(ParallelizationStrategy.THREAD_POOL, 1) as pool:
            registry, collector = export(pool, path)
            assert registry.get_sample_value("paropt_runs_total", {**LANE, "result": "success"}) == count - 1
            pool.submit_stage(2, "load", int)
        total = registry.get_sample_value("paropt_stage_runs_total", place("load", result="success"))
        assert total == count
        collector.close()
    assert len(read_runs(path)) == 2


def test_shutdown_without_waiting_ends_the_run_with_its_last_task(tmp_path: Path) -> None:
    pool = AdaptiveWorkerPool(ParallelizationStrategy.THREAD_POOL, 1)
    _, collector = export(pool, tmp_path / "history.db")
    release = threading.Event()
    last = pool.submit_stage(2, "load", release.wait, HANG_SECONDS)
    pool.shutdown(wait=False)
    release.set()
    assert last.result(HANG_SECONDS)
    pool.shutdown()
    collector.close()
    (run,) = read_runs(tmp_path / "history.db")
    assert run.result is Result.SUCCESS


def test_task_that_a_process_ran_has_its_cpu_time_on_the_page() -> None:
    with AdaptiveWorkerPool(ParallelizationStrategy.PROCESS_POOL, 1) as pool:
        registry, _ = export(pool)
        pool.submit_stage(4, "sum", sum, range(1_000_000))
        assert pool.wait_all(HANG_SECONDS)[0]
    assert registry.get_sample_value("paropt_stage_info", place("sum", number="4", pool="processes")) == 1
    assert (registry.get_sample_value("paropt_stage_cpu_seconds_total", place("sum")) or 0) > 0


def test_cancelled_task_ends_its_run_as_cancelled(tmp_path: Path) -> None:
    with AdaptiveWorkerPool(ParallelizationStrategy.THREAD_POOL, 1) as pool:
        _, collector = export(pool, tmp_path / "history.db")
        release = threading.Event()
        pool.submit(release.wait, HANG_SECONDS)
        assert pool.submit_stage(2, "load", int).cancel()
        release.set()
        pool.wait_all(HANG_SECONDS)
    collector.close()
    (run,) = read_runs(tmp_path / "history.db")
    assert run.result is Result.CANCELLATION


def test_one_number_is_one_stage_and_a_name_that_two_have_stays_unambiguous(pool: AdaptiveWorkerPool) -> None:
    registry, _ = export(pool)
    for number, name in ((2, "load"), (2, "load b"), (4, "load_3"), (3, "load")):
        pool.submit_stage(number, name, int)
    assert pool.wait_all(HANG_SECONDS)[0]
    found = {
        sample.labels["stage"] for family in registry.collect() for sample in family.samples if "stage" in sample.labels
    }
    assert found == {"load", "load_3", "load_3_3"}


def test_stage_that_a_later_run_lacks_has_ended(pool: AdaptiveWorkerPool) -> None:
    registry, _ = export(pool)
    release = threading.Event()
    pool.submit_stage(2, "load", release.wait, HANG_SECONDS)
    pool.submit_stage(2, "load", int).result(HANG_SECONDS)
    read = registry.get_sample_value
    assert read("paropt_stage_progress_ratio", place("load")) == 0.5
    release.set()
    pool.wait_all(HANG_SECONDS)
    pool.submit_stage(3, "parse", int)
    pool.wait_all(HANG_SECONDS)
    assert read("paropt_stage_progress_ratio", place("load")) == 1
    assert read("paropt_stage_running", place("load")) == 0


def test_tasks_from_before_the_collector_count_in_no_run(pool: AdaptiveWorkerPool) -> None:
    release = threading.Event()
    pool.submit_stage(2, "load", release.wait, HANG_SECONDS)
    registry, _ = export(pool)
    release.set()
    assert pool.wait_all(HANG_SECONDS)[0]
    assert registry.get_sample_value("paropt_runs_total", {**LANE, "result": "success"}) == 0


def test_task_from_before_the_collector_does_not_count_in_a_run_of_its_stage(pool: AdaptiveWorkerPool) -> None:
    releases = threading.Event(), threading.Event()
    earlier = pool.submit_stage(2, "load", releases[0].wait, HANG_SECONDS)
    registry, _ = export(pool)
    pool.submit_stage(2, "load", releases[1].wait, HANG_SECONDS)
    releases[0].set()
    assert earlier.result(HANG_SECONDS)
    assert registry.get_sample_value("paropt_stage_progress_ratio", place("load")) == 0
    releases[1].set()
    assert pool.wait_all(HANG_SECONDS) == (True, [])
    assert registry.get_sample_value("paropt_stage_progress_ratio", place("load")) == 1
    assert registry.get_sample_value("paropt_task_attempts_total", place("load", result="success")) == 1


def test_scrape_in_a_forked_child_leaves_the_history_to_the_parent(
    tmp_path: Path, pool: AdaptiveWorkerPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It wrote the waiting events, so the parent could not, and its run was missing from the history.

    If a thread of the parent was in a scrape at the fork, the child waited for its lock.
    """
    path, goes_on, in_scrape, scraped = tmp_path / "history.db", *(threading.Event() for _ in range(3))
    _, collector = export(pool, path)
    pool.submit_stage(2, "load", abs, -1).result(HANG_SECONDS)
    pool.submit_stage(2, "load", goes_on.wait)
    scrape = threading.Thread(target=lambda: list(collector.collect()))
    note_ended_tasks = pool.note_ended_tasks

    def hold_the_scrape() -> None:
        if threading.current_thread() is scrape:
            in_scrape.set()
            scraped.wait(HANG_SECONDS)
        note_ended_tasks()

    def scrape_in_child() -> None:
        list(collector.collect())
        collector.close()

    monkeypatch.setattr(pool, "note_ended_tasks", hold_the_scrape)
    scrape.start()
    assert in_scrape.wait(HANG_SECONDS)
    try:
        assert run_in_forked_child(scrape_in_child) == 0
    finally:
        scraped.set()
        goes_on.set()
        scrape.join()
    assert pool.wait_all() == (True, [])
    collector.close()
    assert [run.result for run in read_runs(path)] == [Result.SUCCESS]
    assert "history" not in caplog.text


def test_command_lists_the_runs_of_a_program(tmp_path: Path, pool: AdaptiveWorkerPool) -> None:
    (tmp_path / "paropt.yml").write_text('project: shop\nstages:\n  - {number: 1, name: lint, run: "true"}\n')
    _, collector = export(pool, tmp_path / ".paropt/history.db")
    pool.submit_stage(2, "load", int)
    pool.wait_all(HANG_SECONDS)
    collector.close()
    listed = real_servers.run(tmp_path, "history")
    assert "nightly" in listed.stdout
    assert "success" in listed.stdout


def test_history_command_lists_the_runs_or_names_their_project(tmp_path: Path, pool: AdaptiveWorkerPool) -> None:
    """As in the guide's example, in a folder without a paropt.yml."""
    _, collector = export(pool, tmp_path / ".paropt/history.db")
    pool.submit_stage(2, "load", sum, [1, 2])
    assert pool.wait_all(HANG_SECONDS)[0]
    collector.close()
    ended = call_command(tmp_path, "history", "--lane", "nightly")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "set `project: shop` to see them" in ended.stdout
    (tmp_path / "paropt.yml").write_text("project: shop\nstages: [{number: 1, name: a, run: 'true'}]\n")
    assert "nightly  success" in call_command(tmp_path, "history", "--lane", "nightly").stdout
