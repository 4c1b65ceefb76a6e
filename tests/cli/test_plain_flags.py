"""The usual command lines are parsed without argparse, with the same result."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.cli import flags, plain_flags
from paropt_exporter.cli.flags import parse_command_line

WORDS = st.sampled_from(
    [
        *flags.build_parser().options, *plain_flags.COMMANDS, "unit", "*_tests", "3", "auto", "5s", "-", "--", "-qv",
        "-sunit", "-j4", "-s=unit", "--lane=docs", "--lane=", "--stage=a=b", "--web.listen-address=:0", "--lan", "",
    ]
)  # fmt: skip


def test_the_defaults_are_those_of_the_parser() -> None:
    assert vars(parse_command_line([])) == {**plain_flags.DEFAULTS, "stages": [], "skip": []}


def test_the_sub_commands_are_those_of_the_parser() -> None:
    assert flags.build_parser().commands == plain_flags.COMMANDS


@given(st.lists(WORDS, max_size=5))
def test_every_line_has_the_result_of_argparse_or_is_left_to_it(words: list[str]) -> None:
    plain = plain_flags.parse_plain(words)
    if plain is not None:
        assert vars(plain) == vars(parse_command_line(words))


@pytest.mark.parametrize(
    "line",
    [
        "", "--once", "--no-once", "unit", "unit -- -k login", "--lane docs -j 4 unit scan", "--failed -q", "--list -q",
        "--stage=unit --skip scan --only", "--config.file ci.yml --every 5s", "--once --web.linger=30s --report none",
    ],
)  # fmt: skip
def test_usual_lines_need_no_argparse(line: str) -> None:
    plain = plain_flags.parse_plain(line.split())
    assert plain is not None
    assert vars(plain) == vars(parse_command_line(line.split()))


@pytest.mark.parametrize(
    "line", ["plan", "--help", "--once plan", "-v -q", "--fail-fast --keep-going", "--lane", "-qv"]
)
def test_commands_help_and_faults_are_left_to_argparse(line: str) -> None:
    assert plain_flags.parse_plain(line.split()) is None


def test_one_parse_leaves_nothing_for_the_next() -> None:
    first = plain_flags.parse_plain(["unit", "--skip", "scan"])
    second = plain_flags.parse_plain([])
    assert first is not None
    assert second is not None
    assert (second.stages, second.skip) == ([], [])
    assert isinstance(parse_command_line([]), argparse.Namespace)
