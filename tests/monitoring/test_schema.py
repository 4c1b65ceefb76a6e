"""The JSON Schema of paropt.yml."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from jsonschema import Draft202012Validator

from paropt_exporter.config.fields import CALL_PATTERN
from paropt_exporter.config.units import DURATION_PATTERN, NAME_PATTERN
from paropt_exporter.monitoring import schema


def _sections(node: object) -> Iterator[dict[str, dict[str, object]]]:
    if isinstance(node, dict):
        if "properties" in node:
            yield node["properties"]
        for child in node.values():
            yield from _sections(child)
    elif isinstance(node, list):
        for child in node:
            yield from _sections(child)


def test_every_key_is_described() -> None:
    sections = [*_sections(json.loads(schema.render_schema()))]
    assert len(sections) > 10
    assert [key for section in sections for key, value in section.items() if not value.get("description")] == []


def test_every_reference_is_valid() -> None:
    text = schema.render_schema()
    definitions = json.loads(text)["$defs"]
    references = set(re.findall(r'"#/\$defs/(\w+)"', text))
    assert references
    assert references <= {*definitions}


def test_unknown_keys_are_refused_and_anchors_allowed() -> None:
    root = json.loads(schema.render_schema())
    assert root["additionalProperties"] is False
    assert "^x-" in root["patternProperties"]
    assert root["$defs"]["Stage"]["oneOf"] == [{"required": ["run"]}, {"required": ["call"]}, {"required": ["steps"]}]


@pytest.mark.parametrize("items", [{"list": ["a"]}, {"glob": "*.py"}, {"command": "ls"}, {"changed": "*.py"}])
def test_items_may_have_each_source(items: dict[str, object]) -> None:
    stage = {"number": 2, "name": "lint", "run": "ruff check {items}", "items": items}
    assert Draft202012Validator(json.loads(schema.render_schema())).is_valid({"stages": [stage]})


def test_patterns_mean_the_same_in_javascript_and_python() -> None:
    """Editors use JavaScript's patterns: the schema's patterns use only the common syntax."""
    for pattern in (NAME_PATTERN, CALL_PATTERN, DURATION_PATTERN):
        assert not re.search(r"\(\?P|\(\?<[=!]|\\A|\\Z|\(\?[aiLmsux]", pattern), pattern


@pytest.mark.parametrize("key", ["sla", "total"])
def test_null_turns_off_a_limit_of_a_lane(key: str) -> None:
    """`init` writes `sla: null`, and the line about a default limit proposes both."""
    assert Draft202012Validator(json.loads(schema.render_schema())).is_valid({"lanes": {"standard": {key: None}}})
