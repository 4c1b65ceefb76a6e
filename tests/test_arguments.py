"""Arguments of the command line in the place of `{args}`, and lanes narrowed to some of their stages."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from paropt_exporter import plan
from paropt_exporter.config.values import Sla
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Scope
from paropt_exporter.plan import Commands, Plan
from paropt_exporter.plan.selection import Selection
from support import configs

STAGES = """
stages:
- {number: 1, name: lint, run: "ruff check {args} ."}
- {number: 2, name: unit, run: "pytest {args} -q", needs: [lint], sla: 30s}
- {number: 3, name: scan, run: scan}
"""
HOSTILE = ("a b", "'; touch pwned; '", "$(touch pwned)", "`touch pwned`", '"', "{item}".replace("item", "x"), "-k", "")


def planned(
    folder: Path,
    text: str,
    *patterns: str,
    arguments: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
    retry: plan.Retry | None = None,
) -> Plan:
    options = plan.PlanOptions(selection=Selection(patterns=patterns, skipped=skip), arguments=arguments, retry=retry)
    return plan.build_plan(configs.read(folder, text), "standard", options)


def steps(made: Plan, name: str) -> list[tuple[str, ...]]:
    (stage,) = (stage for stage in made.stages if stage.name == name)
    works = [task.work for task in stage.tasks]
    return [step for work in works if isinstance(work, Commands) for step in work.steps]


def test_without_arguments_the_place_is_empty(tmp_path: Path) -> None:
    made = planned(tmp_path, STAGES)
    assert steps(made, "unit") == [("pytest", "-q")]
    assert not made.partial


def test_arguments_go_to_the_named_stage_and_not_to_its_needs(tmp_path: Path) -> None:
    made = planned(tmp_path, STAGES, "unit", arguments=("-k", "a b"))
    assert steps(made, "unit") == [("pytest", "-k", "a b", "-q")]
    assert steps(made, "lint") == [("ruff", "check", ".")]


def test_without_names_arguments_go_to_every_stage_that_takes_them(tmp_path: Path) -> None:
    made = planned(tmp_path, STAGES, arguments=("-v",))
    assert (steps(made, "lint"), steps(made, "unit")) == ([("ruff", "check", "-v", ".")], [("pytest", "-v", "-q")])


def test_arguments_that_no_selected_stage_takes_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^-- -k 'a b': no stage of scan takes arguments: write \{args\}"):
        planned(tmp_path, STAGES, "scan", arguments=("-k", "a b"))


def test_stage_with_arguments_is_a_part_without_a_limit(tmp_path: Path) -> None:
    made = planned(tmp_path, STAGES, "unit", arguments=("-x",))
    scopes = {stage.name: (stage.scope, stage.sla is None) for stage in made.stages}
    assert scopes == {"lint": (Scope.ALL, False), "unit": (Scope.ARGUMENTS, True)}


def test_narrowed_lane_has_no_limit_on_its_total(tmp_path: Path) -> None:
    whole, narrowed = planned(tmp_path, STAGES), planned(tmp_path, STAGES, "scan")
    assert (whole.partial, whole.total is None) == (False, False)
    assert (narrowed.partial, narrowed.total) == (True, None)


def test_stage_runs_without_a_need_that_is_skipped(tmp_path: Path) -> None:
    made = planned(tmp_path, STAGES, skip=("lint",))
    assert {stage.name: stage.needs for stage in made.stages} == {"unit": (), "scan": ()}


def test_shell_reads_each_argument_as_one_word(tmp_path: Path) -> None:
    line = json.dumps("printf '%s\\n' {args}")
    stage = configs.stage(run=line, shell="true")
    (step,) = steps(planned(tmp_path, stage, arguments=HOSTILE), "one")
    printed = subprocess.run(step, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout
    assert printed.split("\n")[:-1] == [*HOSTILE]
    assert not (tmp_path / "pwned").exists()


def test_item_named_like_the_place_of_arguments_stays_an_item(tmp_path: Path) -> None:
    line = json.dumps("printf '%s\\n' {item} {args}")
    stage = configs.stage(run=line, shell="true", items="{list: ['{args}']}")
    (step,) = steps(planned(tmp_path, stage, arguments=("x; touch pwned",)), "one")
    assert subprocess.run(step, cwd=tmp_path, capture_output=True, check=True).stdout == b"{args}\nx; touch pwned\n"


@pytest.mark.parametrize("word", ["{items}", "a{item}"])
def test_argument_that_reads_like_an_item_is_rejected(tmp_path: Path, word: str) -> None:
    stage = configs.stage(run='"lint {args} {items}"', items="{list: [a]}")
    with pytest.raises(UsageError, match=r"have a meaning only in paropt\.yml"):
        planned(tmp_path, stage, arguments=(word,))


def test_arguments_stand_in_each_batch_of_items(tmp_path: Path) -> None:
    stage = configs.stage(run='"lint {args} {items}"', items="{list: [a, b]}")
    begun = {step[:2] for step in steps(planned(tmp_path, stage, arguments=("--fix",)), "one")}
    assert begun == {("lint", "--fix")}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"run": '"lint --x={args}"'}, "stages[0].run: {args} becomes several words, so it must be a word of its own"),
        ({"run": '"{args} lint"'}, "stages[0].run: {args} is in the program's place"),
        ({"run": "\"lint '{args}'\"", "shell": "true"}, "{args} is in quotes: each argument is quoted already"),
    ],
    ids=["embedded", "program", "quoted"],
)
def test_place_where_arguments_cannot_stand_is_a_fault(tmp_path: Path, keys: dict[str, str], said: str) -> None:
    (fault,) = configs.faults(tmp_path, configs.stage(**keys))
    assert said in fault


ITEMS = """
stages:
- {number: 1, name: one, run: "lint {item} {args}", items: {list: [a, b, "3.10"]}, sla: 30s}
- {number: 2, name: many, run: "pytest {items}", items: {list: [a.py, b.py, c.py]}}
- {number: 3, name: none, run: x}
"""


@pytest.mark.parametrize(
    ("patterns", "commands"),
    [
        (("one[b]",), [("lint", "b")]),
        (("one[3.10]", "one[a]"), [("lint", "a"), ("lint", "3.10")]),
        (("one[?]",), [("lint", "a"), ("lint", "b")]),
        (("many[b.py]",), [("pytest", "b.py")]),
        (("many[[ac].py]",), [("pytest", "a.py"), ("pytest", "c.py")]),
    ],
)
def test_items_of_a_stage_are_selected_by_name_or_glob(
    tmp_path: Path, patterns: tuple[str, ...], commands: list[tuple[str, ...]]
) -> None:
    made = planned(tmp_path, ITEMS, *patterns)
    (only,) = made.stages
    assert steps(made, only.name) == commands
    assert (only.scope, only.sla, made.partial) == (Scope.ARGUMENTS, None, True)


@pytest.mark.parametrize(
    ("pattern", "failed", "commands"),
    [
        ("one[[ab]]", {"a", "3.10"}, [("lint", "a")]),
        ("many[[ab].py]", {"a.py", "c.py"}, [("pytest", "a.py")]),
        ("one[[ab]]", {"a", "gone"}, [("lint", "a"), ("lint", "b")]),
        ("one[[ab]]", {"3.10"}, [("lint", "a"), ("lint", "b")]),  # none of them failed
    ],
)
def test_failed_ones_of_the_selected_items_are_repeated(
    tmp_path: Path, pattern: str, failed: set[str], commands: list[tuple[str, ...]]
) -> None:
    stage = pattern.partition("[")[0]
    retry = plan.Retry(stages=[stage], items={stage: failed})
    assert steps(planned(tmp_path, ITEMS, pattern, retry=retry), stage) == commands


def test_selected_items_take_arguments(tmp_path: Path) -> None:
    assert steps(planned(tmp_path, ITEMS, "one[b]", arguments=("-k", "x")), "one") == [("lint", "b", "-k", "x")]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("one[3.1]", "there is no item '3.1': did you mean '3.10'?"),
        ("many[z]", "there is no item 'z': choose from a.py, b.py, c.py"),
    ],
)
def test_unknown_item_fails_its_stage(tmp_path: Path, pattern: str, said: str) -> None:
    """It is no error of the command line: with --every, the items may be others in each run."""
    (only,) = planned(tmp_path, ITEMS, pattern, pattern.partition("[")[0] + "[?]").stages
    assert (only.fault, only.tasks, only.scope) == (said, (), Scope.ARGUMENTS)


def test_item_of_a_stage_without_items_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^stage none has no items: leave out \[a\]$"):
        planned(tmp_path, ITEMS, "none[a]")


def test_lane_lists_stages_by_name_or_number(tmp_path: Path) -> None:
    config = configs.read(tmp_path, "lanes: {quick: {stages: [1, scan]}}" + STAGES)
    assert config.lanes["quick"].stages == ("lint", "scan")


def test_lane_with_a_number_that_no_stage_has_is_a_fault(tmp_path: Path) -> None:
    (fault,) = configs.faults(tmp_path, "lanes: {quick: {stages: [1, 9]}}" + STAGES)
    assert "lanes.quick.stages[1]: unknown stage '9'" in fault


def test_lane_has_the_stages_that_its_stages_need(tmp_path: Path) -> None:
    more = "- {number: 9, name: deploy, run: x, needs: [unit]}\n"
    for word in ("9", "deploy"):
        config = configs.read(tmp_path, f"lanes: {{release: {{stages: [{word}]}}}}" + STAGES + more)
        assert config.lanes["release"].stages == ("lint", "unit", "deploy")


def test_lane_may_limit_a_stage_that_it_has_as_a_need(tmp_path: Path) -> None:
    config = configs.read(tmp_path, "lanes: {quick: {stages: [unit], sla: {lint: 5s}}}" + STAGES)
    assert config.lanes["quick"].sla == {"lint": Sla(max=5)}
