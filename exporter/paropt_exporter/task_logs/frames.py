"""The format of a run's log: lines of JSON, of which some announce bytes of output that follow them.

    {"run": "20261128T…", "lane": "standard"}
    {"begin": 1, "stage": "unit", "task": 3, "label": "unit[3]", "item": "test_a.py", "attempt": 1}
    {"of": 1, "bytes": 6}
    hello
    {"of": 1, "missing": 90000}                    the log was full: so many bytes are left out here
    {"end": 1, "result": "failure", "message": "exit 1", "seconds": 1.25}
    {"over": "failure"}

The frames of attempts that run at once are interleaved in the order in which the output came. A process that was
killed, or a full disk, may leave the last frame incomplete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

_LONGEST_HEADER = 1 << 20  # characters: an item's name may be as long as a command line


@dataclass(frozen=True, slots=True)
class Frame:
    """A header's values; for output, where its bytes lie in the file."""

    values: Mapping[str, Any]  # what JSON gives
    position: int = 0
    size: int = 0


def format_header(values: Mapping[str, object]) -> bytes:
    """Return the line that begins a frame."""
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def read_frames(file: BinaryIO, position: int = 0) -> Iterator[Frame]:
    """Yield the complete frames from a position of the file on; ends at one that is incomplete, or no frame at all."""
    file.seek(0, 2)
    end = file.tell()
    while position < end:
        file.seek(position)
        line = file.readline(_LONGEST_HEADER)
        values = _parse_header(line)
        if values is None:
            return
        position += len(line)
        size = values.get("bytes", 0)
        if not size:
            yield Frame(values, position)
            continue
        if not isinstance(size, int) or size < 0 or position + size + 1 > end:
            return
        yield Frame(values, position, size)
        position += size + 1


def find_end(frame: Frame) -> int:
    """Return the position behind a frame."""
    return frame.position + (frame.size + 1 if frame.size else 0)


def _parse_header(line: bytes) -> Mapping[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
