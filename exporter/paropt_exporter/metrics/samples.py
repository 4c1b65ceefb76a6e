"""Read pools, host, controller and live stages at each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from msgspec import Struct, field

from paropt_exporter import families, host
from paropt_exporter.aggregation import HistogramTotal
from paropt_exporter.events import ControlView, LastReload, LiveStage, PoolControl, PoolStatistics, QueryCounts
from paropt_exporter.families import Family
from paropt_exporter.metrics.page import Labels, Value

Sample = tuple[Family, Labels, Value]
Backlog = tuple[int, float]  # how many tasks wait before the pool, and the age of the oldest in seconds

POOL_FAMILIES = (
    families.POOL_WORKERS,
    families.POOL_SIZE,
    families.POOL_SIZE_TARGET,
    families.POOL_QUEUE_DEPTH,
    families.POOL_OLDEST_AGE,
    families.POOL_SUBMITTED,
    families.POOL_FINISHED,
    families.POOL_BUSY,
    families.POOL_SLOT,
    families.POOL_CPU,
    families.POOL_RUN_DELAY,
    families.POOL_RESIZES,
    families.POOL_DEATHS,
    families.POOL_EPOCH,
)
# A series of these families that `iter_samples` does not yield is removed from the page.
SCRAPE_FAMILIES = (
    *POOL_FAMILIES,
    families.STAGE_TASKS_RUNNING,
    families.CONTROL_RECOMMENDED,
    families.CONTROL_FLOOR,
    families.CONTROL_CEILING,
    families.CONTROL_MODE,
    families.CONTROL_QUERY_DURATION,
    families.CONTROL_QUERY_ERRORS,
    families.CONTROL_BLIND,
    families.CONTROL_FLAPPING,
    families.SLA_NEAR,
    families.SLA_PREDICTED_END,
    families.SLA_PREDICTED_RATIO,
    families.SLA_PREDICTED_BREACH,
    families.HOST_CPUS,
    families.HOST_MEMORY,
    families.HOST_MEMORY_LIMIT,
    families.OBSERVATIONS_DROPPED,
    families.DELIVERIES,
    families.DELIVERY_FAILING,
    families.WEB_CONFIG_RELOADS,
    families.WEB_CONFIG_RELOAD_SUCCESSFUL,
    families.CONFIG_RELOADS,
    families.CONFIG_RELOAD_SUCCESSFUL,
    families.CONFIG_RELOAD_SUCCESS,
)
# Series of one process that its history lacks. The host's are not among them: they are the same for all processes.
LIVE_FAMILIES = (
    families.RUN_IN_PROGRESS,
    families.RUN_STARTED,
    families.RUN_INTERVAL,
    families.RUN_DEADLINE,
    families.RUN_PREDICTED_END,
    families.STAGE_RUNNING,
    families.STAGE_STARTED,
    families.STAGE_PROGRESS,
    families.STAGE_MEMORY_PEAK,
    families.SLA_DEADLINE,
    families.POOL_SIZE_MIN,
    families.POOL_SIZE_MAX,
    *(family for family in SCRAPE_FAMILIES if not family.name.startswith("paropt_host_")),
)
NO_BACKLOG = (0, 0.0)
_NO_RELOADS = dict.fromkeys(families.RELOAD_RESULTS, 0)
_NO_DELIVERIES = dict.fromkeys(product(families.DELIVERY_TARGETS, families.DELIVERY_RESULTS), 0)


class Snapshot(Struct, frozen=True, kw_only=True):
    """The state of an exporter at a scrape, apart from its events.

    `backlogs`: the ready tasks that wait in the engine, by pool. `dropped`: how many events each observer failed to
    take. `deliveries`: how often final values were delivered, by (target, result). `failing_deliveries`: whether the
    last delivery failed, by target. `web_config_reloads`, `config_reloads`: the reloads of the web config and of
    paropt.yml, by result. `last_reload`: the last one of paropt.yml. `web_config_successful`: whether the web config
    was valid when it was last read; None without one.
    """

    pools: tuple[PoolStatistics, ...] = ()
    live: tuple[LiveStage, ...] = ()
    backlogs: Mapping[str, Backlog] = field(default_factory=dict)
    control: ControlView = field(default_factory=ControlView)
    dropped: Mapping[str, int] = field(default_factory=dict)
    deliveries: Mapping[tuple[str, str], int] = field(default_factory=dict)
    failing_deliveries: Mapping[str, bool] = field(default_factory=dict)
    web_config_reloads: Mapping[str, int] = field(default_factory=dict)
    web_config_successful: bool | None = None
    config_reloads: Mapping[str, int] = field(default_factory=dict)
    last_reload: LastReload = field(default_factory=LastReload)


def iter_samples(snapshot: Snapshot, *, limited: Iterable[tuple[str, str]]) -> Iterator[Sample]:
    """Yield the series of a snapshot and of the host. `limited`: (lane, stage) of the stages with an SLA limit."""
    for pool in snapshot.pools:
        yield from iter_pool_samples(pool, backlog=snapshot.backlogs.get(pool.name, NO_BACKLOG))
    for control in snapshot.control.pools:
        yield from _iter_control_samples(control)
    yield from _iter_query_samples(snapshot.control.queries)
    for stage in snapshot.live:
        yield families.STAGE_TASKS_RUNNING, (stage.lane, stage.stage), stage.tasks_running
    yield from _iter_predictions(snapshot.live, limited)
    for observer, count in snapshot.dropped.items():
        yield families.OBSERVATIONS_DROPPED, (observer,), count
    for delivery, count in {**_NO_DELIVERIES, **snapshot.deliveries}.items():
        yield families.DELIVERIES, delivery, count
    for target, failing in snapshot.failing_deliveries.items():
        yield families.DELIVERY_FAILING, (target,), float(failing)
    for result, count in {**_NO_RELOADS, **snapshot.web_config_reloads}.items():
        yield families.WEB_CONFIG_RELOADS, (result,), count
    if snapshot.web_config_successful is not None:
        yield families.WEB_CONFIG_RELOAD_SUCCESSFUL, (), float(snapshot.web_config_successful)
    for result, count in {**_NO_RELOADS, **snapshot.config_reloads}.items():
        yield families.CONFIG_RELOADS, (result,), count
    yield families.CONFIG_RELOAD_SUCCESSFUL, (), float(snapshot.last_reload.successful)
    if snapshot.last_reload.success_timestamp_seconds is not None:
        yield families.CONFIG_RELOAD_SUCCESS, (), snapshot.last_reload.success_timestamp_seconds
    yield from _iter_host_samples()


def iter_pool_samples(pool: PoolStatistics, *, backlog: Backlog = NO_BACKLOG) -> Iterator[Sample]:
    """Yield a pool's series; tasks of `backlog` count as queued."""
    name = (pool.name,)
    waiting, waiting_age_seconds = backlog
    by_state = (pool.busy, pool.idle, pool.starting, pool.draining)
    for state, count in zip(families.WORKER_STATES, by_state, strict=True):
        yield families.POOL_WORKERS, (pool.name, state), count
    yield families.POOL_SIZE, name, pool.live
    yield families.POOL_SIZE_TARGET, name, pool.target
    yield families.POOL_QUEUE_DEPTH, name, pool.queued + waiting
    yield families.POOL_OLDEST_AGE, name, max(pool.oldest_queued_age_seconds, waiting_age_seconds)
    yield families.POOL_SUBMITTED, name, pool.submitted
    yield families.POOL_BUSY, name, pool.busy_seconds
    yield families.POOL_SLOT, name, pool.slot_seconds
    yield families.POOL_CPU, name, pool.cpu_seconds
    yield families.POOL_RUN_DELAY, name, pool.run_delay_seconds
    yield families.POOL_EPOCH, name, pool.epoch_timestamp_seconds
    yield from _iter_counts(families.POOL_FINISHED, pool.name, {(result,): n for result, n in pool.finished.items()})
    yield from _iter_counts(families.POOL_DEATHS, pool.name, {(cause,): n for cause, n in pool.deaths.items()})
    yield from _iter_counts(families.POOL_RESIZES, pool.name, {(*change,): n for change, n in pool.resizes.items()})


