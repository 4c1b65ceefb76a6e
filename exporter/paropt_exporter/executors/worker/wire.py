"""The protocol between a pool and its workers: frames on a socket, results on a pipe, claims on an eventfd."""

from __future__ import annotations

import marshal
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

# To a worker: body length, kind. From a worker: body length, number of the task, kind, its start and end, its CPU and
# run-queue delay in seconds, CPU of the worker's whole life, peak memory in bytes.
MESSAGE = struct.Struct("<QB")
REPLY = struct.Struct("<QQBdddddQ")
# Number, length of the function's pickle, whether to measure in full, whether a large result may be put into shared
# memory, form of the arguments.
ONE = struct.Struct("<QIBBB")
SIZE = struct.Struct("<Q")  # of a body in shared memory
# From the fork server: a worker's exit code, or minus the signal's number as in subprocess; or NOT_FORKED + errno.
STATUS = struct.Struct("<i")
NOT_FORKED = 1 << 16

PREPARE, TASK, BATCH = range(3)
PICKLED, MARSHALLED, IN_MEMORY = range(3)  # forms of the arguments
READY, REFUSED, PLAIN, VALUE, RAISED, LOST, UNLOADED, DONE, LEAVING = range(9)
# READY: prepared; REFUSED: the initializer failed; PLAIN: a value for marshal, no body for None; LOST: result or
# exception could not be pickled; UNLOADED: the task could not be unpickled and did not run; DONE: the batch is
# finished, and its number is how many of its tasks were UNLOADED; LEAVING: dismissed, it exits and runs no task.
MEMORY_MARK = 0x80  # added to a reply's kind: the body is in shared memory, and its SIZE is sent instead

MOST_TASKS = 1000  # that a worker may hold, so that their results fit into the pipe
CHUNK_BYTES = 1 << 16
LONGEST_BODY_BYTES = 1 << 47  # the address space of a process
RESULTS_BYTES = 1 << 18  # of the results pipe; Linux grants a user 64 MB of pipes

_UNREFERENCED = 2  # marshal's version: from the third on, an object may refer to an earlier one, here in another item

_FIRST_BYTES = 1 << 24  # of the buffer of a large body; it is doubled whenever it is full
Frames = list[tuple[tuple[Any, ...], bytes | bytearray]]  # header fields and body

Reply = tuple[int, float, float, Any]  # kind, start, end, plain value or body
Head = tuple[int, int, int, float, float, float, float, float, int]  # of a reply, as REPLY has it


def claim_task(descriptor: int) -> bool:
    """Claim one task, for the worker to run or for the pool to give to another worker; False if none is left.

    The kernel grants each claim once, however the worker dies, so each task runs at most once.
    """
    try:
        os.eventfd_read(descriptor)
    except BlockingIOError:
        return False
    return True


class Assembler:
    """Assembles frames from received bytes; a large body is received into its final buffer.

    The buffer grows with the bytes that arrive: the length comes from the other side, where a task may have written to
    a descriptor that is not its own, and must not cost this process its memory.
    """

    def __init__(self, header: struct.Struct) -> None:
        self._header = header
        self._pending = b""
        self._body: bytearray | None = None
        self._filled = self._length = 0  # of the body
        self._head: tuple[Any, ...] = ()

    @property
    def wants_body(self) -> bool:
        """Whether a large body is being received: then `receive_body` comes next, and otherwise `split`."""
        return self._body is not None

    def receive_body(self, receive_into: Callable[[memoryview], int]) -> Frames | None:
        """Receive more of a large body; return the frame if it is complete, or None at the end of the stream."""
        body = self._body
        assert body is not None
        if self._filled == len(body):
            body.extend(bytes(min(len(body), self._length - len(body))))
        with memoryview(body) as whole, whole[self._filled :] as room:
            count = receive_into(room)
        self._filled += count
        if not count:
            return None
        if self._filled < self._length:
            return []
        self._body = None
        return [(self._head, body)]

    def split(self, received: bytes) -> Frames:
        """Split received bytes into frames; return the complete ones as header fields and body.

        Raises ValueError for a body that no process could send, rather than wait for it.
        """
        pending = self._pending + received if self._pending else received
        frames: Frames = []
        header, size, start = self._header, self._header.size, 0
        while len(pending) - start >= size:
            head = header.unpack_from(pending, start)
            end = start + size + head[0]
            if end > len(pending):
                if head[0] > LONGEST_BODY_BYTES:
                    raise ValueError("a task has written to the socket between its worker and the pool")
                if head[0] > CHUNK_BYTES:
                    self._head, self._length = head, head[0]
                    self._filled = len(pending) - start - size
                    self._body = bytearray(min(self._length, max(_FIRST_BYTES, self._filled)))
                    self._body[: self._filled] = pending[start + size :]
                    start = len(pending)
                break
            frames.append((head, pending[start + size : end]))
            start = end
        self._pending = pending[start:]
        return frames


def dump_result(number: int, reply: Reply) -> bytes:
    """Return a result of a batch for the pipe: one item of a marshalled dict."""
    return marshal.dumps(number, _UNREFERENCED) + marshal.dumps(reply, _UNREFERENCED)


def load_results(received: bytes) -> dict[int, Reply]:
    """Return the results that were read from the pipe by task number, in their order."""
    return marshal.loads(b"{%b0" % received)  # type: ignore[no-any-return]  # see `dump_result`


def send_all(connection: socket.socket, *parts: bytes | memoryview) -> None:
    """Send the parts without joining them. Blocks."""
    total = sum(map(len, parts))
    sent = connection.sendmsg(parts)
    if sent == total:
        return
    for part in parts:
        if sent >= len(part):
            sent -= len(part)
            continue
        connection.sendall(memoryview(part)[sent:])
        sent = 0
