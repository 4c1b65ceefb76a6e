"""Alerts on lanes and stages: failing, stuck, overdue, slower than they were, badly cut."""

from __future__ import annotations

from paropt_exporter import catalogue
from paropt_exporter.generate.alerts import questions, recording
from paropt_exporter.generate.alerts.rules import Alert, Board, Condition, Level, Query
from paropt_exporter.generate.alerts.series import Series
from paropt_exporter.generate.options import Options
from paropt_exporter.promql import Without
from paropt_exporter.records import Result

_STAGE = ("job", "instance", "project", "lane", "stage")
_LANE = ("job", "instance", "project", "lane")
_FAILED = (Result.FAILURE.value, Result.ERROR.value, Result.TIMEOUT.value)
# What the last run was held up by says something once it has been so for a while, not after one odd run.
_SETTLED = "15m"
_THROUGHPUT_RATIO = "0.8"  # the tuning guide: under 80 % of the average is a degradation
_ENOUGH_RUNS = 5  # an average of fewer is no past to compare with
# A process that waits for an answer or a disk wakes now and then: less than a hundredth of a core is doing nothing.
_IDLE_CORES = "0.01"


def alerts(options: Options) -> tuple[Alert, ...]:
    """Return the alerts of this module."""
    series = Series(options)
    return (
        _failing(series),
        _stuck(series),
        _overdue(series),
        _slower(series),
        _slow_stage(series),
        _uneven_stage(series),
        _uneven_lane(series),
        _gil_bound(series),
    )


def _failing(series: Series) -> Alert:
    return Alert(
        name="ParoptStageFailing",
        conditions=(
            Condition(
                expr=f"max without (result) ({series.held(catalogue.STAGE_LAST_RESULT, result=_FAILED)}) == 1",
                level=Level.WARNING,
                hold=_SETTLED,
            ),
        ),
        summary="A stage has been failing.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} failed, erred or timed out in its last run, and no run has succeeded for 15 "
            "minutes."
        ),
        board=Board.LANE,
        link=_STAGE,
        meaning=(
            "The last run's result of the stage is `failure` (exit code or exception), `error` (could not start, or "
            "was killed) or `timeout`, and has been one of them for 15 minutes."
        ),
        impact="What the stage checks is not known to be good; stages that need it are skipped.",
        diagnosis=(
            Query(
                question="Which of the three is it?",
                expr=f"{series.now(catalogue.STAGE_LAST_RESULT, result=_FAILED)} == 1",
            ),
            Query(
                question="Since when, and does it ever succeed (runs by result over a day)?",
                expr=f"sum by (lane, stage, result) ({series.increase(catalogue.STAGE_RUNS, '1d')}) > 0",
            ),
            Query(
                question="Does it fail everywhere, or on some hosts only?",
                expr=(
                    f"count by (lane, stage) ({series.now(catalogue.STAGE_LAST_RESULT, result=_FAILED)} == 1)"
                    f" / count by (lane, stage) ({series.now(catalogue.STAGE_LAST_RESULT, result='success')})"
                ),
            ),
        ),
        mitigation=(
            "`paropt-exporter --lane LANE --failed` runs it again and shows the end of its output.",
            "`failure`: mend what the stage complains of. `error`: `paropt-exporter check` finds missing programs; a "
            "killed one may have lacked memory. `timeout`: see [ParoptStageStuck](#paroptstagestuck).",
        ),
    )


def _stuck(series: Series) -> Alert:
    return Alert(
        name="ParoptStageStuck",
        conditions=(
            Condition(
                expr=(
                    f"{series.now(catalogue.STAGE_RUNNING)} == 1\n"
                    f"and\n{series.rate(catalogue.STAGE_CPU)} < {_IDLE_CORES}\n"
                    f"and\nchanges({series.now(catalogue.STAGE_PROGRESS)}[{series.window}]) == 0"
                ),
                level=Level.WARNING,
                hold=_SETTLED,
            ),
        ),
        summary="A running stage does nothing.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} has been running for 15 minutes without using CPU and without ending a task."
        ),
        board=Board.LANE,
        link=_STAGE,
        meaning=(
            "For 15 minutes the stage, with all its descendants, has used less than a hundredth of a core, and none "
            "of its tasks has ended. It waits for something that does not come."
        ),
        impact="The lane does not end; with `--every` the next runs do not start.",
        diagnosis=(
            Query(
                question="Which stages run now, and how far are they?",
                expr=f"{series.now(catalogue.STAGE_PROGRESS)} and {series.now(catalogue.STAGE_RUNNING)} == 1",
            ),
            Query(
                question="How long does the stage take otherwise (seconds)?",
                expr=series.now(catalogue.STAGE_LAST_DURATION),
            ),
            questions.run_delay(series),
        ),
        mitigation=(
            "On the host, `ps -ef --forest` below paropt-exporter shows the process that waits; `py-spy dump` or "
            "`cat /proc/PID/stack` tells for what. A prompt for a password is a common one.",
            "End that process: the stage fails, and the lane goes on.",
            "Give the stage a `timeout`, so that this ends by itself next time.",
            "A stage that rightly waits this long for another system: silence this alert for it.",
        ),
    )