def _iter_counts(family: Family, pool: str, counts: Mapping[tuple[str, ...], int]) -> Iterator[Sample]:
    """Yield a series for each combination of the family's closed labels; 0 where there is no count."""
    zeros = dict.fromkeys(product(*families.CLOSED_VALUES[family].values()), 0)
    for values, count in {**zeros, **counts}.items():
        yield family, (pool, *values), count


def _iter_control_samples(pool: PoolControl) -> Iterator[Sample]:
    name = (pool.pool,)
    yield families.CONTROL_MODE, (*name, pool.mode, pool.source), 1.0
    yield families.CONTROL_RECOMMENDED, name, pool.recommended_size
    yield families.CONTROL_FLOOR, name, pool.floor
    yield families.CONTROL_CEILING, name, pool.ceiling
    yield families.CONTROL_BLIND, name, float(pool.no_data)
    yield families.CONTROL_FLAPPING, name, float(pool.flapping)


def _iter_query_samples(queries: QueryCounts) -> Iterator[Sample]:
    """Yield the series of queries; all are 0 if the lane does not query Prometheus."""
    buckets = tuple(map(float, queries.buckets))
    durations = HistogramTotal(buckets=buckets, sum=queries.seconds) if buckets else HistogramTotal()
    yield families.CONTROL_QUERY_DURATION, (), durations
    for kind in families.QUERY_ERRORS:
        yield families.CONTROL_QUERY_ERRORS, (kind,), queries.errors.get(kind, 0)


def _iter_predictions(live: Iterable[LiveStage], limited: Iterable[tuple[str, str]]) -> Iterator[Sample]:
    """Yield when running stages will end, and for each stage with a limit whether it is predicted to break it."""
    limited = tuple(limited)
    near, breaches = dict.fromkeys(limited, 0.0), dict.fromkeys(limited, 0.0)
    for stage in live:
        place = (stage.lane, stage.stage)
        if stage.predicted_end_timestamp_seconds is not None:
            yield families.SLA_PREDICTED_END, place, stage.predicted_end_timestamp_seconds
        if stage.predicted_ratio is not None:
            yield families.SLA_PREDICTED_RATIO, place, stage.predicted_ratio
        if stage.sla is not None:
            near[place], breaches[place] = float(stage.near_limit), float(stage.predicted_breach)
    for family, flags in ((families.SLA_NEAR, near), (families.SLA_PREDICTED_BREACH, breaches)):
        yield from ((family, place, flag) for place, flag in flags.items())


def _iter_host_samples() -> Iterator[Sample]:
    """Yield the CPUs and memory that this process may use; memory is left out if it is unknown."""
    yield families.HOST_CPUS, (), host.count_cpus()
    if available := host.read_available_memory_bytes():
        yield families.HOST_MEMORY, (), available
    if limit := host.read_total_memory_bytes():
        yield families.HOST_MEMORY_LIMIT, (), limit
