"""The loop of a worker process: receives tasks, runs them one after another, measures them and replies."""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import resource
import socket
import sys
from collections.abc import Callable
from functools import partial
from time import monotonic, process_time, tzset
from typing import Any

from paropt_exporter.errors import describe, drop_first_frame
from paropt_exporter.executors import procfs
from paropt_exporter.executors.worker import imports, main_module, mp_context, payload, run_chunk, wire
from paropt_exporter.executors.worker.orphans import Orphans
from paropt_exporter.executors.worker.pickle_buffers import LARGE_BYTES, PickleBuffers
from paropt_exporter.executors.worker.shared_memory import SharedMemory

# A worker's descriptors: socket to its pool, claims, pipe for results of a batch, shared memory, multiprocessing's
# resource tracker if the parent process has one, and the pipe to the fork server for names of imported modules.
SOCKET, CLAIMS, RESULTS, MEMORY, TRACKER, IMPORTS = 3, 4, 5, 6, 7, 8

# Child processes and run-queue delay are read only if a task or batch lasted long enough for them to matter.
_LEAST_SAMPLED_SECONDS = 0.001
_MOST_CACHED = 1000

Outcome = tuple[int, Any, float, float]  # kind, plain value or pickle, start, end


def main() -> None:
    """Run tasks until the pool closes its end of the socket."""
    main_module.mark_worker()
    with (
        socket.socket(fileno=SOCKET) as connection,
        contextlib.suppress(BrokenPipeError, ConnectionResetError),  # the pool is gone
    ):
        _Worker(connection).serve()


