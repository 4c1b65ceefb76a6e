"""Find the files of a stage's `inputs` and `outputs`: paths, folders and globs, or the files that git does not ignore.

Patterns are relative to a folder, with slashes. `*`, `?` and `[...]` match within a name, even if it begins with a dot;
`**` matches any number of folders. A pattern whose last part has no wildcard may name a folder, and then means all
files in it. `!` before a pattern leaves files out, wherever it is in the list. Links to folders are followed.

Folders without sources are left out unless a pattern contains their name: `.git`, `.paropt`, `__pycache__` and
`node_modules`. So are caches marked by a CACHEDIR.TAG and virtual environments that a walk finds. Outputs are products,
not sources: if all files in a folder are outputs, those in `node_modules` and virtual environments are, too.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from msgspec import Struct, field

from paropt_exporter.lazy_patterns import compile_later

ITEM = "{item}"  # in a pattern: the task's item
ANY_PATH = ("*", "**/*")  # patterns that replace it for unknown items
_SKIPPED = frozenset({".git", ".paropt", "__pycache__", "node_modules"})
_CACHE_TAG, _ENVIRONMENT_CONFIG = "CACHEDIR.TAG", "pyvenv.cfg"
_PRODUCTS = frozenset({"node_modules"})  # of the skipped folders, those that belong to outputs
_WILDCARDS = compile_later(r"[*?\[]")
_GIT_SECONDS = 60.0
_UNLIMITED_DEPTH = 1 << 30
_MOST_LINKED_FOLDERS = 5_000  # eleven folders with links to each other have 100 million paths; so many take 5 s
_DEEPEST_FOLDER = 500  # levels of folders: a walk recurses for each, and Python's limit is 1,000 calls
_NOT_OUTSIDE = r"(?!\.\./)"  # wildcards don't lead out of the folder, as in a walk

FoundFile = tuple[str, os.stat_result]  # a path relative to the folder, and its state, of a link itself
WalkedFolder = tuple[str, list[os.DirEntry[str]]]  # its path with a slash at the end, "" for the top, and its entries


class NoGit(Exception):
    """The files that git tracks can't be listed. The message has the reason."""


def find_pattern_fault(pattern: str) -> str | None:
    """Return the reason why a pattern of a config is invalid, or None."""
    path = pattern.removeprefix("!")
    if not path:
        return "a pattern is missing after the '!'"
    if path.startswith("!"):
        return "one '!' leaves files out: write [!] for a name that begins with it"
    if path.startswith(("/", "~")):
        return "write a path relative to the stage's folder, so that another checkout has the same files"
    if re.search(r"[{}]", path.replace(ITEM, "")):
        return "braces are not expanded: write one pattern for each of the names"
    if "\\" in path:
        return "write slashes between folders, and [*] for a name with a star in it"
    try:
        _compile((path,))
    except re.error as error:
        return f"the brackets are invalid: {error.msg}"
    return None


def escape_pattern(path: str) -> str:
    """Return a pattern that matches only this path."""
    return _WILDCARDS.sub(lambda found: f"[{found[0]}]", path)


def join_pattern(folder: str, pattern: str) -> str:
    """Return the pattern relative to the parent of which `folder` is a relative path."""
    excluded, path = pattern.startswith("!"), pattern.removeprefix("!")
    joined = posixpath.join(escape_pattern(folder), path)
    if f"{ITEM}/.." not in joined:  # which folder is above an item depends on the item
        joined = posixpath.normpath(joined)
    return f"!{joined}" if excluded else joined


class _Walk(Struct):
    """A walk in progress: its folders, those behind two links, the files that it found, and the errors to ignore."""

    passes_over: Callable[[OSError], bool]
    folders: list[WalkedFolder]
    found: dict[str, os.stat_result] = field(default_factory=dict)
    linked_folders: int = 0


class _FileFound(Exception):
    """A walk that looks for any file has found one."""


