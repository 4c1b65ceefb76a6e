"""The data that travels between the coordinator and the agents on the workers.

Moments never travel, since hosts have different clocks: only durations and ages do.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct, field

from paropt_exporter.cpu_demand import NO_TIME, CoreTime
from paropt_exporter.events import Measurement, Result
from paropt_exporter.executors.calls import CallOutcome
from paropt_exporter.executors.commands.command_pool import CommandOutcome


class RemoteCommands(Struct, frozen=True, kw_only=True):
    """Argument vectors that run one after another. `folder` is relative to the root of the tree."""

    steps: tuple[tuple[str, ...], ...]
    folder: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    programs: str = ""
    has_report: bool = False
    keeps_output: bool = False


class RemoteCall(Struct, frozen=True, kw_only=True):
    """A call of `module:function`, with the root of the tree first on the import path."""

    target: str
    arguments: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    keeps_output: bool = False


class RemoteFunction(Struct, frozen=True):
    """A packed function, of which a message with several calls has one copy, and its arguments."""

    function: bytes
    arguments: bytes | tuple[Any, ...]


RemoteWork = RemoteCommands | RemoteCall | RemoteFunction


class RemoteTask(Struct, frozen=True):
    """One attempt of a task. `attempt` identifies it in the session."""

    attempt: int
    label: str
    work: RemoteWork


class Batch(Struct, frozen=True):
    """Tasks that one slot of a worker runs together."""

    tasks: tuple[RemoteTask, ...]


class StopOrder(Struct, frozen=True):
    """An order to stop one attempt: SIGTERM now, SIGKILL after the grace."""

    attempt: int
    grace_seconds: float


class UsageRequest(Struct, frozen=True):
    """A request for the usage of the running tasks."""


class RemoteMeasurement(Struct, frozen=True, kw_only=True):
    """The resource usage of one task in its worker, as durations."""

    worker: str = ""
    pid: int = 0
    duration_seconds: float = 0.0
    cpu_seconds: float = 0.0
    run_delay_seconds: float = 0.0
    memory_peak_bytes: int = 0


class RemoteFile(Struct, frozen=True):
    """A file on a worker's host. `name` is relative to the root of the tree, "" for a temporary file.

    `content` has all of a small file, which the reply carries; None: it is fetched.
    """

    path: str
    name: str = ""
    mode: int = 0o644
    content: bytes | None = None


class TaskReply(Struct, frozen=True, kw_only=True):
    """The outcome of one task: a value or an error, and the files that the coordinator fetches."""

    attempt: int
    value: Any = None
    error: BaseException | None = None
    measurement: RemoteMeasurement | None = None
    outputs: tuple[RemoteFile, ...] = ()
    report: RemoteFile | None = None
    output: RemoteFile | None = None


def find_fault(task: RemoteTask, reply: object) -> str:
    """Return why an object can't be the reply to a task, or "": a wrong value must not pass for a success."""
    if not isinstance(reply, TaskReply):
        return f"is of type {type(reply).__name__}"
    if reply.attempt != task.attempt:
        return "belongs to another task"
    if not _is_sound(reply.measurement):
        return "has a measurement that makes no sense"
    if reply.error is not None:
        return "" if isinstance(reply.error, BaseException) else "has no exception as its error"
    if isinstance(task.work, RemoteFunction):
        return ""
    is_outcome = _is_command_outcome if isinstance(task.work, RemoteCommands) else _is_call_outcome
    return "" if is_outcome(reply.value) else "has no outcome"


_LEAST_SECONDS = -1.0  # the difference of two CPU times may be a little below 0
# Totals keep each measurement for good, and SQLite takes no larger count.
_MOST_SECONDS = 1e9  # 30 years of a core
_MOST_COUNT = (1 << 63) - 1
_MOST_CODE = (1 << 31) - 1
_MOST_CHARACTERS = 1 << 18  # twice as many as an output has


def _is_sound(measured: object) -> bool:
    return (
        isinstance(measured, RemoteMeasurement)
        and isinstance(measured.worker, str)
        and _are_seconds(measured.duration_seconds, measured.cpu_seconds, measured.run_delay_seconds)
        and _are_counts(measured.pid, measured.memory_peak_bytes)
    )


def _are_seconds(*values: object) -> bool:
    return all(isinstance(value, (int, float)) and _LEAST_SECONDS < value <= _MOST_SECONDS for value in values)


def _are_counts(*values: object) -> bool:
    return all(isinstance(value, int) and 0 <= value <= _MOST_COUNT for value in values)


def _are_texts(*values: object) -> bool:
    return all(isinstance(value, str) and len(value) <= _MOST_CHARACTERS for value in values)


def _is_command_outcome(value: object) -> bool:
    return (
        isinstance(value, CommandOutcome)
        and isinstance(value.result, Result)
        and isinstance(value.measurement, Measurement)
        and _are_texts(value.message, value.output)
        and isinstance(value.output_path, str | None)
        and _is_code(value.exit_code)
        and _is_code(value.signal)
        and value.trace is None
    )


def _is_code(value: object) -> bool:
    return value is None or (isinstance(value, int) and abs(value) <= _MOST_CODE)


def _is_call_outcome(value: object) -> bool:
    return isinstance(value, CallOutcome) and isinstance(value.left, tuple) and _are_texts(value.output, *value.left)


class RunningUsage(Struct, frozen=True, kw_only=True):
    """The usage of one running task. `age_seconds` is that of the sample; None: no sample yet."""

    attempt: int
    elapsed_seconds: float
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    run_delay_seconds: float = 0.0
    core_time: CoreTime = NO_TIME
    age_seconds: float | None = None


class WorkerUsage(Struct, frozen=True, kw_only=True):
    """A worker's running tasks, and the free memory of its host."""

    memory_available_bytes: int
    running: tuple[RunningUsage, ...] = ()


def is_sound_usage(usage: WorkerUsage) -> bool:
    """Return whether the parts of a worker's usage have values of their types."""
    return _are_counts(usage.memory_available_bytes) and all(
        isinstance(task, RunningUsage)
        and isinstance(task.core_time, CoreTime)
        and _are_counts(task.attempt, task.memory_bytes)
        and _are_seconds(
            task.elapsed_seconds,
            task.cpu_seconds,
            task.run_delay_seconds,
            task.core_time.run_seconds,
            task.core_time.wait_seconds,
            task.age_seconds or 0.0,
        )
        for task in usage.running
    )


class WorkerFacts(Struct, frozen=True, kw_only=True):
    """Facts about a worker that is about to take tasks.

    `host_key` is equal for workers that share a folder for temporary files. `versions` has those of Python, git ("" if
    there is none) and others, by name.
    """

    worker_id: str
    host: str
    host_key: str
    threads: int
    cores: float
    memory_available_bytes: int
    versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def are_sound_facts(facts: object) -> bool:
    """Return whether facts about a worker have values of their types: without threads it would keep tasks waiting."""
    return (
        isinstance(facts, WorkerFacts)
        and _are_texts(facts.worker_id, facts.host, facts.host_key)
        and _are_counts(facts.threads, facts.memory_available_bytes)
        and facts.threads > 0
        and _are_seconds(facts.cores)
        and isinstance(facts.versions, Mapping)
        and _are_texts(*facts.versions.keys(), *facts.versions.values())
    )


Order = Batch | StopOrder | UsageRequest  # from the coordinator to an agent
Answer = tuple[int, bytes] | WorkerUsage  # from an agent to the coordinator: an attempt and its pickled TaskReply
