"""Helpers for tests of deployment files: the command's own parser, and published schemas that need no network."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from paropt_exporter.cli.flags import build_parser
from support.real_servers import RARE_COLLECTION, program


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments as the command does; a SystemExit fails the test."""
    return build_parser().parse_args([str(argument) for argument in arguments])


def refusal(*command: object) -> str:
    """Return the complaints of a checking program; empty if it accepts its input."""
    checked = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=100, check=False, env=RARE_COLLECTION
    )
    return "" if checked.returncode == 0 else checked.stdout + checked.stderr


def check_queries(
    folder: Path,
    series: Mapping[str, str],
    expected: Sequence[tuple[str, str, Mapping[str, float]]],
    *,
    interval: str = "1m",
    rules: Sequence[Path | str] = (),
) -> None:
    """Let promtool compare queries at a time with their values by labels. `series`: values in its notation."""
    test = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": at,
                "exp_samples": [{"labels": labels, "value": value} for labels, value in values.items()],
            }
            for query, at, values in expected
        ],
    }
    content = {"tests": [test], "evaluation_interval": "1m", "rule_files": [*map(str, rules)]}
    (folder / "queries.yml").write_text(json.dumps(content))  # JSON is YAML
    assert refusal(program("promtool"), "test", "rules", folder / "queries.yml") == ""


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
