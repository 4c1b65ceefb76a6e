"""Logging on stderr, as logfmt or JSON, with `extra` fields as keys."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from paropt_exporter import plain_json
from paropt_exporter.terminal import visible

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
LEVELS = ("debug", "info", "warn", "error")  # exporter-toolkit's names


def configure(level: str, style: str) -> None:
    """Send this package's logs to stderr; `level` is one of LEVELS, `style` is "logfmt" or "json"."""
    root = logging.getLogger("paropt_exporter")
    stream = _Stderr()
    stream.setFormatter(_JsonFormatter() if style == "json" else _LogfmtFormatter())
    root.handlers[:] = [stream]
    root.setLevel({"warn": "WARNING"}.get(level, level.upper()))
    root.propagate = False


def set_writer(write: Callable[[str], None] | None) -> None:
    """Pass log lines to `write`, which must not wait for a reader; None: write them to stderr again."""
    for handler in logging.getLogger("paropt_exporter").handlers:
        if isinstance(handler, _Stderr):
            handler.write = write


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`: a live table replaces it, and prints log lines above itself."""

    write: Callable[[str], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.write is not None:
            self.write(self.format(record))
            return
        self.stream = sys.stderr
        super().emit(record)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    seconds, milliseconds = divmod(int(record.created * 1000), 1000)
    fields: dict[str, object] = {
        "ts": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}Z",
        "level": {"WARNING": "warn", "CRITICAL": "error"}.get(record.levelname, record.levelname.lower()),
        "msg": record.getMessage(),
    }
    fields.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
    if record.exc_info and record.exc_info[0] is not None:
        if logging.getLogger("paropt_exporter").isEnabledFor(logging.DEBUG):
            import traceback

            fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        fields["err"] = f"{record.exc_info[0].__name__}: {record.exc_info[1]}"
    return fields


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain_json.dumps(_fields(record), default=str)


class _LogfmtFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_quote(str(value))}" for key, value in _fields(record).items())


def _quote(text: str) -> str:
    plain = text and text.isprintable() and not any(character in text for character in ' "=')
    return text if plain else visible(plain_json.encode_basestring(text))
