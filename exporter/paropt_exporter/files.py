"""Open and write the files that this program keeps for itself, without following a link that somebody left there.

A checkout may come with a `.paropt` of its own. Below a folder of that name no link is followed and no pipe is
waited for, and nothing is truncated: a file is either used as it is or replaced by renaming.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

OWN_FOLDER = ".paropt"
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700  # stages' output may hold secrets
_DEEPEST = 2  # levels below it: `.paropt/runs/ID.lock`; a whole project may lie in a folder of that name
_READABLE = 0o666  # less the umask, as for any file that a program writes


class NotOurs(OSError):
    """A link, a pipe, a device or a folder stands where a file or folder of ours should be."""


def own_parts(path: Path) -> tuple[Path, ...]:
    """Return the parts of a path from `.paropt` on, the outermost first; none if it lies in no such folder."""
    inner = []
    for part in (path, *path.parents[:_DEEPEST]):
        inner.append(part)
        if part.name == OWN_FOLDER:
            return tuple(reversed(inner))
    return ()


def require_unlinked(path: Path) -> None:
    """Raise NotOurs if the path leads through a link that stands in `.paropt`, or if `.paropt` is one."""
    for part in own_parts(path):
        if part.is_symlink():
            raise _not_ours(part, "a link, which is not followed here")


def make_folder(folder: Path) -> None:
    """Make a folder, closed to others if it is `.paropt` or lies in it; an existing one of ours is closed too."""
    require_unlinked(folder)
    own = own_parts(folder)
    if not own:
        folder.mkdir(parents=True, exist_ok=True)
        return
    own[0].parent.mkdir(parents=True, exist_ok=True)
    for part in own:
        part.mkdir(PRIVATE_FOLDER, exist_ok=True)
        make_private(part, PRIVATE_FOLDER)


def make_private(path: Path, mode: int = PRIVATE_FILE) -> None:
    """Take others' permissions from a file or folder of ours; not from one with a second name (a hard link).

    By its path: to open and close a database here would drop the locks that SQLite holds on it in this process.
    """
    with suppress(OSError):  # it is not there, or belongs to another user
        found = path.lstat()
        second_name = stat.S_ISREG(found.st_mode) and found.st_nlink > 1
        if not stat.S_ISLNK(found.st_mode) and not second_name and found.st_mode & ~mode & 0o777:
            path.chmod(found.st_mode & mode)


def is_regular(path: Path) -> bool:
    """Return whether a file is there; raises NotOurs for anything else, and for a link in `.paropt`."""
    require_unlinked(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        raise _not_ours(path, "not a file")
    return True


def create_private(path: Path) -> None:
    """Make an empty file that only this user may read, unless something is there already."""
    with suppress(FileExistsError):
        os.mknod(path, stat.S_IFREG | PRIVATE_FILE)  # no descriptor: see make_private


def open_file(path: Path, flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """Return a descriptor of a regular file; never blocks, never truncates. Raises OSError, NotOurs for other kinds."""
    no_follow = 0 if follow else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | no_follow | os.O_NONBLOCK | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_ours(path, "a link, which is not followed here") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_ours(path, "not a file")
    return descriptor


def open_lock(path: Path) -> int:
    """Return a descriptor of a file to lock, which is made if need be."""
    require_unlinked(path.parent)
    return open_file(path, os.O_RDWR | os.O_CREAT)


def read(path: Path, most_bytes: int) -> bytes:
    """Return a file's content. Raises NotOurs for a link in `.paropt`, a pipe or a device, and if it is larger."""
    require_unlinked(path)
    with open(open_file(path, follow=not own_parts(path)), "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes:,} bytes", str(path))
    return content


def replace(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file by renaming: a full disk leaves no half of it, and a link in its place is replaced, not followed.

    `mode`: exactly these permissions; None: those that the umask leaves.
    """
    require_unlinked(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode or _READABLE
    )
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 -- a descriptor, no path
            if mode is not None:
                os.fchmod(descriptor, mode)
            file.write(content)
        temporary.replace(path)
    except BaseException:  # nothing may leave the temporary file behind; raised again
        temporary.unlink(missing_ok=True)
        raise


def sockets(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield the sockets in a folder of ours, in order; links and other files are left out."""
    with suppress(NotOurs):
        require_unlinked(folder)
        yield from (path for path in sorted(folder.glob(f"*{suffix}")) if stat.S_ISSOCK(path.lstat().st_mode))


def _not_ours(path: Path, what: str) -> NotOurs:
    return NotOurs(errno.EINVAL, what, str(path))
