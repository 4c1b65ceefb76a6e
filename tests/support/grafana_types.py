"""Check dashboards against Grafana's own types: the classes of grafana-foundation-sdk, made from Grafana's schemas.

Its own `from_json` checks nothing: it drops keys that it does not know and takes any type. So the keys are read off
each class's `from_json`, those that must be there off its `to_json`, and types and enumerations off its annotations;
then the JSON is walked beside them.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import textwrap
import types
import typing
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the schema that Grafana's files have had since version 1
    from grafana_foundation_sdk.cog.variants import Dataquery
    from grafana_foundation_sdk.models import dashboard as schema
    from grafana_foundation_sdk.models import prometheus

_NUMBERS = (int, float)
_DATA_LINK = {"title": str, "url": str, "targetBlank": bool}  # what Grafana saves of @grafana/data's DataLink


def faults(dashboard: dict[str, Any]) -> list[str]:
    """Return the violations of Grafana's types, each as `path: fault`."""
    return [*_object(schema.Dashboard, dashboard, "dashboard")]


@dataclass(frozen=True, slots=True)
class _Key:
    expected: Any
    required: bool


@cache
def _keys(kind: type) -> dict[str, _Key]:
    """Return the JSON keys of a class, from the source of the code that reads and writes them."""
    attributes = dict(_read_keys(kind))
    written = dict(_written_always(kind))
    hints = typing.get_type_hints(kind, vars(importlib.import_module(kind.__module__)))
    keys = {key: _Key(hints[attribute], key in written) for key, attribute in attributes.items()}
    for constant in written.keys() - attributes.keys():  # what is never read is a constant: a union's `type`, mostly
        keys[constant] = _Key(typing.Literal[getattr(kind(), written[constant])], constant == "type")
    return keys


def _read_keys(kind: Any) -> Iterator[tuple[str, str]]:
    """Yield (JSON key, attribute) of each `if "key" in data: args["attribute"] = ...` in `from_json`."""
    for node in ast.walk(_source(kind.from_json)):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and isinstance(node.test.left, ast.Constant):
            (attribute, *_) = (name for each in ast.walk(node) if (name := _assigned_argument(each)))
            yield str(node.test.left.value), attribute


def _assigned_argument(node: ast.AST) -> str:
    """Return the name in `args["name"] = ...`; "" for any other code."""
    match node:
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="args"), slice=ast.Constant(value=str() as name))]):
            return name
    return ""


def _written_always(kind: Any) -> Iterator[tuple[str, str]]:
    """Yield (JSON key, attribute) of the initial payload of `to_json`, which has no conditions."""
    payload = next(node for node in ast.walk(_source(kind.to_json)) if isinstance(node, ast.Dict))
    for key, attribute in zip(payload.keys, payload.values, strict=True):
        assert isinstance(key, ast.Constant)  # each is `"key": self.attribute`
        assert isinstance(attribute, ast.Attribute)
        yield str(key.value), attribute.attr


