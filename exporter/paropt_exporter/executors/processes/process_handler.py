"""What the thread of a worker of a ProcessPool does: prepares, starts and handles its processes, each to its exit."""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import select
import sys
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from paropt_exporter.environment import copy_environment
from paropt_exporter.errors import UnpicklableError, describe
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.future import get_label
from paropt_exporter.executors.pool_log import PoolLogger
from paropt_exporter.executors.processes.results import ResultSettler, build_death_error, describe_exit, settle_lost
from paropt_exporter.executors.processes.transport import Frame, WorkerConnection
from paropt_exporter.executors.processes.workers import Worker, WorkerProcess
from paropt_exporter.executors.worker import mp_context, payload, wire
from paropt_exporter.executors.worker.pickle_buffers import PickleBuffers

if TYPE_CHECKING:
    from paropt_exporter.executors.processes.manager import ProcessManager

log = PoolLogger(__name__)

_CLOSED_SECONDS = 1.0  # from the end of a worker's socket, which only a task closes, to the worker's end
_FORK_SERVER_SECONDS = 1.0  # in which a worker starts or its exit is reported, unless a task stopped the fork server
_LEFTOVERS_GRACE_SECONDS = 2.0  # as the fork server has it for the processes of a crashed worker


class Preparation:
    """Builds the message with the state of the parent that a new worker process takes over, and the initializer.

    Any thread may call it. UnpicklableError if the initializer can't be pickled: from the constructor, for the caller
    of the pool's.
    """

    def __init__(
        self, packer: payload.Packer, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self._packer = packer
        self._initializer, self._initargs = initializer, tuple(initargs)  # users pass lists too
        self._pack_initializer()

    def build(self, name: str) -> bytes:
        """Return import path, folder, environment, limits and initializer as they are now, for the worker `name`."""
        try:
            directory = os.getcwd()  # noqa: PTH109 -- marshal takes no Path
        except OSError:
            directory = "/"
        # str() also of strings, since marshal takes no subclass.
        path = [str(os.fsdecode(entry)) for entry in sys.path if isinstance(entry, (str, bytes, os.PathLike))]
        parent = mp_context.get_authkey(), mp_context.get_name(), os.getpid()
        context = name, parent, mp_context.get_tracker() is not None
        arguments = [str(argument) for argument in getattr(sys, "argv", ())]  # a program that embeds Python may lack it
        limits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
        taken = path, directory, copy_environment(), arguments, limits
        return marshal.dumps((*taken, *context, *self._pack_initializer()))

    def _pack_initializer(self) -> tuple[bytes, bytes | tuple[Any, ...]]:
        """Pickle the initializer, each time again: a descriptor among its arguments can be fetched once."""
        if self._initializer is None:
            return b"", b""
        try:
            function, arguments = self._packer.pack(self._initializer, self._initargs, {})
        except UnpicklableError as error:
            part = f"initializer {get_label(self._initializer)}"
            unpicklable = UnpicklableError(f"{part}: {error}")
            unpicklable.part = f"{part}: {error.part}" if error.part else part
            raise unpicklable from error.__cause__
        return function, arguments.join() if isinstance(arguments, PickleBuffers) else arguments


def run_worker(manager: ProcessManager, worker: Worker) -> None:
    """Keep a process for the worker until the worker is to leave."""
    assert worker.waker is not None
    while not worker.leaving:
        _wait_to_start(worker.waker, worker.retry_delay_seconds)
        if not worker.leaving:
            _run_process(manager, worker, worker.waker)


def end_process(process: WorkerProcess, grace_seconds: float) -> None:
    """End a process and its group: TERM now, KILL after the grace. Does not block."""
    if process.is_ready:
        lifetime.FORK_SERVERS.end(process.pid, grace_seconds)
    else:
        lifetime.FORK_SERVERS.abort(process.connection.spawn_number, grace_seconds)


def _wait_to_start(waker: int, delay_seconds: float) -> None:
    if delay_seconds:
        poll = select.poll()
        poll.register(waker, select.POLLIN)
        poll.poll(1000 * delay_seconds)
    _clear(waker)


def _clear(waker: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(waker)


def _run_process(manager: ProcessManager, worker: Worker, waker: int) -> None:
    """Start a process and handle it until its exit.

    If this side fails, kill the process and fail its tasks: no caller may hang.
    """
    try:
        preparation = manager.preparation.build(worker.name)
        connection = WorkerConnection(lifetime.FORK_SERVERS)
    except BaseException as error:  # noqa: BLE001 -- pickling runs the user's code; without this thread tasks would hang
        _handle_failed_start(manager, worker, error)
        return
    process = manager.connect(worker, connection)
    try:
        connection.send_preparation(preparation)
        ProcessHandler(manager, process, waker).run()
    except BaseException as error:  # no memory, a bug, or an exit in the user's code
        log.exception("a worker was abandoned", extra={"pool": manager.counters.name, "worker": worker.name})
        end_process(process, 0.0)
        message = f"worker {worker.name} was abandoned: {describe(error)}"
        settle_lost(process, manager.abandon(process), message, None)
        manager.dispatch()


def _handle_failed_start(manager: ProcessManager, worker: Worker, error: BaseException) -> None:
    with manager.scheduler.lock:
        gives_up = manager.scheduler.note_failed_start(worker)
        is_news = worker.failures == 1  # it tries ten times
    is_short = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE) and manager.do_without(worker)
    if manager.threads.group.take_shortage_news() if is_short else is_news:
        log.warning("a worker could not be started", extra={"pool": manager.counters.name, "err": str(error)})
    if gives_up and not is_short:
        manager.give_up(error)


class ProcessHandler:
    """Handles one process from its connection to its exit, in its worker's thread: replies, slow batches, the end.

    It tells the manager each event, after it has read all that belongs to it. The scheduler's lock is held for no more
    than the change of the state; results are settled without it.
    """

    def __init__(self, manager: ProcessManager, process: WorkerProcess, waker: int) -> None:
        self._manager = manager
        self._scheduler = manager.scheduler
        self._process = process
        self._connection = process.connection
        self._settler = ResultSettler(manager, process)
        self._waker = waker
        self._kill_seconds: float | None = None  # when to kill a process that closed its socket, which only a task does
        self._connection.watch(waker)

    def run(self) -> None:
        process, connection = self._process, self._connection
        while True:
            ready = self._wait()
            if connection.has_replies(ready):
                self._handle_replies(connection.read_replies())
                if connection.is_at_end:  # once: from now on there are no replies
                    self._kill_seconds = monotonic() + _CLOSED_SECONDS
            if self._waker in ready:
                _clear(self._waker)
                if process.dismissed:  # once more: an interrupt may have come before the first time
                    connection.dismiss()
                if process.tasks.slow:  # another worker has taken the tasks that this one had not begun
                    self._settle_ended()
                self._manager.restore_idle(process)
            if process.blocked and connection.flush():
                self._manager.note_flushed(process)
            if connection.has_exited(ready):
                self._handle_exit()
                return
            if self._get_due_delay() == 0.0:
                self._handle_due()
            if self._manager.threads.group.get_retry_delay() == 0.0:
                self._manager.start_workers()

    def _wait(self) -> Mapping[int, int]:
        timeout = self._get_due_delay()
        if timeout is None:
            timeout = self._manager.threads.group.get_retry_delay()
        if self._process.is_ready and not self._connection.is_at_end:
            return self._connection.wait(timeout)
        # The fork server has to act: to start a process, or to report its exit. A task may have stopped it.
        ready = self._connection.wait(_FORK_SERVER_SECONDS if timeout is None else min(timeout, _FORK_SERVER_SECONDS))
        if not ready:
            lifetime.FORK_SERVERS.resume()
        return ready

    def _get_due_delay(self) -> float | None:
        """Return how long to wait until `_handle_due`; None if there is nothing to handle."""
        if not self._process.tasks.batches:
            return None
        if self._kill_seconds is not None:
            return max(0.0, self._kill_seconds - monotonic())
        return self._process.tasks.get_slow_delay(monotonic())

    def _handle_due(self) -> None:
        """Kill a process that closed its socket and does not exit; give away the unbegun tasks of a slow one."""
        if self._kill_seconds is not None:
            self._kill_seconds = None
            lifetime.FORK_SERVERS.end(self._process.pid, 0.0)
            return
        if not self._scheduler.idle and self._process.tasks.wait_longer(monotonic()):
            return
        self._manager.take_from_slow(self._process)
        self._settle_ended()

    def _settle_ended(self) -> None:
        """Settle the tasks of an unfinished batch that have ended."""
        replies = self._connection.read_results()
        with self._scheduler.lock:
            self._process.tasks.end_tasks(replies)
        self._settler.settle_batch(replies)

    def _handle_replies(self, frames: list[Frame], *, exited: bool = False) -> None:
        process, finished = self._process, False
        for head, body in frames:
            kind = head[2]
            if kind == wire.READY:
                lifetime.FORK_SERVERS.warm = True
                with self._scheduler.lock:
                    self._scheduler.note_ready(process, int(body), monotonic())
                finished = True
            elif kind == wire.LEAVING:
                with self._scheduler.lock:
                    self._scheduler.note_leaving(process)
            elif kind == wire.REFUSED:
                self._handle_refusal(payload.load_any_error(body))
            else:
                process.account(*head[5:8])
                if kind == wire.DONE:
                    self._finish_batch(unloaded=head[1], exited=exited)
                    finished = False  # it has its next batch
                else:
                    with self._scheduler.lock:
                        finished |= self._scheduler.note_task_ended(process, head[1], monotonic())
                    self._settler.settle_reply(head, body)
        if finished and not exited:
            self._manager.give_next_batch(process)

    def _finish_batch(self, *, unloaded: int, exited: bool) -> None:
        """Give the process its next batch, and settle the tasks of the last one meanwhile.

        Tasks that it could not load are settled first: they may go back to the queue, and otherwise a pool that is
        being closed would let its last worker exit before.
        """
        replies = self._connection.read_results()
        self._manager.finish_batch(self._process, replies, gives_next=not (unloaded or exited))
        self._settler.settle_batch(replies)
        if unloaded and not exited:
            self._manager.give_next_batch(self._process)

    def _handle_refusal(self, error: BaseException) -> None:
        """Keep the initializer's error. If it lacked a module that only this process has, try once more with it."""
        manager, worker = self._manager, self._process.worker
        missing = error.name or "" if isinstance(error, ModuleNotFoundError) else None
        learned = missing is not None and not worker.learned and manager.packer.learn_module(missing)
        with self._scheduler.lock:
            self._scheduler.note_refused(self._process, error, learned=learned)
        if not learned:
            facts = {"pool": manager.counters.name, "worker": worker.name, "err": describe(error)}
            log.warning("initializer failed", extra=facts)

    def _handle_exit(self) -> None:
        """Settle the last results of a process that has ended, fail the task that it died of, requeue the others."""
        manager, process, connection = self._manager, self._process, self._connection
        self._settle_ended()
        self._handle_replies(connection.read_last_replies(), exited=True)
        code = connection.read_exit_code()
        number = code - wire.NOT_FORKED if code and code >= wire.NOT_FORKED else None
        unforked = None if number is None else OSError(number, os.strerror(number))
        ended = manager.note_exited(process, code, forked=unforked is None)
        message = describe_exit(process, code)
        if ended.lost and code == 0:  # the fork server takes it for an ordinary exit, and leaves its processes alone
            lifetime.FORK_SERVERS.end(process.pid, _LEFTOVERS_GRACE_SECONDS)
        settle_lost(process, ended.lost, message, code)
        if unforked is not None:
            _handle_failed_start(manager, process.worker, unforked)
        elif ended.unexpected:
            self._handle_unexpected_exit(message, code, gives_up=ended.gives_up)
        manager.dispatch()

    def _handle_unexpected_exit(self, message: str, code: int | None, *, gives_up: bool) -> None:
        pool, worker = self._manager.counters.name, self._process.worker
        error = worker.initializer_error
        if error is None:
            log.warning("a worker died", extra={"pool": pool, "worker": worker.name, "err": message})
        if gives_up and self._manager.give_up(error or build_death_error(message, code)) and error is not None:
            log.critical("initializer failed", exc_info=error, extra={"pool": pool})
