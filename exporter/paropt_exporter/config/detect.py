"""Build stages 2-6 from the tools that a project uses.

A tool counts if the project shows signs of it (its configuration, a dependency, files) and it is installed here. A
linter that is only installed says nothing about the project.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from functools import cached_property
from itertools import islice
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.config import raw_yaml
from paropt_exporter.config.command_files import MAKEFILES, Words, parse_recipes
from paropt_exporter.config.foreign_files import describe_error
from paropt_exporter.config.locate import find_projects_below
from paropt_exporter.config.placeholders import ITEMS
from paropt_exporter.config.project_commands import ProjectCommand, ProjectCommands, read_project_commands
from paropt_exporter.config.pytest_arguments import drop_reports, selects_tests
from paropt_exporter.config.pytest_options import read_pytest_options
from paropt_exporter.config.values import Items, Stage
from paropt_exporter.config.virtual_environment import build_environment, find_virtual_environment


class DetectedStages(Struct, frozen=True, kw_only=True):
    """The built-in stages for a project. `notes` give the reason for each stage or tool that is left out."""

    stages: tuple[Stage, ...]
    notes: tuple[str, ...]


def join_items(stage: Stage) -> Stage:
    """Return a detected stage with one command for all its items.

    One pytest is right for every suite: click's files fail when they run apart, though it uses pytest-xdist.
    """
    if stage.items is None or stage.items.glob is None or not isinstance(stage.run, tuple):
        return stage
    folder = stage.items.glob.rpartition("/")[0].removesuffix("/**") or "."
    command = tuple(folder if word == ITEMS else word for word in stage.run)
    return replace(stage, run=command, items=None)


class _BuiltInStage(Struct, frozen=True, kw_only=True):
    """One built-in stage with the Python tools, npm scripts and make targets for it.

    All tools are used that the project calls itself, otherwise the first of `tools` that it is configured for.
    """

    number: int
    name: str
    tools: tuple[str, ...]
    called: tuple[str, ...] = ()
    scripts: tuple[str, ...]
    targets: tuple[str, ...]


_BUILT_IN_STAGES = (
    _BuiltInStage(
        number=2,
        name="quality_gates",
        tools=("ruff", "flake8"),
        called=("black", "isort", "pylint", "pycodestyle", "pydocstyle", "pyflakes"),
        scripts=("lint",),
        targets=("lint", "style", "format-check"),
    ),
    _BuiltInStage(
        number=3,
        name="type_checking",
        tools=("mypy", "pyright"),
        called=("basedpyright", "ty", "pyrefly"),
        scripts=("typecheck", "type-check", "types", "tsc"),
        targets=("typecheck", "type-check", "types", "mypy"),
    ),
    _BuiltInStage(
        number=4,
        name="unit_tests",
        tools=("pytest",),
        scripts=("test:unit", "unit", "test"),
        targets=("test-unit", "unit", "unit-test", "test"),
    ),
    _BuiltInStage(
        number=5,
        name="integration_tests",
        tools=("pytest",),
        scripts=("test:integration", "integration", "test:e2e", "e2e"),
        targets=("test-integration", "integration", "integration-test", "e2e"),
    ),
    _BuiltInStage(
        number=6,
        name="security_scan",
        tools=("bandit",),
        scripts=("audit", "security"),
        targets=("security", "audit", "bandit"),
    ),
)


def detect_stages(root: Path) -> DetectedStages:
    """Return the built-in stages for the project in `root`. Reads its files, runs nothing."""
    project = Project(root)
    stages: list[Stage] = []
    notes: list[str] = [*project.commands.notes, *project.notes]
    for kind in _BUILT_IN_STAGES:
        work, missing = _choose_work(project, kind)
        script, no_script = _choose_script(project, kind, work)
        target, no_target = _choose_target(project, kind) if not work and script is None else (None, [])
        missing += no_script + (no_target if not missing else [])
        if script is not None and work:  # tools of two languages are two stages, which run side by side
            stages.append(_build_stage(project, kind.number + _BESIDE, f"{kind.name}_{script[0]}", [script]))
        work = work or [each for each in (script, target) if each is not None]
        if work:
            stages.append(_build_stage(project, kind.number, kind.name, work))
            notes += [f"{kind.name}: {why}" for why in missing]
        else:
            notes.append(f"{kind.name} left out: {'; '.join(missing) or _describe_missing(kind)}")
    if not stages:
        notes = [
            f"{folder} is a project of its own: run `paropt-exporter init` there"
            for folder in find_projects_below(root)[:_MOST_PROJECTS]
        ] or notes
    return DetectedStages(stages=tuple(sorted(stages, key=lambda stage: stage.number)), notes=tuple(notes))


_MOST_PROJECTS = 20  # of a repository in the notes: a screenful
_BESIDE = 10  # added to the number of a stage for the second stage of its kind


def _build_stage(project: Project, number: int, name: str, commands: list[Words]) -> Stage:
    env, cwd = _choose_environment(project, name, commands)
    if len(commands) > 1:
        return Stage(number=number, name=name, steps=tuple(commands), env=env, cwd=cwd)
    pattern = _choose_batched_files(project, commands[0])
    if pattern is None:
        return Stage(number=number, name=name, run=_run_tests_in_parallel(project, commands[0]), env=env, cwd=cwd)
    run = (*commands[0][: _count_start(commands[0])], "-q", ITEMS)
    return Stage(number=number, name=name, run=run, items=Items(glob=pattern), env=env)


def _choose_environment(project: Project, name: str, commands: list[Words]) -> tuple[dict[str, str], str | None]:
    """Return the variables and the folder with which the project runs its tests."""
    if name not in _TEST_STAGES or not project.own_tests or commands[0][0] in _SCRIPT_RUNNERS:
        return {}, None
    own = project.own_tests[0]
    return {key: value for key, value in own.env if not _OF_TOOLS.match(key)}, own.folder or None


def _choose_work(project: Project, kind: _BuiltInStage) -> tuple[list[Words], list[str]]:
    """Return the calls of a stage's installed tools, and the reasons why other tools are missing."""
    if kind.name in _TEST_STAGES:
        return _choose_tests(project, kind)
    found: list[Words] = []
    missing: list[str] = []
    for tool in kind.tools + kind.called:
        calls = _choose_own_calls(project, tool)
        if not calls and not found and tool in kind.tools and project.uses(tool):
            calls = _choose_usual_calls(project, tool)
        if calls and not project.has_program(tool):
            missing.append(_describe_missing_program(tool))
        else:
            found += [(tool, *arguments, *project.leave_out_environment(tool, arguments)) for arguments in calls]
    return found, missing


