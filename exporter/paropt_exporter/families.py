"""The definitions of all exported metrics: the only place with their names, labels and buckets.

Metrics, controller queries, dashboards, rules and `docs/metrics.md` derive from `FAMILIES`. Every family also has the
label `project`, which is the first of `Family.label_names`.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from paropt_exporter.events import CacheReason, Result, Severity
from paropt_exporter.executors.base import RESIZE_REASONS

# One layout for all histograms: different layouts can't be summed. From 5 ms (a lint of one file) to an hour.
BUCKETS_SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 90.0,
    120.0, 300.0, 600.0, 900.0, 1200.0, 1800.0, 3600.0,
)  # fmt: skip

PROJECT = "project"
WORKER_STATES = ("busy", "idle", "starting", "draining")
DIRECTIONS = ("up", "down")
# Why a size changes: each names the figure that decided (autoscaling.policy has the formulas).
UP_REASONS = ("demand", "deadline", "rescue", "load", "limit", "bounds", "pinned")
DOWN_REASONS = (
    "plan",
    "demand",
    "deadline",
    "load",
    "limit",
    "cpu_limit",
    "memory_limit",
    "bounds",
    "ineffective",
    "pinned",
)
# Why the controller rejects a query result (autoscaling.policy.query_validity).
REJECTION_REASONS = (
    "query_failed", "no_data", "several_sources", "not_finite", "not_a_number", "partial", "stale", "future", "epoch",
    "settling", "disagree",
)  # fmt: skip
HOLD_REASONS = (
    "plan", "demand", "deadline", "load", "limit", "cpu_limit", "memory_limit", "bounds", "deadband", "stabilizing",
    "ineffective", "saturated", "flap_budget", "pinned", "paused", "advised", *REJECTION_REASONS,
)  # fmt: skip
DECISION_REASONS = {"up": UP_REASONS, "down": DOWN_REASONS, "hold": HOLD_REASONS}  # by action
CONTROL_MODES = ("act", "advise", "pause", "pin")
CONTROL_SOURCES = ("both", "local", "prometheus")
QUERY_ERRORS = ("timeout", "connection", "tls", "unauthorized", "redirect", "status", "too_large", "malformed", "query")
DEATH_CAUSES = ("signal", "exit", "initializer", "stopped", "lost")
STAGE_BOTTLENECKS = ("slow", "uneven", "gil_bound")
LANE_BOTTLENECKS = ("uneven", "under_used", "saturated")
RESULTS = tuple(result.value for result in Result)
SEVERITIES = tuple(severity.value for severity in Severity)
TASK_RESULTS = tuple(result.value for result in Result if result is not Result.SKIP)  # a skipped task has no attempt
RUN_RESULTS = (Result.SUCCESS.value, Result.FAILURE.value, Result.CANCELLATION.value)
DELIVERY_TARGETS = ("pushgateway", "textfile", "otlp")
DELIVERY_RESULTS = ("success", "failure")
RELOAD_RESULTS = ("success", "failure")
CACHE_RESULTS = ("hit", "miss")
CACHE_REASONS = tuple(reason.value for reason in CacheReason)
POOL_RESULTS = ("success", "failure", "error", "cancellation")


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Family(Struct, frozen=True, kw_only=True, eq=False):  # each is one object: identity is a cheap dict key
    """One metric family. `labels` without `project`. `resumes`: its totals continue from history after a restart."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    resumes: bool = False

    @property
    def label_names(self) -> tuple[str, ...]:
        return (PROJECT, *self.labels)


def _counter(name: str, help_text: str, *labels: str, resumes: bool = False) -> Family:
    return Family(name=name, kind=Kind.COUNTER, help=help_text, labels=labels, resumes=resumes)


def _gauge(name: str, help_text: str, *labels: str) -> Family:
    return Family(name=name, kind=Kind.GAUGE, help=help_text, labels=labels)


def _histogram(name: str, help_text: str, *labels: str) -> Family:
    return Family(name=name, kind=Kind.HISTOGRAM, help=help_text, labels=labels, resumes=True)


BUILD_INFO = _gauge("paropt_build_info", "Always 1; which build this is.", "version", "python", "revision")

