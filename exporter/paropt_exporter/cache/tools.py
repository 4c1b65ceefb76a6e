"""The identity of the programs that a stage runs, so that an upgrade runs the stage again.

A program is identified by its content. A script that pip wrote begins with the path of its environment's Python, which
differs between checkouts: its first line is replaced by the identity of that interpreter, and the environment's
packages count by their RECORD files.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.file_states import FileStates, UnusableFile, get_state
from paropt_exporter.lazy_patterns import compile_later

_LONGEST_SCRIPT_BYTES = 1 << 16
_MOST_LINKS = 8  # of scripts that name scripts as their interpreters
_NODE_PACKAGES = "node_modules/.package-lock.json"  # npm writes the versions of all packages there
# In a RECORD: files that pip writes with the path of the environment or of the checkout in them.
_PATHS_IN_RECORD = compile_later(
    r"^(?:\.\./)+bin/|/(?:direct_url\.json|RECORD|INSTALLER|REQUESTED|uv_cache\.json),|^__editable__"
)


class Tools:
    """Reads the identities of programs and environments as they are now."""

    def __init__(self, root: Path, states: FileStates) -> None:
        self._root = os.fspath(root)
        self._states = states

    def identify(
        self, steps: Iterable[Sequence[str]], *, cwd: Path, path: str, environment: str | None
    ) -> dict[str, str]:
        """Return the identities of a stage's tools by name. `environment`: the virtual environment's folder.

        The packages of the environment have their names and versions under `packages`. Raises UnusableFile.
        """
        found: dict[str, str] = {}
        for name in dict.fromkeys(_iter_program_names(steps)):
            program = _find_program(name, cwd, path)
            if program is not None:
                found[os.path.basename(name)] = self._identify_program(program)
        if environment is not None:
            found["environment"], found["packages"] = self._identify_environment(environment)
        node = os.path.join(self._root, _NODE_PACKAGES)
        if os.path.exists(node):
            found["node_modules"] = get_state(self._states.take_entry(node))
        return found

    def _identify_program(self, program: str, depth: int = 0) -> str:
        real = os.path.realpath(program)
        head = _read_head(real)
        if not head.startswith(b"#!") or depth >= _MOST_LINKS:
            return self._get_state(real)
        first, _, rest = head.partition(b"\n")
        words = [os.fsdecode(word) for word in first[2:].split()]
        parts = [hash_bytes(rest) if len(head) < _LONGEST_SCRIPT_BYTES else self._get_state(real)]
        if words and os.path.isabs(words[0]) and os.path.exists(words[0]):
            parts += [self._identify_program(words[0], depth + 1), *words[1:]]
            folder = os.path.dirname(os.path.dirname(words[0]))
            if os.path.exists(os.path.join(folder, "pyvenv.cfg")):
                parts += self._identify_environment(folder)
        return _hash_texts(parts)

    def _get_state(self, path: str) -> str:
        return get_state(self._states.take_entry(path))

    def _identify_environment(self, folder: str) -> tuple[str, str]:
        """Return the identity of a virtual environment's interpreter and packages, and the packages' names."""
        parts: list[str] = []
        names: list[str] = []
        python = os.path.join(folder, "bin", "python")
        if os.path.exists(python):
            parts.append(self._get_state(os.path.realpath(python)))
        for packages in sorted(Path(folder, "lib").glob("python*/site-packages")):
            for name, state in self._iter_packages(os.fspath(packages)):
                parts += [name, state]
                names += [name.removesuffix(".dist-info")] if name.endswith(".dist-info") else []
        return _hash_texts(parts), " ".join(names)

    def _iter_packages(self, packages: str) -> Iterator[tuple[str, str]]:
        places = (os.fsencode(packages), os.fsencode(self._root))
        hide = lambda content: _hash_texts([os.fsdecode(_hide_places(content, places))])  # noqa: E731
        for name in sorted(os.listdir(packages)):
            path = os.path.join(packages, name)
            if name.endswith(".dist-info"):
                yield name, self._states.derive_state(os.path.join(path, "RECORD"), _hash_record)
                yield f"{name}/direct_url.json", self._states.derive_state(os.path.join(path, "direct_url.json"), hide)
            elif name.endswith((".pth", ".egg-link")):
                yield name, self._states.derive_state(path, hide)


def _hash_record(content: bytes) -> str:
    lines = content.splitlines()
    kept = [line for line in lines if not _PATHS_IN_RECORD.search(line.decode("utf-8", "surrogateescape"))]
    return hash_bytes(b"\n".join(kept))


def _hash_texts(texts: Iterable[str]) -> str:
    return hash_bytes("\0".join(texts).encode("utf-8", "surrogateescape"))


def _hide_places(content: bytes, places: Iterable[bytes]) -> bytes:
    """Replace the paths of the environment and the checkout, which differ between checkouts."""
    for place in places:
        content = content.replace(place, b".")
    return content


def _iter_program_names(steps: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the words that may be programs: the first of each step, and the words of a line for a shell.

    Words of a line that are paths are left out: they are files of the project, which count as inputs.
    """
    for words in steps:
        if not words:
            continue
        yield words[0]
        if os.path.basename(words[0]) in ("sh", "bash", "dash", "zsh") and len(words) == 3 and words[1] == "-c":
            yield from (word for word in _split_line(words[2]) if "/" not in word or word.startswith("/"))
        elif os.path.basename(words[0]) == "env":
            yield from words[1:]


def _split_line(line: str) -> list[str]:
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        return list(lexer)
    except ValueError:
        return line.split()


def _find_program(name: str, cwd: Path, path: str) -> str | None:
    """Return the file of a program, or None for a word that is none."""
    if "/" in name:
        full = os.path.join(cwd, name)
        return full if os.path.isfile(full) else None
    for folder in path.split(os.pathsep):
        full = os.path.join(cwd, folder, name)
        if os.access(full, os.X_OK) and os.path.isfile(full):
            return full
    return None


def _read_head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LONGEST_SCRIPT_BYTES)
    except OSError as error:
        raise UnusableFile(f"{path} can't be read: {error.strerror}") from None


def find_environment(variables: Mapping[str, str]) -> str | None:
    """Return the folder of the virtual environment that a stage's commands use, or None."""
    folder = variables.get("VIRTUAL_ENV")
    return folder if folder and os.path.isdir(folder) else None
