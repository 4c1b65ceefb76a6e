"""The identities of the programs that a stage's commands start, and of the packages that these import."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from paropt_exporter import files
from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.file_states import ABSENT, FileStates, UnusableFile, get_state
from paropt_exporter.input_files import InputPatterns
from paropt_exporter.lazy_patterns import compile_later
from paropt_exporter.plan.implied_inputs import is_line, iter_folders

_LONGEST_SCRIPT_BYTES = 1 << 16
_MOST_LINKS = 8  # in a chain of scripts that name scripts as their interpreters
# npm, pnpm and yarn write the versions of all packages there.
_NODE_PACKAGES = (".package-lock.json", ".pnpm/lock.yaml", ".yarn-integrity", ".yarn-state.yml")
_PACKAGES = ("site-packages", "dist-packages")
_SYSTEM_PACKAGES = compile_later(r"(?im)^include-system-site-packages\s*=\s*true")
# In a RECORD: files into which pip writes the path of the environment or of the checkout.
_PATHS_IN_RECORD = compile_later(
    r"^(?:\.\./)+bin/|/(?:direct_url\.json|RECORD|INSTALLER|REQUESTED|uv_cache\.json),|^__editable__"
)
_SYSTEM = "system"  # to pyenv: the program on PATH without the stubs
_LONGEST_VERSION_FILE_BYTES = 1 << 12


class Tools:
    """Reads the identities of programs and environments as they are now, so that an upgrade runs a stage again.

    A program is identified by its content. A script that pip wrote begins with the path of its environment's Python,
    which differs between checkouts, so its first line is replaced with the identity of that interpreter. The packages
    of its environment, virtual or not, count by their RECORD files. `#!/usr/bin/env python` means the `python` on the
    stage's PATH.
    """

    def __init__(self, root: Path, states: FileStates, home: str) -> None:
        self._root = os.fspath(root)
        self._states = states
        self._home = home
        self._package_names: set[str] = set()  # with versions, of all environments of a stage

    def identify(
        self,
        steps: Iterable[Sequence[str]],
        *,
        cwd: Path,
        path: str,
        environment: str | None,
        conda: str | None = None,
        python_version: str | None = None,
    ) -> dict[str, str]:
        """Return the identities of a stage's tools by name.

        `environment`: the virtual environment's folder; `conda`: that of the active conda environment.
        `python_version`: the version that pyenv's stubs start.

        `packages` in the result has the names and versions of the packages in this environment and in those of the
        programs. Raises UnusableFile.
        """
        found: dict[str, str] = {}
        self._package_names.clear()
        find = partial(_find_program, cwd=cwd, path=path, python_version=python_version)
        for name in dict.fromkeys(_iter_program_names(steps)):
            program = find(name)
            if program is not None:
                known, identity = os.path.basename(name), self._identify_program(program, environment, find)
                found[known] = _hash_texts([found[known], identity]) if known in found else identity
        if environment is not None:
            found["environment"] = self._identify_environment(environment)
        if conda is not None:
            found["conda environment"] = self._identify_environment(conda)
        if self._package_names:
            found["packages"] = " ".join(sorted(self._package_names))
        return found

    def identify_node_packages(self, cwd: str, find_written: Callable[[], InputPatterns]) -> dict[str, str]:
        """Return the identities of npm's packages in a stage's folder and the folders above it, up to the config's.

        `cwd` is relative to the latter. Packages among the outputs, which the stage itself installs, are left out.
        """
        found: dict[str, str] = {}
        for place in iter_folders(cwd):
            folder = f"{place}node_modules"
            if not os.path.isdir(os.path.join(self._root, folder)):
                continue
            written = find_written()
            paths = (f"{folder}/{name}" for name in _NODE_PACKAGES)
            states = [self._get_state(path) for path in paths if not written.matches(path)]
            if any(state != get_state(ABSENT) for state in states):
                found[folder] = _hash_texts(states)
        return found

    def _identify_program(
        self, program: str, environment: str | None, find: Callable[[str], str | None], depth: int = 0
    ) -> str:
        real = os.path.realpath(program)
        head = _read_head(real)
        if not head.startswith(b"#!") or depth >= _MOST_LINKS:
            own = _find_environment_of_python(program)
            if own is None or _is_same_folder(own, environment):
                return self._get_state(real)
            return _hash_texts([self._get_state(real), self._identify_environment(own)])
        first, _, rest = head.partition(b"\n")
        words = [os.fsdecode(word) for word in first[2:].split()]
        parts = [hash_bytes(rest) if len(head) < _LONGEST_SCRIPT_BYTES else self._get_state(real)]
        # A relative interpreter is one in the stage's folder, not on PATH.
        interpreter = find(os.path.join(".", words[0])) if words else None
        if interpreter is not None:
            parts += [self._identify_program(interpreter, environment, find, depth + 1), *words[1:]]
            for started in filter(None, map(find, _iter_words_of_env(words))):
                parts.append(self._identify_program(started, environment, find, depth + 1))
        # A script begins with `#!/bin/sh` if the path of its environment's Python is too long for the kernel.
        own = os.path.dirname(os.path.dirname(real))
        if words[:1] == ["/bin/sh"] and _is_virtual(own) and not _is_same_folder(own, environment):
            parts.append(self._identify_environment(own))
        return _hash_texts(parts)

    def _get_state(self, path: str) -> str:
        return get_state(self._states.take_entry(path))

    def _identify_environment(self, folder: str) -> str:
        """Return the identity of an environment's interpreter and packages, and note the packages' names."""
        parts: list[str] = []
        python = os.path.join(folder, "bin", "python")
        if os.path.exists(python):
            parts.append(self._get_state(os.path.realpath(python)))
        with suppress(FileNotFoundError, NotADirectoryError):  # with a file for each package of conda, by its version
            parts += sorted(os.listdir(os.path.join(folder, "conda-meta")))
        for packages in _list_package_folders(folder, self._home):
            for name, state in self._iter_packages(os.fspath(packages)):
                parts += [name, state]
                if name.endswith(".dist-info"):
                    self._package_names.add(name.removesuffix(".dist-info"))
        return _hash_texts(parts)

    def _iter_packages(self, packages: str) -> Iterator[tuple[str, str]]:
        places = (os.fsencode(packages), os.fsencode(self._root))
        hide = lambda content: _hash_texts([os.fsdecode(_hide_places(content, places))])  # noqa: E731
        try:
            names = sorted(os.listdir(packages))
        except OSError as error:
            raise UnusableFile(f"{packages} can't be read: {error.strerror}") from None
        for name in names:
            path = os.path.join(packages, name)
            if name.endswith(".dist-info"):
                yield name, self._states.derive_state(os.path.join(path, "RECORD"), _hash_record)
                yield f"{name}/direct_url.json", self._states.derive_state(os.path.join(path, "direct_url.json"), hide)
            elif name.endswith(".egg-info"):  # with the version in its name
                yield name, ""
            elif name.endswith((".pth", ".egg-link")):
                yield name, self._states.derive_state(path, hide)


def _hash_record(content: bytes) -> str:
    lines = content.splitlines()
    kept = [line for line in lines if not _PATHS_IN_RECORD.search(line.decode("utf-8", "surrogateescape"))]
    return hash_bytes(b"\n".join(kept))


def _hash_texts(texts: Iterable[str]) -> str:
    return hash_bytes("\0".join(texts).encode("utf-8", "surrogateescape"))


def _hide_places(content: bytes, places: Iterable[bytes]) -> bytes:
    """Replace the paths of the environment and the checkout in a content, since they differ between checkouts."""
    for place in places:
        content = content.replace(place, b".")
    return content


def _iter_program_names(steps: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the words that may be programs, which are all words of each step: `timeout 60 ruff check` starts two.

    Relative paths after the first word are left out: they are files of the project, which count as inputs.
    """
    for words in steps:
        yield from words[:1]
        for word in words[1:]:
            parts = _iter_line(word) if is_line(word) else (word,)
            yield from (part for part in parts if part[:1] != "-" and ("/" not in part or part[:1] == "/"))


