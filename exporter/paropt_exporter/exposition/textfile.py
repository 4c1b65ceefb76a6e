"""Leave a page where node_exporter's textfile collector finds it."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from paropt_exporter import catalogue
from paropt_exporter.errors import DeliveryError, UsageError

_MODE = 0o644  # node_exporter is another user, and a umask of 077 must not shut it out
_LAST_SUCCESS = catalogue.RUN_LAST_SUCCESS.name.encode()


def path_for(folder: Path, *, project: str, lane: str) -> Path:
    """Return where a lane's page goes: a file for each lane, so that none overwrites another's.

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
    return folder / f"paropt_{quote(project, safe='')}_{quote(lane, safe='')}.prom"


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
    with tempfile.NamedTemporaryFile(prefix=".paropt-", suffix=".tmp", dir=path.parent, delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(page)
            file.flush()
            os.fchmod(file.fileno(), _MODE)
            os.fsync(file.fileno())  # else a power cut can leave the new name with no content
            temporary.replace(path)
        except BaseException:  # nothing may leave the temporary file behind; raised again
            with suppress(OSError):
                temporary.unlink()
            raise


def _known_success(path: Path) -> bytes:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return b""
    return b"".join(line for line in lines if _LAST_SUCCESS in line)
