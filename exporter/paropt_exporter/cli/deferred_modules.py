"""Load modules of the standard library that other ones import, but that a usual run never uses, when they are used.

`logging` needs `textwrap` and `tokenize` only to show a traceback, `urllib.parse` needs `ipaddress` only for a host in
brackets, `uuid` needs `platform` only for one word. Together they take 5 of the 75 ms of CPU time of all imports. A
lane with Python calls loads them before its first call (`app/late_imports.py`).
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False  # typing's own would be loaded for every command
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_DEFERRED: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "ipaddress": {},
    "platform": {"system": lambda: os.uname().sysname},  # uuid calls it at once
    "selectors": {},
    "textwrap": {},
    "tokenize": {},
}


class _StandIn(ModuleType):
    """Stands for a module in those that import it, until one of them reads an attribute."""

    def __getattr__(self, name: str) -> object:
        _remove(self)
        module = import_module(self.__name__)
        self.__dict__.update(module.__dict__)
        return getattr(module, name)


@contextmanager
def defer_modules() -> Iterator[None]:
    """Let the modules that are imported meanwhile have stand-ins; an import after that gets the module itself."""
    stand_ins = []
    for name, attributes in _DEFERRED.items():
        if name not in sys.modules:
            stand_in = sys.modules[name] = _StandIn(name)
            stand_in.__dict__.update(attributes)
            stand_ins.append(stand_in)
    try:
        yield
    finally:
        for stand_in in stand_ins:
            _remove(stand_in)


def _remove(stand_in: _StandIn) -> None:
    if sys.modules.get(stand_in.__name__) is stand_in:
        del sys.modules[stand_in.__name__]
