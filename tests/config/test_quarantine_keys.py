"""The key `quarantine` of a stage: its faults, and which items are in quarantine on a day."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.plan import Plan, PlanOptions, build_plan
from support import configs
from support.repositories import Repository

ENTRY = "{item: b.py, owner: anna, until: 2026-12-24}"


def plan_stage(folder: Path, *, today: str, entry: str = ENTRY, run: str = "pytest {items}") -> Plan:
    items = "items: {list: [a.py, b.py, c.py]}"
    (folder / "paropt.yml").write_text(
        f"stages:\n  - {{number: 1, name: t, run: '{run}', {items}, quarantine: [{entry}]}}\n"
    )
    return build_plan(config.read_config(folder / "paropt.yml", root=folder), "standard", PlanOptions(today=today))


def test_item_is_in_quarantine_up_to_its_last_day_and_has_a_command_of_its_own(tmp_path: Path) -> None:
    planned = plan_stage(tmp_path, today="2026-12-24")
    (stage,) = planned.stages
    assert stage.quarantine == {"b.py": "anna, until 2026-12-24"}
    assert [task.items for task in stage.tasks if "b.py" in task.items] == [("b.py",)]
    assert sorted(item for task in stage.tasks for item in task.items) == ["a.py", "b.py", "c.py"]
    assert planned.notes == ()


def test_quarantine_that_is_over_holds_no_item_and_is_a_line(tmp_path: Path) -> None:
    planned = plan_stage(tmp_path, today="2026-12-25")
    assert planned.stages[0].quarantine == {}
    assert planned.notes == ("t: the quarantine of b.py ended on 2026-12-24: its failures count again (anna)",)


def test_quarantine_of_a_file_that_is_gone_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("")
    (tmp_path / "paropt.yml").write_text(
        f"stages:\n  - {{number: 1, name: t, run: 'cat {{item}}', items: {{glob: test_*.py}}, quarantine: [{ENTRY}]}}\n"
    )
    planned = build_plan(
        config.read_config(tmp_path / "paropt.yml", root=tmp_path), "standard", PlanOptions(today="2026-12-01")
    )
    assert planned.notes == ("t: the quarantine of b.py matches none of its items (anna)",)


def test_quarantine_of_an_unchanged_file_is_no_line(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.commit(**{"b.py": "one"})
    repository.write("a.py", "new")
    path = repository.root / "paropt.yml"
    path.write_text(
        f"stages:\n  - {{number: 1, name: t, run: 'cat {{item}}', items: {{changed: '*.py'}}, quarantine: [{ENTRY}]}}\n"
    )
    planned = build_plan(config.read_config(path, root=repository.root), "standard", PlanOptions(today="2026-12-24"))
    assert [task.item for task in planned.stages[0].tasks] == ["a.py"]
    assert planned.notes == ()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("quarantine: [{item: a, owner: anna, until: 2026-12-24}]", "the stage has no items to put in quarantine"),
        (
            "items: {list: [a]}, quarantine: [{item: b, owner: anna, until: 2026-12-24}]",
            "'b' is not an item of the stage",
        ),
        (
            "items: {list: [a]}, quarantine: "
            "[{item: a, owner: anna, until: 2026-12-24}, {item: a, owner: bob, until: 2026-12-25}]",
            "'a' is already in quarantine",
        ),
        ("items: {list: [a]}, quarantine: [{item: a, until: 2026-12-24}]", "'owner' is missing"),
        ("items: {list: [a]}, quarantine: [{item: a, owner: anna}]", "'until' is missing"),
        ("items: {list: [a]}, quarantine: [{item: a, owner: '', until: 2026-12-24}]", "owner"),
        (
            "items: {list: [a]}, quarantine: [{item: a, owner: anna, until: 2026-02-30}]",
            "expected a date like 2026-12-24, found '2026-02-30'",
        ),
        ("items: {list: [a]}, quarantine: [{item: a, owner: anna, until: soon}]", "expected a date like 2026-12-24"),
        (
            "items: {list: [a]}, quarantine: [{item: a, owner: anna, until: 20261224}]",
            "expected a date like 2026-12-24",
        ),
        (
            "items: {list: ['a::b']}, quarantine: [{item: 'a::b', owner: anna, until: 2026-12-24}]",
            "a quarantine is for a whole file",
        ),
    ],
)
def test_invalid_quarantine_is_one_clear_fault(tmp_path: Path, keys: str, message: str) -> None:
    (fault,) = configs.faults(tmp_path, f"stages: [{{number: 1, name: a, run: cat x, {keys}}}]\n")
    assert message in fault
