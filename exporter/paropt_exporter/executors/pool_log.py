"""The pools' logger, which never raises, since the code that logs also settles tasks and keeps workers alive."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import MutableMapping
from typing import Any

_CALLER = 2  # frames from the logger to the caller: `log` below is the first


class PoolLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that drops a record for which a handler or filter of the program raises an exception."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs  # the base class would replace `extra`

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        with contextlib.suppress(Exception):
            self.logger.log(level, msg, *args, stacklevel=_CALLER, **kwargs)
