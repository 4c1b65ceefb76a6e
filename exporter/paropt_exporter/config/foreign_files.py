"""Parse the TOML and INI files of other tools, in bounded time."""

from __future__ import annotations

import configparser
import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_MOST_DOTS = 500  # in a line; tomllib takes minutes for a key of 100,000 parts
_MOST_DEFAULTS = 100_000  # of all sections together: each has those of [DEFAULT]
_LONG_BLANK = re.compile(r"[^\S\n]{100,}")  # configparser takes quadratic time for long blanks


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises ValueError or RecursionError if it can't be parsed."""
    if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
        raise ValueError("a key has too many parts")
    return tomllib.loads(text)


@lru_cache(maxsize=4)  # each tool looks for its settings in the same tox.ini and setup.cfg
def parse_ini(text: str) -> Mapping[str, dict[str, str]]:
    """Return the sections of an INI file. Raises configparser.Error if it can't be parsed."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(_LONG_BLANK.sub(" ", text))
    except AttributeError:  # before Python 3.13
        raise configparser.Error("a line continues a key that has no value") from None
    if len(parser.defaults()) * len(parser.sections()) > _MOST_DEFAULTS:
        raise configparser.Error("[DEFAULT] has too many keys for so many sections")
    return {name: {key: value or "" for key, value in parser[name].items()} for name in parser.sections()}


def describe_error(error: Exception) -> str:
    """Return the error's first line, short enough for a comment."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
