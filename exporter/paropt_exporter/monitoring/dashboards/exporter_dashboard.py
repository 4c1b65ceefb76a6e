"""The dashboard of the exporter itself: does it answer, how much does it cost, does it lose data."""

from __future__ import annotations

from collections.abc import Iterator

from grafanalib.core import Panel

from paropt_exporter import families as names
from paropt_exporter.monitoring.dashboards.layout import STAT_HEIGHT, DashboardSpec, Section, Variable, build_section
from paropt_exporter.monitoring.dashboards.panels import (
    MOST_LINES,
    Dash,
    Query,
    build_bars,
    build_stat,
    build_time_series,
)
from paropt_exporter.monitoring.dashboards.scales import COUNT, Colour, Scale, more_is_worse, name_states, none_is_good
from paropt_exporter.monitoring.dashboards.scope import Scope, name_conditions
from paropt_exporter.monitoring.dashboards.tables import HOSTS_COLUMN, MOST_ROWS, Column, build_table

VARIABLES = (Variable(label="project", of=names.BUILD_INFO),)
_HOST = "{{instance}}"
_FAULTS = {"no answer": Colour.BAD, "no target": Colour.WATCH}  # one may have been removed on purpose


def _build_sections(scope: Scope) -> tuple[Section, ...]:
    return (
        build_section("The exporters now", _iter_status_panels(scope), height=STAT_HEIGHT),
        build_section("Scrapes: rate, errors, duration", _iter_scrape_panels(scope)),
        build_section("What is lost", _iter_loss_panels(scope)),
        build_section("Process: utilization, saturation", _iter_process_panels(scope)),
        build_section("Shares of a machine: paropt-exporter serve", _iter_share_panels(scope), collapsed=True),
    )


def _iter_status_panels(scope: Scope) -> Iterator[Panel]:
    yield build_stat(
        "How many exporters answer?",
        "Targets that Prometheus could scrape. Fewer than you have hosts: add the others to the scrape configuration.",
        Query(expr=f"sum({scope.select_target('up')})"),
        Scale(unit=COUNT, decimals=0),
        no_value="no target",
    )
    yield build_stat(
        "How many don't answer?",
        "Targets that Prometheus could not scrape. Start them again. A lane that runs with `--once` should not be a "
        "target.",
        Query(expr=f"sum(1 - {scope.select_target('up')})"),
        none_is_good(),
        no_value="no target",
    )
    yield build_stat(
        "How long ago did one start?",
        "Since the latest start of an exporter. If it is always short, something restarts the exporter: see its log.",
        Query(expr=f"min(time() - {scope.select_process('process_start_time_seconds')})"),
        Scale(unit="s"),
    )
    yield build_stat(
        "How many records are lost?",
        "Records in the time shown that an observer failed to take. If it is history: the disk is full or read-only.",
        Query(expr=f"sum({scope.increase_over_range(names.OBSERVATIONS_DROPPED)})"),
        none_is_good(),
    )
    yield build_stat(
        "How slow are scrapes?",
        "The slowest of the last scrapes. Near the scrape timeout: raise the timeout, or give an exporter fewer "
        "stages.",
        Query(expr=f"max({scope.select_target('scrape_duration_seconds')})"),
        more_is_worse("s", watch=1, bad=5),
    )
    yield build_stat(
        "How full are the file descriptors?",
        "Open over allowed, of the fullest exporter. At 100 % nothing can be started: raise `LimitNOFILE`.",
        Query(expr=f"max({scope.select_process('process_open_fds')} / {scope.select_process('process_max_fds')})"),
        more_is_worse("percentunit", watch=0.7, bad=0.9, decimals=1),
    )


