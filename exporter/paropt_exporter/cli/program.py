"""What the command calls itself."""

from __future__ import annotations

from paropt_exporter._version import __version__

PROGRAM = "paropt-exporter"


def version() -> str:
    return f"{PROGRAM} {__version__}"
