"""Choose the worker of a task, and how many tasks travel together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

BATCH_SECONDS = 0.05  # of work in a batch: a message and its reply cost about 2 ms
AHEAD_SECONDS = 1.0  # a worker gets a batch ahead only of tasks shorter than this
_MOST_IN_BATCH = 200


class Candidate(Protocol):
    """A worker with the room that it has left."""

    @property
    def free_slots(self) -> int: ...

    @property
    def host_key(self) -> str: ...


C = TypeVar("C", bound=Candidate)


def choose_worker(
    workers: Iterable[C], *, slots: int, memory_bytes: int, memory_of: dict[str, int], idle_hosts: frozenset[str]
) -> C | None:
    """Return the worker with the most free slots that has room for a task; None: it has to wait.

    `memory_of`: the free memory of each host in bytes. A task that fits on no host runs on one that is idle.
    """
    best: C | None = None
    for worker in workers:
        if worker.free_slots < slots:
            continue
        fits = not memory_bytes or memory_of.get(worker.host_key, 0) >= memory_bytes
        if (fits or worker.host_key in idle_hosts) and (best is None or worker.free_slots > best.free_slots):
            best = worker
    return best


def choose_batch_size(mean_seconds: float | None, *, queued: int, slots: int) -> int:
    """Return how many tasks to send together: about BATCH_SECONDS of work, and a fair part of the queue."""
    if mean_seconds is None:
        return 1
    by_time = int(BATCH_SECONDS / max(mean_seconds, 1e-6))
    return max(1, min(by_time, -(-queued // max(1, slots)), _MOST_IN_BATCH))
