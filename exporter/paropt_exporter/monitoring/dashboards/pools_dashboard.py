"""The dashboard of pools and control: wanted, decided, live and busy sizes, reasons of changes, and resources."""

from __future__ import annotations

from collections.abc import Iterator

from grafanalib.core import Panel

from paropt_exporter import families as names
from paropt_exporter.families import Family
from paropt_exporter.monitoring.dashboards.layout import (
    CHART_HEIGHT,
    STAT_HEIGHT,
    TALL_HEIGHT,
    Annotation,
    DashboardSpec,
    Line,
    Section,
    Variable,
    build_section,
)
from paropt_exporter.monitoring.dashboards.panels import (
    COARSE_POINTS,
    Dash,
    Query,
    build_bar_gauge,
    build_bars,
    build_stat,
    build_time_series,
    build_worker_deaths,
)
from paropt_exporter.monitoring.dashboards.scales import (
    BY_RESULT,
    COUNT,
    Colour,
    Scale,
    Step,
    limit_at,
    name_states,
    yes_or_no,
)
from paropt_exporter.monitoring.dashboards.scope import Scope, name_conditions
from paropt_exporter.monitoring.dashboards.tables import HOSTS_COLUMN, MOST_ROWS, Column, build_table

VARIABLES = (
    Variable(label="project", of=names.POOL_SIZE),
    Variable(label="pool", of=names.POOL_SIZE),
    Variable(label="lane", of=names.STAGE_INFO),
    Variable(label="stage", of=names.STAGE_INFO),
)
_BY = "by (pool)"
_POOL = "{{pool}}"
_MOVES = ("up", "down")  # decisions that change a size


def _build_sections(scope: Scope) -> tuple[Section, ...]:
    return (
        Section(
            title="The pools now",
            lines=(
                Line(height=STAT_HEIGHT, panels=[*_iter_status_panels(scope)]),
                Line(height=CHART_HEIGHT, panels=[_build_trouble_table(scope), _build_bounds_panel(scope)]),
            ),
        ),
        build_section("Tasks: rate, errors, wait", _iter_task_panels(scope)),
        Section(
            title="Size and decisions",
            lines=(
                Line(height=TALL_HEIGHT, panels=[_build_size_panel(scope)]),
                Line(height=CHART_HEIGHT, panels=[*_iter_reason_panels(scope)]),
                Line(height=TALL_HEIGHT, panels=[*_iter_prediction_panels(scope)]),
            ),
        ),
        build_section("Machine: utilization, saturation, errors", _iter_host_panels(scope)),
        build_section("Dask's own view, of lanes with strategy dask", _iter_dask_panels(scope), collapsed=True),
    )


def _iter_status_panels(scope: Scope) -> Iterator[Panel]:
    busy, slots = (f"sum({scope.rate(family)})" for family in (names.POOL_BUSY, names.POOL_SLOT))
    yield build_stat(
        "Are the workers used?",
        "Busy worker time over available worker time. Under 50 %: lower the minimum. Over 90 % with tasks waiting: "
        "raise the maximum, if the machine has cores.",
        Query(expr=f"{busy} / ({slots} > 0)"),
        Scale(unit="percentunit"),
        no_value="no worker",
    )
    yield build_stat(
        "How many workers are there?",
        "Live workers of the chosen pools, including those that will end after their task. If there are more than "
        "the machine can feed, see CPU and memory below.",
        Query(expr=f"sum({scope.select(names.POOL_SIZE)})"),
        Scale(unit=COUNT, decimals=0),
    )
    yield build_stat(
        "How many tasks wait?",
        "Tasks that could run but have no worker. If it never falls to 0: raise the maximum, where the machine has "
        "room.",
        Query(expr=f"sum({scope.select(names.POOL_QUEUE_DEPTH)})"),
        Scale(unit=COUNT, decimals=0),
    )
    yield from _iter_trouble_panels(scope)


