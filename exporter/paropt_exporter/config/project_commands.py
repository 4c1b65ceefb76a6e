"""Find the commands that a project runs on itself, as words without the programs that only start them."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain

from msgspec import Struct

from paropt_exporter.config import command_files, pre_commit
from paropt_exporter.config.command_files import CommandLine, Words
from paropt_exporter.config.document import Unreadable
from paropt_exporter.config.foreign_files import describe_error

_RUNNERS = (
    ("uv", "run"), ("poetry", "run"), ("pdm", "run"), ("hatch", "run"), ("pipenv", "run"), ("rye", "run"),
    ("pixi", "run"), ("pipx", "run"), ("uvx",), ("exec",),
)  # fmt: skip
_TAKE_A_WORD = frozenset(
    {"--group", "--only-group", "--extra", "--with", "--from", "--python", "--package", "--env-file"}  # options of uv
    | {"--source", "--rcfile", "--include", "--omit", "--context", "--concurrency", "--data-file"}  # of coverage
    | {"-W", "-X"}  # of python
)
_PYTHON = re.compile(r"(?:\{envpython\}|(?:.*/)?python[\d.]*|py|\$[({]PYTHON\d?[)}])")
_IN_ENVIRONMENT = re.compile(r"(?:[\w./-]*/)?\.?v?env/bin/([\w.-]+)")  # venv/bin/pytest
_SUBSTITUTION = re.compile(r"[{}$`\0]")  # and NUL, which no argument of a program can have
_NAME = re.compile(r"[A-Za-z_]\w*")  # any other one would be text of its own in a paropt.yml
_VARIABLE = re.compile(rf"({_NAME.pattern})=(.*)", re.DOTALL)
_SEPARATOR = re.compile(r"&&|;")
_ADVICE = re.compile(r"\|\| *\( *(?:echo|printf)\b[^()]*\) *$")  # `black --check . || (echo "Run make style" && false)`
_MOST_CHARACTERS = 1_000_000  # of a file's commands with the values of their variables
_WORD_CHARACTERS = 10
_OPERATORS = frozenset({"&&", "|", "||", "&", ">", ">>", "<", "2>&1"})
_ONLY_PRINTS = frozenset({"--version", "--help"})
_DISTRIBUTION = re.compile(r"(?<!\S)--dist[= ](\w+)(?!\S)")
_PROCESSES = re.compile(rf"(?<!\S){command_files.PROCESSES.pattern}(?!\S)")

# Environments, sessions, targets and jobs that run the tests, and others that may run them too.
_TEST_GROUPS = tuple(
    re.compile(names, re.IGNORECASE)
    for names in (
        r"|(run[-_]?)?(unit[-_]?)?tests?([-_](all|unit|impl|suite))*|unit|pytest|unittests?",
        r"ci|checks?|(no|with)?cov|coverage|tests?[-_]?cov(erage)?|build|python|linux|ubuntu|main|all|default|pre-commit"
        r"|tests?[-_](linux|ubuntu|python|(on|using|with)[-_].+)",
    )
)
_PYTHON_FACTOR = re.compile(r"(?:py|pypy|python)?\d[\w.]*|py|pypy|python")  # of a tox environment: py313, pypy3, 3.14t
_TEST_RUNNERS = frozenset(
    {"pytest", "unittest", "nose2", "trial", "twisted.trial", "stestr", "virtue", "ward", "zope-testrunner", "green"}
    | {"behave", "robot"}
)
_TEST_MODULE = re.compile(r"(?:\w+\.)+(?:run_?)?tests?")  # python -m tornado.test
_TEST_SCRIPT = re.compile(
    r"(?:[\w.-]+/)*(?:(?:run[-_]?)?(?:all[-_]?)?tests?(?:[-_]?all)?|u?tests?/run(?:ner|[-_]?all)?)\.py"
)


class ProjectCommand(Struct, frozen=True, kw_only=True):
    """A command as words. `python` has those that start a module or script, such as `python -m`.

    `group` is the environment, session, target or job of `file` that has it; `folder` the one in which it runs, "" for
    the project's; `env` the variables that are set for it; `before` the commands that prepare it.
    """

    words: Words
    file: str = ""
    group: str = ""
    folder: str = ""
    python: Words = ()
    env: tuple[tuple[str, str], ...] = ()
    before: str = ""

    @property
    def runs_tests(self) -> bool:
        program, arguments = self.words[0], self.words[1:]
        if program in ("django", "django-admin", "manage.py") or program.endswith("/manage.py"):
            return arguments[:1] == ("test",)
        script = _TEST_MODULE if self.python[-1:] == ("-m",) else _TEST_SCRIPT
        return program in _TEST_RUNNERS or (bool(self.python) and script.fullmatch(program) is not None)


class ProjectCommands(Struct, frozen=True, kw_only=True):
    """Commands in the order of the files; notes name unreadable files, and hooks that are left out."""

    commands: tuple[ProjectCommand, ...] = ()
    notes: tuple[str, ...] = ()

    def find(self, tool: str) -> tuple[Words, ...]:
        """Return the arguments of each distinct call of a tool."""
        return tuple(dict.fromkeys(each.words[1:] for each in self.commands if each.words[0] == tool))

    def find_by_file(self, tool: str) -> list[tuple[Words, ...]]:
        """Return the arguments of each distinct call of a tool in the project's folder, for each file with one."""
        found: dict[str, dict[Words, None]] = {}
        for each in self.commands:
            if each.words[0] == tool and not each.folder:
                found.setdefault(each.file, {})[each.words[1:]] = None
        return [tuple(calls) for calls in found.values()]

    def find_tests(self) -> tuple[ProjectCommand, ...]:
        """Return the commands that run the tests: those of the first environment, session, target or job for tests.

        In one for other purposes, commands that name only modules run a part of them.
        """
        groups: dict[tuple[str, str], list[ProjectCommand]] = {}
        for each in self.commands:
            groups.setdefault((each.file, each.group), []).append(each)
        for kind in _TEST_GROUPS:
            for (_, group), commands in groups.items():
                found = _take_tests(commands) if kind.fullmatch(_drop_python_factors(group)) else ()
                if found and not (kind is _TEST_GROUPS[-1] and all(map(_names_only_modules, found))):
                    return found
        return ()

    def find_xdist_options(self) -> Words:
        """Return the options with which a command runs pytest in processes of pytest-xdist, or none.

        Those are `-n` with `auto`, `logical` or a number, and `--dist` with the tests that must share a process.
        """
        return next(filter(None, map(read_xdist_options, self.find("pytest"))), ())


