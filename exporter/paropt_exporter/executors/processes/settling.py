"""Settles the tasks of a worker process by what it said they came to."""

from __future__ import annotations

from typing import Any

from paropt_exporter.errors import UnpicklableError, describe
from paropt_exporter.executors.processes.batches import SECONDS_PER_BYTE
from paropt_exporter.executors.processes.crew import ProcessCrew
from paropt_exporter.executors.processes.slot import ProcessSlot, ProcessTask
from paropt_exporter.executors.worker import payload, wire

Body = bytes | bytearray | memoryview

_SHORTEST_MEASURED_SECONDS = 0.001  # shorter tasks are measured together, a batch at a time


def settle_all(
    crew: ProcessCrew, slot: ProcessSlot, tasks: dict[int, ProcessTask], replies: dict[int, wire.Reply]
) -> None:
    """Settle what a batch came to. Most of its tasks are short and return something plain: they take the short way."""
    tally, function, count, total = slot.tally, b"", 0, 0.0
    for index, (kind, started, ended, value) in replies.items():
        seconds = ended - started
        if kind != wire.PLAIN or seconds > _SHORTEST_MEASURED_SECONDS:
            settle(crew, slot, tasks, (0, index, kind, started, ended, 0.0, 0.0, 0.0, 0), value)
            continue
        future, packed, _, _, _ = tasks.pop(index)
        if packed[0] is not function:
            crew.desk.durations.learn(function, total, count)
            function, count, total = packed[0], 0, 0.0
        count += 1
        total += seconds
        tally.busy_seconds += seconds
        future.started_seconds = started
        tally.succeeded += 1
        future.settle_result(value)
    crew.desk.durations.learn(function, total, count)


def settle(crew: ProcessCrew, slot: ProcessSlot, tasks: dict[int, ProcessTask], head: wire.Head, body: Any) -> None:
    """Settle one task by a plain value or a body; counted and out of the slot before its future settles."""
    _, index, kind, started, ended, cpu, delay, _, memory = head
    task = tasks.pop(index)
    future, tally = task.future, slot.tally
    seconds = ended - started
    tally.busy_seconds += seconds
    size_bytes = 0 if kind == wire.PLAIN else len(body)
    crew.desk.durations.learn(task.packed[0], seconds + size_bytes * SECONDS_PER_BYTE, 1)
    future.started_seconds = started
    if task.profiled or seconds > _SHORTEST_MEASURED_SECONDS:
        future._usage = (slot.name, slot.pid, started, ended, cpu, delay, memory)
    if kind == wire.PLAIN:
        tally.succeeded += 1
        future.settle_result(body)
    elif kind == wire.VALUE:
        try:
            result = payload.loads(body)
        except BaseException as error:  # noqa: BLE001 -- loading runs the user's code: that task's outcome
            tally.failed += 1
            future.settle_exception(
                _untold(f"{task.future.label}: its result can't be loaded: {describe(error)}", error)
            )
        else:
            tally.succeeded += 1
            future.settle_result(result)
    elif kind != wire.UNLOADED or not _repack(crew, task, body):
        tally.failed += 1
        future.settle_exception(_error_of(task, kind, body))


def _error_of(task: ProcessTask, kind: int, body: Body) -> BaseException:
    label = task.future.label
    if kind == wire.RAISED:
        try:
            return payload.load_error(body)
        except BaseException as error:  # noqa: BLE001 -- loading runs the user's code: that task's outcome
            return _untold(f"{label}: its exception can't be loaded: {describe(error)}", error)
    text, detail = payload.loads(body)
    if kind == wire.UNLOADED:
        return UnpicklableError(f"{label}: the task can't be loaded in a worker: {text}")
    return _untold(f"{label}: {text}", payload.RemoteTraceback(detail) if detail else None)


def _untold(message: str, cause: BaseException | None) -> UnpicklableError:
    error = UnpicklableError(message)
    error.__cause__ = cause
    return error


def _repack(crew: ProcessCrew, task: ProcessTask, body: Body) -> bool:
    """Queue a task again that could not be loaded for want of a module that only this process has. It never began."""
    _, missing = payload.loads(body)
    if not missing or task.repacked:
        return False
    try:
        packed = crew.packer.by_value(task.packed, missing)
    except Exception:  # noqa: BLE001 -- pickling runs the user's code; the error from the worker is the one to tell
        return False
    if packed is None:
        return False
    with crew.roster.lock:
        task.future.reset_to_pending()
        crew.desk.queue.appendleft(task._replace(packed=packed, repacked=True))
    crew.desk.dispatch()
    return True
