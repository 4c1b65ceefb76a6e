"""Diagnosis queries that several runbook entries share."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.monitoring.alerts.rules import Query
from paropt_exporter.monitoring.alerts.selectors import UNASKED, SeriesSelector


def longest_stages(series: SeriesSelector) -> Query:
    return Query(
        question="Which stages took the time (seconds)?",
        expr=f"topk(10, {series.select_now(families.STAGE_LAST_DURATION)})",
    )


def running_time(series: SeriesSelector) -> Query:
    return Query(
        question="Which stages are running, and for how long (seconds)?",
        expr=f"topk(10, time() - {series.select_now(families.STAGE_STARTED)})",
    )


def queue_wait(series: SeriesSelector) -> Query:
    wait = families.TASK_QUEUE_WAIT
    waited, waits = series.increase(wait, "1h", part="sum"), series.increase(wait, "1h", part="count")
    return Query(
        question="How long did tasks wait for a worker (seconds, mean over an hour)?",
        expr=f"sum by (project, lane, stage) ({waited}) / (sum by (project, lane, stage) ({waits}) > 0)",
    )


def stage_cores(series: SeriesSelector) -> Query:
    used = series.increase(families.STAGE_CPU, "1h")
    ran = series.increase(families.STAGE_DURATION, "1h", part="sum")
    return Query(
        question="Do the stages compute or wait (cores in use while they run, over an hour)?",
        expr=f"topk(10, sum by (project, lane, stage) ({used}) / (sum by (project, lane, stage) ({ran}) > 0))",
    )


def cores_used(series: SeriesSelector) -> Query:
    # `serve` has the host's cores for each project.
    used, allowed = series.rate(families.POOL_CPU), series.select_now(families.HOST_CPUS)
    return Query(
        question="Are there cores left (ratio in use of those allowed)?",
        expr=f"sum by (instance) ({used}) / max by (instance) ({allowed})",
    )


def run_delay(series: SeriesSelector) -> Query:
    return Query(
        question="Do tasks wait for a core (seconds without one in each second)?",
        expr=series.rate(families.POOL_RUN_DELAY),
    )


def memory_left(series: SeriesSelector) -> Query:
    return Query(
        question="Is memory short (ratio that is left)?",
        expr=f"{series.select_now(families.HOST_MEMORY)} / {series.select_now(families.HOST_MEMORY_LIMIT)}",
    )


def deaths(series: SeriesSelector) -> Query:
    died = series.increase(families.POOL_DEATHS, "1h", cause=UNASKED)
    return Query(
        question="Did workers die in the last hour, and how (`signal`, `exit`, `initializer`, `lost`)?",
        expr=f"sum by (instance, project, pool, cause) ({died})",
    )


def holds(series: SeriesSelector) -> Query:
    held = series.increase(families.CONTROL_DECISIONS, "1h", action="hold")
    return Query(
        question="Why does the controller keep the size (decisions to hold, by reason, over an hour)?",
        expr=f"sum by (project, pool, reason) ({held}) > 0",
    )
