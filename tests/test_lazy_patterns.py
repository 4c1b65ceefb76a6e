"""Patterns are compiled on their first use."""

from __future__ import annotations

import re

import pytest

from paropt_exporter.lazy_patterns import compile_later


def test_it_works_like_a_compiled_pattern() -> None:
    lazy, compiled = compile_later("A(b+)", re.IGNORECASE), re.compile("A(b+)", re.IGNORECASE)
    assert lazy.findall("ab abb c") == compiled.findall("ab abb c") == ["b", "bb"]
    assert lazy.sub("x", "ab c") == "x c"
    assert (lazy.pattern, lazy.flags) == (compiled.pattern, compiled.flags)


def test_a_fault_shows_on_the_first_use() -> None:
    lazy = compile_later("(")
    with pytest.raises(re.error, match="unterminated"):
        lazy.search("")
