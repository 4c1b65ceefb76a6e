"""The dashboard of one lane: stages and their limits, timeline, failures, slow or uneven stages, resources."""

from __future__ import annotations

from collections.abc import Iterator

from grafanalib.core import Panel
from msgspec.structs import replace

from paropt_exporter import families as names
from paropt_exporter.events import Result
from paropt_exporter.monitoring.alerts.selectors import FAILED
from paropt_exporter.monitoring.dashboards.layout import (
    BARS_HEIGHT,
    STAT_HEIGHT,
    TALL_HEIGHT,
    DashboardSpec,
    Line,
    Section,
    Variable,
    build_section,
)
from paropt_exporter.monitoring.dashboards.links import LANE_UID
from paropt_exporter.monitoring.dashboards.panels import (
    COARSE_POINTS,
    MOST_LINES,
    NONE_RECORDED,
    STAGE_POINTS,
    Dash,
    Query,
    build_bar_gauge,
    build_bars,
    build_heatmap,
    build_stat,
    build_success_rate,
    build_time_series,
    build_timeline,
)
from paropt_exporter.monitoring.dashboards.scales import (
    COUNT,
    Colour,
    Scale,
    Step,
    more_is_worse,
    none_is_good,
    yes_or_no,
)
from paropt_exporter.monitoring.dashboards.scope import Scope
from paropt_exporter.monitoring.dashboards.tables import HOSTS_COLUMN, Column, build_table

VARIABLES = (
    # Lanes of one name in two projects are two lanes, and their stages have the same names as a rule.
    Variable(label="project", of=names.STAGE_INFO, one=True),
    Variable(label="lane", of=names.STAGE_INFO, one=True),
    Variable(label="stage", of=names.STAGE_INFO),
)
_BY = "by (stage)"
_STAGE = "{{stage}}"


def _build_sections(scope: Scope) -> tuple[Section, ...]:
    return (
        build_section("The lane now", _iter_status_panels(scope), height=STAT_HEIGHT),
        Section(
            title="Stages: rate, errors, duration",
            lines=(
                Line(height=TALL_HEIGHT, panels=[_build_durations(scope), _build_timeline(scope)]),
                Line(height=TALL_HEIGHT, panels=[_build_last_run_table(scope)]),
                Line(height=BARS_HEIGHT, panels=[*_iter_error_panels(scope), _build_flaky_panel(scope)]),
            ),
        ),
        build_section("Where the time goes", _iter_time_panels(scope), height=BARS_HEIGHT),
        build_section("What is skipped", [*_iter_cache_panels(scope), _build_deadline_panel(scope)]),
        build_section("Stages: utilization, saturation", _iter_resource_panels(scope), height=BARS_HEIGHT),
    )


def _iter_status_panels(scope: Scope) -> Iterator[Panel]:
    success, completion = (f"max({scope.select(f)})" for f in (names.RUN_LAST_SUCCESS, names.RUN_LAST_COMPLETION))
    yield build_stat(
        "Did the last run succeed?",
        "Whether the lane's last run succeeded; after a run of some stages, whether all stages did when they last ran."
        " If not, the table below names the failed stage.",
        # A lane that has never succeeded has no time of a success.
        Query(
            expr=(
                f"clamp_max(({success} >= bool {completion} or 0 * {completion})"
                f" + ({_count_failed_stages(scope)} == bool 0), 1)"
            )
        ),
        yes_or_no("yes", "no", yes_is_good=True),
        no_value="no run, or no exporter",
    )
    yield build_stat(
        "How long ago did it succeed?",
        "Since the last successful run. More than two intervals of the lane: it fails each time, or nothing starts it.",
        Query(expr=f"time() - {success}"),
        Scale(unit="s"),
        no_value="no success, or no exporter",
    )
    yield from _iter_recent_panels(scope)


def _count_failed_stages(scope: Scope) -> str:
    """Build the query for the stages without success, whatever stages are chosen: a run of some sets no success."""
    lane = replace(scope, variables=tuple(name for name in scope.variables if name != "stage"))
    return f"sum({lane.select(names.STAGE_LAST_RESULT, result=(*FAILED, Result.CANCELLATION.value))})"


