"""Alerts on the exporter and its controller: its data or decisions may be wrong or missing."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.monitoring.alerts import questions
from paropt_exporter.monitoring.alerts.rules import POOL, Alert, Board, Condition, Level, Query
from paropt_exporter.monitoring.alerts.selectors import REMEMBERED, WITHOUT_REPLICA, SeriesSelector
from paropt_exporter.monitoring.options import Options

_DOWN = "ParoptExporterDown"
_GAP_OF_PROMETHEUS = "1h"  # in which it reads its log again, or is upgraded


def build_exporter_alerts(options: Options) -> tuple[Alert, ...]:
    """Return the alerts of this module."""
    series = SeriesSelector(options)
    return (
        _build_no_data_alert(series),
        _build_flapping_alert(series),
        _build_down_alert(series),
        _build_absent_alert(series),
        _build_dropped_alert(series),
        _build_deliveries_alert(series),
        _build_reload_alert(series),
        _build_web_reload_alert(series),
        _build_history_alert(series),
    )


def _build_no_data_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptControllerBlind",
        conditions=(
            Condition(expr=f"{series.select_last(families.CONTROL_BLIND)} == 1", level=Level.WARNING, hold="5m"),
        ),
        summary="A pool is steered by query results, and all of them are rejected.",
        title=f"Pool {POOL.name} is steered by query results, and all of them are rejected.",
        description=(
            f"The controller of pool {POOL.place} has had no valid query result for 5 minutes. The pool keeps its size."
        ),
        board=Board.POOLS,
        link=POOL.labels,
        meaning=(
            "With `feedback.source: prometheus` only query results change the pool's size. The last queries failed, or "
            "their results were empty, stale, partial or about another process. So the size stays, and rises only to "
            "save an SLA."
        ),
        impact="The pool does not follow the load: it may be too small or too large. Work goes on.",
        diagnosis=(
            questions.holds(series),
            Query(
                question="Do queries fail, and how?",
                expr=f"sum by (instance, kind) ({series.increase(families.CONTROL_QUERY_ERRORS, '1h')})",
            ),
            Query(
                question="How long do they take (seconds, mean over an hour)?",
                expr=(
                    f"{series.increase(families.CONTROL_QUERY_DURATION, '1h', part='sum')}"
                    f" / ({series.increase(families.CONTROL_QUERY_DURATION, '1h', part='count')} > 0)"
                ),
            ),
        ),
        mitigation=(
            "Errors: is `feedback.prometheus.url` correct and reachable from the host, and is the token valid? The log "
            "has the reason.",
            "`no_data`, `stale`: does that Prometheus scrape this exporter? `several_sources`: two exporters match the "
            "same query.",
            "Until it is fixed: `feedback.source: both` uses local counters too; `paropt-exporter pin 8` sets a size.",
        ),
    )


def _build_flapping_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptControllerFlapping",
        conditions=(
            Condition(expr=f"{series.select_last(families.CONTROL_FLAPPING)} == 1", level=Level.WARNING, hold="5m"),
        ),
        summary="A pool's size keeps going up and down.",
        title=f"Pool {POOL.name} goes up and down again and again.",
        description=(
            f"The size of pool {POOL.place} changed direction so often within an hour that it does not go down until "
            "the hour is over."
        ),
        board=Board.POOLS,
        link=POOL.labels,
        meaning=(
            "The pool's size has changed direction as often as it may within an hour. It does not shrink until the "
            "hour is over."
        ),
        impact="Workers that are not needed stay for a while. With processes, starting and ending them costs time.",
        diagnosis=(
            Query(
                question="What moves it in both directions (resizes within an hour, by reason)?",
                expr=(
                    "sum by (instance, project, pool, direction, reason) "
                    f"({series.increase(families.POOL_RESIZES, '1h')}) > 0"
                ),
            ),
            Query(
                question="How does the load vary (tasks submitted to the pool, per second)?",
                expr=series.rate(families.POOL_SUBMITTED),
            ),
        ),
        mitigation=(
            "A load that comes in waves shorter than a minute: raise `workers: {min: N}` to what the waves need.",
            "A noisy signal of your own: average it in its query.",
            "`paropt-exporter pin 8` sets a size until you have found the cause.",
        ),
    )


def _build_down_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name=_DOWN,
        conditions=(Condition(expr=_build_down_query(series), level=Level.WARNING, hold="5m"),),
        summary="An exporter does not answer.",
        title="Exporter {{ $labels.instance }} of job {{ $labels.job }} does not answer.",
        description=(
            "{{ $labels.instance }} of job {{ $labels.job }} has not answered for 5 minutes. It is one of those that "
            "serve until they are stopped."
        ),
        board=Board.EXPORTER,
        link=("job", "instance"),
        meaning=(
            "A target that had a paropt-exporter within the last day is still configured, and its scrapes fail. "
            "Exporters that end with their lane (`--once`) are left out."
        ),
        impact="Its lanes don't run, or run unobserved: no other alert covers this host.",
        diagnosis=(
            Query(question="Which targets do not answer?", expr="up == 0"),
            Query(question="How much of the last hour did each answer (1: all)?", expr="avg_over_time(up[1h])"),
            Query(
                question="Did it come close to its memory limit (smallest ratio left within a day)?",
                expr=(
                    f"min_over_time({series.select_now(families.HOST_MEMORY)}[{REMEMBERED}])"
                    f" / last_over_time({series.select_now(families.HOST_MEMORY_LIMIT)}[{REMEMBERED}])"
                ),
            ),
        ),
        mitigation=(
            "On the host: `systemctl status paropt-exporter` and `journalctl -u paropt-exporter`, or the pod's "
            "`kubectl describe` and `logs --previous`.",
            "If it runs: Status > Targets in Prometheus has the error, and `curl -v http://HOST:10178/-/healthy` shows "
            "whether it answers there. The cause may be a firewall, another port, an expired certificate, or a page "
            "with more series than the job's `sample_limit`.",
            "If it was removed for good: remove the target from Prometheus' configuration.",
        ),
    )


def _build_down_query(series: SeriesSelector) -> str:
    """Build the query for exporters that are down: from an alert on, until they answer or are no target any more."""
    reported = series.select_firing(_DOWN, _GAP_OF_PROMETHEUS, lacking=(families.PROJECT,))
    return f"up == 0\nand on (job, instance)\n(\n  {_build_expected_query(series)}\nor\n  {reported}\n)"


def _build_expected_query(series: SeriesSelector) -> str:
    """Build the query for exporters that were scraped and meant to stay."""
    return f"{series.select_last(families.SERVES_ON, REMEMBERED)} == 1"


def _build_absent_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptExporterAbsent",
        conditions=(
            Condition(
                expr=(
                    f"max {WITHOUT_REPLICA} (\n  {_build_expected_query(series)}\nunless on (job, instance)\n  up\n)\n"
                    f"unless\nmax {WITHOUT_REPLICA} ({series.select_now(families.SERVES_ON)})"
                ),
                level=Level.WARNING,
                hold="15m",
            ),
        ),
        summary="A project's exporters are no longer targets.",
        title="Project {{ $labels.project }} of job {{ $labels.job }} has no exporter any more.",
        description=(
            "Project {{ $labels.project }} of job {{ $labels.job }} had an exporter within the last day and has had "
            "none for 15 minutes: Prometheus has no target for it."
        ),
        board=Board.EXPORTER,
        link=("job", "project"),
        meaning=(
            "No exporter of the project is left, and the last one is no longer a target: service discovery has lost "
            "it, or it was removed. A pod that was replaced by another one does not count."
        ),
        impact="Its lanes may not run, and no other alert would fire, since only a target can be down.",
        diagnosis=(
            Query(
                question="Which exporters did the project have within a day?",
                expr=series.select_last(families.SERVES_ON, REMEMBERED),
            ),
            Query(question="How many targets does each job have?", expr="count by (job) (up)"),
        ),
        mitigation=(
            "In Prometheus, Status > Service Discovery shows which relabelling drops it, and which labels changed.",
            "If it was removed on purpose: silence the alert, which ends by itself after a day.",
        ),
    )


def _build_dropped_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptObservationsDropped",
        conditions=(
            Condition(
                expr=f"{series.increase(families.OBSERVATIONS_DROPPED, '15m')} > 0",
                level=Level.WARNING,
            ),
        ),
        summary="An exporter could not record events.",
        title="The exporter of {{ $labels.project }} on {{ $labels.instance }} could not record events.",
        description=(
            "The observer {{ $labels.observer }} of the exporter on {{ $labels.instance }} (project "
            "{{ $labels.project }}) could not process records in the last 15 minutes, and lacks them."
        ),
        board=Board.EXPORTER,
        link=("job", "instance", "project"),
        meaning="An observer of the run raised an error, usually because `history` could not write. The work goes on.",
        impact="Totals are too low, and the history lacks runs. If the observer is `history`, `--once` exits with 3.",
        diagnosis=(
            Query(
                question="Which observer, how often in a day?",
                expr=f"sum by (instance, observer) ({series.increase(families.OBSERVATIONS_DROPPED, '1d')})",
            ),
        ),
        mitigation=(
            "The log has the first error. If the disk is full or the folder can't be written, make room below "
            "`.paropt/`; the next record is written again.",
            "If the observer is not `history`, it is a bug in the exporter: please report it with the log.",
        ),
    )


def _build_deliveries_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptDeliveriesFailing",
        conditions=(Condition(expr=f"{series.select_last(families.DELIVERY_FAILING)} == 1", level=Level.WARNING),),
        summary="The final values of runs can't be delivered.",
        title=(
            "The exporter of {{ $labels.project }} on {{ $labels.instance }} can't deliver the final values of runs "
            "({{ $labels.target }})."
        ),
        description=(
            "The exporter on {{ $labels.instance }} (project {{ $labels.project }}) failed to deliver the final values "
            "of its last run ({{ $labels.target }})."
        ),
        board=Board.EXPORTER,
        link=("job", "instance", "project"),
        meaning=(
            "A push to the Pushgateway or a report to an OpenTelemetry collector failed after its retries, or the "
            "textfile could not be written, and no delivery has succeeded since. The next delivery resolves this."
        ),
        impact=(
            "The Pushgateway or the textfile has the values of an earlier run, and so do the alerts and panels that "
            "use them; the collector lacks the run. The runs themselves are not affected."
        ),
        diagnosis=(
            Query(
                question="How many deliveries failed and succeeded within a day?",
                expr=f"sum by (instance, target, result) ({series.increase(families.DELIVERIES, '1d')})",
            ),
        ),
        mitigation=(
            "The log has the error. `pushgateway`: is the URL of `push` or `--push.url` correct and reachable from the "
            "host, and is the password or token valid?",
            "`textfile`: the folder must exist, have free space and be writable for the exporter's user.",
            "`otlp`: are `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_EXPORTER_OTLP_HEADERS` correct, and does the "
            "collector accept traces and metrics over HTTP?",
        ),
    )


def _build_reload_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptConfigReloadFailed",
        conditions=(
            Condition(
                expr=f"{series.select_last(families.CONFIG_RELOAD_SUCCESSFUL)} == 0", level=Level.WARNING, hold="5m"
            ),
        ),
        summary="An exporter refused a changed paropt.yml.",
        title="The exporter of {{ $labels.project }} on {{ $labels.instance }} refused a changed paropt.yml.",
        description=(
            "The exporter on {{ $labels.instance }} (project {{ $labels.project }}) has refused its changed paropt.yml "
            "for 5 minutes, and runs with the one before."
        ),
        board=Board.EXPORTER,
        link=("job", "instance", "project"),
        meaning=(
            "`paropt.yml` changed while an exporter repeated its lane (`--every`, `--watch`), and the new file has "
            "faults, or lacks the lane or a selected stage."
        ),
        impact=(
            "Runs continue with the previous config: new stages and limits don't apply. The exporter would not start "
            "with the new file."
        ),
        diagnosis=(
            Query(
                question="How old is the config in use (seconds)?",
                expr=f"time() - {series.select_now(families.CONFIG_RELOAD_SUCCESS)}",
            ),
            Query(
                question="How many changes were loaded and refused within a day?",
                expr=f"sum by (instance, result) ({series.increase(families.CONFIG_RELOADS, '1d')})",
            ),
        ),
        mitigation=(
            "The log and `paropt-exporter check` name each fault with its line. Correct the file. It is read before "
            "the next run, or at once after SIGHUP if the exporter has no terminal.",
        ),
    )


def _build_web_reload_alert(series: SeriesSelector) -> Alert:
    # `serve` has its web config for each project.
    successful = f"min without (project) ({series.select_last(families.WEB_CONFIG_RELOAD_SUCCESSFUL)})"
    return Alert(
        name="ParoptWebConfigReloadFailed",
        conditions=(Condition(expr=f"{successful} == 0", level=Level.WARNING, hold="5m"),),
        summary="An exporter refused a changed web config.",
        title="Exporter {{ $labels.instance }} of job {{ $labels.job }} refused a changed web config.",
        description=(
            "{{ $labels.instance }} of job {{ $labels.job }} has refused its changed web config for 5 minutes, and "
            "serves with the one before."
        ),
        board=Board.EXPORTER,
        link=("job", "instance"),
        meaning=(
            "The file of `--web.config.file` has changed, and is invalid or protects less than the config in use. "
            "Certificates and keys are still reloaded when they are replaced."
        ),
        impact=(
            "Passwords and certificate authorities that the file adds or removes don't count yet: a password that was "
            "withdrawn still works. The exporter would not start with an invalid file."
        ),
        diagnosis=(
            Query(
                question="How many changes were loaded and refused within a day?",
                expr=(
                    "sum by (instance, result) "
                    f"(max without (project) ({series.increase(families.WEB_CONFIG_RELOADS, '1d')}))"
                ),
            ),
        ),
        mitigation=(
            "The log names the fault, or the protection that the file lacks. `promtool check web-config` checks the "
            "file. Correct it: the next scrape loads it.",
            "If it protects less on purpose: restart the exporter.",
        ),
    )


def _build_history_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptHistoryUnreadable",
        conditions=(
            Condition(
                expr=f"{series.select_last(families.SERVE_HISTORY_READABLE)} == 0", level=Level.WARNING, hold="5m"
            ),
        ),
        summary="`paropt-exporter serve` can't read a project's history.",
        title="The history of {{ $labels.project }} on {{ $labels.instance }} can't be read.",
        description=(
            "`paropt-exporter serve` on {{ $labels.instance }} has not been able to read the history of project "
            "{{ $labels.project }} for 5 minutes: its totals are outdated."
        ),
        board=Board.EXPORTER,
        link=("job", "instance", "project"),
        meaning=(
            "`serve` reads a project's totals and last values from the histories of its checkouts. One of them is "
            "damaged, locked, missing, or not readable for this user."
        ),
        impact=(
            "The project's totals and last values don't change, so alerts on them neither fire nor resolve. If `serve` "
            "has started meanwhile, they are missing."
        ),
        diagnosis=(
            Query(
                question="Which projects are outdated?",
                expr=f"{series.select_now(families.SERVE_HISTORY_READABLE)} == 0",
            ),
            Query(
                question="Do their runs drop records too?",
                expr=f"sum by (instance, project, observer) ({series.increase(families.OBSERVATIONS_DROPPED, '1h')})",
            ),
        ),
        mitigation=(
            "`paropt-exporter serve status` shows the reason.",
            "A damaged file is renamed by the project's next run, which begins a new one. Otherwise check the owner "
            "and permissions of the folder `.paropt`, and whether its disk is mounted.",
        ),
    )
