"""Choose the worker of a task, and how many tasks travel together."""

from __future__ import annotations

from collections.abc import Iterable

from paropt_exporter.executors.cluster.workers import RemoteWorker

BATCH_SECONDS = 0.05  # of work in a batch: a message and its reply cost about 1 ms
AHEAD_SECONDS = 1.0  # a worker gets a batch ahead only of tasks shorter than this
_MOST_IN_BATCH = 1000


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
    promised = sum(max(0, item.memory_bytes - item.used_bytes) for item in beside)
    return not beside or worker.memory_available_bytes - promised >= memory_bytes
