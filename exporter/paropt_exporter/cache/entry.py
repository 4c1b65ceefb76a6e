"""One result in the store: the output that the task printed, the files that it wrote, and the parts of its key."""

from __future__ import annotations

import os
import posixpath
import string
import sys
from collections.abc import Sequence

from msgspec import Struct

from paropt_exporter import plain_json
from paropt_exporter.cache.digests import hash_bytes

VERSION = 1
_KINDS = ("f", "x", "l")
_DIGEST_DIGITS = frozenset(string.hexdigits.lower())
_DIGEST_LENGTH = 64
_MOST_SECONDS = 366 * 86_400.0  # of a task; a larger value would stay in the totals of the history
# A value takes two bytes of JSON, but 60 of memory: a remote entry with millions of them would take half a gigabyte. An
# entry of the largest size has 800,000, with a path of 20 bytes for each file.
_MOST_VALUES = 2_000_000
_LONGEST_PATH_BYTES = 4095  # Linux's limit; folder by folder a longer one could be made, but no tool could remove it


class BadEntry(Exception):
    """An entry or a content can't be used: it is damaged, or of a newer version."""


class MissingContent(BadEntry):
    """A content was evicted."""


class UnreadableFile(BadEntry):
    """An entry or a content could not be read, such as without a free descriptor. It may be undamaged."""


class OutputFile(Struct, frozen=True):
    """A file that a task wrote: its kind (`f`, `x` for an executable, `l` for a link), and its digest or target."""

    path: str
    kind: str
    value: str
    size_bytes: int = 0

    @property
    def state(self) -> str:
        return f"{self.kind} {self.value}"


class Entry(Struct, frozen=True, kw_only=True):
    """The result of a task under its key.

    `output`: the digest of its kept output; `listings`: those of its input lists.

    `leftovers`: the paths of `files` that the task did not write, since an earlier run had left them there. The result
    counts only where they are still the same.
    """

    key: str
    stage: str
    item: str | None
    seconds: float
    created_timestamp_seconds: float
    output: str
    files: tuple[OutputFile, ...]
    components: tuple[tuple[str, str], ...]
    listings: tuple[str, ...]
    leftovers: tuple[str, ...] = ()

    def list_blobs(self) -> list[str]:
        """Return the digests of the contents that a hit needs."""
        return [self.output, *(file.value for file in self.files if file.kind != "l")]


def format_entry(entry: Entry) -> bytes:
    """Return an entry as bytes. A digest in the first line detects entries that were written only in part."""
    body = plain_json.dumps(
        {
            "version": VERSION,
            "key": entry.key,
            "stage": entry.stage,
            "item": entry.item,
            "seconds": entry.seconds,
            "created": entry.created_timestamp_seconds,
            "output": entry.output,
            "files": [[file.path, file.kind, file.value, file.size_bytes] for file in entry.files],
            "components": entry.components,
            "listings": entry.listings,
            "leftovers": entry.leftovers,
        }
    ).encode()
    return f"{hash_bytes(body)}\n".encode() + body


def parse_entry(content: bytes) -> Entry:
    """Parse an entry, which another program may have written. Raises BadEntry.

    In the result, digests are valid, numbers are finite, files have paths without `..`, and leftovers are among these
    files.
    """
    digest, _, body = content.partition(b"\n")
    if hash_bytes(body).encode() != digest:
        raise BadEntry("an entry of the cache is damaged")
    if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES:  # or so many of these characters in texts
        raise BadEntry(f"an entry of the cache has more than {_MOST_VALUES:,} values")
    try:
        values = plain_json.loads(body)
        if values["version"] != VERSION:
            version = str(values["version"])[:80]
            raise BadEntry(f"an entry of the cache has version {version}, which this program does not know")
        outputs = tuple(_read_file(*fields) for fields in values["files"])
        return Entry(
            key=str(values["key"]),
            stage=str(values["stage"]),
            item=_check_item(values["item"]),
            seconds=_check_number(values["seconds"], most=_MOST_SECONDS),
            created_timestamp_seconds=_check_number(values["created"]),
            output=_check_digest(values["output"]),
            files=outputs,
            components=tuple((str(name), str(value)) for name, value in values["components"]),
            listings=tuple(_check_digest(listing) for listing in values["listings"]),
            leftovers=_check_leftovers(values["leftovers"], outputs),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BadEntry(f"an entry of the cache can't be read: {error}") from None


def is_digest(text: object) -> bool:
    """Return whether a text is a SHA-256, and so the name of a file in the store."""
    return isinstance(text, str) and len(text) == _DIGEST_LENGTH and _DIGEST_DIGITS.issuperset(text)


def _check_digest(value: object) -> str:
    if not is_digest(value):
        raise ValueError(f"expected a digest, found {str(value)[:80]!r}")
    return str(value)


def _check_item(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"expected an item, found {str(value)[:80]!r}")
    return value


def _check_number(value: object, *, most: float = sys.float_info.max) -> float:
    if not isinstance(value, int | float) or not 0.0 <= float(value) <= most:
        raise ValueError(f"expected a number from 0 to {most:g}, found {str(value)[:80]!r}")
    return float(value)


def _read_file(path: object, kind: object, value: object, size_bytes: object) -> OutputFile:
    name = str(path)
    if name in ("", ".") or name.startswith(("/", "../")) or posixpath.normpath(name) != name:
        raise ValueError(f"{name[:80]!r} leads out of the project")
    _check_path(name)
    if kind not in _KINDS:
        raise ValueError(f"expected a kind of file, found {str(kind)[:80]!r}")
    target = _check_digest(value) if kind != "l" else _check_path(str(value))
    return OutputFile(name, str(kind), target, int(_check_number(size_bytes)))


def _check_leftovers(paths: object, outputs: Sequence[OutputFile]) -> tuple[str, ...]:
    """Return the paths of leftovers, which must be outputs, since a lookup reads them. Raises ValueError."""
    found = tuple(map(str, paths)) if isinstance(paths, list) else ()
    if unknown := {*found} - {file.path for file in outputs}:
        raise ValueError(f"{min(unknown)[:80]!r} is no output")
    return found


def _check_path(text: str) -> str:
    """Return a text if it can be a path on this system. Raises ValueError."""
    path = os.fsencode(text)
    if not 0 < len(path) <= _LONGEST_PATH_BYTES or b"\0" in path:
        raise ValueError(f"{text[:80]!r} is no path")
    return text
