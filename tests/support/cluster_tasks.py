"""Functions that tests run on the workers of a cluster."""

from __future__ import annotations

import os
import signal
from typing import Any


def kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class NoPickle:
    def __reduce__(self) -> Any:
        raise TypeError("this one stays here")


def return_no_pickle() -> Any:
    return NoPickle()


def raise_no_pickle() -> None:
    error = ValueError("bad value")
    error.held = NoPickle()  # type: ignore[attr-defined]
    raise error
