"""ARCHITECTURE.md, the glossary and the decisions name files, layers and classes that exist."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "exporter" / "paropt_exporter"
PAGES = (
    "ARCHITECTURE.md",
    "docs/glossary.md",
    *(f"docs/decisions/{path.name}" for path in ROOT.glob("docs/decisions/0*.md")),
)
NAMED = sorted(set(re.findall(r"`([a-z_/]+(?:\.py|/))`", (ROOT / "ARCHITECTURE.md").read_text())))


def test_every_named_file_or_folder_exists() -> None:
    assert NAMED
    inside = {path.relative_to(ROOT).as_posix() for path in (ROOT / "exporter").rglob("*")}
    for name in NAMED:
        assert (ROOT / name).exists() or any(f"/{path}".endswith(f"/{name.rstrip('/')}") for path in inside), name


@cache
def read_words() -> frozenset[str]:
    """Return all words of the package, its tests and benchmarks."""
    files = [path for folder in ("exporter", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    return frozenset(word for path in files if path != Path(__file__) for word in re.findall(r"\w+", path.read_text()))


@pytest.mark.parametrize("page", PAGES)
def test_named_classes_and_functions_exist(page: str) -> None:
    """Of words in backquotes, those in CamelCase or with an underscore are names of Python; some are the library's."""
    names = re.findall(r"`([A-Za-z_][\w.]*)(?:\(\))?`", (ROOT / page).read_text())
    ours = [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]
    last = {name.rpartition(".")[2] for name in ours if not name.endswith((".py", ".yml"))}
    assert {name for name in last if re.search(r"_|[a-z][A-Z]", name)} - read_words() == set()


def find_classes(module: str) -> set[str]:
    """Return the classes of a module, or of all modules of a package."""
    path = PACKAGE / module.replace(".", "/")
    files = [*path.rglob("*.py")] if path.is_dir() else [path.with_suffix(".py")]
    return {
        node.name for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)
    }


def test_types_of_stages_are_in_their_modules() -> None:
    table = (ROOT / "docs/glossary.md").read_text().partition("## Types called Stage")[2]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| `([\w.]+)` \|", table, re.MULTILINE)
    assert len(rows) > 10
    for names, module in rows:
        assert set(re.findall(r"\w+", names)) <= find_classes(module), module


def test_layers_are_those_of_the_import_contract() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [set(re.findall(r"paropt_exporter\.(\w+)", layer)) for layer in contract["layers"]]
    table = (ROOT / "ARCHITECTURE.md").read_text().partition("| layer | modules | job |")[2].partition("\n\n")[0]
    rows = [row.split(" | ")[1] for row in table.splitlines()[2:]]
    drawn = [set(re.findall(r"`(\w+)(?:/\*)?`", re.sub(r"\(.*?\)", "", row))) for row in rows]
    executors = {"threads", "processes", "commands", "adaptive", "cluster"}
    assert [{"executors"} | names - executors if names & executors else names for names in drawn] == layers
