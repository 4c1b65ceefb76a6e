"""Keep the values of valid configs between runs, in the user's cache folder.

A lane of one short stage spent 0.15 of 0.5 CPU seconds on pydantic, PyYAML and the checks. An entry includes everything
on which the validity of its values depends: the content of the file, the program's version and source files, the cores,
and the memory if a stage needs some. It counts only if all of these are still the same.

Nothing in an entry is trusted blindly: the folder and the file must belong to this user and be closed to all others,
the file is JSON with a checksum, and an entry with any fault is the same as none. Entries are written by renaming, one
for each config and program, and the oldest ones are removed.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from paropt_exporter import files, plain_json
from paropt_exporter._version import __version__
from paropt_exporter.config import values
from paropt_exporter.events import Strategy

if TYPE_CHECKING:
    from typing import Any

_FORMAT = 1
_MOST_ENTRIES = 100
_MOST_BYTES = 16 << 20  # of all entries
_LONGEST_NAME = 200  # characters of a file name
_RECORDS: dict[str, Callable[..., object]] = {
    name: record
    for name, record in vars(values).items()
    if isinstance(record, type) and record.__module__ == values.__name__
}
_OTHERS = 0o077  # the permissions of all users but the owner


class ParsedConfigs:
    """The kept values of this user's configs. `environ` says where the cache is."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._folder = files.find_cache_folder(environ) / "configs"

    def find(
        self, path: Path, content: bytes, *, cores: int, memory_bytes: Callable[[], int]
    ) -> values.CheckedFile | None:
        """Return the values of a file with this content, or None if they are not known to be valid here."""
        file = self._find_values(path, content, cores, memory_bytes)
        return file if isinstance(file, values.CheckedFile) else None

    def find_host_file(self, path: Path, content: bytes) -> values.HostFile | None:
        """Return the values of a host config with this content, or None if they are not known to be valid."""
        file = self._find_values(path, content, 0, lambda: 0)
        return file if isinstance(file, values.HostFile) else None

    def _find_values(self, path: Path, content: bytes, cores: int, memory_bytes: Callable[[], int]) -> object:
        try:
            program = _describe_program()
            entry = _parse_entry(_read_own_file(self._folder, _choose_name(path, program)))
            if entry["key"] != [program, cores, content.decode()]:
                return None
            if entry["memory_bytes"] and entry["memory_bytes"] != memory_bytes():
                return None
            return _decode(entry["file"])
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None

    def store(
        self, path: Path, content: bytes, file: values.CheckedFile | values.HostFile, *, cores: int, memory_bytes: int
    ) -> None:
        """Keep the values of a valid file. `memory_bytes`: the machine's, or 0 if no stage asks for memory."""
        program = _describe_program()
        entry = {"key": [program, cores, content.decode()], "memory_bytes": memory_bytes, "file": _encode(file)}
        self._write(_choose_name(path, program), entry)

    def find_schema(self) -> str | None:
        """Return the JSON Schema of this program's configs, or None if it is not kept."""
        try:
            program = _describe_program()
            entry = _parse_entry(_read_own_file(self._folder, _choose_schema_name(program)))
            return str(entry["schema"]) if entry["key"] == program else None
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None

    def store_schema(self, text: str) -> None:
        """Keep the JSON Schema of this program's configs, for which pydantic takes 0.15 CPU seconds."""
        program = _describe_program()
        self._write(_choose_schema_name(program), {"key": program, "schema": text})

    def _write(self, name: str, entry: dict[str, object]) -> None:
        import json  # here: an unchanged config is only read

        text = json.dumps(entry, separators=(",", ":"))
        with suppress(OSError):  # a cache that can't be written only costs time
            if not _may_create(self._folder):
                return
            # The store of results is in the same folder, and refuses a folder to which others may write.
            files.make_private_folders(self._folder.parent, self._folder)
            if _is_private(self._folder.lstat(), stat.S_IFDIR):
                content = f"{zlib.crc32(text.encode()):08x}{text}".encode()
                files.replace_file(self._folder / name, content, mode=files.PRIVATE_FILE)
                _remove_oldest(self._folder)


