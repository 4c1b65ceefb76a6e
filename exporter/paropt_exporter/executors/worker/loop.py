"""What a worker process runs: it takes tasks from its pool, runs them one after another, and measures them."""

from __future__ import annotations

import contextlib
import marshal
import os
import socket
import sys
from collections.abc import Callable
from time import monotonic, process_time
from typing import Any

from paropt_exporter.errors import describe, drop_first_frame
from paropt_exporter.executors.worker import imports, measure, mp_context, payload, wire
from paropt_exporter.executors.worker.orphans import Orphans
from paropt_exporter.executors.worker.pickle_buffers import PickleBuffers
from paropt_exporter.executors.worker.shared_memory import SharedMemory

# Where the fork server puts a worker's ends: socket to its pool, claims, pipe for results of a batch, shared memory,
# multiprocessing's resource tracker, where the owner has one, and pipe to the fork server for what had to be imported.
SOCKET, CLAIMS, RESULTS, MEMORY, TRACKER, IMPORTS = 3, 4, 5, 6, 7, 8

# Child processes and run-queue delay are looked at only when a batch lasted long enough to have any worth counting.
_WORTH_A_LOOK_SECONDS = 0.001
_MOST_CACHED = 1000
_ATOMIC_BYTES = 4096  # up to this size a write to a pipe is whole or refused (PIPE_BUF)

Outcome = tuple[int, Any, float, float]  # kind, a plain value or else bytes or Pieces, began, ended


def main() -> None:
    """Serve until the pool closes its end."""
    with (
        socket.socket(fileno=SOCKET) as connection,
        contextlib.suppress(BrokenPipeError, ConnectionResetError),  # the pool is gone: nobody to tell
    ):
        _Worker(connection).serve()


