"""A query's brackets and quotes."""

from __future__ import annotations

import pytest

from paropt_exporter.config import fields


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ('sum by (a) (rate(x{b=~"c|d"}[5m]))', None),
        ("x{path=\"({[\", other='it\\'s', raw=`\\`}", None),
        ("x # a comment (that's open", None),
        ("sum(x", ") is missing"),
        ('x{a="b"', "} is missing"),
        ("x[5m)", ") closes nothing"),
        ("x)", ") closes nothing"),
        ('x{a="b}', 'the quote " is not closed'),
        ("x{a='b\\'}", "the quote ' is not closed"),
        ("(" * 3000 + "1" + ")" * 3000, None),
    ],
)
def test_unclosed_brackets_and_quotes_outside_strings_and_comments_are_faults(query: str, fault: str | None) -> None:
    assert fields.find_query_fault(query) == fault
