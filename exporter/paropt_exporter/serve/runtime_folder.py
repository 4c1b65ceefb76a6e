"""Find the folder in which `paropt-exporter serve` has its socket, and connect to it or listen there.

The folder belongs to one user, and only that user can write in it. Without such an exporter, a run costs only one
`stat`.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter import files
from paropt_exporter.errors import UsageError

if TYPE_CHECKING:
    import socket

VARIABLE = "PAROPT_SERVE"  # another folder, or OFF
OFF = "off"
SOCKET_NAME = "serve.sock"
_UNREADY_SOCKET_NAME = f"{SOCKET_NAME}.new"
LOCK_NAME = "serve.lock"
PROJECTS_NAME = "projects"
_NAME = "paropt-exporter"
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_PEER_BYTES = 12  # of struct ucred: pid, uid and gid
_BACKLOG = 128


class UnsafeFolder(UsageError):
    """Another user could write in the runtime folder, or it is not a folder."""


def find_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the runtime folder, whether or not it exists; None if the environment turns it off.

    In order: $PAROPT_SERVE, $XDG_RUNTIME_DIR/paropt-exporter, /run/user/UID/paropt-exporter, /tmp/paropt-exporter-UID.
    """
    named = environ.get(VARIABLE)
    if named:
        return None if named == OFF else Path(named)
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    if os.path.isabs(runtime) and os.path.isdir(runtime):  # noqa: PTH112,PTH117 -- on the path of each start
        return Path(runtime, _NAME)
    return Path(f"/tmp/{_NAME}-{os.geteuid()}")  # nosec B108 # its owner and mode are checked


def check_folder(folder: Path) -> None:
    """Raise UnsafeFolder unless the folder is this user's and only this user can write in it."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolder(f"{folder}: not a folder (a link is not followed): move it away, or set {VARIABLE}")
    if found.st_uid != os.geteuid():
        raise UnsafeFolder(
            f"{folder}: belongs to another user (id {found.st_uid}): set {VARIABLE} to a folder of yours"
        )
    if found.st_mode & _OTHERS:
        raise UnsafeFolder(f"{folder}: other users can write in it: chmod go-w {folder}")


def make_folder(folder: Path) -> None:
    """Make the folder for this user only. Raises UnsafeFolder, or UsageError if it can't be made."""
    try:
        for each in (folder, folder / PROJECTS_NAME):
            with suppress(FileExistsError):  # the check below reports anything that is not a folder
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_folder(each)
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror}: set {VARIABLE} to another folder") from error


def has_just_died(folder: Path, grace_seconds: float) -> bool:
    """Return whether a `serve` of this user ran within the last `grace_seconds`, so that it may be back soon."""
    try:
        check_folder(folder)
        touched = (folder / LOCK_NAME).lstat().st_mtime
    except (OSError, UnsafeFolder):
        return False
    # A time in the future dates from before the clock was set back, and means nothing.
    return touched <= time.time() < touched + grace_seconds


def connect(folder: Path, timeout_seconds: float) -> socket.socket | None:
    """Return a connection to this user's exporter, or None if there is none. Raises TimeoutError if it is too busy."""
    path = folder / SOCKET_NAME
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return None
        check_folder(folder)
    except (OSError, UnsafeFolder):
        return None
    return _connect(path, timeout_seconds)


def _connect(path: Path, timeout_seconds: float) -> socket.socket | None:
    import socket  # here, as below: a run without `serve` does not need it

    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Not `settimeout`: with it connect fails at once if the queue is full, as when many runs start together.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _pack_time(timeout_seconds))
        with files.shorten_socket_path(path) as address:
            client.connect(address)
        client.settimeout(timeout_seconds)
        if read_peer_user(client) == os.geteuid():
            return client
    except (TimeoutError, BlockingIOError):  # the queue of its socket is full
        client.close()
        raise TimeoutError("it does not answer") from None
    except OSError:
        pass
    client.close()
    return None


def _pack_time(seconds: float) -> bytes:
    """Return a `struct timeval`."""
    import struct

    whole = int(seconds)
    return struct.pack("@ll", whole, max(1, int((seconds - whole) * 1e6)))


def listen(folder: Path) -> socket.socket:
    """Return the listening socket at its place; the caller holds the folder's lock, so an old one is dead.

    It replaces the old socket atomically: a run that found none would assume that its `serve` has ended, and continue
    alone.
    """
    import socket

    path, unready = folder / SOCKET_NAME, folder / _UNREADY_SOCKET_NAME
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            unready.unlink()
        with files.shorten_socket_path(unready) as address:
            listener.bind(address)
        unready.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        unready.replace(path)
    except OSError as error:
        listener.close()
        raise UsageError(f"{path}: {error.strerror or error}: set {VARIABLE} to another folder") from error
    return listener


def identify_socket(folder: Path) -> tuple[int, int] | None:
    """Return the device and inode of the socket at its place, or None without one."""
    try:
        found = (folder / SOCKET_NAME).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def read_peer_user(connection: socket.socket) -> int:
    """Return the user id of the process at the other end."""
    import socket

    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_BYTES)
    return int.from_bytes(credentials[4:8], sys.byteorder)
