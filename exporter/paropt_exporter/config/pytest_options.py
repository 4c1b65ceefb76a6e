"""Read the options of pytest's configuration from the file in which a project keeps them."""

from __future__ import annotations

import configparser
from collections.abc import Callable

from paropt_exporter.config import raw_yaml
from paropt_exporter.config.foreign_files import parse_ini, parse_toml

# In pytest's order: the first file with options counts.
_FILES = (
    ("pytest.ini", "pytest"), (".pytest.ini", "pytest"), ("pyproject.toml", ""), ("tox.ini", "pytest"),
    ("setup.cfg", "tool:pytest"),
)  # fmt: skip


def read_pytest_options(read: Callable[[str], str]) -> dict[str, str]:
    """Return the options by name, lists joined by spaces. `read` returns a file's text, or "" if it does not exist.

    A file with a syntax error counts as one without options: pytest will report it.
    """
    for name, section in _FILES:
        text = read(name)
        try:
            found = _parse_toml(text) if name.endswith(".toml") else _parse_ini(text, section)
        except (ValueError, configparser.Error, RecursionError):
            continue
        if found:
            return found
    return {}


def _parse_toml(text: str) -> dict[str, str]:
    if "pytest" not in text:
        return {}
    found = raw_yaml.as_mapping(raw_yaml.as_mapping(parse_toml(text).get("tool")).get("pytest"))
    options = {**found, **raw_yaml.as_mapping(found.get("ini_options"))}
    return {key: " ".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in options.items()}


def _parse_ini(text: str, section: str) -> dict[str, str]:
    return parse_ini(text).get(section, {})
