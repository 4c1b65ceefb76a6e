"""The coordinator's view of the workers: their slots, the work items that they hold, how they differ from this host."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from paropt_exporter._version import __version__
from paropt_exporter.events import RunningTask
from paropt_exporter.executors.cluster.message_stream import MessageStream
from paropt_exporter.executors.cluster.messages import RemoteTask, RunningUsage, WorkerFacts
from paropt_exporter.executors.cluster.settings import INSTALL_HINT
from paropt_exporter.executors.commands.output import OutputFile, OutputSink
from paropt_exporter.executors.future import TaskFuture

OURS = "paropt-exporter"
PYTHON = "python"
GIT = "git"


class LocalFiles(Struct, frozen=True, kw_only=True):
    """Where the files of a reply go on this host, and the patterns of outputs that may be written."""

    outputs: tuple[str, ...] = ()
    output_file: OutputFile | None = None
    open_sink: Callable[[], OutputSink | None] | None = None
    report: Path | None = None


class WorkItem(Struct, eq=False):
    """One attempt of a task, from its submission until its future settles.

    `group`: tasks of one group have similar durations. `files`: where the files of its reply go.
    """

    future: TaskFuture[Any]
    task: RemoteTask
    group: str
    slots: int = 1
    memory_bytes: int = 0
    queued_seconds: float = 0.0
    sent_seconds: float = 0.0
    files: LocalFiles = field(default_factory=LocalFiles)
    worker: RemoteWorker | None = None
    usage: tuple[float, RunningUsage] | None = None  # when it was received, on our clock

    @property
    def keeps_output(self) -> bool:
        return self.files.output_file is not None or self.files.open_sink is not None

    @property
    def used_bytes(self) -> int:
        return self.usage[1].memory_bytes if self.usage is not None else 0


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
    taken_slots: int = 0  # by batches
    busy_slots: int = 0  # of the items
    memory_available_bytes: int = 0  # of its host
    draining: bool = False
    fit: bool = True  # it has the files of this run
    connected: bool = True
    differences: tuple[str, ...] = ()

    def add_batch(self, items: Sequence[WorkItem]) -> None:
        """Note that items were sent together."""
        batch = SentBatch(min(items[0].slots, self.facts.threads), len(items))
        for item in items:
            item.worker = self
            self.items[item.task.attempt] = item
            self.unanswered[item.task.attempt] = batch
            self.busy_slots += item.slots
        self.batches += 1
        self.taken_slots += batch.slots

    def take_item(self, attempt: int) -> WorkItem | None:
        """Remove an item that is about to settle; None if it was removed before."""
        item = self.items.pop(attempt, None)
        if item is not None:
            self.busy_slots -= item.slots
        return item

    def end_attempt(self, attempt: int) -> None:
        """Note that a reply has been handled. The last one of a batch frees its slots."""
        batch = self.unanswered.pop(attempt)
        batch.missing -= 1
        if not batch.missing:
            self.batches -= 1
            self.taken_slots -= batch.slots

    @property
    def takes_tasks(self) -> bool:
        return self.fit and self.connected and not self.draining

    @property
    def host_key(self) -> str:
        return self.facts.host_key


def build_running_task(item: WorkItem, worker: RemoteWorker) -> RunningTask:
    """Build the view of a running task, on our clock."""
    label = f"{worker.facts.host}/{worker.name}"
    if item.usage is None:
        return RunningTask(
            label=item.task.label,
            worker=label,
            started_seconds=item.sent_seconds,
            cpu_seconds=0.0,
            memory_bytes=0,
            sampled_seconds=0.0,
        )
    received, usage = item.usage
    return RunningTask(
        label=item.task.label,
        worker=label,
        started_seconds=max(item.sent_seconds, received - usage.elapsed_seconds),
        cpu_seconds=usage.cpu_seconds,
        memory_bytes=usage.memory_bytes,
        run_delay_seconds=usage.run_delay_seconds,
        core_time=usage.core_time,
        sampled_seconds=0.0 if usage.age_seconds is None else received - usage.age_seconds,
    )


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
