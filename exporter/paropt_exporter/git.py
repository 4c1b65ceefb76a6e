"""Run git, and identify the state of a work tree: its commit and every file that differs from it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from paropt_exporter.environment import copy_environment

# A clone may contain a folder that looks like a bare repository. In it, git would run programs that its config names.
SAFE_SETTINGS = ("-c", "core.fsmonitor=false", "-c", "safe.bareRepository=explicit")
GIT_SECONDS = 20.0  # a diff of a large repository on a cold disk
# Caches of tools. Some tools make git ignore them only once they are filled.
CACHES = (
    "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".eslintcache", ".stylelintcache",
)  # fmt: skip
# For `git ls-files`: the untracked files of the project.
LIST_OTHERS = ("--others", "--exclude-standard", *(f"--exclude={name}" for name in CACHES))
_CACHES_IN_BYTES = frozenset(map(os.fsencode, CACHES))
_NOT_IGNORED = 1  # the exit code of `git check-ignore` for a path that is not ignored; 128 is an error
_LONGEST_LINE = 1 << 12  # characters of a `.git` that is a file
_MOST_CHANGED = 2000  # files that differ from the commit; reading more would delay the run
_MOST_BYTES = 64 << 20  # of these files together: 0.15 s of SHA-256
# Without its last option, submodules that .gitmodules tells to ignore would be left out.
_STATUS = (
    "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=none",
)  # fmt: skip
# In `git status --porcelain=v2`: the number of spaces before the path, by the first letter of an entry.
_FIELDS = {b"1": 8, b"u": 10, b"?": 1}
_SUBMODULE = b"S"
# Variables of hooks. The first ones name a repository and index, relative to the hook's folder; the others change the
# meaning of paths: if an editor commits with literal paths, `:/` is a file, not the work tree.
_OF_A_HOOK = frozenset(
    {
        "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS",
        "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS",
    }
)  # fmt: skip


def run_git(root: Path, *arguments: str, limit_seconds: float = GIT_SECONDS) -> bytes:
    """Run git without waiting for a lock, a prompt or a hook, and return its output.

    Blocks for at most `limit_seconds`. Raises OSError or SubprocessError if git fails.
    """
    import subprocess  # here: most runs start no git

    inherited = {name: value for name, value in copy_environment().items() if name not in _OF_A_HOOK}
    environment = {**inherited, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    process = subprocess.run(
        ["git", *SAFE_SETTINGS, *arguments],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=limit_seconds,
        check=True,
    )
    return process.stdout


def describe_git_error(error: Exception) -> str:
    """Return the reason why git failed, in one line, with the command that git names as the remedy."""
    import subprocess

    match error:
        case FileNotFoundError():
            return "git is not installed, or the folder is not there"
        case subprocess.TimeoutExpired(timeout=seconds):
            return f"git did not answer within {seconds:.0f} s"
        case subprocess.CalledProcessError(stderr=bytes() as text) if text.strip():
            first, *others = text.decode(errors="replace").strip().splitlines()
            # For a repository of another user, as in a container job of CI: git config --global --add safe.directory
            remedy = next((line.strip() for line in others if line.strip().startswith("git config ")), "")
            return ": ".join(filter(None, (first.removeprefix("fatal: ")[:200], remedy[:200])))
    return str(error)


def find_top_folder(root: Path) -> Path | None:
    """Return the work tree's top folder, the nearest one with a `.git`, without starting git; None without one."""
    folder = root.absolute()
    return next((parent for parent in (folder, *folder.parents) if os.path.lexists(parent / ".git")), None)


def find_git_folder(top: Path) -> Path:
    """Return the folder with git's files for a work tree, whether or not it exists, without starting git.

    It is `.git` or, in a linked work tree or a submodule, the folder that the file `.git` names.
    """
    link = top / ".git"
    if not link.is_file():  # a folder, as a rule
        return link
    try:
        with link.open(encoding="utf-8", errors="surrogateescape") as file:
            line = file.readline(_LONGEST_LINE)
    except OSError:
        return link
    place = line.removeprefix("gitdir:").strip()
    return link if place == line.strip() or "\0" in place else top / place


