"""Read the options of pytest, mypy, ruff, flake8, isort and black from the files in which a project keeps them."""

from __future__ import annotations

import configparser
from collections.abc import Callable, Iterable

from paropt_exporter.config import raw_yaml
from paropt_exporter.config.foreign_files import parse_ini, parse_toml

# In each tool's order: the first file with options counts. After each file, the names that lead to its table.
_PLACES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "pytest": (
        ("pytest.toml", ("pytest",)), (".pytest.toml", ("pytest",)),
        ("pytest.ini", ("pytest",)), (".pytest.ini", ("pytest",)), ("pyproject.toml", ("tool", "pytest")),
        ("tox.ini", ("pytest",)), ("setup.cfg", ("tool:pytest",)),
    ),
    "mypy": (
        ("mypy.ini", ("mypy",)), (".mypy.ini", ("mypy",)), ("pyproject.toml", ("tool", "mypy")),
        ("setup.cfg", ("mypy",)),
    ),
    "flake8": (
        ("setup.cfg", ("flake8",)), ("tox.ini", ("flake8",)), (".flake8", ("flake8",)),
        ("pyproject.toml", ("tool", "flake8")),  # with the plugin flake8-pyproject
    ),
    "ruff": ((".ruff.toml", ()), ("ruff.toml", ()), ("pyproject.toml", ("tool", "ruff"))),
    "isort": (
        (".isort.cfg", ("settings",)), (".isort.cfg", ("isort",)), ("pyproject.toml", ("tool", "isort")),
        ("setup.cfg", ("isort",)), ("setup.cfg", ("tool:isort",)), ("tox.ini", ("isort",)),
    ),
    "black": (("pyproject.toml", ("tool", "black")),),
}  # fmt: skip


def read_tool_options(tool: str, read: Callable[[str], str]) -> dict[str, str]:
    """Return the options by name, lists joined by spaces. `read` returns a file's text, or "" if it does not exist.

    A file with a syntax error counts as one without options: the tool will report it.
    """
    for name, path in _PLACES[tool]:
        text = read(name)
        if not text or (name == "pyproject.toml" and tool not in text):
            continue
        try:
            found = _find_table(parse_toml(text) if name.endswith(".toml") else parse_ini(text), path)
        except (ValueError, configparser.Error, RecursionError):
            continue
        if found:
            found.update(raw_yaml.as_mapping(found.get("ini_options")))  # only pytest has them
            return {key: _format(value) for key, value in found.items()}
    return {}


def _find_table(table: object, path: Iterable[str]) -> dict[str, object]:
    for name in path:
        table = raw_yaml.as_mapping(table).get(name)
    return dict(raw_yaml.as_mapping(table))


def _format(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
