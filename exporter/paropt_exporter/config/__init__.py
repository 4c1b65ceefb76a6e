"""Find, read and check `paropt.yml`, or detect the stages of a project that has none.

Names load on first use (PEP 562), so that only commands that validate a config pay for pydantic and PyYAML.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from paropt_exporter.config.locate import discover

if TYPE_CHECKING:
    from paropt_exporter.config.loader import Config, load_config, read_config, read_valid_parts
    from paropt_exporter.config.values import Feedback, History, Lane, Push, Sla, Stage, Web, Workers

_HOMES = {
    "Config": "loader",
    "Feedback": "values",
    "History": "values",
    "Lane": "values",
    "Push": "values",
    "Sla": "values",
    "Stage": "values",
    "Web": "values",
    "Workers": "values",
    "load_config": "loader",
    "read_config": "loader",
    "read_valid_parts": "loader",
}

__all__ = [
    "Config",
    "Feedback",
    "History",
    "Lane",
    "Push",
    "Sla",
    "Stage",
    "Web",
    "Workers",
    "discover",
    "load_config",
    "read_config",
    "read_valid_parts",
]

if not TYPE_CHECKING:  # with this function in sight a type checker would accept any misspelt name as Any

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