def _iter_recent_panels(scope: Scope) -> Iterator[Panel]:
    yield build_stat(
        "How long has it been running?",
        "The present run, on the host where it began first. Much longer than a run takes: a stage is slow or stuck; "
        "the table below begins with it.",
        Query(expr=scope.elapsed(names.RUN_STARTED)),
        Scale(unit="s"),
        no_value="not running",
    )
    yield build_success_rate(scope, "The charts of failures show which stage it is.")
    yield build_stat(
        "How many limits are broken?",
        "The lane's stages over their SLA, now or in their last run. The table below names them: split long ones.",
        Query(expr=f"sum({scope.select(names.SLA_BREACHED)})"),
        none_is_good(),
        no_value="no limit",
    )
    yield build_stat(
        "How much of its limit is used?",
        "The duration of the last whole run, or of the present one once it takes a minute longer, of the slowest "
        "host, over the lane's total limit. Above 80 %: shorten the stages that take longest.",
        Query(expr=f"{scope.longest_run()} / max({scope.select(names.LANE_SLA_LIMIT)})"),
        more_is_worse("percentunit", watch=0.8, bad=1),
        no_value="no limit or run",
    )


def _build_durations(scope: Scope) -> Panel:
    longest = f"topk({MOST_LINES}, {scope.rank_stages(f' {_BY} ')})"
    return build_time_series(
        "How long does each stage take, against its limit?",
        "The last duration of each stage, or that of its present run once it takes a minute longer, on the slowest "
        f"host, of the {MOST_LINES} longest; dashed red: the limits, which the tooltip names. A stage that grows "
        "towards its limit has to be split, or needs more workers; the table below shows how much of the limit it "
        "uses.",
        [
            Query(expr=f"{scope.longest_stage(f' {_BY} ')} and {longest}", legend=_STAGE),
            Query(
                expr=f"max {_BY} ({scope.select(names.SLA_LIMIT)}) and {longest}",
                legend=f"{_STAGE} limit",
                dash=Dash.LIMIT,
                listed=False,
            ),
        ],
        Scale(unit="s"),
        points=COARSE_POINTS,
    )


def _build_timeline(scope: Scope) -> Panel:
    return build_timeline(
        "Which stage ran when?",
        "Stages that run beside each other shorten the lane; one that runs alone for long is its critical path. "
        "Stages shorter than the scrape interval, or than a pixel of the time shown, may not be seen: zoom in.",
        Query(expr=f"max {_BY} ({scope.select(names.STAGE_RUNNING)})", legend=_STAGE),
        Scale(unit="short", words=(("0", "idle", Colour.IDLE), ("1", "runs", Colour.PLAIN))),
        points=STAGE_POINTS,
    )


def _build_last_run_table(scope: Scope) -> Panel:
    duration, limit = scope.longest_stage(f" {_BY} "), f"max {_BY} ({scope.select(names.SLA_LIMIT)})"
    cpu = f"sum {_BY} ({scope.increase_over_range(names.STAGE_CPU)})"
    runs = f"sum {_BY} ({scope.increase_over_range(names.STAGE_DURATION, part='count')})"
    return build_table(
        "How does each stage do?",
        "Of the slowest host: duration of its last run, or of the present one once it takes a minute longer, the share "
        "of the limit that this is, CPU per run in the time shown, peak memory of a task, progress, tasks that run now "
        "on all hosts (0: all wait for workers, locks or memory), and on how many hosts it is failing. Begin with "
        "stages over their limit, then with the longest. One with running tasks and no progress for long is stuck: "
        "give it a `timeout`. A stage that is skipped as unchanged has the duration of its last run.",
        {
            "A": duration,
            "B": f"{duration} / {limit}",
            "C": f"{cpu} / ({runs} > 0)",
            "D": f"max {_BY} ({scope.select(names.STAGE_MEMORY_PEAK)})",
            "E": f"min {_BY} ({scope.select(names.STAGE_PROGRESS)})",
            "F": f"sum {_BY} ({scope.select(names.STAGE_FAILING)})",
            "G": f"sum {_BY} ({scope.select(names.STAGE_TASKS_RUNNING)})",
        },
        [
            Column(source="stage", title="Stage"),
            Column(source="A", title="Duration", scale=Scale(unit="s")),
            Column(
                source="B",
                title="Of its limit",
                scale=more_is_worse("percentunit", watch=0.8, bad=1, missing="no limit"),
            ),
            Column(source="C", title="CPU per run", scale=Scale(unit="s", missing="no run")),
            Column(source="D", title="Memory peak", scale=Scale(unit="bytes", missing="unknown")),
            Column(source="E", title="Done", scale=Scale(unit="percentunit")),
            Column(source="G", title="Running", scale=Scale(unit=COUNT, decimals=0, missing="-")),
            Column(source="F", title="Hosts where it fails", scale=none_is_good()),
        ],
    )


