"""The metrics, alerts, flags, variables, scripts and make targets that the pages name exist; tables are whole."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from paropt_exporter import families
from paropt_exporter.cli.flags import build_parser
from paropt_exporter.cli.plain_flags import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
FLAGS_OF_OTHERS = {
    *("--cache", "--config", "--cov", "--deselect", "--dist", "--init", "--maxfail", "--no-nanny", "--pdb"),
    *("--repository-url", "--retries", "--storage.tsdb.retention.time", "--timeout"),
    *("--decide-again", "--kills", "--seed", "--traced"),  # of benchmarks
}
VARIABLES_OF_CI = {"PAROPT_PACKAGE"}  # deploy/ci reads it


def _find_unknown(pattern: str, known: set[str]) -> list[str]:
    """Return the names that match the pattern and are not known, with their pages."""
    found = {(page, name) for page, text in TEXTS.items() for name in re.findall(pattern, text)}
    assert found
    return sorted(f"{page}: {name}" for page, name in found if name not in known)


def _read(folder: str, pattern: str) -> str:
    return "\n".join(path.read_text() for path in (ROOT / folder).rglob(pattern))


def test_metrics_exist() -> None:
    series = {f"{family.name}{suffix}" for family in families.FAMILIES for suffix in ("", "_bucket", "_sum", "_count")}
    recorded = set(re.findall(r"\bparopt_[a-z_]+", _read("alerts", "*.yml") + _read("deploy", "*.yml")))
    assert _find_unknown(r"\bparopt_[a-z_]+[a-z]\b", series | recorded | {"paropt_exporter"}) == []


def test_alerts_exist() -> None:
    alerts = set(re.findall(r"alert: (\w+)", _read("alerts", "*.yml")))
    assert _find_unknown(r"\bParopt(?!Error\b)[A-Z]\w+", alerts) == []


def test_variables_exist() -> None:
    variables = set(re.findall(r"\bPAROPT_[A-Z_]+", _read("exporter", "*.py")))
    assert _find_unknown(r"\bPAROPT_[A-Z_]+", variables | VARIABLES_OF_CI) == []


def _iter_flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _iter_flags(command)


def test_flags_exist() -> None:
    """Flags in examples are parsed elsewhere; these stand alone, as in `--once`."""
    assert _find_unknown(r"`(--[a-z][a-z.-]*)", {*_iter_flags(build_parser()), *FLAGS_OF_OTHERS}) == []


def test_each_command_is_on_a_page() -> None:
    text = "\n".join(TEXTS.values())
    assert [name for name in COMMANDS if f"paropt-exporter {name}" not in text] == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert _find_unknown(r"`make ([a-z]+)", targets) == []


def test_benchmarks_exist() -> None:
    scripts = {path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").glob("*.py")}
    assert _find_unknown(r"\b(benchmarks/\w+\.py)", scripts) == []


def test_rows_of_tables_have_as_many_cells_as_their_headings() -> None:
    """A row that an editor had wrapped showed as two broken ones."""
    tables = [
        (page, table) for page, text in TEXTS.items() for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    ]
    assert tables
    broken = []
    for page, table in tables:
        heading, *rows = table.splitlines()
        broken += [f"{page}: {row}" for row in rows if _describe_row(row) != _describe_row(heading)]
    assert broken == []


def _describe_row(row: str) -> tuple[int, bool]:
    """Return how many cells begin, and whether the last one ends. A bar in code or after a backslash separates none."""
    return len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))), row.rstrip().endswith("|")