def _describe_missing_program(name: str) -> str:
    return f"the project uses {name}, but it is neither in its virtual environment nor on PATH: install it"


def _choose_tests(project: Project, kind: _BuiltInStage) -> tuple[list[Words], list[str]]:
    """Return the project's own commands for its tests, otherwise one for the runner that its files speak of."""
    choose = _choose_own_tests if project.own_tests else _choose_usual_tests
    commands = choose(project, integration=kind.name == "integration_tests")
    if not commands:
        apart = project.integration_tests if kind.name == "integration_tests" else None
        return [], [f"no command of the project runs {apart} alone"] if apart is not None else []
    other = not _count_start(commands[0]) or not _runs_pytest(project)
    if other and _choose_target(project, kind)[0] is not None:
        return [], []  # the make target may prepare what its tests need
    if not project.has_program("python") and project.has_program("python3"):
        commands = [("python3", *words[1:]) if words[0] == "python" else words for words in commands]
    programs = ("pytest" if _count_start(words) else words[0] for words in commands)
    program = next((each for each in programs if not project.has_program(each)), None)
    if program is not None:
        return [], [_describe_missing_program(program)]
    return commands, _describe_preparation(project) if kind.name == "unit_tests" else []


def _describe_preparation(project: Project) -> list[str]:
    """Return a note on the commands that the project runs before its tests, which a stage does not run."""
    own = project.own_tests[:1]
    return [
        f"{each.file} runs `{each.before}` before the tests (commands_pre): add it to the stage's steps if they need it"
        for each in own
        if each.before
    ]


