"""Keep as many workers as the target needs; choose the worker for a task, and how many tasks to send together."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Protocol

from paropt_exporter.executors.cluster.workers import RemoteWorker

log = logging.getLogger(__name__)
BATCH_SECONDS = 0.05  # of work in a batch: a message and its reply cost about 1 ms
AHEAD_SECONDS = 1.0  # only batches of tasks shorter than this are sent ahead to a busy worker
_MOST_IN_BATCH = 1000
_ASK_AGAIN_SECONDS = 30.0  # Dask counts a worker as lost after 15 s (distributed.deploy.lost-worker-timeout)


class Cluster(Protocol):
    """A cluster that can be sized."""

    @property
    def can_scale_down(self) -> bool: ...

    def scale(self, workers: int) -> None:
        """Ask for this many workers. Returns at once."""

    def scale_down(self, names: list[str | int]) -> None:
        """End the workers of these names. Returns at once."""


class ClusterSize:
    """The number of workers that were asked for: grow at once, drain before shrinking.

        grow:    scale(n) ............................................ workers come seconds or minutes later
        shrink:  surplus for `idle_seconds` ──> draining ──idle──> scale_down(names)

    Guarantees: a busy worker is never ended; a draining one takes tasks again if the target grows in time; the cluster
    is asked again for workers that have ended. Where it can't end workers by name, it shrinks only while all are idle.
    """

    def __init__(self, cluster: Cluster, idle_seconds: float) -> None:
        self.asked = 0
        self._cluster = cluster
        self._idle_seconds = idle_seconds
        self._surplus_since: float | None = None
        self._asked_seconds = 0.0
        self._lacks_workers = False
        self._has_warned = False

    def adjust(self, target: int, workers: Iterable[RemoteWorker], now: float) -> tuple[RemoteWorker, ...]:
        """Move towards `target` slots. Return the workers that were ended, which must get no more tasks."""
        present = tuple(workers)
        threads = max((worker.facts.threads for worker in present), default=1)
        wanted = max(1, math.ceil(target / threads))
        self._lacks_workers = len(present) < wanted
        if wanted > self.asked or (self._lacks_workers and now >= self._asked_seconds + _ASK_AGAIN_SECONDS):
            self.asked, self._asked_seconds = wanted, now
            self._cluster.scale(wanted)
        if wanted >= self.asked:
            self._surplus_since = None
            for worker in present:
                worker.draining = False
            return ()
        if self._surplus_since is None:
            self._surplus_since = now
        if now < self._surplus_since + self._idle_seconds:
            return ()
        return self._shrink(wanted, present) if self._cluster.can_scale_down else self._shrink_idle(wanted, present)

    def get_next_check(self) -> float | None:
        """Return the moment at which a surplus or a lack of workers has lasted long enough; None: there is neither."""
        if self._surplus_since is not None:
            return self._surplus_since + self._idle_seconds
        return self._asked_seconds + _ASK_AGAIN_SECONDS if self._lacks_workers else None

    def _shrink(self, wanted: int, present: tuple[RemoteWorker, ...]) -> tuple[RemoteWorker, ...]:
        surplus = min(self.asked - wanted, len(present) - 1)
        by_load = sorted(present, key=lambda worker: (worker.taken_slots, not worker.draining))
        for index, worker in enumerate(by_load):
            worker.draining = index < surplus
        ended = tuple(worker for worker in by_load[: max(0, surplus)] if not worker.taken_slots)
        if ended:
            self.asked -= len(ended)
            self._cluster.scale_down([worker.name for worker in ended])
        return ended

    def _shrink_idle(self, wanted: int, present: tuple[RemoteWorker, ...]) -> tuple[RemoteWorker, ...]:
        if not self._has_warned:
            self._has_warned = True
            log.warning("the cluster can't end workers by name: it shrinks only while all of them are idle")
        if not any(worker.taken_slots for worker in present):
            self.asked = wanted
            self._cluster.scale(wanted)
        return ()


def choose_worker(
    workers: Iterable[RemoteWorker], *, slots: int, memory_bytes: int = 0, batches_ahead: int = 0
) -> RemoteWorker | None:
    """Return the worker with the most free slots that has room for a task; None: the task has to wait.

    A task of more slots than a worker has takes all of them. The free memory of a host counts for its workers together,
    and what its tasks were promised and do not use yet is taken; a task that fits on no host runs alone on one.
    """
    present = tuple(workers)
    best: tuple[int, RemoteWorker] | None = None
    for worker in present:
        threads = worker.facts.threads
        free = threads * (1 + batches_ahead) - worker.taken_slots
        fits_slots = worker.takes_tasks and free >= min(slots, threads)
        if fits_slots and (best is None or free > best[0]) and _fits_memory(worker, present, memory_bytes):
            best = (free, worker)
    return None if best is None else best[1]


def choose_batch_size(mean_seconds: float | None, *, queued: int, slots: int) -> int:
    """Return how many tasks to send together: about BATCH_SECONDS of work, and a fair part of the queue."""
    if mean_seconds is None:
        return 1
    by_time = int(BATCH_SECONDS / max(mean_seconds, 1e-6))
    return max(1, min(by_time, -(-queued // max(1, slots)), _MOST_IN_BATCH))


def _fits_memory(worker: RemoteWorker, workers: Iterable[RemoteWorker], memory_bytes: int) -> bool:
    if not memory_bytes:
        return True
    beside = [item for each in workers if each.host_key == worker.host_key for item in each.items.values()]
    promised = sum(max(0, item.options.memory_bytes - item.used_bytes) for item in beside)
    return not beside or worker.memory_available_bytes - promised >= memory_bytes