def _source(function: Any) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _object(kind: Any, value: object, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: expected an object ({kind.__name__}), found {value!r}"
        return
    keys = _keys(kind)
    yield from (f"{path}.{key}: Grafana has no such key" for key in value if key not in keys)
    yield from (f"{path}.{key}: missing" for key, known in keys.items() if known.required and key not in value)
    for key, child in value.items():
        if kind is schema.FieldConfig and key == "links":
            yield from _data_links(child, f"{path}.{key}")
        elif key in keys:
            yield from _value(keys[key].expected, child, f"{path}.{key}")
    if kind is schema.Panel:
        yield from _panel(value, path)


def _panel(panel: dict[str, Any], path: str) -> Iterator[str]:
    """A panel's options and its fields' custom part are of the types of its plugin."""
    name = str(panel.get("type", "")).replace("-", "")
    try:
        plugin = importlib.import_module(f"grafana_foundation_sdk.models.{name}").variant_config()
    except ModuleNotFoundError:
        yield f"{path}.type: Grafana has no panel {panel.get('type')!r}"
        return
    yield from _object(plugin.options_from_json_hook.__self__, panel.get("options", {}), f"{path}.options")
    custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom")
    if custom and plugin.field_config_from_json_hook is None:
        yield f"{path}.fieldConfig.defaults.custom: this panel has none"
    elif custom:
        own = plugin.field_config_from_json_hook.__self__
        yield from _object(own, custom, f"{path}.fieldConfig.defaults.custom")
        yield from _overrides(own, panel["fieldConfig"]["overrides"], f"{path}.fieldConfig.overrides")


def _overrides(own: Any, overrides: list[dict[str, Any]], path: str) -> Iterator[str]:
    """An override names a key of the defaults, or `custom.KEY` of the plugin's own."""
    for index, override in enumerate(overrides):
        for change in override["properties"]:
            of_plugin = change["id"].startswith("custom.")
            keys, key = _keys(own if of_plugin else schema.FieldConfig), change["id"].removeprefix("custom.")
            where = f"{path}[{index}].{change['id']}"
            if key == "links":
                yield from _data_links(change["value"], where)
            else:
                yield from _value(keys[key].expected, change["value"], where) if key in keys else (f"{where}: unknown",)


def _data_links(links: list[dict[str, object]], path: str) -> Iterator[str]:
    """The SDK takes the links of fields for those of dashboards, which have more keys."""
    for index, link in enumerate(links):
        yield from (f"{path}[{index}].{key}: missing" for key in _DATA_LINK.keys() - link.keys())
        for key, value in link.items():
            where = f"{path}[{index}].{key}"
            yield from _value(_DATA_LINK[key], value, where) if key in _DATA_LINK else (f"{where}: unknown",)


def _value(expected: Any, value: object, path: str) -> Iterator[str]:
    origin = typing.get_origin(expected)
    if expected in (Any, object):
        return
    if origin in (typing.Union, types.UnionType):
        yield from _one_of(typing.get_args(expected), value, path)
    elif origin is list:
        yield from _list(typing.get_args(expected)[0], value, path)
    elif origin is dict:
        yield from _dict(typing.get_args(expected)[1], value, path)
    elif origin is typing.Literal:
        if value not in typing.get_args(expected):
            yield f"{path}: expected one of {typing.get_args(expected)}, found {value!r}"
    elif isinstance(expected, type) and issubclass(expected, enum.Enum):
        if value not in [member.value for member in expected]:
            yield f"{path}: {value!r} is no {expected.__name__}"
    elif expected is Dataquery:
        yield from _object(prometheus.Dataquery, value, path)
    elif expected in (str, bool, int, float, type(None)):
        yield from _plain(expected, value, path)
    else:
        yield from _object(expected, value, path)


def _one_of(choices: tuple[Any, ...], value: object, path: str) -> Iterator[str]:
    """Yield the faults of the best matching choice; optional keys are never null."""
    if value is None and path.endswith(".value"):
        return  # of a threshold: null is its -Infinity
    if isinstance(value, dict) and value.get("type") == "row" and schema.RowPanel in choices:
        choices = (schema.RowPanel,)
    choices = tuple(choice for choice in choices if choice is not type(None))
    yield from min(([*_value(choice, value, path)] for choice in choices), key=len)


def _list(expected: Any, value: object, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: expected a list, found {value!r}"
        return
    for index, child in enumerate(value):
        yield from _value(expected, child, f"{path}[{index}]")


def _dict(expected: Any, value: object, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: expected an object, found {value!r}"
        return
    for key, child in value.items():
        yield from _value(expected, child, f"{path}.{key}")


def _plain(expected: type, value: object, path: str) -> Iterator[str]:
    good = isinstance(value, _NUMBERS) if expected is float else isinstance(value, expected)
    if not good or (isinstance(value, bool) and expected is not bool):
        yield f"{path}: expected {expected.__name__}, found {value!r}"