def _overdue(series: Series) -> Alert:
    succeeded, interval = series.held(catalogue.RUN_LAST_SUCCESS), series.held(catalogue.RUN_INTERVAL)
    unsuccessful = series.held(catalogue.RUNS, result=Without((Result.SUCCESS.value,)))
    return Alert(
        name="ParoptLaneNotSucceeding",
        conditions=(
            Condition(
                expr=(
                    f"time() - {succeeded} > 2 * {interval}\n"
                    f"or\n(\n  sum without (result) ({unsuccessful}) >= 2\nand\n  {interval}\n)\n"
                    f"unless\n{succeeded}"
                ),
                level=Level.WARNING,
                hold="5m",
            ),
        ),
        summary="A lane has not succeeded for over two of its periods.",
        description=(
            "Lane {{ $labels.lane }} (project {{ $labels.project }}) on {{ $labels.instance }} runs at an interval, "
            "and its last success is more than two intervals ago, or it has never succeeded."
        ),
        board=Board.LANE,
        link=_LANE,
        meaning=(
            "The lane runs with `--every`. Its last success is older than two full periods, or at least two runs have "
            "ended and none has succeeded."
        ),
        impact="Nobody knows whether what the lane checks still holds.",
        diagnosis=(
            Query(
                question="How many periods ago was the last success?",
                expr=(
                    f"(time() - {series.now(catalogue.RUN_LAST_SUCCESS)})"
                    f" / on (job, instance, project, lane) {series.now(catalogue.RUN_INTERVAL)}"
                ),
            ),
            Query(
                question="Has it run at all since (seconds since a run ended)?",
                expr=f"time() - {series.now(catalogue.RUN_LAST_COMPLETION)}",
            ),
            Query(
                question="Which stages keep it from succeeding?",
                expr=f"{series.now(catalogue.STAGE_LAST_RESULT, result=_FAILED)} == 1",
            ),
        ),
        mitigation=(
            "It runs and fails: see [ParoptStageFailing](#paroptstagefailing).",
            "It does not end: see [ParoptStageStuck](#paroptstagestuck). Runs never overlap: one that takes longer "
            "than its period delays the next.",
            "It was interrupted each time (`cancellation`): look for what stops the process, a deployment perhaps.",
        ),
    )


