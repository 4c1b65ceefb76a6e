"""Frames between the exporter and the supervisor: values in the interpreter's own format, `marshal`.

    frame = the length of the content in four bytes, the content

Both processes run the same interpreter, and no other process has an end of a channel: marshal is not safe against
damaged or hostile content. It knows bytes, and the supervisor starts in half the time without the package json.
"""

from __future__ import annotations

import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any

_LENGTH_BYTES = 4


def build_frame(value: Any) -> bytes:  # Any: typeshed's type of such values has a private name
    """Return the frame of a value. Raises ValueError for a type that marshal does not know."""
    content = marshal.dumps(value)
    return len(content).to_bytes(_LENGTH_BYTES, "little") + content


class FrameReader:
    """Turns the chunks that arrive on a channel into the values of its frames."""

    def __init__(self) -> None:
        self._unread = b""

    def read(self, chunk: bytes) -> list[Any]:  # Any: what the other side has sent
        """Return the values of the frames that are complete with this chunk."""
        content, begin, values = self._unread + chunk, 0, []
        while len(content) - begin >= _LENGTH_BYTES:
            end = begin + _LENGTH_BYTES + int.from_bytes(content[begin : begin + _LENGTH_BYTES], "little")
            if end > len(content):
                break
            values.append(marshal.loads(content[begin + _LENGTH_BYTES : end]))
            begin = end
        self._unread = content[begin:]
        return values


def count_unread_bytes(channel: socket) -> int:
    """Return how many of the bytes that were sent the other end of a Unix socket has not read."""
    import fcntl  # here: short commands and most fork servers need no answer
    import termios

    return int.from_bytes(fcntl.ioctl(channel, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
