"""Read Python's tracebacks, also those of groups of exceptions."""

from __future__ import annotations

import re
from collections.abc import Sequence

HEADING = "Traceback (most recent call last):"
FRAME = re.compile(r'^\s*File "(.+)", line (\d+)')
# Frames of the standard library and of packages
INSTALLED = re.compile(r"/lib/python\d|/(?:site|dist)-packages/|^<frozen |/bin/py\.?test$")
SECOND_IN_GROUP = re.compile(r"^ +\+-+ 2 -+$")
_FIRST_IN_GROUP = re.compile(r"^ +\+-\+-+ 1 -+$")
_LEVEL_OF_GROUP = re.compile(r"^ +\| ")  # exceptions of a group are indented behind a line


class Traceback:
    """What was read of a traceback, line by line. `frames`: path and line of each, the innermost one last."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, int]] = []
        self._raised: dict[int, str] = {}  # by column: a group comes before its first exception
        self._in_frame = False

    @property
    def message(self) -> str:
        """The first line of the exception's text, behind those of the groups that it is in."""
        return ": ".join(self._raised.values())

    def read_line(self, line: str) -> None:
        """Read the next line, which may also be of something else."""
        group = _LEVEL_OF_GROUP.match(line)
        level = group.end() if group else 0
        text = line[level:]
        if frame := FRAME.match(text):
            self.frames.append((frame[1], int(frame[2])))
            self._in_frame = True
        elif _FIRST_IN_GROUP.match(line):
            self._in_frame = True
        elif self._in_frame and text and not text.startswith((" ", HEADING)):
            self._raised = {other: told for other, told in self._raised.items() if other < level} | {level: text}
            self._in_frame = False


def read_traceback(lines: Sequence[str]) -> tuple[str | None, int | None, str]:
    """Return path and line of a frame, and the first line of the exception's text.

    The frame is the innermost one outside of the standard library and of installed packages, if there is one.
    """
    traceback = Traceback()
    for line in lines:
        if SECOND_IN_GROUP.match(line):
            break
        traceback.read_line(line)
    paths = [path for path, _ in traceback.frames]
    own = [place for place in traceback.frames if not INSTALLED.search(place[0]) and not _is_script(place[0], paths)]
    path, number = next(reversed(own or traceback.frames), (None, None))
    return path, number, traceback.message


def _is_script(path: str, others: Sequence[str]) -> bool:
    """Return whether a path is that of an installed command, beside whose folder a package in the traceback lies."""
    environment, found, _ = path.rpartition("/bin/")
    return bool(found) and any(other.startswith(f"{environment}/lib/python") for other in others)
