"""What workers had to import before their tasks could run, for the fork server to have it ready for the next worker.

Only what is the same for everyone and starts nothing goes this way: the standard library, and cloudpickle.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterable

_STANDARD = sys.stdlib_module_names - {"antigravity", "this"}  # whose import is what they are for
_STANDARD_FOLDER = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 -- Path is not worth its import here
_OURS = "cloudpickle"
_ATOMIC_BYTES = 4096  # up to this size a write to a pipe is whole or refused (PIPE_BUF)


class Imports:
    """The fork server's end. `pending`: names of modules that workers imported and that are not here yet."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        for descriptor in (self._reading, self.writing):
            os.set_blocking(descriptor, False)
        self.pending: list[str] = []
        self._seen: set[str] = set()

    def fileno(self) -> int:
        return self._reading

    def read_names(self) -> None:
        """Note what workers say. Does not block."""
        with contextlib.suppress(BlockingIOError):
            names = os.read(self._reading, 1 << 16).decode(errors="replace").split()
            self.pending += [name for name in dict.fromkeys(names) if name not in self._seen]
            self._seen.update(names)

    def import_next(self) -> bool:
        """Import one of those wanted; True when it was the last. An import that fails is the next worker's to try."""
        name = self.pending.pop(0)
        root = name.partition(".")[0]
        if name not in sys.modules and (root in _STANDARD or root == _OURS):
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the worker has shown them
                importlib.import_module(name)
        return not self.pending


def send_names(descriptor: int, names: Iterable[str]) -> None:
    """Tell the fork server which modules a worker had to import, as far as the fork server may import them too."""
    text = " ".join(name for name in names if _is_standard(name)) + "\n"
    with contextlib.suppress(OSError):  # full, or closed by a task: the next worker imports them itself
        os.write(descriptor, text.encode()[:_ATOMIC_BYTES])


def _is_standard(name: str) -> bool:
    root = name.partition(".")[0]
    if root == _OURS:
        return True
    origin = getattr(getattr(sys.modules.get(name), "__spec__", None), "origin", None) or ""
    return root in _STANDARD and (origin in ("built-in", "frozen") or origin.startswith(_STANDARD_FOLDER))
