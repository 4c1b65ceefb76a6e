"""No interrupt (Ctrl-C) leaves a lock locked: Python 3.13 skips the end of `with` at some jumps back."""

from __future__ import annotations

import ast
import dis
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from paropt_exporter import executors, guide

FILES = [path for package in (executors, guide) for path in sorted(Path(package.__file__ or "").parent.rglob("*.py"))]


def list_codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from list_codes(constant)


def list_locked_lines(source: str) -> set[int]:
    """Return the lines of the blocks of `with`, except `with suppress(…)`."""
    blocks = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.With)]
    locked = [block.body for block in blocks if "suppress" not in ast.dump(block.items[0].context_expr)]
    lines = (range(body[0].lineno, (body[-1].end_lineno or 0) + 1) for body in locked)
    return set(itertools.chain.from_iterable(lines))


def find_unprotected_jumps(source: str) -> list[int]:
    """Return the lines of the jumps back in blocks of `with` that no exception handler covers.

    Python 3.13 looks for signals there. An `and` in a `while`, and an `if` in a comprehension or at the end of a loop,
    make such jumps. In a generator expression or a function of their own they do no harm.
    """
    locked, found = list_locked_lines(source), list[int]()
    for code in list_codes(compile(source, "source", "exec")):
        instructions: Any = dis.Bytecode(code)  # typeshed lacks the entries
        covered = [range(entry.start, entry.end) for entry in instructions.exception_entries]
        for each in instructions:
            line = each.positions.lineno if each.positions is not None else None
            unprotected = not any(each.offset in offsets for offsets in covered)
            if each.opname == "JUMP_BACKWARD" and line in locked and code.co_firstlineno not in locked and unprotected:
                found.append(line)
    return found


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 makes no such jumps")
def test_no_jump_in_a_locked_block_skips_its_end() -> None:
    """An interrupt of `statistics`, of `shutdown` or of an AdaptivePool's `submit` left the pool locked."""
    found = {path.name: lines for path in FILES if (lines := find_unprotected_jumps(path.read_text()))}
    assert found == {}


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="other versions may make none of this")
def test_unprotected_jump_is_found() -> None:
    assert find_unprotected_jumps("def f():\n    with lock:\n        return [x for x in xs if x]\n") == [3]
