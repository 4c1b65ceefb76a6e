"""Open only regular files: never wait for a pipe, and never follow a link that was planted in a private folder.

A path in the config may have become a pipe or a device: opening a pipe waits for its writer, and a device may have no
end. A checkout may contain a `.paropt` folder: below a folder of that name the program follows no links and truncates
no files. It uses a file as it is, or replaces it by renaming.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

OWN_FOLDER = ".paropt"
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700  # the output of stages may contain secrets
_MAX_DEPTH = 2  # levels below it, such as `.paropt/runs/ID.lock`; a whole project may be in a folder of that name
_LONGEST_SOCKET_BYTES = 107  # of the address of a socket
_FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEFAULT_FILE = 0o666  # minus the umask, as for any file that a program writes
_LOCK_TRIES = 5  # to open a lock file
_NO_HOME = Path("/nonexistent")  # as Debian writes it for users without a home folder


class UnexpectedFileType(OSError):
    """A link, pipe, device or folder is in the place of a regular file or a folder of this program."""


def find_cache_folder(environ: Mapping[str, str]) -> Path:
    """Return this program's folder in the user's cache folder: $XDG_CACHE_HOME, otherwise .cache in the home folder.

    Relative paths are ignored, as in the XDG specification. A user without a home folder gets a path that can't be
    made.
    """
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = find_home(environ) / ".cache"
    return base / "paropt-exporter"


def find_home(environ: Mapping[str, str]) -> Path:
    """Return the home folder: $HOME, or the one in the user's entry if $HOME is not set or not absolute."""
    home = Path(environ.get("HOME", ""))
    if home.is_absolute():
        return home
    import pwd  # here: nearly every environment has HOME

    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:  # the user of a container may have no entry
        return _NO_HOME


# Path's methods of these names raise PermissionError for a path in a folder that this user may not enter, such as the
# data of a container in a checkout, and OSError for a name that is too long.
def exists(path: Path) -> bool:
    """Return whether something is there, as far as this user can see."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Return whether a regular file is there, as far as this user can see."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Return whether a folder is there, as far as this user can see."""
    return os.path.isdir(path)  # noqa: PTH112


def find_denied_listing(folder: Path) -> str:
    """Return the error's text if this user may not list a folder; "" if they may, or if it does not exist."""
    try:
        os.scandir(folder).close()
    except PermissionError as error:
        return os.strerror(error.errno or errno.EACCES)
    except OSError:
        return ""
    return ""


