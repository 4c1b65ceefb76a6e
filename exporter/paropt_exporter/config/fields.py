"""The types of a config's values: each parses a plain YAML value and describes itself in the JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StrictInt,
    Tag,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

from paropt_exporter.config import units
from paropt_exporter.config.server_urls import names_server
from paropt_exporter.config.units import LONGEST_NAME, NAME_PATTERN, NOT_SHOWN, format_value
from paropt_exporter.config.values import AUTO_INPUTS, Sla
from paropt_exporter.input_files import find_pattern_fault

CALL_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
ADDRESS_PATTERN = r"^([^\s:/\[\]]*|\[[0-9a-fA-F:.%\w]+\]):[0-9]{1,5}$"
URL_PATTERN = r"^https?://[^\s/]+\S*$"
SCHEDULER_PATTERN = r"^(tcp|tls)://([^\s:/\[\]]+|\[[0-9a-fA-F:.%\w]+\]):[0-9]{1,5}$"
URL_PATH_PATTERN = r"^/(?!-/(healthy|ready)$)[\w./~-]*$"  # the endpoint has other pages at these paths
HEADER_PATTERN = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
HEADER_VALUE_PATTERN = r"^([!-~]([ -~]*[!-~])?)?$"

_LAST_PORT = 65535

_Section = TypeVar("_Section")
_NAME = re.compile(NAME_PATTERN)
_CALL = re.compile(CALL_PATTERN)
_ADDRESS = re.compile(ADDRESS_PATTERN)
_URL = re.compile(URL_PATTERN)
_SCHEDULER = re.compile(SCHEDULER_PATTERN)
_URL_PATH = re.compile(URL_PATH_PATTERN, re.ASCII)
_HEADER = re.compile(HEADER_PATTERN)
_HEADER_VALUE = re.compile(HEADER_VALUE_PATTERN)
# Tags of a union's branches. Pydantic adds them to the locations of errors; no key contains angle brackets.
_TEXT, _LIST = "<text>", "<list>"
_ONE, _BY_NAME = "<limit>", "<limits>"


def _parse_name(value: object) -> str:
    text = _parse_word(value)
    if len(text) > LONGEST_NAME:
        raise ValueError(f"a name has at most {LONGEST_NAME} characters, this one has {len(text)}")
    if not _NAME.fullmatch(text) or not text.isprintable():
        raise ValueError(
            f"{format_value(text)} is not a name: printable characters without quotes, backslashes and line breaks, "
            "not beginning with a dash or slash"
        )
    return text


def _parse_word(value: object) -> str:
    """Return a word as written: `[sleep, 5]` means "5". Rejects `yes`, which YAML reads as a boolean."""
    written = getattr(value, "text", value)
    if isinstance(value, bool) or not isinstance(written, str):
        # YAML reads a plain {item} as a mapping of a key to nothing.
        is_placeholder = isinstance(value, dict) and [*value.values()] == [None]
        remedy = ": put a text that begins with { in quotes" if is_placeholder else ""
        raise ValueError(f"expected a string, found {format_value(value)}{remedy}")
    if "\0" in written:
        raise ValueError("a NUL character is not allowed here")
    return written


def _parse_text(value: object) -> str:
    text = _parse_word(value)
    if not text.strip():
        raise ValueError("expected some text, found an empty string")
    return text


def _parse_call(value: object) -> str:
    text = _parse_word(value)
    if not _CALL.fullmatch(text):
        module, dot, function = text.rpartition(".")
        likely = f"{module}:{function}"
        hint = f": did you mean {likely!r}?" if dot and _CALL.fullmatch(likely) else ""
        raise ValueError(f"expected module:function, found {format_value(text)}{hint}")
    return text


def _parse_query(value: object) -> str:
    text = _parse_text(value)
    fault = find_query_fault(text)
    if fault is not None:
        raise ValueError(f"invalid PromQL: {fault}")
    return text


def _parse_address(value: object) -> str:
    text = _parse_word(value)
    expected = f"expected host:port, :port or [ipv6]:port, found {format_value(text)}"
    port = text.rpartition(":")[2]
    if re.fullmatch("[0-9]{1,9}", port) and int(port) > _LAST_PORT:
        raise ValueError(f"{expected}: a port is at most {_LAST_PORT}")
    if not _ADDRESS.fullmatch(text):
        is_port = re.fullmatch("[0-9]{1,5}", text) is not None
        raise ValueError(expected + (f': did you mean "127.0.0.1:{text}"?' if is_port else ""))
    return text


def _parse_url(value: object) -> str:
    text = _parse_word(value)
    if not _URL.fullmatch(text) or not names_server(text):
        found = NOT_SHOWN if any(mark in text for mark in "@?#") else format_value(text)
        raise ValueError(f"expected a URL like http://127.0.0.1:9090, found {found}")
    return text


def _parse_scheduler(value: object) -> str:
    text = _parse_word(value)
    if not _SCHEDULER.fullmatch(text) or int(text.rpartition(":")[2]) > _LAST_PORT:
        found = NOT_SHOWN if "@" in text else format_value(text)
        raise ValueError(f"expected tcp://host:port or tls://host:port, found {found}")
    return text


def _parse_url_path(value: object) -> str:
    text = _parse_word(value)
    if not _URL_PATH.fullmatch(text):
        raise ValueError(
            f"expected a path like /metrics, other than /-/healthy and /-/ready, found {format_value(text)}"
        )
    return text


def _parse_header(value: object) -> str:
    text = _parse_word(value)
    if not _HEADER.fullmatch(text):
        raise ValueError(f"expected the name of a header like X-Scope-OrgID, found {NOT_SHOWN}")
    return text


def _parse_header_value(value: object) -> str:
    text = _parse_word(value)
    if not _HEADER_VALUE.fullmatch(text):
        raise ValueError(f"expected one line of ASCII text without spaces around it, found {NOT_SHOWN}")
    return text


def _wrap_single(value: object) -> object:
    return [value] if isinstance(value, str | int) else value


def _parse_variable(value: object) -> str:
    text = _parse_word(value)
    if not text or "=" in text:
        raise ValueError(f"expected the name of an environment variable, found {NOT_SHOWN}")
    return text


def _parse_environment_pattern(value: object) -> str:
    text = _parse_variable(value)
    if not re.fullmatch(r"[A-Za-z_*?][A-Za-z0-9_*?]*", text):
        raise ValueError(f"{format_value(text)} is neither the name of an environment variable nor a glob like AWS_*")
    return text


def _parse_input_pattern(value: object) -> str:
    text = _parse_text(value)
    if fault := find_pattern_fault(text):
        raise ValueError(f"{format_value(text)}: {fault}")
    return text


def _parse_output_pattern(value: object) -> str:
    text = _parse_input_pattern(value)
    parts = text.removeprefix("!").split("/")
    if ".." in parts:
        raise ValueError(f"{format_value(text)}: an output must be in the stage's folder: leave out '..'")
    if not any(part not in ("", ".") for part in parts):
        raise ValueError(
            f"{format_value(text)}: a stage's whole folder can't be its output: name files or folders in it"
        )
    return text


def _parse_date(value: object) -> str:
    text = _parse_word(value)
    try:
        if len(text) == len("2026-12-24"):
            return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    raise ValueError(f"expected a date like 2026-12-24, found {format_value(text)}")


def _parse_file_item(value: object) -> str:
    text = _parse_text(value)
    if "::" in text:
        raise ValueError(f"{format_value(text)}: a quarantine is for a whole file: leave out '::' and what follows")
    return text


def _parse_cache(value: object) -> str:
    if isinstance(value, bool):
        return "always" if value else "never"
    if value not in ("auto", "never"):
        raise ValueError(f"expected true, never or auto, found {format_value(value)}")
    return str(value)


def _parse_inputs(value: object) -> object:
    if isinstance(value, str) and value != AUTO_INPUTS:
        raise ValueError(f"expected a list or {AUTO_INPUTS}, found {format_value(value)}: put it in [ ]")
    return [value] if value == AUTO_INPUTS else value


def _choose_branch(value: object) -> str:
    return _LIST if isinstance(value, list | tuple) else _TEXT


def _choose_limits_branch(value: object) -> str:
    return _BY_NAME if isinstance(value, dict) and value and not value.keys() & {*Sla.__struct_fields__} else _ONE


class _AnyOf:
    """Let editors accept a value that fits several branches, such as `{max: 30s}` with a stage `max`."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        return {"anyOf": schema["oneOf"]}


