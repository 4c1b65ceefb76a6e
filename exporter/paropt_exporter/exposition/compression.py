"""Compress pages with gzip; keep the compressed blocks that have not changed since the last page."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from msgspec import Struct

# Metrics text shrinks to a twentieth at any level; the lowest level takes a third of the time of the default one.
_LEVEL = 1
# Of the lines in a block. Smaller blocks compress worse (by 2 % at this size), larger ones change more often.
_BLOCK_BYTES = 128 * 1024
_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\x04\xff"  # RFC 1952: deflate, no name, no time, the fastest level, unknown system
_END = b"\x03\0"  # RFC 1951: an empty last block
_ALL_ONES = 2**32 - 1  # CRC-32 inverts its state before and after the bytes

Parts = Sequence[Sequence[bytes]]


class _Block(Struct, frozen=True):
    """Some lines, compressed without reference to other blocks, so that blocks can be joined in any order."""

    lines: Sequence[bytes]
    compressed: bytes
    checksum: int
    size_bytes: int


class PageCompressor:
    """Compresses page after page.

        lines of each part -> blocks of 128 kB -> known from the last page, or compressed now -> one gzip member

    Most lines of a page are the same objects as those of the page before, so that a comparison costs next to nothing.
    Not thread-safe.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], _Block] = {}  # by the number of the part and of the block's first line

    def compress(self, parts: Parts) -> bytes:
        """Return a page in gzip's format. `parts` are the lines of each family; a family should keep its position."""
        before, self._blocks = self._blocks, {}
        for number, lines in enumerate(parts):
            # Lines of one family have about the same size. A power of 2 stays the same when they grow slightly.
            count = 1 << (_BLOCK_BYTES // max(1, len(lines[-1]))).bit_length() if lines else 1
            for first in range(0, len(lines), count):
                chosen, block = lines[first : first + count], before.get((number, first))
                if block is None or block.lines != chosen:
                    block = _compress_block(chosen)
                self._blocks[number, first] = block
        return _join_blocks(tuple(self._blocks.values()))


def _compress_block(lines: Sequence[bytes]) -> _Block:
    text, compressor = b"".join(lines), zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
    compressed = compressor.compress(text) + compressor.flush(zlib.Z_FULL_FLUSH)
    return _Block(lines, compressed, zlib.crc32(text), len(text))


def _join_blocks(blocks: Sequence[_Block]) -> bytes:
    checksum = size_bytes = 0
    for block in blocks:
        checksum = _combine_checksums(checksum, block)
        size_bytes += block.size_bytes
    end = struct.pack("<II", checksum, size_bytes % 2**32)
    return b"".join([_HEAD, *(block.compressed for block in blocks), _END, end])


def _combine_checksums(checksum: int, block: _Block) -> int:
    """Return the CRC-32 of a text followed by a block. CRC-32 is linear, so as many zeros can stand for the block."""
    return zlib.crc32(bytes(block.size_bytes), checksum ^ _ALL_ONES) ^ _ALL_ONES ^ block.checksum