def identify_tree_state(root: Path, *, unchanged_since_seconds: float | None = None) -> str:
    """Return a digest of the commit and of all files that differ from it; "" if the state is unknown.

    Equal digests mean equal files, apart from ignored files and untracked files in tools' caches. The state is unknown
    without a repository or a commit, in a folder that git ignores, if a submodule has changes, and if more than 2000
    files or 64 MiB differ. It is also unknown if a file was written after `unchanged_since_seconds`, a wall time, even
    with its old content.
    """
    import subprocess  # here: few runs need it

    top = find_top_folder(root)
    if top is None:
        return ""
    try:
        listed = run_git(root, *_STATUS, "--", ":/")
        commit, paths = _parse_status(listed)
        if not commit or paths is None or len(paths) > _MOST_CHANGED or is_ignored(root, top):
            return ""
        if unchanged_since_seconds is not None:
            tracked = run_git(top, "ls-files", "-z").split(b"\0")
            if _has_changed_since({*tracked, *paths}, top, unchanged_since_seconds):
                return ""
        return _digest_files(commit, paths, top)
    except (OSError, subprocess.SubprocessError):
        return ""


def is_ignored(root: Path, top: Path) -> bool:
    """Return whether git ignores a folder of the work tree `top` as a whole, so that it sees no change there.

    Raises OSError or SubprocessError if git fails.
    """
    return root.absolute() != top and ignores(root, ".")


def ignores(root: Path, path: str) -> bool:
    """Return whether git ignores a path, which need not exist. Raises OSError or SubprocessError if git fails."""
    import subprocess

    try:
        run_git(root, "check-ignore", "--quiet", "--", path)
    except subprocess.CalledProcessError as error:
        if error.returncode != _NOT_IGNORED:
            raise
        return False
    return True


def _has_changed_since(paths: Iterable[bytes], top: Path, since_seconds: float) -> bool:
    """Return whether one of the files has changed; for a missing file, whether its folder has."""
    for path in paths:
        place = top / os.fsdecode(path)
        while not os.path.lexists(place):
            place = place.parent
        if place != top and place.lstat().st_ctime >= since_seconds:
            return True
    return False


def _digest_files(commit: bytes, paths: Iterable[bytes], top: Path) -> str:
    import hashlib

    digest, left = hashlib.sha256(commit), _MOST_BYTES
    for path in sorted(paths):
        for part in _iter_file_state(top / os.fsdecode(path)):
            left -= len(part)
            if left < 0:
                return ""
            digest.update(b"%d:" % len(part))
            digest.update(part)
        digest.update(b"\0" + path + b"\0")
    return digest.hexdigest()


def _parse_status(listed: bytes) -> tuple[bytes, list[bytes] | None]:
    """Return the commit, b"" for none, and the paths that differ from it, or None if a submodule has changes."""
    commit, paths = b"", []
    for entry in listed.split(b"\0"):
        if entry.startswith(b"# branch.oid "):
            commit = entry.removeprefix(b"# branch.oid ")
        fields = _FIELDS.get(entry[:1])
        if fields is None:
            continue
        words = entry.split(b" ", fields)
        if entry.startswith(b"?") and not _CACHES_IN_BYTES.isdisjoint(words[-1].split(b"/")):
            continue  # a run writes it
        if len(words) > 2 and words[2].startswith(_SUBMODULE):
            return commit, None
        paths.append(words[-1])
    return (b"" if commit == b"(initial)" else commit), paths


def _iter_file_state(path: Path) -> Iterator[bytes]:
    """Yield the kind of a file, and its content or link target."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield from (b"link", os.fsencode(path.readlink()))
        elif stat.S_ISREG(mode):
            yield b"program" if mode & stat.S_IXUSR else b"file"
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    yield chunk
        else:
            yield b"%d" % stat.S_IFMT(mode)
    except FileNotFoundError:
        yield b"absent"
