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


EXIT_VARIABLE = "PAROPT_TEST_EXIT"


class ExitsWhereLoaded:
    """A value that ends the process which loads it, if that has a variable."""

    def __reduce__(self) -> tuple[object, ...]:
        return _load_or_exit, ()


def return_exit() -> ExitsWhereLoaded:
    return ExitsWhereLoaded()


def _load_or_exit() -> ExitsWhereLoaded:
    if os.environ.get(EXIT_VARIABLE):
        raise SystemExit("the class of a result exits")
    return ExitsWhereLoaded()
