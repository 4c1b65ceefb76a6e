"""Find the files that differ from a commit: committed since, changed, staged, untracked or deleted, by git."""

from __future__ import annotations

import os
import posixpath
import subprocess
from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path

from msgspec import Struct

from paropt_exporter.git import LIST_OTHERS, describe_git_error, is_ignored, run_git
from paropt_exporter.input_files import InputPatterns
from paropt_exporter.lazy_patterns import compile_later

_DEFAULT_BRANCHES = ("origin/HEAD", "origin/main", "origin/master", "main", "master")
_AFTER_SLASH = "0"  # the character that follows "/" in sort order
_SUBMODULE = b"160000"  # its mode in a diff
_TRACKED, _UNTRACKED = b"H", b"?"  # of `git ls-files -v`
_MOST_HASHED = 500  # files in one call of git, whose arguments have a limit
_COMMIT = compile_later("[0-9a-f]{40,64}")
_NOT_IN_NAMES = frozenset("~^:{")  # of branches, tags and commits: an expression contains one of these characters
# With all branches: a clone of a single branch gets no other one without a refspec, however deep it is.
_FETCH_ALL = "git fetch --unshallow origin '+refs/heads/*:refs/remotes/origin/*'"
_IN_CI = "(in GitHub's checkout action: fetch-depth: 0; in GitLab: GIT_DEPTH: 0)"


class UnknownChange(Exception):
    """The changed files can't be found. The message has the reason and the remedy."""


class Changes(Struct, frozen=True, kw_only=True):
    """The changed files, relative to the project with slashes; files outside of it begin with `../`.

    `folders`: changed submodules, in which any file may have changed. `base`: the commit with which they are compared,
    for messages.
    """

    paths: frozenset[str]
    folders: frozenset[str] = frozenset()
    base: str = ""

    def find_match(self, patterns: InputPatterns) -> str | None:
        """Return the first changed path that matches, or a submodule that may contain such a file; None without one."""
        ordered = _sort(self.paths)
        near = (path for root in patterns.list_roots() for path in _list_near(ordered, root))
        found = min(filter(patterns.matches, near), default=None)
        return found or next((folder for folder in sorted(self.folders) if patterns.may_match_in(folder)), None)


@lru_cache(maxsize=4)
def _sort(paths: frozenset[str]) -> list[str]:
    """Return the paths in order; cached, since each stage needs them."""
    return sorted(paths)


def _list_near(ordered: list[str], root: str) -> list[str]:
    """Return the paths in a folder or of a file, and a few more: few of 20,000 concern one of a thousand stages."""
    if root == ".":
        return ordered
    return ordered[bisect_left(ordered, root) : bisect_left(ordered, f"{root}{_AFTER_SLASH}")]


class ChangeFinder:
    """Finds the changes of a project when they are first asked for, and keeps them."""

    def __init__(self, root: Path, ref: str | None = None) -> None:
        self._root = root
        self.ref = ref

    @cached_property
    def changes(self) -> Changes:
        """The changes; UnknownChange if they can't be found."""
        return find_changes(self._root, self.ref)


def find_changes(root: Path, ref: str | None = None) -> Changes:
    """Return the files of the repository that differ from where the branch left `ref`, or its target branch if None.

    The target is that of the pull or merge request in GitHub's and GitLab's CI, otherwise the upstream or the default
    branch. Each call of git blocks for `git.GIT_SECONDS` at most. Raises UnknownChange.
    """
    try:
        top = Path(os.fsdecode(run_git(root, "rev-parse", "--show-toplevel").removesuffix(b"\n")))
    except (OSError, subprocess.SubprocessError) as error:
        raise UnknownChange(f"the changed files are unknown: {describe_git_error(error)}") from None
    try:
        if is_ignored(root, top):
            raise UnknownChange("the changed files are unknown: git ignores this folder")
        base, name = _find_base(root, ref)
        # Without renames, so that both names are in the list: a stage may have read the old one.
        options = ("--raw", "-z", "--no-renames", "--no-ext-diff", "--no-abbrev", "--ignore-submodules=none")
        # Started in the top folder, since with `diff.relative` git would leave out all files outside of its folder.
        entries = run_git(top, "diff", *options, base, "--").split(b"\0")
        listed = run_git(root, "ls-files", "-v", "--cached", *LIST_OTHERS, "-z", "--", ":/").split(b"\0")
        unusual = [entry for entry in listed if entry[:1] != _TRACKED]
        hidden = [*_iter_hidden_changes(top)] if any(map(_is_marked, unusual)) else []
    except (OSError, subprocess.SubprocessError) as error:
        raise UnknownChange(f"the changed files are unknown: {describe_git_error(error)}") from None
    place = os.path.relpath(os.path.realpath(root), os.path.realpath(top))
    found = {posixpath.relpath(path, place): False for path in hidden}
    found |= {posixpath.relpath(path, place): is_folder for path, is_folder in _iter_diff(entries)}
    # These are relative to `root` already. The path of a nested repository ends with a slash.
    others = (entry[2:] for entry in unusual if entry[:1] == _UNTRACKED)
    found |= {posixpath.normpath(os.fsdecode(path)): path.endswith(b"/") for path in others}
    return Changes(
        paths=frozenset(found),
        folders=frozenset(path for path, is_folder in found.items() if is_folder),
        base=name,
    )


