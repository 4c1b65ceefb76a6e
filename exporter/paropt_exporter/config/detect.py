"""Build stages 2-6 from the tools that a project uses.

A tool counts if the project shows signs of it (its configuration, a dependency, files) and if it is installed here. A
linter that is merely installed says nothing about the project.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from msgspec import Struct

from paropt_exporter.config import npm_scripts, pre_commit
from paropt_exporter.config.command_files import Words
from paropt_exporter.config.locate import find_projects_below, has_config
from paropt_exporter.config.npm_scripts import find_by_words, split_name
from paropt_exporter.config.placeholders import ARGS
from paropt_exporter.config.project_commands import ProjectCommand, read_xdist_options
from paropt_exporter.config.project_files import SHELL_WORDS, Project
from paropt_exporter.config.recipe_files import JUSTFILES, MAKEFILES
from paropt_exporter.config.tool_arguments import drop_mypy_reports, drop_options, names_mypy_targets, selects_tests
from paropt_exporter.config.values import Stage
from paropt_exporter.errors import join_names

_MOST_CALLS = 8  # of one tool in a stage
_CHANGES_FILES = frozenset({"--fix", "--fix-only", "--unsafe-fixes", "--watch", "-w", "--add-noqa"})
_INSTALLS = frozenset({"--install-types", "--non-interactive"})  # options with which mypy downloads packages
_OUTPUT_FORMAT = re.compile("--output-format")
_ONLY_CHECKS = frozenset({"--check", "--check-only", "--diff"})
_RECURSIVE = frozenset({"-r", "--recursive"})
TEST_STAGES = frozenset({"unit_tests", "integration_tests"})
BUILD_TOOLS = frozenset({"npm", "pnpm", "yarn", "bun", "make", "just", "task", "go", "cargo"})  # they may read any file
_IMPORTS_PACKAGES = frozenset({"pytest", "mypy", "pylint"})
SLOW_TOOLS = frozenset({"pylint", "mypy", "pyright", "basedpyright", "ty", "pyrefly"})
# Variables for coverage, colours and installers, which don't affect tests, and the folders of programs in CI.
_OF_TOOLS = re.compile(
    r"(COVERAGE|COV_|CODECOV|PIP_|UV_|POETRY_|PDM_|HATCH|TOX|NOX|PRE_COMMIT|VIRTUALENV|.*COLORS?$|.*_VERSION$|CI$|DIFF_AGAINST"
    r"|MYPY|PYTHONDONTWRITEBYTECODE|PATH$)"
)


class DetectedStages(Struct, frozen=True, kw_only=True):
    """The built-in stages for a project. `notes` give the reason for each stage or tool that is left out.

    `unused` are those of the notes that name a stage for which the project has no tool. `lacks_programs`: a tool is
    left out because it is not installed. `projects`: the projects below that the stages do not check.
    """

    stages: tuple[Stage, ...]
    notes: tuple[str, ...]
    unused: frozenset[str] = frozenset()
    lacks_programs: bool = False
    projects: tuple[Path, ...] = ()


class _LanguageTool(Struct, frozen=True, kw_only=True):
    """The tool that comes with a language, for a project that has the file `sign`."""

    sign: str
    program: str
    command: Words


class _BuiltInStage(Struct, frozen=True, kw_only=True):
    """One built-in stage with the Python tools, npm scripts, make targets and tools of other languages for it.

    All Python tools that the project itself calls are used, otherwise the first of `tools` for which it is configured.
    Names of scripts and targets are in words; the project may separate them as it likes, and in any order. A tool in
    `languages` is used if the project has nothing else for the stage. The first of `more_scripts` runs after the first
    of `scripts`.
    """

    number: int
    name: str
    tools: tuple[str, ...]
    called: tuple[str, ...] = ()
    scripts: tuple[str, ...]
    more_scripts: tuple[str, ...] = ()
    targets: tuple[str, ...]
    languages: tuple[_LanguageTool, ...] = ()


_BUILT_IN_STAGES = (
    _BuiltInStage(
        number=2,
        name="quality_gates",
        tools=("ruff", "flake8"),
        called=("black", "isort", "pylint", "pycodestyle", "pydocstyle", "pyflakes"),
        scripts=("lint",),
        more_scripts=("format check", "prettier check", "fmt check"),
        targets=("lint", "style", "format check"),
        languages=(
            _LanguageTool(sign="go.mod", program="go", command=("go", "vet", "./...")),
            _LanguageTool(sign="Cargo.toml", program="cargo-clippy", command=("cargo", "clippy", "--all-targets")),
        ),
    ),
    _BuiltInStage(
        number=3,
        name="type_checking",
        tools=("mypy", "pyright"),
        called=("basedpyright", "ty", "pyrefly"),
        scripts=("typecheck", "type check", "types check", "types", "tsc"),
        targets=("typecheck", "type check", "types", "mypy"),
    ),
    _BuiltInStage(
        number=4,
        name="unit_tests",
        tools=("pytest",),
        scripts=("test unit", "unit", "test", "test run", "test ci"),
        targets=("test unit", "unit", "test", "check"),
        languages=(
            _LanguageTool(sign="go.mod", program="go", command=("go", "test", "./...")),
            _LanguageTool(sign="Cargo.toml", program="cargo", command=("cargo", "test")),
        ),
    ),
    _BuiltInStage(
        number=5,
        name="integration_tests",
        tools=("pytest",),
        scripts=("test integration", "integration", "test e2e", "e2e"),
        targets=("test integration", "integration", "e2e"),
    ),
    _BuiltInStage(
        number=6,
        name="security_scan",
        tools=("bandit",),
        scripts=("audit", "security"),
        targets=("security", "audit", "bandit"),
    ),
)


KINDS = tuple(kind.name for kind in _BUILT_IN_STAGES)
_TOOLS = {tool for kind in _BUILT_IN_STAGES for tool in kind.tools + kind.called}
_NO_CHECKS = frozenset({"tox", "nox", "pip", "uv"})  # `make lint` may run `tox -e lint`, whose commands are known
_PREPARES = frozenset({"install", "sync", "make", "pre-commit", "prek"})


class _Choice(Struct, kw_only=True):
    """The commands of a built-in stage; none if the project has no tool for it, or none that can run here.

    `beside`: the ends of the names of stages that run beside it, with their commands. `missing`: why tools that the
    project uses can't run here. `faulty`: why its scripts can't be stages. `notes`: on tools that no stage runs.
    """

    commands: list[Words]
    beside: list[tuple[str, list[Words]]] = []
    missing: list[str] = []
    faulty: list[str] = []
    notes: list[str] = []

    @property
    def reason(self) -> str:
        """Why the tools that the project has can't be used, or ""."""
        return "; ".join(self.missing + self.faulty)


