"""`history --what-if` on a recorded run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter.cli.history import run_what_if
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Event, Result
from paropt_exporter.history import History
from support.configs import read
from support.event_samples import START, StillClock, run_ended, run_started, stage_ended, stage_started, task

CONFIG = """
stages:
  - {number: 1, name: lint, run: "true"}
  - {number: 2, name: unit, run: "true {item}", items: {list: [a, b, c, d]}, needs: [lint]}
"""


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """One run: lint for 2 s, then four units of 2 s, two at once; all of them wait."""
    with closing(History(tmp_path / "history.db", project="shop", clock=StillClock())) as history:
        lint, unit = stage_ended("lint", seconds=2.0), stage_ended("unit", number=3, seconds=4.0)
        units = (
            replace(task("unit", number=number, cpu=0.0), started_timestamp_seconds=START + 2.0 + number // 2 * 2.0)
            for number in range(4)
        )
        events: tuple[Event, ...] = (
            run_started(),
            stage_started("lint"),
            task("lint", cpu=0.0),
            lint,
            stage_started("unit", tasks=4),
            *units,
            unit,
            run_ended(seconds=6.0, stages=(lint, unit)),
        )
        for event in events:
            history.observe(event)
        yield history


def printed(
    history: History,
    folder: Path,
    *workers: int,
    output: str = "text",
    run_id: str | None = None,
    config: str = CONFIG,
) -> str:
    stdout = StringIO()
    code = run_what_if(
        history,
        read(folder, config),
        lane=None,
        run_id=run_id,
        workers=workers,
        cores=2.0,
        memory_bytes=1 << 30,
        output=output,
        stdout=stdout,
    )
    assert code == 0
    return stdout.getvalue()


def test_each_number_of_workers_gets_a_sentence(history: History, tmp_path: Path) -> None:
    assert printed(history, tmp_path, 1, 4).splitlines() == [
        "standard r1 took 6.0 s with up to 2 at once on 2 cores (predicted in the same way: 6.0 s)",
        "with 1 worker, standard would have taken 10.0 s (+67%)",
        "with 4 workers, standard would have taken 4.0 s (-33%)",
    ]


def test_stage_that_a_run_left_out_passes_its_needs_on(history: History, tmp_path: Path) -> None:
    between = '  - {number: 3, name: between, run: "true", needs: [lint]}\n'
    config = CONFIG.replace("needs: [lint]", "needs: [between]") + between
    assert printed(history, tmp_path, 5, config=config) == printed(history, tmp_path, 5)


def test_json_has_the_same_values(history: History, tmp_path: Path) -> None:
    assert json.loads(printed(history, tmp_path, 4, output="json", run_id="r1")) == {
        "run_id": "r1",
        "lane": "standard",
        "duration_seconds": 6.0,
        "workers": 2,
        "predicted_seconds": pytest.approx(6.0),
        "what_if": [{"workers": 4, "seconds": pytest.approx(4.0)}],
    }


def test_unknown_run_is_rejected(history: History, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run, or more than one, matches 'r7'"):
        printed(history, tmp_path, 4, run_id="r7")


def test_interrupted_run_is_rejected(history: History, tmp_path: Path) -> None:
    history.observe(run_started("r2", at=START + 60))
    lint = stage_ended("lint", "r2", result=Result.CANCELLATION)
    history.observe(task("lint", "r2", result=Result.CANCELLATION))
    history.observe(run_ended("r2", stages=(lint,), result=Result.FAILURE, at=START + 60))
    with pytest.raises(UsageError, match="run r2 was cut short"):
        printed(history, tmp_path, 4, run_id="r2")


def test_run_whose_results_all_came_from_the_cache_is_rejected(history: History, tmp_path: Path) -> None:
    at = START + 60
    lint = stage_ended("lint", "r2", seconds=0.0, at=at)
    cached = replace(task("lint", "r2", seconds=0.0, cpu=0.0), started_timestamp_seconds=at)
    history.observe_all((run_started("r2", at=at), stage_started("lint", "r2", at=at), cached, lint))
    history.observe(run_ended("r2", seconds=0.0, stages=(lint,), at=at))
    with pytest.raises(UsageError, match="run r2 took every result from the cache"):
        printed(history, tmp_path, 4)


def test_without_a_finished_run_there_is_no_prediction(tmp_path: Path) -> None:
    with closing(History(tmp_path / "none.db", project="shop", clock=StillClock())) as empty:
        empty.observe(run_started())
        with pytest.raises(UsageError, match="no recent run came to its end: name one with --run"):
            printed(empty, tmp_path, 4)
