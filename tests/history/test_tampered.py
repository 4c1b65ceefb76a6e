"""Changed cells of a history cause one line of error or harmless output, whatever their values."""

from __future__ import annotations

import io
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from paropt_exporter.autoscaling.decisions import serialize_decision, serialize_observation
from paropt_exporter.autoscaling.policy.fixed_workload import Load, LoadGroup
from paropt_exporter.autoscaling.policy.lane_size import LaneObservation, decide_lane_size
from paropt_exporter.cli import explain, history
from paropt_exporter.cli.streams import VisibleStream
from paropt_exporter.config.loader import Config
from paropt_exporter.errors import HistoryError, ParoptError
from paropt_exporter.events import Bottleneck, Decision
from paropt_exporter.history import History
from support.event_samples import StillClock, limit_reached, run_ended, run_started, stage_ended, stage_started, task

SITUATION = LaneObservation(
    now=1.0,
    size=2,
    floor=1,
    ceiling=16,
    cores=2.0,
    running=(LoadGroup(load=Load(pool="commands", stage="lint", cpu_demand=0.9), count=1),),
    waiting=(),
)
VALUES = (
    "\u202elanruoj\x1b[2J\x9b31m\r\x07",
    9e999,
    1e300,
    -(2**63),
    b"\xff\xfe",
    "[" * 5000,
    '{"kind": "lane", "observation": {}}',
    '[[1, 2], "x"]',
)
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def write_history(path: Path) -> None:
    lint = stage_ended("lint")
    held = (Bottleneck(kind="slow", stage="lint", sentence="lint is slow"),)
    decision = Decision(
        pool="commands",
        action="up",
        reason="load",
        old_size=1,
        new_size=2,
        at_timestamp_seconds=StillClock().wall(),
        terms={"cores": 2.0},
        run_id="r1",
        situation=serialize_observation(SITUATION),
        choice=serialize_decision(decide_lane_size(SITUATION)),
    )
    with closing(History(path, project="shop", clock=StillClock())) as template:
        for event in (
            run_started("r1", stages=("lint",)),
            stage_started("lint", "r1"),
            task("lint", "r1"),
            limit_reached(broken=True),
            decision,
            lint,
            run_ended("r1", stages=(lint,), bottlenecks=held),
            run_started("r2", stages=("lint",)),
        ):
            template.observe(event)
        assert template.broken is None


def columns(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [(table, row[1]) for table in tables for row in connection.execute(f"PRAGMA table_info({table})")]


def run_commands(path: Path, folder: Path) -> str:
    """Return the output or the error lines of all commands that read a history."""
    config = Config(project="shop", lanes={}, stages=(), root=folder)
    commands: tuple[Callable[[History, io.StringIO], object], ...] = (
        lambda past, out: history.run(past, lane=None, limit=20, output="text", stdout=out),
        lambda past, out: history.run(past, lane=None, limit=20, output="json", stdout=out),
        lambda past, out: history.run(past, lane=None, limit=20, output="text", stdout=out, compare=("r1", "r2")),
        lambda past, out: history.run_what_if(
            past,
            config,
            lane=None,
            run_id=None,
            workers=(1, 2),
            cores=2.0,
            memory_bytes=1 << 30,
            output="text",
            stdout=out,
        ),
        lambda past, out: explain.run_explain(past, pool=None, output="text", stdout=out),
        lambda past, out: explain.run_explain(past, pool=None, output="json", stdout=out),
        lambda past, out: explain.run_replay(past, pool=None, since_seconds=0.0, output="text", stdout=out),
        lambda past, out: explain.run_replay(past, pool=None, since_seconds=0.0, output="json", stdout=out),
        lambda past, out: out.write(
            f"{past.load_totals()} {past.load_last_values()} {past.load_earlier_runs('standard')}"
        ),
        lambda past, out: out.write(str(past.load_usual_size("standard"))),
        lambda past, out: out.write(f"{past.load_cpu_demands('standard')} {past.load_memory_peaks('standard')}"),
        lambda past, out: out.write(
            f"{past.find_failures('standard', ('lint', 'unit'))} {past.compute_trend('standard')}"
        ),
    )
    printed = io.StringIO()
    shown: io.StringIO = VisibleStream(printed)  # type: ignore[assignment]  # as the command line's stdout
    with closing(History(path, project="shop", clock=StillClock(), for_reading=True)) as past:
        for command in commands:
            try:
                command(past, shown)
            except ParoptError as error:
                shown.write(str(error))
    return printed.getvalue()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tampered") / "history.db"
    write_history(path)
    return path


def iter_tampered(template: Path, folder: Path, value: object) -> Iterator[tuple[Path, str]]:
    """Yield a history and its column for each one whose values can be replaced by this one."""
    for table, column in columns(template):
        path = folder / f"{table}-{column}.db"
        path.write_bytes(template.read_bytes())
        try:
            with closing(sqlite3.connect(path)) as connection, connection:
                changed = connection.execute(f"UPDATE {table} SET {column} = ?", (value,)).rowcount
        except sqlite3.IntegrityError:
            continue  # SQLite itself refuses it
        if changed:
            yield path, f"{table}.{column}"
        path.unlink()


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_tampered_cell_causes_no_internal_error_or_escape_sequence(
    template: Path, tmp_path: Path, value: object
) -> None:
    for path, column in iter_tampered(template, tmp_path, value):
        assert not ACTING.search(run_commands(path, tmp_path)), column


@pytest.mark.parametrize("value", VALUES[:3], ids=range(3))
def test_a_run_on_a_tampered_history_recovers_or_reports_one_line(
    template: Path, tmp_path: Path, value: object
) -> None:
    for path, _ in iter_tampered(template, tmp_path, value):
        with closing(History(path, project="shop", clock=StillClock())) as past:
            with suppress(HistoryError):
                past.mark_interrupted_runs()
            past.observe(run_started("r3"))


@pytest.mark.parametrize("value", ["'excellent'", "CAST(x'66ff' AS TEXT)"], ids=["a text", "no UTF-8"])
def test_an_invalid_cell_is_reported_with_its_file(tmp_path: Path, value: str) -> None:
    path = tmp_path / "history.db"
    write_history(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE runs SET result = {value}")
    with (
        closing(History(path, project="shop", clock=StillClock(), for_reading=True)) as past,
        pytest.raises(ParoptError, match=r"history\.db: it contains values that no exporter wrote .*move it away"),
    ):
        past.load_runs()
