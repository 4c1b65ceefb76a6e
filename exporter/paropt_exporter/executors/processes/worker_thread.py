"""The thread of one worker of a ProcessPool: starts its processes, settles tasks by their replies, handles exits."""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import select
import signal
from time import monotonic
from typing import Any

from paropt_exporter.errors import UnpicklableError, describe
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.pool_log import PoolLogger
from paropt_exporter.executors.processes.batches import SECONDS_PER_BYTE, WorkItem
from paropt_exporter.executors.processes.manager import ProcessManager, end_process, get_error_types
from paropt_exporter.executors.processes.scheduler import Worker
from paropt_exporter.executors.processes.transport import Frame, WorkerConnection
from paropt_exporter.executors.worker import payload, wire
from paropt_exporter.executors.worker.forkserver import NOT_FORKED

log = PoolLogger(__name__)

_CLOSED_SECONDS = 1.0  # from the end of a worker's socket, which only a task closes, to the worker's end
_FORK_SERVER_SECONDS = 1.0  # in which a worker starts or its exit is reported, unless a task stopped the fork server
_LEFTOVERS_GRACE_SECONDS = 2.0  # as the fork server has it for the processes of a crashed worker
Body = bytes | bytearray | memoryview
_SHORTEST_MEASURED_SECONDS = 0.001  # shorter tasks are measured together, a batch at a time


def run_worker(manager: ProcessManager, worker: Worker) -> None:
    """Keep a process for the worker until the worker is to leave."""
    while not worker.leaving:
        _wait_to_start(manager, worker)
        if not worker.leaving:
            connection = _start_process(manager, worker)
            if connection is not None:
                _run_process(manager, worker, connection)


def _wait_to_start(manager: ProcessManager, worker: Worker) -> None:
    waker, delay = manager.get_waker(worker), worker.retry_delay_seconds
    if delay:
        poll = select.poll()
        poll.register(waker, select.POLLIN)
        poll.poll(1000 * delay)
    _clear(waker)


def _clear(waker: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(waker)


def _start_process(manager: ProcessManager, worker: Worker) -> WorkerConnection | None:
    try:
        preparation = manager.build_preparation(worker.name)
        connection = WorkerConnection(lifetime.FORK_SERVERS)
    except Exception as error:  # noqa: BLE001 -- without this thread the pool's tasks might wait forever
        _handle_failed_start(manager, worker, error)
        return None
    manager.connect(worker, connection)
    connection.send_preparation(preparation)
    return connection


def _handle_failed_start(manager: ProcessManager, worker: Worker, error: Exception) -> None:
    gives_up = manager.note_failed_start(worker)
    is_short = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE) and manager.do_without(worker)
    if not is_short or manager.take_shortage_news():
        log.warning("a worker could not be started", extra={"pool": manager.counters.name, "err": str(error)})
    if gives_up and not is_short:
        manager.give_up(error)


def _run_process(manager: ProcessManager, worker: Worker, connection: WorkerConnection) -> None:
    """Handle a process until its exit. If this side fails, kill the worker and fail its tasks: no caller may hang."""
    try:
        _converse(manager, worker, connection)
    except Exception as error:  # no memory, or a bug
        log.exception("a worker was abandoned", extra={"pool": manager.counters.name, "worker": worker.name})
        end_process(worker.pid, connection, 0.0)
        lost = manager.abandon(worker, connection)
        _fail_lost(worker, lost, f"worker {worker.name} was abandoned: {describe(error)}", None)
        manager.dispatch()


def _converse(manager: ProcessManager, worker: Worker, connection: WorkerConnection) -> None:
    waker = manager.get_waker(worker)
    while True:
        ready = _wait(manager, worker, connection)
        if connection.has_replies(ready):
            _handle_replies(manager, worker, connection, connection.read_replies())
        if waker in ready:
            _clear(waker)
            manager.restore_idle(worker)
        if connection.flush() and worker.blocked:
            manager.note_flushed(worker)
        if connection.has_exited(ready):
            _handle_exit(manager, worker, connection)
            return
        if _get_due_delay(worker, connection) == 0.0:
            _handle_due(manager, worker, connection)
        manager.add_refused_workers()


def _wait(manager: ProcessManager, worker: Worker, connection: WorkerConnection) -> set[int]:
    timeout = _get_due_delay(worker, connection)
    if timeout is None:
        timeout = manager.get_retry_delay()
    if worker.ready_seconds is not None and not connection.is_at_end:
        return connection.wait(timeout)
    # The fork server has to act: to start a worker, or to report its exit. A task may have stopped it.
    ready = connection.wait(_FORK_SERVER_SECONDS if timeout is None else min(timeout, _FORK_SERVER_SECONDS))
    if not ready:
        lifetime.FORK_SERVERS.resume()
    return ready


