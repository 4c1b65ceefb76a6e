"""What a pool and its workers say to each other: frames on a socket, results on a pipe, claims on an eventfd."""

from __future__ import annotations

import marshal
import os
import socket
import struct
from typing import Any

# To a worker: body length, kind. From a worker: body length, number of the task, kind, when it began and
# ended, CPU and run-queue delay in seconds, CPU of the worker's whole life, peak memory in bytes.
MESSAGE = struct.Struct("<QB")
REPLY = struct.Struct("<QQBdddddQ")
ONE = struct.Struct(
    "<QIBB"
)  # number, length of the function's pickle, whether to measure in full, how the arguments come
SIZE = struct.Struct("<Q")  # of a body that lies in the arena

PREPARE, TASK, BATCH = range(3)
PICKLED, MARSHALLED, IN_MEMORY = range(3)  # how the arguments come
READY, REFUSED, PLAIN, VALUE, RAISED, LOST, UNLOADED, DONE = range(8)
# READY: prepared; REFUSED: the initializer failed; PLAIN: a value that marshal takes, no body for None; LOST: result or
# exception could not be pickled; UNLOADED: the task could not be unpickled and did not run; DONE: the batch is
# through, and as its number how many of its tasks were UNLOADED.
MEMORY_MARK = 0x80  # added to a reply's kind: the body lies in the arena, what comes is its SIZE

MOST_TASKS = 1000  # in a worker's hands, so that none of their replies finds the pipe full
CHUNK_BYTES = 1 << 16
RESULTS_BYTES = 1 << 18  # of results in the pipe before a worker has to say them aloud; a user may have 64 MB of pipes

_UNREFERENCED = 2  # marshal's version: since the third an object may point back to one before it, here in another item

Reply = tuple[int, float, float, Any]  # kind, when the task began and ended, a plain value or the reply's body
Head = tuple[int, int, int, float, float, float, float, float, int]  # of a reply, as REPLY has it


def claim_task(descriptor: int) -> bool:
    """Take one task of the batch at hand, for its worker to run or its pool to give to another; False: none is left.

    The kernel hands out each claim once, however the worker ends: that is what makes "exactly once" hold.
    """
    try:
        os.eventfd_read(descriptor)
    except BlockingIOError:
        return False
    return True


class Assembler:
    """Puts frames together from what a socket or pipe has at the moment; a large body is received in its place."""

    def __init__(self, header: struct.Struct) -> None:
        self._header = header
        self._pending = b""
        self._body: bytearray | None = None
        self._filled = 0
        self._head: tuple[Any, ...] = ()

    def get_buffer(self) -> memoryview | None:
        """Return where the rest of a large body belongs, None while there is none under way."""
        return None if self._body is None else memoryview(self._body)[self._filled :]

    def note_received(self, count: int) -> list[tuple[tuple[Any, ...], bytes | bytearray]]:
        """Note that `count` bytes were received into `room`."""
        assert self._body is not None
        self._filled += count
        if self._filled < len(self._body):
            return []
        body, self._body = self._body, None
        return [(self._head, body)]

    def split(self, received: bytes) -> list[tuple[tuple[Any, ...], bytes | bytearray]]:
        """Return the frames that are complete, each as its header's fields and its body."""
        pending = self._pending + received if self._pending else received
        frames: list[tuple[tuple[Any, ...], bytes | bytearray]] = []
        header, size, start = self._header, self._header.size, 0
        while len(pending) - start >= size:
            head = header.unpack_from(pending, start)
            end = start + size + head[0]
            if end > len(pending):
                if head[0] > CHUNK_BYTES:
                    self._head, self._body = head, bytearray(head[0])
                    self._filled = len(pending) - start - size
                    self._body[: self._filled] = pending[start + size :]
                    start = len(pending)
                break
            frames.append((head, pending[start + size : end]))
            start = end
        self._pending = pending[start:]
        return frames


def dump_result(number: int, reply: Reply) -> bytes:
    """Return a reply of a batch as it goes through the pipe: one item of a marshalled dict."""
    return marshal.dumps(number, _UNREFERENCED) + marshal.dumps(reply, _UNREFERENCED)


def load_results(received: bytes) -> dict[int, Reply]:
    """Return what whole whispers say, by the tasks' numbers, in the order in which they were said."""
    return marshal.loads(b"{%b0" % received)  # type: ignore[no-any-return]  # as `whisper` made it


def send_all(connection: socket.socket, *parts: bytes | memoryview) -> None:
    """Send the parts one after another without joining them; blocks."""
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
