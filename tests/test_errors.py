"""Texts of messages: names and long texts on one line."""

from __future__ import annotations

from paropt_exporter.errors import join_names


def test_many_names_fit_in_one_line() -> None:
    assert join_names(["sh (pid 1)", "sh (pid 2)"]) == "sh (pid 1), sh (pid 2)"
    assert join_names([str(number) for number in range(13)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more"
