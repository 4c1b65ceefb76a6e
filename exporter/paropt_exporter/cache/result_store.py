"""The store: results by key in `ac/`, contents by digest in `cas/`, in a folder that all checkouts of a user share.

A file is written beside its place and renamed. It is not synced: contents are verified whenever they are read, so a
crash of the machine costs only a miss. The most recently used files are kept, up to a size.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from msgspec import Struct

from paropt_exporter import files, plain_json
from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.entry import (
    BadEntry,
    Entry,
    MissingContent,
    UnreadableFile,
    format_entry,
    is_digest,
    parse_entry,
)
from paropt_exporter.config.units import parse_size
from paropt_exporter.errors import UsageError

if TYPE_CHECKING:
    import hashlib

FOLDER_VARIABLE, SIZE_VARIABLE = "PAROPT_CACHE_DIR", "PAROPT_CACHE_SIZE"
_OTHER_FOLDER = f": set {FOLDER_VARIABLE} to another folder"
DEFAULT_BYTES = 5_000_000_000
LARGEST_ENTRY_BYTES = 1 << 24
LARGEST_NOTE_BYTES = 1 << 16
LARGEST_TEXT_BYTES = 1 << 26  # of a kept output or a list of files
_LAYOUT = "v1"
# With them, stages' patterns, git and backups leave the store out, which CI systems want to have in the project.
_MARKS = {
    ".gitignore": "# Made by paropt-exporter.\n*\n",
    "CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of paropt-exporter: https://bford.info/cachedir/\n",
}
_CHUNK_BYTES = 1 << 20
_SECRET_BYTES = 32
# a use is recorded at most once an hour: this orders files well enough, and most hits write nothing
_TOUCH_SECONDS = 3600.0
_YOUNG_SECONDS = 3600.0  # pruning spares newer files, which a run may be about to name in an entry
# Older indexes most likely belong to deleted checkouts; if one is missing, files are read again.
_OLD_SECONDS = 30 * 86400.0
_SCANNED_SECONDS = 86400.0  # for so long the size is known by adding up writes; concurrent runs may miss some
_KEPT_RATIO = 0.8  # pruning leaves this much of the size, so that the next run need not prune again


class StoreUnusable(Exception):
    """The store can't be read or written. The message is one line with the reason."""


class StoredFile(Struct, frozen=True):
    """A file of the store. `used_timestamp_seconds`: when a run last used it."""

    path: str
    size_bytes: int
    used_timestamp_seconds: float


def find_store_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the store: PAROPT_CACHE_DIR, or `paropt-exporter` in the user's cache folder."""
    if named := environ.get(FOLDER_VARIABLE):
        return Path(named).absolute()
    return files.find_cache_folder(environ)


def open_store(environ: Mapping[str, str]) -> Store:
    """Return the user's store. Raises UsageError for an invalid PAROPT_CACHE_SIZE."""
    written = environ.get(SIZE_VARIABLE)
    try:
        limit_bytes = parse_size(written) if written else DEFAULT_BYTES
    except ValueError as error:
        raise UsageError(f"{SIZE_VARIABLE}: {error}") from None
    return Store(find_store_folder(environ), limit_bytes=limit_bytes)


