"""Read the files of one project: which tools it uses, and where its sources, tests, scripts and targets are."""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

from msgspec.structs import replace

from paropt_exporter.config import raw_yaml
from paropt_exporter.config.command_files import (
    Words,
    parse_just_recipes,
    parse_recipes,
    parse_taskfile,
)
from paropt_exporter.config.foreign_files import describe_error, parse_toml
from paropt_exporter.config.locate import find_projects_below, walk_up
from paropt_exporter.config.project_commands import (
    ProjectCommand,
    ProjectCommands,
    read_project_commands,
    read_xdist_options,
)
from paropt_exporter.config.recipe_files import JUSTFILES, MAKEFILES, TASKFILES
from paropt_exporter.config.tool_arguments import drop_options, drop_pytest_reports, find_option
from paropt_exporter.config.tool_options import read_tool_options
from paropt_exporter.config.virtual_environment import VARIABLE, build_environment, find_virtual_environment_in
from paropt_exporter.files import exists, find_home, is_file, is_folder, read_start
from paropt_exporter.globs import GlobSearch

_MOST_WORKFLOWS = 20
_PATTERN = re.compile(r"(?!-)(?:[\w.-]+/)*[\w.-]*[*?[][\w.*?[\]-]*", re.ASCII)  # of names in one folder, for any shell
_TAKES_PATTERN = re.compile(
    r"-[ceikmnopx]|--(?=[\w-]*\Z)[\w-]*?(?:exclude|ignore|include|omit|pattern|match|glob|file|path|source)[\w-]*"
)
_MOST_TEST_FILES = 50  # that are read
_LARGEST_BYTES = 1_000_000  # configuration files are smaller
# The lines with which makefiles and justfiles include others, and the names of such files. A `.env` may have secrets.
_INCLUDES = {
    **dict.fromkeys(MAKEFILES, re.compile(r"(?m)^[-s]?include[ \t]+(.+)$")),
    **dict.fromkeys(JUSTFILES, re.compile(r"""(?m)^import\??[ \t]+["']([^"'\n]+)["']""")),
}
_INCLUDED = re.compile(
    r"(?:\./)?((?:[\w*-][\w.*-]*/)*(?:[\w*-][\w.*-]*\.(?:mk|make|just)|[Mm]akefile[\w.*-]*))", re.ASCII
)
_MOST_INCLUDED = 20  # files, and patterns of their names
_PYTHON_FILES = ("pyproject.toml", "setup.cfg", "setup.py", "tox.ini", "noxfile.py", "Pipfile", "pixi.toml")
_MENTIONS = (*_PYTHON_FILES, ".pre-commit-config.yaml")
_LARGE_SUITE_BYTES = 200_000  # of test files; a smaller suite takes as long to start several times as to run once
SHELL_WORDS = frozenset(
    {"cd", "test", "if", "for", "while", "set", "export", "exec", "eval", "source", "case", "rm", "echo", "true"}
    | {"touch", "mkdir", "mv", "cp", "printf", "."}
)
_MARKERS = {
    "ruff": ("ruff.toml", ".ruff.toml"),
    "flake8": (".flake8",),
    "mypy": ("mypy.ini", ".mypy.ini"),
    "pyright": ("pyrightconfig.json",),
    "pytest": ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "conftest.py", "tests/conftest.py"),
    "bandit": (".bandit", "bandit.yaml", "bandit.yml"),
}
_TEST_FILES = ("test_*.py", "*_test.py")  # as pytest finds them
_NO_SOURCES = frozenset({"tests", "test", "docs", "doc", "build", "dist", "node_modules", "venv", "site-packages"})
_INTEGRATION_OPTION = re.compile(
    r"""addoption\(\s*["'](--(?:run[-_]?)?(?:integration|e2e)(?:[-_]?tests?)?)["'],[^()]*\baction\s*=\s*["']store_true["']"""
)
_INTEGRATION = ("tests/integration", "tests/integration_tests", "tests/e2e", "integration_tests", "test/integration")
_EXAMPLES = frozenset({"example", "examples", "demo", "demos", "sample", "samples", "benchmarks"})
_BANDIT_EXCLUSIONS = "./.tox,./.eggs"  # of its usual ones, those that may have modules
_TARGET_FILES: Mapping[str, tuple[Sequence[str], Callable[[str], dict[str, list[str]]]]] = {
    "make": (MAKEFILES, parse_recipes),
    "just": (JUSTFILES, parse_just_recipes),
    "task": (TASKFILES, parse_taskfile),
}
_MANAGER_FILES = {"poetry.lock": "poetry", "Pipfile": "pipenv", "pdm.lock": "pdm", "hatch.toml": "hatch"}
_MANAGER_TABLE = re.compile(r"(?m)^\[tool\.(poetry|pdm|hatch(?=\.envs))\b")
_LOCKS = (
    ("pnpm-lock.yaml", "pnpm"), ("yarn.lock", "yarn"), ("bun.lock", "bun"), ("bun.lockb", "bun"),
    ("package-lock.json", "npm"),
)  # fmt: skip
_PACKAGE_MANAGERS = {runner for _, runner in _LOCKS}


