"""The trace, held against the Trace Event Format as Perfetto and chrome://tracing read it."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.events import Decision, Result
from paropt_exporter.reports import trace
from paropt_exporter.reports.model import FinishedRun
from support.event_samples import START
from support.finished_runs import attempt, finished, stage


class Trace:
    """A strict reader: it refuses what one of both viewers would drop or draw wrongly."""

    def __init__(self, run: FinishedRun) -> None:
        document = json.loads(trace.render(run))
        assert document["displayTimeUnit"] in ("ms", "ns")
        assert all(isinstance(value, str) for value in document["otherData"].values())
        self.tracks: dict[tuple[int, int], str] = {}
        self.bars: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
        self.counters: dict[str, list[tuple[float, int]]] = defaultdict(list)
        processes: dict[int, str] = {}
        for event in document["traceEvents"]:
            assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
            getattr(self, {"M": "_meta", "X": "_bar", "C": "_count"}[event["ph"]])(event, processes)
        for bars in self.bars.values():  # bars of a track must lie side by side or inside each other
            ordered = sorted((begin, begin + length) for _, begin, length in bars)
            assert all(end <= begin + 0.2 for (_, end), (begin, _) in pairwise(ordered))
        for counts in self.counters.values():
            assert [moment for moment, _ in counts] == sorted(moment for moment, _ in counts)
            assert all(value >= 0 for _, value in counts)

    def _meta(self, event: dict[str, Any], processes: dict[int, str]) -> None:
        name = event["args"]["name"]
        if event["name"] == "process_name":
            processes[event["pid"]] = name
        else:
            assert event["name"] == "thread_name"
            self.tracks[event["pid"], event["tid"]] = f"{processes[event['pid']]}/{name}"

    def _bar(self, event: dict[str, Any], processes: dict[int, str]) -> None:
        assert event["ts"] >= 0 and event["dur"] >= 0
        self.bars[self.tracks[event["pid"], event["tid"]]].append((event["name"], event["ts"], event["dur"]))

    def _count(self, event: dict[str, Any], processes: dict[int, str]) -> None:
        ((_, value),) = event["args"].items()
        self.counters[event["name"]].append((event["ts"], value))


def test_each_worker_has_a_track_with_a_bar_for_each_attempt() -> None:
    read = Trace(
        finished(
            stage("lint", 1, attempt("lint", began=1, seconds=2)),
            stage(
                "unit",
                2,
                attempt("unit", item="a", worker="commands-2", began=1, seconds=1, result=Result.FAILURE),
                attempt("unit", item="a", worker="commands-1", began=3, seconds=0.5, number=2),
            ),
        )
    )
    assert read.bars["workers/commands-1"] == [("lint", 1e6, 2e6), ("unit a", 3e6, 0.5e6)]
    assert read.bars["workers/commands-2"] == [("unit a", 1e6, 1e6)]


def test_each_stage_that_ran_has_a_track() -> None:
    tasks = attempt("lint", began=3), attempt("lint", task=1, worker="commands-2", began=1)
    run = finished(stage("lint", 1, *tasks), stage("deploy", 2, result=Result.SKIP))
    assert Trace(run).bars["stages/lint"] == [("lint", 1e6, 4e6)]
    assert "stages/deploy" not in Trace(run).bars


def test_counters_show_sizes_and_queues() -> None:
    moves = tuple(
        Decision(
            pool="commands", action="up", reason="demand", old_size=old, new_size=new, at_timestamp_seconds=START + at
        )
        for old, new, at in ((2, 3, 1.5), (3, 3, 1.6), (3, 4, 2.0))
    )
    run = finished(
        stage(
            "unit",
            1,
            attempt("unit", began=1, seconds=2),
            attempt("unit", task=1, worker="commands-2", began=2, seconds=2),
        ),
        decisions=moves,
    )
    counters = Trace(run).counters
    assert counters["size of commands"] == [(0, 2), (1.5e6, 3), (2e6, 4)]
    assert counters["commands queued"] == [(0, 0), (0.5e6, 2), (1e6, 1), (2e6, 0)]
    assert counters["commands running"] == [(0, 0), (1e6, 1), (2e6, 2), (3e6, 1), (4e6, 0)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=20))
def test_any_attempts_make_a_trace_that_can_be_read(spans: list[tuple[int, int]]) -> None:
    attempts = [
        attempt("unit", task=number, began=began, seconds=seconds / 10, worker=f"commands-{number}")
        for number, (began, seconds) in enumerate(spans)
    ]
    counters = Trace(finished(stage("unit", 1, *attempts))).counters
    assert all(counts[-1][1] == 0 for name, counts in counters.items() if not name.startswith("size"))


def test_a_run_that_never_started_a_task_is_a_trace_too() -> None:
    assert Trace(finished(stage("unit", 1, result=Result.SKIP))).bars == {}
