"""Build stages 2-6 from the tools that a project uses.

A tool counts if the project shows signs of it (its configuration, a dependency, files) and it is installed here. A
linter that is only installed says nothing about the project.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from paropt_exporter.config.model import Stage
from paropt_exporter.config.placeholders import ITEMS
from paropt_exporter.config.pytest_options import read_pytest_options


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectedStages:
    """The built-in stages for a project. `notes` give the reason for each stage or tool that is left out."""

    stages: tuple[Stage, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _BuiltInStage:
    """One built-in stage with the Python tools, npm scripts and make targets for it. The first tool found is used."""

    number: int
    name: str
    tools: tuple[str, ...]
    scripts: tuple[str, ...]
    targets: tuple[str, ...]


_BUILT_IN_STAGES = (
    _BuiltInStage(
        number=2,
        name="quality_gates",
        tools=("ruff", "flake8"),
        scripts=("lint",),
        targets=("lint", "style", "format-check"),
    ),
    _BuiltInStage(
        number=3,
        name="type_checking",
        tools=("mypy", "pyright"),
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
    stages, notes = [], []
    for kind in _BUILT_IN_STAGES:
        commands, missing = _choose_commands(project, kind)
        if commands:
            work: dict[str, object] = {"steps": commands}
            if len(commands) == 1:
                work = _build_batched_work(project, commands[0]) or {"run": commands[0]}
            stages.append(Stage.model_validate({"number": kind.number, "name": kind.name, **work}))
            notes += [f"{kind.name}: {why}" for why in missing]
        else:
            notes.append(f"{kind.name} left out: {'; '.join(missing) or _describe_missing(kind)}")
    return DetectedStages(stages=tuple(stages), notes=tuple(notes))


def _choose_commands(project: Project, kind: _BuiltInStage) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the commands of one stage, and the reasons why tools of the project are missing from them."""
    commands: list[tuple[str, ...]] = []
    missing: list[str] = []
    for tool in kind.tools:
        arguments = _choose_arguments(project, kind, tool)
        if arguments is None:
            continue
        program = project.find_program(tool)
        if program is not None:
            commands.append((program, *arguments))
            break
        missing.append(f"the project uses {tool}, but it is neither in .venv/bin nor on PATH: install it")
    script = next((script for script in kind.scripts if script in project.scripts), None)
    if script is not None:
        if project.find_program(project.script_runner) is None:
            missing.append(f"package.json has the script {script!r}, but {project.script_runner} is not on PATH")
        else:
            commands.append((project.script_runner, "run", script))
    if commands:
        return commands, missing if not kind.tools or commands else []
    target = next((target for target in kind.targets if target in project.targets), None)
    if target is not None and project.find_program("make") is not None:
        commands.append(("make", target))
    return commands, missing


def _choose_arguments(project: Project, kind: _BuiltInStage, tool: str) -> tuple[str, ...] | None:
    """Return a tool's arguments in this project, or None if the project does not use the tool."""
    match tool:
        case "pytest":
            return _choose_pytest_arguments(project, integration=kind.name == "integration_tests")
        case _ if not project.uses(tool):
            return None
        case "ruff":
            return ("check", ".")
        case "mypy":
            return () if project.mypy_has_targets else project.sources
        case "bandit":
            # One line a finding. The default report ends with "Files skipped (0):", which a summary would show.
            return ("-q", "-f", "custom", "-r", *project.sources)
        case _:
            return ()


def _build_batched_work(project: Project, command: tuple[str, ...]) -> dict[str, object] | None:
    """Return the keys of a stage that splits the unit tests into batches, or None if one pytest must run them all."""
    pattern = project.unit_test_files
    if pattern is None or Path(command[0]).name != "pytest" or command[1:] != ("-q", project.unit_tests):
        return None
    return {"run": (command[0], "-q", ITEMS), "items": {"glob": pattern}}


def _choose_pytest_arguments(project: Project, *, integration: bool) -> tuple[str, ...] | None:
    separate = project.integration_tests
    if integration:
        return ("-q", separate) if separate else None
    if not project.unit_tests:
        return None
    ignored = (f"--ignore={separate}",) if separate and separate.startswith(f"{project.unit_tests}/") else ()
    return ("-q", project.unit_tests, *ignored)


