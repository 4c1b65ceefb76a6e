"""Find, read and check `paropt.yml`, or detect the stages of a project that has none.

Names load on first use (PEP 562), so that only commands that validate a config load pydantic and PyYAML.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from paropt_exporter.config.locate import discover as discover

if TYPE_CHECKING:
    from paropt_exporter.config.loader import Config as Config
    from paropt_exporter.config.loader import load_config as load_config
    from paropt_exporter.config.loader import read_config as read_config
    from paropt_exporter.config.loader import read_valid_parts as read_valid_parts
    from paropt_exporter.config.loader import reread_config as reread_config
    from paropt_exporter.config.values import Lane as Lane
    from paropt_exporter.config.values import Push as Push
    from paropt_exporter.config.values import Stage as Stage
    from paropt_exporter.config.values import Workers as Workers
else:  # if a type checker saw this function, it would accept any misspelt name as Any
    _OF_LOADER = ("Config", "load_config", "read_config", "read_valid_parts", "reread_config")
    _OF_VALUES = ("Lane", "Push", "Stage", "Workers")

    def __getattr__(name):
        if name not in _OF_LOADER + _OF_VALUES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{'loader' if name in _OF_LOADER else 'values'}"), name)
