"""One result in the store: the output that the task printed, the files that it wrote, and the parts of its key."""

from __future__ import annotations

import json

from msgspec import Struct

from paropt_exporter.cache.digests import hash_bytes

VERSION = 1


class BadEntry(Exception):
    """An entry is damaged, or of a newer version."""


class OutputFile(Struct, frozen=True):
    """A file that a task wrote: its kind (`f`, `x` for an executable, `l` for a link), and digest or target."""

    path: str
    kind: str
    value: str
    size_bytes: int = 0

    @property
    def state(self) -> str:
        return f"{self.kind} {self.value}"


class Entry(Struct, frozen=True, kw_only=True):
    """The result of a task under its key. `output` is the digest of its kept output, `listings` those of its inputs."""

    key: str
    stage: str
    item: str | None
    seconds: float
    created_timestamp_seconds: float
    output: str
    files: tuple[OutputFile, ...]
    components: tuple[tuple[str, str], ...]
    listings: tuple[str, ...]

    def list_blobs(self) -> list[str]:
        """Return the digests of the contents that a hit needs."""
        return [self.output, *(file.value for file in self.files if file.kind != "l")]


def format_entry(entry: Entry) -> bytes:
    """Return an entry as bytes, with a digest in the first line that shows a half-written one."""
    body = json.dumps(
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
        }
    ).encode()
    return f"{hash_bytes(body)}\n".encode() + body


def parse_entry(content: bytes) -> Entry:
    """Read an entry. Raises BadEntry."""
    digest, _, body = content.partition(b"\n")
    if hash_bytes(body).encode() != digest:
        raise BadEntry("an entry of the cache is damaged")
    try:
        values = json.loads(body)
        if values["version"] != VERSION:
            raise BadEntry(f"an entry of the cache has version {values['version']}, which this program does not know")
        return Entry(
            key=str(values["key"]),
            stage=str(values["stage"]),
            item=values["item"],
            seconds=float(values["seconds"]),
            created_timestamp_seconds=float(values["created"]),
            output=str(values["output"]),
            files=tuple(OutputFile(str(a), str(b), str(c), int(d)) for a, b, c, d in values["files"]),
            components=tuple((str(name), str(value)) for name, value in values["components"]),
            listings=tuple(str(listing) for listing in values["listings"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadEntry(f"an entry of the cache can't be read: {error}") from None
