"""Store the files that a task wrote, and restore them.

Files are restored beside their places, and renamed once all of them are complete, so that a damaged content changes
nothing. Each folder on the way is opened without following links, so that a link in a checkout can't lead a restored
file out of it. So a link to a folder is stored as a link, and the files behind it under their real paths.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import accumulate, chain

from msgspec import Struct

from paropt_exporter import files
from paropt_exporter.cache.entry import Entry, OutputFile
from paropt_exporter.cache.file_states import FileStates, UnusableFile, get_state
from paropt_exporter.cache.result_store import Store
from paropt_exporter.input_files import FoundFile, InputPatterns
from paropt_exporter.lazy_patterns import compile_later

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


_TEMPORARY = compile_later(r"(^|/)\.[0-9a-f]{16}\.paropt$")


class NotRestored(Exception):
    """The outputs could not be restored. The message has the reason; no file has changed."""


def find_outputs(folder: str, patterns: Sequence[str]) -> list[FoundFile]:
    """Return the files that match a task's outputs and can be restored.

    Raises UnusableFile, also for a file behind a link that is not an output under its real path: the link would be
    restored without it.
    """
    # A killed run leaves files with temporary names; the next hit removes them.
    found = [each for each in find_matching(folder, patterns) if not _TEMPORARY.search(each[0])]
    own = {path for path, _ in found}
    linked = _find_linked_folders(folder, own)
    for path in own:
        parent, name = os.path.split(path)
        if parent in linked:
            place, link = linked[parent], _find_link(folder, parent)
            if link not in own or os.path.normpath(os.path.join(place, name)) not in own:
                raise UnusableFile(
                    f"{path} is behind the link {link}, and can't be restored: name the link and the folder to which "
                    f"it leads in `outputs`, or leave these files out: !{link}/**"
                )
    return [(path, state) for path, state in found if os.path.dirname(path) not in linked]


def find_matching(folder: str, patterns: Sequence[str]) -> list[FoundFile]:
    """Return the files that match a task's outputs. Raises UnusableFile."""
    if not patterns:
        return []
    try:
        return InputPatterns(tuple(patterns), are_outputs=True).find_files(folder)
    except OSError as error:
        raise UnusableFile(f"{error.filename} can't be read: {error.strerror}") from None


def _find_linked_folders(folder: str, paths: Iterable[str]) -> dict[str, str]:
    """Return the folders of files that are behind a link, with their real paths, relative to `folder`."""
    parents = {os.path.dirname(path) for path in paths}
    top = os.path.realpath(folder) if parents else ""
    places = {parent: os.path.relpath(os.path.realpath(os.path.join(folder, parent)), top) for parent in parents}
    return {parent: place for parent, place in places.items() if place != (parent or ".")}


def _find_link(folder: str, path: str) -> str:
    """Return the first link on the way to a folder."""
    parts = accumulate(path.split("/"), "{}/{}".format)
    return next(part for part in parts if os.path.islink(os.path.join(folder, part)))


def keep_outputs(states: FileStates, store: Store, found: Sequence[FoundFile]) -> tuple[OutputFile, ...]:
    """Put the outputs into the store. Raises UnusableFile and StoreUnusable."""
    kept: list[OutputFile] = []
    for path, state in found:
        full = os.path.join(states.folder, path)
        if stat.S_ISLNK(state.st_mode):
            kept.append(OutputFile(path, "l", os.readlink(full)))
            continue
        (entry,) = states.take_snapshot([(path, state)]).values()
        kind, _, digest = get_state(entry).partition(" ")
        if kind == "d":
            continue
        try:
            with open(full, "rb") as source:
                store.add_file(source, digest, state.st_size)
        except OSError as error:
            raise UnusableFile(f"{path} can't be read: {error.strerror}") from None
        kept.append(OutputFile(path, kind, digest, state.st_size))
    return tuple(kept)