def read_xdist_options(arguments: Iterable[str]) -> Words:
    """Return the options of pytest-xdist among pytest's arguments as `-n` and `--dist`, or none."""
    line = " ".join(arguments)
    processes, shared = _PROCESSES.search(line), _DISTRIBUTION.search(line)
    if processes is None:
        return ()
    return ("-n", processes[1], *(("--dist", shared[1]) if shared else ()))


def read_project_commands(read: Callable[[str], str], workflows: Sequence[str]) -> ProjectCommands:
    """Return the commands of all files; `workflows` are the paths of those of GitHub Actions.

    `read` returns a file's text, or "" if it does not exist.
    """
    parsers = [*command_files.FILES, *((path, command_files.parse_workflow) for path in workflows)]
    parsers.append((pre_commit.FILE, pre_commit.parse_hooks))
    files = [_read_file(name, text, parse) for name, parse in parsers if (text := read(name))]
    return ProjectCommands(
        commands=tuple(chain.from_iterable(each.commands for each in files)),
        notes=tuple(chain.from_iterable(each.notes for each in files)),
    )


@lru_cache(maxsize=100)  # the projects of a repository share the files at its top
def _read_file(name: str, text: str, parse: Callable[[str], Iterable[CommandLine]]) -> ProjectCommands:
    try:
        lines = [*_take_lines(parse(text))]
    except (ValueError, SyntaxError, configparser.Error, RecursionError, MemoryError) as error:
        return ProjectCommands(notes=(f"{name} can't be parsed, and is not used: {describe_error(error)}",))
    except Unreadable as error:
        return ProjectCommands(notes=(f"{name} can't be parsed, and is not used: {error.faults[0].message}",))
    commands = dict.fromkeys(found for line in lines for found in _normalize(line, name))
    return ProjectCommands(commands=tuple(commands), notes=tuple(f"{name}: {line.note}" for line in lines if line.note))


def _take_lines(lines: Iterable[CommandLine]) -> Iterator[CommandLine]:
    """Yield the lines of a file. Raises ValueError if they have far more characters than the file: variables multiply.

    A variable of the environment, a word and a line count as some characters more.
    """
    left = _MOST_CHARACTERS
    for line in lines:
        words = len(line.text) * _WORD_CHARACTERS if isinstance(line.text, tuple) else len(line.text)
        left -= words + len(line.before) + (len(line.env) + 1) * _WORD_CHARACTERS
        if left < 0:
            raise ValueError(f"its commands have more than {_MOST_CHARACTERS:,} characters")
        yield line


def _drop_python_factors(group: str) -> str:
    """Return the name of a tox environment without versions of Python: `tests` for `py3{12,13}-tests`.

    A command for all environments but some (`!slow: pytest`) is one for the environment without a name.
    """
    parts = re.sub(r"\{[^{}]*\}", "", group).split("-")
    return "-".join(part for part in parts if part and part[0] != "!" and not _PYTHON_FACTOR.fullmatch(part))