class Store:
    """The results of tasks, for any number of processes at once.

    Guarantees: a result that `load` returns was written completely; a content that `read` or `copy` returns has its
    digest; files appear atomically; no file outside of the store is read or removed, whatever a result names. Methods
    that take a digest raise BadEntry for any other text. All but `prune` may be called from any thread.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = DEFAULT_BYTES) -> None:
        """Create nothing yet."""
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.written_bytes = 0
        top = folder / _LAYOUT
        self.index_folder, self.last_folder = top / "index", top / "last"
        self.lock_path, self.secret_path, self._size_path = top / "lock", top / "secret", top / "size"
        self._ac, self._cas, self._sets = (os.path.join(top, name) for name in ("ac", "cas", "sets"))

    def prepare(self) -> None:
        """Create the folders. Raises StoreUnusable."""
        try:
            files.make_private_folders(self.folder)
            for folder in self._list_folders():
                folder.mkdir(files.PRIVATE_FOLDER, exist_ok=True)
        except OSError as error:
            raise StoreUnusable(_describe("the cache is not used", error, self.folder) + _OTHER_FOLDER) from None
        self.check_access()
        for name, content in _MARKS.items():
            path = self.folder / _LAYOUT / name
            if not os.path.lexists(path):
                with suppress(OSError):  # a read-only store still serves hits
                    files.replace_file(path, content.encode(), mode=files.PRIVATE_FILE)

    def check_access(self) -> None:
        """Raise StoreUnusable if other users may write to a folder of the store that exists."""
        for folder in self._list_folders():
            try:
                state = folder.stat()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreUnusable(_describe("the cache is not used", error, self.folder) + _OTHER_FOLDER) from None
            if state.st_uid != os.getuid() or state.st_mode & 0o022:
                raise StoreUnusable(f"the cache is not used: other users may write to {folder}{_OTHER_FOLDER}")

    def read_secret(self) -> bytes:
        """Return the key for digests of variables; create it on first use. Raises StoreUnusable."""
        if (found := self.find_secret()) is not None:
            return found
        try:
            lock = files.open_lock(self.lock_path)
            try:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
                if (found := self.find_secret()) is not None:  # another process has created it first
                    return found
                secret = os.urandom(_SECRET_BYTES)
                files.replace_file(self.secret_path, secret, mode=files.PRIVATE_FILE)
                return secret
            finally:
                os.close(lock)
        except OSError as error:
            raise StoreUnusable(_describe("the cache is not used", error, self.secret_path)) from None

    def find_secret(self) -> bytes | None:
        """Return the key for digests of variables, or None if there is none yet. Raises StoreUnusable."""
        try:
            secret = files.read_file(self.secret_path, 1024)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnusable(_describe("the cache is not used", error, self.secret_path)) from None
        return secret if len(secret) == _SECRET_BYTES else None  # a power cut may leave an empty file

    def _list_folders(self) -> list[Path]:
        names = ("", _LAYOUT, *(f"{_LAYOUT}/{part}" for part in ("index", "last", "ac", "cas", "sets")))
        return [self.folder / name for name in names]

    def load(self, key: str) -> Entry | None:
        """Return the result under a key, or None if there is none. Raises BadEntry."""
        path = _place(self._ac, key)
        try:
            content = _read_whole(path, LARGEST_ENTRY_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _build_read_error("an entry of the cache can't be read", error, path) from None
        entry = parse_entry(content)
        if entry.key != key:
            raise BadEntry("an entry of the cache has the key of another one")
        return entry

    def contains(self, key: str) -> bool:
        """Return whether there may be a result under a key."""
        return os.path.exists(_place(self._ac, key))

    def save(self, entry: Entry) -> None:
        """Write a result, whose contents the store already has. Raises StoreUnusable."""
        self._write(_place(self._ac, entry.key), format_entry(entry))

    def find_path_sets(self, weak_key: str) -> Path:
        """Return the path of the file with the path sets of a weak key; it may be missing."""
        return Path(_place(self._sets, weak_key))

    def save_path_sets(self, weak_key: str, content: bytes) -> None:
        """Write the path sets under a weak key. Raises StoreUnusable."""
        self._write(_place(self._sets, weak_key), content)

    def touch_path_sets(self, weak_key: str, digests: Iterable[str]) -> None:
        """Record that path sets were used, for the choice of files to remove."""
        self._touch(_place(self._sets, weak_key), None)
        for digest in digests:
            self._touch(_place(self._cas, digest), None)

    def remove(self, key: str) -> None:
        """Remove an unusable result."""
        with suppress(OSError):
            os.unlink(_place(self._ac, key))

    def find_content(self, digest: str) -> Path:
        """Return the path of the file with a content; it may be missing."""
        return Path(_place(self._cas, digest))

    def get_size(self, digest: str) -> int:
        """Return the size of a content in bytes, 0 if it is missing."""
        try:
            return self.find_content(digest).stat().st_size
        except OSError:
            return 0

    def has(self, digest: str) -> bool:
        return os.path.exists(_place(self._cas, digest))

    def read(self, digest: str, limit_bytes: int = LARGEST_TEXT_BYTES) -> bytes:
        """Return a content. Raises BadEntry if it is missing or damaged."""
        path = _place(self._cas, digest)
        try:
            content = _read_whole(path, limit_bytes)
        except FileNotFoundError:
            raise MissingContent("a content of the cache was evicted") from None
        except OSError as error:
            raise _build_read_error("a content of the cache can't be read", error, path) from None
        if hash_bytes(content) != digest:
            self._discard(path)
            raise BadEntry("a content of the cache is damaged")
        return content

    def verify(self, digest: str) -> bool:
        """Return whether a content is present and undamaged; remove a damaged one."""
        try:
            self._read_through(digest)
        except BadEntry:
            return False
        return True

    def _read_through(self, digest: str) -> None:
        """Read a content. Raises BadEntry as `_iter_chunks` does."""
        try:
            for _ in self._iter_chunks(digest):
                pass
        except OSError as error:
            raise _build_read_error("a content of the cache can't be read", error, digest) from None

    def copy(self, digest: str, target: BinaryIO) -> None:
        """Write a content to a file. Raises BadEntry if it is missing or damaged, and OSError."""
        for chunk in self._iter_chunks(digest):
            target.write(chunk)

    def _iter_chunks(self, digest: str) -> Iterator[bytes]:
        """Yield a content in chunks, and remove it if it proves damaged. Raises BadEntry and OSError as `copy` does."""
        path = _place(self._cas, digest)
        try:
            source = files.open_for_reading(Path(path), follow_links=False)
        except FileNotFoundError:
            raise MissingContent("a content of the cache was evicted") from None
        except OSError as error:
            raise _build_read_error("a content of the cache can't be read", error, path) from None
        found = _begin_content_digest()
        with source:
            while chunk := source.read(_CHUNK_BYTES):
                found.update(chunk)
                yield chunk
        if found.hexdigest() != digest:
            self._discard(path)
            raise BadEntry("a content of the cache is damaged")

    def add(self, content: bytes) -> str:
        """Store a content, and return its digest. Raises StoreUnusable."""
        digest = hash_bytes(content)
        path = _place(self._cas, digest)
        if not self._touch(path, len(content)):
            self._write(path, content)
        return digest

    def add_file(self, source: BinaryIO, digest: str, size_bytes: int) -> None:
        """Store the content of a file with a known digest. Raises StoreUnusable, also if the file has changed since."""
        if self._touch(_place(self._cas, digest), size_bytes):
            return
        try:
            self.add_chunks(iter(lambda: source.read(_CHUNK_BYTES), b""), digest)
        except BadEntry:
            raise StoreUnusable("an output changed while it was stored") from None

    def add_chunks(self, chunks: Iterable[bytes], digest: str) -> None:
        """Store a content that comes in chunks.

        Raises StoreUnusable, BadEntry for another digest, and the chunks' errors.
        """
        path = _place(self._cas, digest)
        found, size_bytes = _begin_content_digest(), 0
        try:
            folder, name = _make_parent(path)
            temporary = os.path.join(folder, f".{name[:8]}.{os.urandom(4).hex()}")
            try:
                with os.fdopen(os.open(temporary, files.NEW_FILE_FLAGS, files.PRIVATE_FILE), "wb") as target:
                    for chunk in chunks:
                        found.update(chunk)
                        size_bytes += len(chunk)
                        target.write(chunk)
                if found.hexdigest() != digest:
                    raise BadEntry("a content is not the one that its digest names")
                os.rename(temporary, path)
            finally:
                with suppress(OSError):
                    os.unlink(temporary)
        except OSError as error:
            raise StoreUnusable(_describe("the result is not kept", error, path)) from None
        self.written_bytes += size_bytes

    def mark_used(self, entry: Entry) -> None:
        """Record that a result was used, for the choice of files to remove."""
        self._touch(_place(self._ac, entry.key), None)
        for digest in (*entry.list_blobs(), *entry.listings):
            self._touch(_place(self._cas, digest), None)

    def list_files(self) -> Iterator[StoredFile]:
        """Yield all entries and contents, without unfinished ones."""
        for file in self._list_files(self._ac, self._cas):
            if not os.path.basename(file.path).startswith("."):
                yield file

    def _list_files(self, *tops: str) -> Iterator[StoredFile]:
        for top in tops:
            for folder in _scan(top):
                for entry in _scan(folder.path):
                    with suppress(OSError):
                        state = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(state.st_mode):
                            yield StoredFile(entry.path, state.st_size, state.st_mtime)

    def is_result(self, file: StoredFile) -> bool:
        return file.path.startswith(self._ac)

    def list_faulty(self) -> Iterator[tuple[StoredFile, BadEntry]]:
        """Yield the entries and contents that are damaged, and remove them; also those that can't be read."""
        for file in self.list_files():
            name = os.path.basename(file.path)
            try:
                if self.is_result(file):
                    self.load(name)
                else:
                    self._read_through(name)
            except MissingContent:  # another process has removed it since
                continue
            except UnreadableFile as error:
                yield file, error
            except BadEntry as error:
                self._discard(file.path)
                yield file, error

    def prune_if_full(self) -> None:
        """Remove files if the store has become larger than its limit since the last call.

        It lists the files only then, and once a day: with 20,000 files that takes 0.2 s.
        """
        known, written = self._load_size(), self.written_bytes
        self.written_bytes = 0
        if known is None or known[0] + written > self.limit_bytes:
            self.prune()
        else:
            self._save_size(known[0] + written, known[1])

    def _load_size(self) -> tuple[int, float] | None:
        """Return the known size in bytes, and when all files were last listed; None if that is too long ago."""
        with suppress(OSError, ValueError):
            size, listed = files.read_file(self._size_path, 1024).split()
            if 0.0 <= time.time() - float(listed) < _SCANNED_SECONDS:
                return int(size), float(listed)
        return None

    def _save_size(self, size_bytes: int, listed_timestamp_seconds: float) -> None:
        with suppress(OSError):  # without it the next run lists the files
            content = f"{size_bytes} {int(listed_timestamp_seconds)}".encode()
            files.replace_file(self._size_path, content, mode=files.PRIVATE_FILE)

    def prune(self, limit_bytes: int | None = None, *, spare_young: bool = True) -> tuple[int, int]:
        """Remove the least recently used files, if the store is larger than its limit.

        Indexes that no run has written for a month are removed in any case, and so are notes of that age on tasks
        without a result. Return how many other files and bytes were removed. `spare_young`: keep files of the last
        hour, up to twice the limit.
        """
        self._remove_old_indexes_and_notes()
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        files_of_all = self._list_files(self._ac, self._cas, self._sets)
        found = sorted(files_of_all, key=lambda file: file.used_timestamp_seconds)
        total = sum(file.size_bytes for file in found)
        if total <= limit:
            self._save_size(total, time.time())
            return 0, 0
        young_since = time.time() - _YOUNG_SECONDS
        removed = removed_bytes = 0
        for file in found:
            left = total - removed_bytes
            if left <= limit * (_KEPT_RATIO if limit_bytes is None else 1.0):
                break
            if spare_young and file.used_timestamp_seconds > young_since and left <= 2 * limit:
                break
            with suppress(OSError):
                os.unlink(file.path)
                removed += 1
                removed_bytes += file.size_bytes
        self._save_size(total - removed_bytes, time.time())
        return removed, removed_bytes

    def _remove_old_indexes_and_notes(self) -> None:
        """Remove indexes and notes that no run has written for a month, except notes on results that the store has."""
        for entry in (*_scan(os.fspath(self.index_folder)), *_scan(os.fspath(self.last_folder))):
            with suppress(OSError):
                is_old = entry.stat(follow_symlinks=False).st_mtime < time.time() - _OLD_SECONDS
                if is_old and not self._has_noted_result(entry.path):
                    os.unlink(entry.path)

    def _has_noted_result(self, path: str) -> bool:
        """Return whether a file's notes name a result in the store; unchanged stages don't rewrite their notes."""
        with suppress(OSError, ValueError, KeyError, TypeError, BadEntry):
            keys = plain_json.loads(_read_whole(path, LARGEST_NOTE_BYTES))["keys"]
            return any(self.contains(str(key)) for key in keys)
        return False

    def _touch(self, path: str, size_bytes: int | None) -> bool:
        """Return whether a file is present with its full size, and record its use."""
        try:
            state = os.stat(path, follow_symlinks=False)
            if size_bytes is not None and state.st_size != size_bytes:
                return False
            if time.time() - state.st_mtime > _TOUCH_SECONDS:
                os.utime(path)
        except FileNotFoundError:
            return False
        except OSError:
            pass  # a read-only store still serves hits
        return True

    def _write(self, path: str, content: bytes) -> None:
        try:
            _make_parent(path)
            files.replace_file(Path(path), content, mode=files.PRIVATE_FILE)
        except OSError as error:
            raise StoreUnusable(_describe("the result is not kept", error, path)) from None
        self.written_bytes += len(content)

    def _discard(self, path: str) -> None:
        with suppress(OSError):
            os.unlink(path)