def _get_due_delay(worker: Worker, connection: WorkerConnection) -> float | None:
    """Return how long to wait until `_handle_due`; None if there is nothing to handle."""
    if not worker.batches:
        return None
    if connection.closed_seconds is not None:
        return max(0.0, connection.closed_seconds + _CLOSED_SECONDS - monotonic())
    return worker.get_slow_delay(monotonic())


def _handle_due(manager: ProcessManager, worker: Worker, connection: WorkerConnection) -> None:
    """Kill a worker that closed its socket and does not exit; give away the tasks that a slow worker has not begun."""
    if connection.closed_seconds is not None:
        connection.closed_seconds = None
        lifetime.FORK_SERVERS.end(worker.pid, 0.0)
        return
    replies = connection.read_results()
    manager.take_from_slow(worker, connection, replies)
    settle_batch(manager, worker, replies)


def _handle_replies(
    manager: ProcessManager, worker: Worker, connection: WorkerConnection, frames: list[Frame], *, exited: bool = False
) -> None:
    finished = False
    for head, body in frames:
        kind = head[2]
        if kind == wire.READY:
            lifetime.FORK_SERVERS.warm = True
            manager.note_ready(worker, int(body))
            finished = True
        elif kind == wire.REFUSED:
            _handle_refusal(manager, worker, payload.load_any_error(body))
        else:
            manager.scheduler.account(worker, *head[5:8])
            if kind == wire.DONE:
                _finish_batch(manager, worker, connection, unloaded=head[1], exited=exited)
                finished = False  # it has its next batch
            else:
                finished |= manager.note_task_ended(worker, head[1])
                _settle_reply(manager, worker, connection, head, body)
    if finished and not exited:
        manager.give_next_batch(worker)


def _settle_reply(
    manager: ProcessManager, worker: Worker, connection: WorkerConnection, head: wire.Head, body: Body
) -> None:
    """Settle a task whose reply came through the socket; a large body is in shared memory."""
    if head[2] & wire.MEMORY_MARK:
        kind = head[2] & ~wire.MEMORY_MARK
        try:
            body = connection.view_body(body)
        except OSError as error:
            text = f"its result could not be read from its worker: {error}"
            kind, body = wire.LOST, payload.dumps((text, ""))
        settle_task(manager, worker, (*head[:2], kind, *head[3:]), body)
        connection.release_body()
    elif head[2] == wire.PLAIN:
        settle_task(manager, worker, head, marshal.loads(body))
    else:
        settle_task(manager, worker, head, body)


def _finish_batch(
    manager: ProcessManager, worker: Worker, connection: WorkerConnection, *, unloaded: int, exited: bool
) -> None:
    """Give the worker its next batch, and settle the tasks of the last one meanwhile.

    Tasks that it could not load are settled first: they may go back to the queue, and otherwise a pool that is being
    closed would let its last worker exit before.
    """
    replies = connection.read_results()
    manager.finish_batch(worker, replies, gives_next=not (unloaded or exited))
    settle_batch(manager, worker, replies)
    if unloaded and not exited:
        manager.give_next_batch(worker)


def _handle_refusal(manager: ProcessManager, worker: Worker, error: BaseException) -> None:
    """Keep the initializer's error. If it lacked a module that only this process has, try once more with it."""
    missing = error.name or "" if isinstance(error, ModuleNotFoundError) else None
    learned = missing is not None and not worker.learned and manager.packer.learn_module(missing)
    manager.note_refused(worker, error, learned=learned)
    if not learned:
        facts = {"pool": manager.counters.name, "worker": worker.name, "err": describe(error)}
        log.warning("initializer failed", extra=facts)


def _handle_exit(manager: ProcessManager, worker: Worker, connection: WorkerConnection) -> None:
    """Settle the last results of a worker that has ended, fail the task that it died of, and requeue the others."""
    replies = connection.read_results()
    manager.move_to_settling(worker, replies)
    settle_batch(manager, worker, replies)
    _handle_replies(manager, worker, connection, connection.read_last_replies(), exited=True)
    code = connection.read_exit_code()
    unforked = OSError(code - NOT_FORKED, os.strerror(code - NOT_FORKED)) if code and code >= NOT_FORKED else None
    ended = manager.note_exited(worker, connection, code, forked=unforked is None)
    message = _describe_exit(worker, ended.pid, code)
    if ended.lost and code == 0:  # the fork server takes it for an ordinary exit, and leaves its processes alone
        lifetime.FORK_SERVERS.end(ended.pid, _LEFTOVERS_GRACE_SECONDS)
    _fail_lost(worker, ended.lost, message, code)
    if unforked is not None:
        _handle_failed_start(manager, worker, unforked)
    elif ended.unexpected:
        if worker.initializer_error is None:
            log.warning("a worker died", extra={"pool": manager.counters.name, "worker": worker.name, "err": message})
        error = worker.initializer_error
        if ended.gives_up and manager.give_up(error or get_error_types()[0](message, code)) and error is not None:
            log.critical("initializer failed", exc_info=error, extra={"pool": manager.counters.name})
    manager.dispatch()


