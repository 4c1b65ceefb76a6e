"""A pool's ends of the line to one worker process: orders out, replies in, claims between, its exit status."""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import select
import socket
import threading
import weakref
from collections.abc import Iterator
from time import monotonic
from typing import Any

from paropt_exporter.descriptors import check_reserve
from paropt_exporter.executors.processes.forkservers import ForkServers, is_stream
from paropt_exporter.executors.worker import forkserver, mp_context, payload, wire
from paropt_exporter.executors.worker.shared_memory import SharedMemory

_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 1031)

Frame = tuple[Any, bytes | bytearray]


class ProcessLink:
    """One worker process, from its fork to its exit. Orders may be sent by any thread, one at a time; one thread waits.

    `socket` carries orders and replies; `quiet` carries a batch's results without waking anybody; `claims` counts
    the tasks of the batch that nobody has taken yet; `status` tells how the process ended, and comes from the
    fork server, so that it arrives whatever became of the worker's own descriptors. Large bodies lie in the `arena`.
    """

    def __init__(self, forkservers: ForkServers) -> None:
        self._open: list[int] = []
        self._outbox: list[memoryview] = []
        self._senders: set[int] = set()  # threads that make or send an order; each takes out itself alone
        self._arena: SharedMemory | None = None
        try:
            self._socket, theirs = socket.socketpair()
            self._claims = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._open.append(self._claims)
            self._quiet, quiet = self._pipe()
            self._status, status = self._pipe()
            check_reserve(self._status, status)
            shared = os.memfd_create("paropt-arena")
            self._arena = SharedMemory(shared)
            # Closed when nobody has it: a thread may be putting a body into it as the worker dies, and the number of a
            # closed descriptor is soon another file's.
            weakref.finalize(self._arena, os.close, shared)
            with theirs, _lent() as (out, err, tracker):
                forkservers.spawn((theirs.fileno(), self._claims, quiet, shared, status, out, err, tracker))
        except BaseException:  # nothing may leave what was opened behind; raised again
            self.close()
            raise
        for descriptor in (quiet, status):
            self._open.remove(descriptor)
            os.close(descriptor)
        self._socket.setblocking(False)
        self.mute_seconds: float | None = None  # since when the worker's end is closed; None also when that was seen to
        self._heard_out = False
        self._loud = wire.Assembler(wire.REPLY)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._status, select.POLLIN)

    def _pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        self._open += [reading, writing]
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(writing, _PIPE_SIZE, wire.QUIET_BYTES)
        return reading, writing

    @property
    def heard_out(self) -> bool:
        """Whether the worker's end is closed and all that it said was heard."""
        return self._heard_out

    def watch(self, descriptor: int) -> None:
        """Have `wait` return when `descriptor` is readable too."""
        self._poll.register(descriptor, select.POLLIN)

    def wait(self, timeout_seconds: float | None) -> set[int]:
        """Wait until there is something to read, or room for what could not be sent; return the descriptors."""
        return {which for which, _ in self._poll.poll(None if timeout_seconds is None else timeout_seconds * 1000)}

    def said(self, descriptors: set[int]) -> bool:
        return self._socket.fileno() in descriptors

    def ended(self, descriptors: set[int]) -> bool:
        return self._status in descriptors

    # Out

    def prepare(self, body: bytes) -> None:
        self._send([wire.ORDER.pack(len(body), wire.PREPARE), body])

    def reserve(self, *, at_rest: bool) -> bool:
        """Note that this thread makes and sends the next order; False while another, or a part of one, is to be sent.

        A worker `at_rest` is through with all orders: whoever sent them may not have come to know it yet. The crew's
        lock is held, but it lets a thread in that has it: from a signal handler or a finalizer.
        """
        if self._outbox or (self._senders and not at_rest):
            return False
        self._senders.add(threading.get_ident())
        return True

    def give_back(self) -> None:
        """Note that this thread has no order to send, or none any more."""
        self._senders.discard(threading.get_ident())

    def offer(self, count: int) -> None:
        """Let the worker claim `count` tasks. Comes before the order, so that nothing is run without a claim."""
        os.eventfd_write(self._claims, count)

    def order(self, number: int, tasks: list[payload.Packed]) -> bool:
        """Give the worker a batch, its first task's number; False when not all could be sent: its thread `flush`es."""
        body = marshal.dumps((number, tasks))
        return self._send([wire.ORDER.pack(len(body), wire.BATCH), body])

    def order_one(self, number: int, task: payload.Packed, *, profiled: bool) -> bool:
        """Give the worker a task whose reply is said aloud; False as with `order`."""
        function, arguments = task
        if isinstance(arguments, tuple):
            form, rest = wire.MARSHALLED, marshal.dumps(arguments)
        elif isinstance(arguments, bytes):
            form, rest = wire.PICKLED, arguments
        elif (arena := self._arena) is not None and arena.put(arguments.parts):
            form, rest = wire.IN_ARENA, wire.SIZE.pack(len(arguments))
        else:
            form, rest = wire.PICKLED, arguments.joined()
        head = wire.ORDER.pack(wire.ONE.size + len(function) + len(rest), wire.TASK)
        return self._send([head + wire.ONE.pack(number, len(function), profiled, form) + function, rest])

    @property
    def sending(self) -> bool:
        """Whether an order, or a part of one, has not been sent yet."""
        return bool(self._senders or self._outbox)

    def is_sending_by(self, thread: int) -> bool:
        """Whether it is this thread that makes or sends an order."""
        return thread in self._senders

    def _send(self, parts: list[bytes]) -> bool:
        try:
            sent = self._socket.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        except OSError:
            return True  # it has died: its status says so to the thread that waits
        for part in parts:
            if sent < len(part):
                self._outbox.append(memoryview(part)[sent:])
            sent = max(0, sent - len(part))
        self.give_back()
        return not self._outbox

    def flush(self) -> None:
        """Send more of what is left, and have `wait` tell when there is room for the rest."""
        if self._heard_out:
            return
        while self._outbox:
            try:
                sent = self._socket.send(self._outbox[0])
            except BlockingIOError:
                break
            except OSError:
                self._outbox.clear()
                break
            self._outbox[0] = self._outbox[0][sent:]
            if not self._outbox[0]:
                del self._outbox[0]
        self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._outbox else 0))

    def body_in_arena(self, size: bytes | bytearray | memoryview) -> memoryview:
        """Return what a worker left in the arena; it stands until `arena_done`, or the next order."""
        assert self._arena is not None
        return self._arena.view(wire.SIZE.unpack(size)[0])

    def arena_done(self) -> None:
        assert self._arena is not None
        self._arena.done()

    def dismiss(self) -> None:
        """Have the worker go when it has ended what it holds."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    # In

    def replies(self) -> list[Frame]:
        """Return what the worker has said aloud."""
        frames: list[Frame] = []
        try:
            while (room := self._loud.room()) is not None:
                count = self._socket.recv_into(room)
                if not count:
                    break
                frames += self._loud.fill(count)
            else:
                frames += self._loud.feed(self._socket.recv(wire.CHUNK_BYTES))
        except OSError:
            pass  # nothing more at the moment, or nothing more ever: then its status comes
        if not frames and not self._heard_out and self._at_end():
            self._heard_out = True
            self.mute_seconds = monotonic()
            self._poll.unregister(self._socket)  # its end would wake us for ever
        return frames

    def _at_end(self) -> bool:
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def whispers(self) -> dict[int, wire.Reply]:
        """Return the results of a batch that nobody was woken for, by number. A pipe takes each whole or not at all."""
        received = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._quiet, wire.QUIET_BYTES):
                received += more
        return wire.whispered(received)

    def last_words(self) -> list[Frame]:
        """Return all that a dead worker had said aloud."""
        frames: list[Frame] = []
        while more := self.replies():
            frames += more
        return frames

    def unclaimed(self) -> int:
        """Take all tasks of the batch that nobody has begun, the last ones, from the worker; return how many."""
        count = 0
        while wire.claim(self._claims):
            count += 1
        return count

    def exit_code(self) -> int | None:
        """Return how the process ended, as subprocess has it; None if it could not be made, or nobody knows."""
        try:
            told = os.read(self._status, forkserver.STATUS.size)
        except OSError:
            return None
        return int(forkserver.STATUS.unpack(told)[0]) if told else None

    def close(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        self._arena = None
        while self._open:
            os.close(self._open.pop())


@contextlib.contextmanager
def _lent() -> Iterator[tuple[int, ...]]:
    """Lend the worker this process's standard output and error and resource tracker, or nothing in their place."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        tracker = mp_context.tracker()
        out, err = (stream if is_stream(stream) else nothing for stream in (1, 2))
        yield out, err, nothing if tracker is None else tracker
    finally:
        os.close(nothing)