class Project:
    """The files of one project, read on demand. An unreadable file counts as missing."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._search = GlobSearch()

    def uses(self, tool: str) -> bool:
        """Return whether the project has a configuration file of this tool, or lists it as a dependency."""
        if any(is_file(self._root / marker) for marker in _MARKERS.get(tool, ())):
            return True
        return re.search(rf"(?<![\w-]){re.escape(tool)}(?![\w-])", self._mentions) is not None

    def has_program(self, name: str) -> bool:
        """Return whether a stage would find a program: in the virtual environment, or on PATH."""
        return shutil.which(name, path=self._path) is not None

    def has_module(self, python: str, name: str) -> bool:
        """Return whether `python -m NAME` would find a module that installs a program of its name.

        A virtual environment has no modules but its own, unless it includes those of the system.
        """
        program = shutil.which(python, path=self._path)
        settings = Path(program).parent.parent / "pyvenv.cfg" if program is not None else None
        if settings is None or not is_file(settings):
            return self.has_program(name)
        shared = re.search(r"(?m)^include-system-site-packages\s*=\s*true", self._read_text(str(settings)))
        return exists(settings.parent / "bin" / name) or (shared is not None and self.has_program(name))

    @cached_property
    def environment_manager(self) -> str | None:
        """The program that may keep the project's virtual environment in another folder, unless there is one here."""
        if build_environment(self._root, os.environ) or os.environ.get(VARIABLE):
            return None
        named = _MANAGER_TABLE.search(self._read_text("pyproject.toml"))
        of_files = (program for name, program in _MANAGER_FILES.items() if self.has_path(name))
        return next(of_files, named[1] if named else None)

    def find_missing_program(self, target: str) -> str | None:
        """Return the first program of a target's recipe that is not installed."""
        for line in self.targets[target]:
            word = line.lstrip("@-+ ").partition(" ")[0]
            if re.fullmatch(r"[A-Za-z][\w.-]*", word) and word not in SHELL_WORDS and not self.has_program(word):
                return word
        return None

    def has_files(self, arguments: Words) -> bool:
        """Return whether all paths among the arguments exist."""
        paths = (word.partition("::")[0] for word in arguments if "/" in word and not word.startswith("-"))
        return all(self.has_path(path) or self._has_match(path) for path in paths)

    def is_pattern(self, before: str, word: str) -> bool:
        """Return whether a shell would replace a word with paths. The patterns of an option are usually in quotes."""
        return _TAKES_PATTERN.fullmatch(before) is None and self._has_match(word)

    def _has_match(self, pattern: str) -> bool:
        """Return whether a word is a pattern of names in one folder here, and finds one."""
        inside = ".." not in pattern.split("/") and _PATTERN.fullmatch(pattern) is not None
        return inside and bool(self._list_files(pattern))

    def has_path(self, word: str) -> bool:
        return exists(self._root / word)

    def has_folder(self, word: str) -> bool:
        return is_folder(self._root / word)

    @cached_property
    def _path(self) -> str:
        found = build_environment(self._root, os.environ)
        return found.get("PATH") or os.environ.get("PATH", os.defpath)

    @cached_property
    def commands(self) -> ProjectCommands:
        """The commands that the project runs on itself, also those in files at the top of its repository.

        Those that run in a project below belong to that, and those in other folders to repositories that CI checks out.
        """
        found = read_project_commands(self._read_with_includes, self._list_workflows())
        own = (each for each in found.commands if self._is_own_folder(each.folder))
        return replace(found, commands=(*own, *self._find_commands_at_top()))

    def _is_own_folder(self, folder: str) -> bool:
        below = (each.as_posix() for each in self.projects_below)
        inside = not os.path.isabs(folder) and ".." not in folder.split("/")  # noqa: PTH117 -- a text
        return inside and is_folder(self._root / folder) and all(_cut_folder(folder, each) is None for each in below)

    def _find_commands_at_top(self) -> Iterator[ProjectCommand]:
        """Yield the commands that files at the top of the repository, such as those of CI, run in this folder."""
        *_, top = (folder.absolute() for folder in walk_up(self._root, os.fspath(find_home(os.environ))))
        here = os.path.relpath(self._root, top)
        if here == "." or not exists(top / ".git"):
            return
        project = Project(top)

        def read_if_named(name: str) -> str:
            text = project._read_with_includes(name)
            return text if here in text else ""

        for each in read_project_commands(read_if_named, project._list_workflows()).commands:
            if (folder := _cut_folder(each.folder, here)) is not None:
                yield replace(each, folder=folder)

    def _list_workflows(self) -> list[str]:
        found = self._list_files(".github/workflows/*.y*ml")
        return sorted(path.relative_to(self._root).as_posix() for path in found)[:_MOST_WORKFLOWS]

    @cached_property
    def own_tests(self) -> tuple[ProjectCommand, ...]:
        """The commands with which the project runs its tests in one folder, if they can run here."""
        found = self.commands.find_tests()
        same = [each for each in found if (each.folder, each.env) == (found[0].folder, found[0].env)]
        return tuple(same) if all(map(self._can_run, same)) else ()

    def _can_run(self, command: ProjectCommand) -> bool:
        folder = self._root / command.folder
        words = command.words if command.python[-1:] != ("-m",) else command.words[1:]
        paths = (word.partition("::")[0] for word in words if not word.startswith("-"))
        return all(
            exists(folder / path) or (not command.folder and self._has_match(path)) for path in paths if "/" in path
        )

    def leave_out_environment(self, tool: str, arguments: Words) -> Words:
        """Return the arguments of a linter, with an option that keeps it out of the virtual environment inside.

        ruff, isort and black stay out by themselves, unless the usual exclusions are replaced.
        """
        inside = find_virtual_environment_in(self._root)
        whole = any(word.rstrip("/") == "." for word in arguments) or not any(map(self.has_path, arguments))
        if inside is None or not whole:
            return arguments
        if tool == "bandit":  # it compares names as it finds them, with ./
            return _add_folder(arguments, f"./{inside.name}", ("--exclude", "-x"), _BANDIT_EXCLUSIONS)
        if tool == "flake8":
            return _add_folder(arguments, inside.name, ("--extend-exclude",), self._flake8_exclusions)
        if tool == "isort":
            return self._leave_out_of_isort(arguments, inside.name)
        if tool == "black":
            return self._leave_out_of_black(arguments, inside.name)
        enters = tool == "ruff" and "exclude" in self._ruff_options
        return (*arguments, f"--extend-exclude={inside.name}") if enters else arguments

    def _leave_out_of_isort(self, arguments: Words, folder: str) -> Words:
        options = read_tool_options("isort", self._read_text)
        skipped = find_option(arguments, "--skip", "-s") or options.get("skip")
        if skipped is None or folder in _split_list(skipped):
            return arguments
        extends = find_option(arguments, "--extend-skip") is not None  # replaces the list in the configuration
        others = () if extends else _split_list(options.get("extend_skip", ""))
        return (*arguments, *(f"--extend-skip={each}" for each in (*others, folder)))

    def _leave_out_of_black(self, arguments: Words, folder: str) -> Words:
        options = read_tool_options("black", self._read_text)
        pattern = find_option(arguments, "--exclude") or options.get("exclude")
        forced = find_option(arguments, "--force-exclude") or options.get("force-exclude")
        if pattern is None or forced is not None or _excludes(pattern, f"/{folder}/"):
            return arguments
        return (*arguments, f"--force-exclude=/{folder}/")

    @cached_property
    def _flake8_exclusions(self) -> str:
        """What flake8's configuration adds to its exclusions, which an option would replace."""
        options = read_tool_options("flake8", self._read_text)
        added = options.get("extend-exclude") or options.get("extend_exclude") or ""
        return ",".join(_split_list(added))

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """The reasons why files of the project are not used."""
        _, reason = self._package
        return (reason,) if reason else ()

    @cached_property
    def has_invoke_tasks(self) -> bool:
        """Whether tasks.py has tasks of invoke."""
        return re.search(r"(?m)^(?:from|import) +invoke\b", self._read_text("tasks.py")) is not None

    @cached_property
    def has_python(self) -> bool:
        """Whether this is a project in Python, by its settings, or by modules or packages at the top."""
        of_tools = chain.from_iterable(_MARKERS.values())
        settings = any(map(self.has_path, chain(_PYTHON_FILES, of_tools)))
        return settings or bool(self._list_files("*.py")) or any(map(_is_package, self._list_folders(self._root)))

    @cached_property
    def poe_functions(self) -> tuple[str, ...]:
        """The names of poe's tasks that are Python functions, which no command line says."""
        try:
            tool = raw_yaml.as_mapping(parse_toml(self._read_text("pyproject.toml")).get("tool"))
        except (ValueError, RecursionError):
            return ()
        tasks = raw_yaml.as_mapping(raw_yaml.as_mapping(tool.get("poe")).get("tasks"))
        return tuple(name for name, task in tasks.items() if "script" in raw_yaml.as_mapping(task))

    @cached_property
    def _package(self) -> tuple[dict[str, object], str]:
        """The content of package.json, and the reason if it can't be used, otherwise ""."""
        return _parse_package(self._read_text("package.json"))

    @cached_property
    def ruff_checks_only(self) -> Words:
        """An option if ruff's configuration makes `ruff check` change files, which others read at the same time."""
        fixes = "true" in (self._ruff_options.get("fix"), self._ruff_options.get("fix-only"))
        return ("--no-fix",) if fixes else ()

    @cached_property
    def _ruff_options(self) -> dict[str, str]:
        return read_tool_options("ruff", self._read_text)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The folders of the Python sources: `src`, packages at the top or one level below, or those of projects below.

        Without any of these it is `.`. A `src` without Python holds the sources of another language, as beside
        maturin's `python/pkg`.
        """
        if any(map(self._has_path_like, ("src/**/*.py", "src/**/*.pyi"))):
            return ("src",)
        folders = [folder for folder in self._list_folders(self._root) if folder.name not in _EXAMPLES]
        packages = [folder.name for folder in folders if _is_package(folder)]
        holders = [folder.name for folder in folders if any(map(_is_package, self._list_folders(folder)))]
        return tuple(packages or holders or self._find_sources_below() or (".",))

    def _find_sources_below(self) -> list[str]:
        """Return the sources of the projects below, or nothing if there are modules here.

        mypy often refuses all files together, since the tests of two projects have a module of the same name.
        """
        if self._list_files("*.py"):
            return []
        below = (folder for folder in self.projects_below if _is_text(str(folder)))
        projects = ((folder, Project(self._root / folder)) for folder in below)
        return [(folder / source).as_posix() for folder, each in projects if each.has_python for source in each.sources]

    @cached_property
    def unit_tests(self) -> str | None:
        """The folder of the unit tests, `.` for files at the top, None without any test file."""
        named = self._test_paths
        if len(named) == 1 and is_folder(self._root / named[0]):
            return named[0].rstrip("/")
        top = [folder for folder in ("tests", "test", "testing") if self._has_tests(self._root / folder)]
        if "tests" in top and self._has_only_unit_tests("tests"):
            return "tests/unit"
        inside = [] if top else self._tests_in_sources
        if top or inside:
            return top[0] if top else posixpath.commonpath(inside) or "."
        if any(self._root.glob("test_*.py")):
            return "."
        elsewhere = self._find_tests_elsewhere()
        return None if not elsewhere else elsewhere[0] if len(elsewhere) == 1 else "."

    def _find_tests_elsewhere(self) -> list[str]:
        """Return the folders at the top with tests beside the modules, or in folders of unusual names, for pytest."""
        if not self.uses("pytest"):
            return []
        below = {folder.parts[0] for folder in self.projects_below}
        named = (folder for folder in self._list_folders(self._root) if folder.name not in below)
        return [folder.name for folder in named if self._has_tests(folder)]

    @cached_property
    def _tests_in_sources(self) -> list[str]:
        """The folders `tests` and `test` with test files in the sources, without projects below and copied packages."""
        folders = ["*" if source == "." else f"{source}/**" for source in self.sources]
        patterns = [f"{folder}/{name}" for folder in folders for name in ("tests", "test")]
        found = sorted({path.relative_to(self._root) for pattern in patterns for path in self._list_files(pattern)})
        below = {*self.projects_below}
        own = (path for path in found if below.isdisjoint((path, *path.parents)))
        named = (path.as_posix() for path in own if not any(map(_is_copied, path.parts)))
        return [folder for folder in named if _is_text(folder) and self._has_tests(self._root / folder)]

    def _has_only_unit_tests(self, tests: str) -> bool:
        """Return whether all test files in a folder are in its folder `unit`, or are integration tests."""
        apart = (f"{tests}/unit", *_INTEGRATION)
        files = (Path(file) for pattern in self._test_files for file in self._find_files(tests, pattern))
        return self._has_tests(self._root / tests / "unit") and all(
            any(map(each.is_relative_to, apart)) for each in files
        )

    @cached_property
    def other_tests(self) -> tuple[str, ...]:
        """The folders `tests` and `test` in the sources that are not below the folder of the unit tests."""
        unit = self.unit_tests
        if unit is None or unit == ".":
            return ()
        return tuple(folder for folder in self._tests_in_sources if not Path(folder).is_relative_to(unit))

    @cached_property
    def projects_below(self) -> tuple[Path, ...]:
        """The folders below that are projects of their own. A package is none, even with a setup.py in it."""
        below = find_projects_below(self._root)
        return tuple(folder for folder in below if not is_file(self._root / folder / "__init__.py"))

    def has_tests_in(self, folder: Path, *, python: bool = True) -> bool:
        """Return whether a project below has tests that the stages here do not run.

        These are an npm script for tests, unless there are scripts here, and, if `python`, Python tests in their usual
        place, unless pytest's configuration names its folders here.
        """
        found = (
            python
            and not self.has_test_paths
            and any(self._has_tests(self._root / folder / name) for name in ("tests", "test"))
        )
        package, _ = _parse_package(self._read_text(str(folder / "package.json")))
        return found or (not self.scripts and "test" in _list_scripts(package))

    @cached_property
    def _test_files(self) -> tuple[str, ...]:
        """The patterns of the names of test files."""
        # pathlib refuses `**.py` before Python 3.13.
        named = [re.sub(r"\*+", "*", each) for each in self._pytest_options.get("python_files", "").split()]
        return tuple(pattern for pattern in named if re.fullmatch(r"[\w*?.-]+", pattern)) or _TEST_FILES

    @cached_property
    def _test_paths(self) -> list[str]:
        """The paths and patterns of `testpaths` that stay inside the project."""
        named = self._pytest_options.get("testpaths", "").split()
        return [path for path in named if not path.startswith("/") and ".." not in path.split("/")]

    @cached_property
    def has_test_paths(self) -> bool:
        """Whether pytest's configuration names the folders of the tests, and one of them exists."""
        return any(map(self._has_path_like, self._test_paths))

    @cached_property
    def has_tests(self) -> bool:
        return self.has_test_paths or self.unit_tests is not None

    @cached_property
    def xdist_options(self) -> Words:
        """The options with which the project runs a large suite by pytest-xdist.

        There are none if pytest-xdist is not installed, or if pytest's configuration has them.
        """
        options = self.commands.find_xdist_options()
        if self.unit_tests is None or read_xdist_options(self._pytest_options.get("addopts", "").split()):
            return ()
        return options if self._has_xdist and self._count_test_bytes(self.unit_tests) >= _LARGE_SUITE_BYTES else ()

    @cached_property
    def _has_xdist(self) -> bool:
        """Whether pytest-xdist lies beside the pytest that a stage would run."""
        pytest = shutil.which("pytest", path=self._path)
        return pytest is not None and any(Path(pytest).parent.parent.glob("lib/python*/*-packages/xdist"))

    def _count_test_bytes(self, folder: str) -> int:
        try:
            return sum(path.stat().st_size for path in (self._root / folder).rglob("test_*.py"))
        except (OSError, RecursionError):
            return 0

    @cached_property
    def _pytest_options(self) -> dict[str, str]:
        return read_tool_options("pytest", self._read_text)

    @cached_property
    def integration_tests(self) -> str | None:
        """The folder of the integration tests."""
        return next((folder for folder in _INTEGRATION if self._has_tests(self._root / folder)), None)

    @cached_property
    def integration_options(self) -> Words:
        """The option of a conftest.py that lets the integration tests run, such as `--integration`, or none."""
        folders = (Path(self.integration_tests or "."), *Path(self.integration_tests or ".").parents)
        texts = (self._read_text(str(folder / "conftest.py")) for folder in folders)
        return next(((found[1],) for text in texts if (found := _INTEGRATION_OPTION.search(text))), ())

    def drop_reports(self, arguments: Words) -> Words:
        """Return pytest's arguments without those that only change its output."""
        return drop_pytest_reports(arguments, keep_coverage=self._limits_coverage)

    @cached_property
    def _limits_coverage(self) -> bool:
        """Whether the tests fail if they cover too little."""
        names = (".coveragerc", "pyproject.toml", "setup.cfg", "tox.ini")
        limit = re.compile(r"^[^\S\n]*fail_under\s*=|--cov-fail-under", re.MULTILINE)
        calls = (word for words in self.commands.find("pytest") for word in words)
        return any(map(limit.search, (*map(self._read_text, names), *calls)))

    @cached_property
    def has_unittests(self) -> bool:
        """Whether the tests are for the standard library's unittest."""
        if self.unit_tests is None or self.uses("pytest"):
            return False
        text = "\n".join(map(self._read_text, islice(self._find_files(self.unit_tests, "test_*.py"), _MOST_TEST_FILES)))
        return "import unittest" in text and "import pytest" not in text

    def _find_files(self, folder: str, pattern: str) -> Iterator[str]:
        with suppress(OSError, RecursionError):  # folders nested too deeply
            for path in (self._root / folder).rglob(pattern):
                yield str(path.relative_to(self._root))

    @cached_property
    def unittest_folders(self) -> Words:
        """The arguments with which unittest finds the tests."""
        if self.unit_tests is None or self.unit_tests == ".":
            return ()
        top = ("-t", ".") if is_file(self._root / self.unit_tests / "__init__.py") else ()
        return ("discover", "-s", self.unit_tests, *top)

    @cached_property
    def mypy_targets(self) -> Words:
        """What to call mypy with: nothing if its configuration lists files."""
        return () if self.mypy_has_targets else self.sources

    @cached_property
    def mypy_has_targets(self) -> bool:
        """Whether mypy's configuration lists the files to check."""
        return not {"files", "packages", "modules"}.isdisjoint(read_tool_options("mypy", self._read_text))

    @cached_property
    def mypy_needs_base(self) -> bool:
        """Whether mypy needs to know that `src` is above the packages, since it finds their modules twice otherwise.

        It does so for namespace packages, which have no `__init__.py`, if they are also installed as editable.
        """
        if self.mypy_targets != ("src",) or "mypy_path" in read_tool_options("mypy", self._read_text):
            return False
        folders = (each for each in self._list_folders(self._root / "src") if not _is_package(each))
        return any(_is_package(inner) for each in folders for inner in self._list_folders(each))

    @cached_property
    def cargo_options(self) -> Words:
        """The option for all packages of a workspace; otherwise cargo takes only the package at its top.

        A workspace without a package at its top needs none, and one with `default-members` has made its own choice.
        """
        try:
            manifest = parse_toml(self._read_text("Cargo.toml"))
        except (ValueError, RecursionError):
            return ()
        chosen = "default-members" in raw_yaml.as_mapping(manifest.get("workspace"))
        return ("--workspace",) if {"package", "workspace"} <= manifest.keys() and not chosen else ()

    @cached_property
    def scripts(self) -> dict[str, str]:
        """The npm scripts of package.json, by name."""
        described, _ = self._package
        return _list_scripts(described)

    @cached_property
    def script_dependencies(self) -> frozenset[str]:
        """The packages that package.json needs."""
        described, _ = self._package
        named = (raw_yaml.as_mapping(described.get(key)) for key in ("dependencies", "devDependencies"))
        return frozenset(chain.from_iterable(named))

    @cached_property
    def lacks_node_modules(self) -> bool:
        """Whether package.json needs packages that are not installed here, or in a folder above with its own."""
        folders = (self._root, *self._root.absolute().parents)
        return bool(self.script_dependencies) and not any(is_folder(folder / "node_modules") for folder in folders)

    @cached_property
    def script_runner(self) -> str:
        """The package manager that package.json names, otherwise that of the lock file, otherwise npm.

        In a package of a workspace both files are in a folder above.
        """
        folders = (folder.absolute() for folder in walk_up(self._root, os.fspath(find_home(os.environ))))
        return next(filter(None, map(self._find_script_runner, folders)), "npm")

    def _find_script_runner(self, folder: Path) -> str | None:
        described, _ = _parse_package(self._read_text(str(folder / "package.json")))
        named = str(described.get("packageManager", "")).partition("@")[0]  # such as pnpm@9.0.0; others refuse to run
        if named in _PACKAGE_MANAGERS:
            return named
        return next((runner for lock, runner in _LOCKS if is_file(folder / lock)), None)

    @cached_property
    def target_runner(self) -> str:
        """The first of make, just and task that the project has a file for, otherwise make."""
        return next((each for each, (names, _) in _TARGET_FILES.items() if any(map(self.has_path, names))), "make")

    @cached_property
    def targets(self) -> dict[str, list[str]]:
        """The lines of each target of the runner, or none if its file calls paropt-exporter: it would call itself."""
        names, parse = _TARGET_FILES[self.target_runner]
        text = next((text for name in names if (text := self._read_with_includes(name))), "")
        if "paropt-exporter" in text or "paropt_exporter" in text:
            return {}
        return parse(text)

    @cached_property
    def _mentions(self) -> str:
        requirements = sorted(path.name for path in self._list_files("*requirements*.txt"))
        requirements += sorted(f"requirements/{path.name}" for path in self._list_files("requirements/*.txt"))
        texts = "\n".join(self._read_text(name) for name in (*_MENTIONS, *requirements[:20]))
        return re.sub(r"(^|\s)#.*", "", texts)  # comments

    def _has_tests(self, folder: Path) -> bool:
        try:
            return any(next(folder.rglob(pattern), None) is not None for pattern in self._test_files)
        except (OSError, RecursionError):  # folders nested too deeply
            return False

    def _list_folders(self, folder: Path) -> list[Path]:
        try:
            inside = sorted(
                path for path in folder.iterdir() if is_folder(path) and not path.name.startswith((".", "_"))
            )
        except OSError:
            return []
        named = (path for path in inside if path.name not in _NO_SOURCES and _is_text(path.name))
        return [path for path in named if not exists(path / "pyvenv.cfg")]

    def _has_path_like(self, pattern: str) -> bool:
        return next(self._search.iter_matches(self._root, pattern), None) is not None

    def _list_files(self, pattern: str) -> list[Path]:
        return [self._root / path for path in self._search.iter_matches(self._root, pattern)]

    def _read_with_includes(self, name: str) -> str:
        """Return the text of a file, and below that of a makefile or justfile those of the files that it includes."""
        text = self._read_text(name)
        found = _INCLUDES[name].findall(text) if name in _INCLUDES else ()
        words = (word for line in found for word in line.partition("#")[0].split())
        patterns = islice((match[1] for match in map(_INCLUDED.fullmatch, words) if match), _MOST_INCLUDED)
        paths = dict.fromkeys(path for pattern in patterns for path in sorted(self._list_files(pattern)))
        included = (str(path.relative_to(self._root)) for path in islice(paths, _MOST_INCLUDED))
        return "\n".join((text, *map(self._read_text, included)))

    def _read_text(self, name: str) -> str:
        path = self._root / name
        try:
            content = read_start(path, limit_bytes=_LARGEST_BYTES + 1)  # files of /proc have no size
        except OSError:
            return ""
        text = content.decode("utf-8", "replace") if content and len(content) <= _LARGEST_BYTES else ""
        return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse_package(text: str) -> tuple[dict[str, object], str]:
    """Return the content of a package.json, and the reason if it can't be used, otherwise ""."""
    try:
        return raw_yaml.as_mapping(json.loads(text or "{}")), ""
    except (ValueError, RecursionError) as error:
        return {}, f"package.json can't be parsed, and is not used: {describe_error(error)}"