def _iter_trouble_panels(scope: Scope) -> Iterator[Panel]:
    yield build_stat(
        "How many are at their maximum?",
        f"Pools that can't grow though tasks have waited for {scope.recorded_window}; the table below names them. "
        "Those of a fixed size don't count.",
        Query(expr=f"count({_select_full_pools(scope)}) or 0 * count({scope.select(names.POOL_SIZE)})"),
        Scale(unit=COUNT, below=Colour.GOOD, steps=(Step(value=1, colour=Colour.WATCH),), decimals=0),
    )
    yield build_stat(
        "Is the controller blind?",
        "Whether a pool is steered by query results and all of them are rejected. Its size stays until one is valid: "
        "see the query errors below.",
        Query(expr=f"max({scope.select(names.CONTROL_BLIND)})"),
        yes_or_no("yes", "no", yes_is_good=False),
        no_value="no controller",
    )
    yield build_stat(
        "Does a size go back and forth?",
        "Whether a pool changed direction so often that it does not shrink for a while. Pin it, or raise its minimum.",
        Query(expr=f"max({scope.select(names.CONTROL_FLAPPING)})"),
        yes_or_no("flapping", "steady", yes_is_good=False),
        no_value="no controller",
    )


def _iter_task_panels(scope: Scope) -> Iterator[Panel]:
    yield build_time_series(
        "How many tasks end, and how?",
        "Tasks per second, by result. A fall while tasks wait: workers are lost or slow; see deaths and CPU below.",
        [Query(expr=f"sum by (result) ({scope.rate(names.POOL_FINISHED)})", legend="{{result}}")],
        Scale(unit="ops"),
        colours=BY_RESULT,
    )
    submitted, finished = (f"sum({scope.rate(family)})" for family in (names.POOL_SUBMITTED, names.POOL_FINISHED))
    yield build_time_series(
        "Does the pool keep up?",
        "Tasks submitted to the pools and tasks that ended, per second. If more are submitted than end, the queue "
        "grows.",
        [Query(expr=submitted, legend="submitted"), Query(expr=finished, legend="ended")],
        Scale(unit="ops"),
    )
    yield build_time_series(
        "How long does work wait?",
        "The age of the oldest waiting task, on the worst host. If it climbs, no worker takes tasks: add workers, or "
        "find out why the existing ones are blocked.",
        [Query(expr=f"max {_BY} ({scope.select(names.POOL_OLDEST_AGE)})", legend=_POOL)],
        Scale(unit="s"),
    )


def _build_size_panel(scope: Scope) -> Panel:
    def select_size(family: Family, what: str, dash: Dash | None = None, **labels: str) -> Query:
        return Query(expr=f"sum({scope.select(family, **labels)})", legend=what, dash=dash)

    return build_time_series(
        "Does the size of $pool follow its work?",
        "Busy workers, live workers and the target; dashed: the size that the controller recommends, its floor "
        "and ceiling (orange), the config's bounds (red). Live below target for long: the machine can't start workers. "
        "At the ceiling while tasks wait: `paropt-exporter explain` names the signal that lowered it.",
        [
            select_size(names.POOL_WORKERS, "busy", state="busy"),
            select_size(names.POOL_SIZE, "live"),
            select_size(names.POOL_SIZE_TARGET, "target"),
            select_size(names.CONTROL_RECOMMENDED, "recommended", Dash.BOUND),
            select_size(names.CONTROL_FLOOR, "floor", Dash.WARNING),
            select_size(names.CONTROL_CEILING, "ceiling", Dash.WARNING),
            select_size(names.POOL_SIZE_MIN, "minimum", Dash.LIMIT),
            select_size(names.POOL_SIZE_MAX, "maximum", Dash.LIMIT),
        ],
        Scale(unit=COUNT, decimals=0),
        repeat="pool",
    )


