"""Find the files that a task has made on a worker's host: its outputs, its report, its whole output."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from paropt_exporter.executors.cluster.messages import RemoteFile

INLINE_BYTES = 256 << 10  # a file up to this size travels in the reply
_CLOCK_TICK_SECONDS = 0.02  # times of files are as coarse as the kernel's clock
MOST_OUTPUTS = 10_000


def find_outputs(root: str, patterns: Iterable[str], since_seconds: float) -> tuple[RemoteFile, ...]:
    """Return the regular files that match a pattern and changed since a moment of the wall clock."""
    found: dict[str, RemoteFile] = {}
    for pattern in patterns:
        names = glob.iglob(pattern, root_dir=root, recursive=True, include_hidden=True)  # noqa: PTH207 -- names
        for name in names:
            path = Path(root) / name
            try:
                status = os.lstat(path)
            except OSError:
                continue
            recent = status.st_mtime >= since_seconds - _CLOCK_TICK_SECONDS
            if stat.S_ISREG(status.st_mode) and recent and len(found) < MOST_OUTPUTS:
                found[name] = read_small(path, name=name, mode=stat.S_IMODE(status.st_mode))
    return tuple(found.values())


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
