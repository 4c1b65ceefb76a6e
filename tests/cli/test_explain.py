"""`explain` and `replay` on recorded decisions."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from paropt_exporter import families
from paropt_exporter.autoscaling import explanation
from paropt_exporter.autoscaling.decisions import serialize_decision, serialize_observation
from paropt_exporter.autoscaling.policy.budget import Budget, Claim
from paropt_exporter.autoscaling.policy.fixed_workload import Load, LoadGroup, RemainingWork
from paropt_exporter.autoscaling.policy.lane_size import LaneObservation, LaneSizingState, decide_lane_size
from paropt_exporter.autoscaling.policy.memory import Memory, PoolMemory
from paropt_exporter.autoscaling.policy.pool_size import PoolObservation, PoolSizingState, decide_pool_size
from paropt_exporter.autoscaling.policy.query_size import (
    PoolMeasurement,
    PoolReading,
    QuerySizeObservation,
    QuerySizeState,
    decide_query_size,
)
from paropt_exporter.autoscaling.policy.query_validity import Reading, reject_reading
from paropt_exporter.autoscaling.policy.queueing import Traffic
from paropt_exporter.autoscaling.policy.scaling_effectiveness import Sample
from paropt_exporter.autoscaling.policy.size_bounds import BoundsObservation, BoundsState, Signal, decide_size_bounds
from paropt_exporter.autoscaling.policy.stabilization import ScalingHistory
from paropt_exporter.autoscaling.policy.stage_concurrency import (
    LIMITED,
    ConcurrencyLevel,
    StageLimitState,
    StageMeasurement,
)
from paropt_exporter.cli import explain, main
from paropt_exporter.clock import SystemClock
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Decision
from paropt_exporter.history import History
from paropt_exporter.testing import START_TIMESTAMP_SECONDS, FakeClock
from support.projects import write

if TYPE_CHECKING:
    from paropt_exporter.autoscaling.decisions import Observation, PolicyDecision

RUN = LaneObservation(
    now=1.0,
    size=2,
    floor=1,
    ceiling=16,
    cores=2.0,
    running=(LoadGroup(load=Load(pool="commands", stage="burn", cpu_demand=0.9), count=1),),
    waiting=(LoadGroup(load=Load(pool="commands", stage="naps", cpu_demand=0.01), count=7),),
)
STREAM = PoolObservation(
    now=1.0,
    size=2,
    floor=1,
    ceiling=32,
    traffic=Traffic(arrivals=100.0, service_seconds=0.05, queued=10),
    cores=2.0,
    cpu_demand=0.1,
    cpu=0.5,
    sample=Sample(count=0, mean=0.0, variance=0.0),
    state=PoolSizingState(),
)
BAND = BoundsObservation(
    now=15.0,
    interval_seconds=15.0,
    stable_seconds=180.0,
    minimum=1,
    maximum=16,
    floor=1,
    ceiling=16,
    size=2,
    signals=(
        Signal(name="broker", use="load", target=20.0, reading=Reading(value=130.0)),
        Signal(name="database", use="limit", target=0.8, reading=reject_reading("stale", "the sample is 90 s old")),
    ),
    state=BoundsState(),
)
TARGET = QuerySizeObservation(
    now=15.0,
    stable_seconds=180.0,
    cores=2.0,
    size=2,
    floor=1,
    ceiling=32,
    pools=(
        PoolReading(
            pool="commands",
            target=2,
            reading=Reading(),
            measurement=PoolMeasurement(
                sampled=1.0, scrape_seconds=15.0, size=2.0, depth=18.0, busy=2.0, cpu=0.5, delay=0.0
            ),
        ),
    ),
    state=QuerySizeState(),
)


def decision(
    seen: Observation, choice: PolicyDecision, *, pool: str = "commands", action: str = "up", new: int = 8
) -> Decision:
    return Decision(
        pool=pool,
        action=action,
        reason="demand",
        old_size=2,
        new_size=new,
        at_timestamp_seconds=START_TIMESTAMP_SECONDS,
        situation=serialize_observation(seen),
        choice=serialize_decision(choice),
    )


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with closing(History(tmp_path / "history.db", project="p", clock=FakeClock())) as opened:
        yield opened


def told(history: History, pool: str | None = None, output: str = "text") -> str:
    stdout = io.StringIO()
    assert explain.run_explain(history, pool=pool, output=output, stdout=stdout) == 0
    return stdout.getvalue()


@pytest.mark.parametrize("columns", [60, 80])
def test_explanation_keeps_within_the_terminal(history: History, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    history.observe(decision(RUN, decide_lane_size(RUN)))
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    explain.run_explain(history, pool=None, output="text", stdout=terminal)
    assert max(map(len, terminal.getvalue().splitlines())) <= columns


def test_runs_size_is_the_sum_of_the_tasks_that_are_named(history: History) -> None:
    history.observe(decision(RUN, decide_lane_size(RUN)))
    text = told(history)
    assert text.partition("\n\n")[2].startswith("commands up from 2 to 8: demand")
    assert "run       1 x 0.90 cores  burn" in text
    sums = re.search(r"N\* = (\d+) that fit \+ (\d+) that may start = (\d+)", text)
    assert sums is not None
    assert int(sums[1]) + int(sums[2]) == int(sums[3]) == decide_lane_size(RUN).size


def test_pool_with_fewer_tasks_than_the_lane_has_workers_does_not_contradict_the_policy(history: History) -> None:
    decided = decide_lane_size(RUN)
    history.observe(decision(RUN, decided, action="down", new=1))
    size = f"size {decided.size} of the lane, of which commands has tasks for 1"
    assert told(history).rstrip().endswith(f"policy: {decided.action} ({decided.reason}), {size}")


def test_size_that_falls_to_the_highest_of_the_last_second_is_not_below_the_sum_without_a_reason(
    history: History,
) -> None:
    peaks = ((98.9, 9), (99.5, 5))
    seen = replace(
        RUN, now=100.0, size=9, waiting=(), state=LaneSizingState(history=ScalingHistory(began=1.0, peaks=peaks))
    )
    history.observe(decision(seen, decide_lane_size(seen), action="down", new=5))
    lines = told(history).splitlines()
    assert "      N* = 1 that fit + 0 that may start = 1 (plan)" in lines
    assert "      the size falls only to the highest N* of the last 1 s: 5" in lines
    assert lines[-1].strip() == "policy: down (plan), size 5"


def test_memory_is_shown_with_the_number_of_tasks_that_fit(history: History) -> None:
    burn = Load(pool="commands", stage="burn", cpu_demand=0.9, peak_bytes=100_000_000)
    naps = Load(pool="commands", stage="naps", cpu_demand=0.01, peak_bytes=200_000_000)
    seen = replace(
        RUN,
        running=(LoadGroup(load=burn, count=1),),
        waiting=(LoadGroup(load=naps, count=7),),
        memory=Memory(available_bytes=1_000_000_000, held_bytes=40_000_000, reserve_bytes=256_000_000),
    )
    assert decide_lane_size(seen).size == 4
    history.observe(decision(seen, decide_lane_size(seen), new=4))
    text = told(history)
    assert "running tasks may still take 1 x 100.0 MB - 40.0 MB = 60.0 MB" in text
    assert "room: 1,000.0 MB available - 256.0 MB kept free - 60.0 MB = 684.0 MB" in text
    assert "7 x 200.0 MB  naps" in text
    assert "N_mem = 4" in text
    assert "N* = 1 that fit + 7 that may start = 8, but 4 (memory_limit)" in text


def test_stage_without_gain_from_more_tasks_is_shown_with_both_durations(history: History) -> None:
    few = ConcurrencyLevel(concurrency=4.0, sample=Sample(count=30, mean=0.2, variance=0.01))
    many = ConcurrencyLevel(concurrency=16.0, sample=Sample(count=40, mean=0.8, variance=0.01))
    naps = Load(pool="commands", stage="naps", cpu_demand=0.01)
    limited = StageLimitState(
        stage="naps", phase=LIMITED, limit=4, reference=few, useless=many, until=61.0, deepest=True
    )
    seen = replace(
        RUN,
        size=4,
        running=(LoadGroup(load=naps, count=4),),
        waiting=(LoadGroup(load=naps, count=300),),
        stages=(StageMeasurement(stage="naps", running=4, waiting=300, level=few, fastest_seconds=0.05),),
        state=LaneSizingState(stages=(limited,)),
    )
    history.observe(decision(seen, decide_lane_size(seen)))
    text = told(history)
    assert "limit     4 at once (limited for 60 s more); 4 run  naps" in text
    assert "4.0 at once took 0.2 s each (30 ended)" in text
    assert "16.0 at once took 0.8 s each (40 ended)" in text
    assert "4.00 times as long for 4.00 times as many; more are no use from 1 + 0.5 x (4.00 - 1) = 2.50 on" in text
    assert "= 4 (ineffective)" in text


def test_deadline_is_shown_with_the_bound_that_it_solves(history: History) -> None:
    work = RemainingWork(seconds=1000.0, critical_path_seconds=10.0, left_seconds=100.0)
    waiting = replace(RUN.waiting[0], count=99)
    seen = replace(RUN, waiting=(waiting,), ceiling=64, work=work)
    history.observe(decision(seen, decide_lane_size(seen)))
    assert "path 10.0 s + (1000.0 - 10.0) / N <= 0.9 x 100.0 s: N = 13" in told(history)


def test_streams_size_follows_from_load_and_wait(history: History) -> None:
    history.observe(decision(STREAM, decide_pool_size(STREAM), new=7))
    text = told(history)
    assert "load a = 100 tasks/s x 0.05 s = 5 Erlang" in text
    assert "N(a) = 7: a task waits 0.162 of its own time, at most 0.25 (with 6: 0.588)" in text
    assert "queue: 10 x 0.05 s / 2 s = 0.25, rounded up" in text


def test_rounded_quota_is_shown(history: History) -> None:
    observation = replace(STREAM, cores=1.5)
    history.observe(decision(observation, decide_pool_size(observation), new=7))
    assert "N_cpu = 1.5, rounded to 2 cores / 0.10 of a core = 20" in told(history)


def test_pools_part_of_the_machine_is_shown_beside_the_others(history: History) -> None:
    claims = (
        Claim(pool="own", wanted=9, floor=1, cpu_demand=0.05, memory_bytes=100_000_000),
        Claim(pool="other", wanted=9, floor=1, cpu_demand=0.05, memory_bytes=100_000_000, weight=3.0, urgent=True),
    )
    seen = replace(
        STREAM,
        memory=PoolMemory(available_bytes=10**9, growth_bytes=0, peak_bytes=10**8, reserve_bytes=2 * 10**8),
        pool="own",
        budget=Budget(claims=claims, cores=2.0, memory_bytes=1_200_000_000),
    )
    assert decide_pool_size(seen).size == 3
    history.observe(decision(seen, decide_pool_size(seen), new=3))
    text = told(history)
    assert "1,000.0 MB available - 200.0 MB kept free - 0.0 MB that workers may still take = 800.0 MB" in text
    assert "N_mem = 2 + 800.0 MB / 100.0 MB a worker = 10" in text
    assert "own: 3 of 9 wanted, at least 1; 0.05 of a core and 100.0 MB each, weight 1" in text
    assert "other: 9 of 9 wanted, at least 1; 0.05 of a core and 100.0 MB each, weight 3, first" in text


def test_floor_is_the_signals_value_over_its_target_and_a_rejected_signal_is_named(history: History) -> None:
    history.observe(decision(BAND, decide_size_bounds(BAND)))
    text = told(history)
    assert "load broker: ceil(130 / 20) = 7 workers as floor" in text
    assert "limit database: rejected (stale: the sample is 90 s old)" in text
    assert "floor 7, ceiling 16" in text


def test_size_by_query_results_is_depth_and_busy_workers(history: History) -> None:
    history.observe(decision(TARGET, decide_query_size(TARGET), new=20))
    text = told(history)
    assert "commands: 18 tasks wait + 2.00 run = 20.00" in text
    assert "c = 0.50 / (2.00 - 0.00) = 0.25 of a core" in text


def test_last_change_and_the_hold_after_it_are_both_shown(history: History) -> None:
    history.observe(decision(RUN, decide_lane_size(RUN)))
    history.observe(decision(RUN, decide_lane_size(RUN), action="hold"))
    _, _, sums = told(history).partition("\n\n")
    heads = [line for line in sums.splitlines() if not line.startswith(" ")]
    assert [head.split(":")[0] for head in heads] == ["commands up from 2 to 8", "commands stays at 8"]


def test_unknown_pool_lists_the_known_ones(history: History) -> None:
    history.observe(decision(RUN, decide_lane_size(RUN)))
    with pytest.raises(UsageError, match="choose from commands"):
        told(history, pool="threads")


def test_nothing_decided_yet_is_one_clear_error(history: History) -> None:
    with pytest.raises(UsageError, match="no decision yet"):
        told(history)


def test_json_has_observation_and_decision(history: History) -> None:
    history.observe(decision(RUN, decide_lane_size(RUN)))
    (entry,) = json.loads(told(history, output="json"))
    assert entry["situation"]["observation"]["cores"] == 2.0
    assert entry["choice"]["size"] == decide_lane_size(RUN).size


def replayed(history: History, output: str = "text") -> tuple[int, str]:
    stdout = io.StringIO()
    code = explain.run_replay(history, pool=None, since_seconds=0.0, output=output, stdout=stdout)
    return code, stdout.getvalue()


def test_replay_of_todays_decisions_is_the_same_to_the_byte(history: History) -> None:
    for seen, choice in (
        (RUN, decide_lane_size(RUN)),
        (STREAM, decide_pool_size(STREAM)),
        (BAND, decide_size_bounds(BAND)),
        (TARGET, decide_query_size(TARGET)),
    ):
        history.observe(decision(seen, choice))
    assert replayed(history) == (0, "4 decisions: 4 identical, 0 different\n")


def test_fields_of_a_later_version_are_no_difference(history: History) -> None:
    choice = json.loads(serialize_decision(decide_pool_size(STREAM)))
    del choice["state"]["trial"], choice["reason"]
    history.observe(replace(decision(STREAM, decide_pool_size(STREAM)), choice=json.dumps(choice)))
    text = "1 decision: 0 identical, 1 identical except for fields that were not recorded, 0 different\n"
    assert replayed(history) == (0, text)
    assert json.loads(replayed(history, "json")[1])["agreeing"] == 1


def test_replay_shows_where_todays_policy_decides_otherwise(history: History) -> None:
    other = replace(decide_lane_size(RUN), size=99)
    history.observe(decision(RUN, other))
    code, text = replayed(history)
    assert code == 1
    assert re.search(r"commands: up \(demand\), size 99 -> up \(demand\), size 8", text)
    assert json.loads(replayed(history, "json")[1])["different"][0]["today"]["size"] == 8


def test_replay_counts_decisions_of_which_a_part_was_stored(history: History) -> None:
    waiting = tuple(LoadGroup(load=Load(pool="commands", stage=f"s{n}", cpu_demand=0.0), count=1) for n in range(200))
    observation = replace(RUN, waiting=waiting, ceiling=500)
    history.observe(decision(observation, decide_lane_size(observation)))
    code, text = replayed(history)
    assert code == 0
    assert "1 can't be compared: the history has only a part of their stages" in text
    assert "and 100 more, which the history does not have" in told(history)


def test_decision_of_another_version_is_named_and_ends_nothing(history: History) -> None:
    history.observe(
        replace(decision(RUN, decide_lane_size(RUN)), situation='{"kind": "lane", "observation": {"other": 1}}')
    )
    history.observe(decision(BAND, decide_size_bounds(BAND)))
    code, text = replayed(history)
    assert code == 1
    assert "2 decisions: 1 identical, 1 different" in text
    assert "recorded by another version" in text


def test_nothing_to_replay_is_one_clear_error(history: History) -> None:
    with pytest.raises(UsageError, match="no decision to replay"):
        replayed(history)


def test_plain_sentences_on_the_decisions_come_first_in_order_of_time(history: History) -> None:
    later = replace(decision(STREAM, decide_pool_size(STREAM), new=7), pool="threads", reason="demand")
    held = replace(decision(RUN, decide_lane_size(RUN), action="hold"), old_size=8, new_size=8, reason="stale")
    history.observe(replace(later, at_timestamp_seconds=START_TIMESTAMP_SECONDS + 60))
    history.observe(replace(held, at_timestamp_seconds=START_TIMESTAMP_SECONDS + 30))
    sentences, _, sums = told(history).partition("\n\n")
    assert [line.split("  ", 1)[1] for line in sentences.splitlines()] == [
        "commands stayed at 8 workers, because the answer to a query was too old.",
        "threads grew from 2 to 7 workers, because tasks were waiting, and the cores had room for them.",
    ]
    assert sums.index("commands stays at 8") < sums.index("threads up from 2 to 7")


def sentence(history: History) -> str:
    return told(history).partition("\n\n")[0].split("  ", 1)[1]


def test_decision_about_bounds_names_them_and_no_size(history: History) -> None:
    chosen = decide_size_bounds(BAND)
    history.observe(replace(decision(BAND, chosen), old_size=1, new_size=7, reason="load"))
    assert sentence(history) == "the floor of commands rose from 1 to 7 workers, because a load signal asked for more."
    assert "commands bounds up from 1-16 to 7-16: load  (" in told(history)
    over = replace(BAND, signals=(replace(BAND.signals[1], reading=Reading(value=1.6)),), size=16)
    cut = decide_size_bounds(over)
    history.observe(replace(decision(over, cut), old_size=1, new_size=1, action=cut.action, reason=cut.reason))
    why = "because a limit signal was above its target."
    assert sentence(history) == f"the ceiling of commands fell from 16 to 8 workers, {why}"


@pytest.mark.parametrize(
    ("floor", "old", "new", "why"),
    [
        (1, 2, 8, "tasks were waiting, and its ceiling allows no more"),
        (4, 2, 4, "its floor was higher"),
        (4, 6, 4, "fewer were needed, and its floor allows no less"),
        (1, 12, 8, "its ceiling was lower"),
    ],
)
def test_bounds_are_the_cause_of_a_move_only_if_they_have_changed(
    history: History, floor: int, old: int, new: int, why: str
) -> None:
    moved = replace(decision(RUN, decide_lane_size(RUN)), reason="bounds", old_size=old, new_size=new)
    terms = {"floor": float(floor), "ceiling": 8.0}
    history.observe(replace(moved, action="up" if new > old else "down", terms=terms))
    assert sentence(history).endswith(f", because {why}.")


def test_limit_that_holds_a_lowered_ceiling_is_not_called_broken(history: History) -> None:
    """It stays until the value is under 90 % of the target, and for four intervals at least."""
    held = replace(decision(RUN, decide_lane_size(RUN)), action="hold", reason="limit", old_size=4, new_size=4)
    history.observe(held)
    assert sentence(history) == "commands stayed at 4 workers, because a limit signal allows no more."


def test_times_are_local_as_in_history_and_utc_in_json(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = decision(RUN, decide_lane_size(RUN))
    history.observe(replace(recorded, at_timestamp_seconds=START_TIMESTAMP_SECONDS))  # 2023-11-14 22:13:20 UTC
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        text, printed = told(history), told(history, output="json")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert text.startswith("2023-11-15 07:13:20  commands ")
    assert "(2023-11-15 07:13:20)" in text
    assert json.loads(printed)[0]["timestamp"] == "2023-11-14T22:13:20+00:00"


def test_every_reason_has_its_sentence() -> None:
    known = {action: frozenset(clauses) for action, clauses in explanation.BY_ACTION.items()}
    assert known == {action: frozenset(reasons) for action, reasons in families.DECISION_REASONS.items()}


def test_flag_since_replays_older_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 'name: a, run: "true"')
    monkeypatch.chdir(tmp_path)
    made = replace(decision(RUN, decide_lane_size(RUN)), at_timestamp_seconds=time.time() - 2 * 3600)
    with closing(History(tmp_path / ".paropt/history.db", project="demo", clock=SystemClock())) as history:
        history.observe(made)
    assert main.main(["replay"]) == 2
    assert "no decision to replay: none was recorded in that time (--since)" in capsys.readouterr().err
    assert main.main(["replay", "--since", "3h"]) == 0
    assert "1 decision" in capsys.readouterr().out
