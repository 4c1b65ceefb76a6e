"""docs/config.md names every key of a stage and of a lane, and its example is valid."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from msgspec import Struct

from paropt_exporter import config
from paropt_exporter.config.values import Dask, History, Lane, Prometheus, Push, Signal, Stage, Web
from paropt_exporter.events import Strategy

PAGE_PATH = Path(__file__).parents[2] / "docs/config.md"
PAGE = PAGE_PATH.read_text()
STAGES, LANES = PAGE.split("## Lanes")


@pytest.mark.parametrize(("text", "keys"), [(STAGES, Stage.__struct_fields__), (LANES, Lane.__struct_fields__)])
def test_every_key_is_named(text: str, keys: tuple[str, ...]) -> None:
    assert [key for key in keys if f"`{key}`" not in text and f"`{key}: " not in text] == []


@pytest.mark.parametrize(
    ("page", "sections"),
    [
        ("endpoint.md", (Web, Push)),
        ("feedback.md", (Prometheus, Signal)),
        ("history.md", (History,)),
        ("dask.md", (Dask,)),
    ],
)
def test_every_key_of_a_section_is_on_its_page(page: str, sections: tuple[type[Struct], ...]) -> None:
    text = PAGE_PATH.with_name(page).read_text()
    assert [
        key for section in sections for key in section.__struct_fields__ if not re.search(rf"`{key}\b|\b{key}: ?", text)
    ] == []


def test_every_key_has_a_meaning_outside_of_the_config() -> None:
    """A key that only the config knows would be accepted, and do nothing."""
    package = Path(config.__file__).parents[1]
    modules = [path for path in package.rglob("*.py") if package / "config" not in path.parents]
    nodes = [node for path in modules for node in ast.walk(ast.parse(path.read_text()))]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert {*Stage.__struct_fields__, *Lane.__struct_fields__} - read == set()


def test_every_variable_of_the_exporter_is_listed() -> None:
    package = Path(config.__file__).parents[1]
    used = {name for path in package.rglob("*.py") for name in re.findall(r'"(PAROPT_[A-Z_]+)"', path.read_text())}
    assert used - set(re.findall(r"`(PAROPT_[A-Z_]+)`", PAGE)) == set()


def test_every_strategy_is_named() -> None:
    assert [strategy for strategy in Strategy if f"`{strategy}`" not in LANES] == []


def test_example_has_no_fault(tmp_path: Path) -> None:
    block, _ = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "paropt.yml").write_text(block)
    read = config.read_config(tmp_path / "paropt.yml", root=tmp_path)
    assert [stage.name for stage in read.stages] == ["quality_gates", "unit_tests"]