def _iter_line(line: str) -> Iterator[str]:
    """Yield the words of a line for a shell, and of lines within it, as of `sh -c`."""
    for part in _split_line(line.replace("`", " ")):
        if part != line and is_line(part):
            yield from _iter_line(part)
        else:
            yield part


def _split_line(line: str) -> list[str]:
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        return list(lexer)
    except ValueError:
        return line.split()


def _iter_words_of_env(words: Sequence[str]) -> Iterator[str]:
    """Yield the words of a script's first line that may be a program for `env` to look up on PATH."""
    if os.path.basename(words[0]) == "env":
        yield from filter(None, (word.removeprefix("-S") for word in words[1:]))


def _find_program(name: str, *, cwd: Path, path: str, python_version: str | None) -> str | None:
    """Return the file of a program; None if the word is not a program.

    For a stub of pyenv, return the program that it starts: all stubs are the same script.
    """
    folders = [""] if "/" in name else path.split(os.pathsep)
    stub = None
    for full in (os.path.join(cwd, folder, name) for folder in folders):
        if not os.access(full, os.X_OK) or not os.path.isfile(full):
            continue
        if not _is_stub(full):
            return full
        if (started := _find_started_program(full, cwd=cwd, version=python_version)) is not None:
            return started
        stub = stub or full
    return stub


