"""Find the programs that pyenv's stubs start: all stubs are the same script, whichever version they start.

`~/.pyenv/shims/ruff` starts `~/.pyenv/versions/3.11.7/bin/ruff`. The version comes from PYENV_VERSION, otherwise from
the nearest `.python-version` in the folder or above it, otherwise from `~/.pyenv/version`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from paropt_exporter import files

_SYSTEM = "system"  # the program on PATH without the stubs
_LONGEST_FILE_BYTES = 1 << 12


def is_stub(program: str) -> bool:
    """Return whether a program is one of pyenv's stubs, by its place."""
    folder = os.path.dirname(program)
    return os.path.basename(folder) == "shims" and os.path.isdir(os.path.join(os.path.dirname(folder), "versions"))


def find_started_program(stub: str, *, cwd: Path, version: str | None) -> str | None:
    """Return the program that a stub starts, or None if it is not one of pyenv's versions.

    `version`: the value of PYENV_VERSION.
    """
    top = os.path.dirname(os.path.dirname(stub))
    for word in version.split(":") if version else _read_versions(top, cwd):
        if word == _SYSTEM:
            return None
        for name in (word, word.removeprefix("python-")):
            folder = _find_version(os.path.join(top, "versions"), name)
            program = os.path.join(folder, "bin", os.path.basename(stub)) if folder is not None else ""
            if os.path.isfile(program) and os.access(program, os.X_OK):
                return program
    return None


def _read_versions(top: str, cwd: Path) -> list[str]:
    for path in (*(folder / ".python-version" for folder in (cwd, *cwd.parents)), Path(top, "version")):
        with suppress(OSError):
            text = files.read_start(path, limit_bytes=_LONGEST_FILE_BYTES).decode(errors="replace")
            if words := [*_iter_words(text)]:
                return words
    return []


def _iter_words(text: str) -> Iterator[str]:
    """Yield the first word of each line that is not a comment, as pyenv reads the file."""
    for line in text.splitlines():
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        if word and not word.startswith("#") and "/" not in word and word != "..":
            yield word


def _find_version(versions: str, name: str) -> str | None:
    """Return the folder of a version, or of the latest one with that prefix: `3.11` means `3.11.7`."""
    if os.path.isdir(os.path.join(versions, name)):
        return os.path.join(versions, name)
    with suppress(OSError):
        found = [each for each in os.listdir(versions) if re.fullmatch(rf"{re.escape(name)}(?:\.\d+)+", each)]
        if found:
            return os.path.join(versions, max(found, key=lambda each: [int(part) for part in re.findall(r"\d+", each)]))
    return None
