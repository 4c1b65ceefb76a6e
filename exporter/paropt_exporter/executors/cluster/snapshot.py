"""Take a snapshot of the project's files as git objects, in a repository of our own: the user's stays untouched."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from msgspec import Struct

from paropt_exporter import files
from paropt_exporter.environment import copy_environment
from paropt_exporter.errors import to_one_line
from paropt_exporter.executors.cluster.settings import ClusterError
from paropt_exporter.git import SAFE_SETTINGS

_ADD_ATTEMPTS = 10  # while files change under git
_CHANGED = ("unable to stat", "short read", "No such file or directory")  # git's messages of files that change
_MOST_PLACES = 100  # of one project: each exporter that runs at the same time has its own
_MOST_LOOSE_OBJECTS = 200  # in one of git's 256 folders; then the repository starts again
_SUBMODULE_MODE = "160000"
_UNREAD = "1" * 40  # the object of no file: git reads a file whose object is another one
INDEX_LOCK = "index.lock"  # a git that was killed leaves it, and no later one works until it is removed
_IDENTITY = ("-c", "user.name=paropt", "-c", "user.email=paropt@localhost", "-c", "commit.gpgSign=false")
_QUIET = tuple(
    word
    for setting in ("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "core.autocrlf=false")
    for word in ("-c", setting)
)


class Snapshot(Struct, frozen=True, kw_only=True):
    """The files at one moment. `folder`: the config's folder in the tree; `submodules`: folders that are left out."""

    tree: str
    folder: str
    submodules: tuple[str, ...] = ()