def detect_stages(root: Path) -> DetectedStages:
    """Return the built-in stages for the project in `root`. Reads its files, runs nothing."""
    project = Project(root)
    choices = {kind: _choose_commands(project, kind) for kind in _BUILT_IN_STAGES}
    stages = [stage for kind, choice in choices.items() for stage in _build_stages(project, kind, choice)]
    lacks_programs = any(choice.missing for kind, choice in choices.items() if kind.name != "integration_tests")
    unused, left_out = _describe_left_out(project, choices)
    notes = [
        *project.commands.notes,
        *_describe_unused_hooks(project, stages),
        *project.notes,
        *(
            f"{kind.name}: {why}"
            for kind, each in choices.items()
            if each.commands
            for why in each.missing + each.faulty + each.notes
        ),
        *left_out,
        *_describe_other_runners(project, lacks_programs=lacks_programs),
    ]
    projects = _find_unchecked_projects(project, stages) if stages else find_projects_below(root)
    tests = next((stage.run for stage in stages if stage.name == "unit_tests"), None)
    if projects and isinstance(tests, tuple) and tests[0] == project.target_runner:
        named = join_names([*map(str, projects)], _MOST_NAMED)
        notes.append(f"unit_tests: add stages for the tests in {named}, unless `{shlex.join(tests)}` runs them")
        projects = tuple(folder for folder in projects if has_config(root / folder))
    if projects and not stages and not lacks_programs:
        notes = []  # this folder only holds them
    return DetectedStages(
        stages=tuple(sorted(stages, key=lambda stage: stage.number)),
        notes=tuple(" ".join(note.splitlines()) for note in notes),  # file names may contain line breaks
        unused=unused,
        lacks_programs=lacks_programs,
        projects=projects,
    )