class _Worker:
    """The loop of one worker process.

    Guarantees:
      * A task runs only under a claim, and the kernel has its result before the next claim. However the process dies,
        the pool knows which tasks have ended, which one was running, and which were not begun.
      * The results of a batch don't wake the pool until the batch is finished, unless the pipe is full.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._assembler = wire.Assembler(wire.MESSAGE)
        self._memory = SharedMemory(MEMORY)
        self._frames: list[tuple[tuple[Any, ...], bytes | bytearray]] = []
        self._functions: dict[bytes, Callable[..., Any]] = {}  # by their pickles
        self._sent_function = b""  # the last large one; a task without a function has it
        self._latest: dict[str, bytes] = {}  # the pickles of functions of which only the latest is kept, by name
        self._delay_seconds = read_run_delay()
        self._children_seconds = measure_waited_children()
        self._orphans_seconds = 0.0
        self._loading_seconds = 0.0
        self._orphans = Orphans()
        self._is_copy = False
        self._is_spent = False  # whether a task has left it without descriptors
        self._results = os.fstat(RESULTS).st_ino
        self._modules = len(sys.modules)  # that the fork server has, or has been sent
        os.register_at_fork(after_in_child=self._note_fork)

    def serve(self) -> None:
        while (frame := self._receive_message()) is not None:
            (_, kind), body = frame
            if monotonic() >= self._orphans.due_seconds:
                self._reap()
            if kind == wire.TASK:
                self._run_one(memoryview(body))
            elif kind == wire.BATCH:
                self._run_batch(*marshal.loads(body))
            elif not self._prepare(body):
                return
            if self._is_spent:
                return  # the pool starts another one
            main_module.release_names()
            del frame, body
            if len(sys.modules) > self._modules:
                imports.send_names(IMPORTS, tuple(sys.modules)[self._modules :])
                self._modules = len(sys.modules)
        self._send_reply(0, wire.LEAVING, b"")

    def _receive_message(self) -> tuple[tuple[Any, ...], bytes | bytearray] | None:
        while not self._frames:
            if self._assembler.wants_body:
                frames = self._assembler.receive_body(self._connection.recv_into)
                if frames is None:
                    return None
                self._frames = frames
            else:
                received = self._connection.recv(wire.CHUNK_BYTES)
                if not received:
                    return None
                self._frames = self._assembler.split(received)
        return self._frames.pop(0)

    def _prepare(self, body: bytes | bytearray) -> bool:
        path, directory, environment, arguments, limits, *rest = marshal.loads(body)
        name, parent, tracked, *initializer = rest
        sys.path[:], sys.argv[:] = path, arguments
        sys.setrecursionlimit(limits[0])
        sys.set_int_max_str_digits(limits[1])
        os.environ.clear()
        os.environ.update(environment)
        tzset()  # TZ may have changed since the fork server started
        try:
            os.chdir(directory)
            mp_context.join_parent(name, parent, TRACKER if tracked else None)
            _initialize(*initializer)
            main_module.keep_names()
        except BaseException as error:  # noqa: BLE001 -- a user's initializer; the pool gets the error
            self._send_reply(0, wire.REFUSED, payload.dump_error(error)[0])
            return False
        self._send_reply(0, wire.READY, b"%d" % os.getpid())
        return True

    def _note_fork(self) -> None:
        """Note that this is a process that a task forked: if the task returns in it, it must not go on as a worker."""
        self._is_copy = True

    def _run_batch(self, number: int, tasks: list[payload.Packed]) -> None:
        self._check_results()
        begun, cpu, unloaded = monotonic(), process_time(), 0
        functions = [self._receive_function(function) for function, _ in tasks]  # also of tasks that are taken back
        for function, (_, arguments) in zip(functions, tasks, strict=True):
            if not wire.claim_task(CLAIMS):
                break  # the pool took the others back
            outcome = self._run_task(function, arguments)
            if self._is_copy:
                os._exit(0)
            unloaded += outcome[0] == wire.UNLOADED
            self._write_result(number, outcome)
            del outcome  # a large result's memory, which the next task may not resize as long as it is in use
            number += 1
        self._check_results()
        self._is_spent = _find_spent_limit() is not None  # once a batch, since it takes 0.3 µs
        cpu, delay = process_time() - cpu - self._take_loading_seconds(), 0.0
        if monotonic() - begun > _LEAST_SAMPLED_SECONDS:
            cpu, delay = cpu + self._take_children_cpu(), min(self._take_run_delay(), monotonic() - begun)
        self._send_reply(unloaded, wire.DONE, b"", begun, monotonic(), cpu, delay)

    def _run_one(self, body: memoryview) -> None:
        number, size, profiled, shares_result, form = wire.ONE.unpack_from(body)
        function = self._receive_function(bytes(body[wire.ONE.size : wire.ONE.size + size]))
        arguments = self._get_arguments(form, body[wire.ONE.size + size :])
        meter = Meter() if profiled else None
        cpu = process_time()
        if not wire.claim_task(CLAIMS):
            self._send_reply(0, wire.DONE, b"")  # the pool took it back meanwhile
            return
        outcome = self._run_task(function, arguments)
        if self._is_copy:
            os._exit(0)
        limit = _find_spent_limit()
        kind, reply, started, ended = outcome if limit is None else self._fail_for_limit(outcome, limit)
        loading = self._take_loading_seconds()
        cpu = process_time() - cpu - loading
        delay, memory = 0.0, 0
        if meter is not None:
            cpu, delay, memory = meter.stop(self._delay_seconds)
            cpu = max(0.0, cpu - loading)
            self._take_children_cpu()
            self._orphans_seconds = meter.orphans_seconds
        elif ended - started > _LEAST_SAMPLED_SECONDS:
            cpu, delay = cpu + self._take_children_cpu(), min(self._take_run_delay(), ended - started)
        if shares_result and isinstance(reply, PickleBuffers) and self._memory.write(reply.parts):
            kind, reply = kind | wire.MEMORY_MARK, wire.SIZE.pack(len(reply))
        self._send_reply(number, kind, reply, started, ended, cpu, delay, memory)

    def _receive_function(self, function: bytes) -> bytes:
        if not function:
            return self._sent_function
        if len(function) < LARGE_BYTES:
            return function
        if function != self._sent_function:  # otherwise each look-up would compare the two
            self._sent_function = function
        return self._sent_function

    def _get_arguments(self, form: int, body: memoryview) -> payload.Arguments | memoryview:
        if form == wire.MARSHALLED:
            return marshal.loads(body)  # type: ignore[no-any-return]  # a tuple, as it was sent
        return body if form == wire.PICKLED else self._memory.get_view(wire.SIZE.unpack(body)[0])

    def _run_task(self, function: bytes, arguments: payload.Arguments | memoryview) -> Outcome:
        try:
            call = self._functions.get(function) or self._load_function(function)
            positional, keywords = payload.load_arguments(arguments)
            self._memory.release()
        except BaseException as error:  # noqa: BLE001 -- loading runs the user's code; the pool gets the error
            return wire.UNLOADED, _dump_load_error(error), (now := monotonic()), now
        started = monotonic()
        try:
            result = call(*positional, **keywords)
        except BaseException as error:  # noqa: BLE001 -- any exception is the task's outcome
            ended = monotonic()
            packed, whole = payload.dump_error(drop_first_frame(error))
            return (wire.RAISED if whole else wire.LOST), packed, started, ended
        ended = monotonic()
        if payload.is_plain(result):
            return wire.PLAIN, result, started, ended
        try:
            return wire.VALUE, payload.dumps_result(result), started, ended
        except Exception as error:  # noqa: BLE001 -- pickling runs the user's code
            packed = payload.dumps((f"its result could not be sent back: {describe(error)}", ""))
            return wire.LOST, packed, started, ended
        except BaseException as error:  # noqa: BLE001 -- an exit is the task's own, wherever it comes from
            packed, whole = payload.dump_error(error)
            return (wire.RAISED if whole else wire.LOST), packed, started, ended

    def _load_function(self, packed: bytes) -> Callable[..., Any]:
        if packed[:1] == payload.CHUNK:
            inner = packed[1:]
            return partial(run_chunk, self._functions.get(inner) or self._load_function(inner))
        began, begun = process_time(), monotonic()
        function, lasts = payload.load_function(packed)
        self._loading_seconds += process_time() - began
        if monotonic() - begun > _LEAST_SAMPLED_SECONDS:
            self._take_run_delay()  # on a busy machine an import waits for a core longer than many tasks take
        if lasts:
            main_module.keep_names()
            if len(self._functions) >= _MOST_CACHED:
                self._functions.clear()
                self._latest.clear()
            self._functions[packed] = function
        if packed[:1] == payload.LATEST or (lasts and len(packed) >= LARGE_BYTES):
            # Another pickle of it has other globals or defaults, which may be large.
            self._functions.pop(self._latest.pop(function.__qualname__, b""), None)
            self._latest[function.__qualname__] = packed
        return function

    def _check_results(self) -> None:
        """Raise OSError if a task has put another file in the pipe's place: the pool would miss a batch's results."""
        if os.fstat(RESULTS).st_ino != self._results:
            raise OSError("a task has replaced the descriptor for results")

    def _fail_for_limit(self, outcome: Outcome, limit: int) -> Outcome:
        """Return an error as the outcome of a task that has left its worker unable to open files."""
        self._is_spent = True
        error = OSError(errno.EMFILE, f"the task has set its process's limit on descriptors (RLIMIT_NOFILE) to {limit}")
        return wire.RAISED, payload.dump_error(error)[0], *outcome[2:]

    def _take_loading_seconds(self) -> float:
        """Return the CPU time of loading functions since the last call: importing a module is not the task's work."""
        seconds, self._loading_seconds = self._loading_seconds, 0.0
        return seconds

    def _reap(self) -> None:
        if self._orphans.reap(monotonic()):  # their CPU time has moved to the waited-for children
            self._children_seconds = measure_waited_children()
            self._orphans_seconds = measure_children()

    def _take_run_delay(self) -> float:
        before, self._delay_seconds = self._delay_seconds, read_run_delay()
        return max(0.0, self._delay_seconds - before)

    def _take_children_cpu(self) -> float:
        before, self._children_seconds = self._children_seconds, measure_waited_children()
        return self._children_seconds - before

    def _measure_total_cpu(self) -> float:
        return process_time() + self._children_seconds + self._orphans_seconds

    def _write_result(self, number: int, outcome: Outcome) -> None:
        kind, body, started, ended = outcome
        if kind == wire.PLAIN or (type(body) is bytes and len(body) < imports.ATOMIC_BYTES):
            result = wire.dump_result(number, (kind, started, ended, body))
            if len(result) <= imports.ATOMIC_BYTES:
                try:
                    os.write(RESULTS, result)
                    return
                except BlockingIOError:
                    pass  # the pipe is full
        self._send_reply(number, kind, body, started, ended)

    def _send_reply(
        self,
        number: int,
        kind: int,
        body: Any,
        started: float = 0.0,
        ended: float = 0.0,
        cpu: float = 0.0,
        delay: float = 0.0,
        memory: int = 0,
    ) -> None:
        if kind == wire.PLAIN:
            body = marshal.dumps(body)
        elif isinstance(body, PickleBuffers):
            body = body.join()
        head = wire.REPLY.pack(len(body), number, kind, started, ended, cpu, delay, self._measure_total_cpu(), memory)
        if body:
            wire.send_all(self._connection, head, body)
        else:
            self._connection.sendall(head)


