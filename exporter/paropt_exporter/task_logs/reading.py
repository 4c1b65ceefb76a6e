"""Read a run's log: which attempts it has, the output of each, and what still comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from paropt_exporter.events import Result
from paropt_exporter.task_logs.frames import Frame, find_end, read_frames


@dataclass(slots=True)
class LoggedAttempt:
    """An attempt as the log has it so far; `result` None: it has no end there.

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
    """One pass over a log that may still grow: `read` goes on where it stopped."""

    def __init__(self, file: BinaryIO) -> None:
        self.attempts: dict[int, LoggedAttempt] = {}
        self.over = False
        self.lane = ""
        self._file = file
        self._position = 0

    def read(self) -> Iterator[tuple[LoggedAttempt, int, int]]:
        """Yield each new piece of output with its attempt, as position and size; notes all other frames."""
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
        """Return all output of an attempt that the log has."""
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