def _iter_diff(entries: list[bytes]) -> Iterator[tuple[str, bool]]:
    """Yield each path of a raw diff, relative to the work tree, and whether it is or was a submodule."""
    for head, path in zip(entries[::2], entries[1::2], strict=False):
        before, after = head.removeprefix(b":").split(b" ")[:2]
        yield os.fsdecode(path), _SUBMODULE in (before, after)


def _iter_hidden_changes(top: Path) -> Iterator[str]:
    """Yield the files that differ from the index although git reports no change.

    `git update-index --assume-unchanged` and `--skip-worktree` mark them, often because they contain a user's settings.
    A missing file with the second mark was left out by a sparse checkout.
    """
    known: dict[str, bytes] = {}
    for entry in filter(_is_marked, run_git(top, "ls-files", "-v", "-s", "-z").split(b"\0")):
        head, _, name = entry.partition(b"\t")
        mark, mode, digest, _ = head.split(b" ")
        path = os.fsdecode(name)
        if (top / path).is_file() and not (top / path).is_symlink():
            known[path] = digest
        elif mode != _SUBMODULE and (mark == b"h" or os.path.lexists(top / path)):
            yield path
    paths = [*known]
    for chunk in (paths[start : start + _MOST_HASHED] for start in range(0, len(paths), _MOST_HASHED)):
        digests = run_git(top, "hash-object", "--", *chunk).split()
        yield from (path for path, now in zip(chunk, digests, strict=True) if known[path] != now)


def _is_marked(entry: bytes) -> bool:
    return entry[:1] == b"S" or entry[:1].islower()


def _find_base(root: Path, ref: str | None) -> tuple[str, str]:
    """Return the commit to compare with, and its description. Raises UnknownChange."""
    named = ref or _get_target_of_request()
    if named is not None:
        commit = _resolve(root, named)
        if commit is None:
            raise UnknownChange(_describe_missing(root, named))
        return _merge_base(root, commit, named)
    if _resolve(root, "HEAD") is None:
        empty = run_git(root, "hash-object", "-t", "tree", os.devnull).decode().strip()
        return empty, "an empty repository"
    for branch in _list_target_branches(root):
        if (commit := _resolve(root, branch)) is not None:
            return _merge_base(root, commit, branch)
    if _is_shallow(root):
        raise UnknownChange(f"the clone is shallow and has no main branch to compare with: {_FETCH_ALL} {_IN_CI}")
    raise UnknownChange("there is no main branch to compare with: name a commit (--affected HEAD: uncommitted changes)")


def _get_target_of_request() -> str | None:
    """Return the target of the pull request or merge request that CI runs for; None without one."""
    if branch := os.environ.get("GITHUB_BASE_REF"):
        return f"origin/{branch}"
    return os.environ.get("CI_MERGE_REQUEST_DIFF_BASE_SHA") or None


def _merge_base(root: Path, commit: str, name: str) -> tuple[str, str]:
    try:
        base = run_git(root, "merge-base", commit, "HEAD").decode().split()[0]
    except subprocess.CalledProcessError:
        if _is_shallow(root):
            raise UnknownChange(
                f"the clone is too shallow to contain the commit at which this branch left {name}: {_FETCH_ALL} "
                f"{_IN_CI}"
            ) from None
        raise UnknownChange(f"{name} and HEAD have no commit in common: name another one, --affected REF") from None
    return base, f"{name} ({base[:7]})"


def _resolve(root: Path, ref: str) -> str | None:
    try:
        found = run_git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except subprocess.CalledProcessError:
        return None
    return found.decode().strip()


def _describe_missing(root: Path, name: str) -> str:
    """Return why a commit can't be found, with the `git fetch` after which it can."""
    shallow = _is_shallow(root)
    missing = f"the shallow clone has no commit {name!r}" if shallow else f"there is no commit {name!r} here"
    fetch = "git fetch --unshallow" if shallow else "git fetch"
    if name.startswith("-") or not _NOT_IN_NAMES.isdisjoint(name):
        return f"{missing}: {f'{fetch}, or ' if shallow else ''}name another one, --affected REF"
    if _resolve(root, f"origin/{name}") is not None:
        return f"{missing}, but origin/{name}: --affected origin/{name}"
    if name.startswith("origin/"):
        what = f"{name.removeprefix('origin/')}:refs/remotes/{name}"
    elif _COMMIT.fullmatch(name):
        what = name
    else:
        what = f"{name} and use --affected FETCH_HEAD"  # such a fetch creates no branch or tag
    return f"{missing}: {fetch} origin {what}, or name another one, --affected REF"


def _is_shallow(root: Path) -> bool:
    return run_git(root, "rev-parse", "--is-shallow-repository").strip() == b"true"


def _list_target_branches(root: Path) -> list[str]:
    """Return candidates for the target branch. An upstream with the same name is only this branch's pushed copy."""
    try:
        upstream = run_git(root, "rev-parse", "--abbrev-ref", "@{upstream}").decode().strip()
        branch = run_git(root, "rev-parse", "--abbrev-ref", "HEAD").decode().strip()
    except subprocess.CalledProcessError:
        return [*_DEFAULT_BRANCHES]
    copy = upstream.partition("/")[2] == branch
    return [*_DEFAULT_BRANCHES] if copy else [upstream, *_DEFAULT_BRANCHES]
