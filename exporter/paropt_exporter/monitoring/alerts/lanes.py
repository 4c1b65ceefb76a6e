"""Alerts on lanes: overdue, slower than they were, unevenly cut."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.events import Result
from paropt_exporter.monitoring.alerts import questions, recording
from paropt_exporter.monitoring.alerts.rules import OF_LANE, Alert, Board, Condition, Level, Query
from paropt_exporter.monitoring.alerts.series import FAILED, Series, held_up
from paropt_exporter.monitoring.options import Options
from paropt_exporter.promql import Without

_THROUGHPUT_RATIO = "0.8"  # the tuning guide: under 80 % of the average is a degradation
_SPAN, _PAST = recording.THROUGHPUT_SPAN, recording.THROUGHPUT_PAST
_ENOUGH_RUNS = 5  # an average of fewer is no past to compare with


def alerts(options: Options) -> tuple[Alert, ...]:
    """Return the alerts of this module."""
    series = Series(options)
    return (
        _overdue(series),
        _slower(series),
        _uneven_lane(series),
    )


def _overdue(series: Series) -> Alert:
    return Alert(
        name="ParoptLaneNotSucceeding",
        conditions=(Condition(expr=_two_periods_ago(series), level=Level.WARNING, hold="5m"),),
        summary="A lane has not succeeded for over two of its periods.",
        description=(
            "Lane {{ $labels.lane }} (project {{ $labels.project }}) on {{ $labels.instance }} runs at an interval, "
            "and its last success is more than two intervals ago, or it has never succeeded."
        ),
        board=Board.LANE,
        link=OF_LANE,
        meaning=(
            "The lane runs with `--every`. Its last success is older than two full periods, or at least two runs have "
            "ended and none has succeeded."
        ),
        impact="Nobody knows whether what the lane checks still holds.",
        diagnosis=(
            Query(question="How many periods ago was the last success?", expr=_periods_ago(series)),
            Query(
                question="Has it run at all since (seconds since a run ended)?",
                expr=f"time() - {series.now(families.RUN_LAST_COMPLETION)}",
            ),
            Query(
                question="Which stages keep it from succeeding?",
                expr=f"{series.now(families.STAGE_LAST_RESULT, result=FAILED)} == 1",
            ),
        ),
        mitigation=(
            "It runs and fails: see [ParoptStageFailing](#paroptstagefailing).",
            "It does not end: see [ParoptStageStuck](#paroptstagestuck).",
            "Its runs take longer than `--every` says: they never overlap, so each delays the next. Lengthen the "
            "interval.",
            "It was interrupted each time (`cancellation`): look for what stops the process, a deployment perhaps.",
        ),
    )


def _two_periods_ago(series: Series) -> str:
    """Ask for lanes with a period whose last success is two of those ago, or that ended twice and never succeeded."""
    succeeded, interval = series.held(families.RUN_LAST_SUCCESS), series.held(families.RUN_INTERVAL)
    unsuccessful = series.held(families.RUNS, result=Without((Result.SUCCESS.value,)))
    return (
        f"time() - {succeeded} > 2 * {interval}\n"
        f"or\n(\n  sum without (result) ({unsuccessful}) >= 2\nand\n  {interval}\n)\n"
        f"unless\n{succeeded}"
    )


def _periods_ago(series: Series) -> str:
    succeeded, interval = series.now(families.RUN_LAST_SUCCESS), series.now(families.RUN_INTERVAL)
    return f"(time() - {succeeded}) / on (job, instance, project, lane) {interval}"


def _slower(series: Series) -> Alert:
    return Alert(
        name="ParoptThroughputLow",
        conditions=(Condition(expr=_below_the_past(series), level=Level.WARNING, hold="30m"),),
        summary="A lane's throughput is under 80 % of its own past.",
        description=(
            "Lane {{ $labels.lane }} (project {{ $labels.project }}) did {{ $value | humanize }} tasks in a second of "
            f"running over the last {_SPAN}, under 80 % of what it did over the {_PAST} before."
        ),
        board=Board.LANE,
        link=("job", "project", "lane"),
        meaning=(
            f"Tasks that ran to their end, divided by the time that runs took: the last {_SPAN} against the {_PAST} "
            "before them. Time between runs does not count, so a lane that runs less often is not meant."
        ),
        impact="The lane takes longer for the same work; limits that hold today may break soon.",
        diagnosis=(
            Query(
                question="How much slower is it (1: as fast as before)?",
                expr=(
                    f"{recording.tasks(series, _SPAN)} / ({recording.run_seconds(series, _SPAN)} > 0)"
                    f" / ({_throughput(series, _PAST)} > 0)"
                ),
            ),
            Query(
                question="Which stages take longer than yesterday (seconds more, mean)?",
                expr=(
                    f"topk(10, avg by (lane, stage) ({series.now(families.STAGE_LAST_DURATION)})"
                    f" - avg by (lane, stage) (avg_over_time({series.now(families.STAGE_LAST_DURATION)}[1d])))"
                ),
            ),
            questions.run_delay(series),
        ),
        mitigation=(
            "`paropt-exporter history --compare RUN RUN`, a run of before against one of now, shows what changed.",
            "Every stage slower alike: the machine has less to give (neighbours, throttling, a smaller runner).",
            "One stage slower: the change that touched it. New work that takes longer by nature ends this alert by "
            "itself, as it becomes the past.",
        ),
    )


def _below_the_past(series: Series) -> str:
    """Ask for lanes whose throughput is under a share of what it was before, where there is a past to compare with."""
    before = f" offset {_SPAN}"
    return (
        f"{_throughput(series, _SPAN)}\n<\n{_THROUGHPUT_RATIO} * ({_throughput(series, _PAST, before)})\n"
        f"and\n{recording.runs(series, _PAST)}{before} >= {_ENOUGH_RUNS}"
    )


def _throughput(series: Series, over: str, offset: str = "") -> str:
    """Return tasks in a second of running; `offset`: PromQL's modifier, for a time in the past."""
    return f"{recording.tasks(series, over)}{offset} / {recording.run_seconds(series, over)}{offset}"


def _uneven_lane(series: Series) -> Alert:
    return Alert(
        name="ParoptLaneUneven",
        conditions=(held_up(series, families.LANE_BOTTLENECK, "uneven", Level.INFO),),
        summary="A lane's stages differ in duration by more than three times.",
        description=(
            "In lane {{ $labels.lane }} (project {{ $labels.project }}) on {{ $labels.instance }} the slowest stage "
            "takes more than three times as long as the fastest."
        ),
        board=Board.LANE,
        link=OF_LANE,
        meaning="In the last run the lane's slowest stage took over three times as long as its fastest.",
        impact="With one worker a stage most of them are idle for most of the run.",
        diagnosis=(
            Query(
                question="Which are the longest stages (seconds)?",
                expr=f"topk(5, {series.now(families.STAGE_LAST_DURATION)})",
            ),
            Query(
                question="And the shortest?",
                expr=f"bottomk(5, {series.now(families.STAGE_LAST_DURATION)})",
            ),
        ),
        mitigation=("Split the longest stage (`items`); see [ParoptStageSlow](#paroptstageslow).",),
    )