def list_leftovers(before: Mapping[str, os.stat_result], found: Iterable[FoundFile]) -> set[str]:
    """Return the outputs that the task has not written: they are as they were before it ran.

    Each write changes ctime, unless it is in the same tick of the file system's clock as an earlier one. Then a file
    that the task wrote counts as a leftover, which costs at most a miss.
    """
    return {path for path, state in found if path in before and _get_version(before[path]) == _get_version(state)}


def find_changed_output(
    folder: str, before: Mapping[str, os.stat_result] | None, found: Sequence[FoundFile]
) -> str | None:
    """Return an output that is not as it was at the end of its task, or None. `before`: None if that is unknown."""
    if before is None:
        return None
    gone = (path for path in before if not os.path.lexists(os.path.join(folder, path)))
    changed = (path for path, state in found if path not in before or _get_version(before[path]) != _get_version(state))
    return min(chain(gone, changed), default=None)


def _get_version(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_mode, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def find_missing_leftover(states: FileStates, entry: Entry) -> str | None:
    """Return a leftover that the result needs but that is gone or different; None if there is none."""
    wanted = {file.path: file.state for file in entry.files}
    for path in entry.leftovers:
        try:
            found = _describe_there(states, path, os.lstat(os.path.join(states.folder, path)))
        except (OSError, ValueError, UnusableFile, NotRestored):
            return path
        if found != wanted.get(path):
            return path
    return None


class Restoration(Struct, frozen=True):
    """The files of a result to put in place, and the paths of other outputs to remove."""

    missing: tuple[OutputFile, ...]
    stale: tuple[str, ...]

    def list_blobs(self) -> list[str]:
        """Return the digests of the contents that it needs."""
        return [file.value for file in self.missing if file.kind != "l"]


def plan_restoration(states: FileStates, wanted: Sequence[OutputFile], patterns: Sequence[str]) -> Restoration:
    """Compare the outputs of a result with the files in their places.

    `patterns`: the outputs that the task declares. Raises UnusableFile, or NotRestored for a file that matches none of
    the patterns or can't be put in its place.
    """
    _check_declared(wanted, patterns)
    found = find_matching(states.folder, patterns)
    linked = _find_linked_folders(states.folder, (path for path, _ in found))
    there = {path: _describe_there(states, path, state) for path, state in found if os.path.dirname(path) not in linked}
    names = {file.path for file in wanted}
    missing = tuple(file for file in wanted if there.get(file.path) != file.state)
    _check_places(states.folder, [file.path for file in missing])
    return Restoration(missing, tuple(path for path in there if path not in names))


def restore_outputs(folder: str, store: Store, restoration: Restoration) -> None:
    """Put the outputs of a result in place, and remove other matching files.

    Raises BadEntry before any file has changed. A disk error between the renames raises NotRestored; the stage then
    runs.
    """
    if not restoration.missing and not restoration.stale:
        return
    with ExitStack() as stack:
        staged: list[_Staged] = []
        try:
            folders = _Folders(folder, stack)
            staged.extend(_stage(folders, store, file) for file in restoration.missing)
            _set_one_time(staged)
            for path in restoration.stale:
                parent, name = folders.open_parent(path, create=False)
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=parent)
            while staged:
                each = staged[-1]
                os.rename(each.temporary, each.name, src_dir_fd=each.folder, dst_dir_fd=each.folder)
                staged.pop()
        except OSError as error:
            raise NotRestored(f"the outputs can't be restored: {error.strerror} ({error.filename})") from None
        finally:
            _remove_staged(staged)


def _check_declared(wanted: Sequence[OutputFile], patterns: Sequence[str]) -> None:
    """Raise NotRestored for a file that this task can't have written: an attacker may have filled the store."""
    declared = InputPatterns(tuple(patterns), are_outputs=True)
    for file in wanted:
        if not declared.could_find(file.path):
            raise NotRestored(f"the outputs can't be restored: {file.path} is not one of its outputs")


