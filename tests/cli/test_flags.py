"""The words of a command line: flags with values, stages, sub-commands, and arguments after `--`."""

from __future__ import annotations

import argparse

import pytest

from paropt_exporter.cli import flags
from paropt_exporter.events import Strategy


def parsed(line: str) -> argparse.Namespace:
    return flags.parse_command_line(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "unit scan --lane docs -j4", "--lane docs unit -j 4 scan", "-s unit --lane=docs scan --workers 4",
        "--stage unit --stage=scan -qj4 --lane docs", "-qs unit -sscan --lane docs -j4",
    ],
)  # fmt: skip
def test_stages_stand_anywhere_between_flags(line: str) -> None:
    found = parsed(line)
    assert (found.command, found.stages, found.lane, found.workers) == (None, ["unit", "scan"], "docs", "4")


def test_each_strategy_that_needs_no_cluster_is_a_choice() -> None:
    for strategy in set(Strategy) - {Strategy.DASK}:
        assert parsed(f"--strategy {strategy}").strategy == strategy


def test_words_after_two_dashes_are_always_arguments() -> None:
    found = parsed("unit -- -k foo --lane x -- history")
    assert (found.stages, found.arguments) == (["unit"], ("-k", "foo", "--lane", "x", "--", "history"))


def test_without_two_dashes_there_are_no_arguments() -> None:
    assert (parsed("unit").arguments, parsed("unit --").arguments) == (None, ())


def test_command_wins_over_a_stage_of_its_name() -> None:
    assert parsed("--lane docs plan").command == "plan"
    assert (parsed("-s plan").command, parsed("-s plan").stages) == (None, ["plan"])


def test_word_that_is_no_command_is_a_stage() -> None:
    assert (parsed("unit plan").command, parsed("unit plan").stages) == (None, ["unit", "plan"])


def test_quiet_and_verbose_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("-q -v")
    assert "not allowed with" in capsys.readouterr().err


def test_flag_without_its_value_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("unit --lane")
    assert "argument --lane: expected one argument" in capsys.readouterr().err
