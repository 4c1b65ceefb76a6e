"""A thread that removes a variable of the environment at the worst moment."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

NAME = "PAROPT_TEST"


@contextmanager
def removed_while_copied(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove a variable after a copy of the environment has listed it, in this thread and in those that start."""
    monkeypatch.setenv(NAME, "1")

    def remove(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "__getitem__" and frame.f_locals.get("key") == NAME:
            os.environ.pop(NAME, None)

    threading.setprofile(remove)
    sys.setprofile(remove)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert NAME not in os.environ
