"""Read files that somebody else may have replaced: regular files only, never waiting, up to a bound."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotRegular(OSError):
    """The path names a pipe, a device, a folder or a socket, or a link where links are not followed."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file")


def open_for_reading(path: Path, *, follow_links: bool = True) -> BinaryIO:
    """Open a file for reading and return at once.

    Raises NotRegular for anything but a regular file: opening a pipe would wait for its writer, and a device may have
    no end. Raises OSError as `open` does.
    """
    # O_NONBLOCK: whatever the path names by now, the open returns; it changes nothing for a regular file.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        # ELOOP: a link that must not be followed. ENXIO: a socket, or a device without a driver.
        raise (NotRegular() if error.errno in (errno.ELOOP, errno.ENXIO) else error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular
    return os.fdopen(descriptor, "rb")


def read(path: Path, *, limit_bytes: int) -> bytes:
    """Return at most `limit_bytes` of a regular file; raises as `open_for_reading` does."""
    with open_for_reading(path) as file:
        return file.read(limit_bytes)


def require(path: Path) -> None:
    """Raise NotRegular unless the path names a regular file; for libraries that open it themselves."""
    open_for_reading(path).close()
