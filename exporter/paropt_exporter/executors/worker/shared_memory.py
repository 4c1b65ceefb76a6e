"""Memory that a pool and one worker share, for arguments or results that are too large for one send."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

_LEAST_BYTES = 1 << 20
_KEPT_BYTES = 1 << 23  # that are kept between two bodies


class SharedMemory:
    """Holds one body at a time, in either direction. The writer sends its size; once it is read, either side may write.

        empty ── write() ──> full ── get_view(), then release() ──> empty

    Guarantees: neither side waits for the other, which may have died; memory of bodies over 8 MB is freed once they are
    read.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mapped: mmap.mmap | None = None

    def write(self, parts: Sequence[bytes | memoryview]) -> bool:
        """Copy a body into the memory, part after part; return False if there is not enough memory."""
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
        """Return the body that the other side wrote; it is valid until `release`. OSError if there is no memory."""
        if self._mapped is None or len(self._mapped) < size:
            length = os.fstat(self._descriptor).st_size
            self._mapped = None
            try:
                self._mapped = mmap.mmap(self._descriptor, length, prot=mmap.PROT_READ)
            except OSError:
                os.ftruncate(self._descriptor, 0)  # so that a smaller body does not fail because of this length
                raise
        return memoryview(self._mapped)[:size]

    def release(self) -> None:
        """Release a body that was read, and the memory if it was large."""
        if self._mapped is not None and len(self._mapped) > _KEPT_BYTES:
            self._mapped = None  # unmapped with the last view of it
            os.ftruncate(self._descriptor, 0)
