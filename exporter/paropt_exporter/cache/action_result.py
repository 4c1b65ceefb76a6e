"""Bazel's ActionResult, the message under `/ac` of its HTTP cache, as far as a result needs it.

Only length-delimited fields and numbers occur, which take 60 lines; protobuf's package would take 50 ms to load.
https://github.com/bazelbuild/remote-apis/blob/main/build/bazel/remote/execution/v2/remote_execution.proto
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

# Field numbers of ActionResult, OutputFile and Digest.
_OUTPUT_FILES, _STDERR_DIGEST = 2, 8
_FILE_PATH, _FILE_DIGEST, _FILE_EXECUTABLE = 1, 2, 4
_DIGEST_HASH, _DIGEST_SIZE = 1, 2
_VARINT, _DELIMITED = 0, 2  # wire types
_FIXED_SIZES = {1: 8, 5: 4}


class BadMessage(Exception):
    """The bytes are no ActionResult with an entry."""


class Digest(Struct, frozen=True):
    """The SHA-256 of a content, and its size."""

    hash: str
    size_bytes: int


def format_action_result(entry: Digest, contents: list[tuple[str, Digest, bool]]) -> bytes:
    """Return a message. `entry` is the digest of the entry; `contents` are path, digest and whether it is executable.

    The contents are listed as output files, so that a server that checks its results keeps them together.
    """
    message = b"".join(
        _format_field(
            _OUTPUT_FILES,
            _format_field(_FILE_PATH, path.encode("utf-8", "replace"))
            + _format_field(_FILE_DIGEST, _format_digest(digest))
            + (_format_number(_FILE_EXECUTABLE, 1) if executable else b""),
        )
        for path, digest, executable in contents
    )
    return message + _format_field(_STDERR_DIGEST, _format_digest(entry))


def parse_action_result(message: bytes) -> Digest:
    """Return the digest of the entry. Raises BadMessage."""
    found = [value for number, value in _iter_fields(message) if number == _STDERR_DIGEST]
    if not found or not isinstance(found[-1], bytes):
        raise BadMessage("it has no entry of this program")
    fields = dict(_iter_fields(found[-1]))
    name, size = fields.get(_DIGEST_HASH), fields.get(_DIGEST_SIZE, 0)
    if not isinstance(name, bytes) or not isinstance(size, int):
        raise BadMessage("its digest has another form")
    return Digest(name.decode("ascii", "replace"), size)


def _format_digest(digest: Digest) -> bytes:
    return _format_field(_DIGEST_HASH, digest.hash.encode()) + _format_number(_DIGEST_SIZE, digest.size_bytes)


def _format_field(number: int, content: bytes) -> bytes:
    return _format_varint(number << 3 | _DELIMITED) + _format_varint(len(content)) + content


def _format_number(number: int, value: int) -> bytes:
    return _format_varint(number << 3 | _VARINT) + _format_varint(value)


def _format_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _iter_fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield the fields' numbers and values; fixed-size values are skipped. Raises BadMessage."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _read_varint(message, at)
            yield number, value
        elif wire == _DELIMITED:
            size, at = _read_varint(message, at)
            if at + size > len(message):
                raise BadMessage("it is cut off")
            yield number, message[at : at + size]
            at += size
        elif wire in _FIXED_SIZES:
            at += _FIXED_SIZES[wire]
        else:
            raise BadMessage("it has a field of an unknown kind")


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise BadMessage("it is cut off")