def _check_places(folder: str, paths: Iterable[str]) -> None:
    """Raise NotRestored if a folder on the way to a file is something else, or if one is in the place of a file."""
    parents: set[str] = set()
    for path in paths:
        if os.path.isdir(place := os.path.join(folder, path)) and not os.path.islink(place):
            raise NotRestored(f"the outputs can't be restored: {path} is a folder")
        *above, _ = accumulate(path.split("/"), "{}/{}".format)
        parents.update(above)
    for parent in sorted(parents):
        if os.path.islink(place := os.path.join(folder, parent)):
            raise NotRestored(f"the outputs can't be restored: {parent} is a link")
        if os.path.exists(place) and not os.path.isdir(place):
            raise NotRestored(f"the outputs can't be restored: {parent} is not a folder")


class _Staged(Struct, frozen=True):
    folder: int
    temporary: str
    name: str


class _Folders:
    """Descriptors of the outputs' folders, opened from the root without following links.

    Folders that it created and that are empty in the end are removed: the stage, which then runs, may call `mkdir`.
    """

    def __init__(self, root: str, stack: ExitStack) -> None:
        self._stack = stack
        self._open = {"": self._keep(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))}

    def open_parent(self, path: str, *, create: bool = True) -> tuple[int, str]:
        """Return the folder of a file and its name; create missing folders. Raises OSError."""
        *parts, name = path.split("/")
        if ".." in parts or name in ("", ".", "..") or path.startswith("/"):
            raise NotRestored(f"the outputs can't be restored: {path} leads out of the project")
        descriptor, prefix = self._open[""], ""
        for part in parts:
            prefix = f"{prefix}{part}/"
            if prefix not in self._open:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                        self._stack.callback(_remove_empty_folder, part, descriptor)
                self._open[prefix] = self._keep(os.open(part, _FOLDER_FLAGS, dir_fd=descriptor))
            descriptor = self._open[prefix]
        return descriptor, name

    def _keep(self, descriptor: int) -> int:
        self._stack.callback(os.close, descriptor)
        return descriptor


def _remove_empty_folder(name: str, parent: int) -> None:
    with suppress(OSError):
        os.rmdir(name, dir_fd=parent)


def _stage(folders: _Folders, store: Store, file: OutputFile) -> _Staged:
    parent, name = folders.open_parent(file.path)
    temporary = f".{os.urandom(8).hex()}.paropt"
    if file.kind == "l":
        os.symlink(file.value, temporary, dir_fd=parent)
        return _Staged(parent, temporary, name)
    descriptor = os.open(temporary, files.NEW_FILE_FLAGS, 0o777 if file.kind == "x" else 0o666, dir_fd=parent)
    try:
        with open(descriptor, "wb") as target:
            store.copy(file.value, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise
    return _Staged(parent, temporary, name)


def _set_one_time(staged: Sequence[_Staged]) -> None:
    """Give all files the same time: make would rebuild files that are older than those they were made from."""
    if staged:
        last = os.stat(staged[-1].temporary, dir_fd=staged[-1].folder, follow_symlinks=False).st_mtime_ns
        for each in staged:
            with suppress(OSError):  # some file systems can't set the time of a link
                os.utime(each.temporary, ns=(last, last), dir_fd=each.folder, follow_symlinks=False)


def _remove_staged(staged: Sequence[_Staged]) -> None:
    for each in staged:
        with suppress(OSError):
            os.unlink(each.temporary, dir_fd=each.folder)


def _describe_there(states: FileStates, path: str, state: os.stat_result) -> str:
    """Return the state of an existing output in the form of a result; "" for a file that must be replaced."""
    if stat.S_ISLNK(state.st_mode):
        with suppress(OSError):
            return f"l {os.readlink(os.path.join(states.folder, path))}"
        return ""
    try:
        (entry,) = states.take_snapshot([(path, state)]).values()
    except UnusableFile:
        return ""
    return get_state(entry)
