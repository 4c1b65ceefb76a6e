"""Size pools by measurements of their tasks and by Prometheus queries.

Names are loaded when they are first used (PEP 562): `pin` and `steer` load no lane controller, and a lane without a
Prometheus does not import `requests`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paropt_exporter.autoscaling.controller import Controller
    from paropt_exporter.autoscaling.feedback import Feedback
    from paropt_exporter.autoscaling.state import ControlState, Override, SizeBounds

__all__ = ["ControlState", "Controller", "Feedback", "Override", "SizeBounds"]

_HOMES = {
    "ControlState": "state",
    "Controller": "controller",
    "Feedback": "feedback",
    "Override": "state",
    "SizeBounds": "state",
}

if not TYPE_CHECKING:  # with this function in sight a type checker would accept any misspelt name as Any

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
