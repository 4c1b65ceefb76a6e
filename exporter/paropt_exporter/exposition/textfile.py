"""Write a page for node_exporter's textfile collector."""

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

_MODE = 0o644  # node_exporter runs as another user; it must be able to read the file under a umask of 077 too
_PREFIX, _SUFFIX = ".paropt-", ".tmp"
_ABANDONED_SECONDS = 60.0  # writing a page takes far less
_LARGEST_FILE_BYTES = 256 << 20  # twice a page of 10,000 stages
_LONGEST_LINE_BYTES = 1 << 16
_MOST_KNOWN_LINES = 10  # HELP, TYPE and one sample: each lane has its own file
_LAST_SUCCESS = families.RUN_LAST_SUCCESS.name.encode()


def build_path(folder: Path, *, project: str, lane: str) -> Path:
    """Return the path of a lane's page; each lane has its own file.

    The path is absolute, since a Python call of a stage may change the current folder.

    Raises UsageError, before the run, if the folder is missing or not writable.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"--textfile {folder}: cannot write a file there: {error.strerror}: "
            "give the folder of node_exporter's --collector.textfile.directory, and let this user write to it"
        ) from None
    return folder.absolute() / f"paropt_{quote(project, safe='')}_{quote(lane, safe='')}.prom"


def write_page(path: Path, page: bytes) -> None:
    """Replace the file by the page, in text format, in one step; raises DeliveryError and keeps the old file.

    If the page has no time of the lane's last success, since its history was deleted, the one in the file is kept.
    """
    try:
        _replace_file(path, page if _LAST_SUCCESS in page else page + _read_known_success(path))
    except OSError as error:
        raise DeliveryError(
            f"cannot write {path}: {error.strerror}: check the folder's space and permissions"
        ) from None


def _replace_file(path: Path, page: bytes) -> None:
    # In the same folder, since a rename can't cross file systems; not *.prom, or node_exporter would read half a page.
    with tempfile.NamedTemporaryFile(prefix=_PREFIX, suffix=_SUFFIX, dir=path.parent, delete=False) as file:
        temporary = Path(file.name)
        try:
            with suppress(OSError):  # a file system without locks: there, abandoned files are not removed
                _lock_file(file.fileno())  # marks the file as being written
            _remove_abandoned(path.parent, before_seconds=os.fstat(file.fileno()).st_mtime - _ABANDONED_SECONDS)
            file.write(page)
            file.flush()
            os.fchmod(file.fileno(), _MODE)
            os.fsync(file.fileno())  # otherwise a power failure can leave the new name with no content
            temporary.replace(path)
        except BaseException:  # remove the temporary file whatever happened, then raise again
            with suppress(OSError):
                temporary.unlink()
            raise


def _remove_abandoned(folder: Path, *, before_seconds: float) -> None:
    """Remove temporary files of exporters that were killed while writing.

    These belong to this user, were last written before `before_seconds` of the file system's clock, and are unlocked.
    """
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError), files.open_for_reading(path, follow_links=False) as file:
            status = os.fstat(file.fileno())
            if status.st_uid == os.geteuid() and status.st_mtime < before_seconds:
                _lock_file(file.fileno())
                path.unlink()


def _lock_file(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_known_success(path: Path) -> bytes:
    """Return the file's lines about the last success; none if it is missing or not a regular file."""
    try:
        with files.open_for_reading(path, follow_links=False) as file:
            known = (line for line in _iter_lines(file) if _LAST_SUCCESS in line)
            return b"".join(islice(known, _MOST_KNOWN_LINES))
    except (FileNotFoundError, files.UnexpectedFileType):
        return b""


def _iter_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the file's lines up to _LARGEST_FILE_BYTES, without those that are too long for a page of ours."""
    read_bytes, begins = 0, True
    while read_bytes < _LARGEST_FILE_BYTES and (line := file.readline(_LONGEST_LINE_BYTES)):
        ends = line.endswith(b"\n")
        if begins and ends:
            yield line
        read_bytes, begins = read_bytes + len(line), ends
