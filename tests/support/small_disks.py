"""A small disk of its own for a test, which can be filled and freed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SMALL_BYTES = 1 << 20
_PIECE_BYTES = 4096


class SmallDisk:
    """A mounted file system of 1 MiB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Take all its room."""
        with self._filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(_PIECE_BYTES))

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink()


@contextmanager
def mount_small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount a small disk at a new folder until the block ends; skip the test where nothing can be mounted."""
    folder.mkdir()
    options = f"size={SMALL_BYTES},mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "paropt", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