def _list_scripts(package: Mapping[str, object]) -> dict[str, str]:
    placeholder = "no test specified"  # `npm init` writes such a script, which always fails
    return {
        name: line for name, line in raw_yaml.as_mapping(package.get("scripts")).items()
        if isinstance(line, str) and placeholder not in line
    }  # fmt: skip


def _add_folder(arguments: Words, folder: str, options: tuple[str, ...], usual: str) -> Words:
    """Return arguments with one more folder to leave out. An option replaces the usual exclusions, and earlier ones."""
    given = find_option(arguments, *options)
    named = ",".join(filter(None, (usual if given is None else given, folder)))
    any_option = re.compile("|".join(options))
    return (*drop_options(arguments, any_option, any_option), f"{options[0]}={named}")


def _excludes(pattern: str, path: str) -> bool:
    """Return whether black's pattern matches a path; one with a fault excludes nothing, and black will report it."""
    try:
        return re.search(pattern, path, re.VERBOSE if "\n" in pattern else 0) is not None
    except re.error:
        return False


def _cut_folder(path: str, start: str) -> str | None:
    """Return the rest of a path that begins with a folder, or None for another path."""
    head, found, rest = f"{path}/".partition(f"{start}/")
    return rest.rstrip("/") if found and not head else None


def _split_list(value: str) -> list[str]:
    """Return the words of a list in an INI file, or of one in TOML as words."""
    return [*filter(None, re.split(r"[\s,]+", re.sub(r"#.*", "", value)))]


def _is_package(folder: Path) -> bool:
    return is_file(folder / "__init__.py") or is_file(folder / "__init__.pyi")


def _is_copied(folder: str) -> bool:
    """Return whether a folder has packages of others, by its name."""
    return folder.strip("_") in ("vendor", "vendored", "extern", "third_party")


def _is_text(name: str) -> bool:
    """Return whether a name is UTF-8, so that a paropt.yml can have it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
