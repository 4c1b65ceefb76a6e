"""Leave a page where node_exporter's textfile collector finds it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from paropt_exporter import families, files
from paropt_exporter.errors import DeliveryError, UsageError

_MODE = 0o644  # node_exporter is another user, and a umask of 077 must not shut it out
_PREFIX, _SUFFIX = ".paropt-", ".tmp"
_ABANDONED_SECONDS = 60.0  # a page is written in far less
_LARGEST_FILE_BYTES = 256 << 20  # twice a page of 10,000 stages
_LONGEST_LINE_BYTES = 1 << 16
_MOST_KNOWN_LINES = 10  # a head of two and a sample: each lane has a file of its own
_LAST_SUCCESS = families.RUN_LAST_SUCCESS.name.encode()


def path_for(folder: Path, *, project: str, lane: str) -> Path:
    """Return where a lane's page goes: a file for each lane, so that none overwrites another's.

    The path is absolute, since a call may change the current folder.

    Raises UsageError if the folder is not there or can't be written to: after the run would be too late.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"--textfile {folder}: no file can be written there: {error.strerror}: "
            "name the folder of node_exporter's --collector.textfile.directory, and let this user write to it"
        ) from None
    return folder.absolute() / f"paropt_{quote(project, safe='')}_{quote(lane, safe='')}.prom"


def write(path: Path, page: bytes) -> None:
    """Put the page, in text format, in place of the file in one step; raises DeliveryError, and the old one stays.

    A page that does not know when the lane last succeeded, since its history is gone, keeps what the file knows.
    """
    try:
        _replace(path, page if _LAST_SUCCESS in page else page + _known_success(path))
    except OSError as error:
        raise DeliveryError(
            f"cannot write {path}: {error.strerror}: check the folder's space and permissions"
        ) from None


def _replace(path: Path, page: bytes) -> None:
    # In the same folder, since a rename must not cross file systems; not *.prom, or a half of it would be collected.
    with tempfile.NamedTemporaryFile(prefix=_PREFIX, suffix=_SUFFIX, dir=path.parent, delete=False) as file:
        temporary = Path(file.name)
        try:
            with suppress(OSError):  # a file system without locks; no abandoned file is removed there
                _lock(file.fileno())  # shows that its writer lives
            _remove_abandoned(path.parent, before_seconds=os.fstat(file.fileno()).st_mtime - _ABANDONED_SECONDS)
            file.write(page)
            file.flush()
            os.fchmod(file.fileno(), _MODE)
            os.fsync(file.fileno())  # else a power cut can leave the new name with no content
            temporary.replace(path)
        except BaseException:  # nothing may leave the temporary file behind; raised again
            with suppress(OSError):
                temporary.unlink()
            raise


def _remove_abandoned(folder: Path, *, before_seconds: float) -> None:
    """Remove the temporary files of exporters that were killed while they wrote.

    They are this user's, last written before a moment of the file system's own clock, and not locked by their writer.
    """
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError), files.open_for_reading(path, follow_links=False) as file:
            status = os.fstat(file.fileno())
            if status.st_uid == os.geteuid() and status.st_mtime < before_seconds:
                _lock(file.fileno())
                path.unlink()


def _lock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _known_success(path: Path) -> bytes:
    """Return the lines about the last success; none if there is no file, or something else in its place."""
    try:
        with files.open_for_reading(path, follow_links=False) as file:
            known = (line for line in _lines(file) if _LAST_SUCCESS in line)
            return b"".join(islice(known, _MOST_KNOWN_LINES))
    except (FileNotFoundError, files.UnexpectedFileType):
        return b""


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the file's lines, those that are too long for a page of ours left out, up to a bound on the whole."""
    read_bytes, begins = 0, True
    while read_bytes < _LARGEST_FILE_BYTES and (line := file.readline(_LONGEST_LINE_BYTES)):
        ends = line.endswith(b"\n")
        if begins and ends:
            yield line
        read_bytes, begins = read_bytes + len(line), ends
