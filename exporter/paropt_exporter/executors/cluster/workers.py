"""The coordinator's view of the workers: their slots, their work items, and how they differ from this host."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from paropt_exporter._version import __version__
from paropt_exporter.executors.cluster.message_stream import MessageStream
from paropt_exporter.executors.cluster.messages import WorkerFacts
from paropt_exporter.executors.cluster.settings import INSTALL_HINT
from paropt_exporter.executors.cluster.work_items import WorkItem

OURS = "paropt-exporter"
PYTHON = "python"
GIT = "git"
PAUSED = "paused"  # Dask's status of a worker whose memory is full
_SUSPENDED = (PAUSED, "closing_gracefully")  # such a worker begins no task


class SentBatch(Struct, eq=False):
    """A batch that a worker has: the slots that it takes, and how many replies are missing."""

    slots: int
    missing: int


class RemoteWorker(Struct, eq=False):
    """A worker that takes tasks.

    preparing ──facts──> ready ──surplus──> draining ──idle──> scaled down
                           └── lost: its items fail, and nothing that it sends later counts
    """

    address: str
    name: str | int
    facts: WorkerFacts
    lease: Any
    stream: MessageStream
    number: int  # of its session
    heard_seconds: float
    items: dict[int, WorkItem] = field(default_factory=dict)  # by attempt
    unanswered: dict[int, SentBatch] = field(default_factory=dict)  # by attempt, also of items that were given up
    batches: int = 0
    served_slots: int = 0  # Dask tasks that run batches, or that will
    taken_slots: int = 0  # by batches, of which one may be ahead
    memory_available_bytes: int = 0  # of its host
    draining: bool = False
    status: str = ""  # Dask's name of it
    open_requests: int = 0  # for its usage, since its last answer
    fit: bool = True  # it has the files of this run
    connected: bool = True
    differences: tuple[str, ...] = ()

    def add_batch(self, items: Sequence[WorkItem]) -> None:
        """Note that items were sent together."""
        batch = SentBatch(min(items[0].options.slots, self.facts.threads), len(items))
        for item in items:
            item.worker = self
            self.items[item.task.attempt] = item
            self.unanswered[item.task.attempt] = batch
        self.batches += 1
        self.taken_slots += batch.slots

    def take_item(self, attempt: int) -> WorkItem | None:
        """Remove an item that is about to settle; None if it was removed before."""
        return self.items.pop(attempt, None)

    def end_attempt(self, attempt: int) -> None:
        """Note that a reply has been handled. The last one of a batch frees its slots."""
        batch = self.unanswered.pop(attempt, None)
        if batch is None:
            return  # the worker has answered twice
        batch.missing -= 1
        if not batch.missing:
            self.batches -= 1
            self.taken_slots -= batch.slots

    def release(self) -> None:
        """End its session: it kills the tasks that it has left."""
        self.stream.close()
        self.lease.release()

    @property
    def busy_slots(self) -> int:
        return min(self.taken_slots, self.facts.threads)

    @property
    def takes_tasks(self) -> bool:
        return self.fit and self.connected and not self.draining and self.status not in _SUSPENDED

    @property
    def label(self) -> str:
        """Its host and its name, for messages and measurements."""
        return f"{self.facts.host}/{self.name}"

    @property
    def host_key(self) -> str:
        return self.facts.host_key


def read_versions() -> Mapping[str, str]:
    """Return the versions of this process that a task may depend on."""
    return {OURS: __version__, PYTHON: f"{sys.version_info[0]}.{sys.version_info[1]}"}


def find_version_fault(ours: Mapping[str, str], theirs: Mapping[str, str], *, needs_git: bool) -> str:
    """Return why a worker can't take tasks, or ""."""
    if theirs.get(OURS) != ours[OURS]:
        hint = INSTALL_HINT.replace("]'", f"]=={ours[OURS]}'")
        return f"it has paropt-exporter {theirs.get(OURS)}, this is {ours[OURS]}: {hint}"
    if needs_git and not theirs.get(GIT):
        return "it has no git, which the files travel by: install it, or set dask.shared"
    return ""


def list_differences(ours: Mapping[str, str], theirs: Mapping[str, str], missing: Iterable[str]) -> tuple[str, ...]:
    """Return what differs on a worker that can take tasks, each in a few words."""
    found = [f"python {theirs.get(PYTHON)} instead of {ours[PYTHON]}"] if theirs.get(PYTHON) != ours[PYTHON] else []
    return (*found, *(f"no {program}" for program in missing))


def format_differences(rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Return a line for each set of differences, with the workers that have it; none if all are as we are."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, differences in rows:
        if differences:
            groups.setdefault(tuple(differences), []).append(name)
    return [f"workers that differ: {', '.join(sorted(names))}: {', '.join(what)}" for what, names in groups.items()]