class _Worker:
    """The loop of one worker process.

    Guarantees:
      * A task is run only under a claim, and its result is in the kernel's hands before the next claim: whatever
        kills the process, the pool knows which tasks have ended, which one was running, and which never began.
      * Results of a batch wake nobody until the batch is through, unless the pipe is full.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._assembler = wire.Assembler(wire.MESSAGE)
        self._memory = SharedMemory(MEMORY)
        self._frames: list[tuple[tuple[Any, ...], bytes | bytearray]] = []
        self._functions: dict[bytes, Callable[..., Any]] = {}
        self._delay_seconds = measure.run_delay_seconds()
        self._children_seconds = measure.children_cpu_seconds()
        self._orphans_seconds = 0.0
        self._loading_seconds = 0.0
        self._orphans = Orphans()
        self._is_copy = False
        self._modules = len(sys.modules)  # that the fork server had, or was told of
        os.register_at_fork(after_in_child=self._become_copy)

    def serve(self) -> None:
        while (frame := self._receive()) is not None:
            (_, kind), body = frame
            if monotonic() >= self._orphans.due_seconds:
                self._reap()
            if kind == wire.TASK:
                self._run_one(memoryview(body))
            elif kind == wire.BATCH:
                self._run_batch(*marshal.loads(body))
            elif not self._prepare(body):
                return
            del frame, body
            if len(sys.modules) > self._modules:
                imports.tell(IMPORTS, tuple(sys.modules)[self._modules :])
                self._modules = len(sys.modules)

    def _receive(self) -> tuple[tuple[Any, ...], bytes | bytearray] | None:
        while not self._frames:
            room = self._assembler.room()
            if room is not None:
                count = self._connection.recv_into(room)
                if not count:
                    return None
                self._frames = self._assembler.fill(count)
            else:
                received = self._connection.recv(wire.CHUNK_BYTES)
                if not received:
                    return None
                self._frames = self._assembler.feed(received)
        return self._frames.pop(0)

    def _prepare(self, body: bytes | bytearray) -> bool:
        path, directory, environment, arguments, key, tracked, *initializer = marshal.loads(body)
        sys.path[:], sys.argv[:] = path, arguments
        os.environ.clear()
        os.environb.update(environment)
        try:
            os.chdir(directory)
            if key:
                mp_context.join(key, TRACKER if tracked else None)
            _initialize(*initializer)
        except BaseException as error:  # noqa: BLE001 -- a user's initializer; told to the pool
            self._say(0, wire.REFUSED, payload.dump_error(error)[0])
            return False
        self._say(0, wire.READY, b"%d" % os.getpid())
        return True

    def _become_copy(self) -> None:
        """Note that this is a child that a task forked: should it come out of the task, it is no second worker."""
        self._is_copy = True

    def _run_batch(self, number: int, tasks: list[payload.Packed]) -> None:
        begun, cpu, unloaded = monotonic(), process_time(), 0
        for function, arguments in tasks:
            if not wire.claim(CLAIMS):
                break  # the pool took back what is left
            outcome = self._run(function, arguments)
            if self._is_copy:
                os._exit(0)
            unloaded += outcome[0] == wire.UNLOADED
            self._whisper(number, outcome)
            number += 1
        cpu, delay = process_time() - cpu - self._loading(), 0.0
        if monotonic() - begun > _WORTH_A_LOOK_SECONDS:
            cpu, delay = cpu + self._children_cpu(), self._delay()
        self._say(unloaded, wire.DONE, b"", begun, monotonic(), cpu, delay)

    def _run_one(self, body: memoryview) -> None:
        number, size, profiled, form = wire.ONE.unpack_from(body)
        function = bytes(body[wire.ONE.size : wire.ONE.size + size])
        arguments = self._arguments(form, body[wire.ONE.size + size :])
        meter = measure.Meter() if profiled else None
        cpu = process_time()
        if not wire.claim(CLAIMS):
            self._say(0, wire.DONE, b"")  # the pool took it back while it was on its way
            return
        kind, reply, started, ended = self._run(function, arguments)
        if self._is_copy:
            os._exit(0)
        loading = self._loading()
        cpu = process_time() - cpu - loading
        delay, memory = 0.0, 0
        if meter is not None:
            cpu, delay, memory = meter.stop()
            cpu = max(0.0, cpu - loading)
            self._children_cpu()
            self._orphans_seconds = meter.orphans_seconds
        elif ended - started > _WORTH_A_LOOK_SECONDS:
            cpu, delay = cpu + self._children_cpu(), self._delay()
        if isinstance(reply, PickleBuffers) and self._memory.put(reply.parts):
            kind, reply = kind | wire.MEMORY_MARK, wire.SIZE.pack(len(reply))
        self._say(number, kind, reply, started, ended, cpu, delay, memory)

    def _arguments(self, form: int, body: memoryview) -> payload.Arguments | memoryview:
        if form == wire.MARSHALLED:
            return marshal.loads(body)  # type: ignore[no-any-return]  # a tuple, as it was sent
        return body if form == wire.PICKLED else self._memory.view(wire.SIZE.unpack(body)[0])

    def _run(self, function: bytes, arguments: payload.Arguments | memoryview) -> Outcome:
        try:
            call = self._functions.get(function) or self._load(function)
            positional, keywords = payload.load_arguments(arguments)
            self._memory.done()
        except BaseException as error:  # noqa: BLE001 -- loading runs the user's code; told to the pool
            return wire.UNLOADED, _unloaded(error), (now := monotonic()), now
        started = monotonic()
        try:
            result = call(*positional, **keywords)
        except BaseException as error:  # noqa: BLE001 -- whatever a task raises is that task's outcome
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

    def _load(self, packed: bytes) -> Callable[..., Any]:
        began = process_time()
        function, lasts = payload.load_function(packed)
        self._loading_seconds += process_time() - began
        if lasts:
            if len(self._functions) >= _MOST_CACHED:
                self._functions.clear()
            self._functions[packed] = function
        return function

    def _loading(self) -> float:
        """Return the CPU that loading functions took since the last call: importing a module is no task's work."""
        seconds, self._loading_seconds = self._loading_seconds, 0.0
        return seconds

    def _reap(self) -> None:
        if self._orphans.reap(monotonic()):  # what they used counted as theirs, and is this process's children's now
            self._children_seconds = measure.children_cpu_seconds()
            self._orphans_seconds = measure.orphans_cpu_seconds()

    def _delay(self) -> float:
        before, self._delay_seconds = self._delay_seconds, measure.run_delay_seconds()
        return max(0.0, self._delay_seconds - before)

    def _children_cpu(self) -> float:
        before, self._children_seconds = self._children_seconds, measure.children_cpu_seconds()
        return self._children_seconds - before

    def _total(self) -> float:
        return process_time() + self._children_seconds + self._orphans_seconds

    def _whisper(self, number: int, outcome: Outcome) -> None:
        kind, body, started, ended = outcome
        if kind == wire.PLAIN or (type(body) is bytes and len(body) < _ATOMIC_BYTES):
            whisper = wire.dump_result(number, (kind, started, ended, body))
            if len(whisper) <= _ATOMIC_BYTES:
                try:
                    os.write(RESULTS, whisper)
                    return
                except BlockingIOError:
                    pass  # the pipe is full
        self._say(number, kind, body, started, ended)

    def _say(
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
            body = body.joined()
        head = wire.REPLY.pack(len(body), number, kind, started, ended, cpu, delay, self._total(), memory)
        if body:
            wire.send_all(self._connection, head, body)
        else:
            self._connection.sendall(head)


def _initialize(function: bytes, arguments: payload.Arguments) -> None:
    if function:
        call, _ = payload.load_function(function)
        positional, _ = payload.load_arguments(arguments)
        call(*positional)


def _unloaded(error: BaseException) -> bytes:
    """Say why a task could not be loaded, and which module was missing, if that was why: its pool may know it."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return payload.dumps((describe(error), missing or ""))