def _choose_own_tests(project: Project, *, integration: bool) -> list[Words]:
    """Return the project's commands for its tests.

    Integration tests in a folder of their own become a stage of their own if one plain command runs all tests, or if
    another command runs them.
    """
    own, separate = project.own_tests, project.integration_tests
    calls = [project.drop_reports(each.words[1:]) for each in own if each.words[0] == "pytest"]
    if len(calls) < len(own):
        return [] if integration else [(*each.python, *each.words) for each in own]
    start = (*own[0].python, "pytest", "-q")  # `python -m pytest` finds modules in the current folder
    targets = [word for word in calls[0] if project.has_path(word)]
    plain = len(calls) == 1 and not own[0].folder and not selects_tests(calls[0])
    if separate is not None and plain and all(separate.startswith(f"{each.rstrip('/')}/") for each in targets):
        if not integration:
            return [(*start, *calls[0], f"--ignore={separate}")]
        return [(*start, *(word for word in calls[0] if word not in targets), separate)]
    if integration:
        calls = [project.drop_reports(words) for words in project.commands.find("pytest") if separate in words][:1]
    return [(*start, *call) for call in calls]


def _count_start(command: Words) -> int:
    """Return how many words start pytest: 1 for `pytest`, 3 for `python -m pytest`, 0 for other programs."""
    if command[0] == "pytest":
        return 1
    return command.index("pytest") + 1 if command[0] in ("python", "python3") and "pytest" in command else 0


def _choose_usual_tests(project: Project, *, integration: bool) -> list[Words]:
    if not integration and project.has_path("manage.py") and not _runs_pytest(project):
        return [("python", "manage.py", "test")]
    if not integration and not project.has_program("pytest") and project.has_unittests:
        return [("python", "-m", "unittest", *project.unittest_folders)]
    return [("pytest", *arguments) for arguments in _choose_pytest_calls(project, integration=integration)]


def _runs_pytest(project: Project) -> bool:
    """Return whether any file of the project speaks of pytest: its tests may need another runner."""
    return project.uses("pytest") or bool(project.commands.find("pytest"))


def _choose_script(project: Project, kind: _BuiltInStage, work: list[Words]) -> tuple[Words | None, list[str]]:
    """Return the call of an npm script, unless it only runs a tool that the stage runs already."""
    script = next((script for script in kind.scripts if script in project.scripts), None)
    if script is None or any(_mentions_word(project.scripts[script], words[0]) for words in work):
        return None, []
    if not project.has_program(project.script_runner):
        return None, [f"package.json has the script {script!r}, but {project.script_runner} is not on PATH"]
    if project.lacks_node_modules:
        return None, [f"package.json has the script {script!r}, but no node_modules: {project.script_runner} install"]
    return (project.script_runner, "run", script), []


def _choose_target(project: Project, kind: _BuiltInStage) -> tuple[Words | None, list[str]]:
    """Return the call of the first make target whose programs are installed."""
    missing: list[str] = []
    if not project.has_program("make"):
        return None, []
    for target in kind.targets:
        if target not in project.targets:
            continue
        program = project.find_missing_program(target)
        if program is None:
            return ("make", target), missing
        missing.append(f"`make {target}` needs {program}, which is not installed")
    return None, missing


def _choose_usual_calls(project: Project, tool: str) -> list[Words]:
    """Return the usual arguments of a tool that the project uses."""
    match tool:
        case "ruff":
            return [("check", *project.ruff_checks_only, ".")]
        case "mypy":
            return [project.mypy_targets]
        case "bandit":
            # One line a finding. The default report ends with "Files skipped (0):", which a summary would show.
            return [("-q", "-f", "custom", "-r", *project.sources)]
    return [()]


