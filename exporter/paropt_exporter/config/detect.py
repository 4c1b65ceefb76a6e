"""Find the tools that a project really has, as the built-in stages 2-6.

A tool counts when the project shows it (its configuration, a dependency, its files) and it can be run here: a linter
that happens to be installed says nothing about the project, and one that is not installed could only fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paropt_exporter.config.command_checks import ITEMS
from paropt_exporter.config.model import Stage
from paropt_exporter.config.project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """The built-in stages for a project; `notes` name each stage or tool that was left out, with why."""

    stages: tuple[Stage, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One built-in stage: Python tools (the first that is there is taken), npm scripts and make targets for it."""

    number: int
    name: str
    tools: tuple[str, ...]
    scripts: tuple[str, ...]
    targets: tuple[str, ...]


_KINDS = (
    _Kind(
        number=2,
        name="quality_gates",
        tools=("ruff", "flake8"),
        scripts=("lint",),
        targets=("lint", "style", "format-check"),
    ),
    _Kind(
        number=3,
        name="type_checking",
        tools=("mypy", "pyright"),
        scripts=("typecheck", "type-check", "types", "tsc"),
        targets=("typecheck", "type-check", "types", "mypy"),
    ),
    _Kind(
        number=4,
        name="unit_tests",
        tools=("pytest",),
        scripts=("test:unit", "unit", "test"),
        targets=("test-unit", "unit", "unit-test", "test"),
    ),
    _Kind(
        number=5,
        name="integration_tests",
        tools=("pytest",),
        scripts=("test:integration", "integration", "test:e2e", "e2e"),
        targets=("test-integration", "integration", "integration-test", "e2e"),
    ),
    _Kind(
        number=6,
        name="security_scan",
        tools=("bandit",),
        scripts=("audit", "security"),
        targets=("security", "audit", "bandit"),
    ),
)


def tools(root: Path) -> Detected:
    """Return the built-in stages for the project in `root`; reads files there, runs nothing."""
    project = Project(root)
    stages, notes = [], []
    for kind in _KINDS:
        commands, missing = _commands(project, kind)
        if commands:
            work: dict[str, object] = {"steps": commands}
            if len(commands) == 1:
                work = _several(project, commands[0]) or {"run": commands[0]}
            stages.append(Stage.model_validate({"number": kind.number, "name": kind.name, **work}))
            notes += [f"{kind.name}: {why}" for why in missing]
        else:
            notes.append(f"{kind.name} left out: {'; '.join(missing) or _nothing(kind)}")
    return Detected(stages=tuple(stages), notes=tuple(notes))


def _commands(project: Project, kind: _Kind) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the commands of one stage, and why a tool that the project shows is not among them."""
    commands: list[tuple[str, ...]] = []
    missing: list[str] = []
    for tool in kind.tools:
        arguments = _arguments(project, kind, tool)
        if arguments is None:
            continue
        program = project.program(tool)
        if program is not None:
            commands.append((program, *arguments))
            break
        missing.append(f"the project uses {tool}, but it is neither in .venv/bin nor on PATH: install it")
    script = next((script for script in kind.scripts if script in project.scripts), None)
    if script is not None:
        if project.program(project.script_runner) is None:
            missing.append(f"package.json has the script {script!r}, but {project.script_runner} is not on PATH")
        else:
            commands.append((project.script_runner, "run", script))
    if commands:
        return commands, missing if not kind.tools or commands else []
    target = next((target for target in kind.targets if target in project.targets), None)
    if target is not None and project.program("make") is not None:
        commands.append(("make", target))
    return commands, missing


def _arguments(project: Project, kind: _Kind, tool: str) -> tuple[str, ...] | None:
    """Return what a tool is called with in this project; None where the project does not show it."""
    match tool:
        case "pytest":
            return _pytest(project, integration=kind.name == "integration_tests")
        case _ if not project.shows(tool):
            return None
        case "ruff":
            return ("check", ".")
        case "mypy":
            return () if project.mypy_has_targets else project.sources
        case "bandit":
            # A line a finding: the last line, which the summary shows, of the usual report is "Files skipped (0):".
            return ("-q", "-f", "custom", "-r", *project.sources)
        case _:
            return ()


def _several(project: Project, command: tuple[str, ...]) -> dict[str, object] | None:
    """Return a stage that hands the files of the unit tests to as many pytests as help; None where one is to run."""
    pattern = project.unit_test_files
    if pattern is None or Path(command[0]).name != "pytest" or command[1:] != ("-q", project.unit_tests):
        return None
    return {"run": (command[0], "-q", ITEMS), "items": {"glob": pattern}}


def _pytest(project: Project, *, integration: bool) -> tuple[str, ...] | None:
    separate = project.integration_tests
    if integration:
        return ("-q", separate) if separate else None
    if not project.unit_tests:
        return None
    ignored = (f"--ignore={separate}",) if separate and separate.startswith(f"{project.unit_tests}/") else ()
    return ("-q", project.unit_tests, *ignored)


def _nothing(kind: _Kind) -> str:
    looked = [*kind.tools, f"npm script {kind.scripts[0]}", f"make target {kind.targets[0]}"]
    if kind.name == "integration_tests":
        looked[0] = "tests/integration or tests/e2e"
    elif kind.name == "unit_tests":
        looked[0] = "tests/test_*.py"
    return f"the project shows none of {', '.join(looked)}"