def open_regular(path: Path, flags: int = os.O_RDONLY, *, follow_links: bool = False) -> int:
    """Return a descriptor of a regular file; never block, never truncate.

    Raises UnexpectedFileType for any other type, otherwise OSError as `os.open` does.
    """
    # O_NONBLOCK: open returns at once, whatever is at the path now; it makes no difference for regular files.
    flags |= os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        if follow_links or not find_private_parts(path.parent):
            descriptor = os.open(path, flags, PRIVATE_FILE)
        else:
            descriptor = _open_in_folder(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise _unexpected(path, "a link, which is not followed here") from None
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise _unexpected(path, "not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _unexpected(path, "not a regular file")
    return descriptor


def _open_in_folder(path: Path, flags: int) -> int:
    folder = _open_folder(path.parent)
    try:
        return os.open(path.name, flags, PRIVATE_FILE, dir_fd=folder)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(folder)


def open_for_reading(path: Path, *, follow_links: bool = True) -> BinaryIO:
    """Open a regular file for reading and return at once; raises as `open_regular` does."""
    return os.fdopen(open_regular(path, follow_links=follow_links), "rb")


def read_start(path: Path, *, limit_bytes: int) -> bytes:
    """Return at most the first `limit_bytes` of a regular file; raises as `open_regular` does."""
    with open_for_reading(path) as file:
        return file.read(limit_bytes)


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a file. Raises UnexpectedFileType, also for a link in `.paropt`, and EFBIG if too large."""
    check_no_links(path)
    with open_for_reading(path, follow_links=not find_private_parts(path)) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes", str(path))
    return content


def check_regular(path: Path) -> None:
    """Raise UnexpectedFileType unless the path names a regular file; for libraries that open it themselves."""
    open_for_reading(path).close()


def find_private_parts(path: Path) -> tuple[Path, ...]:
    """Return the folders of a path from `.paropt` on, outermost first; empty if there is no folder of that name."""
    inner = []
    for part in (path, *path.parents[:_MAX_DEPTH]):
        inner.append(part)
        if part.name == OWN_FOLDER:
            return tuple(reversed(inner))
    return ()


def find_beside(history: Path, name: str) -> Path:
    """Return the place of a file or folder that belongs to a history: `.paropt/NAME`, or `HISTORY.NAME` beside a
    history elsewhere, where a `NAME` may be the user's.
    """
    return history.with_name(name if history.parent.name == OWN_FOLDER else f"{history.name}.{name}")


def check_no_links(path: Path) -> None:
    """Raise UnexpectedFileType if the path leads through a link in `.paropt`, or if `.paropt` is one."""
    for part in find_private_parts(path):
        if part.is_symlink():
            raise _unexpected(part, "a link, which is not followed here")


def has_regular_file(path: Path) -> bool:
    """Return whether a regular file is there; raises UnexpectedFileType for anything else there."""
    check_no_links(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        raise _unexpected(path, "not a regular file")
    return True


def make_folder(folder: Path) -> None:
    """Make a folder. `.paropt` and folders in it, even existing ones, are closed to other users."""
    check_no_links(folder)
    private = find_private_parts(folder)
    if not private:
        folder.mkdir(parents=True, exist_ok=True)
        return
    private[0].parent.mkdir(parents=True, exist_ok=True)
    os.close(_open_folder(folder, makes_private=True))


def _open_folder(folder: Path, *, makes_private: bool = False) -> int:
    """Return a descriptor of a folder; another user may put a link in the place of `.paropt` at any moment.

    `makes_private`: make `.paropt` and folders in it, and close them to other users. Raises UnexpectedFileType for a
    link in the place of one of them, otherwise OSError.
    """
    private = find_private_parts(folder)
    descriptor = os.open(private[0].parent if private else folder, _FOLDER_FLAGS)
    for part in private:
        try:
            if makes_private:
                with suppress(FileExistsError):
                    os.mkdir(part.name, PRIVATE_FOLDER, dir_fd=descriptor)
            inner = os.open(part.name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=descriptor)
        except OSError as error:
            if error.errno == errno.ENOTDIR and part.is_symlink():
                raise _unexpected(part, "a link, which is not followed here") from None
            error.filename = str(part)
            raise
        finally:
            os.close(descriptor)
        descriptor = inner
        if makes_private:
            with suppress(OSError):  # it belongs to another user
                _restrict(descriptor, PRIVATE_FOLDER)
    return descriptor


def make_private_folders(*folders: Path) -> None:
    """Make nested folders that are closed to other users, whatever the umask; existing ones are kept.

    The parent of the first one is made in the same way.
    """
    folders[0].parent.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)  # as XDG asks for ~/.cache
    for folder in folders:
        folder.mkdir(PRIVATE_FOLDER, exist_ok=True)


def make_private(path: Path) -> None:
    """Remove other users' permissions from a file, unless it has a second name (a hard link).

    Its descriptor is an O_PATH one: to open and close a database itself here would drop the locks that SQLite holds on
    it in this process.
    """
    with suppress(OSError):  # it does not exist, or belongs to another user
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _restrict(descriptor, PRIVATE_FILE)
        finally:
            os.close(descriptor)


def _restrict(descriptor: int, mode: int) -> None:
    """Do what `make_private` does for a descriptor, which no other user can lead elsewhere. Raises OSError."""
    found = os.fstat(descriptor)
    has_second_name = stat.S_ISREG(found.st_mode) and found.st_nlink > 1
    if not stat.S_ISLNK(found.st_mode) and not has_second_name and found.st_mode & ~mode & 0o777:
        os.chmod(f"/proc/self/fd/{descriptor}", found.st_mode & mode)  # noqa: PTH101 -- the descriptor is no open file


def create_private(path: Path) -> None:
    """Make an empty file that only this user may read, unless something is there already."""
    with suppress(FileExistsError):
        os.mknod(path, stat.S_IFREG | PRIVATE_FILE)  # no descriptor: see make_private


def open_lock(path: Path) -> int:
    """Return a descriptor of a lock file, and create the file if it is missing."""
    check_no_links(path.parent)
    return open_regular(path, os.O_RDWR | os.O_CREAT)


def create_lock(path: Path) -> int:
    """Return a descriptor of a lock file; create the file and its folder if they are missing.

    Another process may be removing the folder, which takes milliseconds.
    """
    for tries_left in reversed(range(_LOCK_TRIES)):
        make_folder(path.parent)
        try:
            return open_lock(path)
        except FileNotFoundError:
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def replace_file(path: Path, content: bytes, *, mode: int | None = None, sync: bool = False) -> None:
    """Write a file by renaming: a full disk leaves no partial file, and a link in its place is replaced, not followed.

    `mode`: exactly these permissions; None: the default ones under the umask. `sync`: wait for the disk before the
    file is renamed, so that a power failure can't leave the new name with no content.
    """
    check_no_links(path.parent)
    folder = _open_folder(path.parent)
    temporary = f".{path.name}.{os.urandom(4).hex()}"
    try:
        descriptor = os.open(temporary, NEW_FILE_FLAGS, mode or _DEFAULT_FILE, dir_fd=folder)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 -- a descriptor, no path
                if mode is not None:
                    os.fchmod(descriptor, mode)
                file.write(content)
                if sync:
                    file.flush()
                    os.fsync(descriptor)
            os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:  # leave no temporary file behind; raised again
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
    except OSError as error:
        error.filename = str(path)
        del error.filename2  # of a rename; if it were set to None, messages would end in "-> None"
        raise
    finally:
        os.close(folder)


def iter_sockets(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield the sockets in a private folder, sorted by name, without links and other files.

    Raises OSError if the folder can't be read; yields nothing if it is missing.
    """
    try:
        check_no_links(folder)
        found = sorted(path for path in folder.iterdir() if path.name.endswith(suffix))
    except (FileNotFoundError, NotADirectoryError, UnexpectedFileType):
        return
    for path in found:
        with suppress(FileNotFoundError):  # its exporter has just ended
            if stat.S_ISSOCK(path.lstat().st_mode):
                yield path


@contextmanager
def shorten_socket_path(path: Path) -> Iterator[str]:
    """Provide a path to a socket in a folder of any depth that is short enough for an address."""
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _unexpected(path: Path, found: str) -> UnexpectedFileType:
    return UnexpectedFileType(errno.EINVAL, found, str(path))