RUNS = _counter("paropt_runs_total", "Executions of a lane.", "lane", "result", resumes=True)
RUN_DURATION = _histogram("paropt_run_duration_seconds", "Wall time of a run.", "lane")
RUN_TASKS = _counter(
    "paropt_run_tasks_total",
    "Tasks that ran to their end in the runs of paropt_run_duration_seconds: whole runs without a cached task.",
    "lane", resumes=True,
)  # fmt: skip
RUN_IN_PROGRESS = _gauge("paropt_run_in_progress", "1 while the lane runs.", "lane")
RUN_STARTED = _gauge(
    "paropt_run_started_timestamp_seconds", "When the present run of the lane started; absent between runs.", "lane"
)
RUN_LAST_SUCCESS = _gauge(
    "paropt_run_last_success_timestamp_seconds", "When the lane last ended with success; absent until known.", "lane"
)
RUN_LAST_COMPLETION = _gauge(
    "paropt_run_last_completion_timestamp_seconds", "When the lane last ended; absent until known.", "lane"
)
RUN_LAST_DURATION = _gauge(
    "paropt_run_last_duration_seconds",
    "Wall time of the lane's last whole run, also of one that skipped cached tasks; absent until known.",
    "lane",
)
RUN_INTERVAL = _gauge(
    "paropt_run_interval_seconds",
    "The interval of --every; absent without it, and if only a part of the lane is repeated.",
    "lane",
)

RUN_DEADLINE = _gauge(
    "paropt_run_deadline_timestamp_seconds", "When the run is stopped; only during a run with --deadline.", "lane"
)
RUN_PREDICTED_END = _gauge(
    "paropt_run_predicted_end_timestamp_seconds",
    "When the run is expected to have ended; only during a run with --deadline.",
    "lane",
)

STAGE_DURATION = _histogram(
    "paropt_stage_duration_seconds",
    "Time from the start of a stage's first task to the end of its last attempt. Stages that were stopped are left "
    "out, unless they had broken their limit.",
    "lane",
    "stage",
)
STAGE_LAST_DURATION = _gauge(
    "paropt_stage_last_duration_seconds",
    "Duration of the stage when all of it last ran, whether or not it has been skipped since; absent until known.",
    "lane",
    "stage",
)
STAGE_LAST_RESULT = _gauge(
    "paropt_stage_last_result", "1 for the result of the stage's last run.", "lane", "stage", "result"
)
STAGE_FAILING = _gauge(
    "paropt_stage_failing",
    "1 if the stage failed, timed out or could not run when it last ran without being stopped, 0 if it succeeded.",
    "lane",
    "stage",
)
STAGE_RUNS = _counter("paropt_stage_runs_total", "Executions of a stage.", "lane", "stage", "result", resumes=True)
STAGE_RUNNING = _gauge("paropt_stage_running", "1 while the stage runs.", "lane", "stage")
STAGE_STARTED = _gauge(
    "paropt_stage_started_timestamp_seconds",
    "When the running stage started; absent while it does not run.",
    "lane",
    "stage",
)
STAGE_TASKS_RUNNING = _gauge(
    "paropt_stage_tasks_running",
    "Running tasks of the stage, 0 if all of them wait; absent while the stage does not run.",
    "lane",
    "stage",
)
STAGE_PROGRESS = _gauge("paropt_stage_progress_ratio", "Ended tasks divided by planned tasks.", "lane", "stage")
STAGE_CPU = _counter(
    "paropt_stage_cpu_seconds_total",
    "CPU time of the stage's tasks and all their descendants, up to the scrape.",
    "lane", "stage", resumes=True,
)  # fmt: skip
STAGE_MEMORY_PEAK = _gauge(
    "paropt_stage_memory_peak_bytes",
    "Highest memory use of one of the stage's tasks in its last run: the resident memory of its processes together, in "
    "which a page counts once for each process that shares it; absent until known.",
    "lane", "stage",
)  # fmt: skip
STAGE_INFO = _gauge("paropt_stage_info", "Always 1; number and pool of a stage.", "lane", "stage", "number", "pool")

TASK_DURATION = _histogram("paropt_task_duration_seconds", "Duration of one attempt of a task.", "lane", "stage")
TASK_QUEUE_WAIT = _histogram(
    "paropt_task_queue_wait_seconds",
    "Time that a task waited for its start, since its stage's needs had succeeded, or since the pause before a retry.",
    "lane",
    "stage",
)
TASK_ATTEMPTS = _counter(
    "paropt_task_attempts_total", "Attempts of tasks, retries too.", "lane", "stage", "result", resumes=True
)
FIRST_ATTEMPTS = _counter(
    "paropt_task_first_attempts_total",
    "First attempts of tasks that succeeded or failed by themselves.",
    "lane", "stage", resumes=True,
)  # fmt: skip
FLAKY_ATTEMPTS = _counter(
    "paropt_task_flaky_attempts_total",
    "First attempts that failed and later passed with the same files, in a retry or in another run.",
    "lane", "stage", resumes=True,
)  # fmt: skip