def _choose_own_calls(project: Project, tool: str) -> list[Words]:
    """Return the arguments with which the first file that does so has the tool check something and change nothing."""
    files = [
        [words for words in calls if not _CHANGES_FILES.intersection(words) and project.has_files(words)]
        for calls in project.commands.find_by_file(tool)
    ]
    match tool:
        case "ruff":
            return _choose_ruff_calls(project, files)
        case "black" | "isort":
            return _find_first(files, lambda words: bool(_ONLY_CHECKS.intersection(words)) and _has_targets(words))
        case "mypy":
            calls = _find_first(files, _has_targets)
            if calls and not (project.mypy_has_targets and any(() in each for each in files)):
                return calls
            plain = _find_first(files, lambda words: not _has_targets(words))[:1]
            return [(*words, *project.mypy_targets) for words in plain]
        case "flake8" | "pyright" | "basedpyright":
            return next(filter(None, files), [])[:_MOST_CALLS]
        case "ty" | "pyrefly":
            return _find_first(files, lambda words: words[:1] == ("check",))
    return _find_first(files, _has_targets)


def _choose_ruff_calls(project: Project, files: list[list[Words]]) -> list[Words]:
    fixing = [words for words in project.commands.find("ruff") if "--fix" in words and project.has_files(words)]
    checks = _find_first(files, lambda words: words[:1] == ("check",)) or fixing
    formats = _find_first(files, lambda words: words[:1] == ("format",) and not _ONLY_CHECKS.isdisjoint(words))
    chosen = [tuple(word for word in words[1:] if word not in _CHANGES_FILES) for words in checks[:1]]
    if formats and not chosen:
        chosen = [()]
    return [("check", *project.ruff_checks_only, *(words or (".",))) for words in chosen] + formats[:1]


def _find_first(files: list[list[Words]], accept: Callable[[Words], bool]) -> list[Words]:
    """Return the accepted calls of the first file that has any."""
    return next((found for calls in files if (found := list(filter(accept, calls)))), [])[:_MOST_CALLS]


def _has_targets(arguments: Words) -> bool:
    return any(not word.startswith("-") for word in arguments)


def _mentions_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def _run_tests_in_parallel(project: Project, command: Words) -> Words:
    """Return the command of all unit tests with the processes of pytest-xdist that the project's own command has."""
    if project.xdist_processes is None or not _runs_all_unit_tests(project, command):
        return command
    at = _count_start(command) + 1  # after -q
    return (*command[:at], "-n", project.xdist_processes, *command[at:])


def _runs_all_unit_tests(project: Project, command: Words) -> bool:
    at = _count_start(command)
    return at > 0 and command[at:] in (("-q",), ("-q", project.unit_tests))


def _choose_batched_files(project: Project, command: Words) -> str | None:
    """Return the glob of unit tests that are to run in batches, or None if one pytest should run them all."""
    return project.unit_test_files if _runs_all_unit_tests(project, command) else None


def _choose_pytest_calls(project: Project, *, integration: bool) -> list[Words]:
    separate = project.integration_tests
    if integration:
        return [("-q", separate)] if separate else []
    if not project.has_tests:
        return []
    ignored = (f"--ignore={separate}",) if separate else ()
    if project.has_test_paths:  # pytest knows the folders
        return [("-q", *ignored)]
    folder = project.unit_tests
    if folder is None:
        return []
    inside = separate is not None and (folder == "." or separate.startswith(f"{folder}/"))
    return [("-q", folder, *(ignored if inside else ()))]


def _describe_missing(kind: _BuiltInStage) -> str:
    looked = [*kind.tools, f"npm script {kind.scripts[0]}", f"make target {kind.targets[0]}"]
    if kind.name == "integration_tests":
        looked[0] = "tests/integration or tests/e2e"
    elif kind.name == "unit_tests":
        looked[0] = "tests/test_*.py"
    return f"the project shows none of {', '.join(looked)}"


