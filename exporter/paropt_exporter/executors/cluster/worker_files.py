"""Find the files that a task has made on a worker's host: its outputs, its report, its whole output."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from paropt_exporter.executors.cluster.messages import RemoteFile
from paropt_exporter.input_files import InputPatterns

INLINE_BYTES = 256 << 10  # a file up to this size travels in the reply
_CLOCK_TICK_SECONDS = 0.02  # times of files are as coarse as the kernel's clock
MOST_OUTPUTS = 10_000


def find_outputs(root: str, patterns: Sequence[str], since_seconds: float) -> tuple[RemoteFile, ...]:
    """Return the regular files that match the patterns and changed since a moment of the wall clock."""
    if not patterns:
        return ()
    since = since_seconds - _CLOCK_TICK_SECONDS
    found = [
        (name, stat.S_IMODE(status.st_mode))
        for name, status in InputPatterns(tuple(patterns)).find_files(root)
        if stat.S_ISREG(status.st_mode) and status.st_mtime >= since
    ]
    return tuple(read_small(Path(root) / name, name=name, mode=mode) for name, mode in found[:MOST_OUTPUTS])


def read_small(path: Path, *, name: str = "", mode: int = 0o600) -> RemoteFile:
    """Return a file, with its content if it is small. Raises OSError."""
    with path.open("rb") as file:
        content = file.read(INLINE_BYTES + 1)
    return RemoteFile(str(path), name, mode, content if len(content) <= INLINE_BYTES else None)


def take_temporary(path: Path | None) -> RemoteFile | None:
    """Return a temporary file, and remove it if the reply carries it; None if there is none."""
    if path is None:
        return None
    try:
        taken = read_small(path)
    except OSError:
        return None
    if taken.content is not None:
        path.unlink(missing_ok=True)
    return taken