def _iter_reason_panels(scope: Scope) -> Iterator[Panel]:
    yield build_bars(
        "Why does the controller move?",
        "Decisions to change a size, in each interval, by reason; they are also marked in every panel. If it goes up "
        "and down in turn, narrow the bounds, or fix the size with `paropt-exporter pin`.",
        Query(
            expr=f"sum by (action, reason) ({scope.count(names.CONTROL_DECISIONS, action=_MOVES)}) > 0",
            legend="{{action}}: {{reason}}",
        ),
        shortest=scope.recorded_window,
    )
    yield build_bar_gauge(
        "Why does it hold?",
        "The ten most frequent reasons to leave a size as it is, in the time shown. Doubtful readings (no_data, stale, "
        "disagree, ...): see the query errors on the Exporter health dashboard.",
        Query(
            expr=f"topk(10, sum by (reason) ({scope.increase_over_range(names.CONTROL_DECISIONS, action='hold')}) > 0)",
            legend="{{reason}}",
        ),
        Scale(unit=COUNT, decimals=0),
    )
    yield build_bars(
        "Why do sizes change?",
        "Changes of targets in each interval by direction and reason; start and plan come with each run. Many of the "
        "others: `paropt-exporter pin` keeps a size.",
        Query(
            expr=f"sum by (direction, reason) ({scope.count(names.POOL_RESIZES)}) > 0",
            legend="{{direction}}: {{reason}}",
        ),
        shortest=scope.recorded_window,
    )


def _build_trouble_table(scope: Scope) -> Panel:
    troubles = {
        "at its maximum": _select_full_pools(scope),
        "blind": f"{scope.select(names.CONTROL_BLIND)} == 1",
        "flapping": f"{scope.select(names.CONTROL_FLAPPING)} == 1",
    }
    return build_table(
        "Which pools need attention?",
        f"at its maximum: it can't grow though tasks have waited for {scope.recorded_window}; raise `workers: max` "
        "where the machine has room. blind: no query result is valid; see the query errors on the Exporter health "
        "dashboard. flapping: pin it, or raise its minimum.",
        {"A": f"topk({MOST_ROWS}, max by (project, pool, instance, trouble) ({name_conditions('trouble', troubles)}))"},
        [
            Column(source="project", title="Project"),
            Column(source="pool", title="Pool"),
            Column(source="instance", title="Instance"),
            Column(source="trouble", title="Trouble", scale=name_states(dict.fromkeys(troubles, Colour.WATCH))),
        ],
    )


def _select_full_pools(scope: Scope) -> str:
    """Build the query for the targets of pools at their maximum while tasks have waited for minutes, as the alert does.

    A pool of a fixed size can't grow anyway, and that tasks wait for a moment is usual.
    """
    target, least, most = map(scope.select, (names.POOL_SIZE_TARGET, names.POOL_SIZE_MIN, names.POOL_SIZE_MAX))
    waiting = f"min_over_time({scope.select(names.POOL_QUEUE_DEPTH, over=scope.recorded_window)}) > 0"
    return f"{target} >= ({most} > {least}) and {waiting}"


def _build_bounds_panel(scope: Scope) -> Panel:
    return build_table(
        "How is each pool steered?",
        "act: the controller sets the size. advise: it only recommends. pause and pin: a person stopped it, with "
        "`paropt-exporter pause` or `pin`; `resume` ends that.",
        {"A": f"sum by (project, pool, mode, source) ({scope.select(names.CONTROL_MODE)})"},
        [
            Column(source="project", title="Project"),
            Column(source="pool", title="Pool"),
            Column(source="mode", title="Mode", width=80),
            Column(source="source", title="Source", width=100),
            HOSTS_COLUMN,
        ],
    )


def _iter_prediction_panels(scope: Scope) -> Iterator[Panel]:
    by, legend = "by (project, lane, stage)", "{{project}} {{lane}} {{stage}}"
    highest = scope.over_range("max_over_time", names.SLA_PREDICTED_RATIO)
    expected = scope.over_range("avg_over_time", names.SLA_PREDICTED_BREACH)
    yield build_time_series(
        "Will the running stages keep their limits?",
        "The share of its limit that each running stage is expected to need, of the slowest host; the ten largest. "
        "Over 100 %: the controller adds workers if it may; otherwise split the stage, or change its limit.",
        [
            Query(
                expr=f"max {by} ({scope.select(names.SLA_PREDICTED_RATIO)}) and topk(10, max {by} ({highest}))",
                legend=legend,
            )
        ],
        limit_at(1),
        points=COARSE_POINTS,
    )
    yield build_bars(
        "Which stages are expected to break their limit?",
        "On how many hosts a running stage is expected to end after its limit; the ten stages with the most. There "
        "is still time to raise the pools' maximum; later, split the stage.",
        Query(
            expr=f"(sum {by} ({scope.select(names.SLA_PREDICTED_BREACH)}) > 0) and topk(10, sum {by} ({expected}))",
            legend=legend,
        ),
        shortest=None,
        faults=True,
    )
    total, count = (f"sum({scope.rate(names.CONTROL_QUERY_DURATION, part=part)})" for part in ("sum", "count"))
    yield build_time_series(
        "How long do the controller's queries take?",
        "The mean time of a query to Prometheus, failed ones too. Slow: use recording rules. In a gap no query was "
        "sent: see the failures on the Exporter health dashboard, then `feedback.prometheus.url` and its secrets.",
        [Query(expr=f"{total} / ({count} > 0)", legend="mean time")],
        Scale(unit="s"),
    )


