"""Set single values in the text of a `paropt.yml`, and keep its comments, order and layout."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, TypeAlias

import yaml
from msgspec import Struct

from paropt_exporter.config.document import Document, Unreadable
from paropt_exporter.errors import EXIT_USAGE, ParoptError

Changes: TypeAlias = Mapping[str, Any]  # keys as in the file; the innermost values are words, numbers and booleans
_PLAIN = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


class CannotEdit(ParoptError):
    """The values can't be set without changing others, because of how the file is written."""

    exit_code = EXIT_USAGE


class Replacement(Struct, frozen=True):
    """A mapping that replaces a value. A plain mapping in the changes is merged into the value."""

    value: Mapping[str, Any]


class _Edit(Struct, frozen=True):
    """Replace the characters from `start` to `end` by `text`."""

    start: int
    end: int
    text: str


def edit_text(text: str, changes: Changes) -> str:
    """Return a file's text with the changes. Raises CannotEdit if anything else would change.

    The value of an existing key is replaced; a new key is added at the end of its mapping. The result is parsed and
    compared with the intended values.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)  # the pure-Python loader, whose marks count characters
    except yaml.YAMLError as error:  # it refuses tabs and other characters that libyaml accepts
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise CannotEdit(f"{place}{problem or str(error).partition(chr(10))[0]}") from None
    if not isinstance(root, yaml.MappingNode):
        raise CannotEdit("the file is not a mapping")
    edits = [*_edit_mapping(text, root, changes)]
    result = text
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        result = result[: edit.start] + edit.text + result[edit.end :]
    if not _changes_only(text, result, changes):
        raise CannotEdit("the values can't be set without changing others")
    return result


def format_flow(value: object) -> str:
    """Return a value in YAML's flow style, on one line."""
    if isinstance(value, Replacement):
        return format_flow(value.value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_format_key(key)}: {format_flow(child)}" for key, child in value.items()) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _edit_mapping(text: str, node: yaml.MappingNode, changes: Changes) -> Iterator[_Edit]:
    own = {key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    for name, wanted in changes.items():
        if name in own:
            yield from _replace_value(text, *own[name], wanted)
    missing = {name: wanted for name, wanted in changes.items() if name not in own}
    if missing:
        yield _add_keys(text, node, missing)


def _replace_value(text: str, key: yaml.Node, value: yaml.Node, wanted: object) -> Iterator[_Edit]:
    start, end = value.start_mark.index, value.end_mark.index
    if start < key.end_mark.index or text[start : start + 1] in ("&", "!"):
        raise CannotEdit(f"the value of {key.value!r} is shared through an alias, or has a tag")
    if isinstance(wanted, Mapping) and isinstance(value, yaml.MappingNode):
        yield from _edit_mapping(text, value, wanted)
    elif isinstance(value, yaml.ScalarNode) or (isinstance(value, yaml.CollectionNode) and value.flow_style):
        space = " " if text[start - 1 : start] == ":" else ""
        yield _Edit(start, end, space + format_flow(wanted))
    else:
        raise CannotEdit(f"the value of {key.value!r} is a block of lines")


def _add_keys(text: str, node: yaml.MappingNode, missing: Changes) -> _Edit:
    if node.flow_style:
        pairs = format_flow(missing)[1:-1]
        if not node.value:
            return _Edit(node.start_mark.index + 1, node.start_mark.index + 1, pairs)
        end = node.value[-1][1].end_mark.index
        return _Edit(end, end, f", {pairs}")
    first, last = node.value[0][0], _find_last_node(node)
    line_end = text.find("\n", len(text[: last.end_mark.index].rstrip()))
    place = len(text) if line_end < 0 else line_end
    place -= text[:place].endswith("\r")
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [line for name, wanted in missing.items() for line in _format_lines(name, wanted, first.start_mark.column)]
    return _Edit(place, place, "".join(newline + line for line in lines))


def _find_last_node(node: yaml.Node) -> yaml.Node:
    """Return the last node inside a block. A block's own end mark is after the comments that follow it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(node, yaml.MappingNode) else last
    return node


def _format_lines(name: str, wanted: object, indent: int) -> Iterator[str]:
    """Yield the lines of a new key. A top-level section (`lanes`) becomes a block with a line for each of its keys."""
    key = " " * indent + _format_key(name) + ":"
    if indent == 0 and isinstance(wanted, Mapping):
        yield key
        yield from (f"  {_format_key(child)}: {format_flow(value)}" for child, value in wanted.items())
    else:
        yield f"{key} {format_flow(wanted)}"


def _format_key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _changes_only(before: str, after: str, changes: Changes) -> bool:
    try:
        meant, found = deepcopy(Document(before).value), Document(after).value
    except Unreadable:
        return False
    if not isinstance(meant, dict):
        return False
    _merge_changes(meant, changes)
    return bool(meant == found)


def _merge_changes(value: dict[str, Any], changes: Changes) -> None:
    for name, wanted in changes.items():
        if isinstance(wanted, Mapping) and isinstance(value.get(name), dict):
            _merge_changes(value[name], wanted)
        else:
            value[name] = _plain(wanted)


def _plain(value: Any) -> Any:
    """Return a value as it is read from the file."""
    if isinstance(value, Replacement):
        return _plain(value.value)
    return {name: _plain(child) for name, child in value.items()} if isinstance(value, Mapping) else value