def _initialize(function: bytes, arguments: payload.Arguments) -> None:
    if function:
        from paropt_exporter.executors.worker import initializer_globals

        call, _ = payload.load_function(function)
        positional, _ = payload.load_arguments(arguments)
        initializer_globals.run_initializer(call, positional)


def _dump_load_error(error: BaseException) -> bytes:
    """Pickle why a task could not be loaded, and the name of the missing module: the pool may have it."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return payload.dumps((describe(error), missing or ""))


def _find_spent_limit() -> int | None:
    """Return the limit on descriptors if the worker's own ones use it up; None otherwise."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit if 0 <= limit <= IMPORTS + 1 else None  # -1: there is no limit


def read_run_delay() -> float:
    return procfs.read_run_delay_seconds("/proc/self/schedstat")


def measure_waited_children() -> float:
    """Return the CPU time of the children that this process has waited for, including their descendants."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_children() -> float:
    """Return the CPU time of descendants that have not been waited for, alive or not.

    The worker is a subreaper, so orphans stay its descendants; a zombie's CPU time can be read until it is reaped.
    """
    return procfs.measure_descendants_cpu(os.getpid()) if procfs.has_children() else 0.0


class Meter:
    """Measures one task in full. Costs some 50 µs, and a walk over /proc if there are child processes."""

    def __init__(self) -> None:
        _reset_memory_peak()
        self._delay_seconds = read_run_delay()
        self.orphans_seconds = measure_children()
        self._cpu_seconds = self.orphans_seconds + measure_waited_children() + process_time()

    def stop(self, delay_seconds: float) -> tuple[float, float, int]:
        """Return CPU time and run-queue delay in seconds, and the peak memory since the start in bytes.

        `delay_seconds`: the process's delay so far that certainly is not the task's.
        """
        cpu = process_time() + measure_waited_children()
        self.orphans_seconds = measure_children()
        used = max(0.0, cpu + self.orphans_seconds - self._cpu_seconds)
        return used, read_run_delay() - max(self._delay_seconds, delay_seconds), procfs.read_memory_peak_bytes()


def _reset_memory_peak() -> None:
    try:
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # not permitted: the peak is then that of the worker's whole life
    try:
        os.write(descriptor, b"5")  # proc(5): resets VmHWM to the current memory
    except OSError:
        pass
    finally:
        os.close(descriptor)
