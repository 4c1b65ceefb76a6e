"""Texts of messages: names and long texts on one line, shortages."""

from __future__ import annotations

import errno

import pytest

from paropt_exporter.errors import explain_shortage, join_names


def test_many_names_fit_in_one_line() -> None:
    assert join_names(["sh (pid 1)", "sh (pid 2)"]) == "sh (pid 1), sh (pid 2)"
    assert join_names([str(number) for number in range(13)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more"


@pytest.mark.parametrize(
    ("error", "limits"),
    [
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "(ulimit -u, or a cgroup's pids.max)"),
        (OSError(errno.EMFILE, "Too many open files"), "(ulimit -n)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "(ulimit -v, or a cgroup's memory.max)"),
        (MemoryError(), "(ulimit -v, or a cgroup's memory.max)"),
        (RuntimeError("can't start new thread"), "(ulimit -u, or a cgroup's pids.max)"),
        (RuntimeError("can't"), ""),
        (OSError("no number"), ""),
    ],
)
def test_shortage_names_the_limits_of_a_user_and_of_a_container(error: Exception, limits: str) -> None:
    assert explain_shortage(error).endswith(limits)
    assert bool(limits) is bool(explain_shortage(error))
