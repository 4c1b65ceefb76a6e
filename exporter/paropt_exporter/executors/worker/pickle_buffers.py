"""Pickles values that hold large bytes without copying those bytes."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable

LARGE_BYTES = 1 << 16  # from here on pickle hands an object's bytes to its file as they are (FRAME_SIZE_TARGET)
_LONGEST_FRAME_BYTES = 3 << 16  # what a frame can come to; a longer piece is the content of one object


class PickleBuffers:
    """A pickle in pieces: small values in frames, large bytes as the objects that they are."""

    __slots__ = ("parts",)

    def __init__(self, value: object) -> None:
        self.parts: list[bytes] = []
        pickle.Pickler(self, pickle.HIGHEST_PROTOCOL).dump(value)

    def write(self, part: bytes | bytearray | pickle.PickleBuffer) -> None:
        """Take a part from the pickler; what can change is copied."""
        self.parts.append(part if type(part) is bytes else bytes(part))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __contains__(self, name: bytes) -> bool:
        """Whether the pickle refers to what has `name`; the contents of large objects don't matter."""
        return any(name in part for part in self.parts if len(part) <= _LONGEST_FRAME_BYTES)

    def join(self) -> bytes:
        return b"".join(self.parts)


def has_large(values: Iterable[object]) -> bool:
    """Whether one of the values is large itself; what lies deeper is not looked at."""
    try:
        return any(sys.getsizeof(value) >= LARGE_BYTES for value in values)
    except Exception:  # noqa: BLE001 -- a user's __sizeof__
        return False
