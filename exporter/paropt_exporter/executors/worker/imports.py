"""Reports the modules that workers import to the fork server, which imports them for the next workers.

Only modules of the standard library and cloudpickle count: they are the same for all workers and start nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterable

_STANDARD = sys.stdlib_module_names - {"antigravity", "this"}  # which act on import
_STANDARD_FOLDER = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 -- Path is not worth its import here
_OURS = "cloudpickle"
ATOMIC_BYTES = 4096  # PIPE_BUF: up to this size a pipe takes a write as a whole or not at all


class Imports:
    """The fork server's side. `pending`: modules that workers imported and the fork server has not."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        for descriptor in (self._reading, self.writing):
            os.set_blocking(descriptor, False)
        self.pending: list[str] = []
        self._seen: set[str] = set()

    def fileno(self) -> int:
        return self._reading

    def read_names(self) -> None:
        """Read the names that workers have sent. Does not block."""
        with contextlib.suppress(BlockingIOError):
            names = os.read(self._reading, 1 << 16).decode(errors="replace").split()
            self.pending += [name for name in dict.fromkeys(names) if name not in self._seen]
            self._seen.update(names)

    def import_next(self) -> bool:
        """Import one pending module; return whether it was the last. A failed import is left to the next worker."""
        name = self.pending.pop(0)
        root = name.partition(".")[0]
        if name not in sys.modules and (root in _STANDARD or root == _OURS):
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the worker has shown them already
                importlib.import_module(name)
        return not self.pending


def send_names(descriptor: int, names: Iterable[str]) -> None:
    """Send the fork server the names of modules that a worker imported, if the fork server may import them too."""
    text = " ".join(name for name in names if _is_standard(name)) + "\n"
    with contextlib.suppress(OSError):  # the pipe is full, or a task closed it
        os.write(descriptor, text.encode()[:ATOMIC_BYTES])


def _is_standard(name: str) -> bool:
    root = name.partition(".")[0]
    if root == _OURS:
        return True
    origin = getattr(getattr(sys.modules.get(name), "__spec__", None), "origin", None) or ""
    return root in _STANDARD and (origin in ("built-in", "frozen") or origin.startswith(_STANDARD_FOLDER))
