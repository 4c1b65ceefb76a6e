"""Render the JSON Schema of `paropt.yml` for editors, from the config's models."""

from __future__ import annotations

import json
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def render_schema() -> str:
    """Return the schema as text, with all keys, their descriptions, and values as users write them."""
    from paropt_exporter.config.model import File

    schema = _remove_noise(File.model_json_schema(mode="validation", ref_template="#/$defs/{model}"))
    schema["$defs"].pop("File", None)
    schema = {"$schema": DIALECT, **schema, "title": "paropt.yml"}
    schema["patternProperties"] = {"^x-": {"description": "Ignored: a place for YAML anchors."}}
    schema["$defs"]["Stage"]["oneOf"] = [{"required": [key]} for key in ("run", "call", "steps")]
    schema["$defs"]["Items"]["oneOf"] = [{"required": [key]} for key in ("list", "glob", "command")]
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _remove_noise(node: Any) -> Any:
    """Remove pydantic's own additions: titles, null for missing keys, and unions of one choice."""
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
    """Say whether a keyword is useless to editors; a section's defaults are at its own keys."""
    if key == "default":
        return child is None or isinstance(child, dict | list)
    return key == "title" and isinstance(child, str)
