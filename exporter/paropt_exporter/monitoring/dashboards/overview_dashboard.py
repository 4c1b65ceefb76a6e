"""The dashboard of all lanes on all hosts: health, failures, limits and error budget."""

from __future__ import annotations

from collections.abc import Iterator

from grafanalib.core import Panel

from paropt_exporter import families as names
from paropt_exporter.monitoring.dashboards.layout import (
    BARS_HEIGHT,
    CHART_HEIGHT,
    STAT_HEIGHT,
    Annotation,
    DashboardSpec,
    Line,
    Section,
    Variable,
    build_section,
)
from paropt_exporter.monitoring.dashboards.links import link_row, link_series
from paropt_exporter.monitoring.dashboards.panels import (
    MOST_LINES,
    NONE_RECORDED,
    Dash,
    Query,
    build_bar_gauge,
    build_bars,
    build_gauge,
    build_stat,
    build_success_rate,
    build_time_series,
    build_worker_deaths,
)
from paropt_exporter.monitoring.dashboards.scales import (
    BY_RESULT,
    COUNT,
    Colour,
    Scale,
    less_is_worse,
    more_is_worse,
    name_states,
    none_is_good,
)
from paropt_exporter.monitoring.dashboards.scope import DASHBOARD_RANGE, Scope
from paropt_exporter.monitoring.dashboards.tables import HOSTS_COLUMN, MOST_ROWS, Column, Order, build_table
from paropt_exporter.promql import TARGET_LABELS

VARIABLES = (
    Variable(label="project", of=names.STAGE_INFO),
    Variable(label="lane", of=names.STAGE_INFO),
    Variable(label="stage", of=names.STAGE_INFO),
)
_LANE = "{{project}} {{lane}}"
_LANE_LINK = link_series("project", "lane")
_SEVERITIES = {"critical": Colour.BAD, "warning": Colour.WATCH}  # of alerts
_PLACE_WIDTHS = {"project": 95, "lane": 95}  # of half a screen's table, in pixels; the others share the rest
_SLA_SEVERITIES = {"critical": Colour.BAD, "normal": Colour.WATCH}


def _build_sections(scope: Scope) -> tuple[Section, ...]:
    return (
        build_section("Is it healthy?", _iter_health_panels(scope), height=STAT_HEIGHT),
        Section(
            title="What needs attention?",
            lines=(
                Line(height=CHART_HEIGHT, panels=[_build_alert_table(scope), _build_failing_table(scope)]),
                Line(height=BARS_HEIGHT, panels=[_build_broken_limit_table(scope), _build_nearest_limits(scope)]),
            ),
        ),
        build_section("Runs: rate, errors, duration", _iter_run_panels(scope)),
        build_section("Limits and bottlenecks", _iter_limit_panels(scope)),
        build_section("Hosts: utilization, saturation, errors", _iter_host_panels(scope)),
    )


def _iter_health_panels(scope: Scope) -> Iterator[Panel]:
    up = scope.select_target("up")
    yield build_stat(
        "Do the exporters answer?",
        "The share of targets that Prometheus could scrape. Below 100 %: the Exporter health dashboard names the "
        "missing host. Start its exporter again.",
        Query(expr=f"avg({up})"),
        less_is_worse(good=1, watch=0.9),
        no_value="no target",
    )
    yield build_success_rate(
        scope,
        "If it falls, the tables below name the failed stages; `paropt-exporter log --failed` prints their output.",
    )
    yield from _iter_objective_panels(scope)
    stages, lanes = scope.select(names.SLA_BREACHED), scope.select(names.LANE_SLA_BREACHED)
    yield build_stat(
        "How many limits are broken?",
        "Stages and lanes over their SLA, now or in their last run. The table of broken limits names the stages; for "
        "a lane, see how long its runs take.",
        Query(expr=f"sum(sum by (lane, stage) ({stages}) or sum by (lane) ({lanes}))"),
        none_is_good(),
        no_value="no limit",
    )
    yield build_stat(
        "How many stages are failing?",
        "Stages that failed, could not start or timed out, and have not succeeded since. The table of failing stages "
        "names them.",
        Query(expr=f"sum({scope.select(names.STAGE_FAILING)})"),
        none_is_good(),
        no_value="no stage",
    )


