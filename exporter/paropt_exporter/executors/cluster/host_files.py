"""The files on a worker's host: a copy of the project, at the state of a snapshot, and those that tasks make."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from time import time

from paropt_exporter.errors import to_one_line
from paropt_exporter.executors.cluster.messages import RemoteFile
from paropt_exporter.executors.cluster.settings import ClusterError
from paropt_exporter.executors.cluster.snapshot import INDEX_LOCK, keep_contents, run_git
from paropt_exporter.input_files import FoundFile, InputPatterns

_MOST_TREES = 100  # of one project on one host: each coordinator that runs at the same time has its own
_OPTIONS = ("-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false", "-c", "gc.auto=0")
INLINE_BYTES = 256 << 10  # a file up to this size travels in the reply
MOST_INLINE_BYTES = 64 << 20  # of all files in a reply: further ones are fetched, one after another
_CLOCK_TICK_SECONDS = 0.02  # times of files are as coarse as the kernel's clock
MOST_OUTPUTS = 10_000
_LIST_ATTEMPTS = 10  # while files vanish


class HostTree:
    """One copy, locked while a worker of its session uses it.

    <folder>/<project>/<n>/lock     shared lock: in use by the session whose name is in it
                          /git      objects and index
                          /files    the files
    """

    def __init__(self, folder: Path, project: str, session: str) -> None:
        """Find the copy of the session, or a free one. Raises OSError."""
        for number in range(_MOST_TREES):
            self.place = _make_private(folder, f"{project}-{number}")
            lock = _lock(self.place, session)
            if lock is not None:
                self._lock = lock
                break
        else:
            raise OSError(f"all {_MOST_TREES} copies of the files in {folder} are in use")
        self.files = self.place / "files"
        self._git_dir = self.place / "git"
        self._restored = ""  # the snapshot that the files are known to be

    def read_commit(self) -> str:
        """Return the snapshot that the copy has; "" for none."""
        try:
            return (self.place / "commit").read_text()
        except OSError:
            return ""

    def restore(self) -> None:
        """Undo tasks' changes of the files, while the coordinator takes its snapshot.

        Only the differences from the last snapshot are then left to send. Raises OSError with git's message.
        """
        commit = self.read_commit()
        if commit:
            self._check_out(commit)
            self._restored = commit

    def install(self, pack: Path, commit: str) -> None:
        """Add the objects and check the snapshot out. Unchanged files keep their times; ignored ones stay.

        Raises OSError with git's message.
        """
        restored, self._restored = self._restored, ""
        with contextlib.suppress(FileNotFoundError):
            (self.place / "commit").unlink()  # until it is complete
        self.files.mkdir(exist_ok=True)
        if not (self._git_dir / "HEAD").is_file():
            self._git("init", "--quiet", "--bare", str(self._git_dir), bare=True)
            keep_contents(self._git_dir)
        self._git("index-pack", "--fix-thin", "--stdin", stdin=pack.read_bytes())
        if restored:
            self._git("read-tree", "--reset", "-u", restored, commit)  # reads no file that is the same in both
        else:
            self._check_out(commit)
        (self.place / "commit").write_text(commit)

    def read_clock(self) -> float:
        """Return the time by which files of the copy are dated: a file server has its own clock."""
        try:
            with TemporaryFile(dir=self.place) as probe:
                return os.fstat(probe.fileno()).st_ctime
        except OSError:  # no output could be written either
            return time()

    def close(self) -> None:
        """Release the copy; the last worker of the session frees it for others."""
        os.close(self._lock)

    def _check_out(self, commit: str) -> None:
        self._git("read-tree", "--reset", "-u", commit)
        self._git("clean", "-f", "-f", "-d", "-q")  # twice, to remove repositories that tasks made, too

    def _git(self, *words: str, stdin: bytes = b"", bare: bool = False) -> None:
        where = () if bare else ("--git-dir", str(self._git_dir), "--work-tree", str(self.files))
        done = run_git(*_OPTIONS, *where, *words, cwd=self.files, stdin=stdin, lock=self._lock)
        if done.returncode:
            raise OSError(f"git {words[0]}: {to_one_line(done.stderr.decode('utf-8', 'replace'))}")


def make_scratch(folder: Path) -> None:
    """Make the folder of all copies. Raises OSError, and ClusterError if another user could replace files in it.

    Dask uses a folder in /tmp that is there already, whichever user made it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for place in (folder.parent, folder):
        found = place.stat()
        is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if is_open or {found.st_uid, place.lstat().st_uid} - {0, os.getuid()}:
            raise ClusterError(
                f"another user could replace files in {place}: remove it, or set Dask's temporary-directory "
                "(DASK_TEMPORARY_DIRECTORY) to a folder of yours"
            )


def _make_private(folder: Path, name: str) -> Path:
    """Make a folder that no other user can write to. Raises OSError if there is one of somebody else."""
    made = folder / name
    made.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = os.lstat(made)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise OSError(f"{made} belongs to someone else")
    return made


def _lock(place: Path, session: str) -> int | None:
    """Lock a copy for a session that has it already or that finds it free; None: another session has it."""
    descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (place / "git" / INDEX_LOCK).unlink(missing_ok=True)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, session.encode(), 0)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # blocks only while another worker writes the name of its session, as above
    if os.pread(descriptor, 100, 0).decode() == session:
        return descriptor
    os.close(descriptor)
    return None


def find_outputs(root: str, patterns: Sequence[str], since_seconds: float) -> tuple[RemoteFile, ...]:
    """Return the regular files that match the patterns and changed since a moment of their file system's clock.

    Raises OSError if there are more than MOST_OUTPUTS.
    """
    if not patterns:
        return ()
    since = since_seconds - _CLOCK_TICK_SECONDS
    found = [
        (name, stat.S_IMODE(status.st_mode))
        for name, status in _list_files(root, patterns)
        if stat.S_ISREG(status.st_mode) and status.st_ctime >= since  # not st_mtime: a task may give a file any date
    ]
    if len(found) > MOST_OUTPUTS:
        raise OSError(f"its outputs are {len(found):,} files, more than {MOST_OUTPUTS:,}: name fewer, or pack them")
    read, room_bytes = [], MOST_INLINE_BYTES
    for name, mode in found:
        with contextlib.suppress(FileNotFoundError):  # another task has removed it
            file = read_small(Path(root) / name, name=name, mode=mode, most_bytes=min(INLINE_BYTES, room_bytes))
            room_bytes -= len(file.content or b"")
            read.append(file)
    return tuple(read)


def _list_files(root: str, patterns: Sequence[str]) -> list[FoundFile]:
    """Return the files that match; again if another task has removed one meanwhile. Raises OSError."""
    for _ in range(_LIST_ATTEMPTS - 1):
        with contextlib.suppress(FileNotFoundError):
            return InputPatterns(tuple(patterns)).find_files(root)
    return InputPatterns(tuple(patterns)).find_files(root)


def read_small(path: Path, *, name: str = "", mode: int = 0o600, most_bytes: int = INLINE_BYTES) -> RemoteFile:
    """Return a file, with its content if it has at most `most_bytes`. Raises OSError."""
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    return RemoteFile(str(path), name, mode, content if len(content) <= most_bytes else None)


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
