"""Pydantic models of the sections in `values`, which validate a file and report its faults.

They are built from the sections. This module adds the single values that may stand for a section, such as `retries: 2`,
and the rules between the keys of one section.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar, get_type_hints

from msgspec import NODEFAULT, Struct
from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, create_model, model_validator
from pydantic_core import CoreSchema

from paropt_exporter.config import fields, values
from paropt_exporter.config.units import DURATION_PATTERN, MOST_WORKERS
from paropt_exporter.events import Strategy

_Record = TypeVar("_Record", bound=Struct)

_DURATION_TEXT = {"type": "string", "pattern": DURATION_PATTERN}
_SECONDS = {"type": "number", "exclusiveMinimum": 0}


class Section(BaseModel):
    """A mapping of the file, immutable. Unknown keys are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)
    record: ClassVar[type[Struct]]  # the class in `values`

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        shorthand = SHORTHANDS.get(cls.__name__)
        return schema if shorthand is None else {"anyOf": [*shorthand.schemas, schema]}


class Shorthand(Struct, frozen=True, kw_only=True):
    """How a single value may stand for a section.

    `expected`: all values that the section accepts, for an error message. `schemas`: the JSON Schemas of the single
    values. `expand` returns the mapping that a single value stands for, and any other value unchanged.
    """

    expected: str
    schemas: tuple[Mapping[str, object], ...]
    expand: Callable[[object], object]


def _expand_workers(value: object) -> object:
    if value == "auto":
        return {}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"min": value, "max": value, "start": value}
    return value


def _expand_sla(value: object) -> object:
    return {"max": value} if isinstance(value, str | int | float) else value


def _expand_retries(value: object) -> object:
    return {"count": value} if isinstance(value, int | float) else value


def _expand_keep(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"runs": value}
    return {"age": value} if isinstance(value, str) else value


def _expand_logs(value: object) -> object:
    return {"enabled": value} if isinstance(value, bool) else value


SHORTHANDS: Mapping[str, Shorthand] = {
    "Workers": Shorthand(
        expected="auto, a number of workers, or a mapping of min, max and start",
        schemas=({"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MOST_WORKERS}),
        expand=_expand_workers,
    ),
    "Sla": Shorthand(
        expected="a duration, or a mapping of max, warn_at and critical",
        schemas=(_DURATION_TEXT, _SECONDS),
        expand=_expand_sla,
    ),
    "Retries": Shorthand(
        expected="a number of retries, or a mapping of count, flaky and backoff",
        schemas=({"type": "integer", "minimum": 0, "maximum": 100},),
        expand=_expand_retries,
    ),
    "Keep": Shorthand(
        expected="a number of runs, a duration, or a mapping of runs, age and size",
        schemas=({"type": "integer", "minimum": 1}, _DURATION_TEXT),
        expand=_expand_keep,
    ),
    "Logs": Shorthand(
        expected="true, false, or a mapping of run, total and age",
        schemas=({"type": "boolean"},),
        expand=_expand_logs,
    ),
}


def _check_workers(workers: values.Workers) -> None:
    given = [number for number in (workers.min, workers.start, workers.max) if number is not None]
    if given != sorted(given):
        raise ValueError(f"expected min <= start <= max, found {', '.join(map(str, given))}")


def _check_logs(logs: values.Logs) -> None:
    if logs.run > logs.total:
        raise ValueError("run must not be larger than total")


def _check_permission(permission: values.Permission) -> None:
    if permission.url is None and permission.repository is None:
        raise ValueError("give url, repository or both: without them every paropt.yml could send any file anywhere")


# Called with the values of a section whose keys are valid.
_RULES: Mapping[str, Callable[[Any], None]] = {
    "Workers": _check_workers,
    "Logs": _check_logs,
    "Permission": _check_permission,
}


def _build_models() -> dict[str, type[Section]]:
    """Return the model of each section by name. Sections stand below those that they contain."""
    models: dict[str, type[Section]] = {}
    for name, record in vars(values).items():
        if isinstance(record, type) and issubclass(record, Struct) and record is not Struct:
            models[name] = _build_model(record, models)
    return models


def _build_model(record: type[Struct], models: Mapping[str, type[Section]]) -> type[Section]:
    names = {**vars(fields), "Literal": Literal, "Mapping": Mapping, "Strategy": Strategy, **models}
    types = get_type_hints(record, names, include_extras=True)
    # Inherited keys come last: messages and the schema list them in this order.
    defaults = sorted(_iter_defaults(record), key=lambda each: each[0] not in record.__annotations__)
    keys: dict[str, Any] = {key: (types[key], default) for key, default in defaults}
    model = create_model(
        record.__name__, __base__=Section, __doc__=record.__doc__, __validators__=_list_validators(record), **keys
    )
    model.record = record
    return model


def _iter_defaults(record: type[Struct]) -> Iterator[tuple[str, object]]:
    """Yield the keys of a section with their defaults as pydantic has them: `...` for a required key."""
    keys, defaults = record.__struct_fields__, record.__struct_defaults__
    for key, default in zip(keys, (NODEFAULT,) * (len(keys) - len(defaults)) + defaults, strict=True):
        if default is NODEFAULT:
            yield key, ...
        elif default is None or isinstance(default, str | int | float | tuple):
            yield key, default
        else:
            yield key, Field(default_factory=dict)  # a section or a mapping, whose default the schema does not show


def _list_validators(record: type[Struct]) -> dict[str, Any]:
    validators: dict[str, Any] = {}
    if (shorthand := SHORTHANDS.get(record.__name__)) is not None:
        validators["expand"] = model_validator(mode="before")(shorthand.expand)
    if (rule := _RULES.get(record.__name__)) is not None:

        def check(section: Section) -> Section:
            rule(to_record(section))
            return section

        validators["check"] = model_validator(mode="after")(check)
    return validators


_MODELS = _build_models()
File, HostFile, Stage = _MODELS["File"], _MODELS["HostFile"], _MODELS["Stage"]


def parse_section(record: type[_Record], value: object) -> _Record:
    """Return the values of a section, as its class in `values`. Raises ValidationError, a ValueError."""
    parsed: _Record = to_record(_MODELS[record.__name__].model_validate(value))
    return parsed


def to_record(section: Section) -> Any:
    """Return the values of a section, as its class in `values`. Keys that the file does not give have the defaults."""
    return section.record(**convert_fields(section))


def convert_fields(section: Section) -> dict[str, Any]:
    """Return the values of the keys that the file gives in a section, by key."""
    return {key: _convert(getattr(section, key)) for key in sorted(section.model_fields_set)}


def _convert(value: object) -> object:
    if isinstance(value, Section):
        return to_record(value)
    if isinstance(value, tuple):
        return tuple(_convert(each) for each in value)
    if isinstance(value, dict):
        return MappingProxyType({name: _convert(each) for name, each in value.items()})
    return value