class Repository:
    """Our own git repository in the user's cache. Its index remembers which files have not changed since.

    Guarantee: no other exporter, and no git that a killed one has left running, uses the repository at the same time.
    Blocking: `take` reads the changed files, `pack` the objects that a host lacks.
    """

    def __init__(self, root: Path, place: Path) -> None:
        """`root`: the config's folder. `place`: where the repository is, or will be made; if it is in use, beside it.

        Raises OSError.
        """
        self._root = root
        self._place, self._lock = _claim_place(place)
        weakref.finalize(self, os.close, self._lock)
        self._top, self._theirs = _find_repository(root)
        self.folder = os.path.relpath(root, self._top)
        self._submodules: tuple[str, ...] | None = None

    def take(self, include: Sequence[str] = ()) -> Snapshot:
        """Take a snapshot of all files that git does not ignore, and of `include`. Raises ClusterError."""
        if _has_grown(self._place):
            shutil.rmtree(self._place, ignore_errors=True)
        if not (self._place / "HEAD").is_file():
            self._create()
        self._exclude()
        self._add_all(include)
        tree = self._write_complete_tree()
        if not tree:  # git has removed objects of theirs that only our index names
            (self._place / "index").unlink()
            self._add_all(include)
            tree = self._git("write-tree").strip()
        if self._submodules is None:  # one of a later run is not worth a walk over all files
            self._submodules = self._list_submodules()
        return Snapshot(tree=tree, folder=self.folder, submodules=self._submodules)

    def has(self, commit: str) -> bool:
        """Whether a snapshot is still here, so that a host which has it can get the difference."""
        return bool(commit) and self._run("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0

    def pack(self, snapshot: Snapshot, base: str = "", *, most_bytes: int = sys.maxsize) -> tuple[str, bytes]:
        """Return a commit of a snapshot, and a thin pack of its objects that the commit `base` lacks.

        `base` is the parent: git makes a pack thin only by the parents of the packed commits. Raises ClusterError, also
        for a pack of more than `most_bytes`, which is not read.
        """
        parents = ("-p", base) if base else ()
        commit = self._git(*_IDENTITY, "commit-tree", snapshot.tree, *parents, "-m", "snapshot").strip()
        wanted = f"{commit}\n^{base}\n" if base else f"{commit}\n"
        words = ("pack-objects", "--thin", "--revs", "--stdout", "-q", "--delta-base-offset")
        with tempfile.TemporaryFile(dir=self._place) as file:
            packed = self._run(*words, text=wanted, stdout=file)
            if packed.returncode:
                raise ClusterError(f"dask: git can't pack the files: {_read_error(packed)}")
            size = os.fstat(file.fileno()).st_size
            if size > most_bytes:
                raise ClusterError(
                    f"dask.upload: {size:,} bytes are more than max, {most_bytes:,}: ignore files, or raise it"
                )
            file.seek(0)
            return commit, file.read()

    def _add_all(self, include: Sequence[str]) -> None:
        if self._theirs is not None:
            self._track_ignored()
        self._add("--all", "--", ".")
        if include:
            self._add("--all", "--force", "--", *(os.path.join(self.folder, path) for path in include))  # noqa: PTH118

    def _track_ignored(self) -> None:
        """Track the files that match .gitignore and are tracked all the same: git then adds or removes them itself."""
        tracked = run_git(
            *SAFE_SETTINGS, "ls-files", "-z", "--cached", "--ignored", "--exclude-standard", cwd=self._top
        )
        self._check("ls-files", tracked)
        new = set(os.fsdecode(tracked.stdout).split("\0")).difference(self._git("ls-files", "-z").split("\0"), [""])
        self._git("update-index", "-z", "--index-info", text="".join(f"100644 {_UNREAD}\t{name}\0" for name in new))

    def _write_complete_tree(self) -> str:
        """Return the tree of the index, or "" if one of its objects is missing."""
        written = self._run("write-tree")
        tree = written.stdout.decode().strip()
        is_complete = not written.returncode and not self._run("rev-list", "--objects", "--quiet", tree).returncode
        return tree if is_complete else ""

    def _add(self, *words: str) -> None:
        """Add files to the index; again if one vanished or shrank after git had listed it."""
        for _ in range(_ADD_ATTEMPTS):
            done = self._run("add", *words)
            if not any(sign in _read_error(done) for sign in _CHANGED):
                break
        self._check("add", done)

    def _create(self) -> None:
        files.make_private_folders(self._place)
        self._git("init", "--quiet", "--bare", str(self._place), at_home=False)
        keep_contents(self._place)
        if self._theirs is not None and "\n" not in str(self._theirs):  # a line of the file is a path
            alternates = self._place / "objects" / "info" / "alternates"
            alternates.write_bytes(os.fsencode(self._theirs / "objects") + b"\n")

    def _exclude(self) -> None:
        lines = [b".paropt/\n"]
        if self._theirs is not None and (theirs := self._theirs / "info" / "exclude").is_file():
            lines.append(theirs.read_bytes())
        (self._place / "info").mkdir(exist_ok=True)
        (self._place / "info" / "exclude").write_bytes(b"".join(lines))

    def _list_submodules(self) -> tuple[str, ...]:
        listed = self._git("ls-files", "--stage", "-z").split("\0")
        return tuple(line.partition("\t")[2] for line in listed if line.startswith(_SUBMODULE_MODE))

    def _git(self, *words: str, text: str = "", at_home: bool = True) -> str:
        done = self._run(*words, text=text, at_home=at_home)
        self._check(words[0], done)
        return done.stdout.decode("utf-8", "surrogateescape")

    def _check(self, command: str, done: subprocess.CompletedProcess[bytes]) -> None:
        if done.returncode:
            raise ClusterError(f"dask: git {command} failed in {self._root}: {_read_error(done)}")

    def _run(
        self, *words: str, text: str = "", at_home: bool = True, stdout: IO[bytes] | int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[bytes]:
        where = ("--git-dir", str(self._place), "--work-tree", str(self._top)) if at_home else ()
        return run_git(*_QUIET, *where, *words, cwd=self._top, stdin=os.fsencode(text), stdout=stdout, lock=self._lock)


def keep_contents(git_dir: Path) -> None:
    """Let a repository store files as they lie there, whatever `.gitattributes` says: no filters, such as those of LFS.

    Their programs may be missing on the other hosts, and line ends would differ.
    """
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info" / "attributes").write_text("* -text -ident -filter !working-tree-encoding\n")


def run_git(
    *words: str, cwd: Path, stdin: bytes = b"", stdout: IO[bytes] | int = subprocess.PIPE, lock: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run git without the variables of a git that may have started this program. Raises ClusterError without git.

    git holds `lock`, a descriptor, too: its file stays locked until git has ended, also if this program is killed.
    """
    env = {name: value for name, value in copy_environment().items() if not name.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", *words],
            cwd=cwd,
            env={**env, "LC_ALL": "C"},
            input=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            pass_fds=() if lock is None else (lock,),
        )
    except FileNotFoundError:
        raise ClusterError(
            "dask: there is no git here, which the files travel by: install it, or set dask.shared"
        ) from None


def _claim_place(place: Path) -> tuple[Path, int]:
    """Return a place that no other process uses, and the descriptor of its lock. Raises OSError."""
    files.make_private_folders(place.parent.parent, place.parent)
    for number in range(_MOST_PLACES):
        own = place if not number else place.with_name(f"{place.stem}-{number}{place.suffix}")
        descriptor = files.open_regular(own.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        (own / INDEX_LOCK).unlink(missing_ok=True)
        return own, descriptor
    raise OSError(f"all {_MOST_PLACES} repositories beside {place} are in use")


def _find_repository(root: Path) -> tuple[Path, Path | None]:
    """Return the top folder of the repository that contains `root`, and its git folder; `root` itself without one."""
    options = ("--show-toplevel", "--git-common-dir")
    top, common = (run_git(*SAFE_SETTINGS, "rev-parse", option, cwd=root) for option in options)
    if top.returncode or common.returncode:
        return root, None
    return Path(_read_path(top)), (root / _read_path(common)).resolve()


def _read_path(done: subprocess.CompletedProcess[bytes]) -> str:
    return os.fsdecode(done.stdout.removesuffix(b"\n"))  # a folder's name may contain line breaks


def _has_grown(place: Path) -> bool:
    """Whether earlier snapshots have left many objects: one of git's folders tells for all."""
    try:
        return sum(1 for _ in (place / "objects" / "00").iterdir()) > _MOST_LOOSE_OBJECTS
    except OSError:
        return False


def _read_error(done: subprocess.CompletedProcess[bytes]) -> str:
    return to_one_line(done.stderr.decode("utf-8", "replace")) or f"exit {done.returncode}"