_MOST_CALLS = 8  # of one tool in a stage
_MOST_WORKFLOWS = 20
_MOST_TEST_FILES = 50  # that are read
_CHANGES_FILES = frozenset({"--fix", "--fix-only", "--unsafe-fixes", "--watch", "-w", "--install-types", "--add-noqa"})
_ONLY_CHECKS = frozenset({"--check", "--check-only", "--diff"})
_TEST_STAGES = frozenset({"unit_tests", "integration_tests"})
_SCRIPT_RUNNERS = frozenset({"npm", "pnpm", "yarn", "make"})
# Variables for coverage, colours and installers, which decide nothing about tests.
_OF_TOOLS = re.compile(
    r"(COVERAGE|COV_|PIP_|UV_|TOX|NOX|VIRTUALENV|.*COLORS?$|CI$|DIFF_AGAINST|MYPY|PYTHONDONTWRITEBYTECODE)"
)
_LARGEST_BYTES = 1_000_000  # configuration files are smaller
_MENTIONS = ("pyproject.toml", "setup.cfg", "setup.py", "tox.ini", "noxfile.py", "Pipfile", ".pre-commit-config.yaml")
_LARGE_SUITE_BYTES = 200_000  # of test files; a smaller suite takes as long to start several times as to run once
_SHELL_WORDS = frozenset(
    {"cd", "test", "if", "for", "while", "set", "export", "exec", "eval", "source", "case", "rm", "echo", "true"}
)
_MARKERS = {
    "ruff": ("ruff.toml", ".ruff.toml"),
    "flake8": (".flake8",),
    "mypy": ("mypy.ini", ".mypy.ini"),
    "pyright": ("pyrightconfig.json",),
    "bandit": (".bandit", "bandit.yaml", "bandit.yml"),
}
_NO_SOURCES = frozenset({"tests", "test", "docs", "doc", "build", "dist", "node_modules", "venv", "site-packages"})
_INTEGRATION = ("tests/integration", "tests/integration_tests", "tests/e2e", "integration_tests", "test/integration")
# Options that several runs of a part each can't honour: own workers, an own order, an end at the first failure, one
# file for all results.
_WHOLE_RUN = re.compile(
    r"(?<![\w-])(-n|-x|--numprocesses|--dist|--maxfail|--exitfirst|--stepwise|--cov|--junit-?xml|--doctest-modules|-p "
    r"xdist)(?![\w])"
)
_COLLECTION_RULES = re.compile(r"\b(collect_ignore|collect_ignore_glob|pytest_ignore_collect|pytest_collect_file)\b")
_NOT_ENTERED = "*.egg _darcs build CVS dist node_modules venv"  # pytest's default for norecursedirs
_LOCKS = (("pnpm-lock.yaml", "pnpm"), ("yarn.lock", "yarn"))