def _place(folder: str, name: str) -> str:
    """Return the path for an entry or content. Raises BadEntry for a name that could lead out of the folder."""
    if not is_digest(name):
        raise BadEntry(f"an entry of the cache names {name[:80]!r} in place of a digest")
    return os.path.join(folder, name[:2], name)


def _read_whole(path: str, limit_bytes: int) -> bytes:
    """Return the content of a regular file. Raises OSError, with EFBIG if it is too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if state.st_size > limit_bytes:
            raise OSError(errno.EFBIG, f"larger than {limit_bytes:,} bytes", path)
        content = os.read(descriptor, state.st_size + 1)
        while len(content) < state.st_size and (more := os.read(descriptor, state.st_size - len(content))):
            content += more
    finally:
        os.close(descriptor)
    return content


def _make_parent(path: str) -> tuple[str, str]:
    """Make the folder of a file. Return it and the file's name."""
    folder, name = os.path.split(path)
    os.makedirs(folder, mode=files.PRIVATE_FOLDER, exist_ok=True)
    return folder, name


def _begin_content_digest() -> hashlib._Hash:
    import hashlib  # here: most hits have no outputs

    return hashlib.sha256()


def _scan(folder: str) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as listing:
        yield from listing


def _build_read_error(what: str, error: OSError, path: str) -> BadEntry:
    """Return the error for a file that can't be read: it is damaged if something else is in its place."""
    kind = BadEntry if error.errno in (errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.ENXIO) else UnreadableFile
    return kind(_describe(what, error, path))


def _describe(what: str, error: OSError, path: object) -> str:
    return f"{what}: {error.strerror or error} ({path})"
