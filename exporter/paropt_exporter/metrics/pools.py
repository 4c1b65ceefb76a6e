"""Read the pool and host families from the pools themselves, at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from paropt_exporter import families, host
from paropt_exporter.events import PoolStatistics
from paropt_exporter.families import Family

Sample = tuple[Family, tuple[str, ...], float]

FAMILIES = (
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


def samples(pool: PoolStatistics, *, backlog: tuple[int, float]) -> Iterator[Sample]:
    """Yield a pool's series. `backlog`: how many ready tasks wait before the pool, and the age of the oldest."""
    name = (pool.name,)
    waiting, waiting_age_seconds = backlog
    yield from _workers(pool)
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
    yield from _filled(families.POOL_FINISHED, pool.name, {(result,): n for result, n in pool.finished.items()})
    yield from _filled(families.POOL_DEATHS, pool.name, {(cause,): n for cause, n in pool.deaths.items()})
    yield from _filled(families.POOL_RESIZES, pool.name, {(*change,): n for change, n in pool.resizes.items()})


def host_samples() -> Iterator[Sample]:
    """Yield what this process may use of the machine; memory is left out where it can't be known."""
    yield families.HOST_CPUS, (), host.count_cpus()
    if available := host.read_available_memory_bytes():
        yield families.HOST_MEMORY, (), available
    if limit := host.read_total_memory_bytes():
        yield families.HOST_MEMORY_LIMIT, (), limit


def _workers(pool: PoolStatistics) -> Iterator[Sample]:
    by_state = (pool.busy, pool.idle, pool.starting, pool.draining)
    for state, count in zip(families.WORKER_STATES, by_state, strict=True):
        yield families.POOL_WORKERS, (pool.name, state), count


def _filled(family: Family, pool: str, counts: Mapping[tuple[str, ...], int]) -> Iterator[Sample]:
    """Yield all of a family's closed label values, at 0 where nothing was counted."""
    zeros = dict.fromkeys(product(*families.CLOSED_VALUES[family].values()), 0)
    for values, count in {**zeros, **counts}.items():
        yield family, (pool, *values), count