def _fail_lost(worker: Worker, lost: list[WorkItem], message: str, code: int | None) -> None:
    worker_died, _ = get_error_types()
    for item in lost:
        if item.future.settle_exception(worker_died(f"{item.future.label}: {message}", code)):
            worker.counters.errors += 1
        else:
            worker.counters.cancelled += 1


def _describe_exit(worker: Worker, pid: int, code: int | None) -> str:
    where = f"in worker {worker.name} (pid {pid})" if pid else f"in worker {worker.name} before it was ready"
    if code is None:
        return f"ended for unknown reasons {where}"
    if code >= 0:
        return f"exited with code {code} {where}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"killed by signal {-code} ({name}) {where}"


def settle_batch(manager: ProcessManager, worker: Worker, replies: dict[int, wire.Reply]) -> None:
    """Settle the tasks of a batch, which are in `worker.settling`. Most of them are short and return a plain value."""
    counters, tasks, durations = worker.counters, worker.settling, manager.scheduler.durations
    function, label, count, total = b"", "", 0, 0.0
    for number, (kind, started, ended, value) in replies.items():
        seconds = ended - started
        if kind != wire.PLAIN or seconds > _SHORTEST_MEASURED_SECONDS:
            settle_task(manager, worker, (0, number, kind, started, ended, 0.0, 0.0, 0.0, 0), value)
            continue
        future, packed, _, _, _ = tasks.pop(number)
        if packed[0] is not function:
            durations.learn(function, label, total, count)
            function, label, count, total = packed[0], future.label, 0, 0.0
        count += 1
        total += seconds
        counters.busy_seconds += seconds
        future.started_seconds = started
        counters.succeeded += 1
        future.settle_result(value)
    durations.learn(function, label, total, count)


def settle_task(manager: ProcessManager, worker: Worker, head: wire.Head, body: Any) -> None:
    """Settle one task by its reply's plain value or body. Count it and remove it from the worker before that."""
    _, number, kind, started, ended, cpu, delay, _, memory = head
    item = worker.settling.pop(number)
    future, counters = item.future, worker.counters
    seconds = ended - started
    counters.busy_seconds += seconds
    size_bytes = 0 if kind == wire.PLAIN else len(body)
    manager.scheduler.durations.learn(item.packed[0], future.label, seconds + size_bytes * SECONDS_PER_BYTE, 1)
    future.started_seconds = started
    if item.profiled or seconds > _SHORTEST_MEASURED_SECONDS:
        future._usage = (worker.name, worker.pid, started, ended, cpu, delay, memory)
    if kind == wire.PLAIN:
        counters.succeeded += 1
        future.settle_result(body)
    elif kind == wire.VALUE:
        try:
            result = payload.loads(body)
        except BaseException as error:  # noqa: BLE001 -- loading runs the user's code: that task's outcome
            counters.failed += 1
            message = f"{future.label}: its result can't be loaded: {describe(error)}"
            _settle_error(manager, future, _unpicklable(message, payload.replace_traceback(error), is_result=True))
        else:
            counters.succeeded += 1
            future.settle_result(result)
    elif kind != wire.UNLOADED or not _repack(manager, item, body):
        counters.failed += 1
        _settle_error(manager, future, _load_error(item, kind, body))


def _settle_error(manager: ProcessManager, future: TaskFuture[Any], error: BaseException) -> None:
    if isinstance(error, UnpicklableError) and error.is_result:
        manager.on_unsendable(future, error)  # before a waiting thread can submit the function's next task
    future.settle_exception(error)


def _load_error(item: WorkItem, kind: int, body: Body) -> BaseException:
    label = item.future.label
    if kind == wire.RAISED:
        try:
            return payload.load_error(body)
        except BaseException as error:  # noqa: BLE001 -- loading runs the user's code: that task's outcome
            message = f"{label}: its exception can't be loaded: {describe(error)}"
            return _unpicklable(message, payload.replace_traceback(error))
    text, detail = payload.loads(body)
    if kind == wire.UNLOADED:
        return UnpicklableError(f"{label}: the task can't be loaded in a worker: {text}")
    cause = payload.RemoteTraceback(detail) if detail else None  # an exception has one
    return _unpicklable(f"{label}: {text}", cause, is_result=cause is None)


def _unpicklable(message: str, cause: BaseException | None, *, is_result: bool = False) -> UnpicklableError:
    error = UnpicklableError(message)
    error.__cause__, error.is_result = cause, is_result
    return error


def _repack(manager: ProcessManager, item: WorkItem, body: Body) -> bool:
    """Queue a task again if a module that only this process has was missing in the worker. It was not begun."""
    _, missing = payload.loads(body)
    if not missing or item.repacked:
        return False
    try:
        packed = manager.packer.pack_by_value(item.packed, missing)
    except Exception:  # noqa: BLE001 -- pickling runs the user's code; the worker's error is the one to report
        return False
    if packed is None:
        return False
    manager.requeue(item._replace(packed=packed, repacked=True))
    return True
