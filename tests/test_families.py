"""Metric definitions follow the conventions of Prometheus."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

from paropt_exporter import families
from paropt_exporter.autoscaling import policy
from paropt_exporter.executors.base import RESIZE_REASONS
from paropt_exporter.families import CLOSED_VALUES, FAMILIES, Kind


def test_names_have_base_unit_and_suffix_of_their_kind() -> None:
    for family in FAMILIES:
        assert re.fullmatch(r"paropt(_[a-z]+)+", family.name), family
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER), family
        assert not family.name.endswith(("_count", "_sum", "_bucket", "_milliseconds", "_percent")), family
        assert family.name.endswith("_seconds") or family.kind is not Kind.HISTOGRAM, family


def test_labels_are_few_and_never_of_one_run() -> None:
    of_one = {"run", "run_id", "task", "pid", "path", "message", "le", "job", "instance"}
    for family in FAMILIES:
        assert family.label_names[0] == families.PROJECT, family
        assert len(set(family.label_names)) == len(family.label_names) <= 5, family
        assert not set(family.label_names) & of_one, family


def test_help_is_a_sentence() -> None:
    for family in FAMILIES:
        assert family.help[0].isupper() or family.help[0].isdigit(), family
        assert family.help.endswith("."), family


def test_names_are_unique() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_reasons_that_policies_give_are_known() -> None:
    known = {
        *families.DECISION_REASONS,
        *(each for reasons in families.DECISION_REASONS.values() for each in reasons),
        "",
    }
    for path in Path(policy.__file__).parent.glob("*.py"):
        values = itertools.chain.from_iterable(map(_list_reasons, ast.walk(ast.parse(path.read_text()))))
        constants = (node.value for value in values for node in ast.walk(value) if isinstance(node, ast.Constant))
        given = {value for value in constants if isinstance(value, str)}
        assert given <= known, f"{path.name}: add the reason to families.py and a sentence to explanation.py"


def _list_reasons(node: ast.AST) -> list[ast.expr]:
    """Return the expressions that a keyword, a variable or a function gets or returns as a reason."""
    match node:
        case ast.keyword(arg=str(name), value=value) if name.endswith("reason"):
            return [value]
        case ast.Assign(targets=[target], value=value) if ast.unparse(target).strip("()").endswith("reason"):
            return [value]
        case ast.FunctionDef(name=name) if name.endswith("reason"):
            returns = (each for each in ast.walk(node) if isinstance(each, ast.Return))
            return [each.value for each in returns if each.value is not None]
    return []


def test_closed_values_belong_to_existing_labels() -> None:
    for family, labels in CLOSED_VALUES.items():
        assert set(labels) <= set(family.labels)
        assert all(len(set(values)) == len(values) > 0 for values in labels.values())


def test_every_label_outside_the_config_lists_its_values() -> None:
    from_outside = {"project", "holder", "lane", "stage", "pool", "number", "version", "python", "revision", "observer"}
    for family in FAMILIES:
        assert set(family.labels) - from_outside == set(CLOSED_VALUES.get(family, {}))


def test_buckets_increase() -> None:
    assert list(families.BUCKETS_SECONDS) == sorted(set(families.BUCKETS_SECONDS))


def test_executors_accept_every_reason_for_which_the_controller_resizes() -> None:
    assert {"start", *families.UP_REASONS, *families.DOWN_REASONS, "caller"} == set(RESIZE_REASONS)
