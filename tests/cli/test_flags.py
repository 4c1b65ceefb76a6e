"""The words of a command line: flags with values, stages, sub-commands, and arguments after `--`."""

from __future__ import annotations

import argparse
import shlex

import pytest

from paropt_exporter.cli import flags
from paropt_exporter.cli.flags import parse_command_line
from paropt_exporter.events import Strategy


def parsed(line: str) -> argparse.Namespace:
    return parse_command_line(line.split())


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


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--dry-run init --force", "init has no --dry-run: leave it out"),
        ("--once check", "check has no --once: leave it out"),
        ("check --once", "check has no --once: leave it out"),
        ("--output json check", "check has no --output: leave it out"),
        ("--failed log", "write --failed after log"),
        ("--lane docs -j 4 profile unit", "write --workers after profile"),
        ("--watch plan", "plan has no --watch: `paropt-exporter --dry-run --watch …` shows the plan of such a run"),
    ],
)
def test_flag_that_a_command_would_ignore_is_an_error(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(line)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"paropt-exporter: {said} (")


@pytest.mark.parametrize(
    "line",
    [
        "--lane plan plan", "--lane docs --output json history", "-q check", "--failed --skip lint -j3 plan",
        "--web.listen-address :1 serve", "--config.file x --color never --log.level warn init",
    ],
)  # fmt: skip
def test_flag_that_a_command_reads_may_precede_it(line: str) -> None:
    assert parsed(line).command is not None


@pytest.mark.parametrize("zero", ["0", "000", "\N{ARABIC-INDIC DIGIT ZERO}"])
def test_count_of_zero_is_an_error(zero: str, capsys: pytest.CaptureFixture[str]) -> None:
    """SQLite's LIMIT 0 finds no run, so `history` said that the project had none."""
    with pytest.raises(SystemExit):
        parsed(f"history --limit {zero}")
    assert "is not a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--limit", "--what-if"])
def test_count_of_thousands_of_digits_is_an_error(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(f"history {flag} {'9' * 5000}")
    (line,) = capsys.readouterr().err.splitlines()
    assert "is more than 2147483647" in line
    assert len(line) < 200


def test_word_that_is_no_command_is_a_stage() -> None:
    assert (parsed("unit plan").command, parsed("unit plan").stages) == (None, ["unit", "plan"])


def test_quiet_and_verbose_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("-q -v")
    assert "not allowed with" in capsys.readouterr().err


def test_size_and_all_of_a_pruned_cache_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("cache prune --size 1GB --all")
    assert "argument --all: not allowed with argument --size" in capsys.readouterr().err


def test_flag_without_its_value_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("unit --lane")
    assert "--lane needs a value: LANE" in capsys.readouterr().err


def test_examples_in_the_help_are_understood() -> None:
    top = flags.build_parser()
    helps = "".join(top.get_command(name).format_help() for name in top.commands)
    examples = [line.strip() for line in helps.splitlines() if line.startswith("  paropt-exporter ")]
    assert len(examples) > 5
    for example in examples:
        assert parse_command_line(shlex.split(example)[1:]).command == example.split()[1]


def test_usage_of_a_command_has_its_arguments_before_the_flags() -> None:
    usages = {
        name: flags.build_parser().get_command(name).format_usage() for name in ("init", "serve", "pin", "generate")
    }
    assert usages == {
        "init": "usage: paropt-exporter init [flags]\n",
        "serve": "usage: paropt-exporter serve [status] [flags]\n",
        "pin": "usage: paropt-exporter pin [POOL] SIZE [flags]\n",
        "generate": "usage: paropt-exporter generate [WHAT ...] [flags]\n",
    }


def test_usage_of_an_action_has_the_form_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_command_line(["history", "merge", "--help"])
    assert capsys.readouterr().out.startswith("usage: paropt-exporter history merge [FILE ...] [flags]\n")
