"""JSON by the standard library's C functions only, for the files and log lines of a run.

The package `json` with its decoder would take a millisecond of a run's start, and a later import of it may fail: a log
line may say that there are no descriptors left.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    def encode_basestring(text: str) -> str:
        """Return a text as JSON, with its characters outside ASCII as they are."""

    def encode_basestring_ascii(text: str) -> str:
        """Return a text as JSON in ASCII."""

    def dumps(
        value: object, *, separators: tuple[str, str] = (", ", ": "), default: Callable[[object], object] = ...
    ) -> str:
        """Return a value as one line of JSON in ASCII, as `json.dumps` does. Raises TypeError for other types."""

    def loads(text: str | bytes) -> Any:
        """Return the value of a JSON text without surrounding space. Raises ValueError for anything else."""

else:
    try:
        from _json import encode_basestring as encode_basestring  # noqa: PLC0414 -- for others
        from _json import encode_basestring_ascii, make_encoder, make_scanner
    except ImportError:  # an interpreter without these functions
        from json import dumps, loads
        from json.encoder import encode_basestring as encode_basestring  # noqa: PLC0414 -- for others
        from json.encoder import encode_basestring_ascii
    else:

        class _Settings:
            """The defaults of `json.JSONDecoder`."""

            strict = True
            object_hook = object_pairs_hook = None
            array_hook = None  # from Python 3.15 on
            parse_float, parse_int, parse_constant = float, int, float
            memo = {}  # noqa: RUF012 -- the scanner's own

        def _refuse(value):
            raise TypeError(f"{type(value).__name__} is not a value of JSON")

        _scan = make_scanner(_Settings)

        def dumps(value, *, separators=(", ", ": "), default=_refuse):
            """Return a value as one line of JSON in ASCII, as `json.dumps` does. Raises TypeError for other types."""
            item, key = separators
            encode = make_encoder({}, default, encode_basestring_ascii, None, key, item, False, False, True)
            return "".join(encode(value, 0))

        def loads(text):
            """Return the value of a JSON text without surrounding space. Raises ValueError for anything else."""
            if not isinstance(text, str):
                text = text.decode()
            try:
                value, end = _scan(text, 0)
            except StopIteration as error:
                raise ValueError(f"no value at character {error.value} of a JSON text") from None
            if end != len(text):
                raise ValueError(f"more than one value, from character {end} of a JSON text on")
            return value