def _iter_objective_panels(scope: Scope) -> Iterator[Panel]:
    kept, objective = _build_kept_ratio_query(scope), _format_percent(scope.sla_target)
    yield build_stat(
        "Which share of limits is kept?",
        f"Of all checks of finished stages against their SLA; the objective is {objective}. Below it: see which "
        "limits break, then make the stage faster (items, processes) or correct its limit.",
        Query(expr=kept),
        less_is_worse(good=scope.sla_target, watch=_compute_near_miss_ratio(scope.sla_target)),
        no_value="no rule or check",
    )
    yield build_gauge(
        "How much error budget is left?",
        f"The share that is left of the violations that an objective of {objective} allows in the time shown; choose "
        "30 days for a month's budget. At 0 the objective is missed: stop adding work to the lanes that use it up.",
        Query(expr=f"clamp_min(1 - (1 - {kept}) / {_round_ratio(1 - scope.sla_target)}, 0)"),
        less_is_worse(good=0.5, watch=0.2, maximum=1),
        no_value="no rule or check",
    )


def _iter_run_panels(scope: Scope) -> Iterator[Panel]:
    yield build_bars(
        "How many runs end, and how?",
        "Runs that ended in each interval, by result. In a gap nothing runs: look for hosts that are down, or a "
        "schedule that stopped. Cancellations are interrupted runs.",
        Query(expr=f"sum by (result) ({scope.count(names.RUNS)})", legend="{{result}}"),
        shortest=scope.recorded_window,
        colours=BY_RESULT,
    )
    failed = f"sum by (project, lane) ({scope.increase_over_range(names.RUNS, result='failure')})"
    ended = f"sum by (project, lane) ({scope.increase_over_range(names.RUNS, result=('success', 'failure'))})"
    yield build_bar_gauge(
        "Which lanes' runs fail?",
        "The share of each lane's runs that failed in the time shown; the ten highest. One lane: its code or its "
        "tools. Many at once: a host, the network or a shared resource.",
        Query(expr=f"topk(10, {failed} / ({ended} > 0) > 0)", legend=_LANE),
        more_is_worse("percentunit", watch=0.05, bad=0.2, maximum=1),
        links=[_LANE_LINK],
    )
    by = "by (project, lane)"
    succeeded = f"max {by} (last_over_time({scope.select(names.RUN_LAST_SUCCESS, over=DASHBOARD_RANGE)}))"
    yield build_bar_gauge(
        "Which lanes succeeded longest ago?",
        "Time since the last success of each lane with samples in the time shown, on any host; the ten longest. Much "
        "longer than its schedule: it fails each time, or nothing starts it. Of a removed lane, delete the "
        "Pushgateway's group or the textfile.",
        Query(expr=f"topk(10, time() - {succeeded})", legend=_LANE),
        Scale(unit="s"),
        no_value="no success",
        links=[_LANE_LINK],
    )
    longest = f"topk({MOST_LINES}, {scope.rank_runs(f' {by} ')})"
    yield build_time_series(
        "How long does a run take, against its limit?",
        "The last whole run of each lane, or the present one once it takes a minute longer, on the slowest host, of "
        f"the {MOST_LINES} longest lanes; dashed: the lanes' total limits, which the tooltip names. When a run nears "
        "its limit, open the lane's dashboard and see which stage grew.",
        [
            Query(expr=f"{scope.longest_run(f' {by} ')} and {longest}", legend=_LANE),
            Query(
                expr=f"max {by} ({scope.select(names.LANE_SLA_LIMIT)}) and {longest}",
                legend=f"{_LANE} limit",
                dash=Dash.LIMIT,
                listed=False,
            ),
        ],
        Scale(unit="s"),
        links=[_LANE_LINK],
    )


def _iter_limit_panels(scope: Scope) -> Iterator[Panel]:
    yield build_bars(
        "When do limits break?",
        "Stage runs that broke their SLA in each interval, by severity, as a recording rule counts them; critical ones "
        "stopped their lane. A burst is an event: look at what changed then. A steady trickle is a limit that is too "
        "tight, or a stage that grew.",
        Query(
            expr=f"sum by (severity) ({scope.count_faults(names.SLA_VIOLATIONS)})",
            legend="{{severity}}",
        ),
        shortest=scope.recorded_window,
        colours=_SLA_SEVERITIES,
        no_value=NONE_RECORDED,
    )
    yield build_bar_gauge(
        "Which lanes keep their stages' limits?",
        f"The share of SLA checks that each lane kept in the time shown; the objective is "
        f"{_format_percent(scope.sla_target)}. Begin with the shortest bar.",
        Query(expr=f"bottomk(10, {_build_kept_ratio_query(scope, 'project', 'lane')})", legend=_LANE),
        less_is_worse(good=scope.sla_target, watch=_compute_near_miss_ratio(scope.sla_target), maximum=1),
        no_value="no rule or check",
        links=[_LANE_LINK],
    )
    yield build_table(
        "Which stages hold their lane up?",
        "slow: over 1.5 times the average stage, split it. uneven: its slowest task takes over 3 times its fastest, "
        "split the slow ones. gil_bound: Python that computes in threads, give it processes.",
        {"A": f"topk({MOST_ROWS}, sum by (project, lane, stage, kind) ({scope.select(names.BOTTLENECK)} == 1))"},
        [
            *_build_place_columns("project", "lane", "stage"),
            Column(source="kind", title="Kind", width=90),
            HOSTS_COLUMN,
        ],
    )