def _iter_error_panels(scope: Scope) -> Iterator[Panel]:
    yield build_bars(
        "Which stages fail?",
        "Stage runs that failed, timed out or could not run in each interval, as a recording rule counts them. The "
        "same stage each time: its own fault. Several at once: the machine or the network.",
        Query(
            expr=f"sum by (stage, result) ({scope.count_faults(names.STAGE_RUNS)})",
            legend="{{stage}} {{result}}",
        ),
        shortest=scope.recorded_window,
        faults=True,
        no_value=NONE_RECORDED,
    )
    yield build_bars(
        "Which limits break?",
        "Stage runs that broke their SLA in each interval, by severity. critical ones stopped the lane. The table "
        "above shows by how much; split the stage, or correct its limit.",
        Query(
            expr=f"sum by (stage, severity) ({scope.count_faults(names.SLA_VIOLATIONS)})",
            legend="{{stage}} {{severity}}",
        ),
        shortest=scope.recorded_window,
        faults=True,
        no_value=NONE_RECORDED,
    )
    yield build_bars(
        "Which stages are tried again?",
        "Attempts of tasks that did not succeed, in each interval. Retries hide flaky tests: fix the frequent ones.",
        Query(
            expr=f"sum by (stage, result) ({scope.count_faults(names.TASK_ATTEMPTS)})",
            legend="{{stage}} {{result}}",
        ),
        shortest=scope.recorded_window,
        faults=True,
        no_value=NONE_RECORDED,
    )


def _build_flaky_panel(scope: Scope) -> Panel:
    return build_bar_gauge(
        "Which stages are flaky?",
        "The ten worst: first attempts in the time shown that failed and later passed with the same files, over all "
        "first attempts. Above a hundredth: `paropt-exporter history --flaky` names the items to fix.",
        Query(
            expr=(
                f"topk(10, sum {_BY} ({scope.increase_over_range(names.FLAKY_ATTEMPTS)})"
                f" / (sum {_BY} ({scope.increase_over_range(names.FIRST_ATTEMPTS)}) > 0) > 0)"
            ),
            legend=_STAGE,
        ),
        more_is_worse("percentunit", watch=0.01, bad=0.05),
    )


def _build_deadline_panel(scope: Scope) -> Panel:
    return build_stat(
        "Will the run keep its deadline?",
        "Seconds from the predicted end of a run with --deadline to its deadline, on the host with the fewest. If "
        "there are few, a stage that takes longer than in nine of ten earlier runs will be stopped.",
        Query(expr=f"min({scope.select(names.RUN_DEADLINE)} - {scope.select(names.RUN_PREDICTED_END)})"),
        Scale(unit="s"),
        no_value="no deadline now",
    )


def _iter_time_panels(scope: Scope) -> Iterator[Panel]:
    yield build_bar_gauge(
        "Which stages are the slowest?",
        "The ten longest durations of last runs, or of present ones that take a minute longer, of the slowest host. "
        "Only the longest is worth making faster: the lane is as long as its longest path.",
        Query(expr=f"topk(10, {scope.longest_stage(f' {_BY} ')})", legend=_STAGE),
        Scale(unit="s"),
    )
    yield build_table(
        "Which bottlenecks did the last run have?",
        "slow: over 1.5 times the average stage. uneven: its slowest task takes over 3 times its fastest. gil_bound: "
        "Python that computes in threads; give it processes.",
        {"A": f"sum by (stage, kind) ({scope.select(names.BOTTLENECK)}) > 0"},
        [
            Column(source="stage", title="Stage"),
            Column(source="kind", title="Kind", width=90),
            HOSTS_COLUMN,
        ],
    )
    yield build_stat(
        "Does the lane use its pools well?",
        "uneven: the slowest stage takes over 3 times the fastest. under_used: pools were busy less than half of the "
        "time; lower `workers`. saturated: all workers were busy and tasks waited; raise `workers` or get cores.",
        Query(expr=f"sum by (kind) ({scope.select(names.LANE_BOTTLENECK)})", legend="{{kind}}"),
        Scale(unit=COUNT, below=Colour.GOOD, steps=(Step(value=1, colour=Colour.WATCH),), decimals=0),
    )
    # Prometheus 2 keeps le="1" of a Pushgateway or node_exporter apart from le="1.0" of a scraped exporter. The bounds
    # of sums are renamed: renaming those of all hosts took most of the query's time. Two series must not get one name.
    buckets = f"sum by (le) ({scope.count(names.RUN_DURATION, part='bucket')})"
    bounds = f'sum by (bound) (label_replace({buckets}, "bound", "$1", "le", "(.+?)(?:[.]0)?"))'
    yield build_heatmap(
        "How do the runs' durations spread?",
        "Whole runs in each interval by duration, without those that skipped cached tasks. One band: steady. Two: "
        "two kinds of runs. A band that climbs: the lane grows.",
        Query(expr=f'sum by (le) (label_replace({bounds}, "le", "$1", "bound", "(.+)"))', legend="{{le}}"),
        unit="s",
        shortest=scope.recorded_window,
    )


