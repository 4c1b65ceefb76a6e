"""The package exports its names and imports modules on first use."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import paropt_exporter
from paropt_exporter import executors, guide
from support.processes import run_python

ROOT = Path(__file__).parents[1]
# Packages by the names that are imported, where these differ.
DISTRIBUTIONS = {
    "google": "opentelemetry-exporter-otlp-proto-http",  # its protobuf
    "opentelemetry": "opentelemetry-sdk",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic",
    "yaml": "pyyaml",
}
HEAVY = {"pydantic", "yaml", "rich", "requests", "grafanalib", "prometheus_client", "cloudpickle", "psutil", "sqlite3"}


def modules_after(statement: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after a statement."""
    script = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    ended = run_python(script, check=True)
    return set(json.loads(ended.stderr.splitlines()[-1]))


@pytest.mark.parametrize("name", paropt_exporter.__all__)
def test_every_exported_name_exists(name: str) -> None:
    assert getattr(paropt_exporter, name) is not None
    assert name in dir(paropt_exporter)


@pytest.mark.parametrize("package", [paropt_exporter, executors, guide], ids=lambda package: package.__name__)
def test_type_checkers_see_lazily_loaded_names(package: ModuleType) -> None:
    source = ast.parse(Path(str(package.__file__)).read_text())
    (block,) = (each for each in source.body if isinstance(each, ast.If) and isinstance(each.test, ast.Name))
    seen = {name.asname: each.module for each in block.body if isinstance(each, ast.ImportFrom) for name in each.names}
    assert sorted([*seen, *(name for name in package.__all__ if name.startswith("__"))]) == sorted(package.__all__)
    for name, home in seen.items():
        assert getattr(package, str(name)) is getattr(import_module(str(home)), str(name))


@cache
def parse(source: Path) -> ast.Module:
    return ast.parse(source.read_text())


def iter_statements(node: ast.AST, *, for_type_checkers: bool) -> Iterator[ast.AST]:
    """Yield the statements of a module and its functions, with or without those for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue  # most nodes, and none has a statement
        is_guard = isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"
        if for_type_checkers or not is_guard:
            yield child
            yield from iter_statements(child, for_type_checkers=for_type_checkers)


def find_missing_imports(source: Path) -> Iterator[str]:
    for statement in iter_statements(parse(source), for_type_checkers=False):
        if not isinstance(statement, ast.ImportFrom) or not str(statement.module).startswith("paropt_exporter"):
            continue
        for alias in statement.names:
            try:
                exec(f"from {statement.module} import {alias.name}", {})
            except ImportError as error:
                yield f"{source}:{statement.lineno}: {error}"


def test_every_import_at_run_time_finds_its_name() -> None:
    sources = sorted(Path(str(paropt_exporter.__file__)).parent.rglob("*.py"))
    assert [line for source in sources for line in find_missing_imports(source)] == []


def iter_imported_packages(source: Path) -> Iterator[str]:
    for node in iter_statements(parse(source), for_type_checkers=True):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]


def test_every_imported_package_is_declared() -> None:
    """One that another package brings may come in a version that does not suffice, as urllib3 1 did with requests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = sum(project["optional-dependencies"].values(), project["dependencies"])
    declared = {re.split("[<>=]", requirement)[0] for requirement in listed}
    sources = Path(str(paropt_exporter.__file__)).parent.rglob("*.py")
    imported = {name for source in sources for name in iter_imported_packages(source)}
    others = imported - sys.stdlib_module_names - {"paropt_exporter", "_typeshed"}
    assert {DISTRIBUTIONS.get(name, name) for name in others} - declared == set()


@pytest.mark.parametrize("name", ["AdaptivePool", "AdaptiveWorkerPool", "ProcessPool", "ThreadPool"])
def test_example_of_a_pool_s_docstring_runs(name: str) -> None:
    example = re.search(r"^with .*\n(?: {4}.*\n)+", dedent_example(getattr(paropt_exporter, name)), re.MULTILINE)
    assert example is not None
    script = f"from paropt_exporter import {name}\n{example[0]}"
    ended = run_python(script)
    assert ended.stderr == ""
    assert "1024" in ended.stdout or "(True, [])" in ended.stdout


def dedent_example(documented: type) -> str:
    return "".join(line.removeprefix("    ") for line in (inspect.getdoc(documented) or "").splitlines(keepends=True))


@pytest.mark.parametrize("name", sorted(paropt_exporter.__all__))
def test_public_method_has_a_docstring_of_its_own(name: str) -> None:
    """An editor would show the standard library's otherwise, which says nothing about this package."""
    found = getattr(paropt_exporter, name)
    members = vars(found).items() if isinstance(found, type) and not issubclass(found, Enum) else ()
    callables = (property, staticmethod, classmethod, FunctionType)
    missing = [
        each for each, member in members if each[0] != "_" and isinstance(member, callables) and not member.__doc__
    ]
    assert missing == []


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'paropt_exporter' has no attribute 'nope'"):
        _ = paropt_exporter.nope  # type: ignore[attr-defined]  # that is the mistake


def test_import_on_another_system_than_linux_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ImportError, match=r"^paropt_exporter needs Linux, and this is darwin"):
        paropt_exporter.ThreadPool  # noqa: B018 -- loading the name is the test


def test_import_without_the_gil_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(ImportError, match=r"^paropt_exporter needs the GIL, .*: set PYTHON_GIL=1$"):
        paropt_exporter.ProcessPool  # noqa: B018 -- loading the name is the test


def test_importing_the_package_loads_no_other_module() -> None:
    loaded = modules_after("import paropt_exporter")
    assert {name for name in loaded if name.startswith("paropt_exporter")} == {
        "paropt_exporter",
        "paropt_exporter._version",
    }
    assert not loaded & HEAVY


def test_choosing_a_lane_loads_no_executor() -> None:
    loaded = modules_after("from paropt_exporter import detect_lane")
    assert not {name for name in loaded if name.startswith("paropt_exporter.executors.")}


def test_a_lane_loads_parsers_of_outputs_and_reports_only_where_it_uses_them() -> None:
    loaded = modules_after("import paropt_exporter.app, paropt_exporter.cli.screen")
    assert not {name for name in loaded if name.startswith(("paropt_exporter.findings", "paropt_exporter.reports"))}


def test_printing_the_version_loads_nothing_heavy() -> None:
    loaded = modules_after(
        "from contextlib import suppress\n"
        "from paropt_exporter.cli.main import main\n"
        "with suppress(SystemExit): main(['--version'])"
    )
    assert not loaded & HEAVY
    assert not loaded & {"logging", "concurrent.futures", "traceback"}


def test_worker_process_loads_only_its_own_modules_and_the_standard_library() -> None:
    loaded = modules_after("import paropt_exporter.executors.worker.loop")
    ours = {name for name in loaded if name.startswith("paropt_exporter.")}
    allowed = {"executors", "events", "errors", "clock", "_version"}
    assert {name.split(".")[1] for name in ours} <= allowed
    assert not loaded & HEAVY
