"""Find and read the logs of runs: their attempts, the output of each, and output that is added while reading.

A log has lines of JSON, some of which announce bytes of output that follow:

    {"run": "20261128T…", "lane": "standard"}
    {"begin": 1, "stage": "unit", "task": 3, "label": "unit[3]", "item": "test_a.py", "attempt": 1}
    {"of": 1, "bytes": 6}
    hello
    {"of": 1, "missing": 90000}                    the log was full: so many bytes are left out here
    {"end": 1, "result": "failure", "message": "exit 1", "seconds": 1.25}
    {"over": "failure"}

The frames of concurrent attempts are interleaved in the order in which output arrived. If a process was killed or the
disk was full, the last frame may be incomplete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct, field

from paropt_exporter import files
from paropt_exporter.events import Result
from paropt_exporter.task_logs.log_writer import SUFFIX, scan_logs

DAMAGE_ERRORS = (ValueError, TypeError, OverflowError)  # of reading a log with values that no exporter wrote
_LONGEST_HEADER = 1 << 20  # characters: an item's name may be as long as a command line


class LoggedAttempt(Struct):
    """An attempt as far as the log has it; `result` is None if it has not ended there.

    `pieces`: position and size of its output in the file; a position of -1 stands for bytes that are missing there.
    """

    stage: str
    task: int
    label: str
    item: str | None
    number: int
    result: Result | None = None
    message: str = ""
    seconds: float = 0.0
    pieces: list[tuple[int, int]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return self.result is not None and self.result.bad


class LogReader:
    """One pass over a log that may still grow: `read` continues where it stopped."""

    def __init__(self, file: BinaryIO) -> None:
        self.attempts: dict[int, LoggedAttempt] = {}
        self.over = False
        self.lane = ""
        self._file = file
        self._position = 0

    def read(self) -> Iterator[tuple[LoggedAttempt, int, int]]:
        """Yield each new piece of output with its attempt, as position and size; apply all other frames."""
        for frame in read_frames(self._file, self._position):
            self._position = find_end(frame)
            if piece := self._note_frame(frame):
                yield piece

    def read_all(self) -> list[LoggedAttempt]:
        """Read all complete frames; return the attempts in the order in which they began to print or ended."""
        for _ in self.read():
            pass
        return list(self.attempts.values())

    def read_piece(self, position: int, size: int) -> bytes:
        """Return a piece of output."""
        if position < 0:
            return f"\n[{size} bytes are left out here: the log of the run was full]\n".encode()
        self._file.seek(position)
        return self._file.read(size)

    def read_output(self, attempt: LoggedAttempt) -> bytes:
        """Return all of an attempt's output that the log has."""
        return b"".join(self.read_piece(position, size) for position, size in attempt.pieces)

    def _note_frame(self, frame: Frame) -> tuple[LoggedAttempt, int, int] | None:
        values = frame.values
        if "begin" in values:
            self.attempts[values["begin"]] = LoggedAttempt(
                stage=str(values.get("stage", "")),
                task=int(values.get("task", 0)),
                label=str(values.get("label", "")),
                item=values.get("item"),
                number=int(values.get("attempt", 1)),
            )
        elif "lane" in values:
            self.lane = str(values["lane"])
        elif "over" in values:
            self.over = True
        elif attempt := self.attempts.get(values.get("end", 0)):
            attempt.result = Result(values.get("result", Result.ERROR))
            attempt.message, attempt.seconds = str(values.get("message", "")), float(values.get("seconds", 0.0))
        elif attempt := self.attempts.get(values.get("of", 0)):
            position, size = (frame.position, frame.size) if frame.size else (-1, int(values.get("missing", 0)))
            attempt.pieces.append((position, size))
            return attempt, position, size
        return None


def list_runs(folder: Path) -> list[str]:
    """Return the ids of the runs that have a log, oldest first; none if there is no folder."""
    return [run_id for run_id, _ in scan_logs(folder)]


def open_log(folder: Path, run_id: str) -> BinaryIO:
    """Open the log of a run for reading. Raises OSError, UnexpectedFileType for a link."""
    files.check_no_links(folder)
    return os.fdopen(files.open_regular(folder / f"{run_id}{SUFFIX}"), "rb")


class Frame(Struct, frozen=True):
    """A header's values and, for output, where its bytes are in the file."""

    values: Mapping[str, Any]  # as parsed from JSON
    position: int = 0
    size: int = 0


def read_frames(file: BinaryIO, position: int = 0) -> Iterator[Frame]:
    """Yield the complete frames from a position of the file on; stop at an incomplete or invalid one."""
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
    """Return the position after a frame."""
    return frame.position + (frame.size + 1 if frame.size else 0)


def _parse_header(line: bytes) -> Mapping[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
