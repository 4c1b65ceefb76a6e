"""Size pools by measurements of their tasks and by Prometheus queries.

`Feedback` loads when it is first used (PEP 562), so that a lane without a Prometheus does not import `requests`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from paropt_exporter.autoscaling.controller import Controller
from paropt_exporter.autoscaling.state import ControlState, Override, SizeBounds

if TYPE_CHECKING:
    from paropt_exporter.autoscaling.feedback import Feedback as Feedback

__all__ = ["ControlState", "Controller", "Feedback", "Override", "SizeBounds"]

if not TYPE_CHECKING:  # a checker that saw this function would take every misspelt name for an Any

    def __getattr__(name):
        if name != "Feedback":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module("paropt_exporter.autoscaling.feedback").Feedback
