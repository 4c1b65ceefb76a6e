"""Follow the log files that a service's stdout and stderr were redirected to, when they are rotated."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

log = logging.getLogger(__name__)

STANDARD = (1, 2)


class _Target(Struct, frozen=True):
    """A regular file with its mode, and the descriptors that write to it."""

    path: Path
    mode: int
    descriptors: tuple[int, ...]


class RedirectedOutput:
    """The regular files behind descriptors: by default stdout and stderr.

    Guarantees: a file that was truncated in place (logrotate's `copytruncate`) goes on at its new end, without a hole,
    since it is open for appending. A file that was moved away or deleted is created again at its path by `follow`, with
    the same mode; if that fails, the old one stays in use, which is logged once. Links are not followed then. A
    descriptor that was closed to further output (`discard_output`), as on a full disk, writes to its file again.
    """

    def __init__(self, descriptors: Sequence[int] = STANDARD) -> None:
        self._targets = tuple(_find_targets(descriptors))
        self._failed = False
        for target in self._targets:
            for descriptor in target.descriptors:
                fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)

    def follow(self) -> None:
        """Create the files again that are no longer at their paths, and write to them from now on."""
        for target in self._targets:
            try:
                if not all(_is_at(target.path, os.fstat(descriptor)) for descriptor in target.descriptors):
                    _reopen(target)
            except OSError as error:
                if not self._failed:
                    log.warning(
                        "the log file was moved away, and can't be created again: the old one stays in use",
                        extra={"path": str(target.path), "err": error.strerror},
                    )
                self._failed = True


def find_redirected_files() -> list[Path]:
    """Return the regular files to which stdout and stderr of this process go."""
    return [target.path for target in _find_targets(STANDARD)]


def _find_targets(descriptors: Sequence[int]) -> list[_Target]:
    """Return the regular files behind the descriptors, each once."""
    found: dict[Path, tuple[int, list[int]]] = {}
    for descriptor in descriptors:
        try:
            status = os.fstat(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if stat.S_ISREG(status.st_mode) and _is_at(path, status):
                found.setdefault(path, (stat.S_IMODE(status.st_mode), []))[1].append(descriptor)
        except OSError:  # it is closed, or there is no /proc
            continue
    return [_Target(path, mode, tuple(places)) for path, (mode, places) in found.items()]


def _is_at(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), status)
    except FileNotFoundError:
        return False


def _reopen(target: _Target) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    new = os.open(target.path, flags, target.mode)
    try:
        if not stat.S_ISREG(os.fstat(new).st_mode):
            raise OSError(0, "not a regular file")
        for descriptor in target.descriptors:
            os.dup2(new, descriptor)
    finally:
        os.close(new)
