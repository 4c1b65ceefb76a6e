"""The files that a stage reads although its `inputs` need not name them.

These are the settings that tools look for, the files in which runners find targets, scripts and versions of packages,
the files that its commands and variables name, and its items.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from paropt_exporter.config.recipe_files import JUSTFILES, MAKEFILES, TASKFILES
from paropt_exporter.input_files import InputPatterns
from paropt_exporter.lazy_patterns import compile_later
from paropt_exporter.plan.stage_patterns import list_item_patterns, list_output_patterns

if TYPE_CHECKING:
    from paropt_exporter.changes import Changes
    from paropt_exporter.config import Config, Stage

# Tools read these, without being told to, from the folder in which they start or from one above it.
_SETTINGS = (
    "pyproject.toml", "setup.cfg", "setup.py", "tox.ini", "tox.toml", "conftest.py", ".coveragerc", "ruff.toml",
    ".ruff.toml", "mypy.ini", ".mypy.ini", "pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", ".flake8",
    "pylintrc", ".pylintrc", "pylintrc.toml", ".pylintrc.toml", ".bandit", "pyrightconfig.json", ".isort.cfg",
    ".pre-commit-config.yaml",
    # By these files, the stubs that pyenv, asdf, mise and rustup put on PATH choose which version of a program to
    # start.
    ".python-version", ".tool-versions", "mise.toml", ".mise.toml", ".node-version", ".nvmrc", "rust-toolchain",
    "rust-toolchain.toml",
)  # fmt: skip
_SCRIPTS = ("js", "mjs", "cjs", "ts", "mts", "cts")
_DATA = ("json", "yml", "yaml")
_MARKDOWNLINT = tuple(f".markdownlint.{each}" for each in (*_DATA, "jsonc"))


def _join(*names: str, endings: Iterable[str] = _SCRIPTS) -> tuple[str, ...]:
    return tuple(f"{name}.{ending}" for name in names for ending in endings)


_JAVASCRIPT_SETTINGS = {
    "eslint": (
        *_join("eslint.config"), ".eslintrc", *_join(".eslintrc", endings=(*_DATA, "js", "cjs")), ".eslintignore",
    ),
    "prettier": (
        *_join("prettier.config"), ".prettierrc", *_join(".prettierrc", endings=(*_DATA, *_SCRIPTS, "json5", "toml")),
        ".prettierignore", ".gitignore", ".editorconfig",
    ),
    "stylelint": (
        *_join("stylelint.config"), ".stylelintrc", *_join(".stylelintrc", endings=(*_DATA, *_SCRIPTS)),
        ".stylelintignore",
    ),
    "tsc": ("tsconfig.json",), "biome": ("biome.json", "biome.jsonc"), "oxlint": (".oxlintrc.json", ".gitignore"),
    "jest": (*_join("jest.config"), "jest.config.json", *_join("babel.config")),
    "vitest": _join("vitest.config", "vite.config"),
}  # fmt: skip
_SCRIPT_FILES = ("package.json", *chain.from_iterable(_JAVASCRIPT_SETTINGS.values()))
# The files with these programs' targets, scripts or settings, or with the versions of the packages that they start
# programs with: in the folder where they start, in one above it, or in one that their arguments name.
_PROGRAM_FILES = {
    "make": MAKEFILES, "just": JUSTFILES, "task": TASKFILES, "nox": ("noxfile.py",),
    **dict.fromkeys(("npm", "pnpm"), _SCRIPT_FILES), "yarn": (*_SCRIPT_FILES, "yarn.lock", ".pnp.cjs"),
    **dict.fromkeys(("bun", "bunx"), (*_SCRIPT_FILES, "bun.lock", "bun.lockb")),
    "deno": ("deno.json", "deno.jsonc", "deno.lock"),
    "cargo": ("Cargo.toml", "Cargo.lock", *_join("rustfmt", ".rustfmt", "clippy", ".clippy", endings=("toml",))),
    "go": ("go.mod", "go.sum", "go.work"), "bundle": ("Gemfile", "Gemfile.lock"),
    "uv": ("uv.lock", "uv.toml"), "poetry": ("poetry.lock",), "pdm": ("pdm.lock",), "hatch": ("hatch.toml",),
    "pipenv": ("Pipfile", "Pipfile.lock"), "pixi": ("pixi.toml", "pixi.lock"),
    **{tool: (*names, "package.json") for tool, names in _JAVASCRIPT_SETTINGS.items()},
    # By these files, they leave out some of those that they would find.
    **dict.fromkeys(("ruff", "ty", "pyrefly", "rg"), (".gitignore", ".ignore")), "black": (".gitignore",),
    "typos": (".gitignore", ".ignore", *_join("typos", "_typos", ".typos", endings=("toml",))),
    "clang-format": (".clang-format", ".clang-format-ignore"), "clang-tidy": (".clang-tidy",),
    "codespell": (".codespellrc",), "golangci-lint": _join(".golangci", endings=(*_DATA, "toml")),
    "hadolint": _join(".hadolint", endings=_DATA[1:]), "markdownlint": (".markdownlintrc", *_MARKDOWNLINT),
    "markdownlint-cli2": (*_join(".markdownlint-cli2", endings=("jsonc", "yaml")), *_MARKDOWNLINT),
    "rubocop": (".rubocop.yml",), "shellcheck": (".shellcheckrc",), "sqlfluff": (".sqlfluff",),
    "vale": (".vale.ini",),
    "yamllint": (".yamllint", *_join(".yamllint", endings=_DATA[1:])),
}  # fmt: skip
_WORD = compile_later(r"[^\s;&|()<>\"'`$=:,@]+")
_MARKS_OF_LINES = frozenset(" \t\n;&|()<>`$")


def find_implied_change(config: Config, stage: Stage, changes: Changes) -> str | None:
    """Return a changed file that a stage reads although its `inputs` need not name it; None without one."""
    read = chain(list_named_paths(config, stage), iter_settings(_get_cwd(stage)))
    changed = [path for path in read if path in changes.paths]
    if (item := changes.find_match(InputPatterns(list_item_inputs(stage)))) is not None:
        changed.append(item)
    written = InputPatterns(list_output_patterns(stage)) if changed else None
    return min((path for path in changed if written is not None and not written.matches(path)), default=None)


def list_named_paths(config: Config, stage: Stage) -> set[str]:
    """Return the paths, relative to the config's folder, that a stage's commands, call and variables may name."""
    found = {path for _, path in iter_named_paths(str(config.root), _get_cwd(stage), _iter_commands(stage))}
    return found.union(_list_module_files(stage.call.partition(":")[0]) if stage.call else ())


def list_settings_and_recipes(config: Config, stage: Stage) -> list[str]:
    """Return where the tools and runners of a stage look for their files, in the config's folder and below.

    Unlike other files that its commands name, a stage does not write these.
    """
    words, cwd = _list_words(_iter_commands(stage)), _get_cwd(stage)
    found = chain(iter_settings(cwd), (path for _, path in _iter_program_files(str(config.root), cwd, words)))
    return [path for path in dict.fromkeys(found) if not path.startswith(("/", "../"))]


def list_item_inputs(stage: Stage) -> tuple[str, ...]:
    """Return the patterns of a stage's items if its commands name them."""
    takes_items = any("{item" in word for command in _iter_commands(stage) for word in command)
    return list_item_patterns(stage) if takes_items else ()


