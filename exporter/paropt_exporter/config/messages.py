"""Turn pydantic's validation errors into faults with messages of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from paropt_exporter.config.document import Document
from paropt_exporter.config.faults import MOST_FAULTS, Fault, Location, format_key, suggest_name
from paropt_exporter.config.model import SHORTHANDS
from paropt_exporter.config.units import NOT_SHOWN, format_value
from paropt_exporter.config.values import Lane, Stage

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


# Dissimilar keys of other runners and CI systems, with ours. Of several, the first one that the section has is meant.
_KEYS_OF_OTHERS = {
    "after": "needs", "depends": "needs", "depends_on": "needs", "dependson": "needs", "dependencies": "needs",
    "deps": "needs", "requires": "needs", "wait_for": "needs", "cmd": "run", "command": "run", "entry": "run",
    "exec": "run", "script": "run", "cmds": "steps", "commands": "steps", "function": "call", "python": "call",
    "dir": "cwd", "directory": "cwd", "working-directory": "cwd", "working_directory": "cwd", "work_dir": "cwd",
    "workdir": "cwd", "working_dir": "cwd", "changedir": "cwd", "change_dir": "cwd", "environment": "env",
    "setenv": "env", "set_env": "env", "foreach": "items", "for_each": "items", "loop": "items", "matrix": "items",
    "parametrize": "items", "sources": "inputs", "artifacts": "outputs", "generates": "outputs",
    "produces": "outputs", "desc": "description", "help": "description", "id": "name", "title": "name",
    "cores": "slots", "cpu": "slots", "cpus": "slots", "ram": "memory", "time_limit": "timeout",
    "attempts": "retries", "max_attempts": "retries", "address": "listen_address", "bind": "listen_address",
    "host": "listen_address", "listen": "listen_address", "port": "listen_address", "limit": "max",
    "max_duration_seconds": "max", "threshold": "warn_at", "warn": "warn_at", "warning": "warn_at",
    "warning_threshold": "warn_at",
    "concurrency": "workers", "max-parallel": "workers", "max_parallel": "workers", "parallel": "workers",
    "jobs": "workers stages", "recipes": "stages", "targets": "stages", "tasks": "stages",
}  # fmt: skip
_ANCHORS = ": keys that begin with x- may hold values for YAML's anchors (x-defaults: &defaults {timeout: 5m})"
_TOLERATED = ": to ignore a failure, end the command with `|| true` and add `shell: true`"
_CONDITION = ": stages have no conditions: give the lanes different `stages`, or test a variable with `shell: true`"
# The remedies for keys without an equivalent.
_KEYS_WITHOUT_EQUIVALENT = {
    "parallel": ": leave it out: all stages run in parallel, apart from those that `needs` puts in order",
    "before": ": write `needs` into the other stage", "allow_failure": _TOLERATED, "continue-on-error": _TOLERATED,
    "continue_on_error": _TOLERATED, "ignore_errors": _TOLERATED, "ignore_failure": _TOLERATED, "if": _CONDITION,
    "when": _CONDITION, "tags": ": a lane selects stages by its key `stages`", "common": _ANCHORS,
    "default": _ANCHORS, "defaults": _ANCHORS, "templates": _ANCHORS, "x": _ANCHORS, "version": ": leave it out",
    "only": _CONDITION, "except": _CONDITION, "rules": _CONDITION, "include": ": a config is one file",
    "includes": ": a config is one file",
}  # fmt: skip


_NAMED_SHELL = ": `true` means /bin/sh; for another shell, write its command, such as bash -c '...'"
_SECRET_KEYS = frozenset(
    {"basic_auth", "basic_auth_users", "headers", "header_files", "env", "bearer_token_file", "bearer_token_env"}
)
_EXPECTED = {
    **{section: shorthand.expected for section, shorthand in SHORTHANDS.items()},
    "Items": "a mapping like {list: [a, b]} or {glob: tests/test_*.py}",
    "Stage": "a mapping like {name: lint, run: ruff check .}",
    "Lane": "a mapping like {workers: auto, stages: [lint, tests]}",
    "Push": 'a mapping like {url: "http://127.0.0.1:9091"}',
    "Prometheus": 'a mapping like {url: "http://127.0.0.1:9090"}',
    "Feedback": 'a mapping like {prometheus: {url: "http://127.0.0.1:9090"}}',
    "Web": 'a mapping like {listen_address: "127.0.0.1:10178"}',
    "Dask": 'a mapping like {scheduler: "tcp://127.0.0.1:8786"}',
    "History": "a mapping like {path: .paropt/history.db, keep: 1000}",
    "Server": 'a mapping like {url: "https://push.example.org", bearer_token_file: token}',
    "DefaultUrl": 'a mapping like {url: "https://push.example.org"}',
    "RemoteCacheUrl": 'a mapping like {url: "https://cache.example.org"}',
    "Permission": "a mapping like {repository: ~/src/shop}",
    "Quarantine": "a mapping like {item: test_a.py, owner: anna, until: 2026-12-24}",
}
_EXPECTED_MAPPINGS = {"lanes": "a mapping like {quick: {stages: [lint]}}", "env": "a mapping like {LOG: debug}"}


def iter_faults(error: ValidationError, document: Document, model: type[BaseModel]) -> Iterator[Fault]:
    """Yield a fault for each error of a document that `model` validated, MOST_FAULTS at most."""
    details = error.errors(include_url=False)[:MOST_FAULTS]
    named_by_key = {detail["loc"][:-1] for detail in details if _lacks_only_its_form(detail)}
    for detail in details:
        location: Location = tuple(part for part in detail["loc"] if not str(part).startswith("<"))
        kind = detail["type"]
        if kind == "missing" and location[:-1] in named_by_key:
            word = next((format_key(key) for key in detail["input"] if key != "number"), "lint")
            message = f"the name of a stage is a value: write {{name: {word}, run: ...}}"
            yield Fault(location=location[:-1], message=message)
        elif kind == "missing":
            yield Fault(location=location[:-1], message=f"the key {location[-1]!r} is missing")
        elif kind == "extra_forbidden":
            if location[:-1] in named_by_key:
                continue
            hint = _suggest_key(location, _list_keys(model, location[:-1]), detail["input"])
            message = f"unknown key {format_value(location[-1])}{hint}"
            yield Fault(location=location, message=message, on_key=True)
        else:
            on_key = location[-1:] == ("[key]",)
            location = location[:-1] if on_key else location
            yield Fault(location=location, message=_format_message(detail, document, location), on_key=on_key)


def is_work_of_others(key: str) -> bool:
    """Return whether a key stands for the commands of a stage in other runners."""
    return _KEYS_OF_OTHERS.get(key.lower()) in ("run", "steps", "call")


def is_named_by_key(stage: Mapping[str, object]) -> bool:
    """Return whether an entry of `stages` has a single key, which is its name, such as {lint: ruff check .}."""
    names = [key.lower() for key in stage if key != "number"]
    return len(names) == 1 and not any(names[0] in keys for keys in (Stage.__struct_fields__, _KEYS_OF_OTHERS))


def _is_stage_by_name(key: str, found: object) -> bool:
    """Return whether an unknown key of the file is the name of a stage, as in a `.gitlab-ci.yml`."""
    if not isinstance(found, Mapping) or key.startswith("."):
        return False
    return any(each in ("run", "call", "steps") or is_work_of_others(each) for each in found)


def _lacks_only_its_form(detail: ErrorDetails) -> bool:
    location, found = detail["loc"], detail["input"]
    is_name = detail["type"] == "missing" and len(location) == 3 and (location[0], location[2]) == ("stages", "name")
    return is_name and isinstance(found, dict) and is_named_by_key(found)


def _suggest_key(location: Location, known: list[str], found: object) -> str:
    """Return what to do about an unknown key of a section that has the `known` ones."""
    key = str(location[-1])
    meant = _KEYS_OF_OTHERS.get(key.lower(), "").split()
    is_top = len(location) == 1 and "stages" in known
    ours = next((each for each in meant if each in known), None)
    if ours is not None:
        ours = "steps" if key.lower() == "script" and isinstance(found, list) else ours
        return f": did you mean {ours!r}?"
    spelled = key.lower().replace("-", "_")
    if is_top and spelled in Stage.__struct_fields__:
        return ": it is a key of a stage, so put it into one of `stages`"
    if is_top and (of_lane := next((each for each in (spelled, *meant) if each in Lane.__struct_fields__), None)):
        return f": {of_lane!r} is a key of a lane, so put it into one of `lanes`"
    if "run" in known and spelled in Lane.__struct_fields__:
        return ": it is a key of a lane, so put it into one of `lanes`"
    if is_top and _is_stage_by_name(key, found):
        return f": put it under `stages`, as `- {{name: {format_key(key)}, run: ...}}`"
    if is_top and key.startswith("."):
        return _ANCHORS
    if (is_top or "run" in known) and key.lower() in _KEYS_WITHOUT_EQUIVALENT:
        return _KEYS_WITHOUT_EQUIVALENT[key.lower()]
    return suggest_name(key, known)


def _format_message(detail: ErrorDetails, document: Document, location: Location) -> str:
    kind, found, context = detail["type"], detail["input"], detail.get("ctx", {})
    shown = _format_found(found, location)
    if kind == "model_type" and context["class_name"] in _EXPECTED:
        message = f"expected {_EXPECTED[context['class_name']]}, found {shown}"
        message += _suggest_workers(found) if context["class_name"] == "Workers" else ""
    elif kind == "value_error":
        message = str(context["error"])
    elif kind in ("enum", "literal_error"):
        known = re.findall(r"'([^']*)'", str(context["expected"]))
        choices = " or ".join(known) if len(known) < 3 else "one of " + ", ".join(known)
        message = f"expected {choices}, found {shown}"
        near = suggest_name(found, known) if isinstance(found, str) else ""
        message += near if "did you mean" in near else ""
    elif kind in _KINDS:
        wanted = _EXPECTED_MAPPINGS.get(str(location[-1]) if location else "", _KINDS[kind])
        message = f"expected {wanted}, found {shown}"
    elif kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        message = (
            f"expected a number {words} {context[key]:{'g' if isinstance(context[key], float) else ''}}, found {shown}"
        )
    else:
        message = str(detail["msg"])
    message += _suggest_form(kind, found, location)
    return message + _explain_boolean(message, found, document.get_written(location))


def _suggest_form(kind: str, found: object, location: Location) -> str:
    """Return how to write a value that has another form than the expected one, or nothing."""
    key = location[-1] if location else None
    section = location[-2] if len(location) > 1 else None
    if isinstance(found, dict):
        if section == "steps":
            return ": write the command itself, without a key"
        if kind == "value_error" and (location[:1], location[2:-1]) == (("lanes",), ("stages",)):
            return ": name a stage here, and write it under the `stages` of the file"
        return _explain_entries(found, location) if kind == "tuple_type" else ""
    if key == "warn_at" and kind in ("float_type", "less_than_equal"):
        return ": it is a ratio of the limit, such as 0.8"
    if isinstance(found, str):
        return _NAMED_SHELL if key == "shell" else ": put it in [ ]" if kind == "tuple_type" else ""
    if found is None and section == "env":
        return ": write '' for an empty one"
    return ": put it under `stages:`" if isinstance(found, list) and not location else ""


def _suggest_workers(found: object) -> str:
    """Return the number of workers that `'4'`, `2-8` or `Auto` probably means, or nothing."""
    text = str(found).strip().lower()
    number = r"([1-9][0-9]{0,2}|1000)"
    likely = "auto" if text == "auto" else text if re.fullmatch(number, text) else None
    bounds = re.fullmatch(f"{number} ?- ?{number}", text)
    if bounds and int(bounds[1]) <= int(bounds[2]):
        likely = f"{{min: {bounds[1]}, max: {bounds[2]}}}"
    return f": did you mean {likely}?" if likely and isinstance(found, str) else ""


def _explain_entries(found: Mapping[str, object], location: Location) -> str:
    """Return how to write a mapping as the list that is expected."""
    if location != ("stages",) or "name" in found:
        return ": begin each entry with a dash"
    return f": write each as `- {{name: {next(map(format_key, found), 'lint')}, run: ...}}`"


def _format_found(found: object, location: Location) -> str:
    """Return a wrong value for a message, unless it is a text that may be a secret, such as a URL with a password.

    A file that is one text may be a token: a checkout can have a link to it as its config, or name it as web config.
    """
    is_login = isinstance(found, str) and "@" in found and "://" in found
    secret = is_login or (isinstance(found, str) and any(part in _SECRET_KEYS for part in location))
    return NOT_SHOWN if secret or (not location and isinstance(found, str | int | float)) else format_value(found)


def _explain_boolean(message: str, found: object, written: str | None) -> str:
    """Explain `yes`, which YAML 1.1 reads as a boolean, and `true` instead of a text."""
    if not isinstance(found, bool) or written is None or written.lower() in ("true", "false"):
        return ": quote it if you mean the word" if message.startswith("expected a string, found the boolean") else ""
    return f" (YAML reads `{written}` as a boolean: quote it if you mean the word)"


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
    if getattr(annotation, "__origin__", None) in (tuple, dict, Mapping) or isinstance(annotation, type):
        return [annotation]
    return [inner for choice in get_args(annotation) for inner in _list_choices(choice)] or [annotation]