def _iter_scrape_panels(scope: Scope) -> Iterator[Panel]:
    up = scope.select_target("up")
    yield build_time_series(
        "When did exporters answer?",
        "Targets that could be scraped, and (dashed) all targets. A dip of all at once: Prometheus or the network; "
        "of one: its host.",
        [Query(expr=f"sum({up})", legend="answer"), Query(expr=f"count({up})", legend="targets", dash=Dash.BOUND)],
        Scale(unit=COUNT, decimals=0),
    )
    duration, samples = "scrape_duration_seconds", "scrape_samples_post_metric_relabeling"
    yield _build_missing_table(scope)
    yield build_time_series(
        "Which scrapes are the slowest?",
        "The five slowest exporters. One alone: its host is busy. All: too many series.",
        [Query(expr=_choose_five(scope, scope.select_target(duration), duration), legend=_HOST)],
        Scale(unit="s"),
    )
    yield build_time_series(
        "How many series does a scrape bring?",
        "The five largest exporters. It grows with the number of stages; drop unneeded metrics while scraping.",
        [Query(expr=_choose_five(scope, scope.select_target(samples), samples), legend=_HOST)],
        Scale(unit=COUNT, decimals=0),
    )


def _build_missing_table(scope: Scope) -> Panel:
    faults = {
        "no answer": f"{scope.select_target('up')} == 0",
        "no target": f"{scope.select_remembered()} unless on (job, instance) up{{{scope.build_matchers()}}}",
    }
    return build_table(
        "Which don't answer?",
        "Exporters of the last day that Prometheus can't scrape (no answer: start them again, or look at the network), "
        "or that it no longer knows (no target: the scrape configuration or service discovery has dropped them).",
        {"A": f"topk({MOST_ROWS}, max by (job, instance, fault) ({name_conditions('fault', faults)}))"},
        [
            Column(source="instance", title="Instance"),
            Column(source="fault", title="Fault", width=90, scale=name_states(_FAULTS)),
            Column(source="job", title="Job", width=90),
        ],
    )


def _build_builds_table(scope: Scope) -> Panel:
    build = ", ".join(names.BUILD_INFO.labels)
    return build_table(
        "Which builds run?",
        "Versions and revisions, with the number of hosts. More than one after an upgrade: some were not restarted.",
        {"A": f"count by ({build}) (max by (job, instance, {build}) ({scope.select(names.BUILD_INFO)}))"},
        [
            Column(source="version", title="Version", width=80),
            Column(source="revision", title="Revision", width=110),
            Column(source="python", title="Python", width=80),
            HOSTS_COLUMN,
        ],
    )


def _iter_loss_panels(scope: Scope) -> Iterator[Panel]:
    by = "by (instance, observer)"
    yield build_bars(
        "What do observers drop?",
        "Records that an observer failed to take, in each interval. history: totals after a restart will be too low; "
        "fix the disk. metrics: report it, with the log.",
        Query(
            expr=f"(sum {by} ({scope.count(names.OBSERVATIONS_DROPPED)}) > 0)"
            f" and topk({MOST_LINES}, sum {by} ({scope.over_range('increase', names.OBSERVATIONS_DROPPED)}))",
            legend="{{instance}} {{observer}}",
        ),
        shortest=scope.recorded_window,
        faults=True,
    )
    yield build_bars(
        "Do the final values of short runs arrive?",
        "Deliveries to a Pushgateway, a text file or an OpenTelemetry collector, in each interval. Failures: check the "
        "address, or the folder's permissions; the run itself is not touched.",
        Query(expr=f"sum by (target, result) ({scope.count(names.DELIVERIES)})", legend="{{target}} {{result}}"),
        shortest=scope.recorded_window,
        colours={f"{target} failure": Colour.BAD for target in names.DELIVERY_TARGETS}
        | {f"{target} success": Colour.GOOD for target in names.DELIVERY_TARGETS},
    )
    yield build_bars(
        "Which queries of the controller fail?",
        "Queries to Prometheus that failed, in each interval, by kind. connection and timeout: the server or the "
        "network. Sizes stay the same meanwhile.",
        Query(expr=f"sum by (kind) ({scope.count(names.CONTROL_QUERY_ERRORS)})", legend="{{kind}}"),
        shortest=scope.recorded_window,
        faults=True,
    )
    by = "by (project, instance, file)"
    refused = {
        "paropt.yml": f"{scope.select(names.CONFIG_RELOAD_SUCCESSFUL)} == 0",
        "web config": f"{scope.select(names.WEB_CONFIG_RELOAD_SUCCESSFUL)} == 0",
    }
    yield build_table(
        "Which changed configs are refused?",
        "Exporters that keep using an earlier paropt.yml or web config, since the present one has faults. "
        "`paropt-exporter check` names those of paropt.yml, the log those of the web config.",
        {"A": f"topk({MOST_ROWS}, max {by} ({name_conditions('file', refused)}))"},
        [
            Column(source="project", title="Project", width=100),
            Column(source="instance", title="Instance"),
            Column(source="file", title="File", width=90),
        ],
    )


