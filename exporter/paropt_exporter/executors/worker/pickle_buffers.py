"""Pickles values that contain large bytes objects without copying these."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable
from types import FunctionType

LARGE_BYTES = 1 << 16  # from here on pickle writes an object's bytes unframed (FRAME_SIZE_TARGET)
_SHARED_BYTES = 1 << 19  # of a whole pickle, from which on a socket takes up to three times as long


class PickleBuffers:
    """A pickle in parts: frames of small values, and the large bytes objects themselves."""

    __slots__ = ("_sent_at_once", "parts")

    def __init__(self, value: object, *, sent_at_once: bool = False) -> None:
        """Pickle a value. `sent_at_once`: nothing changes it before it is sent, so mutable objects are not copied."""
        self.parts: list[bytes | memoryview] = []
        self._sent_at_once = sent_at_once
        pickle.Pickler(self, pickle.HIGHEST_PROTOCOL).dump(value)

    @classmethod
    def wrap(cls, packed: bytes) -> PickleBuffers:
        """Return a pickle of one part."""
        made = cls.__new__(cls)
        made.parts = [packed]
        return made

    def write(self, part: bytes | bytearray | pickle.PickleBuffer) -> None:
        """Take a part from the pickler."""
        if type(part) is bytes:
            self.parts.append(part)
        else:
            view = pickle.PickleBuffer(part).raw()
            self.parts.append(view if self._sent_at_once else bytes(view))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __contains__(self, name: bytes) -> bool:
        """Whether the pickle contains `name`, without the contents of large objects."""
        before = (b"", *self.parts)
        parts = zip(self.parts, before, strict=False)
        return any(name in part for part, head in parts if type(part) is bytes and not _is_content(part, head))

    def join(self) -> bytes:
        return b"".join(self.parts)


def _is_content(part: bytes, head: bytes | memoryview) -> bool:
    """Whether a part is the content of one object: then the part before it ends with its length."""
    size = len(part).to_bytes(8, "little")
    return len(part) >= LARGE_BYTES and bytes(head[-8:]).endswith((size, size[:4]))


def share_large(packed: bytes) -> bytes | PickleBuffers:
    """Return a pickle that is large because of its many elements as one that is sent through shared memory."""
    return PickleBuffers.wrap(packed) if len(packed) >= _SHARED_BYTES else packed


def measure_large(values: Iterable[object], *, asks_python: bool = False) -> int:
    """Return the size of the values that are large themselves, without their elements; 0 if none is.

    `asks_python`: whether to call a `__sizeof__` in Python; otherwise such a value counts as 1 byte. That of pandas
    looks at each string of a table: this takes half as long as pickling a large one, and longer than a small one.
    """
    large = 0
    try:
        for value in values:
            if not asks_python and type(type(value).__sizeof__) is FunctionType:
                large += 1
            elif (size := sys.getsizeof(value)) >= LARGE_BYTES:
                large += size
    except Exception:  # noqa: BLE001 -- a user's __sizeof__
        return 0
    return large
