"""Workers of a cluster as the coordinator sees them, for tests without one."""

from __future__ import annotations

from paropt_exporter.executors.base import RemoteTaskOptions
from paropt_exporter.executors.cluster.message_stream import MessageStream
from paropt_exporter.executors.cluster.messages import RemoteFunction, RemoteTask, RunningUsage, WorkerFacts
from paropt_exporter.executors.cluster.work_items import WorkItem
from paropt_exporter.executors.cluster.workers import RemoteWorker
from paropt_exporter.executors.future import TaskFuture


def build_worker(
    name: str, *, threads: int = 1, taken: int = 0, host: str = "h", memory_bytes: int = 0
) -> RemoteWorker:
    facts = WorkerFacts(
        worker_id=name, host=host, host_key=host, threads=threads, cores=float(threads), memory_available_bytes=0
    )
    return RemoteWorker(
        f"tcp://{name}", name, facts, None, MessageStream(None), 1, 0.0,
        taken_slots=taken, memory_available_bytes=memory_bytes,
    )  # fmt: skip


def add_item(worker: RemoteWorker, *, memory_bytes: int, used_bytes: int = 0) -> None:
    """Add a running item that was promised memory and uses some of it."""
    attempt = len(worker.items) + 1
    options = RemoteTaskOptions(memory_bytes=memory_bytes)
    item = WorkItem(TaskFuture(), RemoteTask(attempt, "t", RemoteFunction(b"", ())), "t", options)
    item.usage = (0.0, RunningUsage(attempt=attempt, elapsed_seconds=1.0, memory_bytes=used_bytes))
    worker.items[attempt] = item