def _choose_commands(project: Project, kind: _BuiltInStage) -> _Choice:
    """Return the commands of the Python tools, otherwise of the npm scripts, a target, or the tool of a language.

    Beside Python tools, slow ones of them and the npm scripts get stages of their own.
    """
    tools, missing = _choose_work(project, kind)
    scripts, no_scripts = _choose_scripts(project, kind, tools)
    faulty = [] if tools else _describe_faulty_scripts(project, kind)
    rest = _describe_rest(project, kind)
    if tools:
        commands, beside = _divide_work(tools)
        beside += [(project.script_runner, scripts)] if scripts else []
        notes = rest + _describe_unused_tools(project, kind, tools)
        return _Choice(commands=commands, beside=beside, missing=missing + no_scripts, notes=notes)
    if scripts:
        return _Choice(commands=scripts, missing=missing, notes=rest)
    target, no_target = _choose_target(project, kind)
    missing += no_scripts + (no_target if not missing else [])
    if target is not None:
        return _Choice(commands=[target], missing=missing, faulty=faulty)
    language, no_language = _choose_language_tool(project, kind)
    commands = [] if language is None else [language]
    missing += no_language
    return _Choice(commands=commands, missing=missing, faulty=faulty, notes=[] if no_target else rest)


def _build_stages(project: Project, kind: _BuiltInStage, choice: _Choice) -> Iterator[Stage]:
    if choice.commands:
        yield _build_stage(project, kind.number, kind.name, choice.commands)
    for place, (name, commands) in enumerate(choice.beside, 1):
        yield _build_stage(project, kind.number + place * _BESIDE, f"{kind.name}_{name}", commands)


def _describe_left_out(
    project: Project, choices: Mapping[_BuiltInStage, _Choice]
) -> tuple[frozenset[str], Iterable[str]]:
    """Return notes on the stages without commands, one for each reason, and which of them name no missing program."""
    left_out: dict[str, list[str]] = {}  # names of stages by the reason
    for kind, choice in choices.items():
        if not choice.commands:
            left_out.setdefault(choice.reason or _describe_missing(project, kind), []).append(kind.name)
    notes = {why: f"{', '.join(names)} left out: {why}" for why, names in left_out.items()}
    lacking = {choice.reason for choice in choices.values()}
    return frozenset(note for why, note in notes.items() if why not in lacking), notes.values()


def _describe_other_runners(project: Project, *, lacks_programs: bool) -> Iterator[str]:
    """Yield notes on programs that may run checks which no stage runs."""
    if lacks_programs and (manager := project.environment_manager):
        yield f"if {manager} has the tools in an environment of its own: `{manager} run paropt-exporter init --force`"
    if project.has_invoke_tasks:
        yield "tasks.py: no stage runs invoke's tasks: write stages with `run: invoke NAME` for the checks there"
    if functions := project.poe_functions:
        named = join_names(functions, _MOST_NAMED)
        yield f"pyproject.toml: no stage runs poe's functions ({named}): write stages with `run: poe NAME` for checks"


def _find_unchecked_projects(project: Project, stages: Iterable[Stage]) -> tuple[Path, ...]:
    """Return the projects below with tests that no stage runs."""
    python = not any(_runs_pytest_everywhere(project, stage) for stage in stages)
    return tuple(folder for folder in project.projects_below if project.has_tests_in(folder, python=python))


def _runs_pytest_everywhere(project: Project, stage: Stage) -> bool:
    """Return whether a stage runs pytest without a path, so that it also finds the tests of projects below."""
    words = stage.run if isinstance(stage.run, tuple) and stage.cwd is None else ("",)
    start = _count_start(words)
    return start > 0 and not project.has_test_paths and not any(map(project.has_path, words[start:]))


def _describe_unused_hooks(project: Project, stages: Iterable[Stage]) -> list[str]:
    """Return notes on commands of pre-commit hooks whose programs no stage runs, and no built-in stage knows."""
    commands = (command for stage in stages for command in stage.commands)
    called = {command[0] for command in commands if isinstance(command, tuple)}  # such as make
    targets: dict[Words, set[str]] = {}
    for each in project.commands.commands:
        if each.file in (*MAKEFILES, *JUSTFILES):
            targets.setdefault((project.target_runner, each.group), set()).add(each.words[0])
    hooks = (each for each in project.commands.commands if each.file == pre_commit.FILE)
    unused = (
        each for each in hooks
        if each.words[0] not in _TOOLS | called and not each.runs_tests
        and not targets.get(each.words, {""}) <= called
    )  # fmt: skip
    return [f"{each.file}: no stage runs `{shlex.join((*each.python, *each.words))}`" for each in unused]


