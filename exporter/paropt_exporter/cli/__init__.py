"""The command `paropt-exporter`: a module for each sub-command, each a thin layer over the other packages."""

from __future__ import annotations

from paropt_exporter._version import __version__

PROGRAM = "paropt-exporter"


def format_version() -> str:
    return f"{PROGRAM} {__version__}"
