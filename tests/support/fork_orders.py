"""What a test asks of the process that forks Dask's processes; a module of its own, since that one imports Dask."""

from __future__ import annotations

import msgspec


class ForkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A process to fork. With it come the descriptors of its standard output and error; its pid and handle come back.

    `words`: this program's arguments; `prefix`: those of a program that starts it; `namespace`: of its network, or "".
    """

    words: tuple[str, ...]
    environ: dict[str, str]
    namespace: str
    prefix: tuple[str, ...]