def describe_projects(root: Path, below: Iterable[Path]) -> list[str]:
    """Return a note on each project below, whose stages do not run here."""
    commands = ((each, has_config(root / each)) for each in islice(below, _MOST_PROJECTS))
    what = {True: "run `paropt-exporter` there", False: "`paropt-exporter init` adds its stages to a config here"}
    return [f"{' '.join(str(each).splitlines())} is a project of its own: {what[has]}" for each, has in commands]


_MOST_PROJECTS = 20  # of a repository in the notes: a screenful
_BESIDE = 10  # is added to a stage's number for each further stage of its kind


def _divide_work(commands: list[Words]) -> tuple[list[Words], list[tuple[str, list[Words]]]]:
    """Return the commands of a stage, and those of slow tools, which get separate stages to run in parallel."""
    slow = [tool for tool in dict.fromkeys(words[0] for words in commands) if tool in SLOW_TOOLS]
    if slow and commands[0][0] == slow[0] and all(words[0] in SLOW_TOOLS for words in commands):
        slow = slow[1:]
    beside = [(tool, [words for words in commands if words[0] == tool]) for tool in slow]
    return [words for words in commands if words[0] not in slow], beside


def _build_stage(project: Project, number: int, name: str, commands: list[Words]) -> Stage:
    env, cwd = _choose_environment(project, name, commands)
    lines = tuple(_make_shell_line(project, words) for words in commands) if cwd is None else ()
    if any(map(str.__ne__, lines, map(shlex.join, commands))):
        if len(lines) > 1:
            return Stage(number=number, name=name, steps=lines, env=env, shell=True)
        return Stage(number=number, name=name, run=lines[0], env=env, shell=True)
    if len(commands) > 1:
        return Stage(number=number, name=name, steps=tuple(commands), env=env, cwd=cwd)
    command = _run_tests_in_parallel(project, commands[0])
    takes_any = name in TEST_STAGES and (_count_start(command) or command[:2] in _TAKE_OPTIONS_LAST)
    arguments = (ARGS,) if takes_any else ()
    return Stage(number=number, name=name, run=(*command, *arguments), env=env, cwd=cwd)


_TAKE_OPTIONS_LAST = (("go", "test"), ("cargo", "test"))  # as pytest does


def _make_shell_line(project: Project, command: Words) -> str:
    """Return a command as a line for a shell, which replaces patterns in it, such as `*.py`, with paths."""
    pairs = zip(("", *command), command, strict=False)
    return " ".join(word if project.is_pattern(before, word) else shlex.quote(word) for before, word in pairs)


def _choose_environment(project: Project, name: str, commands: list[Words]) -> tuple[dict[str, str], str | None]:
    """Return the variables and the folder with which the project runs its tests, and mypy's for namespace packages."""
    if commands[0] == _NAMESPACE_CALL and project.mypy_needs_base:
        return {"MYPYPATH": "src"}, None
    if name not in TEST_STAGES or not project.own_tests or commands[0][0] in BUILD_TOOLS:
        return {}, None
    own = project.own_tests[0]
    return {key: value for key, value in own.env if not _OF_TOOLS.match(key)}, own.folder or None


def _choose_work(project: Project, kind: _BuiltInStage) -> tuple[list[Words], list[str]]:
    """Return the calls of a stage's installed tools, and the reasons why other tools are missing."""
    if kind.name in TEST_STAGES:
        return _choose_tests(project, kind)
    found: list[Words] = []
    missing: list[str] = []
    for tool in kind.tools + kind.called:
        calls = _choose_own_calls(project, tool)
        if not calls and not found and tool in kind.tools and project.uses(tool):
            calls = _choose_usual_calls(project, tool)
        if calls and not project.has_program(tool):
            missing.append(tool)
        else:
            found += [(tool, *project.leave_out_environment(tool, arguments)) for arguments in calls]
    outside = _describe_programs_outside(project, found)
    return found, [_describe_missing_programs(missing), *outside] if missing else outside