def _build_alert_table(scope: Scope) -> Panel:
    named = "alertname, severity, project, lane, instance"
    # Doubled, so that `topk` keeps a critical alert beside fifty warnings.
    firing = f"""2 * {_select_firing(scope, 'severity="critical"')} or {_select_firing(scope)}"""
    place = f'label_join({firing}, "place", "", "stage", "pool")'  # none has both
    return build_table(
        "Which alerts fire?",
        "Alerts of these rules, except those of severity info, which are about the structure of a lane. The runbook "
        "says what to do about each; its `runbook_url` and `dashboard_url` are in the notification.",
        {"A": f"topk({MOST_ROWS}, max by ({named}, place) ({place}))"},
        [
            Column(source="severity", title="Severity", width=80, scale=name_states(_SEVERITIES)),
            Column(source="alertname", title="Alert", width=210),
            *_build_place_columns("project", "lane"),
            Column(source="place", title="Stage or pool", width=130),
            Column(source="instance", title="Instance"),
        ],
        order=Order(column="Severity", descending=False),
        no_value=NONE_RECORDED,
    )


def _build_failing_table(scope: Scope) -> Panel:
    where = "project, lane, stage, instance"
    return build_table(
        "Which stages are failing?",
        "failure: its command failed; error: it could not start, or was killed; timeout: it reached its timeout; "
        "cancellation or skip: it failed, and has been stopped or skipped since. `paropt-exporter log --failed` "
        "prints its output.",
        {
            "A": f"topk({MOST_ROWS}, max by ({where}, result) ({scope.select(names.STAGE_LAST_RESULT)} == 1"
            f" and ignoring (result) {scope.select(names.STAGE_FAILING)} == 1))"
        },
        [
            *_build_place_columns(),
            Column(source="result", title="Result", width=100, scale=name_states(BY_RESULT)),
        ],
    )


def _build_broken_limit_table(scope: Scope) -> Panel:
    where = "project, lane, stage, instance"
    broken = f"topk({MOST_ROWS}, max by ({where}, severity) ({scope.select(names.SLA_BREACHED)} == 1))"
    duration, limit = (  # of the same stages: others would be rows without a severity
        f"{query} and on ({where}) {broken}"
        for query in (scope.longest_stage(f" by ({where}) "), f"max by ({where}) ({scope.select(names.SLA_LIMIT)})")
    )
    return build_table(
        "Which limits are broken?",
        "Stages over their SLA, now or in their last run, until a run keeps the limit. The duration is that of their "
        "last run, or of the present one once it takes a minute longer. The lane's dashboard shows what the stage "
        "waited for.",
        {"A": broken, "B": duration, "C": limit},
        [
            *_build_place_columns(),
            Column(source="severity", title="Severity", width=80, scale=name_states(_SLA_SEVERITIES)),
            Column(source="B", title="Took", width=80, scale=Scale(unit="s", missing="running")),
            Column(source="C", title="Limit", width=80, scale=Scale(unit="s")),
        ],
    )


def _build_nearest_limits(scope: Scope) -> Panel:
    return build_bar_gauge(
        "Which stages are closest to their limit?",
        "The longest last duration, or that of the present run once it takes a minute longer, over the limit, of all "
        "hosts. At 80 % there is a warning, at 100 % the limit is broken: split the longest stage, or give it "
        "workers. A stage that is skipped as unchanged breaks no limit; its value is from when it last ran.",
        Query(
            expr=f"topk(10, {scope.longest_stage(' by (project, lane, stage) ')}"
            f" / max by (project, lane, stage) ({scope.select(names.SLA_LIMIT)}))",
            legend="{{project}} {{lane}} {{stage}}",
        ),
        more_is_worse("percentunit", watch=0.8, bad=1, maximum=1.5),
        no_value="no limit",
        links=[_LANE_LINK],
    )


