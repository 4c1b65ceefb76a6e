"""Alerts on limits: broken, near, expected to break."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.events import Severity
from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts import questions, recording
from paropt_exporter.monitoring.alerts.rules import OF_LANE, OF_STAGE, Alert, Board, Condition, Level, Query
from paropt_exporter.monitoring.alerts.series import Series
from paropt_exporter.monitoring.options import Options


def alerts(options: Options) -> tuple[Alert, ...]:
    """Return the alerts of this module."""
    series = Series(options)
    return (
        _violation(series),
        _critical_violation(series),
        _lane_violation(series),
        _critical_lane_violation(series),
        _near(series),
        _predicted(series),
    )


def _violation(series: Series) -> Alert:
    return Alert(
        name="ParoptSlaViolation",
        conditions=(_broken(series, families.SLA_LIMIT, families.SLA_BREACHED, Severity.NORMAL),),
        summary="A stage broke its SLA.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} took longer than its limit of {{ $value | humanizeDuration }}, now or in its last "
            "run. This resolves with the next run that keeps the limit."
        ),
        board=Board.LANE,
        link=OF_STAGE,
        meaning=(
            "The stage ran longer than `sla.max` in its last run, or is running longer right now. The limit is not "
            "critical: the lane went on."
        ),
        impact="Whoever waits for this lane waits longer than was promised. The error budget shrinks.",
        diagnosis=(
            Query(
                question="By how much was the limit missed (1 is the limit)?",
                expr=f"topk(10, {series.now(families.STAGE_LAST_DURATION)} / {series.now(families.SLA_LIMIT)})",
            ),
            Query(
                question="Is the stage slower than it used to be, or was it always close to the limit?",
                expr=(
                    f"topk(10, {series.now(families.STAGE_LAST_DURATION)}"
                    f" / avg_over_time({series.now(families.STAGE_LAST_DURATION)}[1d]))"
                ),
            ),
            questions.run_delay(series),
        ),
        mitigation=(
            "If it is slower than it was: `paropt-exporter history --compare RUN RUN` shows which stage changed.",
            "If its tasks waited for workers: raise the lane's `workers`, or give the stage fewer rivals (`needs`).",
            "If one task decides how long it takes: split it (`items`).",
            "If the limit was never realistic: measure a few runs, then set `sla` above what they take.",
        ),
    )


def _critical_violation(series: Series) -> Alert:
    return Alert(
        name="ParoptSlaCriticalViolation",
        conditions=(_broken(series, families.SLA_LIMIT, families.SLA_BREACHED, Severity.CRITICAL),),
        summary="A stage broke its critical SLA and stopped its lane.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} took longer than its critical limit of {{ $value | humanizeDuration }}: the lane "
            "was stopped. This resolves with the next run that keeps the limit."
        ),
        board=Board.LANE,
        link=OF_STAGE,
        meaning=(
            "The stage reached its limit, and the limit is `critical: true`. What ran was ended, what had not started "
            "was skipped, and the run counts as a failure (exit code 4)."
        ),
        impact="The lane gives no result: nothing behind this stage has been checked since the last good run.",
        diagnosis=(
            Query(
                question="Which stages were ended or skipped with it?",
                expr=f"{series.now(families.STAGE_LAST_RESULT, result=('timeout', 'cancellation', 'skip'))} == 1",
            ),
            Query(
                question="How often did it happen today?",
                expr=f"sum by (lane, stage) ({series.increase(families.SLA_VIOLATIONS, '1d', severity='critical')})",
            ),
            questions.stage_cores(series),
        ),
        mitigation=(
            "Run what is missing again: `paropt-exporter --lane LANE --failed`.",
            "A stage that hangs (no CPU, no progress) needs a `timeout` of its own, so that its lane can go on.",
            "A stage that only became slower: see [ParoptSlaViolation](#paroptslaviolation).",
        ),
    )


def _lane_violation(series: Series) -> Alert:
    return Alert(
        name="ParoptLaneSlaViolation",
        conditions=(_broken(series, families.LANE_SLA_LIMIT, families.LANE_SLA_BREACHED, Severity.NORMAL),),
        summary="A lane took longer than its total limit.",
        description=(
            "Lane {{ $labels.lane }} (project {{ $labels.project }}) on {{ $labels.instance }} took longer than its "
            "total limit of {{ $value | humanizeDuration }}, now or in its last run. This resolves with the next run "
            "that keeps the limit."
        ),
        board=Board.LANE,
        link=OF_LANE,
        meaning="The run as a whole was longer than the lane's `total`, though each stage may have kept its own limit.",
        impact="Everything that waits for the whole lane (a merge, a release) waits longer than was promised.",
        diagnosis=(
            questions.longest_stages(series),
            Query(
                question="Were the workers used while it ran (1 is all of the time)?",
                expr=recording.utilization(series),
            ),
            questions.queue_wait(series),
        ),
        mitigation=(
            "Long waits and busy workers: raise the lane's `workers`, or use a larger machine.",
            "Idle workers: loosen `needs`, `locks` and `exclusive`, and split the longest stage (`items`).",
            "Move what need not run each time to another lane.",
        ),
    )


def _critical_lane_violation(series: Series) -> Alert:
    return Alert(
        name="ParoptLaneSlaCriticalViolation",
        conditions=(_broken(series, families.LANE_SLA_LIMIT, families.LANE_SLA_BREACHED, Severity.CRITICAL),),
        summary="A lane reached its critical total limit and was stopped.",
        description=(
            "Lane {{ $labels.lane }} (project {{ $labels.project }}) on {{ $labels.instance }} reached its critical "
            "total limit of {{ $value | humanizeDuration }} and was stopped. This resolves with the next run that "
            "keeps the limit."
        ),
        board=Board.LANE,
        link=OF_LANE,
        meaning="The lane's `total` is `critical: true` and was reached: what still ran was ended, the rest skipped.",
        impact="The lane gives no result since its last good run.",
        diagnosis=(
            Query(
                question="Which stages had not ended well?",
                expr=f"{series.now(families.STAGE_LAST_RESULT, result=('timeout', 'cancellation', 'skip'))} == 1",
            ),
            questions.longest_stages(series),
        ),
        mitigation=(
            "Run what is missing again: `paropt-exporter --lane LANE --failed`.",
            "Then as for [ParoptLaneSlaViolation](#paroptlaneslaviolation).",
        ),
    )


def _near(series: Series) -> Alert:
    running_near = f"{series.now(families.SLA_DEADLINE)} and {series.now(families.SLA_NEAR)} == 1"
    return Alert(
        name="ParoptSlaLimitNear",
        conditions=(Condition(expr=f"({running_near}) - time() > 0", level=Level.WARNING),),
        summary="A running stage is close to its limit.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} runs and is past its warning threshold: {{ $value | humanizeDuration }} are left "
            "to its limit."
        ),
        board=Board.LANE,
        link=OF_STAGE,
        meaning="The stage still runs, has passed `sla.warn_at` of its limit (80 % by default), and not yet the limit.",
        impact="None yet. If the limit is critical, the lane is stopped when the stage reaches it.",
        diagnosis=(
            Query(
                question="How many seconds are left?",
                expr=f"{series.now(families.SLA_DEADLINE)} - time()",
            ),
            Query(
                question="How far is it (1 is done)?",
                expr=series.now(families.STAGE_PROGRESS),
            ),
            Query(
                question="Is it expected to make it (1: it is not)?",
                expr=series.now(families.SLA_PREDICTED_BREACH),
            ),
        ),
        mitigation=(
            "Let it end; if this comes with most runs, the limit is too tight or the stage too slow: see "
            "[ParoptSlaViolation](#paroptslaviolation).",
            "If other work took the machine, free it: a lane that sizes itself takes up what becomes free.",
        ),
    )


def _predicted(series: Series) -> Alert:
    return Alert(
        name="ParoptSlaBreachPredicted",
        conditions=(
            Condition(expr=f"{series.now(families.SLA_PREDICTED_BREACH)} == 1", level=Level.WARNING, hold="30s"),
        ),
        summary="A running stage is expected to break its SLA.",
        description=(
            "Stage {{ $labels.stage }} of lane {{ $labels.lane }} (project {{ $labels.project }}) on "
            "{{ $labels.instance }} is expected to break its limit, by its progress and its past runs."
        ),
        board=Board.LANE,
        link=OF_STAGE,
        meaning=(
            "From past durations and the progress of this run the stage's end is expected after its deadline. The "
            "controller has given it the workers that it can already."
        ),
        impact="A violation within minutes; a critical one will stop the lane.",
        diagnosis=(
            Query(
                question="How late will it be (seconds; below 0: in time)?",
                expr=f"{series.now(families.SLA_PREDICTED_END)} - {series.now(families.SLA_DEADLINE)}",
            ),
            Query(
                question="Could its pool still grow (workers to the bound)?",
                expr=f"{series.now(families.POOL_SIZE_MAX)} - {series.now(families.POOL_SIZE_TARGET)}",
            ),
            questions.cores_used(series),
        ),
        mitigation=(
            "A pool at its bound with cores left: raise the lane's `workers`.",
            "No core left: stop other work on the machine, or move the stage to a larger one.",
        ),
    )


def _broken(series: Series, limit: Family, breached: Family, severity: Severity) -> Condition:
    """Fire while the flag is up; its value is the limit, in seconds."""
    return Condition(
        expr=(f"{series.held(limit)}\nand ignoring (severity)\n{series.held(breached, severity=severity.value)} == 1"),
        level=Level.CRITICAL if severity is Severity.CRITICAL else Level.WARNING,
    )