def _take_tests(commands: Iterable[ProjectCommand]) -> tuple[ProjectCommand, ...]:
    """Return the commands that run tests, up to one that installs other packages between them."""
    found: list[ProjectCommand] = []
    for each in commands:
        if each.runs_tests:
            found.append(each)
        elif found and "install" in each.words[1:3]:
            break
    return tuple(found)


def _names_only_modules(command: ProjectCommand) -> bool:
    words = (word.partition("::")[0] for word in command.words[1:] if not word.startswith("-"))
    paths = [word for word in words if "/" in word or word.endswith(".py")]
    return bool(paths) and all(path.endswith(".py") and "*" not in path for path in paths)


def _normalize(line: CommandLine, file: str) -> Iterator[ProjectCommand]:
    """Yield a line's commands. Those that need a shell, or a substitution outside of an option, are left out.

    So are those of a very long line: to split a word of a million characters takes an hour.
    """
    folder = line.folder
    if isinstance(line.text, str) and len(line.text) > command_files.LONGEST_LINE:
        return
    for call in _split_commands(_ADVICE.sub("", line.text)) if isinstance(line.text, str) else (line.text,):
        if call[:1] == ("cd",):
            folder = command_files.enter_folder(folder, "".join(call[1:2]))
            continue
        words, env = _take_variables(call, line.env)
        words = tuple(word for word in words if not (word.startswith("-") and _SUBSTITUTION.search(word)))
        words, python = _drop_python(_drop_runner(words))
        if not words or words[0].startswith(("-", "#")) or any(map(_SUBSTITUTION.search, words)):
            continue
        if _OPERATORS.isdisjoint(words) and _ONLY_PRINTS.isdisjoint(words[1:]):
            known = tuple(
                (name, value)
                for name, value in env.items()
                if _NAME.fullmatch(name) and not _SUBSTITUTION.search(value)
            )
            yield ProjectCommand(
                words=words, file=file, group=line.group, folder=folder, python=python, env=known, before=line.before
            )


def _take_variables(words: Words, given: Mapping[str, str]) -> tuple[Words, dict[str, str]]:
    """Return a command without the variables before it, such as `A=b` or `env -u A`, and its environment."""
    env = dict(given)
    while words:
        if match := _VARIABLE.fullmatch(words[0]):
            env[match[1]], words = match[2], words[1:]
        elif words[0] == "env":
            words = words[1:]
            while words[:1] == ("-u",):
                env.pop("".join(words[1:2]), None)
                words = words[2:]
        else:
            break
    return words, env


def _split_commands(line: str) -> Sequence[Words]:
    """Return the commands of a line, or the whole line as one if a separator is in quotes, as after `sh -c`."""
    for parts in (_SEPARATOR.split(line), [line]):
        with suppress(ValueError):
            return [tuple(shlex.split(part, comments=True)) for part in parts]
    return ()


def _drop_runner(words: Words) -> Words:
    """Return a command without what starts it in an environment, and its program by its plain name."""
    for runner in _RUNNERS:
        if words[: len(runner)] == runner:
            words = _split_options(words[len(runner) :], *(("-p",) if runner[0] in ("uv", "uvx") else ()))[1]
            if runner[0] == "uvx" and words:
                words = (words[0].partition("@")[0], *words[1:])  # ruff@latest
            break
    if words and (match := _IN_ENVIRONMENT.fullmatch(words[0])):
        words = (match[1], *words[1:])
    return ("pytest", *words[1:]) if words[:1] == ("py.test",) else words


def _drop_python(words: Words) -> tuple[Words, Words]:
    """Return the words from a module or script on, and those that start it, without the measurement of coverage."""
    before: Words = ("python",)
    rest = words
    if words and _PYTHON.fullmatch(words[0]):
        options, rest = _split_options(words[1:])
        before += options
    if rest[:1] == ("-m",):
        before, rest = (*before, "-m"), rest[1:]
    if rest[:2] == ("coverage", "run"):
        before = before[:-1] if before[-1] == "-m" else before
        rest = _split_options(rest[2:])[1]
        if rest[:1] in (("-m",), ("--module",)):
            before, rest = (*before, "-m"), rest[1:]
        return rest, before
    if before[-1] == "-m" or (rest and rest[0].endswith(".py")):
        return rest, before
    return words, ()


def _split_options(words: Words, *more: str) -> tuple[Words, Words]:
    """Return the options before a module, and the words from there on. `more` options take a word, too."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-m", "--module"):
        at += 2 if words[at] in _TAKE_A_WORD or words[at] in more else 1
    return words[:at], words[at:]
