"""Render JSON Schemas: those of `paropt.yml` and of the host config for editors, from the sections in
`config.values`, and those of documents for the programs that read them.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from functools import cache
from itertools import combinations, pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from paropt_exporter.config import values

if TYPE_CHECKING:
    from paropt_exporter.config.model import Section

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# As `config.server_urls` reads URLs, in the syntax that Python and JavaScript share; without "." and ".." as segments.
_HOST = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])"
_SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9_.~!$&'()*+,;=:-]*"
_PLAIN_URL = rf"^https?://{_HOST}(?::[0-9]{{1,5}})?(?:/{_SEGMENT})*$"
_SHOWABLE_URL = r"^https?://[^\s/@?#]+(?:/[^\s?#]*)?$"  # no user and no query, since logs show it


@cache
def render_schema() -> str:
    """Return the schema of `paropt.yml`, with all keys, their descriptions, and values as users write them."""
    from paropt_exporter.config.model import File

    schema = {"$schema": DIALECT, **_render_sections(File), "title": "paropt.yml"}
    schema["patternProperties"] = {"^x-": {"description": "Ignored: a place for YAML anchors."}}
    for key in ("sla", "total"):  # null turns off the limit that a default lane has
        limit = schema["$defs"]["Lane"]["properties"][key]
        choices = limit.pop("anyOf", None) or [{"$ref": limit.pop("$ref")}]
        limit["anyOf"] = [*choices, {"type": "null"}]
    schema["$defs"]["Stage"]["required"].remove("number")
    schema["$defs"]["Stage"]["oneOf"] = [{"required": [key]} for key in ("run", "call", "steps")]
    schema["$defs"]["Items"]["oneOf"] = [{"required": [key]} for key in ("list", "glob", "command", "changed")]
    return _format(schema)


def render_host_schema() -> str:
    """Return the schema of the host config. It refuses the same files as the exporter, as far as a schema can."""
    from paropt_exporter.config.model import HostFile

    schema = {"$schema": DIALECT, **_render_sections(HostFile), "title": "The host config of paropt-exporter"}
    sections = schema["$defs"]
    ways = ("bearer_token_file", "bearer_token_env", "basic_auth")
    sections["Server"]["allOf"] = [{"not": {"required": list(pair)}} for pair in combinations(ways, 2)]
    sections["BasicAuth"]["oneOf"] = [{"required": [key]} for key in ("password_file", "password_env")]
    sections["Permission"]["anyOf"] = [{"required": [key]} for key in ("url", "repository")]
    for name, pattern in (
        ("Server", _PLAIN_URL),
        ("Permission", _PLAIN_URL),
        ("DefaultUrl", _SHOWABLE_URL),
        ("RemoteCacheUrl", _SHOWABLE_URL),
    ):
        sections[name]["properties"]["url"]["pattern"] = pattern
    return _format(schema)


def render_document_schema(document: type[msgspec.Struct], title: str) -> str:
    """Return the schema of a document. `document` and its parts are classes of one module.

    The document may have more keys, since later versions add some.
    """
    _, parts = msgspec.json.schema_components([document], ref_template="#/$defs/{name}")
    for name, keys in _read_descriptions(sys.modules[document.__module__]).items():
        for key, text in keys.items():
            parts[name]["properties"][key]["description"] = text
    return _format({"$schema": DIALECT, "title": title, "$ref": f"#/$defs/{document.__name__}", "$defs": parts})


def _render_sections(file: type[Section]) -> dict[str, Any]:
    schema: dict[str, Any] = _remove_noise(file.model_json_schema(mode="validation", ref_template="#/$defs/{model}"))
    descriptions = _read_descriptions(values)
    for name, section in [(file.__name__, schema), *schema["$defs"].items()]:
        # A section that may also be a single value is one of several choices.
        mapping = next((choice for choice in section.get("anyOf", ()) if "properties" in choice), section)
        for key, keywords in mapping.get("properties", {}).items():
            keywords["description"] = descriptions[name][key]
    return schema


def _read_descriptions(module: ModuleType) -> dict[str, dict[str, str]]:
    """Return the description of each key of each class: the string below it in the module's source."""
    found: dict[str, dict[str, str]] = {}
    for section in ast.parse(inspect.getsource(module)).body:
        if isinstance(section, ast.ClassDef):
            inherited = (found.get(ast.unparse(base), {}) for base in section.bases)
            found[section.name] = {
                **{key: text for keys in inherited for key, text in keys.items()},
                **_read_keys(section),
            }
    return found


def _read_keys(section: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, below in pairwise(section.body):
        match key, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def _format(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _remove_noise(node: Any) -> Any:
    """Remove pydantic's additions: titles, null for missing keys, and unions of one choice."""
    if isinstance(node, list):
        return [_remove_noise(child) for child in node]
    if not isinstance(node, dict):
        return node
    tidy = {key: _remove_noise(child) for key, child in node.items() if not _is_noise(key, child)}
    choices = [choice for choice in tidy.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del tidy["anyOf"]
        return {**choices[0], **tidy}
    if choices:
        tidy["anyOf"] = choices
    return tidy


def _is_noise(key: str, child: object) -> bool:
    """Return whether a keyword is useless to editors; a section's defaults are at its own keys."""
    if key == "default":
        return child is None or isinstance(child, dict | list)
    return key == "title" and isinstance(child, str)