def _slower(series: Series) -> Alert:
    span, past = recording.THROUGHPUT_SPAN, recording.THROUGHPUT_PAST

    def throughput(over: str, offset: str = "") -> str:
        return f"{recording.tasks(series, over)}{offset} / {recording.run_seconds(series, over)}{offset}"

    before = f" offset {span}"
    return Alert(
        name="ParoptThroughputLow",
        conditions=(
            Condition(
                expr=(
                    f"{throughput(span)}\n<\n{_THROUGHPUT_RATIO} * ({throughput(past, before)})\n"
                    f"and\n{recording.runs(series, past)}{before} >= {_ENOUGH_RUNS}"
                ),
                level=Level.WARNING,
                hold="30m",
            ),
        ),
        summary="A lane's throughput is under 80 % of its own past.",
        description=(
            "Lane {{ $labels.lane }} (project {{ $labels.project }}) did {{ $value | humanize }} tasks in a second of "
            f"running over the last {span}, under 80 % of what it did over the {past} before."
        ),
        board=Board.LANE,
        link=("job", "project", "lane"),
        meaning=(
            f"Tasks that ran to their end, divided by the time that runs took: the last {span} against the {past} "
            "before them. Time between runs does not count, so a lane that runs less often is not meant."
        ),
        impact="The lane takes longer for the same work; limits that hold today may break soon.",
        diagnosis=(
            Query(
                question="How much slower is it (1: as fast as before)?",
                expr=(
                    f"{recording.tasks(series, span)} / ({recording.run_seconds(series, span)} > 0)"
                    f" / ({throughput(past)} > 0)"
                ),
            ),
            Query(
                question="Which stages take longer than yesterday (seconds more, mean)?",
                expr=(
                    f"topk(10, avg by (lane, stage) ({series.now(catalogue.STAGE_LAST_DURATION)})"
                    f" - avg by (lane, stage) (avg_over_time({series.now(catalogue.STAGE_LAST_DURATION)}[1d])))"
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


def _slow_stage(series: Series) -> Alert:
    return Alert(
        name="ParoptStageSlow",
        conditions=(_held_up(series, "slow", Level.INFO),),
        summary="One stage takes much longer than the others of its lane.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} takes more than 1.5 times as long as the lane's average stage."
        ),
        board=Board.LANE,
        link=_STAGE,
        meaning="The stage was the last run's bottleneck: over 1.5 times the average duration of the lane's stages.",
        impact="The lane can't end before this stage, however many workers it has.",
        diagnosis=(
            Query(
                question="How do the stages compare (1 is the lane's average)?",
                expr=(
                    f"{series.now(catalogue.STAGE_LAST_DURATION)} / on (job, instance, project, lane) group_left ()"
                    f" avg by (job, instance, project, lane) ({series.now(catalogue.STAGE_LAST_DURATION)})"
                ),
            ),
            questions.stage_cores(series),
        ),
        mitigation=(
            "Split it: `items` makes a task of each file or case.",
            "One task of several decides: split that one. About one core in use and more allowed: it does not run in "
            "parallel yet.",
        ),
    )


def _uneven_stage(series: Series) -> Alert:
    return Alert(
        name="ParoptStageUneven",
        conditions=(_held_up(series, "uneven", Level.INFO),),
        summary="A stage's tasks differ in duration by more than three times.",
        description=(
            "In stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} the slowest task takes more than three times as long as the fastest."
        ),
        board=Board.LANE,
        link=_STAGE,
        meaning="In the last run the stage's slowest task took over three times as long as its fastest.",
        impact="Workers stand idle at the stage's end, while the longest task runs alone.",
        diagnosis=(
            Query(
                question="How long are most tasks, and how long the longest (seconds, median)?",
                expr=_quantile(series, "0.5"),
            ),
            Query(question="And the 99th percentile?", expr=_quantile(series, "0.99")),
        ),
        mitigation=(
            "Split the longest items, or put short ones together; `paropt-exporter history --output json` names them.",
            "Nothing to split: harmless as long as other stages fill the workers meanwhile.",
        ),
    )


def _quantile(series: Series, quantile: str) -> str:
    buckets = series.increase(catalogue.TASK_DURATION, "1d", part="bucket")
    return f"histogram_quantile({quantile}, sum by (lane, stage, le) ({buckets})) > 0"


def _uneven_lane(series: Series) -> Alert:
    return Alert(
        name="ParoptLaneUneven",
        conditions=(
            Condition(
                expr=f"{series.held(catalogue.LANE_BOTTLENECK, kind='uneven')} == 1", level=Level.INFO, hold=_SETTLED
            ),
        ),
        summary="A lane's stages differ in duration by more than three times.",
        description=(
            "In lane {{ $labels.lane }} (project {{ $labels.project }}) on {{ $labels.instance }} the slowest stage "
            "takes more than three times as long as the fastest."
        ),
        board=Board.LANE,
        link=_LANE,
        meaning="In the last run the lane's slowest stage took over three times as long as its fastest.",
        impact="With one worker a stage most of them are idle for most of the run.",
        diagnosis=(
            Query(
                question="Which are the longest stages (seconds)?",
                expr=f"topk(5, {series.now(catalogue.STAGE_LAST_DURATION)})",
            ),
            Query(
                question="And the shortest?",
                expr=f"bottomk(5, {series.now(catalogue.STAGE_LAST_DURATION)})",
            ),
        ),
        mitigation=("Split the longest stage (`items`); see [ParoptStageSlow](#paroptstageslow).",),
    )


def _gil_bound(series: Series) -> Alert:
    return Alert(
        name="ParoptStageGilBound",
        conditions=(_held_up(series, "gil_bound", Level.WARNING),),
        summary="A stage computes in threads, which share one core.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} is CPU-bound Python in threads: they take turns on one core."
        ),
        board=Board.LANE,
        link=_STAGE,
        meaning="The stage's `call` holds Python's interpreter lock, so its threads together use about one core.",
        impact="More workers make it no faster; one core is busy and the others idle.",
        diagnosis=(
            Query(
                question="How many cores do the pools use?",
                expr=series.rate(catalogue.POOL_CPU),
            ),
            Query(question="How many does the machine allow?", expr=series.now(catalogue.HOST_CPUS)),
        ),
        mitigation=(
            "`strategy: adaptive` moves such work to processes by itself; `process` or `hybrid` do it from the start.",
            "What can't travel to a process (open files, locks in its arguments): move the loop into a command.",
        ),
    )


def _held_up(series: Series, kind: str, level: Level) -> Condition:
    return Condition(expr=f"{series.held(catalogue.BOTTLENECK, kind=kind)} == 1", level=level, hold=_SETTLED)
