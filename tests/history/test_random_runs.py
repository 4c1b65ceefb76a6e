"""Random runs, of which the exporter may be killed at any event: totals agree with the events, and never fall."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from paropt_exporter import families
from paropt_exporter.events import Event, StageRecord, TaskRecord
from paropt_exporter.history import History
from support.event_samples import StillClock
from support.random_lanes import Lane, lanes, run_lane

Counters = dict[tuple[str, tuple[str, ...]], float]


def read_counters(path: Path, events: list[Event], *, repair: bool) -> tuple[Counters, list[str]]:
    """Return the totals, and the results of the latest run: its own, and those of its stages."""
    with closing(History(path, project="shop", clock=StillClock())) as history:
        history.observe_all(events)
        assert history.broken is None
        if repair:
            history.mark_interrupted_runs()
        run = history.load_runs()[-1]
        return {**history.load_totals().counters}, [str(run.result), *(str(stage.result) for stage in run.stages)]


@settings(max_examples=40)
@given(lanes(), st.data())
def test_totals_of_a_run_that_was_killed_agree_with_its_events_and_never_fall(lane: Lane, data: st.DataObject) -> None:
    bench, record, _ = run_lane(lane)
    whole = len(bench.events)
    events = bench.events[: data.draw(st.just(whole) | st.integers(1, whole))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        before, _ = read_counters(path, events, repair=False)
        after, results = read_counters(path, [], repair=True)
        again, _ = read_counters(path, [], repair=True)
    assert again == after
    assert {key: value for key, value in before.items() if value > after.get(key, 0.0)} == {}
    tasks = Counter(
        (each.stage, each.result.value) for each in events if isinstance(each, TaskRecord) if not each.cached
    )
    assert get_totals(after, families.TASK_ATTEMPTS.name) == tasks
    runs = get_totals(after, families.STAGE_RUNS.name)
    assert Counter(stage for stage, _ in runs.elements()) == Counter(stage.name for stage in lane.stages)
    assert sum(get_totals(after, families.RUNS.name).values()) == 1
    assert len(results) == len(lane.stages) + 1
    ended = Counter((each.stage, each.result.value) for each in events if isinstance(each, StageRecord))
    assert ended <= runs
    if len(events) == whole:
        assert (results[0], ended) == (record.result.value, runs)


def get_totals(counters: Counters, name: str) -> Counter[tuple[str, ...]]:
    """Return the values of one metric by its labels without the lane."""
    return Counter({labels[1:]: int(value) for (family, labels), value in counters.items() if family == name})
