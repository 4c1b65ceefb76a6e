"""Alerts on SLA limits (broken, near or expected to break) and on error budgets."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.config.units import parse_duration
from paropt_exporter.events import Severity
from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts import questions, recording
from paropt_exporter.monitoring.alerts.rules import LANE, STAGE, Alert, Board, Condition, Level, Query
from paropt_exporter.monitoring.alerts.selectors import SeriesSelector
from paropt_exporter.monitoring.options import Options

_NOT_COMPLETED = ("timeout", "cancellation", "skip")
# The pairs of the multiwindow, multi-burn-rate alerts in Google's SRE workbook, chapter 5: rate, long span, short span.
# 14.4 over an hour spends 2 % of 30 days' budget, 6 over six hours 5 %, 3 over a day and 1 over three days 10 %.
_PAIRS = (
    ("14.4", "1h", "5m", Level.CRITICAL),
    ("6", "6h", "30m", Level.CRITICAL),
    ("3", "1d", "2h", Level.WARNING),
    ("1", "3d", "6h", Level.WARNING),
)
# With fewer checks in the long span, one violation would exceed the rate: such lanes are counted over 30 days.
_ENOUGH_CHECKS = 100
_LONGEST_PAIR, _ITS_SHORT_SPAN = "3d", "6h"
_LONGEST_PAIR_SECONDS = 3 * 86_400
_VALUE = "{{ $value | humanizeDuration }}"  # in a template: the limit, or the time that is left
# A stage near its limit breaks it in one run and keeps it in the next: one page for all of them, until it keeps it.
_KEPT_AFTER_BREACH = "15m"
# A running stage that ends sooner has ended before a notification arrives.
_RUNNING_HOLD = "30s"


def build_sla_alerts(options: Options) -> tuple[Alert, ...]:
    """Return the alerts of this module."""
    series = SeriesSelector(options)
    return (
        _build_violation_alert(series),
        _build_critical_violation_alert(series),
        _build_lane_violation_alert(series),
        _build_critical_lane_violation_alert(series),
        _build_near_alert(series),
        _build_predicted_alert(series),
    )


def _build_violation_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptSlaViolation",
        conditions=(_build_broken_condition(series, families.SLA_LIMIT, families.SLA_BREACHED, Severity.NORMAL),),
        summary="A stage broke its SLA.",
        title=f"Stage {STAGE.name} took longer than its limit of {_VALUE}.",
        description=(
            f"Stage {STAGE.place} took longer than its limit of {_VALUE}, now or in its last run. This resolves 15 "
            "minutes after the limit is kept again."
        ),
        board=Board.LANE,
        link=STAGE.labels,
        meaning=(
            "The stage ran longer than `sla.max` in its last run, or has run longer in the current one. The limit is "
            "not critical, so the lane went on."
        ),
        impact="Users of this lane wait longer than promised. The error budget shrinks.",
        diagnosis=(
            Query(
                question="By how much did the last runs break the limit (1 is the limit)?",
                expr=(
                    f"topk(10, {series.select_now(families.STAGE_LAST_DURATION)}"
                    f" / {series.select_now(families.SLA_LIMIT)})"
                ),
            ),
            questions.running_time(series),
            Query(
                question="Is the stage slower than it used to be, or was it always close to the limit?",
                expr=(
                    f"topk(10, {series.select_now(families.STAGE_LAST_DURATION)}"
                    f" / avg_over_time({series.select_now(families.STAGE_LAST_DURATION)}[1d]))"
                ),
            ),
            questions.run_delay(series),
        ),
        mitigation=(
            "If it became slower: `paropt-exporter history --lane LANE --compare latest~1 latest` shows where.",
            "If its tasks waited for workers: raise the lane's `workers`, or let fewer stages run beside it (`needs`).",
            "If one task takes most of the time: split it (`items`).",
            "If the limit was never realistic: `paropt-exporter sla` proposes one from the durations of earlier runs.",
        ),
    )


def _build_critical_violation_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptSlaCriticalViolation",
        conditions=(_build_broken_condition(series, families.SLA_LIMIT, families.SLA_BREACHED, Severity.CRITICAL),),
        summary="A stage broke its critical SLA and stopped its lane.",
        title=f"Stage {STAGE.name} broke its critical limit of {_VALUE}; lane {{{{ $labels.lane }}}} was stopped.",
        description=(
            f"Stage {STAGE.place} took longer than its critical limit of {_VALUE}: the lane was stopped. This resolves "
            "15 minutes after the limit is kept again."
        ),
        board=Board.LANE,
        link=STAGE.labels,
        meaning=(
            "The stage reached its limit, and the limit is `critical: true`. Running stages were stopped, others "
            "skipped, and the run counts as a failure (exit code 4)."
        ),
        impact="The lane gives no result: the stages after this one have checked nothing since the last good run.",
        diagnosis=(
            Query(
                question="Which stages were stopped or skipped with it?",
                expr=f"{series.select_now(families.STAGE_LAST_RESULT, result=_NOT_COMPLETED)} == 1",
            ),
            Query(
                question="How often did it happen today?",
                expr=(
                    "sum by (project, lane, stage) "
                    f"({series.increase(families.SLA_VIOLATIONS, '1d', severity='critical')})"
                ),
            ),
            questions.stage_cores(series),
        ),
        mitigation=(
            "Run the missing stages again: `paropt-exporter --lane LANE --failed --once`.",
            "If the stage hangs (no CPU, no progress), give it a `timeout`, so that the rest of the lane can run.",
            "If it became slower: see [ParoptSlaViolation](#paroptslaviolation).",
        ),
    )


def _build_lane_violation_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptLaneSlaViolation",
        conditions=(
            _build_broken_condition(series, families.LANE_SLA_LIMIT, families.LANE_SLA_BREACHED, Severity.NORMAL),
        ),
        summary="A lane took longer than its total limit.",
        title=f"Lane {LANE.name} took longer than its limit of {_VALUE}.",
        description=(
            f"Lane {LANE.place} took longer than its total limit of {_VALUE}, now or in its last run. This resolves 15 "
            "minutes after the limit is kept again."
        ),
        board=Board.LANE,
        link=LANE.labels,
        meaning=(
            "The last run took longer than the lane's `total`, or the present one already has, although each stage may "
            "have kept its own limit."
        ),
        impact="Everything that waits for the whole lane (a merge, a release) waits longer than promised.",
        diagnosis=(
            questions.longest_stages(series),
            questions.running_time(series),
            Query(
                question="How busy were the workers while it ran (1: all of the time)?",
                expr=recording.select_utilization(series),
            ),
            questions.queue_wait(series),
        ),
        mitigation=(
            "Long waits and busy workers: raise the lane's `workers`, or use a larger machine.",
            "Idle workers: loosen `needs`, `locks` and `exclusive`, and split the longest stage (`items`).",
            "Move stages that need not run every time to another lane.",
        ),
    )


def _build_critical_lane_violation_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptLaneSlaCriticalViolation",
        conditions=(
            _build_broken_condition(series, families.LANE_SLA_LIMIT, families.LANE_SLA_BREACHED, Severity.CRITICAL),
        ),
        summary="A lane reached its critical total limit and was stopped.",
        title=f"Lane {LANE.name} reached its critical limit of {_VALUE} and was stopped.",
        description=(
            f"Lane {LANE.place} reached its critical total limit of {_VALUE} and was stopped. This resolves 15 minutes "
            "after the limit is kept again."
        ),
        board=Board.LANE,
        link=LANE.labels,
        meaning="The lane reached its `total`, which is `critical: true`: running stages were stopped, others skipped.",
        impact="The lane has given no result since its last good run.",
        diagnosis=(
            Query(
                question="Which stages had not completed?",
                expr=f"{series.select_now(families.STAGE_LAST_RESULT, result=_NOT_COMPLETED)} == 1",
            ),
            questions.longest_stages(series),
        ),
        mitigation=(
            "Run the missing stages again: `paropt-exporter --lane LANE --failed --once`.",
            "Then as for [ParoptLaneSlaViolation](#paroptlaneslaviolation).",
        ),
    )


def _build_near_alert(series: SeriesSelector) -> Alert:
    # No comparison with time(): the clock of the stage's host may be wrong.
    near = f"{series.select_now(families.SLA_LIMIT)} and {series.select_now(families.SLA_NEAR)} == 1"
    return Alert(
        name="ParoptSlaLimitNear",
        conditions=(Condition(expr=near, level=Level.WARNING, hold=_RUNNING_HOLD, keep=_KEPT_AFTER_BREACH),),
        summary="A running stage is close to its limit.",
        title=f"Stage {STAGE.name} is close to its limit of {_VALUE}.",
        description=(
            f"Stage {STAGE.place} has run past its warning threshold for {_RUNNING_HOLD}, and is close to its limit of "
            f"{_VALUE}. This resolves 15 minutes after it was last that close."
        ),
        board=Board.LANE,
        link=STAGE.labels,
        meaning=(
            "The running stage passed `sla.warn_at` of its limit (by default 80 %) at least half a minute ago, and has "
            "not reached the limit. The alert stays for 15 minutes after that. Most stages with a limit under five "
            "minutes end before it can fire; `paropt_sla_warnings_total` counts them too."
        ),
        impact="None yet. If the limit is critical, the lane is stopped when the stage reaches it.",
        diagnosis=(
            Query(
                question="How many seconds are left?",
                expr=f"{series.select_now(families.SLA_DEADLINE)} - time()",
            ),
            Query(
                question="How much of it is done (1: all)?",
                expr=series.select_now(families.STAGE_PROGRESS),
            ),
            Query(
                question="Is it expected to break its limit (1: yes)?",
                expr=series.select_now(families.SLA_PREDICTED_BREACH),
            ),
        ),
        mitigation=(
            "Let it finish. If this happens in most runs, the limit is too tight or the stage too slow: see "
            "[ParoptSlaViolation](#paroptslaviolation).",
            "If other programs use the machine, stop them. A lane that sizes itself uses the cores that become free.",
        ),
    )


def _build_predicted_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptSlaBreachPredicted",
        conditions=(
            Condition(
                expr=f"{series.select_now(families.SLA_PREDICTED_BREACH)} == 1", level=Level.WARNING, hold=_RUNNING_HOLD
            ),
        ),
        summary="A running stage is expected to break its SLA.",
        title=f"Stage {STAGE.name} is expected to break its SLA.",
        description=f"Stage {STAGE.place} is expected to break its limit, by its progress and its past runs.",
        board=Board.LANE,
        link=STAGE.labels,
        meaning=(
            "By past durations and the progress of this run, the stage will end after its deadline. The controller has "
            "already given it as many workers as it may."
        ),
        impact="The stage will break its limit within minutes. If the limit is critical, that stops the lane.",
        diagnosis=(
            Query(
                question="How late will it be (seconds; below 0: in time)?",
                expr=f"{series.select_now(families.SLA_PREDICTED_END)} - {series.select_now(families.SLA_DEADLINE)}",
            ),
            Query(
                question="Could its pool still grow (workers up to its maximum)?",
                expr=f"{series.select_now(families.POOL_SIZE_MAX)} - {series.select_now(families.POOL_SIZE_TARGET)}",
            ),
            questions.cores_used(series),
        ),
        mitigation=(
            "If the pool is at its maximum and cores are left: raise the lane's `workers`.",
            "If no core is left: stop other work on the machine, or move the stage to a larger one.",
        ),
    )


def _build_broken_condition(series: SeriesSelector, limit: Family, breached: Family, severity: Severity) -> Condition:
    """Build the condition that a limit is broken; its value is the limit, in seconds."""
    return Condition(
        expr=(
            f"{series.select_last(limit)}\nand ignoring (severity)\n"
            f"{series.select_last(breached, severity=severity.value)} == 1"
        ),
        level=Level.CRITICAL if severity is Severity.CRITICAL else Level.WARNING,
        keep=_KEPT_AFTER_BREACH,
    )


def build_budget_alerts(series: SeriesSelector) -> tuple[Alert, ...]:
    """Return the alerts on the error budgets of lanes."""
    return (_build_burn_rate_alert(series), _build_spent_alert(series))


def _build_burn_rate_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptSlaErrorBudgetBurn",
        conditions=tuple(_build_burn_condition(series, *pair) for pair in _PAIRS),
        summary="A lane breaks its SLAs so often that its error budget will not last.",
        title=(
            f"Lane {LANE.name} breaks its SLAs too often for its error budget, "
            "over {{ $labels.long }} and {{ $labels.short }}."
        ),
        description=(
            "In lane {{ $labels.lane }} (project {{ $labels.project }}) {{ $value | humanizePercentage }} of the stage "
            f"checks of the last {{{{ $labels.long }}}} broke their limit, and it goes on. The target allows "
            f"{_format_allowed_percent(series)}."
        ),
        board=Board.OVERVIEW,
        link=("job", "project", "lane"),
        meaning=(
            "Limits are broken several times as often as the target allows, over the long span and still over the "
            "short one (labels `long` and `short`). At this rate the budget of 30 days is spent in two days (`long` "
            "is 1h), five (6h), ten (1d) or thirty (3d)."
        ),
        impact="If this goes on, the lane misses its target for the month, whatever happens later.",
        diagnosis=(
            Query(
                question="Which stages broke their limits today?",
                expr=(f"topk(10, sum by (project, lane, stage) ({series.increase(families.SLA_VIOLATIONS, '1d')}))"),
            ),
            Query(
                question="Which hosts did it happen on?",
                expr=f"topk(10, sum by (instance) ({series.increase(families.SLA_VIOLATIONS, '1d')}))",
            ),
            Query(
                question="How much of the 30 days' budget is left (1: all of it; below 0: overspent)?",
                expr=_build_left_query(series),
            ),
        ),
        mitigation=(
            "One stage: as for [ParoptSlaViolation](#paroptslaviolation).",
            "One host: look at its load, its memory and its disk, and take it out of service until it keeps up.",
            "All hosts since a change: revert the change first, then look for the reason.",
        ),
    )


def _build_left_query(series: SeriesSelector) -> str:
    broken, checked = (
        select(series, recording.BUDGET_PERIOD) for select in (recording.select_violations, recording.select_checks)
    )
    return f"1 - {broken} / (({checked} > 0) * {_compute_allowed_ratio(series)})"


def _build_spent_alert(series: SeriesSelector) -> Alert:
    month, recent = recording.BUDGET_PERIOD, _LONGEST_PAIR
    broken, checked = recording.select_violations(series, month), recording.select_checks(series, month)
    return Alert(
        name="ParoptSlaErrorBudgetSpent",
        conditions=(Condition(expr=_build_overspent_query(series), level=Level.WARNING, hold="10m"),),
        summary="A lane that rarely runs has broken its SLAs more often than its error budget allows.",
        title=f"Lane {LANE.name} has broken its SLAs more often than its error budget allows.",
        description=(
            "In lane {{ $labels.lane }} (project {{ $labels.project }}) {{ $value | humanizePercentage }} of the stage "
            f"checks of the last {month} broke their limit. The target allows {_format_allowed_percent(series)}. This "
            "resolves after three days without another broken limit."
        ),
        board=Board.OVERVIEW,
        link=("job", "project", "lane"),
        meaning=(
            f"The lane had under {_ENOUGH_CHECKS} checks in {recent}, or runs less than twice in {_ITS_SHORT_SPAN}: "
            f"too seldom for a burn rate. In {month} it broke at least two limits, more than the target allows, and "
            f"the latest of them within {recent}."
        ),
        impact="The lane misses its target for the month.",
        diagnosis=(
            Query(question="How many limits were broken in 30 days?", expr=f"topk(10, {broken})"),
            Query(question="Out of how many checks?", expr=f"topk(10, {checked})"),
            Query(
                question="Which stages broke theirs in the last days?",
                expr=(f"topk(10, sum by (project, lane, stage) ({series.increase(families.SLA_VIOLATIONS, recent)}))"),
            ),
        ),
        mitigation=(
            "As for [ParoptSlaErrorBudgetBurn](#paroptslaerrorbudgetburn). With few runs there is probably one cause.",
        ),
    )


def _build_overspent_query(series: SeriesSelector) -> str:
    """Build the query for lanes that overspent their budget, with a recent violation, and that have no burn rate.

    They have few recent checks, or run so seldom that `_build_burn_condition` excludes them from the longest pair, too.
    """
    broken, checked = (
        select(series, recording.BUDGET_PERIOD) for select in (recording.select_violations, recording.select_checks)
    )
    return (
        f"{broken} / {checked} > {_compute_allowed_ratio(series)}\n"
        f"and\n{broken} > 1.5\n"
        f"and\n{recording.select_violations(series, _LONGEST_PAIR)} > 0\n"
        f"and\n(\n  {recording.select_checks(series, _LONGEST_PAIR)} < {_ENOUGH_CHECKS}\n"
        f"or\n  {_build_seldom_query(series, _ITS_SHORT_SPAN)}\n)\n"
        f"unless\n{recording.select_interval(series)}"
        f" <= {_LONGEST_PAIR_SECONDS // _ENOUGH_CHECKS}"  # it is new, not seldom
    )


def _build_burn_condition(series: SeriesSelector, rate: str, long: str, short: str, level: Level) -> Condition:
    """Build the condition that both spans burn faster than the rate, with enough checks in the long one.

    It excludes lanes that run less than twice in the short span, where single runs would decide: pairs with longer
    spans cover them, and after the longest one `_build_overspent_query`. `keep` bridges short spans without checks.
    """
    window = recording.choose_lane_window(series.window)
    if not recording.is_longer(short, window):
        short = window  # also for 1800s in place of 30m: no rule records both

    def burns_fast(span: str) -> str:
        ratio = f"{recording.select_violations(series, span)} / {recording.select_checks(series, span)}"
        return f"{ratio} > {rate} * {_compute_allowed_ratio(series)}"

    return Condition(
        expr=(
            f"(\n  {burns_fast(long)}\nand\n  {burns_fast(short)}\nand\n"
            f"  {recording.select_checks(series, long)} >= {_ENOUGH_CHECKS}\n)\n"
            f"unless\n{_build_seldom_query(series, short)}"
        ),
        level=level,
        keep=short,
        labels=(("long", long), ("short", short)),
    )


def _build_seldom_query(series: SeriesSelector, span: str) -> str:
    """Build the query for lanes that are repeated, but run less than twice in a span."""
    return f"{recording.select_interval(series)} * 2 > {parse_duration(span):g}"


def _compute_allowed_ratio(series: SeriesSelector) -> str:
    """Return the ratio of checks that may break their limit."""
    return f"{1.0 - series.options.sla_target:.6g}"


def _format_allowed_percent(series: SeriesSelector) -> str:
    return f"{100 * (1.0 - series.options.sla_target):.6g} %"
