"""Where text is coloured, and how."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from paropt_exporter.terminal import paint_summary, wants_color
from support import projects
from support.real_servers import run


@pytest.mark.parametrize(
    ("choice", "environ", "terminal", "expected"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("auto", {"FORCE_COLOR": ""}, False, False),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
    ],
)
def test_flag_wins_over_variables_and_these_over_the_stream(
    choice: str, environ: dict[str, str], *, terminal: bool, expected: bool
) -> None:
    assert wants_color(choice, environ, terminal=terminal) is expected


def test_summary_has_the_colours_of_its_worst_news() -> None:
    lines = paint_summary("standard failed · 2 stages\n  x unit  exit 1\n  ! lint  SLA 8 s\n    scan  0.2 s").split(
        "\n"
    )
    assert lines == [
        "\x1b[31mstandard failed · 2 stages\x1b[0m",
        "\x1b[31m  x unit  exit 1\x1b[0m",
        "\x1b[33m  ! lint  SLA 8 s\x1b[0m",
        "    scan  0.2 s",
    ]


def test_wrapped_headline_has_one_colour() -> None:
    lines = paint_summary(
        "standard failed · 2 stages in 6 s (one after\n  another 12 s: 1.9x)\n    scan  1 s\n  pools  a"
    ).split("\n")
    assert lines[:2] == [
        "\x1b[31mstandard failed · 2 stages in 6 s (one after\x1b[0m",
        "\x1b[31m  another 12 s: 1.9x)\x1b[0m",
    ]
    assert lines[2:] == ["    scan  1 s", "  pools  a"]


@pytest.mark.parametrize(
    ("flags", "env", "colored"),
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        ([], {"FORCE_COLOR": "1"}, True),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
    ],
)
def test_command_colours_on_request(tmp_path: Path, flags: list[str], env: dict[str, str], *, colored: bool) -> None:
    projects.write(tmp_path, 'name: bad, run: "false"')
    ended: subprocess.CompletedProcess[str] = run(tmp_path, projects.ANY_PORT, "--once", *flags, **env)
    assert ("\x1b[31mstandard failed" in ended.stdout) is colored
    assert ("\x1b[31m" in ended.stderr) is colored
