"""Tell which tests of a file pytest can leave out by themselves: `--deselect` takes every id that begins like its own.

file::T::test_run      leaves out file::T::test_run_twice too, which no other command would run
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from paropt_exporter import files

_MOST_BYTES = 1 << 20  # a test file that is longer stays whole
_PLAIN_BASES = frozenset({"object", "TestCase", "IsolatedAsyncioTestCase"})
_MAKES_NAMES = re.compile(r"\b(?:globals|locals|vars|setattr|exec|eval)\s*\(|\bmetaclass\b")


def separable(file: Path, tests: Iterable[str]) -> list[str]:
    """Return the tests whose ids no other test of the file can begin with; none, if the file can't be understood.

    Conditional definitions and inherited tests count too: they may be absent from every report up to now.
    """
    try:
        source = files.read_start(file, limit_bytes=_MOST_BYTES + 1).decode()
        if len(source) > _MOST_BYTES or _MAKES_NAMES.search(source):
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings: pytest tells of those
            module = ast.parse(source)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(module)):
        return []
    return [test for test in tests if _is_separable(module, source, test.split("::")[1:])]


def _is_separable(module: ast.Module, source: str, names: Sequence[str]) -> bool:
    *classes, function = names
    scope: ast.Module | ast.ClassDef = module
    for name in classes:
        found = [node for node in scope.body if isinstance(node, ast.ClassDef) and node.name == name]
        if len(found) != 1 or found[0].decorator_list or not all(map(_is_plain, found[0].bases)):
            return False
        scope = found[0]
    defined = any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function for node in scope.body
    )
    return defined and re.search(rf"\b{re.escape(function)}\w", source) is None


def _is_plain(base: ast.expr) -> bool:
    return (isinstance(base, ast.Name) and base.id in _PLAIN_BASES) or (
        isinstance(base, ast.Attribute) and base.attr in _PLAIN_BASES
    )