def _iter_host_panels(scope: Scope) -> Iterator[Panel]:
    # `serve` has the host's cores for each project.
    cores = f"sum(max by (job, instance) ({scope.select(names.HOST_CPUS)}))"
    cpu, delay = (f"sum {_BY} ({scope.rate(family)})" for family in (names.POOL_CPU, names.POOL_RUN_DELAY))
    yield build_time_series(
        "How many cores do the pools use?",
        "Cores in use by each pool's tasks; dashed: the available cores. At the line more workers don't help.",
        [
            Query(expr=cpu, legend=_POOL),
            Query(expr=cores, legend="cores", dash=Dash.LIMIT),
        ],
        Scale(unit="short"),
    )
    yield build_time_series(
        "Do tasks wait for a core?",
        "How many tasks, on average, were ready to run but had no core. Above the number of cores: too many workers "
        "that compute; lower the maximum.",
        [Query(expr=delay, legend=_POOL)],
        Scale(unit="short"),
    )
    yield build_time_series(
        "How much memory is left?",
        "Memory that the exporter and its tasks may use, on the host with the least; dashed: the limit. Near 0 the "
        "kernel kills tasks: lower the maximum.",
        [
            Query(expr=f"min({scope.select(names.HOST_MEMORY)})", legend="available"),
            Query(expr=f"min({scope.select(names.HOST_MEMORY_LIMIT)})", legend="limit", dash=Dash.LIMIT),
        ],
        Scale(unit="bytes"),
    )
    yield build_worker_deaths(
        scope,
        "Which workers die?",
        "signal: a crash or the out-of-memory killer. initializer: the pool's initializer fails; the exporter's log "
        "has the error.",
    )


def _iter_dask_panels(scope: Scope) -> Iterator[Panel]:
    """Show the scheduler's own metrics, which have no label of ours: only the user's selector restricts them."""
    matchers = f"{{{scope.selector}}}" if scope.selector else ""
    yield build_time_series(
        "Which workers does the scheduler have?",
        "Workers by Dask's state. If the pool dask above has more, the scheduler has lost some: see its log. No "
        "data: scrape the scheduler's port, with prometheus_client installed there.",
        [Query(expr=f"sum by (state) (dask_scheduler_workers{matchers})", legend="{{state}}")],
        Scale(unit=COUNT, decimals=0),
    )
    yield build_time_series(
        "Which tasks does the scheduler hold?",
        "Tasks by Dask's state; each slot in use is one. Many in no-worker: other clients use the scheduler too, or "
        "its workers have gone.",
        [Query(expr=f"sum by (state) (dask_scheduler_tasks{matchers})", legend="{{state}}")],
        Scale(unit=COUNT, decimals=0),
    )


def _build_decision_annotation(scope: Scope) -> Annotation:
    moved = scope.increase(names.CONTROL_DECISIONS, action=_MOVES)
    return Annotation(
        name="Decisions",
        expr=f"sum by (pool, action, reason) ({moved}) > 0",
        title="{{pool}} {{action}}: {{reason}}",
        colour=Colour.PLAIN,
    )


DASHBOARD = DashboardSpec(
    uid="paropt-pools",
    title="Paropt / Pools and control",
    description="Wanted, decided, live and busy sizes; reasons of changes; queued tasks; the hosts' resources.",
    hours=1,
    variables=VARIABLES,
    sections=_build_sections,
    annotations=lambda scope: (_build_decision_annotation(scope),),
)