class _NoFiles(dict[str, os.stat_result]):
    """Stands for the files of a walk that ends at the first one."""

    def __setitem__(self, path: str, state: os.stat_result) -> None:
        raise _FileFound


class InputPatterns:
    """The patterns of a stage, relative to one folder."""

    def __init__(
        self, patterns: Sequence[str], *, are_outputs: bool = False, most_linked_folders: int = _MOST_LINKED_FOLDERS
    ) -> None:
        """`are_outputs`: the patterns name files that a stage writes.

        `most_linked_folders`: the most folders that a walk reaches through links in linked folders.
        """
        self._are_outputs = are_outputs
        self._most_linked_folders = most_linked_folders
        self.patterns = tuple(patterns)
        self._excluding = [pattern[1:] for pattern in self.patterns if pattern.startswith("!")]
        self._compiled: tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]] | None = None
        self._split: tuple[frozenset[str], re.Pattern[str], re.Pattern[str]] | None = None

    def matches(self, path: str) -> bool:
        """Return whether a file with this path, which need not exist, is one of the files.

        Patterns without wildcards, of which a stage of many items has thousands, cost nothing.
        """
        if not self.patterns:
            return False  # as most stages' outputs, with which each path of a trace is compared
        if self._split is None:
            self._split = self._split_patterns()
        plain, included, excluded = self._split
        parts = path.split("/")
        below_plain = any("/".join(parts[:count]) in plain for count in range(1, len(parts) + 1))
        return (below_plain or included.fullmatch(path) is not None) and excluded.fullmatch(path) is None

    def could_find(self, path: str) -> bool:
        """Return whether `find_files` returns a file of this path if it exists, apart from caches and environments."""
        if not self.matches(path):
            return False
        places = (("" if root == "." else f"{root}/", root) for root, _ in self._list_roots())
        return any(
            path == root or (path.startswith(prefix) and not self._is_below_skipped(path, prefix))
            for prefix, root in places
        )

    def may_match_in(self, folder: str) -> bool:
        """Return whether a file in a folder may be one of the files."""
        _, _, pruned = self._compile()
        if pruned.fullmatch(folder):
            return False
        roots = (f"{root}/" for root, _ in self._list_roots())
        return any(root == "./" or root.startswith(f"{folder}/") or f"{folder}/".startswith(root) for root in roots)

    def find_files(self, folder: str, walked: list[WalkedFolder] | None = None) -> list[FoundFile]:
        """Return the files, including pipes, sockets and devices, each once and in the order of their paths.

        Folders that are read are added to `walked`. Raises OSError for a folder that can't be read, with ELOOP if links
        lead to too many folders.
        """
        return self._find_files(folder, _Walk(lambda _: False, [] if walked is None else walked))

    def find_readable_files(self, folder: str) -> list[FoundFile]:
        """Return the same without files in folders that this user may not read, and without too many linked folders.

        Raises OSError for a folder that vanishes meanwhile.
        """
        return self._find_files(folder, _Walk(_is_lasting, []))

    def has_file(self, folder: str) -> bool:
        """Return whether `find_files` finds a file; the walk ends at the first one. Raises OSError as it does."""
        try:
            self._find_files(folder, _Walk(lambda _: False, [], _NoFiles()))
        except _FileFound:
            return True
        return False

    def _find_files(self, folder: str, walk: _Walk) -> list[FoundFile]:
        for root, depth in self._list_roots():
            self._add_root(walk, folder, root, depth)
        return sorted(walk.found.items())

    def iter_links(self, folder: str, found: Sequence[FoundFile]) -> Iterator[tuple[str, str]]:
        """Yield the links that lead to files, and to folders with files: the path, and the one it leads to.

        Both are relative to the folder. `found`: the result of `find_files`.
        """
        top = os.path.realpath(folder)
        paths = {path for path, state in found if (state.st_mode & 0o170000) == 0o120000}
        paths |= {posixpath.dirname(path) for path, _ in found}
        for path in sorted(paths - {""}):
            target = posixpath.relpath(os.path.realpath(os.path.join(folder, path)), top)
            if target != posixpath.normpath(path):
                yield path, target

    def list_roots(self) -> list[str]:
        """Return the folders and files at which a walk begins."""
        return [root for root, _ in self._list_roots()]

    def list_missing_paths(self, folder: str) -> list[str]:
        """Return the patterns without wildcards that name nothing, and globs that match nothing."""
        found = [path for path, _ in self.find_files(folder)]
        return [
            pattern
            for pattern in self.patterns
            if not pattern.startswith("!") and not any(map(_compile((pattern,)).fullmatch, found))
        ]

    def _compile(self) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
        """Return the patterns of files, of those left out, and of folders of which all files are left out.

        They are compiled when a folder is walked: for the path of a single file, that takes longer than looking for it.
        """
        if self._compiled is None:
            excluded = self._excluding
            whole = [posixpath.normpath(path).removesuffix("/**") for path in excluded if _names_whole_folders(path)]
            included = _compile([pattern for pattern in self.patterns if not pattern.startswith("!")])
            self._compiled = included, _compile(excluded), _compile(whole, below=False)
        return self._compiled

    def _split_patterns(self) -> tuple[frozenset[str], re.Pattern[str], re.Pattern[str]]:
        """Return the paths that patterns without wildcards name, the other patterns, and those of files left out."""
        named = {pattern: _find_plain_path(pattern) for pattern in self.patterns if not pattern.startswith("!")}
        others = [pattern for pattern, path in named.items() if path is None]
        return frozenset(filter(None, named.values())), _compile(others), _compile(self._excluding)

    @cached_property
    def _skipped(self) -> frozenset[str]:
        """The names of folders that a walk leaves out."""
        named = {part for path in self.patterns if not path.startswith("!") for part in path.split("/")}
        return _SKIPPED - named

    def _is_below_skipped(self, path: str, prefix: str) -> bool:
        parts = path[len(prefix) :].split("/")[:-1]
        return any(self._is_skipped(prefix + "/".join(parts[: count + 1]), name) for count, name in enumerate(parts))

    def _is_skipped(self, path: str, name: str) -> bool:
        """Return whether a walk leaves out a folder because of its name."""
        return name in self._skipped and not (name in _PRODUCTS and self._is_product(path))

    def _is_product(self, path: str) -> bool:
        """Return whether a folder is written by a stage as a whole."""
        return self._are_outputs and self._compile()[0].fullmatch(path) is not None

    def _list_roots(self) -> list[tuple[str, int]]:
        """Return the folders or files to walk, each with the depth of the walk.

        One may be inside another one, whose walk may leave it out as a cache.
        """
        depths: dict[str, int] = {}
        for pattern in self.patterns:
            if not pattern.startswith("!"):
                root, depth = _split_root(pattern)
                depths[root] = max(depth, depths.get(root, 0))
        return sorted(depths.items())

    def _add_root(self, walk: _Walk, folder: str, root: str, depth: int) -> None:
        path = folder if root == "." else os.path.join(folder, root)
        try:
            state = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return
        if _is_folder(path, state):
            if (state.st_mode & 0o170000) == 0o120000 and self.matches(root):
                walk.found[root] = state
            self._walk(walk, path, "" if root == "." else f"{root}/", depth, (), links=0)
        elif (root in self.patterns and not self._excluding) or self.matches(root):
            walk.found[root] = state

    def _walk(
        self,
        walk: _Walk,
        path: str,
        prefix: str,
        depth: int,
        above: tuple[tuple[int, int], ...],
        *,
        links: int,
    ) -> None:
        """Add the matching files of a folder and of those in it. Ten thousand files take 30 ms, half of it for stat."""
        found = walk.found
        try:
            walk.linked_folders += links > 1
            if links > 1 and walk.linked_folders > self._most_linked_folders:
                raise OSError(
                    errno.ELOOP,
                    f"links in linked folders lead to more than {self._most_linked_folders:,} folders",
                    path,
                )
            if len(above) > _DEEPEST_FOLDER:
                raise OSError(errno.ELOOP, f"folders are nested more than {_DEEPEST_FOLDER} deep", path)
            with os.scandir(path) as listing:
                entries = list(listing)
        except OSError as error:
            if walk.passes_over(error):
                return
            raise
        walk.folders.append((prefix, entries))
        names = {entry.name for entry in entries} if above else ()
        if _ENVIRONMENT_CONFIG in names:  # uv marks its environments as caches
            if not self._is_product(prefix[:-1]):
                return
        elif _CACHE_TAG in names:
            return
        included, excluded, pruned = (pattern.fullmatch for pattern in self._compile())
        folders: list[os.DirEntry[str]] = []
        for entry in entries:
            name = prefix + entry.name
            if entry.is_file(follow_symlinks=False) or not _leads_to_folder(entry):
                if included(name) and not excluded(name):
                    found[name] = entry.stat(follow_symlinks=False)
                continue
            if depth > 1 and not self._is_skipped(name, entry.name) and not pruned(name):
                folders.append(entry)
            if entry.is_symlink() and included(name) and not excluded(name):
                found[name] = entry.stat(follow_symlinks=False)
        if folders:
            state = os.stat(path)
            here = (*above, (state.st_dev, state.st_ino))
            for entry in folders:
                if entry.is_symlink() and _identify(entry.path) in here:
                    continue  # a link to a folder above: its files are known by shorter paths
                more = links + entry.is_symlink()
                self._walk(walk, entry.path, f"{prefix}{entry.name}/", depth - 1, here, links=more)