def _iter_cache_panels(scope: Scope) -> Iterator[Panel]:
    hits, all_lookups = (
        f"sum ({scope.increase_over_range(names.CACHE_LOOKUPS, **labels)})" for labels in ({"result": "hit"}, {})
    )
    yield build_stat(
        "How much of the cached work is skipped?",
        "Tasks of cached stages that were skipped, of all of them, in the time shown. If it is low although little "
        "changes, the panel of reasons shows why they run.",
        Query(expr=f"{hits} / ({all_lookups} > 0)"),
        Scale(unit="percentunit"),
        no_value="nothing is cached",
    )
    yield build_stat(
        "How much time did that save?",
        "How long the tasks that were skipped in the time shown took when they ran, all together.",
        Query(expr=f"sum({scope.increase_over_range(names.CACHE_SAVED)})"),
        Scale(unit="s"),
        no_value="nothing is cached",
    )
    yield build_bars(
        "Why do cached stages run?",
        "Tasks of cached stages that ran, by reason. inputs: files changed, as they should. edited, own_input: "
        "narrow `inputs`. uncacheable, store: the log and the summary give the reason. evicted: raise "
        "PAROPT_CACHE_SIZE.",
        Query(
            expr=f"sum by (stage, reason) ({scope.count(names.CACHE_LOOKUPS, result='miss')}) > 0",
            legend="{{stage}} {{reason}}",
        ),
        shortest=scope.recorded_window,  # each stage has a series for each of twelve reasons: fewer bars cost less
    )


def _iter_resource_panels(scope: Scope) -> Iterator[Panel]:
    busiest = f"topk({MOST_LINES}, sum {_BY} ({scope.over_range('increase', names.STAGE_CPU)}))"
    waited, waits = (
        f"sum {_BY} ({scope.increase_over_range(names.TASK_QUEUE_WAIT, part=part)})" for part in ("sum", "count")
    )
    yield build_time_series(
        "How much CPU does each stage use?",
        f"Cores, of the stage's tasks and all their descendants, of the {MOST_LINES} busiest. As many as the machine "
        "has: more workers won't help.",
        [Query(expr=f"sum {_BY} ({scope.rate(names.STAGE_CPU)}) and {busiest}", legend=_STAGE)],
        Scale(unit="short"),
        points=COARSE_POINTS,
    )
    yield build_bar_gauge(
        "Which stages need the most memory?",
        "The highest use of one of a stage's tasks in the last run, of the largest host. Pages that processes share "
        "count once for each. Give large ones a `memory` need, so that they don't run beside each other.",
        Query(expr=f"topk(10, max {_BY} ({scope.select(names.STAGE_MEMORY_PEAK)}))", legend=_STAGE),
        Scale(unit="bytes"),
    )
    yield build_bar_gauge(
        "Whose tasks wait for a worker?",
        "How long a task waited on average, since its stage's needs had succeeded, in the time shown; the ten stages "
        "with the longest waits. Longer than the tasks themselves take: use more workers, or run fewer stages beside "
        "each other. Stages with `locks` or `exclusive` also wait for others.",
        Query(expr=f"topk(10, {waited} / ({waits} > 0))", legend=_STAGE),
        Scale(unit="s"),
    )


DASHBOARD = DashboardSpec(
    uid=LANE_UID,
    title="Paropt / Lane and run",
    description="One lane: how it runs, which stage ran when and how long, which failed, which to speed up.",
    hours=1,
    variables=VARIABLES,
    sections=_build_sections,
)
