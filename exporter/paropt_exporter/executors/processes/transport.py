"""The connection to one worker process: batches out, replies in, claims, and its exit status."""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import select
import socket
import weakref
from collections.abc import Container, Iterator, Mapping
from functools import partial
from typing import Any

from paropt_exporter import descriptors
from paropt_exporter.errors import is_from_signal_handler
from paropt_exporter.executors.processes.forkservers import ForkServers
from paropt_exporter.executors.worker import mp_context, payload, wire
from paropt_exporter.executors.worker.pickle_buffers import LARGE_BYTES
from paropt_exporter.executors.worker.shared_memory import SharedMemory

_SOCKET_BYTES = 1 << 20  # that are sent before the other side reads, as far as the system allows
_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 1031)

Frame = tuple[Any, bytes | bytearray]


class WorkerConnection:
    """The connection to a worker process from its fork to its exit.

    Any thread may send a batch, one at a time; the worker's thread reads, and sends the rest of a batch that did not
    fit into the socket.

    * The socket carries batches and replies.
    * The results pipe carries the results of a batch without waking this process.
    * The claims (an eventfd) count the tasks that the worker may begin and has not begun.
    * The status pipe tells how the process ended. The fork server writes it, so it arrives even if the worker closed
      its descriptors.
    * Shared memory carries large arguments and results.
    """

    def __init__(self, forkservers: ForkServers) -> None:
        self._open: list[int] = []
        self._outbox: list[memoryview] = []
        self._sent_function = b""  # the last large one, which the worker has by now
        self._memory: SharedMemory | None = None
        try:
            self._socket, theirs = socket.socketpair()
            with theirs:
                for each in (self._socket, theirs):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
                # The program's `socket.setdefaulttimeout` would not suit the worker. gevent's `setblocking` leaves the
                # descriptor as it is.
                os.set_blocking(theirs.fileno(), True)
                self._claims = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self._open.append(self._claims)
                self._write_claims = partial(os.eventfd_write, self._claims)
                self._results, results = self._make_pipe()
                self._status, status = self._make_pipe()
                descriptors.check_reserve(self._status, status)
                shared = os.memfd_create("paropt-shared-memory")
                self._memory = SharedMemory(shared)
                # Closed with the last reference: a thread may be writing to it as the worker dies, and the number of a
                # closed descriptor soon belongs to another file.
                weakref.finalize(self._memory, os.close, shared)
                with _open_streams() as (out, err, tracker):
                    files = theirs.fileno(), self._claims, results, shared, status, out, err, tracker
                    self.spawn_number = forkservers.spawn(files)
        except BaseException:  # close what was opened; raised again
            self.close()
            raise
        for descriptor in (results, status):
            self._open.remove(descriptor)
            os.close(descriptor)
        self._socket.setblocking(False)
        self._socket_descriptor = self._socket.fileno()
        self._at_end = False
        self._assembler = wire.Assembler(wire.REPLY)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._status, select.POLLIN)

    def _make_pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        self._open += [reading, writing]
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(writing, _PIPE_SIZE, wire.RESULTS_BYTES)
        return reading, writing

    @property
    def is_at_end(self) -> bool:
        """Whether the worker's end of the socket is closed and all replies were read."""
        return self._at_end

    def watch(self, descriptor: int) -> None:
        """Make `wait` return also when `descriptor` is readable."""
        self._poll.register(descriptor, select.POLLIN)

    def wait(self, timeout_seconds: float | None) -> Mapping[int, int]:
        """Wait for data, or for room to send the rest of a batch; return the descriptors that are ready, as keys."""
        return dict(self._poll.poll(None if timeout_seconds is None else timeout_seconds * 1000))

    def has_replies(self, descriptors: Container[int]) -> bool:
        return self._socket_descriptor in descriptors

    def has_exited(self, descriptors: Container[int]) -> bool:
        return self._status in descriptors

    # Out

    def send_preparation(self, body: bytes) -> None:
        self._send([wire.MESSAGE.pack(len(body), wire.PREPARE), body])

    def offer(self, count: int, sending: dict[int, Any], sender: int) -> None:
        """Let the worker claim `count` tasks, and note that in `sending`: the value of `sender` becomes None.

        Comes before the batch, since no task runs without a claim. An interrupt comes before both or after both, never
        in between.
        """
        try:
            # The interpreter looks for signals after a call, not between an unpacking, which writes here, and a store.
            (sending[sender],) = map(self._write_claims, (count,))
        except BlockingIOError:  # it is full, since a task has written to it
            self.dismiss()
            sending[sender] = None

    def withdraw_claims(self) -> int:
        """Take back the claims of all tasks that the worker has not begun, the last ones; return their number.

        Return 0 if there are more claims than tasks, since a task has written to them: any task may have begun.
        """
        os.set_blocking(self._claims, False)  # a task may have changed it in the worker, which shares the description
        count = 0
        while count <= wire.MOST_TASKS and wire.claim_task(self._claims):
            count += 1
        return count if count <= wire.MOST_TASKS else 0

    def send_batch(self, number: int, tasks: list[payload.Queued]) -> bool:
        """Send a batch and its first task's number; return False if the worker's thread has to `flush` the rest."""
        shortened = [
            (function if len(function) < LARGE_BYTES else self._shorten(function), arguments)
            for function, arguments in tasks
        ]
        body = marshal.dumps((number, shortened))
        return self._send([wire.MESSAGE.pack(len(body), wire.BATCH), body])

    def send_task(self, number: int, task: payload.Packed, *, profiled: bool, shares_memory: bool) -> bool:
        """Send one task; return False as `send_batch` does.

        Its reply comes through the socket. If it `shares_memory`, large arguments and a large result travel there.
        """
        function, arguments = task
        function = function if len(function) < LARGE_BYTES else self._shorten(function)
        if isinstance(arguments, tuple):
            form, rest = wire.MARSHALLED, marshal.dumps(arguments)
        elif isinstance(arguments, bytes):
            form, rest = wire.PICKLED, arguments
        elif shares_memory and (memory := self._memory) is not None and memory.write(arguments.parts):
            form, rest = wire.IN_MEMORY, wire.SIZE.pack(len(arguments))
        else:
            form, rest = wire.PICKLED, arguments.join()
        head = wire.MESSAGE.pack(wire.ONE.size + len(function) + len(rest), wire.TASK)
        return self._send([head + wire.ONE.pack(number, len(function), profiled, shares_memory, form) + function, rest])

    def _shorten(self, function: bytes) -> bytes:
        """Return a large pickled function, or nothing if it is the last one that was sent."""
        if function is self._sent_function:
            return b""
        self._sent_function = function
        return function

    def _send(self, parts: list[bytes]) -> bool:
        try:
            sent = self._socket.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if is_from_signal_handler(error):
                raise
            self.dismiss()  # usually it has died; otherwise it exits without these tasks, and others get them
            return True
        # Not by the outbox: the worker may have replied by now, and its thread sent part of the next batch.
        whole = True
        for part in parts:
            if sent < len(part):
                self._outbox.append(memoryview(part)[sent:])
                whole = False
            sent = max(0, sent - len(part))
        return whole

    def flush(self) -> bool:
        """Send more of a batch that did not fit; return whether all of it is sent. `wait` watches for room."""
        if self._at_end:
            return not self._outbox
        while self._outbox:
            try:
                sent = self._socket.send(self._outbox[0])
            except BlockingIOError:
                break
            except OSError:
                self.dismiss()  # as in `_send`
                self._outbox.clear()
                break
            self._outbox[0] = self._outbox[0][sent:]
            if not self._outbox[0]:
                del self._outbox[0]
        self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._outbox else 0))
        return not self._outbox

    def dismiss(self) -> None:
        """Make the worker exit after the batches that it was sent."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:  # it has exited
            if is_from_signal_handler(error):
                raise

    # In

    def read_replies(self) -> list[Frame]:
        """Read the replies that have arrived at the socket."""
        frames: list[Frame] = []
        try:
            while self._assembler.wants_body:
                received = self._assembler.receive_body(self._socket.recv_into)
                if received is None:
                    break
                frames += received
            else:
                frames += self._assembler.split(self._socket.recv(wire.CHUNK_BYTES))
        except OSError:
            pass  # no data yet, or the worker is gone: then its status arrives
        if not frames and not self._at_end and self._is_closed():
            self._at_end = True
            self._poll.unregister(self._socket)  # a closed socket is always readable
        return frames

    def _is_closed(self) -> bool:
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def read_results(self) -> dict[int, wire.Reply]:
        """Read the results of a batch from the pipe, by task number. Each was written as a whole or not at all."""
        received = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._results, wire.RESULTS_BYTES):
                received += more
        return wire.load_results(received)

    def read_last_replies(self) -> list[Frame]:
        """Read all replies of a worker that has ended."""
        frames: list[Frame] = []
        while more := self.read_replies():
            frames += more
        return frames

    def view_body(self, size: bytes | bytearray | memoryview) -> memoryview:
        """Return a result in shared memory. It is valid until `release_body` or the next batch. OSError: no memory."""
        assert self._memory is not None
        return self._memory.get_view(wire.SIZE.unpack(size)[0])

    def release_body(self) -> None:
        assert self._memory is not None
        self._memory.release()

    def read_exit_code(self) -> int | None:
        """Return how the process ended, as subprocess does, or NOT_FORKED + errno; None if it is unknown."""
        try:
            status = os.read(self._status, wire.STATUS.size)
        except OSError:
            return None
        return int(wire.STATUS.unpack(status)[0]) if status else None

    def close(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        self._memory = None
        while self._open:
            os.close(self._open.pop())


@contextlib.contextmanager
def _open_streams() -> Iterator[tuple[int, ...]]:
    """Return this process's standard output, error and resource tracker, or /dev/null in place of a missing one."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        tracker = mp_context.get_tracker()
        out, err = (stream if descriptors.is_stream(stream) else nothing for stream in (1, 2))
        yield out, err, nothing if tracker is None else tracker
    finally:
        os.close(nothing)
