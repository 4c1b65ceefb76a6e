"""The `history` command's text and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter.cli import history as command
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Result, Scope
from paropt_exporter.history import History
from support.event_samples import START, StillClock, run_ended, run_started, stage_ended, stage_started, task
from support.terminals import Terminal


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def history(tmp_path: Path, clock: StillClock) -> Iterator[History]:
    with closing(History(tmp_path / "history.db", project="shop", clock=clock)) as history:
        for number, seconds in enumerate((2.0, 2.0, 4.0)):
            run_id, at = f"run-{number}", START + 60 * number
            lint = stage_ended("lint", run_id, seconds=seconds, at=at)
            for event in (
                run_started(run_id, at=at, stages=("lint",)),
                stage_started("lint", run_id, at=at),
                task("lint", run_id),
                lint,
                run_ended(run_id, at=at, seconds=seconds, stages=(lint,)),
            ):
                history.observe(event)
        yield history


def printed(
    history: History,
    *,
    lane: str | None = None,
    output: str = "text",
    run_id: str | None = None,
    compare: tuple[str, str] | None = None,
) -> str:
    stdout = StringIO()
    ended = command.run(history, lane=lane, limit=20, output=output, stdout=stdout, run_id=run_id, compare=compare)
    assert ended == 0
    return stdout.getvalue()


def test_runs_are_listed_oldest_first_with_the_trend_and_its_warning(history: History) -> None:
    lines = printed(history).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["run-0", "run-1", "run-2"]
    assert "0.25 tasks/s in the latest successful full run, 0.50 on average over 2 earlier ones" in lines[-2]
    assert lines[-1].startswith("degraded: standard is at 50%")
    assert "`history --lane standard --compare latest~1 latest`" in lines[-1]  # without it, another lane's runs


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
@pytest.mark.parametrize("result", [Result.FAILURE, Result.CANCELLATION])
def test_list_of_runs_keeps_within_the_terminal(
    history: History, columns: int, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    run_id = "20261128T215415-2de05c"
    ended = replace(run_ended(run_id, result=result), reason="ä" * 70)
    for event in (run_started(run_id), ended):
        history.observe(event)
    terminal = Terminal()
    command.run(history, lane=None, limit=20, output="text", stdout=terminal)
    lines = terminal.getvalue().splitlines()[:5]
    assert max(map(len, lines)) <= columns
    assert all(word in lines[0].split() for word in ("run", "result", "duration", "notes"))
    assert ("busy" in lines[0]) is (columns > 100)
    assert lines[4].endswith("…") is (columns < 200)  # the notes need 172


@pytest.mark.parametrize("run_id", [None, "run-9"])
def test_notes_are_whole_without_a_terminal(history: History, run_id: str | None) -> None:
    for event in (run_started("run-9"), replace(run_ended("run-9", result=Result.FAILURE), reason="ä" * 70)):
        history.observe(event)
    assert "ä" * 70 in printed(history, run_id=run_id)


def test_guides_historical_analysis_works_on_the_json(history: History, tmp_path: Path) -> None:
    historical = json.loads(printed(history, output="json"))
    average = sum(run["throughput_tasks_per_second"] for run in historical) / len(historical)
    assert historical[-1]["throughput_tasks_per_second"] < average * 0.8
    assert historical[-1]["stage_metrics"][0]["stage_name"] == "lint"
    assert historical[-1]["worker_utilization"] == 50.0


def test_stage_that_ran_in_part_is_not_counted_as_cached(history: History) -> None:
    whole = replace(stage_ended("lint", "run-3"), scope=Scope.CACHED, tasks_cached=1, attempts=0)
    part = replace(stage_ended("unit", "run-3"), scope=Scope.CACHED, tasks=2, tasks_cached=1, attempts=1)
    for event in (run_started("run-3"), whole, part, run_ended("run-3", stages=(whole, part))):
        history.observe(event)
    row = printed(history).splitlines()[4]
    assert "1 stage cached" in row
    assert re.search(r" 3 +0 +- +50%", row)  # the skipped task is no throughput
    compared = printed(history, compare=("run-2", "run-3")).splitlines()
    assert [line.split()[:4] for line in compared[2:4]] == [["lint", "4.0", "s", "cached"], ["unit", "-", "2.0", "s"]]


def test_run_that_still_goes_on_is_listed_and_left_out_of_the_json(history: History) -> None:
    history.observe(run_started("run-9", at=START + 999))
    assert "running" in printed(history)
    assert len(json.loads(printed(history, output="json"))) == 3


def test_run_of_a_dead_exporter_is_not_shown_as_running(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with closing(History(path, project="shop", clock=StillClock())) as history:
        history.observe(run_started("run-9", at=START))
    with closing(History(path, project="shop", clock=StillClock())) as history:
        listed = printed(history)
    assert "interrupted" in listed
    assert "its exporter is gone" in listed
    assert "running" not in listed


def test_running_run_and_stage_have_durations_up_to_now(history: History, clock: StillClock) -> None:
    """A run that hung for a quarter of an hour was shown as running for 31 s, since its last event was that old."""
    for event in (run_started("run-9", stages=("lint", "unit")), stage_started("lint", "run-9", at=START + 10)):
        history.observe(event)
    clock.advance(900.0)
    head, _, lint = printed(history, run_id="run-9").splitlines()
    assert head.startswith("standard run-9: running for 15 min 00 s, started ")
    assert re.match(r"lint +running +14 min 50 s ", lint)
    listed = printed(history).splitlines()[4]
    assert re.search(r"running +15 min 00 s +1 +0 +- +-", listed)
    compared = printed(history, compare=("run-2", "run-9")).splitlines()
    assert [re.split(" {2,}", line) for line in compared[2:]] == [
        ["lint", "4.0 s", "14 min 50 s", "success", "running"],
        ["whole run", "4.0 s", "15 min 00 s", "success", "running"],
    ]


def test_stage_of_a_dead_exporter_is_not_shown_as_running(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with closing(History(path, project="shop", clock=StillClock())) as history:
        for event in (run_started("run-9", at=START), stage_started("lint", "run-9")):
            history.observe(event)
    with closing(History(path, project="shop", clock=StillClock())) as history:
        shown = printed(history, run_id="run-9") + printed(history, compare=("run-9", "run-9"))
    assert shown.startswith("standard run-9: interrupted after > 0.00 s, started ")
    assert "running" not in shown


def test_killed_run_took_longer_than_its_last_event_says(tmp_path: Path) -> None:
    clock = StillClock()
    with closing(History(tmp_path / "history.db", project="shop", clock=clock)) as history:
        history.observe(run_started("run-9", at=START))
        clock.advance(5.0)
        history.observe(stage_started("lint", "run-9"))
    with closing(History(tmp_path / "history.db", project="shop", clock=clock)) as history:
        assert "> " in printed(history)
        history.mark_interrupted_runs()
        assert "  > 5.0 s  " in printed(history)


def test_one_run_is_shown_stage_by_stage_the_longest_first(history: History) -> None:
    broken = stage_ended("unit", "run-3", seconds=9.0, broken=True)
    failed = replace(stage_ended("lint", "run-3", result=Result.FAILURE), message="exit 1", tasks_failed=1)
    skipped = replace(
        stage_ended("docs", "run-3", result=Result.SKIP, seconds=0.0, memory=0), message="needs lint", attempts=0
    )
    stages = (failed, broken, skipped)
    ended = replace(run_ended("run-3", result=Result.FAILURE, stages=stages), reason="lint failed")
    for event in (run_started("run-3", stages=("lint", "unit", "docs")), *stages, ended):
        history.observe(event)
    head, reason, headers, *rows = printed(history, run_id="run-3").splitlines()
    assert head.startswith("standard run-3: failure in 4.0 s, started ")
    assert reason == "lint failed"
    assert headers.split() == ["stage", "result", "duration", "CPU", "memory", "tasks", "failed", "attempts", "notes"]
    assert [row.split()[0] for row in rows] == ["unit", "lint", "docs"]
    assert rows[0].endswith("limit broken") and "50.0 MB" in rows[0]
    assert rows[1].endswith("exit 1")
    assert rows[2].split() == ["docs", "skip", "-", "-", "-", "1", "0", "0", "needs", "lint"]
    (shown,) = json.loads(printed(history, run_id="run-3", output="json"))
    assert [stage["stage_name"] for stage in shown["stage_metrics"]] == ["docs", "lint", "unit"]


@pytest.mark.parametrize("columns", [50, 60, 80])
def test_one_run_keeps_within_the_terminal(history: History, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stage = replace(stage_ended("integration_tests", "run-3"), message="ä" * 90)
    for event in (run_started("run-3"), stage, run_ended("run-3", stages=(stage,))):
        history.observe(event)
    terminal = Terminal()
    command.run(history, lane=None, limit=20, output="text", stdout=terminal, run_id="run-3")
    assert max(map(len, terminal.getvalue().splitlines())) <= columns


def test_two_runs_stand_beside_each_other_stage_by_stage(history: History) -> None:
    lines = printed(history, compare=("run-0", "run-2")).splitlines()
    assert lines[2].split() == ["lint", "2.0", "s", "4.0", "s", "+100%", "success", "success"]
    assert lines[3].startswith("whole run")


@pytest.mark.parametrize("columns", [50, 60, 80])
def test_comparison_keeps_within_the_terminal(history: History, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for run_id in ("20261128T215415-2de05c", "20261128T215416-2de05c"):
        stage = stage_ended("integration_tests", run_id, seconds=1000.0)
        for event in (run_started(run_id, stages=("integration_tests",)), stage, run_ended(run_id, stages=(stage,))):
            history.observe(event)
    terminal, runs = Terminal(), ("20261128T215415-2de05c", "20261128T215416-2de05c")
    command.run(history, lane=None, limit=20, output="text", stdout=terminal, compare=runs)
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    assert "change" in terminal.getvalue()


def test_warning_of_a_trend_quotes_the_name_of_a_lane(history: History) -> None:
    for number, seconds in enumerate((2.0, 2.0, 9.0)):
        run_id, at = f"run-{number + 10}", START + 60 * number
        stage = stage_ended("lint", run_id, lane="all checks", seconds=seconds, at=at)
        history.observe(run_started(run_id, lane="all checks", at=at, stages=("lint",)))
        history.observe(task("lint", run_id, lane="all checks"))
        history.observe(stage)
        history.observe(run_ended(run_id, lane="all checks", at=at, seconds=seconds, stages=(stage,)))
    assert "`history --lane 'all checks' --compare latest~1 latest`" in printed(history, lane="all checks")


def test_tiny_change_of_a_duration_has_no_minus(history: History) -> None:
    for run_id, seconds in (("run-8", 1000.0), ("run-9", 999.9)):
        stage = stage_ended("unit", run_id, seconds=seconds)
        for event in (run_started(run_id, stages=("unit",)), stage, run_ended(run_id, stages=(stage,))):
            history.observe(event)
    (row,) = (line for line in printed(history, compare=("run-8", "run-9")).splitlines() if line.startswith("unit"))
    assert "+0%" in row.split()


def test_unknown_run_lists_the_known_ones(history: History) -> None:
    with pytest.raises(UsageError, match=r"run-7.*run-0, run-1, run-2"):
        printed(history, compare=("run-7", "run-0"))


def test_latest_runs_are_found_without_their_ids(history: History) -> None:
    history.observe(run_started("run-3", lane="docs", at=START + 300))
    history.observe(run_ended("run-3", lane="docs", at=START + 300))
    history.observe(run_started("run-4", at=START + 360))  # still running
    assert printed(history, run_id="latest") == printed(history, run_id="run-3")
    assert printed(history, lane="standard", run_id="latest") == printed(history, run_id="run-2")
    assert printed(history, compare=("latest~2", "latest~1")) == printed(history, compare=("run-1", "run-2"))


def test_no_run_is_as_far_back_as_asked(history: History) -> None:
    with pytest.raises(UsageError, match=r"latest~3.*run-0, run-1, run-2"):
        printed(history, run_id="latest~3")


def test_run_of_an_empty_history_says_that_there_is_none(tmp_path: Path) -> None:
    empty = History(tmp_path / "empty.db", project="shop", clock=StillClock())
    with closing(empty), pytest.raises(UsageError, match=r"^no runs yet$"):
        printed(empty, compare=("a", "b"))


def test_lane_without_runs_gets_a_sentence(history: History) -> None:
    assert printed(history, lane="docs") == "no runs of lane docs yet\n"
    assert printed(history, lane="docs", output="json") == "[]\n"


def test_history_of_a_renamed_folder_names_its_project(history: History, tmp_path: Path) -> None:
    with closing(History(tmp_path / "history.db", project="renamed", clock=StillClock())) as renamed:
        told = "no runs of this project yet; the history has runs of shop: set `project: shop` to see them\n"
        assert printed(renamed) == told
        assert printed(renamed, lane="nightly") == told