def _iter_process_panels(scope: Scope) -> Iterator[Panel]:
    cpu, memory, files = "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"
    yield build_time_series(
        "How much CPU does the exporter take?",
        "Cores of the five busiest exporters themselves, without their commands. Over 0.1 while it only serves: "
        "scrapes are too frequent.",
        [Query(expr=_choose_five(scope, scope.rate_process(cpu), cpu, by="increase"), legend=_HOST)],
        Scale(unit="short"),
    )
    yield build_time_series(
        "How much memory does the exporter take?",
        "Resident memory of the five largest. If it never stops growing, a task in a thread leaks memory.",
        [Query(expr=_choose_five(scope, scope.select_process(memory), memory), legend=_HOST)],
        Scale(unit="bytes"),
    )
    yield build_time_series(
        "How many files does it hold open?",
        "Open descriptors of the five exporters with the most. Each running command takes a few, until the run ends.",
        [Query(expr=_choose_five(scope, scope.select_process(files), files), legend=_HOST)],
        Scale(unit=COUNT, decimals=0),
    )
    yield _build_builds_table(scope)


def _choose_five(scope: Scope, shown: str, name: str, by: str = "max_over_time") -> str:
    """Return the query for the five exporters with the greatest values of a metric in the time shown."""
    return f"{shown} and topk(5, {scope.rank_targets(by, name)})"


def _iter_share_panels(scope: Scope) -> Iterator[Panel]:
    granted, wanted = scope.select(names.SERVE_CORES_GRANTED), scope.select(names.SERVE_CORES_WANTED)
    mostly_granted = scope.over_range("avg_over_time", names.SERVE_CORES_GRANTED)
    waited = scope.over_range("increase", names.SERVE_WAIT)
    yield build_time_series(
        "Which projects have the cores?",
        f"Cores that `serve` lets each project's runs use, of the {MOST_LINES} with the most, and (dashed) all that "
        "they could use. If the dashed line is far above, runs wait for each other: use more cores, or start them at "
        "different times.",
        [
            Query(
                expr=f"sum by (project) ({granted}) and topk({MOST_LINES}, sum by (project) ({mostly_granted}))",
                legend="{{project}}",
            ),
            Query(expr=f"sum({wanted})", legend="wanted by all", dash=Dash.LIMIT),
        ],
        Scale(unit="short"),
    )
    yield build_time_series(
        "Which projects wait?",
        "Runs that had tasks to start but no core for them, on average, of the five projects with the most.",
        [
            Query(
                expr=f"sum by (project) ({scope.rate(names.SERVE_WAIT)}) and topk(5, sum by (project) ({waited}))",
                legend="{{project}}",
            )
        ],
        Scale(unit="short"),
    )
    yield build_table(
        "Who waits for whom?",
        "Cores that a project lacks now, by the project whose runs hold them.",
        {"A": f"sum by (project, holder) ({scope.select(names.SERVE_CORES_AWAITED)}) > 0"},
        [
            Column(source="project", title="Project", width=140),
            Column(source="holder", title="Waits for", width=140),
            Column(source="A", title="Cores", scale=Scale(unit="short", decimals=1), width=80),
        ],
    )
    yield build_table(
        "Which histories can't be read?",
        "Projects of `serve` whose totals are outdated. `paropt-exporter serve status` has the reasons.",
        {"A": f"max by (project, instance) ({scope.select(names.SERVE_HISTORY_READABLE)} == 0)"},
        [Column(source="project", title="Project"), Column(source="instance", title="Instance")],
    )


DASHBOARD = DashboardSpec(
    uid="paropt-exporter",
    title="Paropt / Exporter health",
    description="The exporters themselves: do they answer, how much do they cost, do they lose data.",
    variables=VARIABLES,
    sections=_build_sections,
)
