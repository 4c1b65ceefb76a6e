"""Raise the limit on this process's file descriptors, give the original to its children, and keep a reserve.

Most systems start programs with a soft limit of 1,024, which only protects programs that use select(), and a far higher
hard one. A child process with a raised limit may fail or waste time: select() takes no descriptor above 1,023, and some
programs close every number up to the limit.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Enough for the most workers that a lane may have, at six each, and for all connections. Not more: a container's hard
# limit may be a billion, and programs that calls in threads start inherit the limit.
MAX_DESCRIPTORS = 65_536
_RESERVED = 32  # for the history, the endpoint and reads of /proc, which must always succeed
_MAX_RESERVED_PART = 4  # of a low limit, reserve at most a quarter

_LEAST_FOR_PROCESSES = 80  # two workers, beside commands, history and endpoint

_original: int | None = None  # the soft limit with which this process was started, after it was raised


def get_limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """Raise the soft limit to the hard one, or to MAX_DESCRIPTORS if that is lower; once at the start of a run."""
    global _original  # noqa: PLW0603 -- the limit belongs to the process, and so does its original value
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        _original = soft


def restore_limit(pid: int) -> None:
    """Give a child process the original limit, before it starts other programs."""
    if _original is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError):  # the child has exited
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(_original, hard), hard))


@contextmanager
def use_original_limit() -> Iterator[None]:
    """Return to the original limit for the start of a child process.

    It also applies to the other threads of this process, so use it only while no task runs.
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


@contextmanager
def kept_limit() -> Iterator[None]:
    """Restore the limit, and raise OSError (EMFILE), if code has lowered it so far that this process can't continue.

    For calls in threads of this process, whose history, endpoint and supervisor need descriptors.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < _RESERVED and soft < before[0]:
            with suppress(ValueError):  # the hard limit is lower, too
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            raise OSError(
                errno.EMFILE, f"the call has set the exporter's limit on descriptors (RLIMIT_NOFILE) to {soft}"
            )


def check_reserve(*descriptors: int) -> None:
    """Raise OSError (EMFILE) if a new descriptor is a reserved one: the kernel gives the lowest free number."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserved = min(_RESERVED, limit // _MAX_RESERVED_PART)
    if limit != resource.RLIM_INFINITY and max(descriptors) >= limit - reserved:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def check_limit_for_processes() -> None:
    """Raise OSError if worker processes would take the descriptors that other tasks need."""
    limit = get_limit()
    if limit < _LEAST_FOR_PROCESSES:
        raise OSError(f"the limit on descriptors (ulimit -n) is {limit}, and they need {_LEAST_FOR_PROCESSES}")


def is_stream(descriptor: int) -> bool:
    """Return whether a descriptor is a stream for child processes, not a file that took a closed stream's number."""
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False