def _is_stub(program: str) -> bool:
    """Return whether a program is one of pyenv's stubs, by its place."""
    folder = os.path.dirname(program)
    return os.path.basename(folder) == "shims" and os.path.isdir(os.path.join(os.path.dirname(folder), "versions"))


def _find_started_program(stub: str, *, cwd: Path, version: str | None) -> str | None:
    """Return the program that a stub starts, or None if it is not one of pyenv's versions.

    `~/.pyenv/shims/ruff` starts `~/.pyenv/versions/3.11.7/bin/ruff`. The version comes from `version`, the value of
    PYENV_VERSION, otherwise from the nearest `.python-version` in the folder or above it, otherwise from
    `~/.pyenv/version`.
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
            text = files.read_start(path, limit_bytes=_LONGEST_VERSION_FILE_BYTES).decode(errors="replace")
            if words := [*_iter_version_words(text)]:
                return words
    return []


def _iter_version_words(text: str) -> Iterator[str]:
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


def _find_environment_of_python(program: str) -> str | None:
    """Return the folder of the environment, virtual or not, whose interpreter this is; None for other programs."""
    if not os.path.basename(program).startswith(("python", "pypy")):
        return None
    folder = os.path.dirname(os.path.dirname(program))
    return folder if _is_virtual(folder) else os.path.dirname(os.path.dirname(os.path.realpath(program)))


def _is_same_folder(folder: str, other: str | None) -> bool:
    return other is not None and os.path.samefile(folder, other)


def _is_virtual(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "pyvenv.cfg"))


def _list_package_folders(folder: str, home: str) -> list[str]:
    """Return the folders from which an environment's interpreter imports packages.

    Outside of virtual environments, as in containers, the user's packages count, and those in Debian's /usr/local. On
    Fedora, lib64 has the packages with compiled modules.
    """
    places = [folder]
    if not _is_virtual(folder) or _SYSTEM_PACKAGES.search(os.fsdecode(_read_head(os.path.join(folder, "pyvenv.cfg")))):
        base = os.path.dirname(os.path.dirname(os.path.realpath(os.path.join(folder, "bin", "python"))))
        places += [base, os.path.join(home, ".local"), *(["/usr/local"] if base == "/usr" else [])]
    return sorted({path for place in places for path in _iter_package_folders(place)})


def _iter_package_folders(place: str) -> Iterator[str]:  # Path.glob takes ten times as long
    for library in (os.path.join(place, "lib"), os.path.join(place, "lib64")):
        if library.endswith("64") and os.path.islink(library):
            continue  # a link to lib, as in a virtual environment
        names: list[str] = []
        with suppress(OSError):
            names = os.listdir(library)
        for name in names:
            if name.startswith("python"):
                yield from filter(os.path.isdir, (os.path.join(library, name, kind) for kind in _PACKAGES))


def _read_head(path: str) -> bytes:
    try:
        return files.read_start(Path(path), limit_bytes=_LONGEST_SCRIPT_BYTES)
    except OSError as error:
        raise UnusableFile(f"{path} can't be read: {error.strerror}") from None


def find_environment(variables: Mapping[str, str], name: str = "VIRTUAL_ENV") -> str | None:
    """Return the folder of the virtual environment that a stage's commands use, or None."""
    folder = variables.get(name)
    return folder if folder and os.path.isdir(folder) else None