POOL_WORKERS = _gauge("paropt_pool_workers", "Workers of a pool by state.", "pool", "state")
POOL_SIZE = _gauge("paropt_pool_size", "Live workers of a pool, draining ones too.", "pool")
POOL_SIZE_TARGET = _gauge("paropt_pool_size_target", "Target number of workers.", "pool")
POOL_SIZE_MIN = _gauge("paropt_pool_size_min", "Lower bound of the pool's size, from the config.", "pool")
POOL_SIZE_MAX = _gauge("paropt_pool_size_max", "Upper bound of the pool's size, from the config.", "pool")
POOL_QUEUE_DEPTH = _gauge("paropt_pool_queue_depth", "Runnable tasks that wait for a worker.", "pool")
POOL_OLDEST_AGE = _gauge(
    "paropt_pool_oldest_task_age_seconds", "How long the oldest queued task has waited; 0 if none is queued.", "pool"
)
POOL_SUBMITTED = _counter("paropt_pool_tasks_submitted_total", "Tasks given to the pool.", "pool")
POOL_FINISHED = _counter("paropt_pool_tasks_finished_total", "Tasks that the pool settled.", "pool", "result")
POOL_BUSY = _counter("paropt_pool_busy_seconds_total", "Worker time spent running tasks, up to the scrape.", "pool")
POOL_SLOT = _counter("paropt_pool_slot_seconds_total", "Available worker time, up to the scrape.", "pool")
POOL_CPU = _counter("paropt_pool_cpu_seconds_total", "CPU time of the pool's tasks, up to the scrape.", "pool")
POOL_RUN_DELAY = _counter(
    "paropt_pool_run_delay_seconds_total", "Time that the pool's tasks were runnable without a core.", "pool"
)
POOL_RESIZES = _counter("paropt_pool_resizes_total", "Changes of the pool's target.", "pool", "direction", "reason")
POOL_DEATHS = _counter(
    "paropt_pool_worker_deaths_total",
    "Workers that exited unexpectedly, or (stopped) because their task was stopped.",
    "pool",
    "cause",
)
POOL_EPOCH = _gauge("paropt_pool_epoch_timestamp_seconds", "When the pool's counters began.", "pool")

CACHE_LOOKUPS = _counter(
    "paropt_cache_lookups_total",
    "Tasks of cached stages: a hit was skipped, since nothing had changed; a miss ran for the reason.",
    "lane",
    "stage",
    "result",
    "reason",
    resumes=True,
)
CACHE_SAVED = _counter(
    "paropt_cache_saved_seconds_total", "How long skipped tasks took when they ran.", "lane", "stage", resumes=True
)

SLA_LIMIT = _gauge("paropt_sla_limit_seconds", "Longest duration allowed to the stage.", "lane", "stage")
SLA_WARNING = _gauge(
    "paropt_sla_warning_seconds", "Duration at which the exporter warns about the stage.", "lane", "stage"
)
SLA_CHECKS = _counter("paropt_sla_checks_total", "Finished stages that have a limit.", "lane", "stage", resumes=True)
SLA_WARNINGS = _counter(
    "paropt_sla_warnings_total", "Stage runs that reached the warning, violations too.", "lane", "stage", resumes=True
)
SLA_VIOLATIONS = _counter(
    "paropt_sla_violations_total", "Stage runs that broke their limit.", "lane", "stage", "severity", resumes=True
)
SLA_BREACHED = _gauge(
    "paropt_sla_breached",
    "1 if the stage breaks its limit now or broke it in its last run; 0 after a success with cached tasks. A run in "
    "which it was stopped within its limit does not count.",
    "lane",
    "stage",
    "severity",
)
SLA_DEADLINE = _gauge(
    "paropt_sla_deadline_timestamp_seconds",
    "When the running stage will break its limit; absent while it does not run.",
    "lane",
    "stage",
)
SLA_NEAR = _gauge(
    "paropt_sla_near", "1 while the running stage is past its warning and not yet past its limit.", "lane", "stage"
)
SLA_PREDICTED_END = _gauge(
    "paropt_sla_predicted_end_timestamp_seconds",
    "When the running stage is expected to end; absent while it does not run or has no known duration.",
    "lane",
    "stage",
)
SLA_PREDICTED_RATIO = _gauge(
    "paropt_sla_predicted_ratio",
    "Expected duration of the running stage divided by its limit; absent while no end is expected.",
    "lane",
    "stage",
)
SLA_PREDICTED_BREACH = _gauge(
    "paropt_sla_predicted_breach", "1 while the running stage is expected to break its limit.", "lane", "stage"
)
LANE_SLA_LIMIT = _gauge("paropt_lane_sla_limit_seconds", "Longest duration allowed to the lane.", "lane")
LANE_SLA_WARNING = _gauge(
    "paropt_lane_sla_warning_seconds", "Duration at which the exporter warns about the lane.", "lane"
)
LANE_SLA_CHECKS = _counter("paropt_lane_sla_checks_total", "Runs of a lane that has a limit.", "lane", resumes=True)
LANE_SLA_WARNINGS = _counter(
    "paropt_lane_sla_warnings_total", "Runs that reached the lane's warning, violations too.", "lane", resumes=True
)
LANE_SLA_VIOLATIONS = _counter(
    "paropt_lane_sla_violations_total", "Runs that broke the lane's limit.", "lane", "severity", resumes=True
)
LANE_SLA_BREACHED = _gauge(
    "paropt_lane_sla_breached",
    "1 if the lane breaks its limit now or broke it in its last whole run. One that was stopped within the limit "
    "does not count.",
    "lane",
    "severity",
)