def _describe_programs_outside(project: Project, commands: Iterable[Words]) -> list[str]:
    """Return a note on each program that imports packages, but is not in the project's virtual environment."""
    names = dict.fromkeys(words[0] for words in commands if words[0] in _IMPORTS_PACKAGES)
    what = "is not in the virtual environment, so it does not find the packages there: install it there"
    return [f"{name} {what}" for name in names if not project.has_module("python", name)]


def _describe_missing_programs(names: list[str]) -> str:
    *others, last = names
    if not others:
        return f"the project uses {last}, but it is neither in its virtual environment nor on PATH: install it"
    named = f"{', '.join(others)} and {last}"
    return f"the project uses {named}, but they are neither in its virtual environment nor on PATH: install them"


def _choose_tests(project: Project, kind: _BuiltInStage) -> tuple[list[Words], list[str]]:
    """Return the project's own commands for its tests, otherwise one for the runner that its files mention."""
    choose = _choose_own_tests if project.own_tests else _choose_usual_tests
    commands = choose(project, integration=kind.name == "integration_tests")
    if not commands:
        apart = project.integration_tests if kind.name == "integration_tests" else None
        return [], [f"no command of the project runs {apart} alone"] if apart is not None else []
    other = not _count_start(commands[0]) or not _runs_pytest(project)
    if other and _choose_target(project, kind)[0] is not None:
        return [], []  # the make target may prepare the tests
    if not project.has_program("python") and project.has_program("python3"):
        commands = [("python3", *words[1:]) if words[0] == "python" else words for words in commands]
    programs = ("pytest" if _count_start(words) else words[0] for words in commands)
    program = next((each for each in programs if not project.has_program(each)), None)
    if program is not None:
        return [], [_describe_missing_programs([program])]
    if _count_start(commands[0]) > 1 and not project.has_module(commands[0][0], "pytest"):
        return [], ["the project runs `python -m pytest`, but pytest is not in its virtual environment: install it"]
    if kind.name != "unit_tests":
        return commands, []
    outside = _describe_programs_outside(project, commands)
    return commands, outside + _describe_preparation(project) + _describe_other_tests(project)


def _describe_preparation(project: Project) -> list[str]:
    """Return a note on the commands that the project runs before its tests and that no stage runs."""
    own = project.own_tests[:1]
    return [
        f"{each.file} runs `{each.before}` before the tests: add it to the stage's steps if they need it"
        for each in own
        if each.before
    ]


def _describe_other_tests(project: Project) -> list[str]:
    """Return a note on tests in the sources that no stage runs, if the stage names the folder of its tests."""
    if project.own_tests or project.has_test_paths or not project.other_tests:
        return []
    listed = join_names(project.other_tests, _MOST_NAMED)
    return [f"no stage runs the tests in {listed}: add them to the stage's command if they belong to it"]


_MOST_NAMED = 4  # in a note


def _choose_own_tests(project: Project, *, integration: bool) -> list[Words]:
    """Return the project's commands for its tests.

    Integration tests in a separate folder become a separate stage if one plain command runs all tests, or if another
    command runs them.
    """
    own, separate = project.own_tests, project.integration_tests
    if any(each.words[0] != "pytest" for each in own):
        return [] if integration else [(*each.python, *_drop_reports(project, each.words)) for each in own]
    start = (*own[0].python, "pytest", "-q")  # `python -m pytest` finds modules in the current folder
    every = [*dict.fromkeys(project.drop_reports(each.words[1:]) for each in own)]
    calls = [words for words in every if separate not in [word.rstrip("/") for word in words]] or every
    if integration and len(calls) < len(every):
        return [(*start, *words) for words in every if words not in calls]
    targets = [word for word in calls[0] if project.has_path(word)]
    plain = len(calls) == 1 and not own[0].folder and not selects_tests(calls[0])
    plain = plain and not any(map(project.is_pattern, ("", *calls[0]), calls[0]))
    if separate is not None and plain and all(separate.startswith(f"{each.rstrip('/')}/") for each in targets):
        if not integration:
            return [(*start, *calls[0], f"--ignore={separate}")]
        kept = [word for word in calls[0] if word not in targets]
        return [(*start, *kept, separate, *(each for each in project.integration_options if each not in kept))]
    if integration:
        calls = [project.drop_reports(words) for words in project.commands.find("pytest") if separate in words][:1]
    return [(*start, *call) for call in calls]


