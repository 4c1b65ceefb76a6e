"""Interrupts (Ctrl-C) and signal handlers at each line of a pool's code."""

from __future__ import annotations

import contextlib
import gc
import inspect
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from dis import opmap
from linecache import getline
from pathlib import Path
from typing import Any

from support.pool_tasks import HANG_SECONDS

_PYTHON = sys.version_info[:2]


def interrupted_at(line: int, call: Callable[[], Any], package: types.ModuleType) -> bool:
    """Make a call and raise KeyboardInterrupt at line number `line` of a package's code; False if it has fewer."""
    passed, folder = 0, str(Path(package.__file__ or "").parent)

    def trace(frame: types.FrameType, event: str, _: object) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.startswith(folder) or frame.f_code.co_name == "_recover":
            return None
        # Between a block's end and its lock's release comes no signal, but there comes a line. So it is with the jump
        # back of a comprehension in Python 3.12: its block's handlers do not cover it, and a signal waits for its end.
        is_jump = _PYTHON == (3, 12) and frame.f_code.co_code[frame.f_lasti] == opmap["FOR_ITER"]
        is_release = getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
        counts = event == "line" and not is_jump and not is_release
        passed += counts
        if counts and passed == line:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    gc.disable()  # the finalizer of an earlier pool runs the package's code too
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
        gc.enable()
    return False


@contextlib.contextmanager
def act_before(function: Callable[..., Any], line: str, act: Callable[[], object]) -> Iterator[None]:
    """Call `act` in this thread once, before it executes a line of a function."""
    source, first = inspect.getsourcelines(function)
    number = first + next(place for place, text in enumerate(source) if text.strip() == line)
    acts = [act]

    def trace(frame: types.FrameType, event: str, _: object) -> Any:
        if frame.f_code is not function.__code__:
            return None
        if acts and event == "line" and frame.f_lineno == number:
            acts.pop()()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def interrupt_locking(call: Callable[[], Any]) -> None:
    """Make a call and raise KeyboardInterrupt once it has locked a condition by `with`, at the end of `__enter__`."""

    def trace(frame: types.FrameType, event: str, _: object) -> Any:
        if frame.f_code is threading.Condition.__enter__.__code__ and event == "return":
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(KeyboardInterrupt, TimeoutError):
            call()
    finally:
        sys.settrace(before)


def shuts_down(pool: Executor) -> bool:
    """Shut a pool down from another thread, and return whether that ends."""
    again = threading.Thread(target=pool.shutdown, daemon=True)
    again.start()
    again.join(HANG_SECONDS)
    return not again.is_alive()
