"""The limit on this process's file descriptors: raised at the start, and given back to the processes that it starts.

Most systems start programs with a soft limit of 1,024, which only protects programs that use select(), and a far higher
hard one. A program that was started with a raised limit may fail or waste time: select() takes no descriptor above
1,023, and some programs close every number up to the limit.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Enough for the most workers that a lane may have, at six each, and for all connections. A container's hard limit may
# be a billion, and a program that a call starts in a thread inherits this one.
MOST = 65_536

# The soft limit that the process was started with, once it is raised. Of the module, as the limit is of the process.
_original: int | None = None


def limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """Raise the soft limit to the hard one, or to MOST where that is higher; once at the start of a run."""
    global _original  # noqa: PLW0603 -- see there
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        _original = soft


def restore(pid: int) -> None:
    """Give a child process the limit that this one was started with; before it starts programs of its own."""
    if _original is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError):  # it has ended
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(_original, hard), hard))


@contextmanager
def original() -> Iterator[None]:
    """Start a process with the limit that this one was started with.

    Meanwhile other threads of this process have no more either: for moments in which no task runs.
    """
    raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _original is None:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_original, raised[1]), raised[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, raised)


_RESERVED = 32
_MOST_OF_LIMIT = 4  # of a low limit, at most a quarter is kept back


def check_reserve(*descriptors: int) -> None:
    """Raise OSError (EMFILE) if a new descriptor is one of the last: the kernel always gives the lowest free number."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and max(descriptors) >= limit - min(_RESERVED, limit // _MOST_OF_LIMIT):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
