"""Read the commands that a project runs on itself: from tox, nox, hatch, pdm, poe, make and just."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
import warnings
from collections.abc import Callable, Iterator

from msgspec import Struct

from paropt_exporter.config import raw_yaml
from paropt_exporter.config.foreign_files import describe_error, parse_ini, parse_toml

Words = tuple[str, ...]
MAKEFILES = ("Makefile", "GNUmakefile", "makefile")
_JUSTFILES = ("justfile", "Justfile", ".justfile")

_RUNNERS = (("uv", "run"), ("poetry", "run"), ("pdm", "run"), ("hatch", "run"), ("pipenv", "run"))
_MODULE = re.compile(r"(?:\{envpython\}|python[\d.]*|py)$")
_FACTOR = re.compile(r"^[\w!{},.\[\]-]+:\s+")  # tox: `tests: pytest` holds for environments with the factor `tests`
_POSARGS = re.compile(r"\{posargs(?::((?:[^{}]|\{[^{}]*\})*))?\}|\{\[[^\]]*\]posargs\}")
_PROCESSES = re.compile(r"(?:-n\s*|--numprocesses[= ]\s*)(auto|logical|[1-9]\d*)")
_PROCESSES_OF_COMMAND = re.compile(rf"(?<!\S){_PROCESSES.pattern}(?!\S)")
_ROOTS = re.compile(r"\{(?:toxinidir|tox_root)\}/?")
_SUBSTITUTION = re.compile(r"[{}$`]")
_OPERATORS = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>&1"})


class ProjectCommands(Struct, frozen=True, kw_only=True):
    """Commands as words, without runners such as `uv run`, in the order of the files; notes name unreadable files."""

    commands: tuple[Words, ...]
    notes: tuple[str, ...]

    def find(self, tool: str) -> tuple[Words, ...]:
        """Return the arguments of each distinct call of a tool."""
        return tuple(dict.fromkeys(words[1:] for words in self.commands if words[0] == tool))

    def find_xdist_processes(self) -> str | None:
        """Return with how many processes of pytest-xdist a command runs pytest: `auto`, `logical` or a number."""
        lines = (" ".join(arguments) for arguments in self.find("pytest"))
        return next((match[1] for line in lines if (match := _PROCESSES_OF_COMMAND.search(line))), None)


def read_project_commands(read: Callable[[str], str]) -> ProjectCommands:
    """Return the commands of all files. `read` returns a file's text, or "" if it does not exist."""
    commands: list[Words] = []
    notes: list[str] = []
    for name, parse in _FILES:
        try:
            lines = [*parse(read(name))]
        except (ValueError, SyntaxError, configparser.Error, RecursionError, MemoryError) as error:
            notes.append(f"{name} can't be parsed, and is not used: {describe_error(error)}")
            continue
        commands += [words for line in lines if (words := _normalize(line))]
    return ProjectCommands(commands=tuple(commands), notes=tuple(notes))


def parse_recipes(text: str) -> dict[str, list[str]]:
    """Return the lines of each target of a makefile or recipe of a justfile."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        if line[:1] in (" ", "\t"):
            current.append(line.strip().lstrip("@"))
        elif match := re.match(r"@?([A-Za-z0-9_][\w. -]*)[^:=]*:(?!=)", line):
            current = []
            for name in match[1].split():
                found.setdefault(name, current)
    return found


def _parse_tox_ini(text: str) -> Iterator[str | Words]:
    for section in parse_ini(text).values():
        for line in (section.get("commands") or "").replace("\\\n", " ").splitlines():
            yield _fill_tox_line(_FACTOR.sub("", line.strip()))


def _fill_tox_line(line: str) -> str:
    """Replace tox's arguments by their default if that names files or processes of pytest-xdist, else by nothing."""

    def fill(match: re.Match[str]) -> str:
        default = match[1] or ""
        return default if not default.startswith("-") or _PROCESSES.fullmatch(default.strip()) else ""

    return _ROOTS.sub("", _POSARGS.sub(fill, line))


def _parse_pyproject(text: str) -> Iterator[str | Words]:
    tool = raw_yaml.as_mapping(parse_toml(text).get("tool"))
    tox = raw_yaml.as_mapping(tool.get("tox"))
    environments = [tox.get("env_run_base"), *raw_yaml.as_mapping(tox.get("env")).values()]
    for environment in environments:
        for words in raw_yaml.as_list(raw_yaml.as_mapping(environment).get("commands")):
            yield tuple(word for word in raw_yaml.as_list(words) if isinstance(word, str))
    legacy = tox.get("legacy_tox_ini")
    if isinstance(legacy, str):
        yield from _parse_tox_ini(legacy)
    tables = [raw_yaml.as_mapping(tool.get("pdm")).get("scripts"), raw_yaml.as_mapping(tool.get("poe")).get("tasks")]
    hatch = raw_yaml.as_mapping(raw_yaml.as_mapping(tool.get("hatch")).get("envs"))
    tables += [raw_yaml.as_mapping(environment).get("scripts") for environment in hatch.values()]
    for table in tables:
        for script in raw_yaml.as_mapping(table).values():
            yield from _iter_script_lines(script)


def _iter_script_lines(script: object) -> Iterator[str]:
    if isinstance(script, str):
        yield script
    for line in raw_yaml.as_list(script):
        yield from _iter_script_lines(line) if isinstance(line, str) else ()
    command = raw_yaml.as_mapping(script).get("cmd")
    if isinstance(command, str):
        yield command


def _parse_noxfile(text: str) -> Iterator[Words]:
    """Yield the calls `session.run("tool", ...)`. Calls with computed arguments are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in strings
        module = ast.parse(text)
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="session"), attr="run"), args=arguments):
                plain = [each for each in arguments if not isinstance(each, ast.Starred)]  # *session.posargs
                words = tuple(each.value for each in plain if isinstance(each, ast.Constant))
                if len(words) == len(plain):
                    yield tuple(word for word in words if isinstance(word, str))


def _parse_recipe_lines(text: str) -> Iterator[str]:
    for lines in parse_recipes(text).values():
        yield from lines


_FILES: tuple[tuple[str, Callable[[str], Iterator[str | Words]]], ...] = (
    ("tox.ini", _parse_tox_ini),
    ("pyproject.toml", _parse_pyproject),
    ("noxfile.py", _parse_noxfile),
    *((name, _parse_recipe_lines) for name in (*MAKEFILES, *_JUSTFILES)),
)


def _normalize(line: str | Words) -> Words:
    """Return a command's plain words, or none if it needs a shell, or a substitution outside of an option."""
    words = _split(line) if isinstance(line, str) else line
    words = tuple(word for word in words if not (word.startswith("-") and _SUBSTITUTION.search(word)))
    words = _drop_runner(words)
    if not words or words[0].startswith(("-", "#")) or any(_SUBSTITUTION.search(word) for word in words):
        return ()
    return () if any(word in _OPERATORS for word in words) else words


def _split(line: str) -> Words:
    try:
        return tuple(shlex.split(line, comments=True))
    except ValueError:
        return ()


def _drop_runner(words: Words) -> Words:
    if words[:2] in _RUNNERS:
        words = words[2:]
    if len(words) > 2 and _MODULE.match(words[0]) and words[1] == "-m":
        words = words[2:]
    if words[:3] == ("coverage", "run", "-m"):
        words = words[3:]
    return words
