"""Alerts on stages: failing, stuck, or what their lane waits for."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.monitoring.alerts import questions
from paropt_exporter.monitoring.alerts.rules import OF_STAGE, Alert, Board, Condition, Level, Query
from paropt_exporter.monitoring.alerts.series import FAILED, SETTLED, Series, held_up
from paropt_exporter.monitoring.options import Options

# A process that waits for an answer or a disk wakes now and then: less than a hundredth of a core is doing nothing.
_IDLE_CORES = "0.01"


def alerts(options: Options) -> tuple[Alert, ...]:
    """Return the alerts of this module."""
    series = Series(options)
    return (_failing(series), _stuck(series), _slow_stage(series), _uneven_stage(series), _gil_bound(series))


def _failing(series: Series) -> Alert:
    return Alert(
        name="ParoptStageFailing",
        conditions=(
            Condition(
                expr=f"max without (result) ({series.held(families.STAGE_LAST_RESULT, result=FAILED)} == 1)",
                level=Level.WARNING,
                hold=SETTLED,
            ),
        ),
        summary="A stage has been failing.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} failed, erred or timed out in its last run, and no run has succeeded for 15 "
            "minutes."
        ),
        board=Board.LANE,
        link=OF_STAGE,
        meaning=(
            "The last run's result of the stage is `failure` (exit code or exception), `error` (could not start, or "
            "was killed) or `timeout`, and has been one of them for 15 minutes."
        ),
        impact="What the stage checks is not known to be good; stages that need it are skipped.",
        diagnosis=(
            Query(
                question="Which of the three is it?",
                expr=f"{series.now(families.STAGE_LAST_RESULT, result=FAILED)} == 1",
            ),
            Query(
                question="Since when, and does it ever succeed (runs by result over a day)?",
                expr=f"sum by (lane, stage, result) ({series.increase(families.STAGE_RUNS, '1d')}) > 0",
            ),
            Query(question="Does it fail everywhere, or on some hosts only?", expr=_share_of_hosts(series)),
        ),
        mitigation=(
            "`paropt-exporter --lane LANE --failed` runs it again and shows the end of its output.",
            "`failure`: mend what the stage complains of. `error`: `paropt-exporter check` finds missing programs; a "
            "killed one may have lacked memory. `timeout`: see [ParoptStageStuck](#paroptstagestuck).",
        ),
    )


def _share_of_hosts(series: Series) -> str:
    failed, known = (series.now(families.STAGE_LAST_RESULT, result=result) for result in (FAILED, "success"))
    return f"count by (lane, stage) ({failed} == 1) / count by (lane, stage) ({known})"


def _stuck(series: Series) -> Alert:
    return Alert(
        name="ParoptStageStuck",
        conditions=(Condition(expr=_standing_still(series), level=Level.WARNING, hold=SETTLED),),
        summary="A running stage does nothing.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} has been running for 15 minutes without using CPU and without ending a task."
        ),
        board=Board.LANE,
        link=OF_STAGE,
        meaning=(
            "For 15 minutes the stage, with all its descendants, has used less than a hundredth of a core, and none "
            "of its tasks has ended. It waits for something that does not come."
        ),
        impact="The lane does not end; with `--every` the next runs do not start.",
        diagnosis=(
            Query(
                question="Which stages run now, and how far are they?",
                expr=f"{series.now(families.STAGE_PROGRESS)} and {series.now(families.STAGE_RUNNING)} == 1",
            ),
            Query(
                question="How long does the stage take otherwise (seconds)?",
                expr=series.now(families.STAGE_LAST_DURATION),
            ),
            questions.run_delay(series),
        ),
        mitigation=(
            "On the host, `ps -ef --forest` below paropt-exporter shows the process that waits; `py-spy dump` or "
            "`cat /proc/PID/stack` tells for what. A prompt for a password is a common one.",
            "End that process: the stage fails, and the lane goes on.",
            "Give the stage a `timeout`, so that this ends by itself next time.",
            "A stage that rightly waits this long for another system, or whose work another process does (the daemon "
            "of `docker run`): silence this alert for it.",
        ),
    )


def _standing_still(series: Series) -> str:
    """Ask for stages that run, use no CPU and get no task done."""
    return (
        f"{series.now(families.STAGE_RUNNING)} == 1\n"
        f"and\n{series.rate(families.STAGE_CPU)} < {_IDLE_CORES}\n"
        f"and\nchanges({series.now(families.STAGE_PROGRESS)}[{series.window}]) == 0"
    )


def _slow_stage(series: Series) -> Alert:
    return Alert(
        name="ParoptStageSlow",
        conditions=(held_up(series, families.BOTTLENECK, "slow", Level.INFO),),
        summary="One stage takes much longer than the others of its lane.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} takes more than 1.5 times as long as the lane's average stage."
        ),
        board=Board.LANE,
        link=OF_STAGE,
        meaning="The stage was the last run's bottleneck: over 1.5 times the average duration of the lane's stages.",
        impact="The lane can't end before this stage, however many workers it has.",
        diagnosis=(
            Query(
                question="How do the stages compare (1 is the lane's average)?",
                expr=(
                    f"{series.now(families.STAGE_LAST_DURATION)} / on (job, instance, project, lane) group_left ()"
                    f" avg by (job, instance, project, lane) ({series.now(families.STAGE_LAST_DURATION)})"
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
        conditions=(held_up(series, families.BOTTLENECK, "uneven", Level.INFO),),
        summary="A stage's tasks differ in duration by more than three times.",
        description=(
            "In stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} the slowest task takes more than three times as long as the fastest."
        ),
        board=Board.LANE,
        link=OF_STAGE,
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
    buckets = series.increase(families.TASK_DURATION, "1d", part="bucket")
    return f"histogram_quantile({quantile}, sum by (lane, stage, le) ({buckets})) > 0"


def _gil_bound(series: Series) -> Alert:
    return Alert(
        name="ParoptStageGilBound",
        conditions=(held_up(series, families.BOTTLENECK, "gil_bound", Level.WARNING),),
        summary="A stage computes in threads, which share one core.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} is CPU-bound Python in threads: they take turns on one core."
        ),
        board=Board.LANE,
        link=OF_STAGE,
        meaning="The stage's `call` holds Python's interpreter lock, so its threads together use about one core.",
        impact="More workers make it no faster; one core is busy and the others idle.",
        diagnosis=(
            Query(
                question="How many cores do the pools use?",
                expr=series.rate(families.POOL_CPU),
            ),
            Query(question="How many does the machine allow?", expr=series.now(families.HOST_CPUS)),
        ),
        mitigation=(
            "`strategy: adaptive` moves such work to processes by itself; `process` or `hybrid` do it from the start.",
            "What can't travel to a process (open files, locks in its arguments): move the loop into a command.",
        ),
    )
