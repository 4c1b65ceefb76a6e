"""Find the program of a command, or explain in one line why it can't run and how to fix it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

_NO_FILE = "no such file"
_ENVIRONMENTS = 16  # in the caches: the tasks of a stage share one environment


class CannotRun(Exception):
    """A command can't be started. The message is one line: the fault, its place and the remedy."""


def find_program(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> str:
    """Return the path of the program that `argv` names; search like a shell in `cwd` with the PATH of `env`.

    Raises CannotRun if it is missing, not a file or not executable, or if `argv`, `cwd` or `env` is invalid.
    """
    _check_arguments(argv, cwd, env)
    name = argv[0]
    if "/" in name:
        problem = _find_problem(str(cwd / name))
        if problem:
            raise CannotRun(f"cannot run {name!r}: {problem}")
        return name
    refused = ""
    for folder in (env.get("PATH") or os.defpath).split(os.pathsep):
        candidate = os.path.join(cwd, folder, name)  # noqa: PTH118 -- each command looks in each folder: paths cost more
        problem = _find_problem(candidate)
        if not problem:
            return candidate
        if not problem.startswith(_NO_FILE) and os.path.isfile(candidate):  # noqa: PTH113 -- likewise
            refused = problem
    missing = "not found on PATH: install it or correct the stage's run"
    raise CannotRun(f"cannot run {name!r}: {refused or missing}")


def build_refusal(argv: Sequence[str], code: int, *, program: Path, entered: bool) -> CannotRun:
    """Explain why the system refused the command's folder or, if the folder was `entered`, its program."""
    name = argv[0]
    if not entered:
        return CannotRun(f"cannot run {name!r}: cannot enter its folder: {os.strerror(code)}: correct its cwd")
    meaning = {
        errno.ENOENT: f"its first line names an interpreter that is missing{_read_interpreter(program)}: install it",
        errno.EACCES: f"permission denied: chmod +x {program}, and see that its folder allows running programs",
        errno.ENOEXEC: "no program of this machine, and no script with a first line such as '#!/bin/sh': add one",
        errno.E2BIG: "its arguments and environment are too long for the system: pass fewer at once",
        errno.EAGAIN: "the system allows no more processes: use fewer workers or raise the limit (ulimit -u)",
        errno.ENOMEM: "the system is out of memory: use fewer workers",
    }.get(code, os.strerror(code))
    return CannotRun(f"cannot run {name!r}: {meaning}")


def _check_arguments(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
    if not argv or not argv[0]:
        raise CannotRun("cannot run '': the command is empty: correct the stage's run")
    variables = tuple(env.items())
    if any("\0" in text for text in argv) or _has_nul(variables):
        raise CannotRun(
            f"cannot run {argv[0]!r}: an argument or a variable holds a NUL character: no program can get one"
        )
    if _has_bad_name(variables):
        raise CannotRun(f"cannot run {argv[0]!r}: a variable's name is empty or holds '=': correct the stage's env")
    if not cwd.is_dir():
        found = "is no folder" if cwd.exists() else "does not exist"
        raise CannotRun(f"cannot run {argv[0]!r}: its folder {str(cwd)!r} {found}: correct its cwd")


@lru_cache(maxsize=_ENVIRONMENTS)
def _has_nul(variables: tuple[tuple[str, str], ...]) -> bool:
    return any("\0" in text for variable in variables for text in variable)


@lru_cache(maxsize=_ENVIRONMENTS)
def _has_bad_name(variables: tuple[tuple[str, str], ...]) -> bool:
    return any(not key or "=" in key for key, _ in variables)


def _find_problem(path: str) -> str:
    """Return why a file can't run as a program; "" if it can."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 -- one system call for each folder of PATH
    except (FileNotFoundError, NotADirectoryError):
        return f"{_NO_FILE} {path}: correct the stage's run"
    except OSError as error:
        return f"{path}: {error.strerror}"
    if stat.S_ISDIR(mode):
        return f"{path} is a directory: name a program in it"
    return "" if os.access(path, os.X_OK) else f"permission denied: chmod +x {path}"


def _read_interpreter(program: Path) -> str:
    try:
        with program.open("rb") as file:
            line = file.readline(256)
    except OSError:
        return ""
    return f" ({line[2:].decode('utf-8', 'replace').strip()})" if line.startswith(b"#!") else ""