def _iter_host_panels(scope: Scope) -> Iterator[Panel]:
    by = "by (project, pool)"
    busy, slots = (f"sum {by} ({scope.rate(family)})" for family in (names.POOL_BUSY, names.POOL_SLOT))
    worked, there = (
        f"sum {by} ({scope.over_range('increase', family)})" for family in (names.POOL_BUSY, names.POOL_SLOT)
    )
    busiest = f"topk({MOST_LINES}, {worked} / ({there} > 0))"
    yield build_time_series(
        "Are the pools used?",
        f"Busy worker time over available worker time, of the {MOST_LINES} busiest pools. Under 50 % for long: the "
        "pools are too large. Near 100 % with tasks waiting: the pools, or the machine, are too small.",
        [Query(expr=f"{busy} / ({slots} > 0) and {busiest}", legend="{{project}} {{pool}}")],
        Scale(unit="percentunit", maximum=1),
    )
    waited = scope.over_range("avg_over_time", names.POOL_QUEUE_DEPTH)
    yield build_time_series(
        "Does work wait for workers?",
        f"Tasks that could run but wait for a worker, in the {MOST_LINES} pools with the most. A queue that never "
        "empties: raise the pool's maximum, if the machine has room.",
        [
            Query(
                expr=f"sum {by} ({scope.select(names.POOL_QUEUE_DEPTH)}) and topk({MOST_LINES}, sum {by} ({waited}))",
                legend="{{project}} {{pool}}",
            )
        ],
        Scale(unit=COUNT, decimals=0),
    )
    yield build_time_series(
        "Which hosts have the least memory left?",
        "The five with the least memory that their exporter may still use. Near 0 the kernel kills tasks: lower the "
        "pools' maximum there, or give stages a `memory` need.",
        [
            Query(
                expr=f"min by (instance) ({scope.select(names.HOST_MEMORY)})"
                f" and bottomk(5, min by (instance) ({scope.over_range('min_over_time', names.HOST_MEMORY)}))",
                legend="{{instance}}",
            )
        ],
        Scale(unit="bytes"),
    )
    yield build_worker_deaths(
        scope,
        "Do workers die?",
        "signal: a crash or the out-of-memory killer; see the kernel's log. exit: the task ended its worker.",
    )


def _build_place_columns(*labels: str) -> list[Column]:
    """Return columns of labels, all by default; that of the lane links to its dashboard."""
    labels = labels or ("project", "lane", "stage", "instance")
    linked = [label for label in ("project", "lane", "instance") if label in labels]
    return [
        Column(
            source=label,
            title=label.capitalize(),
            width=_PLACE_WIDTHS.get(label),
            links=(link_row(*linked),) if label == "lane" else (),
        )
        for label in labels
    ]


def _build_kept_ratio_query(scope: Scope, *by: str) -> str:
    """Build the query for the ratio of stage checks that kept their limit in the time shown, from recorded series.

    A limit breaks before its stage is checked, so of a few runs there may be more broken limits than checks.
    """
    grouped = f" by ({', '.join(by)}) " if by else ""
    broken, checks = (
        f"sum{grouped}(sum_over_time({scope.select_recorded(family)}[{DASHBOARD_RANGE}]))"
        for family in (names.SLA_VIOLATIONS, names.SLA_CHECKS)
    )
    return f"clamp_min(1 - {broken} / ({checks} > 0), 0)"


def _compute_near_miss_ratio(target: float) -> float:
    """Return the ratio from which on a miss of the target is small: it allows twice the violations of the target."""
    return round(max(0.0, 1 - 2 * (1 - target)), 6)


def _format_percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def _round_ratio(share: float) -> str:
    """Remove the noise of binary fractions: 1 - 0.99 becomes 0.01."""
    return f"{share:.6g}"


def _select_firing(scope: Scope, severity: str = 'severity!="info"') -> str:
    """Select the firing alerts of these rules that are about the chosen hosts and lanes, by a matcher of severities."""
    own = f"{scope.selector}," if scope.selector else ""
    # Not each alert has each label: those on error budgets have no instance, those on hosts no project.
    chosen = "".join(f'{name}=~"${name}|",' for name in (*TARGET_LABELS, *scope.variables))
    # Alerts of severity info are about how a lane is built, and fire for weeks: their marks would hide the others.
    shown = f'alertname=~"Paropt.+",alertstate="firing",{severity}'
    return f"ALERTS{{{own}{chosen}{shown}}}"


def _build_alert_annotation(scope: Scope) -> Annotation:
    return Annotation(
        name="Alerts",
        expr=f"max by (alertname, severity) ({_select_firing(scope)})",
        title="{{alertname}} ({{severity}})",
        colour=Colour.BAD,
    )


DASHBOARD = DashboardSpec(
    uid="paropt-overview",
    title="Paropt / Overview",
    description="All lanes on all hosts: health, failures, limits. Choose a lane for details.",
    variables=VARIABLES,
    sections=_build_sections,
    annotations=lambda scope: (_build_alert_annotation(scope),),
)
