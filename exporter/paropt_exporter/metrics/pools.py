"""Read the pool and host families from the pools themselves, at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from paropt_exporter import catalogue, host
from paropt_exporter.catalogue import Family
from paropt_exporter.records import PoolStatistics

Sample = tuple[Family, tuple[str, ...], float]

FAMILIES = (
    catalogue.POOL_WORKERS,
    catalogue.POOL_SIZE,
    catalogue.POOL_SIZE_TARGET,
    catalogue.POOL_QUEUE_DEPTH,
    catalogue.POOL_OLDEST_AGE,
    catalogue.POOL_SUBMITTED,
    catalogue.POOL_FINISHED,
    catalogue.POOL_BUSY,
    catalogue.POOL_SLOT,
    catalogue.POOL_CPU,
    catalogue.POOL_RUN_DELAY,
    catalogue.POOL_RESIZES,
    catalogue.POOL_DEATHS,
    catalogue.POOL_EPOCH,
)


def samples(pool: PoolStatistics, *, backlog: tuple[int, float]) -> Iterator[Sample]:
    """Yield a pool's series. `backlog`: how many ready tasks wait before the pool, and the age of the oldest."""
    name = (pool.name,)
    waiting, waiting_age_seconds = backlog
    yield from _workers(pool)
    yield catalogue.POOL_SIZE, name, pool.live
    yield catalogue.POOL_SIZE_TARGET, name, pool.target
    yield catalogue.POOL_QUEUE_DEPTH, name, pool.queued + waiting
    yield catalogue.POOL_OLDEST_AGE, name, max(pool.oldest_queued_age_seconds, waiting_age_seconds)
    yield catalogue.POOL_SUBMITTED, name, pool.submitted
    yield catalogue.POOL_BUSY, name, pool.busy_seconds
    yield catalogue.POOL_SLOT, name, pool.slot_seconds
    yield catalogue.POOL_CPU, name, pool.cpu_seconds
    yield catalogue.POOL_RUN_DELAY, name, pool.run_delay_seconds
    yield catalogue.POOL_EPOCH, name, pool.epoch_timestamp_seconds
    yield from _filled(catalogue.POOL_FINISHED, pool.name, {(result,): n for result, n in pool.finished.items()})
    yield from _filled(catalogue.POOL_DEATHS, pool.name, {(cause,): n for cause, n in pool.deaths.items()})
    yield from _filled(catalogue.POOL_RESIZES, pool.name, {(*change,): n for change, n in pool.resizes.items()})


def host_samples() -> Iterator[Sample]:
    """Yield what this process may use of the machine; memory is left out where it can't be known."""
    yield catalogue.HOST_CPUS, (), host.cpus()
    if available := host.memory_available_bytes():
        yield catalogue.HOST_MEMORY, (), available
    if limit := host.memory_total_bytes():
        yield catalogue.HOST_MEMORY_LIMIT, (), limit


def _workers(pool: PoolStatistics) -> Iterator[Sample]:
    by_state = (pool.busy, pool.idle, pool.starting, pool.draining)
    for state, count in zip(catalogue.WORKER_STATES, by_state, strict=True):
        yield catalogue.POOL_WORKERS, (pool.name, state), count


def _filled(family: Family, pool: str, counts: Mapping[tuple[str, ...], int]) -> Iterator[Sample]:
    """Yield all of a family's closed label values, at 0 where nothing was counted."""
    zeros = dict.fromkeys(product(*catalogue.CLOSED_VALUES[family].values()), 0)
    for values, count in {**zeros, **counts}.items():
        yield family, (pool, *values), count