BOTTLENECK = _gauge("paropt_bottleneck", "1 if the stage held up the last run in this way.", "lane", "stage", "kind")
LANE_BOTTLENECK = _gauge("paropt_lane_bottleneck", "1 if the last run was held up in this way.", "lane", "kind")

CONTROL_RECOMMENDED = _gauge(
    "paropt_control_recommended_size", "Workers that the controller would give the pool, whatever its mode.", "pool"
)
CONTROL_FLOOR = _gauge("paropt_control_floor", "Fewest workers that the controller gives the pool now.", "pool")
CONTROL_CEILING = _gauge("paropt_control_ceiling", "Most workers that the controller gives the pool now.", "pool")
CONTROL_MODE = _gauge(
    "paropt_control_mode_info",
    "Always 1; whether the controller acts on the pool, and on which readings.",
    "pool",
    "mode",
    "source",
)
CONTROL_DECISIONS = _counter(
    "paropt_control_decisions_total",
    "Decisions of the controller for the pool, by reason.",
    "pool",
    "action",
    "reason",
    resumes=True,
)
CONTROL_QUERY_DURATION = Family(
    name="paropt_control_query_duration_seconds",
    kind=Kind.HISTOGRAM,
    help="How long queries to Prometheus took, failed ones too.",
)
CONTROL_QUERY_ERRORS = _counter("paropt_control_query_errors_total", "Queries to Prometheus that failed.", "kind")
CONTROL_BLIND = _gauge(
    "paropt_control_blind", "1 while query results control the pool and all of them are rejected.", "pool"
)
CONTROL_FLAPPING = _gauge(
    "paropt_control_flapping",
    "1 while the pool does not scale down because its size changed direction too often.",
    "pool",
)

HOST_MEMORY = _gauge(
    "paropt_host_memory_available_bytes", "Memory that this process may still use, within its cgroup limits."
)
HOST_MEMORY_LIMIT = _gauge("paropt_host_memory_limit_bytes", "Memory of the host, or the lowest cgroup limit on it.")
HOST_CPUS = _gauge("paropt_host_cpus", "Cores that this process may use, within its cgroup quota and affinity.")
SERVES_ON = _gauge(
    "paropt_exporter_serves_on", "1 if the exporter serves until it is stopped, 0 if it ends with its lane (--once)."
)
OBSERVATIONS_DROPPED = _counter(
    "paropt_observations_dropped_total", "Records that an observer failed to process.", "observer"
)
DELIVERIES = _counter(
    "paropt_deliveries_total", "Attempts to push, write or send the final values of a run.", "target", "result"
)
DELIVERY_FAILING = _gauge(
    "paropt_delivery_failing",
    "1 if the last delivery of a run's final values failed, 0 if it succeeded; absent before the first one.",
    "target",
)
WEB_CONFIG_RELOADS = _counter(
    "paropt_exporter_web_config_reloads_total",
    "Changes of the web config that were loaded, or refused as invalid or less protective.",
    "result",
)
WEB_CONFIG_RELOAD_SUCCESSFUL = _gauge(
    "paropt_web_config_last_reload_successful",
    "1 if the web config was loaded when it was last read, 0 if its change was refused and the previous config stays "
    "in use; absent without a web config.",
)
CONFIG_RELOADS = _counter(
    "paropt_exporter_config_reloads_total",
    "Changes of paropt.yml that were loaded between two runs (--every, --watch), or refused as faulty.",
    "result",
)
CONFIG_RELOAD_SUCCESSFUL = _gauge(
    "paropt_config_last_reload_successful",
    "1 if paropt.yml was loaded when it was last read, 0 if it was refused and the previous config stays in use.",
)
CONFIG_RELOAD_SUCCESS = _gauge(
    "paropt_config_last_reload_success_timestamp_seconds",
    "When paropt.yml was last loaded: at the start, or after a change (--every, --watch).",
)