def _drop_reports(project: Project, words: Words) -> Words:
    return ("pytest", *project.drop_reports(words[1:])) if words[0] == "pytest" else words


def _count_start(command: Words) -> int:
    """Return how many words name pytest: 1 for `pytest`, 3 for `python -m pytest`, 0 for other programs."""
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
    """Return whether any file of the project mentions pytest; otherwise its tests may need another runner."""
    return project.uses("pytest") or bool(project.commands.find("pytest"))


def _choose_scripts(project: Project, kind: _BuiltInStage, work: list[Words]) -> tuple[list[Words], list[str]]:
    """Return the calls of npm scripts, unless they only run a tool that the stage already runs."""
    script = next((each for each in _list_scripts(project, kind) if not _find_fault(project, kind, each)), None)
    if script is None or any(_mentions_word(project.scripts[script], words[0]) for words in work):
        return [], []
    if not project.has_program(project.script_runner):
        return [], [f"package.json has the script {script!r}, but {project.script_runner} is not on PATH"]
    if project.lacks_node_modules:
        return [], [f"package.json has the script {script!r}, but no node_modules: {project.script_runner} install"]
    return [(project.script_runner, "run", each) for each in (script, *_choose_more_scripts(project, kind, script))], []


def _list_scripts(project: Project, kind: _BuiltInStage) -> list[str]:
    named = find_by_words(kind.scripts, project.scripts)
    return [*named, "check"] if npm_scripts.get_stage_of_check(project.scripts) == kind.name else named


def _find_fault(project: Project, kind: _BuiltInStage, script: str) -> str:
    """Return why a script can't be a stage, or ""."""
    has_karma = "karma" in project.script_dependencies
    return npm_scripts.find_fault(project.scripts, script, must_only_check=kind.name == _LINTING, has_karma=has_karma)


def _describe_faulty_scripts(project: Project, kind: _BuiltInStage) -> list[str]:
    """Return a note on the first script for a stage if none of them can be one."""
    faults = [(script, _find_fault(project, kind, script)) for script in _list_scripts(project, kind)]
    if not faults or not all(fault for _, fault in faults):
        return []
    return [f"package.json has the script {faults[0][0]!r}, but {faults[0][1]}"]


def _choose_more_scripts(project: Project, kind: _BuiltInStage, script: str) -> list[str]:
    """Return the first further npm script that checks, unless the chosen one runs it or its program."""
    found = find_by_words(kind.more_scripts, project.scripts)
    name = next((each for each in found if not _find_fault(project, kind, each)), None)
    if name is None or name == script:
        return []
    chosen, program = project.scripts[script], npm_scripts.find_program(project.scripts[name])
    runs_it = name in chosen or bool(program and _mentions_word(chosen, program))
    return [] if runs_it else [name]


def _choose_target(project: Project, kind: _BuiltInStage) -> tuple[Words | None, list[str]]:
    """Return the call of the first target of make, just or task whose programs are installed."""
    missing: list[str] = []
    runner = project.target_runner
    for target in find_by_words(kind.targets, project.targets):
        program = project.find_missing_program(target) if project.has_program(runner) else runner
        if program is None:
            return (runner, target), missing
        missing.append(f"`{runner} {target}` needs {program}, which is not installed")
    return None, missing


def _describe_rest(project: Project, kind: _BuiltInStage) -> list[str]:
    """Return a note on the commands that the stages don't run, of a target or tox's or nox's linting environment."""
    if kind.name in TEST_STAGES:
        return []
    wanted = set(map(split_name, kind.targets))
    rest: dict[str, list[str]] = {}
    for each in project.commands.commands:
        call = _describe_call(project, kind, each) if split_name(each.group) in wanted else ""
        if call and not each.folder and _is_other_check(each.words):
            rest.setdefault(call, []).append(f"`{shlex.join((*each.python, *each.words))}`")
    for call, commands in islice(rest.items(), 1):
        what = "that" if len(commands) == 1 else "them"
        return [f"`{call}` also runs {join_names(commands, _MOST_NAMED)}: add {what} to the stage's steps"]
    return []


