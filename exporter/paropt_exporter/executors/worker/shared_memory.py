"""Memory that a pool and one worker share, for arguments or a result that a socket would carry in many pieces."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

_LEAST_BYTES = 1 << 20
_KEPT_BYTES = 1 << 23  # what an arena may hold on to between two bodies


class SharedMemory:
    """One body at a time, either way: one side puts it and says how long it is, the other reads it, then may put one.

        empty ── write() ──> full ── get_view(), then release() ──> empty

    Guarantees: a side that dies leaves nothing behind that the other would wait for; memory of bodies over 8 MB is
    given back as soon as they are read.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mapped: mmap.mmap | None = None

    def write(self, parts: Sequence[bytes]) -> bool:
        """Copy a body into the arena, part after part; False when there is no memory for it."""
        size, offset = sum(map(len, parts)), 0
        try:
            if os.fstat(self._descriptor).st_size < size:
                os.ftruncate(self._descriptor, max(_LEAST_BYTES, 1 << (size - 1).bit_length()))
            for part in parts:
                view = memoryview(part)
                while view:
                    written = os.pwrite(self._descriptor, view, offset)
                    view, offset = view[written:], offset + written
        except OSError:
            return False
        return True

    def get_view(self, size: int) -> memoryview:
        """Return the body that the other side has put; it stands until `release`."""
        if self._mapped is None or len(self._mapped) < size:
            length = os.fstat(self._descriptor).st_size
            self._mapped = None
            try:
                self._mapped = mmap.mmap(self._descriptor, length, prot=mmap.PROT_READ)
            except OSError:
                os.ftruncate(self._descriptor, 0)  # a smaller one had better not fail for this one's length
                raise
        return memoryview(self._mapped)[:size]

    def release(self) -> None:
        """Let go of a body that was read, and of the memory if it was large."""
        if self._mapped is not None and len(self._mapped) > _KEPT_BYTES:
            self._mapped = None  # unmapped with the last view of it
            os.ftruncate(self._descriptor, 0)
