"""The traces of commands, as the supervisor writes them (`supervisor.tracing`): the paths that they used, and how."""

from __future__ import annotations

import marshal
import os
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from paropt_exporter.executors.supervisor.tracing import BEFORE, LIST, READ, STAT, WRITE

_LARGEST_TRACE_BYTES = 1 << 28
_READS = STAT | READ | LIST

# Size, times in ns, inode and mode; for a link, followed by those of its target. None: no file; a number: the error.
FirstState = tuple[object, ...] | int | None


class Access(Struct, frozen=True):
    """The accesses to one path. `uses` has the bits of `supervisor.tracing`; `state` is the state before the first one.

    `names`: the names in the folder when it was first listed. `digest`: the SHA-256 of the file before its first write,
    if it was used before that.
    """

    uses: int
    first_timestamp_ns: int
    state: FirstState
    names: tuple[bytes, ...] | None = None
    digest: str | None = None

    def add_later(self, later: Access) -> Access:
        """Return these accesses combined with those of a later command."""
        reads = later.uses & _READS
        writes = self.uses & WRITE or later.uses & WRITE
        before = 0 if self.uses & WRITE else later.uses & (_READS << BEFORE)
        names = self.names if self.names is not None else later.names
        digest = self.digest if self.uses & WRITE or self.state != later.state else later.digest
        return Access(self.uses | reads | writes | before, self.first_timestamp_ns, self.state, names, digest)

    def is_used(self, kinds: int) -> bool:
        """Return whether it was used in one of these ways."""
        return bool(self.uses & kinds)

    def is_used_unwritten(self, kinds: int) -> bool:
        """Return whether it was used in one of these ways before its first write."""
        return bool(self.uses & kinds << BEFORE)


class Trace(Struct, frozen=True, kw_only=True):
    """The accesses of a task's commands by path. If there are `problems`, it is incomplete and proves nothing.

    `servers`: the sockets to which the commands connected. `privileged`: a program that lacked its privileges while it
    was traced. `moves`: the old and new paths of folders that they moved without having made them, and whose files are
    not in `paths`.
    """

    paths: Mapping[bytes, Access] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    moves: tuple[tuple[bytes, bytes], ...] = ()
    privileged: str = ""


def read_trace(descriptor: int) -> Trace:
    """Read the trace of a command that has ended. If it can't be read, return one with this as its problem."""
    try:
        size = os.fstat(descriptor).st_size
        if not 0 < size <= _LARGEST_TRACE_BYTES:
            return Trace(problems=("its trace is missing",))
        values = marshal.loads(os.pread(descriptor, size, 0))  # only the supervisor has the file
        paths = {
            path: Access(uses, at, state, names and tuple(names), digest)
            for path, (uses, at, state, names, digest) in values["paths"].items()
        }
        return Trace(
            paths=paths,
            problems=tuple(values["problems"]),
            servers=tuple(values["servers"]),
            moves=tuple(values["moves"]),
            privileged=values["privileged"],
        )
    except (OSError, ValueError, EOFError, TypeError, KeyError) as error:
        return Trace(problems=(f"its trace can't be read: {error}",))


def merge_traces(traces: Sequence[Trace]) -> Trace:
    """Return the trace of commands that ran one after another."""
    if len(traces) == 1:
        return traces[0]
    paths: dict[bytes, Access] = {}
    for trace in traces:
        for path, access in trace.paths.items():
            earlier = paths.get(path)
            paths[path] = access if earlier is None else earlier.add_later(access)
    return Trace(
        paths=paths,
        problems=tuple(problem for trace in traces for problem in trace.problems),
        servers=tuple(server for trace in traces for server in trace.servers),
        moves=tuple(move for trace in traces for move in trace.moves),
        privileged=next((trace.privileged for trace in traces if trace.privileged), ""),
    )
