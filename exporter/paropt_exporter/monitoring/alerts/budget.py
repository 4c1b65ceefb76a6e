"""Alerts on the error budget: how many limits a lane may break in 30 days, and how fast it uses that up."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.config.units import parse_duration
from paropt_exporter.monitoring.alerts import recording
from paropt_exporter.monitoring.alerts.rules import Alert, Board, Condition, Level, Query
from paropt_exporter.monitoring.alerts.series import WITHOUT_REPLICA, Series
from paropt_exporter.monitoring.options import Options

# The pairs of the multiwindow, multi-burn-rate alerts in Google's SRE workbook, chapter 5: rate, long span, short span.
# 14.4 over an hour eats 2 % of 30 days' budget, 6 over six hours 5 %, 3 over a day and 1 over three days 10 %.
_PAIRS = (
    ("14.4", "1h", "5m", Level.CRITICAL),
    ("6", "6h", "30m", Level.CRITICAL),
    ("3", "1d", "2h", Level.WARNING),
    ("1", "3d", "6h", Level.WARNING),
)
# With fewer checks in the long span one broken limit alone would be over the rate: they are counted over 30 days.
_ENOUGH_CHECKS = 100
_LONGEST_PAIR = "3d"


def alerts(options: Options) -> tuple[Alert, ...]:
    """Return the alerts of this module."""
    series = Series(options)
    return (_burn(series), _spent(series))


def _burn(series: Series) -> Alert:
    return Alert(
        name="ParoptSlaErrorBudgetBurn",
        conditions=tuple(_pair(series, *pair) for pair in _PAIRS),
        summary="A lane breaks its SLAs so often that its error budget will not last.",
        description=(
            "In lane {{ $labels.lane }} (project {{ $labels.project }}) {{ $value | humanizePercentage }} of the stage "
            f"checks of the last {{{{ $labels.long }}}} broke their limit, and it goes on. The target is "
            f"{series.options.sla_target:.6g} within their limits."
        ),
        board=Board.OVERVIEW,
        link=("job", "project", "lane"),
        meaning=(
            "Over the long span and still over the short one, limits are broken several times as often as the target "
            "allows. `long` and `short` name the spans; the shorter they are, the faster the budget of 30 days goes: "
            "1h would spend it in two days, 6h in five, 1d in ten, 3d in thirty."
        ),
        impact="If it goes on, the lane misses its target for the month, whatever happens later.",
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
                expr=_left(series),
            ),
        ),
        mitigation=(
            "One stage: as for [ParoptSlaViolation](#paroptslaviolation).",
            "One host: look at its load, its memory and its disk; take it out until it keeps up.",
            "Everywhere since a change: take the change back first, look for the reason after.",
        ),
    )


def _left(series: Series) -> str:
    broken, checked = (select(series, recording.BUDGET_PERIOD) for select in (recording.violations, recording.checks))
    return f"1 - {broken} / ({checked} * {_budget(series)})"


def _spent(series: Series) -> Alert:
    month, recent = recording.BUDGET_PERIOD, _LONGEST_PAIR
    broken, checked = recording.violations(series, month), recording.checks(series, month)
    return Alert(
        name="ParoptSlaErrorBudgetSpent",
        conditions=(Condition(expr=_overspent(series), level=Level.WARNING, hold="10m"),),
        summary="A lane that runs seldom has broken its SLAs more often than its error budget allows.",
        description=(
            "In lane {{ $labels.lane }} (project {{ $labels.project }}) {{ $value | humanizePercentage }} of the stage "
            f"checks of the last {month} broke their limit. The target is {series.options.sla_target:.6g} within "
            "their limits. This resolves after three days without another one."
        ),
        board=Board.OVERVIEW,
        link=("job", "project", "lane"),
        meaning=(
            f"The lane has under {_ENOUGH_CHECKS} checks in {recent}, too few for a burn rate, so its broken limits "
            f"are counted over {month}: at least two, more than the target allows, the latest within {recent}."
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
            "As for [ParoptSlaErrorBudgetBurn](#paroptslaerrorbudgetburn); with few runs one cause is likely.",
        ),
    )


def _overspent(series: Series) -> str:
    """Ask for lanes with few checks of late that broke more than one limit too many, the latest of late."""
    broken, checked = (select(series, recording.BUDGET_PERIOD) for select in (recording.violations, recording.checks))
    return (
        f"{broken} / {checked} > {_budget(series)}\n"
        f"and\n{broken} > 1.5\n"
        f"and\n{recording.violations(series, _LONGEST_PAIR)} > 0\n"
        f"and\n{recording.checks(series, _LONGEST_PAIR)} < {_ENOUGH_CHECKS}"
    )


def _pair(series: Series, rate: str, long: str, short: str, level: Level) -> Condition:
    """Fire while both spans burn faster than the rate; in the long one enough was checked to tell.

    A lane that starts less than twice in the short span would be judged by single runs there: it is left to the pairs
    with longer spans. `keep` bridges short spans in which nothing was checked.
    """
    if recording.longer(series.window, short):
        short = series.window

    def burns(span: str) -> str:
        ratio = f"{recording.violations(series, span)} / {recording.checks(series, span)}"
        return f"{ratio} > {rate} * {_budget(series)}"

    intervals = f"max {WITHOUT_REPLICA} ({series.now(families.RUN_INTERVAL)})"
    return Condition(
        expr=(
            f"(\n  {burns(long)}\nand\n  {burns(short)}\nand\n"
            f"  {recording.checks(series, long)} >= {_ENOUGH_CHECKS}\n)\n"
            f"unless\n{intervals} * 2 > {parse_duration(short):g}"
        ),
        level=level,
        keep=short,
        labels=(("long", long), ("short", short)),
    )


def _budget(series: Series) -> str:
    """Return the share of checks that may break their limit."""
    return f"{1.0 - series.options.sla_target:.6g}"
