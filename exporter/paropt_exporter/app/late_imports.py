"""The modules that a run loads only when it needs them, for lanes with Python calls, which need them early.

A call puts the project's folder first on the import path, and a module of the project may have the name of another one:
a `http.py` there would hide the standard library's from the endpoint.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

_RUN = (
    "paropt_exporter.engine.what_if",
    "paropt_exporter.executors.calls",
    "paropt_exporter.exposition.server",
    "paropt_exporter.metrics.client",
    "paropt_exporter.plan.batches",
    "paropt_exporter.plan.pytest_support",
)
_STANDARD = (
    "ast", "base64", "ctypes", "dataclasses", "datetime", "difflib", "glob", "hmac", "ipaddress", "platform",
    "selectors", "statistics", "subprocess", "tempfile", "textwrap", "tokenize", "traceback", "typing",
)  # fmt: skip
_RELOAD = ("paropt_exporter.config.detect", "paropt_exporter.config.validation")


def import_late_modules(*, reloads: bool) -> None:
    """Import them now. `reloads`: also those that read a changed config."""
    for name in (*_STANDARD, *_RUN, *(_RELOAD if reloads else ())):
        with suppress(ModuleNotFoundError):  # an interpreter without a module that few need
            import_module(name)
