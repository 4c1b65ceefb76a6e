"""SHA-256 of short texts by the interpreter's own C module: hashlib loads OpenSSL, which takes 3 ms of a short run.

For contents of files hashlib is faster: 0.7 ms for a megabyte instead of 4.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

_MODULES = ("_sha2", "_sha256", "hashlib")  # since Python 3.12; earlier; in a build with neither
_LARGEST_SHORT_BYTES = 1 << 17


class Hash(Protocol):
    def update(self, content: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Hash: ...


def _find_sha256() -> Callable[[bytes], Hash]:
    for name in _MODULES:
        with suppress(ModuleNotFoundError):
            found: Callable[[bytes], Hash] = importlib.import_module(name).sha256
            return found
    raise ModuleNotFoundError("no module has SHA-256")


_sha256 = _find_sha256()


def begin_digest(content: bytes = b"") -> Hash:
    """Return an updatable SHA-256 digest for short contents."""
    return _sha256(content)


def hash_bytes(content: bytes) -> str:
    """Return the SHA-256 of a content in hexadecimal."""
    if len(content) <= _LARGEST_SHORT_BYTES:
        return begin_digest(content).hexdigest()
    import hashlib

    return hashlib.sha256(content).hexdigest()