def _describe_call(project: Project, kind: _BuiltInStage, command: ProjectCommand) -> str:
    """Return the call of the target, or of the linting environment, that runs a command; "" for other places."""
    if command.file in _TARGET_FILES and command.group in project.targets:
        return f"{project.target_runner} {command.group}"
    starter = _ENVIRONMENT_FILES.get(command.file) if kind.name == _LINTING else None
    return f"{starter} {command.group}" if starter else ""


_TARGET_FILES = (*MAKEFILES, *JUSTFILES)
_LINTING = "quality_gates"
_ENVIRONMENT_FILES = {"tox.ini": "tox -e", "noxfile.py": "nox -s"}


def _describe_unused_tools(project: Project, kind: _BuiltInStage, work: Iterable[Words]) -> list[str]:
    """Return a note on the tools for which the project has settings, if a stage runs another tool instead.

    Another note names a tool that the project calls, and that is not installed.
    """
    called = {words[0] for words in work}
    others = (tool for tool in kind.tools if tool not in called and project.uses(tool))
    unused = [tool for tool in others if not _choose_own_calls(project, tool)]
    what = "for which the project has settings: add it to paropt.yml if it counts"
    return [f"no stage runs {tool}, {what}" for tool in unused if called.intersection(kind.tools)]


def _is_other_check(words: Words) -> bool:
    return words[0] not in SHELL_WORDS | _TOOLS | _NO_CHECKS and _PREPARES.isdisjoint(words[:3])


def _choose_language_tool(project: Project, kind: _BuiltInStage) -> tuple[Words | None, list[str]]:
    """Return the command of the first language whose tool is installed."""
    present = [tool for tool in kind.languages if project.has_path(tool.sign)]
    command = next((tool.command for tool in present if project.has_program(tool.program)), None)
    if command is not None:
        return (*command, *project.cargo_options) if command[0] == "cargo" else command, []
    return None, [f"the project has {tool.sign}, but {tool.program} is not on PATH" for tool in present]


_NAMESPACE_CALL = ("mypy", "--explicit-package-bases", "src")


def _choose_usual_calls(project: Project, tool: str) -> list[Words]:
    """Return the usual arguments of a tool that the project uses."""
    match tool:
        case "ruff":
            return [("check", *project.ruff_checks_only, ".")]
        case "mypy":
            return [_NAMESPACE_CALL[1:] if project.mypy_needs_base else project.mypy_targets]
        case "bandit":
            # One line for each finding. The default report ends with "Files skipped (0):", which a summary would show.
            return [("-q", "-f", "custom", "-r", *project.sources)]
    return [()]


def _choose_own_calls(project: Project, tool: str) -> list[Words]:
    """Return the arguments from the first file that calls the tool so that it checks without changing files."""
    files = [
        [words for words in calls if not _CHANGES_FILES.intersection(words) and project.has_files(words)]
        for calls in project.commands.find_by_file(tool)
    ]
    if tool == "mypy":
        files = [_keep_checks_of_mypy(calls) for calls in files]
    match tool:
        case "ruff":
            return _choose_ruff_calls(project, files)
        case "black" | "isort":
            return _find_first(files, lambda words: bool(_ONLY_CHECKS.intersection(words)) and _has_targets(words))
        case "mypy":
            return _choose_mypy_calls(project, files)
        case "bandit":
            calls = _find_first(files, lambda words: not _RECURSIVE.isdisjoint(words))
            return calls or [_search_folders(project, words) for words in _find_first(files, bool)[:1]]
        case "flake8" | "pyright" | "basedpyright":
            return next(filter(None, files), [])[:_MOST_CALLS]
        case "ty" | "pyrefly":
            return _find_first(files, lambda words: words[:1] == ("check",))
    return _find_first(files, _has_targets)


def _search_folders(project: Project, arguments: Words) -> Words:
    """Return bandit's arguments with the option to enter folders; without a folder in them, those of the sources."""
    return ("-r", *arguments) if any(map(project.has_folder, arguments)) else (*arguments, "-r", *project.sources)