def fill_item(patterns: Sequence[str], item: str | None, cwd: str = ".") -> tuple[str, ...]:
    """Return the patterns of one task, with its item instead of `{item}`.

    An absolute item stays as it is, although the patterns were joined with `cwd`, the stage's folder.
    """
    if item is None:
        return tuple(patterns)
    escaped = escape_pattern(item)
    if item.startswith("/") and cwd != ".":
        joined = f"{escape_pattern(cwd)}/{ITEM}"
        patterns = [re.sub(rf"^(!?){re.escape(joined)}", rf"\1{ITEM}", pattern) for pattern in patterns]
    if item.startswith("!"):  # at the beginning, `!` would leave the file out
        patterns = [f"./{pattern}" if pattern.startswith(ITEM) else pattern for pattern in patterns]
    return tuple(pattern.replace(ITEM, escaped) for pattern in patterns)


def list_git_files(folder: str, *, untracked: bool = True) -> list[str]:
    """Return the files of the whole repository that git tracks or does not ignore, relative to `folder`, sorted.

    Untracked files in tools' caches, such as `__pycache__`, are left out, since runs write them. `untracked` False:
    only files that git tracks. Tracked files that have been deleted are included. A submodule or nested repository is
    one path, of a folder. Blocks for at most a minute. Raises NoGit, also if git ignores all files in `folder`.
    """
    import subprocess  # here: few stages need it, and it takes 10 ms to load
    from pathlib import Path

    from paropt_exporter.git import LIST_OTHERS, describe_git_error, run_git

    others = LIST_OTHERS if untracked else ()
    words = ("ls-files", "-z", "--cached", *others, "--deduplicate", "--", ":/")
    try:
        listed = run_git(Path(folder), *words, limit_seconds=_GIT_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoGit(f"git ls-files: {describe_git_error(error)}") from None
    found = sorted(os.fsdecode(name).rstrip("/") for name in listed.split(b"\0")[:-1])
    if untracked and all(path.startswith("../") for path in found):
        raise NoGit("git ignores all files in this folder")
    return found


def walk_folder(folder: str, path: str) -> list[FoundFile]:
    """Return all files in a folder, such as a submodule, except those in its `.git`."""
    return InputPatterns((escape_pattern(path),)).find_files(folder)


def _is_lasting(error: OSError) -> bool:
    """Return whether a retry would also fail to read the folder."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP)


def _is_folder(path: str, state: os.stat_result) -> bool:
    return os.path.isdir(path) if os.path.islink(path) else (state.st_mode & 0o170000) == 0o040000


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identify(path: str) -> tuple[int, int]:
    state = os.stat(path)
    return state.st_dev, state.st_ino


def _split_root(pattern: str) -> tuple[str, int]:
    """Return a pattern's longest folder without wildcards, and how many folders deep it can match below it."""
    parts = posixpath.normpath(pattern).split("/")
    names = [_unescape(part) for part in parts]
    first = next((index for index, name in enumerate(names) if name is None or _WILDCARDS.search(name)), len(parts))
    root = "/".join(name or "" for name in names[:first]) or "."
    rest = parts[first:]
    if not rest or "**" in rest or not _WILDCARDS.search(rest[-1]):
        return root, _UNLIMITED_DEPTH
    return root, len(rest)


def _find_plain_path(pattern: str) -> str | None:
    """Return the path of the only file or folder that a pattern names, or None."""
    path = posixpath.normpath(pattern)
    names = [_unescape(part) for part in path.split("/")]
    return None if path == "." or None in names else "/".join(name or "" for name in names)


def _unescape(part: str) -> str | None:
    """Return the only name that a part of a pattern matches, or None."""
    name = re.sub(r"\[([*?\[])\]", r"\1", part)
    return name if escape_pattern(name) == part else None


def _names_whole_folders(pattern: str) -> bool:
    last = posixpath.normpath(pattern).rpartition("/")[2]
    return last == "**" or _unescape(last) is not None


def _compile(patterns: Sequence[str], *, below: bool = True) -> re.Pattern[str]:
    choices = "|".join(f"(?:{_translate(pattern, below=below)})" for pattern in patterns)
    return re.compile(choices or r"(?!)", re.DOTALL)


def _translate(pattern: str, *, below: bool) -> str:
    """Return a regular expression for a pattern; `below`: also for the files in a folder that it may name."""
    path = posixpath.normpath(pattern)
    if path == ".":
        return f"{_NOT_OUTSIDE}.*"
    *folders, last = path.split("/")
    head = ""
    while folders[:1] == [".."]:
        head += re.escape(f"{folders.pop(0)}/")
    head += _NOT_OUTSIDE + _translate_folders(folders)
    if last == "**":
        return head + ".*"
    return head + _translate_part(last) + (r"(?:/.*)?" if below and _unescape(last) is not None else "")


def _translate_folders(folders: Sequence[str]) -> str:
    """Return a regular expression for the folders of a pattern.

    The parts between two `**` or two `*` are matched only at their first place (an atomic group): no other place leaves
    more of the path, and trying all of them takes hours for ten `**` and a deep path.
    """
    groups = [""]
    for part in folders:
        if part == "**":
            groups.append("")
        else:
            groups[-1] += f"{_translate_part(part)}/"
    first, *others = groups
    if not others:
        return first
    between = "".join(f"(?>(?:[^/]+/)*?{group})" for group in others[:-1] if group)
    return f"{first}{between}(?:[^/]+/)*{others[-1]}"


def _translate_part(part: str) -> str:
    pieces = [""]  # the parts between the stars, each of a fixed length
    at = 0
    while at < len(part):
        letter = part[at]
        end = part.find("]", at + 3 if part[at + 1 : at + 2] in ("!", "^") else at + 2) if letter == "[" else -1
        if letter == "[" and end > 0:
            content = re.sub(r"[&~|\[\\]", lambda found: f"\\{found[0]}", part[at + 1 : end])
            negated = content[:1] in ("!", "^")
            pieces[-1] += f"(?!/)[{'^' if negated else ''}{content[1:] if negated else content}]"
            at = end
        elif letter == "*":
            pieces.append("")
        else:
            pieces[-1] += "[^/]" if letter == "?" else re.escape(letter)
        at += 1
    first, *others = pieces
    between = "".join(f"(?>[^/]*?{piece})" for piece in others[:-1] if piece)
    return f"{first}{between}[^/]*{others[-1]}" if others else first