def _describe_missing(kind: _BuiltInStage) -> str:
    looked = [*kind.tools, f"npm script {kind.scripts[0]}", f"make target {kind.targets[0]}"]
    if kind.name == "integration_tests":
        looked[0] = "tests/integration or tests/e2e"
    elif kind.name == "unit_tests":
        looked[0] = "tests/test_*.py"
    return f"the project shows none of {', '.join(looked)}"


_LARGEST_BYTES = 1_000_000  # configuration files are smaller
_MENTIONS = ("pyproject.toml", "setup.cfg", "setup.py", "tox.ini", "noxfile.py", "Pipfile", ".pre-commit-config.yaml")
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
        return re.search(rf"(?<!\w){re.escape(tool)}(?![\w-])", self._mentions) is not None

    def find_program(self, name: str) -> str | None:
        """Return a program's name, its path in the project's virtual environment, or None if it is not installed."""
        for folder in (".venv/bin", "venv/bin"):
            path = self._root / folder / name
            if path.is_file() and os.access(path, os.X_OK):
                on_path = shutil.which(name)
                same = on_path is not None and Path(on_path).absolute() == path.absolute()
                return name if same else f"{folder}/{name}"
        return name if shutil.which(name) else None

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
        """The folder of the unit tests, None without any test file."""
        for folder in ("tests/unit", "tests", "test", "testing"):
            if self._has_tests(self._root / folder):
                return folder
        return "." if any(self._root.glob("test_*.py")) else None

    @cached_property
    def unit_test_files(self) -> str | None:
        """A glob for exactly the files that pytest collects from the unit tests, or None if there is no such glob.

        There is one if pytest's default names apply, no folder is left out, and no option is about the run as a whole.
        """
        folder = self.unit_tests
        if folder is None or "python_files" in self._pytest_options:
            return None
        if _WHOLE_RUN.search(self._pytest_options.get("addopts", "")):
            return None
        start = self._root / folder
        if self._has_collection_rules(start):
            return None
        flat = [*start.glob("test_*.py")]
        nested = [path.relative_to(self._root) for path in start.glob("*/**/test_*.py")]
        nested = [
            path for path in nested if not any(part.startswith(".") for part in path.parts)
        ]  # globs skip hidden folders
        left_out = self._pytest_options.get("norecursedirs", _NOT_ENTERED).split()
        kept = [path for path in nested if not _is_in(path, left_out)]
        if len(flat) + len(kept) < 2 or any(start.glob("**/*_test.py")):
            return None
        prefix = "" if folder == "." else f"{folder}/"
        if not kept:
            return f"{prefix}test_*.py"
        return f"{prefix}**/test_*.py" if len(kept) == len(nested) and folder != "." else None

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

    @cached_property
    def mypy_has_targets(self) -> bool:
        """Whether mypy's configuration lists the files to check."""
        return re.search(r"^[^\S\n]*(files|packages|modules)[^\S\n]*=", self._mypy_section, re.MULTILINE) is not None

    @cached_property
    def scripts(self) -> frozenset[str]:
        """The npm scripts of package.json."""
        try:
            scripts = json.loads(self._read_text("package.json") or "{}").get("scripts", {})
        except (ValueError, AttributeError, RecursionError):
            return frozenset()
        placeholder = "no test specified"  # `npm init` writes such a script, which always fails
        return frozenset(
            name for name, line in scripts.items() if isinstance(line, str) and placeholder not in line
        ) if isinstance(scripts, dict) else frozenset()  # fmt: skip

    @cached_property
    def script_runner(self) -> str:
        """pnpm or yarn if the project has its lock file, otherwise npm."""
        return next((runner for lock, runner in _LOCKS if (self._root / lock).is_file()), "npm")

    @cached_property
    def targets(self) -> frozenset[str]:
        """The targets of the Makefile, or none if it calls paropt-exporter: the stages would call each other."""
        text = self._read_text("Makefile") or self._read_text("GNUmakefile") or self._read_text("makefile")
        if "paropt-exporter" in text or "paropt_exporter" in text:
            return frozenset()
        return frozenset(
            name for line in re.findall(r"^([A-Za-z0-9_][\w. -]*):(?!=)", text, re.MULTILINE) for name in line.split()
        )

    @cached_property
    def _mentions(self) -> str:
        requirements = sorted(path.name for path in self._list_files("*requirements*.txt"))
        requirements += sorted(f"requirements/{path.name}" for path in self._list_files("requirements/*.txt"))
        return "\n".join(self._read_text(name) for name in (*_MENTIONS, *requirements[:20]))

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