def _choose_mypy_calls(project: Project, files: list[list[Words]]) -> list[Words]:
    """Return the calls of one file: those that name what to check, beside others if mypy's configuration lists that."""
    first = next(filter(None, files), [])
    if project.mypy_has_targets and not all(map(names_mypy_targets, first)):
        return first[:_MOST_CALLS]
    calls = _find_first(files, names_mypy_targets)
    if calls and not (project.mypy_has_targets and any(() in each for each in files)):
        return calls
    plain = _find_first(files, lambda words: not names_mypy_targets(words))[:1]
    return [(*words, *project.mypy_targets) for words in plain]


def _keep_checks_of_mypy(calls: Iterable[Words]) -> list[Words]:
    """Return calls of mypy without options to install packages and to write reports.

    A call that writes a report is left out beside others, since it checks the same.
    """
    kept = {
        words: drop_mypy_reports(words) for words in (tuple(w for w in each if w not in _INSTALLS) for each in calls)
    }
    plain = [words for words, without in kept.items() if words == without]
    return plain or [*dict.fromkeys(kept.values())]


def _choose_ruff_calls(project: Project, files: list[list[Words]]) -> list[Words]:
    fixing = [words for words in project.commands.find("ruff") if "--fix" in words and project.has_files(words)]
    checks = _find_first(files, lambda words: words[:1] == ("check",)) or fixing
    formats = _find_first(files, lambda words: words[:1] == ("format",) and not _ONLY_CHECKS.isdisjoint(words))
    chosen = [tuple(word for word in words[1:] if word not in _CHANGES_FILES) for words in checks[:1]]
    if formats and not chosen:
        chosen = [()]
    calls = [("check", *project.ruff_checks_only, *(words or (".",))) for words in chosen] + formats[:1]
    # People and the summary can't read a format for CI servers as well.
    return [drop_options(words, _OUTPUT_FORMAT, _OUTPUT_FORMAT) for words in calls]


def _find_first(files: list[list[Words]], accept: Callable[[Words], bool]) -> list[Words]:
    """Return the accepted calls from the first file that has any."""
    return next((found for calls in files if (found := list(filter(accept, calls)))), [])[:_MOST_CALLS]


def _has_targets(arguments: Words) -> bool:
    return any(not word.startswith("-") for word in arguments)


def _mentions_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def _run_tests_in_parallel(project: Project, command: Words) -> Words:
    """Return the command for tests with pytest-xdist's options from the project's own command."""
    own = project.own_tests
    as_own = len(own) == 1 and own[0].words[0] == "pytest" and bool(read_xdist_options(own[0].words[1:]))
    start = _count_start(command)
    if not project.xdist_options or not start or not (as_own or _runs_all_unit_tests(project, command)):
        return command
    return (*command[: start + 1], *project.xdist_options, *command[start + 1 :])  # after -q


def _runs_all_unit_tests(project: Project, command: Words) -> bool:
    at = _count_start(command)
    return at > 0 and command[at:] in (("-q",), ("-q", project.unit_tests))


def _choose_pytest_calls(project: Project, *, integration: bool) -> list[Words]:
    separate = project.integration_tests
    if integration:
        return [("-q", separate, *project.integration_options)] if separate else []
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


def _describe_missing(project: Project, kind: _BuiltInStage) -> str:
    """Return a note on the tools, files or commands that a stage would need.

    npm scripts are named only if there is a package.json, targets only if there are any, and Python's tools only in a
    project in Python.
    """
    script, target = ("test", "test") if kind.name == "unit_tests" else (kind.scripts[0], kind.targets[0])
    others = [f"`{project.script_runner} run {script.replace(' ', ':')}`"] if project.has_path("package.json") else []
    others += [f"`{project.target_runner} {target.replace(' ', '-')}`"] if project.targets else []
    places = _TEST_FILES.get(kind.name, ()) if project.has_python else ()
    if places or not project.has_python:
        return f"the project has no {_join_alternatives([*places, *others]) or 'known tool for it'}"
    used = f"uses neither {' nor '.join(kind.tools)}" if len(kind.tools) > 1 else f"does not use {kind.tools[0]}"
    return f"the project {used}" + (f", and has no {_join_alternatives(others)}" if others else "")


_TEST_FILES = {"unit_tests": ("tests/test_*.py",), "integration_tests": ("tests/integration", "tests/e2e")}


def _join_alternatives(names: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
