"""The code of a ProcessPool's fork server and worker processes, which import this package and little more.

Here are the names that the fork server shares with its parent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CONTROL = 3  # the fork server's descriptor of its control socket
# Messages on it. SPAWN: fork a worker with these descriptors. END: end a worker. ABORT: end one whose process id the
# parent does not know yet, by the number of its spawn. BYE: the parent needs no more workers.
SPAWN, END, ABORT, BYE = "spawn", "end", "abort", "bye"


def run_chunk(function: Callable[..., Any], chunk: tuple[tuple[Any, ...], ...]) -> list[Any]:
    """Return the function's results for a chunk of a map, a tuple of argument tuples."""
    return [function(*arguments) for arguments in chunk]