SERVE_HISTORY_READABLE = _gauge(
    "paropt_serve_history_readable", "1 if `serve` could read the project's history for this page, 0 if it is outdated."
)
SERVE_RUNS = _gauge("paropt_serve_runs", "Exporters of the project that are registered with `serve` now.")
SERVE_CORES_HELD = _gauge("paropt_serve_cores_held", "Cores that the project's running tasks demand, of all its runs.")
SERVE_CORES_GRANTED = _gauge("paropt_serve_cores_granted", "Cores that `serve` lets the project's runs use now.")
SERVE_CORES_WANTED = _gauge(
    "paropt_serve_cores_wanted", "Cores that the project's running and startable tasks could use, held ones too."
)
SERVE_MEMORY_HELD = _gauge(
    "paropt_serve_memory_held_bytes", "Memory that the project's running tasks have declared (`memory`)."
)
SERVE_CORES_AWAITED = _gauge(
    "paropt_serve_cores_awaited", "Cores that the project lacks while runs of the holder use them.", "holder"
)
SERVE_WAIT = _counter(
    "paropt_serve_wait_seconds_total",
    "Time in which runs of the project had startable tasks and no core for them, since `serve` started.",
)

FAMILIES: tuple[Family, ...] = tuple(value for value in globals().values() if isinstance(value, Family))

# Those that only the page of `paropt-exporter serve` has.
SERVE_FAMILIES = (
    SERVE_HISTORY_READABLE,
    SERVE_RUNS,
    SERVE_CORES_HELD,
    SERVE_CORES_GRANTED,
    SERVE_CORES_WANTED,
    SERVE_MEMORY_HELD,
    SERVE_CORES_AWAITED,
    SERVE_WAIT,
)

# The labels with a closed set of values, by family.
CLOSED_VALUES: dict[Family, dict[str, tuple[str, ...]]] = {
    RUNS: {"result": RUN_RESULTS},
    STAGE_LAST_RESULT: {"result": RESULTS},
    STAGE_RUNS: {"result": RESULTS},
    TASK_ATTEMPTS: {"result": TASK_RESULTS},
    POOL_WORKERS: {"state": WORKER_STATES},
    POOL_FINISHED: {"result": POOL_RESULTS},
    POOL_RESIZES: {"direction": DIRECTIONS, "reason": RESIZE_REASONS},
    POOL_DEATHS: {"cause": DEATH_CAUSES},
    SLA_VIOLATIONS: {"severity": SEVERITIES},
    SLA_BREACHED: {"severity": SEVERITIES},
    LANE_SLA_VIOLATIONS: {"severity": SEVERITIES},
    LANE_SLA_BREACHED: {"severity": SEVERITIES},
    CONTROL_MODE: {"mode": CONTROL_MODES, "source": CONTROL_SOURCES},
    CONTROL_DECISIONS: {
        "action": tuple(DECISION_REASONS),
        "reason": tuple(dict.fromkeys((*UP_REASONS, *DOWN_REASONS, *HOLD_REASONS))),
    },
    CONTROL_QUERY_ERRORS: {"kind": QUERY_ERRORS},
    CACHE_LOOKUPS: {"result": CACHE_RESULTS, "reason": CACHE_REASONS},
    DELIVERIES: {"target": DELIVERY_TARGETS, "result": DELIVERY_RESULTS},
    DELIVERY_FAILING: {"target": DELIVERY_TARGETS},
    WEB_CONFIG_RELOADS: {"result": RELOAD_RESULTS},
    CONFIG_RELOADS: {"result": RELOAD_RESULTS},
    BOTTLENECK: {"kind": STAGE_BOTTLENECKS},
    LANE_BOTTLENECK: {"kind": LANE_BOTTLENECKS},
}