def _build_schema(**keys: Any) -> WithJsonSchema:
    return WithJsonSchema(keys)


_DURATION_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string", "pattern": units.DURATION_PATTERN}, {"type": "number", "minimum": 0}],
}

Boolean = StrictBool
Count = Annotated[StrictInt, Field(ge=1, le=units.MOST_WORKERS)]
RequestCount = Annotated[StrictInt, Field(ge=0, le=units.MOST_REQUESTS)]
RetryCount = Annotated[StrictInt, Field(ge=0, le=100)]
RunCount = Annotated[StrictInt, Field(ge=1)]
StageNumber = Annotated[StrictInt, Field(ge=0, le=1_000_000)]
PositiveNumber = Annotated[float, Field(gt=0, strict=True)]
Ratio = Annotated[float, Field(gt=0, le=1, strict=True)]
Name = Annotated[str, BeforeValidator(_parse_name), _build_schema(type="string", pattern=NAME_PATTERN)]
Word = Annotated[str, BeforeValidator(_parse_word), _build_schema(type=["string", "number"])]
Text = Annotated[str, BeforeValidator(_parse_text), _build_schema(type="string", pattern=r"\S")]
Query = Annotated[str, BeforeValidator(_parse_query), _build_schema(type="string", minLength=1)]
Variable = Annotated[str, BeforeValidator(_parse_variable), _build_schema(type="string", pattern="^[^=]+$")]
EnvironmentPattern = Annotated[
    str,
    BeforeValidator(_parse_environment_pattern),
    _build_schema(type="string", pattern="^[A-Za-z_*?][A-Za-z0-9_*?]*$"),
]
Date = Annotated[str, BeforeValidator(_parse_date), _build_schema(type="string", format="date")]
FileItem = Annotated[str, BeforeValidator(_parse_file_item), _build_schema(type="string", minLength=1)]
InputPattern = Annotated[str, BeforeValidator(_parse_input_pattern), _build_schema(type="string", minLength=1)]
OutputPattern = Annotated[str, BeforeValidator(_parse_output_pattern), _build_schema(type="string", minLength=1)]
Duration = Annotated[float, BeforeValidator(units.parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
DurationOrZero = Annotated[
    float, BeforeValidator(partial(units.parse_duration, zero=True)), WithJsonSchema(_DURATION_SCHEMA)
]
Size = Annotated[
    int,
    BeforeValidator(units.parse_size),
    _build_schema(anyOf=[{"type": "string", "pattern": units.SIZE_PATTERN}, {"type": "integer", "minimum": 1}]),
]
CallTarget = Annotated[str, BeforeValidator(_parse_call), _build_schema(type="string", pattern=CALL_PATTERN)]
Address = Annotated[str, BeforeValidator(_parse_address), _build_schema(type="string", pattern=ADDRESS_PATTERN)]
Url = Annotated[str, BeforeValidator(_parse_url), _build_schema(type="string", pattern=URL_PATTERN)]
Scheduler = Annotated[str, BeforeValidator(_parse_scheduler), _build_schema(type="string", pattern=SCHEDULER_PATTERN)]
UrlPath = Annotated[str, BeforeValidator(_parse_url_path), _build_schema(type="string", pattern=URL_PATH_PATTERN)]
_Header = Annotated[str, BeforeValidator(_parse_header), _build_schema(type="string", pattern=HEADER_PATTERN)]
_HeaderValue = Annotated[
    str, BeforeValidator(_parse_header_value), _build_schema(type=["string", "number"], pattern=HEADER_VALUE_PATTERN)
]
Headers = Mapping[_Header, _HeaderValue]
HeaderFiles = Mapping[_Header, Text]
Addresses = Annotated[
    tuple[Address, ...],
    BeforeValidator(_wrap_single),
    _build_schema(
        anyOf=[
            {"type": "string", "pattern": ADDRESS_PATTERN},
            {"type": "array", "items": {"type": "string", "pattern": ADDRESS_PATTERN}},
        ]
    ),
]
# A command line or a list of words.
Command = Annotated[
    Annotated[Text, Tag(_TEXT)] | Annotated[tuple[Word, ...], Tag(_LIST)],
    Discriminator(_choose_branch),
]
Steps = Annotated[tuple[Command, ...], Field(json_schema_extra={"minItems": 1})]
# `true` is "always" here, and `false` means `never`.
Cache = Annotated[
    Literal["auto", "always", "never"],
    BeforeValidator(_parse_cache),
    WithJsonSchema({"enum": [True, False, "auto", "never"]}),
]
Inputs = Annotated[
    tuple[InputPattern, ...],
    BeforeValidator(_parse_inputs),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": AUTO_INPUTS},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ]
        }
    ),
]
StageSelection = Annotated[tuple[Word, ...], Field(json_schema_extra={"minItems": 1})]
StageList = Annotated[tuple[_Section, ...], Field(json_schema_extra={"minItems": 1, "maxItems": units.MOST_STAGES})]
# A section, or sections by the names of stages.
OneOrByName = Annotated[
    Annotated[_Section, Tag(_ONE)] | Annotated[Mapping[Name, _Section], Tag(_BY_NAME)],
    Discriminator(_choose_limits_branch),
    _AnyOf(),
]


_CLOSING = {"(": ")", "[": "]", "{": "}"}
_TOKEN = re.compile(
    r'"(?:[^"\\\n]|\\.)*"'  # strings, with escapes ...
    r"|'(?:[^'\\\n]|\\.)*'"
    r"|`[^`]*`"  # ... and raw
    r"|\#[^\n]*"  # a comment, up to the line's end
    r"|(?P<quote>[\"'`])|(?P<opened>[(\[{])|(?P<closed>[)\]}])"
)


def find_query_fault(query: str) -> str | None:
    """Return the fault in a PromQL query's brackets and quotes, or None. The server checks its grammar."""
    expected: list[str] = []
    for token in _TOKEN.finditer(query):
        if token["quote"]:
            return f"the quote {token['quote']} is not closed"
        if token["opened"]:
            expected.append(_CLOSING[token["opened"]])
        elif token["closed"] and (not expected or expected.pop() != token["closed"]):
            return f"{token['closed']} closes nothing"
    return f"{expected[-1]} is missing" if expected else None
