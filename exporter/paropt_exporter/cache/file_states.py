"""The states of files by content, with an index of the files that need not be read again.

An index entry has a file's size, times, inode and mode beside its state. As in git, an entry is not kept if the file's
time is close to the moment at which it was read: a later change in the same tick of the clock would not show.
"""

from __future__ import annotations

import logging
import marshal
import os
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from paropt_exporter import files
from paropt_exporter.input_files import FoundFile

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int, int, int]  # size, mtime_ns, ctime_ns, inode, mode
Entry = tuple[Any, ...]  # a stamp and the state; for a link also the entry of its target
Snapshot = dict[str, Entry]  # by path

ABSENT: Entry = (0, 0, 0, 0, 0, "-")
# the target of a link to a file of the kernel, which describes the machine or processes
KERNEL: Entry = (0, 0, 0, 0, 0, "k")
_RACY_NS = 2_000_000_000  # as coarse as the times of any file system (FAT)
_TRIES = 3
_MAGIC = f"paropt index 2 {sys.version_info[0]}.{sys.version_info[1]}\n".encode()
_LARGEST_INDEX_BYTES = 1 << 28
_LARGEST_DERIVED_BYTES = 1 << 26  # of a list of a package's files; those of the largest packages have a few MB
_MOST_ENTRIES = 500_000
# of stages in this and other versions of the config; further ones are of stages that no longer exist
_MOST_RECORDS = 100
_WALKS_SUFFIX = ".walks"
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class UnusableFile(Exception):
    """A file has no comparable state: it is a pipe, is unreadable, or changes while it is read."""


def get_stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_mode


def get_state(entry: Entry) -> str:
    """Return the part of an entry that belongs in a key: kind and content, without times."""
    return str(entry[5]) if len(entry) == 6 else f"{entry[5]} > {get_state(entry[6])}"


