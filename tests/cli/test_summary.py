"""The closing summary, word for word."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.cli import formatting, summary
from paropt_exporter.events import (
    Bottleneck,
    PoolUse,
    Result,
    RunRecord,
    Scope,
    StageRecord,
    Strategy,
    TaskRecord,
)
from paropt_exporter.plan import Flakiness
from support.lanes import limit


def stage(name: str, number: int, seconds: float, result: Result = Result.SUCCESS, **fields: Any) -> StageRecord:
    defaults: dict[str, Any] = {
        "run_id": "r1",
        "lane": "standard",
        "stage": name,
        "number": number,
        "result": result,
        "message": "",
        "pool": "commands",
        "tasks": 1,
        "tasks_failed": 0,
        "attempts": 1,
        "duration_seconds": seconds,
        "started_timestamp_seconds": 1.0,
    }
    return StageRecord(**(defaults | fields))


def run(*stages: StageRecord, result: Result = Result.SUCCESS, **fields: Any) -> RunRecord:
    defaults: dict[str, Any] = {
        "run_id": "r1",
        "lane": "standard",
        "strategy": Strategy.ADAPTIVE,
        "result": result,
        "reason": "",
        "duration_seconds": 7.4,
        "started_timestamp_seconds": 1.0,
        "ended_timestamp_seconds": 8.4,
        "stages": stages,
        "sequential_seconds": 21.3,
        "busy_ratio": 0.81,
    }
    return RunRecord(**(defaults | fields))


def failed_task(name: str, output: str) -> TaskRecord:
    return TaskRecord(
        run_id="r1",
        lane="standard",
        stage=name,
        task=0,
        item=None,
        attempt=1,
        final=True,
        result=Result.FAILURE,
        message="exit 1",
        pool="commands",
        worker="commands-1",
        ready_seconds=0,
        started_seconds=0,
        ended_seconds=1,
        started_timestamp_seconds=1,
        output=output,
    )


def test_summary_of_a_bad_run_starts_with_the_worst_news() -> None:
    record = run(
        stage("quality_gates", 2, 0.9),
        stage("type_checking", 3, 2.1, Result.FAILURE, message="exit 1"),
        stage("unit_tests", 4, 27.4, sla=limit(30), warned=True),
        stage("integration_tests", 5, 0, Result.SKIP, message="needs type_checking"),
        stage("security_scan", 6, 6.0),
        result=Result.FAILURE,
        pools=(
            PoolUse(name="threads", start_size=4, peak_size=7, reason="demand", busy_seconds=8, slot_seconds=9),
            PoolUse(name="processes", start_size=2, peak_size=2, reason="plan", busy_seconds=1, slot_seconds=2),
        ),
        bottlenecks=(
            Bottleneck(
                kind="slow",
                stage="unit_tests",
                sentence="unit_tests is slow: 2.6x the average stage",
                advice="split it",
            ),
        ),
    )
    failed = {"type_checking": [failed_task("type_checking", "app.py:31: error: Incompatible return value\n\n")]}
    assert summary.format_summary(record, failed, metrics_url="http://127.0.0.1:10178/metrics") == "\n".join(
        [
            "standard failed · 4 stages, 1 skipped, 4 tasks in 7.4 s (one after another 21.3 s: 2.9x)",
            "  x type_checking         2.1 s  exit 1",
            "      app.py:31: Incompatible return value",
            "  ! unit_tests           27.4 s  SLA 30 s, warned at 24 s",
            "    security_scan         6.0 s",
            "    quality_gates         0.9 s",
            "    integration_tests  skipped: needs type_checking",
            "  pools    threads 4 -> 7 (demand) · processes 2 · 81 % busy".replace("81 %", "81%"),
            "  slowest  unit_tests is slow: 2.6x the average stage; split it",
            "  metrics  http://127.0.0.1:10178/metrics",
            "  again    paropt-exporter --lane standard --failed",
        ]
    )


def test_paths_in_the_project_are_shown_without_its_folder() -> None:
    """Whole paths of eslint and pyright took half of a line."""
    failed = {
        "lint": [failed_task("lint", "/src/shop/app.py:31:5: error: Bad value\n/src/shop2/a.py:1: error: Worse\n")]
    }
    shown = summary.format_summary(run(stage("lint", 1, 1.0, Result.FAILURE)), failed, folder="/src/shop")
    assert "      app.py:31:5: Bad value\n      /src/shop2/a.py:1: Worse" in shown
    shown = summary.format_summary(run(stage("lint", 1, 1.0, Result.FAILURE)), failed)
    assert "      /src/shop/app.py:31:5: Bad value\n" in shown


@pytest.mark.parametrize(("sequential", "told"), [(0.7, ""), (7.9, ""), (8.2, " (one after another 8.2 s: 1.1x)")])
def test_speed_up_is_shown_if_there_is_one(sequential: float, told: str) -> None:
    record = run(stage("a", 2, 3), stage("b", 3, 4), sequential_seconds=sequential)
    assert (
        summary.format_summary(record, {}).splitlines()[0] == f"standard succeeded · 2 stages, 2 tasks in 7.4 s{told}"
    )


def test_advice_about_a_stage_is_the_hint() -> None:
    record = run(stage("a", 2, 3, advice="a: use {items}"), bottlenecks=(IDLE,))
    assert summary.format_summary(record, {}).splitlines()[-1] == "  hint     a: use {items}"


def test_advice_about_the_only_stage_is_the_hint() -> None:
    record = run(stage("a", 2, 20), advice="split a in two (items)")
    assert summary.format_summary(record, {}).splitlines()[-1] == "  hint     split a in two (items)"


SLOW = Bottleneck(kind="slow", stage="unit", sentence="unit is slow", advice="split it")
QUICK = Bottleneck(kind="slow", stage="lint", sentence="lint is slow", advice="split it")
IDLE = Bottleneck(kind="under_used", stage=None, sentence="workers were idle", advice="2 workers do")
DIFFER = Bottleneck(kind="uneven", stage=None, sentence="stages are uneven", advice="split unit")
OTHER = Bottleneck(kind="gil_bound", stage="lint", sentence="lint is CPU-bound", advice="run it in processes")
UNHELPFUL = (
    Bottleneck(kind="slow", stage="unit", sentence="unit is slow"),
    Bottleneck(kind="saturated", stage=None, sentence="workers were busy"),
)


@pytest.mark.parametrize(
    ("found", "hints"),
    [
        ((SLOW, DIFFER), ["  slowest  unit is slow; split it"]),
        (
            (QUICK, SLOW, OTHER),
            ["  slowest  unit is slow; split it", "  hint     lint is CPU-bound; run it in processes"],
        ),
        ((*UNHELPFUL, DIFFER, IDLE), ["  hint     stages are uneven; split unit"]),
        (UNHELPFUL, []),
    ],
    ids=["the slowest alone", "another stage too", "a slow one that decided nothing", "no advice"],
)
def test_hint_is_shown_if_there_is_advice(found: tuple[Bottleneck, ...], hints: list[str]) -> None:
    record = run(stage("lint", 2, 1), stage("unit", 3, 6.0), bottlenecks=found)
    assert summary.format_summary(record, {}).splitlines()[3:] == hints


def test_run_of_less_than_a_second_gets_no_hints() -> None:
    record = run(stage("unit", 3, 0.9), duration_seconds=0.9, bottlenecks=(SLOW, IDLE))
    assert summary.format_summary(record, {}).count("\n") == 1


def test_summary_breaks_its_lines_between_words_but_not_what_one_copies() -> None:
    finding = "app.py:31: error: Incompatible return value, and more words than a line has"
    record = run(
        stage("type_checking", 3, 2.1, Result.FAILURE, message="exit 1, and one more sentence about it"),
        stage("unit_tests", 4, 7.0),
        result=Result.FAILURE,
        pools=(PoolUse(name="threads", start_size=4, peak_size=7, reason="demand", busy_seconds=8, slot_seconds=9),),
    )
    failed = {"type_checking": [failed_task("type_checking", finding)]}
    told = summary.format_summary(record, failed, columns=40)
    assert told == "\n".join(
        [
            "standard failed · 2 stages, 2 tasks in",
            "  7.4 s (one after another 21.3 s: 2.9x)",
            "  x type_checking     2.1 s  exit 1, and",
            "      one more sentence about it",
            "      app.py:31: Incompatible return value, and more words than a line has",
            "    unit_tests        7.0 s",
            "  pools    threads 4 -> 7 (demand) · 81%",
            "           busy",
            "  again    paropt-exporter --lane standard --failed",
        ]
    )


@given(st.text("ab 界", max_size=60), st.integers(1, 30), st.integers(0, 8))
def test_wrapped_lines_have_all_words_and_fit_unless_one_word_does_not(line: str, columns: int, indent: int) -> None:
    lines = formatting.wrap_line(line, columns, indent)
    assert " ".join(lines).split() == line.split()
    for each in lines[1:]:
        assert each[:indent] == " " * indent
    for each in lines:
        assert formatting.count_columns(each) <= columns or len(each.split()) == 1


def test_wrapped_lines_break_no_duration() -> None:
    assert formatting.wrap_line("tests took (15 min 02 s), usually 0.2 s: slower", 16, 0) == [
        "tests took",
        "(15 min 02 s),",
        "usually 0.2 s:",
        "slower",
    ]


@pytest.mark.parametrize(
    ("text", "columns"), [("lint", 4), ("é", 1), ("e\u0301", 1), ("界", 2), ("ปี", 1), ("a\u200db", 2), ("⚠\ufe0f", 1)]
)
def test_width_is_that_of_a_terminal(text: str, columns: int) -> None:
    assert formatting.count_columns(text) == columns


def test_lane_whose_name_has_spaces_is_quoted_in_the_command_that_runs_it_again() -> None:
    record = run(stage("lint", 2, 9.0, Result.FAILURE, message="exit 1"), result=Result.FAILURE, lane="all checks")
    assert summary.format_summary(record, {}).endswith("\n  again    paropt-exporter --lane 'all checks' --failed")


def test_successful_run_has_a_short_summary() -> None:
    assert summary.format_summary(run(stage("lint", 2, 3.0)), {}) == "\n".join(
        ["standard succeeded · 1 stage, 1 task in 7.4 s", "    lint     3.0 s"]
    )


def test_stage_that_takes_much_longer_than_usual_says_so() -> None:
    record = run(stage("unit", 2, 3.0), stage("lint", 3, 3.0), stage("scan", 4, 0.5), stage("new", 5, 9.0))
    lines = summary.format_summary(record, {}, usual={"unit": 0.2, "lint": 2.0, "scan": 0.1}).splitlines()
    assert [line for line in lines if "usual" in line] == ["    unit     3.0 s  slower than usual (0.2 s)"]


def test_failure_is_not_compared_with_the_usual_duration() -> None:
    record = run(stage("unit", 2, 9.0, Result.FAILURE, message="exit 1"), result=Result.FAILURE)
    assert "usual" not in summary.format_summary(record, {}, usual={"unit": 0.2})


def test_thousand_stages_have_few_lines_and_bad_news_first() -> None:
    good = [stage(f"good_{number:03}", number, 900.0 - number) for number in range(900)]
    skipped = [stage(f"left_{number:02}", 1000 + number, 0, Result.SKIP, message="needs bad") for number in range(75)]
    bad = [stage(f"bad_{number:02}", 2000 + number, 1, Result.FAILURE, message="exit 1") for number in range(25)]
    failed = {each.stage: [failed_task(each.stage, "a.py:1: error: x\nb.py:2: error: y\n")] for each in bad}
    lines = summary.format_summary(run(*good, *skipped, *bad, result=Result.FAILURE), failed).splitlines()
    assert lines[0].startswith("standard failed · 925 stages, 75 skipped, 925 tasks in 7.4 s")
    assert lines[1:3] == ["  x bad_00       1.0 s  exit 1", "      a.py:1: x"]
    names = ", ".join(f"bad_{number}" for number in range(10, 20))
    assert lines[21:] == [
        f"    … 15 more failed: {names}, …",
        "    good_000  15 min 00 s",
        "    good_001  14 min 59 s",
        "    good_002  14 min 58 s",
        "    … 897 more succeeded, in 14 min 57 s at most",
        "    left_00   skipped: needs bad",
        "    left_01   skipped: needs bad",
        "    … 73 more skipped: " + ", ".join(f"left_{number:02}" for number in range(2, 12)) + ", …",
        "  again    paropt-exporter --lane standard --failed",
    ]


def test_success_of_a_thousand_stages_fits_in_ten_lines() -> None:
    good = [stage(f"good_{number:03}", number, 900.0 - number) for number in range(1000)]
    assert len(summary.format_summary(run(*good), {}, metrics_url="http://localhost/metrics").splitlines()) <= 10


def test_each_exception_to_a_success_is_named() -> None:
    stages = [stage(f"left_{number:02}", number, 0, Result.SKIP, message="no items") for number in range(40)]
    text = summary.format_summary(run(*stages), {})
    assert all(f"left_{number:02}" in text for number in range(40))


def test_very_long_name_leaves_the_other_lines_whole_and_wide_characters_keep_the_columns() -> None:
    good = run(stage("a_name_" * 12, 1, 3.0), stage("検査", 2, 2.0), stage("lint", 3, 1.0))
    assert summary.format_summary(good, {}).splitlines()[1:4] == [
        f"    {'a_name_' * 12}     3.0 s",
        "    検査     2.0 s",
        "    lint     1.0 s",
    ]


def test_message_with_a_long_item_is_cut_to_two_lines() -> None:
    bad = run(stage("unit", 1, 3.0, Result.FAILURE, message="y" * 300_000), result=Result.FAILURE)
    assert max(map(len, summary.format_summary(bad, {}).splitlines())) < 200


def test_output_that_ends_with_the_message_is_shown_once() -> None:
    record = run(stage("call", 2, 1, Result.FAILURE, message="ValueError: no"), result=Result.FAILURE)
    text = summary.format_summary(record, {"call": [failed_task("call", "Traceback ...\nValueError: no\n")]})
    assert text.count("ValueError: no") == 1


def test_failed_check_is_shown_by_its_findings_not_by_its_last_line() -> None:
    record = run(stage("lint", 2, 1, Result.FAILURE, message="exit 1"), result=Result.FAILURE)
    output = "".join(f"a.py:{n}:1: F401 `os` imported but unused\n" for n in range(1, 56))
    output += "Found 55 errors.\n[*] 5 fixable with `--fix`.\n"
    assert summary.format_summary(record, {"lint": [failed_task("lint", output)]}).splitlines()[2:6] == [
        "      a.py:1:1: `os` imported but unused [F401]",
        "      a.py:2:1: `os` imported but unused [F401]",
        "      a.py:3:1: `os` imported but unused [F401]",
        "      … 52 more",
    ]


def test_failure_of_an_unknown_program_is_shown_by_its_first_and_last_lines() -> None:
    record = run(stage("a", 2, 1, Result.FAILURE, message="exit 1"), result=Result.FAILURE)
    output = "".join(f"line {n}\n" for n in range(1, 8)) + "x" * 300_000
    lines = summary.format_summary(record, {"a": [failed_task("a", output)]}).splitlines()
    assert lines[2:5] == ["      line 1", "      … 5 lines", "      line 7"]
    assert lines[5] == f"      {'x' * 160} …"


def test_critical_violation_and_an_interrupt_say_why_in_the_first_line() -> None:
    broken = run(stage("a", 2, 3), result=Result.FAILURE, reason="a broke its critical SLA of 3 s", critical_sla=True)
    assert summary.format_summary(broken, {}).startswith("standard failed: a broke its critical SLA of 3 s · ")
    stopped = run(stage("a", 2, 3), result=Result.CANCELLATION, reason="interrupted by SIGINT", interrupted=True)
    assert summary.format_summary(stopped, {}).startswith("standard interrupted by SIGINT · ")


def test_critical_violation_appears_once() -> None:
    why = "slow broke its critical SLA of 1 s"
    broken = run(
        stage("slow", 1, 1, Result.FAILURE, message="broke its critical SLA of 1 s", sla=limit(1), broken=True),
        stage("other", 2, 1, Result.CANCELLATION, message=f"stopped: {why}"),
        stage("after", 3, 0, Result.SKIP, message=why),
        result=Result.FAILURE, reason=why, critical_sla=True,
    )  # fmt: skip
    lines = [" ".join(line.split()) for line in summary.format_summary(broken, {}).splitlines()]
    assert lines[0].startswith(f"standard failed: {why} · ")
    assert lines[1:4] == ["x slow 1.0 s broke its critical SLA of 1 s", "- other 1.0 s stopped", "after skipped"]
    why = "standard broke its critical total of 5 s"
    broken = run(
        stage("other", 2, 1, Result.CANCELLATION, message=f"stopped: {why}"),
        result=Result.FAILURE, reason=why, critical_sla=True, total=limit(5), warned=True, broken=True,
    )  # fmt: skip
    assert summary.format_summary(broken, {}).count("broke") == 1


def test_broken_total_is_shown_beside_a_critical_stage() -> None:
    why = "slow broke its critical SLA of 2 s"
    broken = run(
        stage("slow", 1, 2, Result.FAILURE, message="broke its critical SLA of 2 s", sla=limit(2), broken=True),
        result=Result.FAILURE, reason=why, critical_sla=True, total=limit(1), warned=True, broken=True,
    )  # fmt: skip
    assert ": broke 1.0 s" in summary.format_summary(broken, {})


def test_saved_time_of_several_tasks_is_no_duration_of_the_stage() -> None:
    cached = [stage(f"unit_{tasks}", tasks, 0, tasks=tasks, tasks_cached=tasks, saved_seconds=9.0) for tasks in (1, 3)]
    lines = summary.format_summary(run(*cached), {}).splitlines()[1:3]
    assert [line.split(maxsplit=1)[1] for line in lines] == ["cached  took 9.0 s", "cached  3 tasks took 9.0 s"]


def test_retries_are_counted_beside_cached_tasks() -> None:
    record = run(stage("unit_tests", 4, 2.0, tasks=3, tasks_cached=2, attempts=2, cache_note="a.py changed"))
    assert "after 1 retry  a.py changed" in summary.format_summary(record, {})


def test_retries_a_broken_total_and_threads_left_behind_are_named() -> None:
    record = run(
        stage("a", 2, 3, attempts=3), total=limit(5), warned=True, broken=True, abandoned=("b",), busy_ratio=0.5
    )
    text = summary.format_summary(record, {})
    assert "after 2 retries" in text
    assert "! total 7.4 s: broke 5.0 s" in text
    assert "left     b still runs in its thread" in text


def test_flaky_stage_is_named_with_its_ratio() -> None:
    known = {"b": Flakiness(first_attempts=119, flaky_attempts=2), "c": Flakiness(first_attempts=9, flaky_attempts=1)}
    record = run(
        stage("a", 1, 3, attempts=2, flaky_attempts=1, first_attempts=1),
        stage("b", 2, 2, flaky_attempts=1, first_attempts=1),
        stage("c", 3, 1, first_attempts=1),
    )
    lines = summary.format_summary(record, {}, flakiness=known).splitlines()
    assert "after 1 retry  flaky: failed, then passed with the same files" in lines[1]
    assert lines[2].endswith("flaky: 3 of 120 first attempts failed, then passed")
    assert "flaky" not in lines[3]


def test_each_of_many_failed_stages_shows_its_last_line() -> None:
    record = run(*(stage(name, 1, 1, Result.FAILURE, message="exit 1") for name in "abcd"), result=Result.FAILURE)
    text = summary.format_summary(record, {name: [failed_task(name, "checking\nwrong\n")] for name in "abcd"})
    assert text.count("      wrong") == 4
    assert "checking" not in text


def test_run_in_which_nothing_ran_has_no_line_about_pools() -> None:
    pools = (PoolUse(name="commands", start_size=2, peak_size=2, reason="", busy_seconds=0, slot_seconds=1),)
    cached = stage("a", 1, 0, tasks_cached=1, attempts=0, scope=Scope.CACHED)
    skipped = stage("b", 2, 0, Result.SKIP, attempts=0)
    assert "pools" not in summary.format_summary(run(cached, skipped, pools=pools), {})
    assert "pools" in summary.format_summary(run(cached, stage("c", 3, 1), pools=pools), {})


def test_no_escape_sequence_reaches_the_terminal() -> None:
    record = run(stage("a", 2, 1, Result.FAILURE, message="it\x1b[31m failed\nbadly"), result=Result.FAILURE)
    text = summary.format_summary(record, {"a": [failed_task("a", "\x1b]0;title\x07 last")]})
    assert "\x1b" not in text
    assert "\x07" not in text


def test_durations_read_well_at_every_size() -> None:
    assert [formatting.format_seconds(value) for value in (0.004, 0.42, 9.96, 27.44, 119.9, 185, 7500)] == [
        "0.00 s",
        "0.4 s",
        "10.0 s",
        "27.4 s",
        "119.9 s",
        "3 min 05 s",
        "2 h 05 min",
    ]


def test_table_is_cut_on_a_terminal_only() -> None:
    """`--list` and `plan` cut commands at 100 characters, also in a file or a pipe, where others search for them."""
    headers, rows = ("stage", "work"), [("a", "echo " + "b" * 200_000)]
    assert formatting.format_cut_table(headers, rows, None, dispensable=()) == ["stage  work", f"a      {rows[0][1]}"]
    assert formatting.format_cut_table(headers, rows, 20, dispensable=())[1] == "a      echo bbbbbbb…"


def test_last_column_without_room_for_a_word_is_left_out() -> None:
    """At 60 columns `--list` cut all descriptions to an ellipsis."""
    headers, rows = ("stage", "needs", "description"), [("a" * 38, "b", "checks the types"), ("c", "-", "tests")]
    cut = [formatting.format_cut_table(headers, rows, columns, dispensable=("needs",)) for columns in (48, 42)]
    assert cut[0][1].endswith(f"{'a' * 38}  checks …") and cut[1] == ["stage", "a" * 38, "c"]


def test_long_names_are_cut_before_columns_are_left_out() -> None:
    """One name of 54 letters cost `plan` the limits, needs and commands of all stages on a terminal of 80 columns."""
    headers, rows = ("stage", "needs", "limit"), [("a" * 54, "b", "30.0 s"), ("c", "-", "1.0 s")]
    assert formatting.format_fitting_table(headers, rows, 60, dispensable=("needs",)) == [
        f"{'stage':40}  needs  limit",
        f"{'a' * 39}…  b      30.0 s",
        f"{'c':40}  -      1.0 s",
    ]
    assert formatting.format_fitting_table(headers, rows, 70, dispensable=("needs",))[1].startswith("a" * 54)
