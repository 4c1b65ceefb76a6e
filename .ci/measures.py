"""Measure how readable the code is: names, prose, module sizes, and how many modules one idea is spread over.

Usage: python .ci/measures.py [--check]. With --check the exit code is 1 if a measure misses its goal. The goals come
from the same measures of httpcore, trio, anyio, loky and structlog.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "exporter" / "paropt_exporter"

# Words that end like a participle but are none, or are the field's own terms.
NOT_PARTICIPLES = frozenset(
    ("bed", "embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "spread", "succeed")
    + ("bring", "heading", "listing", "logging", "mapping", "pending", "ping", "ring", "scaling", "setting", "string")
    + ("thing", "timing", "warning")
)
# Irregular participles that stood as function names in this project.
IRREGULAR = frozenset(
    ("begun", "drawn", "found", "given", "gone", "held", "kept", "known", "left", "met", "said", "sent", "shown")
    + ("spent", "taken", "told", "written")
)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure beside its goal. `low` and `high` bound the goal; infinity where one side is open."""

    name: str
    value: float
    low: float
    high: float

    @property
    def is_met(self) -> bool:
        return self.low <= self.value <= self.high

    def row(self) -> str:
        goal = f"{self.low:g} to {self.high:g}" if self.low > 0 else f"at most {self.high:g}"
        return f"| {self.name} | {self.value:.1f} | {goal} | {'yes' if self.is_met else 'no'} |"


def main() -> None:
    measures = tuple(measure(sorted(PACKAGE.rglob("*.py"))))
    print("| measure | value | goal | met |\n|---|---|---|---|")
    print("\n".join(one.row() for one in measures))
    if "--check" in sys.argv[1:] and not all(one.is_met for one in measures):
        raise SystemExit(1)


def measure(paths: list[Path]) -> Iterator[Measure]:
    """Yield the measures of the package's modules; ratios are percentages of 100, since a reader compares them so."""
    texts = {path: path.read_text() for path in paths}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    modules = [path for path in paths if path.name not in ("__init__.py", "__main__.py")]

    names = Counter(path.name for path in modules)
    repeated = sum(count for count in names.values() if count > 1)
    yield Measure(name="file names used in several folders, %", value=_percent(repeated, len(modules)), low=0, high=10)

    words = [word for path in paths for word in _prose_words(texts[path], trees[path])]
    per_words = 10_000 * sum(word == "what" for word in words) / len(words)
    yield Measure(name='"what" per 10,000 words of comments and docstrings', value=per_words, low=0, high=20)

    functions = [name for tree in trees.values() for name in _function_names(tree)]
    participles = [name for name in functions if _is_participle(name)]
    one_word = [name for name in functions if "_" not in name]
    yield Measure(
        name="functions named by participles, %", value=_percent(len(participles), len(functions)), low=0, high=3
    )
    yield Measure(name="functions of one word, %", value=_percent(len(one_word), len(functions)), low=0, high=50)

    single = _imported_by_one(modules, trees)
    yield Measure(name="modules with one importer, %", value=_percent(len(single), len(modules)), low=0, high=25)
    lengths = [len(texts[path].splitlines()) for path in modules]
    yield Measure(name="lines of a module, median", value=statistics.median(lengths), low=150, high=250)

    if "--list" in sys.argv[1:]:
        print("participles:", *sorted(set(participles)), file=sys.stderr)
        print("imported by one:", *sorted(_dotted(path) for path in single), sep="\n  ", file=sys.stderr)
        print("repeated:", *sorted(name for name, count in names.items() if count > 1), file=sys.stderr)


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole


def _prose_words(text: str, tree: ast.Module) -> Iterator[str]:
    """Yield the words of comments and docstrings, in lower case."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from re.findall(r"[a-z']+", token.string.lower())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from re.findall(r"[a-z']+", (ast.get_docstring(node) or "").lower())


def _function_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names of functions and methods, without leading underscores; neither dunder methods nor properties."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            is_property = any("property" in ast.unparse(one) for one in node.decorator_list)
            if not is_property and not node.name.startswith("__"):
                yield node.name.lstrip("_")


def _is_participle(name: str) -> bool:
    first = name.partition("_")[0]
    if first in IRREGULAR:
        return True
    return first not in NOT_PARTICIPLES and len(first) > 4 and first.endswith(("ed", "ing"))


def _imported_by_one(modules: list[Path], trees: dict[Path, ast.Module]) -> list[Path]:
    """Return the modules that exactly one other module of the package imports, in whatever form."""
    by_name = {_dotted(path): path for path in modules}
    importers: defaultdict[str, set[Path]] = defaultdict(set)
    for path, tree in trees.items():
        for name in _imported_names(tree):
            if name in by_name and by_name[name] != path:
                importers[name].add(path)
    return [by_name[name] for name, found in importers.items() if len(found) == 1]


def _imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


if __name__ == "__main__":
    main()