class FileStates:
    """The files of one folder tree. One thread at a time uses it.

    Guarantees: a state that comes from the index is that of a file whose size, times, inode and mode are unchanged; a
    file that changes while it is read has no state.
    """

    def __init__(
        self, folder: str, index: Path | None = None, *, read_clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        """`index`: the file that keeps the entries between runs; None: they are not kept.

        `read_clock_ns`: the clock of files.

        Entries of files whose walk is recorded are in a separate file, which is read when one of them is needed.
        """
        self._read_clock_ns = read_clock_ns
        self.folder = folder
        self.read_count = 0
        self._index = index
        self._racy: set[str] = set()
        self._changed = False
        self._recorded_paths: set[str] = set()
        self._kept: dict[str, tuple[Any, Snapshot]] = {}
        self._known: dict[str, Entry]
        self._known, self._records = ({}, {}) if index is None else _load_walks(index)
        self._is_whole = index is None  # all entries are loaded

    def find_record(self, name: str) -> Any:
        """Return the record that was kept under a name, in plain types, or None."""
        return self._records.get(name)

    def keep_record(self, name: str, record: Any, snapshot: Snapshot) -> None:
        """Keep a record, in plain types, together with the states of the files in a snapshot.

        It is not kept if one of these files is young: if that changes in the same tick and is read again, the record
        would combine its new times with its old content.
        """
        if self._racy.isdisjoint(snapshot):
            self._kept[name] = (record, snapshot)
            self._changed = True

    def take_snapshot(self, found: Iterable[FoundFile]) -> Snapshot:
        """Return the entries of files. Raises UnusableFile."""
        snapshot: Snapshot = {}
        known, racy = self._known, self._racy
        for path, state in found:
            entry = known.get(path)
            if entry is None and not self._is_whole:
                self._load_rest()
                entry = known.get(path)
            if (
                entry is None
                or entry[2] != state.st_ctime_ns
                or entry[1] != state.st_mtime_ns
                or entry[0] != state.st_size
                or entry[3] != state.st_ino
                or entry[4] != state.st_mode
                or path in racy
            ):
                entry = self._read(path, state)
            snapshot[path] = entry
        return snapshot

    def take_entry(self, path: str) -> Entry:
        """Return the entry of one path; ABSENT if nothing is there. Raises UnusableFile."""
        try:
            state = os.lstat(path if path[:1] == "/" else f"{self.folder}/{path}")
        except (FileNotFoundError, NotADirectoryError):
            return ABSENT
        except OSError as error:
            raise UnusableFile(f"{path} can't be read: {error.strerror}") from None
        return self.take_snapshot([(path, state)])[path]

    def derive_state(self, path: str, compute: Callable[[bytes], str]) -> str:
        """Return `compute(content)` of a file, from the index if the file is unchanged; "-" if it is missing.

        Raises UnusableFile.
        """
        name = f"{path}\0derived"
        try:
            state = os.stat(path)
            known = self._known.get(name)
            found = get_stamp(state)
            if known is not None and known[:5] == found and name not in self._racy:
                return get_state(known)
            now_ns = self._read_clock_ns()
            if state.st_size > _LARGEST_DERIVED_BYTES:
                raise UnusableFile(f"{path} is larger than {_LARGEST_DERIVED_BYTES >> 20} MiB")
            content = files.read_start(Path(path), limit_bytes=state.st_size + 1)
        except FileNotFoundError:
            return "-"
        except OSError as error:
            raise UnusableFile(f"{path} can't be read: {error.strerror}") from None
        entry = (*found, compute(content))
        self._keep(name, entry, now_ns)
        return get_state(entry)

    def save(self) -> None:
        """Write the index, without entries that are too young. An error only makes the next run slower."""
        if self._index is None or not self._changed:
            return
        self._load_rest()
        old = {path: entry for path, entry in self._known.items() if path not in self._racy}
        lasting = {name: record for name, (record, _) in self._kept.items()}
        for _, snapshot in self._kept.values():
            self._recorded_paths.update(snapshot)
        others = self._records if len(self._records) < _MOST_RECORDS else {}
        loose = {path: entry for path, entry in old.items() if path not in self._recorded_paths}
        with suppress(OSError):
            _write(self._index, {path: entry for path, entry in old.items() if path in self._recorded_paths})
            _write(_get_walks_path(self._index), (loose, {**others, **lasting}))

    def _load_rest(self) -> None:
        """Load the entries of the files whose walks are recorded, keeping those that this process already has."""
        if self._is_whole:
            return
        assert self._index is not None
        self._is_whole = True
        rest = load_index(self._index)
        self._recorded_paths.update(rest)
        for path, entry in rest.items():
            self._known.setdefault(path, entry)

    def _read(self, path: str, state: os.stat_result) -> Entry:
        kind = stat.S_IFMT(state.st_mode)
        if kind == stat.S_IFLNK:
            return self._read_link(path, state)
        if kind == stat.S_IFDIR:
            return (0, 0, 0, state.st_ino, state.st_mode, "d")
        if kind != stat.S_IFREG:
            raise UnusableFile(f"{path} is neither a file nor a folder")
        return self._read_file(path, os.path.join(self.folder, path))

    def _read_link(self, path: str, state: os.stat_result) -> Entry:
        """Return the entry of a link, with that of its target, whose content counts, too, unless it is the kernel's."""
        full = os.path.join(self.folder, path)
        try:
            target = os.readlink(full)
        except OSError as error:
            raise UnusableFile(f"{path} can't be read: {error.strerror}") from None
        own = (*get_stamp(state), f"l {target}")
        try:
            end = os.stat(full)
        except OSError:  # its target is missing, or it leads in a circle
            return (*own, ABSENT)
        if stat.S_ISDIR(end.st_mode):
            return (*own, (0, 0, 0, 0, 0, "d"))
        if end.st_dev in _list_kernel_devices():
            return (*own, KERNEL)
        if not stat.S_ISREG(end.st_mode):
            raise UnusableFile(f"{path} leads to something that is neither a file nor a folder")
        entry = self._take_target(f"{path}\0{target}", full, end)
        return (*own, entry)

    def _take_target(self, name: str, full: str, state: os.stat_result) -> Entry:
        entry = self._known.get(name)
        if entry is None or entry[:5] != get_stamp(state) or name in self._racy:
            return self._read_file(name, full)
        return entry

    def _read_file(self, name: str, full: str) -> Entry:
        path = name.partition("\0")[0]
        for _ in range(_TRIES):
            # Read before the file is opened: a later change has a later time, or makes the entry racy.
            now_ns = self._read_clock_ns()
            try:
                entry = _hash_file(full)
            except OSError as error:
                raise UnusableFile(f"{path} can't be read: {error.strerror}") from None
            if entry is not None:
                self._keep(name, entry, now_ns)
                return entry
        raise UnusableFile(f"{path} changes while it is read")

    def _keep(self, name: str, entry: Entry, now_ns: int) -> None:
        if len(self._known) >= _MOST_ENTRIES:
            self._known.clear()
        self.read_count += 1
        self._known[name] = entry
        self._changed = True
        if max(int(entry[1]), int(entry[2])) > now_ns - _RACY_NS:
            self._racy.add(name)
        else:
            self._racy.discard(name)


@cache
def _list_kernel_devices() -> frozenset[int]:
    """Return the devices of the file systems in which the kernel shows its own files."""
    found: set[int] = set()
    others = {os.stat("/").st_dev}
    for folder, devices in (("/proc", found), ("/sys", found), ("/dev", found), ("/dev/shm", others)):  # nosec B108
        with suppress(OSError):
            devices.add(os.stat(folder).st_dev)
    return frozenset(found - others)


def load_index(path: Path) -> dict[str, Entry]:
    """Return the entries of an index; none if it is missing, damaged, or of another version."""
    loaded = _read(path)
    return loaded if isinstance(loaded, dict) else {}


def _load_walks(index: Path) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Return the entries of files that are in no record, and the records; none in the cases of `load_index`."""
    loaded = _read(_get_walks_path(index))
    return loaded if isinstance(loaded, tuple) else ({}, {})


def _get_walks_path(index: Path) -> Path:
    return index.with_name(index.name + _WALKS_SUFFIX)


def _read(path: Path) -> object:
    try:
        content = files.read_file(path, _LARGEST_INDEX_BYTES)
    except OSError:
        return None
    start = len(_MAGIC) + 4
    payload = memoryview(content)[start:]
    if content[: len(_MAGIC)] != _MAGIC or zlib.crc32(payload) != int.from_bytes(content[len(_MAGIC) : start], "big"):
        return None
    return marshal.loads(payload)  # from this user's private folder, and its digest was checked


def _write(path: Path, value: Any) -> None:
    payload = marshal.dumps(value)
    files.replace_file(path, _MAGIC + zlib.crc32(payload).to_bytes(4, "big") + payload, mode=0o600)


def _hash_file(full: str) -> Entry | None:
    """Return the entry of a regular file, or None if it changed meanwhile. Raises OSError."""
    import hashlib  # here: a run in which nothing has changed reads no files

    descriptor = os.open(full, _READ_FLAGS)
    with open(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            return None
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(descriptor)
    if get_stamp(before) != get_stamp(after):
        return None
    return (*get_stamp(after), f"{'x' if after.st_mode & 0o111 else 'f'} {digest}")
