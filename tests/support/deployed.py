"""Helpers for tests of deployment files: the command's own parser, and published schemas that need no network."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from paropt_exporter.cli.flags import build_parser
from support.real_servers import RARE_COLLECTION


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments as the command does; a SystemExit fails the test."""
    return build_parser().parse_args([str(argument) for argument in arguments])


def refusal(*command: object) -> str:
    """Return the complaints of a checking program; empty if it accepts its input."""
    checked = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=100, check=False, env=RARE_COLLECTION
    )
    return "" if checked.returncode == 0 else checked.stdout + checked.stderr


def schema_faults(schema: str, *paths: Path) -> str:
    """Return the violations of a JSON Schema that check-jsonschema ships; empty if the files are valid."""
    return refusal(
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        f"vendor.{schema}",
        "--no-cache",
        *paths,
    )
