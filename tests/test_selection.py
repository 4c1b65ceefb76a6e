"""Selecting stages by name, number or glob."""

from __future__ import annotations

import pytest

from paropt_exporter.config.values import Stage
from paropt_exporter.errors import UsageError
from paropt_exporter.plan.selection import Selection, select_stages

STAGES = [
    Stage(number=number, name=name, run="true", needs=needs)
    for number, name, needs in (
        (2, "lint", ()),
        (3, "build", ("lint",)),
        (4, "unit_tests", ("build",)),
        (5, "e2e_tests", ("unit_tests",)),
        (6, "scan", ()),
    )
]
KNOWN = [*STAGES, Stage(number=7, name="soak", run="true")]
LANES_OF = {**{stage.name: ("standard",) for stage in STAGES}, "soak": ("heavy", "all checks")}


def selected(*patterns: str, skip: tuple[str, ...] = (), with_needs: bool = True) -> list[str]:
    selection = Selection(patterns=patterns, skipped=skip, with_needs=with_needs, commands=("history", "plan"))
    return [
        stage.name for stage in select_stages(STAGES, selection, lane="standard", known=KNOWN, lanes_of=LANES_OF).stages
    ]


def refusal(*patterns: str, skip: tuple[str, ...] = (), with_needs: bool = True) -> str:
    with pytest.raises(UsageError) as caught:
        selected(*patterns, skip=skip, with_needs=with_needs)
    return str(caught.value)


def test_without_patterns_the_whole_lane_is_selected() -> None:
    assert selected() == ["lint", "build", "unit_tests", "e2e_tests", "scan"]


def test_stage_is_selected_with_its_needs_and_theirs() -> None:
    assert selected("unit_tests") == ["lint", "build", "unit_tests"]


def test_only_leaves_out_the_needs() -> None:
    assert selected("unit_tests", "scan", with_needs=False) == ["unit_tests", "scan"]


@pytest.mark.parametrize("pattern", ["*_tests", "[ue]*_tests", "?????????s*"])
def test_glob_selects_each_stage_that_it_matches(pattern: str) -> None:
    assert "unit_tests" in selected(pattern, with_needs=False)


def test_number_selects_its_stage() -> None:
    assert selected("3") == ["lint", "build"]


def test_name_wins_over_a_number() -> None:
    stages = [Stage(number=1, name="2", run="true"), Stage(number=2, name="other", run="true")]
    chosen = select_stages(stages, Selection(patterns=("2",)), lane="x", known=stages, lanes_of={})
    assert [stage.name for stage in chosen.stages] == ["2"]


def test_need_is_not_a_named_stage() -> None:
    chosen = select_stages(STAGES, Selection(patterns=("unit_tests",)), lane="standard", known=KNOWN, lanes_of=LANES_OF)
    assert chosen.named == {"unit_tests"}


def test_skip_leaves_out_stages_and_needs_that_only_they_had() -> None:
    assert selected("unit_tests", skip=("build",)) == ["unit_tests"]
    assert selected(skip=("*_tests", "lint")) == ["build", "scan"]


def test_skip_wins_over_a_name() -> None:
    assert "no stage is left to run in lane standard" in refusal("scan", skip=("scan",))


def test_skip_takes_a_stage_that_only_another_lane_has() -> None:
    for pattern in ("soak", "7", "so*"):
        assert "scan" in selected(skip=(pattern,))


def test_all_unknown_names_are_one_error_with_suggestions_and_the_list() -> None:
    assert refusal("unit_test", "hsitory", "zzz", "nope*") == (
        "lane standard has no stage 'unit_test' (did you mean 'unit_tests'?), no stage 'hsitory' (did you mean the "
        "command 'history'?), no stage 'zzz', no stage 'nope*'; it has lint, build, unit_tests, e2e_tests, scan "
        "(--help lists the commands)"
    )


def test_name_of_the_stages_of_several_projects_suggests_a_glob() -> None:
    stages = [Stage(number=number, name=f"tests_{name}", run="true") for number, name in enumerate(("api", "web"))]
    with pytest.raises(UsageError, match=r"no stage 'tests' \(did you mean 'tests_\*'\?\)"):
        select_stages(stages, Selection(patterns=("tests",)), lane="standard", known=stages, lanes_of={})


