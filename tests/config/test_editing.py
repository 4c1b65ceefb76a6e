"""Setting values in a file's text changes no other part of it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.config.document import Document
from paropt_exporter.config.editing import CannotEdit, edit_text
from support.yaml_documents import load_yaml

WORKERS = {"workers": {"min": 1, "max": 16, "start": 4}}


def in_lane(text: str, **settings: object) -> str:
    return edit_text(text, {"lanes": {"standard": settings or WORKERS}})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            "lanes:\n  standard: {workers: auto, sla: 30s}  # ours\nstages: []\n",
            "lanes:\n  standard: {workers: {min: 1, max: 16, start: 4}, sla: 30s}  # ours\nstages: []\n",
            id="a word in a flow mapping",
        ),
        pytest.param(
            "lanes:\n  standard: {sla: 30s}\n",
            "lanes:\n  standard: {sla: 30s, workers: {min: 1, max: 16, start: 4}}\n",
            id="a key that was missing in a flow mapping",
        ),
        pytest.param(
            "lanes: {standard: {}}\n",
            "lanes: {standard: {workers: {min: 1, max: 16, start: 4}}}\n",
            id="an empty flow mapping",
        ),
        pytest.param(
            "lanes:\n  standard: {workers: {max: 8}}\n",
            "lanes:\n  standard: {workers: {max: 16, min: 1, start: 4}}\n",
            id="some of a flow mapping's keys",
        ),
        pytest.param(
            "lanes:\n  standard:\n    # how many\n    workers: 8  # was 4\n    sla: 30s\nstages: []\n",
            "lanes:\n  standard:\n    # how many\n    workers: {min: 1, max: 16, start: 4}  # was 4\n"
            "    sla: 30s\nstages: []\n",
            id="a number in a block",
        ),
        pytest.param(
            "lanes:\n  standard:\n    workers:\n      min: 2  # not one\n      max: 8\n\n    # a limit\n    sla: 30s\n",
            "lanes:\n  standard:\n    workers:\n      min: 1  # not one\n      max: 16\n      start: 4\n\n"
            "    # a limit\n    sla: 30s\n",
            id="a block in a block",
        ),
        pytest.param(
            "lanes:\n  standard:\n    sla: 30s  # short\n\n# the work\nstages: []\n",
            "lanes:\n  standard:\n    sla: 30s  # short\n    workers: {min: 1, max: 16, start: 4}\n"
            "\n# the work\nstages: []\n",
            id="a key that was missing in a block",
        ),
        pytest.param(
            "lanes:\n  docs: {sla: 1s}\nstages: []\n",
            "lanes:\n  docs: {sla: 1s}\n  standard: {workers: {min: 1, max: 16, start: 4}}\nstages: []\n",
            id="a lane that was missing",
        ),
        pytest.param(
            "# all\nproject: x\nstages: []  # none yet",
            "# all\nproject: x\nstages: []  # none yet\nlanes:\n  standard: {workers: {min: 1, max: 16, start: 4}}",
            id="no lanes, and no end of the last line",
        ),
        pytest.param(
            "lanes:\nstages: []\n",
            "lanes: {standard: {workers: {min: 1, max: 16, start: 4}}}\nstages: []\n",
            id="lanes without a value",
        ),
        pytest.param(
            "project: x\r\nlanes:\r\n  standard:\r\n    sla: 30s\r\n",
            "project: x\r\nlanes:\r\n  standard:\r\n    sla: 30s\r\n    workers: {min: 1, max: 16, start: 4}\r\n",
            id="lines that end as on Windows",
        ),
        pytest.param(
            "project: 'ä→𝄞'  # ünïcödé\nlanes: {standard: {workers: auto}}\n",
            "project: 'ä→𝄞'  # ünïcödé\nlanes: {standard: {workers: {min: 1, max: 16, start: 4}}}\n",
            id="characters of every width before it",
        ),
        pytest.param(
            "x-base: &base {sla: 30s, workers: 2}\nlanes:\n  standard:\n    <<: *base\n    fail_fast: true\n",
            "x-base: &base {sla: 30s, workers: 2}\nlanes:\n  standard:\n    <<: *base\n    fail_fast: true\n"
            "    workers: {min: 1, max: 16, start: 4}\n",
            id="a merged key is overridden, not changed",
        ),
    ],
)
def test_one_value_is_set_and_the_rest_stays_as_it_was(before: str, after: str) -> None:
    assert in_lane(before) == after
    assert in_lane(after) == after, "what is right already stays"


def test_words_and_numbers_are_set_beside_each_other() -> None:
    text = in_lane("lanes: {standard: {strategy: thread, workers: 2}}\n", strategy="process", workers=4)
    assert text == "lanes: {standard: {strategy: process, workers: 4}}\n"


def test_lane_with_an_odd_name_is_quoted() -> None:
    text = edit_text("stages: []\n", {"lanes": {"nightly: 2": {"workers": 4}}})
    assert Document(text).value == {"stages": [], "lanes": {"nightly: 2": {"workers": 4}}}


@pytest.mark.parametrize(
    "text",
    [
        "x-lane: &lane {workers: 2}\nlanes: {standard: *lane}\n",
        "lanes: {standard: &lane {workers: 2}, heavy: *lane}\n",
        "lanes: {standard: {workers: &size 2}, heavy: {workers: *size}}\n",
        "x-size: &size {min: 1, max: 2}\nlanes: {standard: {workers: *size}}\n",
        "lanes:\n  standard:\n    - a list\n",
        "- a list\n",
    ],
)
def test_shared_values_are_not_edited(text: str) -> None:
    with pytest.raises(CannotEdit):
        in_lane(text)


LANE = st.fixed_dictionaries(
    {},
    optional={
        "workers": st.one_of(
            st.integers(1, 9),
            st.just("auto"),
            st.dictionaries(st.sampled_from(["min", "max", "start"]), st.integers(1, 9)),
        ),
        "sla": st.sampled_from(["30s", "5m"]),
        "fail_fast": st.booleans(),
        "stages": st.lists(st.sampled_from(["a", "b: c", "# d", "\u00e9"]), min_size=1),
    },
)


@given(
    lanes=st.dictionaries(st.sampled_from(["standard", "docs", "on", "a b"]), LANE, min_size=1),
    flow=st.sampled_from([True, False, None]),
    indent=st.integers(2, 6),
    width=st.sampled_from([20, 80]),
)
def test_only_the_set_values_change_in_any_layout(
    lanes: dict[str, Any], flow: bool | None, indent: int, width: int
) -> None:
    before = {"project": "x", "lanes": lanes, "stages": []}
    text = yaml.safe_dump(
        before, default_flow_style=flow, indent=indent, width=width, allow_unicode=True, sort_keys=False
    )
    lane = lanes.get("standard", {})
    had = lane.get("workers")
    workers = {**(had if isinstance(had, dict) else {}), **WORKERS["workers"]}
    after = {**before, "lanes": {**lanes, "standard": {**lane, "workers": workers}}}
    assert load_yaml(in_lane(text)) == after


def test_fault_that_only_the_editing_parser_finds_is_one_line_with_its_place() -> None:
    with pytest.raises(CannotEdit, match=r"\Aline 1, column 7: found character '\\t' that cannot start any token\Z"):
        edit_text("lanes:\t\n  standard: {sla: 30s}\n", {"lanes": {"standard": {"sla": "1s"}}})