def _get_cwd(stage: Stage) -> str:
    return posixpath.normpath(stage.cwd or ".")


def _iter_commands(stage: Stage) -> Iterator[Sequence[str]]:
    """Yield the commands of a stage, and the values of its variables."""
    for command in stage.commands:
        yield (command,) if isinstance(command, str) else command
    yield tuple(stage.env.values())


def iter_named_paths(folder: str, cwd: str, steps: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield each word of commands that may be the name of a file, with its path relative to the absolute `folder`.

    `cwd`: where the commands run, relative to it.
    """
    words = _list_words(steps)
    yield from ((word, _find_path(folder, cwd, word)) for word in words)
    yield from _iter_program_files(folder, cwd, words)


def _iter_program_files(folder: str, cwd: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield where the programs among the words look for such files, as `iter_named_paths` does."""
    names = dict.fromkeys(chain.from_iterable(_PROGRAM_FILES.get(posixpath.basename(word), ()) for word in words))
    for name in names:
        # such as `make -C web`, `npm --prefix web`
        in_folders = (f"{word}/{name}" for word in words)
        yield from ((place, _find_path(folder, cwd, place)) for place in (name, *in_folders))
        yield from ((name, f"{above}{name}") for above in iter_folders(cwd))


def _find_path(folder: str, cwd: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(cwd, name)).removeprefix(f"{folder}/")


def _list_words(steps: Iterable[Sequence[str]]) -> list[str]:
    """Return the words of commands that may name files, each once."""
    listed = [*filter(None, _iter_words(steps))]
    return [*dict.fromkeys((*listed, *_iter_modules(listed)))]


def _iter_words(steps: Iterable[Sequence[str]]) -> Iterator[str]:
    for words in steps:
        for word in words:
            yield word
            if is_line(word):
                for part in _split_line(word):
                    yield part
                    yield from _iter_parts(part)
                yield from _WORD.findall(word)
            else:
                yield from _iter_parts(word)


def _iter_modules(words: Sequence[str]) -> Iterator[str]:
    """Yield the paths of modules that Python runs, as in `python -m tools.check`."""
    for option, name in pairwise(words):
        if option == "-m":
            yield from _list_module_files(name)


def _list_module_files(name: str) -> tuple[str, ...]:
    place = name.replace(".", "/")
    return f"{place}.py", f"{place}/__main__.py", f"{place}/__init__.py"


def is_line(word: str) -> bool:
    """Return whether a word of a command may be a line for a shell."""
    return not _MARKS_OF_LINES.isdisjoint(word)


def _iter_parts(word: str) -> Iterator[str]:
    """Yield the parts of a word that may be names of files."""
    if any(mark in word for mark in "=:,@"):
        yield from _WORD.findall(word)  # --config=x.toml, test_a.py::test_b, @arguments.txt
    if word.startswith("-") and not word.startswith("--"):
        yield word[2:]  # -fbuild.mk


def _split_line(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []


def iter_settings(cwd: str) -> Iterator[str]:
    """Yield where tools that run in `cwd` look for settings: there and above it, up to the config's folder."""
    return (f"{place}{name}" for place in iter_folders(cwd) for name in _SETTINGS)


def is_settings_file(path: str) -> bool:
    """Return whether a file counts by its name, since tools read it without being asked."""
    return posixpath.basename(path) in _SETTINGS


def iter_folders(cwd: str) -> Iterator[str]:
    """Yield the folders from the config's down to a stage's, as beginnings of paths: "", "web/", "web/app/"."""
    parts = [] if cwd == "." or cwd.startswith("../") else cwd.split("/")
    yield from ("".join(f"{part}/" for part in parts[:count]) for count in range(len(parts) + 1))