def test_beginning_of_a_stages_name_suggests_the_stage_before_a_command() -> None:
    assert "no stage 'unit' (did you mean 'unit_tests'?)" in refusal("unit")
    assert "no stage 'test' (did you mean 'unit_tests'?)" in refusal("test")
    stages = [Stage(number=1, name="clean_up", run="true")]
    with pytest.raises(UsageError, match=r"no stage 'clean' \(did you mean 'clean_up'\?\)"):
        select_stages(stages, Selection(patterns=("clean",)), lane="x", known=stages, lanes_of={})


def test_word_of_another_runner_names_its_equivalent() -> None:
    message = refusal("run", "watch", "heavy", "all checks")
    assert "no stage 'run' (leave it out: `paropt-exporter STAGE` runs a stage)" in message
    assert "no stage 'watch' (did you mean --watch?)" in message
    assert "no stage 'heavy' (it is a lane: --lane heavy)" in message
    assert "no stage 'all checks' (it is a lane: --lane 'all checks')" in message


def test_usual_name_of_a_built_in_stage_suggests_that_stage() -> None:
    stages = [Stage(number=1, name="quality_gates", run="true"), Stage(number=2, name="unit_tests", run="true")]
    with pytest.raises(
        UsageError, match=r"no stage 'lint' \(did you mean 'quality_gates'\?\), no stage 'mypy'; it has"
    ):
        select_stages(stages, Selection(patterns=("lint", "mypy")), lane="x", known=stages, lanes_of={})


@pytest.mark.parametrize(
    ("patterns", "items"),
    [
        (("scan[a]", "scan[b*]", "unit_tests"), {"scan": ["a", "b*"]}),
        (("scan[a]", "scan"), {}),
        (("s*", "scan[a]"), {}),
        (("scan[n]", "build[[x]]"), {"scan": ["n"], "build": ["[x]"]}),
        (("sca[n]", "scan[]", "[s]can"), {}),
    ],
)
def test_items_are_selected_of_stages_that_no_pattern_selects_whole(
    patterns: tuple[str, ...], items: dict[str, list[str]]
) -> None:
    assert Selection(patterns=patterns).find_items(STAGES) == items


def test_item_selects_its_stage_and_the_needs() -> None:
    assert selected("unit_tests[a.py]") == ["lint", "build", "unit_tests"]
    assert "no stage 'unit[a.py]'" in refusal("unit[a.py]")


def test_glob_wins_over_an_item() -> None:
    stages = [Stage(number=number, name=name, run="true") for number, name in enumerate(("t", "t1"))]
    chosen = select_stages(stages, Selection(patterns=("t[12]",)), lane="x", known=stages, lanes_of={})
    assert [stage.name for stage in chosen.stages] == ["t1"]
    assert Selection(patterns=("t[12]",)).find_items(stages) == {}


def test_later_runs_of_some_stages_keep_the_selected_items() -> None:
    selection = Selection(patterns=("unit_tests[a.py]", "scan"), skipped=("lint",))
    kept = selection.keep_stages(("unit_tests", "scan"), STAGES)
    assert kept == Selection(patterns=("unit_tests[a.py]", "scan"), with_needs=False)
    assert selection.drop_items(STAGES).patterns == ("unit_tests", "scan")


def test_single_item_cannot_be_skipped() -> None:
    """It would leave out its whole stage."""
    assert "no stage 'unit_tests[a.py]' (--skip leaves out whole stages)" in refusal(skip=("unit_tests[a.py]",))


def test_unknown_name_to_skip_is_rejected() -> None:
    assert "no stage 'lnit' (did you mean 'lint'?)" in refusal(skip=("lnit",))


def test_stage_of_another_lane_is_named_with_that_lane() -> None:
    assert "no stage 'soak' (lane heavy has it)" in refusal("soak")


def test_of_several_lanes_with_a_stage_the_default_is_named() -> None:
    lanes_of = {"scan": ("docs", "standard", "heavy")}
    with pytest.raises(UsageError, match=r"no stage 'scan' \(lane standard has it\)"):
        select_stages(STAGES[:1], Selection(patterns=("scan",)), lane="quick", known=STAGES, lanes_of=lanes_of)


def test_only_without_a_stage_is_rejected() -> None:
    assert "--only" in refusal(with_needs=False)