class Project:
    """The files of one project, read on demand. An unreadable file counts as missing."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def uses(self, tool: str) -> bool:
        """Return whether the project has a configuration file of this tool, or lists it as a dependency."""
        if any((self._root / marker).is_file() for marker in _MARKERS.get(tool, ())):
            return True
        return re.search(rf"(?<![\w-]){re.escape(tool)}(?![\w-])", self._mentions) is not None

    def has_program(self, name: str) -> bool:
        """Return whether a stage would find a program: in the virtual environment, or on PATH."""
        return shutil.which(name, path=self._path) is not None

    def find_missing_program(self, target: str) -> str | None:
        """Return the first program of a make target's recipe that is not installed."""
        for line in self.targets[target]:
            word = line.lstrip("@-+ ").partition(" ")[0]
            if re.fullmatch(r"[A-Za-z][\w.-]*", word) and word not in _SHELL_WORDS and not self.has_program(word):
                return word
        return None

    def has_files(self, arguments: Words) -> bool:
        """Return whether all paths among the arguments exist."""
        paths = (word.partition("::")[0] for word in arguments if "/" in word and not word.startswith("-"))
        return all((self._root / path).exists() for path in paths)

    def has_path(self, word: str) -> bool:
        return (self._root / word).exists()

    @cached_property
    def _path(self) -> str:
        found = build_environment(self._root, os.environ)
        return found.get("PATH") or os.environ.get("PATH", os.defpath)

    @cached_property
    def commands(self) -> ProjectCommands:
        """The commands that the project runs on itself."""
        found = self._list_files(".github/workflows/*.y*ml")
        workflows = sorted(path.relative_to(self._root).as_posix() for path in found)
        return read_project_commands(self._read_text, workflows[:_MOST_WORKFLOWS])

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
        inside = not os.path.isabs(command.folder) and ".." not in command.folder.split("/")  # noqa: PTH117 -- a text
        return inside and folder.is_dir() and all((folder / path).exists() for path in paths if "/" in path)

    def leave_out_environment(self, tool: str, arguments: Words) -> Words:
        """Return the option that keeps a linter of the whole folder out of the virtual environment inside.

        ruff stays out by itself, unless its configuration replaces the usual exclusions.
        """
        inside = find_virtual_environment(self._root, {})
        enters = tool == "flake8" or (tool == "ruff" and re.search(r"^exclude\s*=", self._ruff_settings, re.MULTILINE))
        whole = "." in arguments or not any(map(self.has_path, arguments))
        return (f"--extend-exclude={inside.name}",) if enters and whole and inside is not None else ()

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """The reasons why files of the project are not used."""
        _, reason = self._package
        return (reason,) if reason else ()

    @cached_property
    def _package(self) -> tuple[dict[str, object], str]:
        """The content of package.json, and the reason if it can't be used, otherwise ""."""
        try:
            return raw_yaml.as_mapping(json.loads(self._read_text("package.json") or "{}")), ""
        except (ValueError, RecursionError) as error:
            return {}, f"package.json can't be parsed, and is not used: {describe_error(error)}"

    @cached_property
    def ruff_checks_only(self) -> Words:
        """An option if ruff's configuration makes `ruff check` change files, which others read at the same time."""
        fixes = re.search(r"^fix(-only)?\s*=\s*true", self._ruff_settings, re.MULTILINE) is not None
        return ("--no-fix",) if fixes else ()

    @cached_property
    def _ruff_settings(self) -> str:
        own = self._read_text("ruff.toml") or self._read_text(".ruff.toml")
        if own:
            return own
        found = re.search(r"^\[tool\.ruff\](.*?)(?=^\[|\Z)", self._read_text("pyproject.toml"), re.M | re.S)
        return found[1] if found else ""

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The folders of the Python sources: `src`, or packages at the top or one level below, or `.`."""
        if (self._root / "src").is_dir():
            return ("src",)
        packages = [folder.name for folder in self._list_folders(self._root) if (folder / "__init__.py").is_file()]
        holders = [
            folder.name for folder in self._list_folders(self._root)
            if any((inner / "__init__.py").is_file() for inner in self._list_folders(folder))
        ]  # fmt: skip
        return tuple(packages or holders or (".",))

    @cached_property
    def unit_tests(self) -> str | None:
        """The folder of the unit tests, `.` for files at the top, None without any test file."""
        named = self._test_paths
        if len(named) == 1 and (self._root / named[0]).is_dir():
            return named[0].rstrip("/")
        inner = [f"{source}/{name}" for source in self.sources for name in ("tests", "test")]
        inner += [f"{source}/*/{name}" for source in self.sources for name in ("tests", "test")]
        found = [path.relative_to(self._root).as_posix() for pattern in inner for path in self._list_files(pattern)]
        for folder in ("tests/unit", "tests", "test", "testing", *found):
            if self._has_tests(self._root / folder):
                return folder
        return "." if any(self._root.glob("test_*.py")) else None

    @cached_property
    def _test_paths(self) -> list[str]:
        """The paths and patterns of `testpaths` that stay inside the project."""
        named = self._pytest_options.get("testpaths", "").split()
        return [path for path in named if not path.startswith("/") and ".." not in path.split("/")]

    @cached_property
    def has_test_paths(self) -> bool:
        """Whether pytest's configuration names the folders of the tests, and one of them exists."""
        return any(
            self._list_files(path) if set("*?[") & set(path) else (self._root / path).exists()
            for path in self._test_paths
        )

    @cached_property
    def has_tests(self) -> bool:
        return self.has_test_paths or self.unit_tests is not None

    @cached_property
    def unit_test_files(self) -> str | None:
        """A glob for exactly the files that pytest collects from the unit tests, or None if one pytest should run them.

        There is one if the project runs its tests with pytest-xdist, so that they are known to run apart, there are
        many, pytest's default names apply, no folder is left out, and no option is about the run as a whole.
        """
        folder = self.unit_tests
        if folder is None or "python_files" in self._pytest_options or len(self._test_paths) > 1:
            return None
        if not self.uses("pytest-xdist") or self._count_test_bytes(folder) < _LARGE_SUITE_BYTES:
            return None
        if _WHOLE_RUN.search(self._pytest_options.get("addopts", "")):
            return None
        start = self._root / folder
        if self._has_collection_rules(start):
            return None
        flat = [*start.glob("test_*.py")]
        nested = [path.relative_to(self._root) for path in start.glob("*/**/test_*.py")]
        # Globs skip hidden folders.
        nested = [path for path in nested if not any(part.startswith(".") for part in path.parts)]
        left_out = self._pytest_options.get("norecursedirs", _NOT_ENTERED).split()
        kept = [path for path in nested if not _is_in(path, left_out)]
        if len(flat) + len(kept) < 2 or any(start.glob("**/*_test.py")):
            return None
        prefix = "" if folder == "." else f"{folder}/"
        if not kept:
            return f"{prefix}test_*.py"
        return f"{prefix}**/test_*.py" if len(kept) == len(nested) and folder != "." else None

    @cached_property
    def xdist_processes(self) -> str | None:
        """With how many processes of pytest-xdist the project runs a large suite, or None if it is not installed."""
        processes = self.commands.find_xdist_processes()
        if processes is None or self.unit_tests is None or _WHOLE_RUN.search(self._pytest_options.get("addopts", "")):
            return None
        return processes if self._has_xdist and self._count_test_bytes(self.unit_tests) >= _LARGE_SUITE_BYTES else None

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

    def _has_collection_rules(self, folder: Path) -> bool:
        """Return whether a conftest.py filters the collected files. A file on the command line ignores that filter."""
        inside = [path.relative_to(self._root) for path in folder.glob("**/conftest.py")]
        return any(_COLLECTION_RULES.search(self._read_text(str(path))) for path in (Path("conftest.py"), *inside))

    @cached_property
    def _pytest_options(self) -> dict[str, str]:
        return read_pytest_options(self._read_text)

    @cached_property
    def integration_tests(self) -> str | None:
        """The folder of the integration tests."""
        return next((folder for folder in _INTEGRATION if self._has_tests(self._root / folder)), None)

    def drop_reports(self, arguments: Words) -> Words:
        """Return pytest's arguments without those that only change its output."""
        return drop_reports(arguments, keep_coverage=self._limits_coverage)

    @cached_property
    def _limits_coverage(self) -> bool:
        """Whether the tests fail if they cover too little."""
        names = (".coveragerc", "pyproject.toml", "setup.cfg", "tox.ini")
        limit = re.compile(r"^\s*fail_under\s*=|--cov-fail-under", re.MULTILINE)
        calls = (word for words in self.commands.find("pytest") for word in words)
        return any(map(limit.search, (*map(self._read_text, names), *calls)))

    @cached_property
    def has_unittests(self) -> bool:
        """Whether the tests are for the standard library's unittest."""
        if self.unit_tests is None or self.uses("pytest"):
            return False
        text = "\n".join(map(self._read_text, islice(self._find_test_files(self.unit_tests), _MOST_TEST_FILES)))
        return "import unittest" in text and "import pytest" not in text

    def _find_test_files(self, folder: str) -> Iterator[str]:
        with suppress(OSError, RecursionError):  # folders nested too deeply
            for path in (self._root / folder).rglob("test_*.py"):
                yield str(path.relative_to(self._root))

    @cached_property
    def unittest_folders(self) -> Words:
        """The arguments with which unittest finds the tests."""
        if self.unit_tests is None or self.unit_tests == ".":
            return ()
        top = ("-t", ".") if (self._root / self.unit_tests / "__init__.py").is_file() else ()
        return ("discover", "-s", self.unit_tests, *top)

    @cached_property
    def mypy_targets(self) -> Words:
        """What to call mypy with: nothing if its configuration lists files."""
        return () if self.mypy_has_targets else self.sources

    @cached_property
    def mypy_has_targets(self) -> bool:
        """Whether mypy's configuration lists the files to check."""
        return re.search(r"^[^\S\n]*(files|packages|modules)[^\S\n]*=", self._mypy_section, re.MULTILINE) is not None

    @cached_property
    def scripts(self) -> dict[str, str]:
        """The npm scripts of package.json, by name."""
        described, _ = self._package
        placeholder = "no test specified"  # `npm init` writes such a script, which always fails
        return {
            name: line for name, line in raw_yaml.as_mapping(described.get("scripts")).items()
            if isinstance(line, str) and placeholder not in line
        }  # fmt: skip

    @cached_property
    def lacks_node_modules(self) -> bool:
        """Whether package.json needs packages that are not installed here, or in a folder above with its own."""
        described, _ = self._package
        needs = any(raw_yaml.as_mapping(described.get(key)) for key in ("dependencies", "devDependencies"))
        folders = (self._root, *self._root.absolute().parents)
        return needs and not any((folder / "node_modules").is_dir() for folder in folders)

    @cached_property
    def script_runner(self) -> str:
        """pnpm or yarn if the project has its lock file, otherwise npm."""
        return next((runner for lock, runner in _LOCKS if (self._root / lock).is_file()), "npm")

    @cached_property
    def targets(self) -> dict[str, list[str]]:
        """The lines of each target of the Makefile, or none if it calls paropt-exporter: it would call itself."""
        text = next((text for name in MAKEFILES if (text := self._read_text(name))), "")
        if "paropt-exporter" in text or "paropt_exporter" in text:
            return {}
        return parse_recipes(text)

    @cached_property
    def _mentions(self) -> str:
        requirements = sorted(path.name for path in self._list_files("*requirements*.txt"))
        requirements += sorted(f"requirements/{path.name}" for path in self._list_files("requirements/*.txt"))
        texts = "\n".join(self._read_text(name) for name in (*_MENTIONS, *requirements[:20]))
        return re.sub(r"(^|\s)#.*", "", texts)  # comments

    @cached_property
    def _mypy_section(self) -> str:
        own = self._read_text("mypy.ini") or self._read_text(".mypy.ini")
        if own:
            return own
        for name, header in (("pyproject.toml", r"^\[tool\.mypy\]"), ("setup.cfg", r"^\[mypy\]")):
            match = re.search(header + r"(.*?)(?=^\[|\Z)", self._read_text(name), re.MULTILINE | re.DOTALL)
            if match:
                return match[1]
        return ""

    def _has_tests(self, folder: Path) -> bool:
        try:
            return any(next(folder.rglob(pattern), None) is not None for pattern in ("test_*.py", "*_test.py"))
        except (OSError, RecursionError):  # folders nested too deeply
            return False

    def _list_folders(self, folder: Path) -> list[Path]:
        try:
            inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "_")))
        except OSError:
            return []
        return [path for path in inside if path.name not in _NO_SOURCES and not (path / "pyvenv.cfg").exists()]

    def _list_files(self, pattern: str) -> list[Path]:
        try:
            return [*self._root.glob(pattern)]
        except OSError:
            return []

    def _read_text(self, name: str) -> str:
        path = self._root / name
        try:
            if not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
                return ""
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def _is_in(path: Path, folders: Sequence[str]) -> bool:
    """Return whether a file is in one of these folders, each a pattern of a name or a path with a slash."""
    places = [folder.rstrip("/") for folder in folders]
    return any(
        path.is_relative_to(place) if "/" in place else any(fnmatch(part, place) for part in path.parts[:-1])
        for place in places
    )
