"""Turn pydantic's validation errors into faults with messages of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from paropt_exporter.config.document import Document
from paropt_exporter.config.faults import MOST_FAULTS, Fault, Location, suggest_name
from paropt_exporter.config.model import Items, Shorthand, Stage
from paropt_exporter.config.units import NOT_SHOWN, format_value

_KINDS = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("of at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("of at most", "le"),
}


# Keys of a stage or task in make-like runners and in CI systems, whose names are not similar.
_KEYS_OF_OTHERS = {
    "after": "needs", "depends": "needs", "depends_on": "needs", "dependson": "needs", "dependencies": "needs",
    "deps": "needs", "cmd": "run", "command": "run", "entry": "run", "script": "run", "cmds": "steps",
    "commands": "steps", "dir": "cwd", "directory": "cwd", "working-directory": "cwd", "workdir": "cwd",
    "changedir": "cwd", "change_dir": "cwd", "environment": "env", "setenv": "env", "set_env": "env",
    "matrix": "items", "sources": "inputs", "generates": "outputs", "desc": "description",
}  # fmt: skip


_SECRET_KEYS = frozenset(
    {"basic_auth", "basic_auth_users", "headers", "header_files", "env", "bearer_token_file", "bearer_token_env"}
)
_EXPECTED = {model.__name__: model.describe_expected() for model in Shorthand.__subclasses__()}
_EXPECTED[Items.__name__] = "a mapping like {list: [a, b]} or {glob: tests/test_*.py}"


def iter_faults(error: ValidationError, document: Document, model: type[BaseModel]) -> Iterator[Fault]:
    """Yield a fault for each error of a document that `model` validated, MOST_FAULTS at most."""
    for detail in error.errors(include_url=False)[:MOST_FAULTS]:
        location: Location = tuple(part for part in detail["loc"] if not str(part).startswith("<"))
        kind = detail["type"]
        if kind == "missing":
            yield Fault(location=location[:-1], message=f"the key {location[-1]!r} is missing")
        elif kind == "extra_forbidden":
            known = _list_keys(model, location[:-1])
            ours = _KEYS_OF_OTHERS.get(str(location[-1]).lower())
            hint = f": did you mean {ours!r}?" if ours in known else suggest_name(location[-1], known)
            if "stages" in known and len(location) == 1 and location[0] in Stage.model_fields:
                hint = ": it is a key of a stage, so put it into one of `stages`"
            message = f"unknown key {format_value(location[-1])}{hint}"
            yield Fault(location=location, message=message, on_key=True)
        else:
            on_key = location[-1:] == ("[key]",)
            location = location[:-1] if on_key else location
            yield Fault(location=location, message=_format_message(detail, document, location), on_key=on_key)


def _format_message(detail: ErrorDetails, document: Document, location: Location) -> str:
    kind, found, context = detail["type"], detail["input"], detail.get("ctx", {})
    shown = _format_found(found, location)
    if kind == "model_type" and context["class_name"] in _EXPECTED:
        message = f"expected {_EXPECTED[context['class_name']]}, found {shown}"
    elif kind == "value_error":
        message = str(context["error"])
    elif kind in ("enum", "literal_error"):
        known = re.findall(r"'([^']*)'", str(context["expected"]))
        choices = " or ".join(known) if len(known) < 3 else "one of " + ", ".join(known)
        message = f"expected {choices}, found {shown}"
        near = suggest_name(found, known) if isinstance(found, str) else ""
        message += near if "did you mean" in near else ""
    elif kind in _KINDS:
        message = f"expected {_KINDS[kind]}, found {shown}"
        message += ": put it in [ ]" if kind == "tuple_type" and isinstance(found, str) else ""
        message += ": begin each entry with a dash" if kind == "tuple_type" and isinstance(found, dict) else ""
    elif kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        message = (
            f"expected a number {words} {context[key]:{'g' if isinstance(context[key], float) else ''}}, found {shown}"
        )
    else:
        message = str(detail["msg"])
    return message + _explain_boolean(found, document.get_written(location))


def _format_found(found: object, location: Location) -> str:
    """Return a wrong value for a message, except for a text where a secret may stand.

    A file that is one text may be a token: a checkout can have a link to it as its config, or name it as web config.
    """
    secret = isinstance(found, str) and any(part in _SECRET_KEYS for part in location)
    return NOT_SHOWN if secret or (not location and isinstance(found, str | int | float)) else format_value(found)


def _explain_boolean(found: object, written: str | None) -> str:
    """Explain `yes`, which YAML 1.1 reads as a boolean."""
    if not isinstance(found, bool) or written is None or written.lower() in ("true", "false"):
        return ""
    return f" (YAML reads {written} as a boolean: quote it if you mean the word)"


def _list_keys(model: type[BaseModel], location: Location) -> list[str]:
    """Return the keys that a mapping at this location may have."""
    found: object = model
    for part in location:
        found = _get_inner_type(found, part)
    models = [choice for choice in _list_choices(found) if isinstance(choice, type) and issubclass(choice, BaseModel)]
    return [key for choice in models for key in choice.model_fields]


def _get_inner_type(annotation: object, part: str | int) -> object:
    for choice in _list_choices(annotation):
        if isinstance(choice, type) and issubclass(choice, BaseModel) and part in choice.model_fields:
            return choice.model_fields[str(part)].annotation
        arguments = get_args(choice)
        origin = getattr(choice, "__origin__", None)
        if origin is tuple and isinstance(part, int):
            return arguments[0]
        if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(part, str):
            return arguments[1]
    return None


def _list_choices(annotation: object) -> list[object]:
    """Return the types of a union, or the type itself."""
    if hasattr(annotation, "__metadata__"):  # Annotated
        return _list_choices(get_args(annotation)[0])
    if getattr(annotation, "__origin__", None) in (tuple, dict) or isinstance(annotation, type):
        return [annotation]
    return [inner for choice in get_args(annotation) for inner in _list_choices(choice)] or [annotation]
