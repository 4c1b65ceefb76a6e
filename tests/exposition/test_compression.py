"""Compressed pages have the text of their lines, and unchanged blocks are compressed once."""

from __future__ import annotations

import gzip
import zlib
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.exposition.renderer import PageCompressor, Parts

LINE = b'paropt_stage_runs_total{lane="standard",project="shop",result="success",stage="stage_%d"} 0\n'
LINES = [LINE % number for number in range(10_000)]  # 870 kB: more than one block, whatever the size of a block is


def join(parts: Parts) -> bytes:
    return b"".join(chain.from_iterable(parts))


@given(st.lists(st.lists(st.lists(st.binary(max_size=300), max_size=8), max_size=4), max_size=4))
def test_each_page_of_a_series_is_complete(pages: list[list[list[bytes]]]) -> None:
    compressor = PageCompressor()
    for parts in pages:
        assert gzip.decompress(compressor.compress(parts)) == join(parts)


@pytest.mark.parametrize(
    "parts",
    [
        [[], LINES, [b"# EOF\n"]],
        [[b"# EOF\n"], LINES[1:], []],
        [LINES[:5000], [b"\n", *LINES[5000:]]],
        [[b"x" * 1_000_000]],
        [[b"", b"x" * 1_000_000, b""]],
        [],
    ],
    ids=["parts without lines", "first line gone", "new line", "one long line", "lines without text", "no part"],
)
def test_page_after_another_one_is_complete(parts: list[list[bytes]]) -> None:
    compressor = PageCompressor()
    compressor.compress([[], LINES, []])
    assert gzip.decompress(compressor.compress(parts)) == join(parts)
    assert gzip.decompress(compressor.compress([[], LINES, []])) == join([LINES])


def test_page_is_one_gzip_member() -> None:
    """Not every client reads a second member."""
    member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    assert member.decompress(PageCompressor().compress([LINES, LINES])) == join([LINES, LINES])
    assert (member.eof, member.unused_data) == (True, b"")


def test_only_changed_blocks_are_compressed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed, create = [], zlib.compressobj
    compressor = PageCompressor()
    compressor.compress([LINES, LINES])

    def count(level: int, *, wbits: int) -> object:
        compressed.append(1)
        return create(level, wbits=wbits)

    monkeypatch.setattr(zlib, "compressobj", count)
    compressor.compress([LINES, LINES])
    assert sum(compressed) == 0
    changed = [*LINES[:7000], LINES[7000].replace(b" 0", b" 1"), *LINES[7001:]]
    page = compressor.compress([LINES, changed])
    assert sum(compressed) == 1
    assert gzip.decompress(page) == join([LINES, changed])