def _choose_name(path: Path, program: object) -> str:
    """Return the name of a config's entry. If two configs have the same one, they replace each other's entry."""
    readable = os.path.abspath(path).replace("/", "%")[-_LONGEST_NAME:]  # noqa: PTH100 -- keeps links
    return f"{zlib.crc32(repr(program).encode()):08x}{readable}"


def _choose_schema_name(program: object) -> str:
    return f"{zlib.crc32(repr(program).encode()):08x}schema"  # other entries have a % there


def _describe_program() -> list[object]:
    """Return the identity of the program that checks configs. Entries of different programs are kept side by side."""
    return [_FORMAT, __version__, _describe_sources()]


def _describe_sources() -> list[list[object]]:
    """Return the name, time and size of each source file that reads configs: a checkout changes within a version."""
    with os.scandir(Path(__file__).parent) as entries:
        found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py")]
    return sorted([name, status.st_mtime_ns, status.st_size] for name, status in found)


def _read_own_file(folder: Path, name: str) -> bytes:
    """Return the content of a file that only this user can have written. Raises OSError if there is none."""
    if not _is_private(folder.lstat(), stat.S_IFDIR):
        raise PermissionError(f"{folder} is open to other users")
    descriptor = files.open_regular(folder / name)
    with open(descriptor, "rb") as file:  # noqa: PTH123 -- a descriptor, no path
        if not _is_private(os.fstat(descriptor), stat.S_IFREG):
            raise PermissionError(f"{folder / name} is open to other users")
        return file.read(_MOST_BYTES)


def _may_create(folder: Path) -> bool:
    """Return whether to make a missing folder.

    root makes none in another user's home, since that user could not write there.
    """
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return there.stat().st_uid == os.geteuid() or os.geteuid() != 0


def _is_private(status: os.stat_result, kind: int) -> bool:
    mode = status.st_mode
    return stat.S_IFMT(mode) == kind and status.st_uid == os.geteuid() and not mode & _OTHERS


def _parse_entry(content: bytes) -> dict[str, object]:
    checksum, text = content[:8], content[8:]
    if int(checksum, 16) != zlib.crc32(text):
        raise ValueError("the checksum differs")
    entry: dict[str, object] = plain_json.loads(text)
    return entry


def _encode(value: object) -> object:
    """Return a value in JSON types. A list begins with the name of its type, "" for a tuple."""
    if isinstance(value, Strategy):
        return ["Strategy", value.value]
    if isinstance(value, tuple):
        return ["", *map(_encode, value)]
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {name: _encode(each) for name, each in value.items()}
    return [type(value).__name__, {name: _encode(each) for name, each in _list_given_fields(value)}]


def _list_given_fields(record: Any) -> Iterator[tuple[str, object]]:
    """Yield the names and values of a record's fields that differ from the defaults."""
    names, defaults = record.__struct_fields__, record.__struct_defaults__
    for place, name in enumerate(names, len(defaults) - len(names)):
        given = getattr(record, name)
        if place < 0 or (given != defaults[place] and given != {}):
            yield name, given


def _decode(value: object) -> object:
    if isinstance(value, dict):
        return MappingProxyType({name: _decode(each) for name, each in value.items()})
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if not kind:
        return tuple(map(_decode, rest))
    if kind == "Strategy":
        return Strategy(rest[0])
    return _RECORDS[kind](**{name: _decode(each) for name, each in rest[0].items()})


def _remove_oldest(folder: Path) -> None:
    """Remove the entries written longest ago, beyond the limits."""
    with os.scandir(folder) as entries:
        found = [(entry.path, entry.stat(follow_symlinks=False)) for entry in entries]
    found.sort(key=lambda each: each[1].st_mtime_ns, reverse=True)
    sizes = accumulate(status.st_size for _, status in found)
    for number, ((path, _), size) in enumerate(zip(found, sizes, strict=True)):
        if number >= _MOST_ENTRIES or size > _MOST_BYTES:
            os.unlink(path)  # noqa: PTH108 -- it is no Path
