"""Keep the last file descriptors for what must go on without fail: history, endpoint, reading /proc."""

from __future__ import annotations

import errno
import os
import resource

_RESERVED = 32
_MOST_OF_LIMIT = 4  # of a low limit, at most a quarter is kept back


def refuse_the_last(*descriptors: int) -> None:
    """Raise OSError (EMFILE) if a new descriptor is one of the last: the kernel always gives the lowest free number."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and max(descriptors) >= limit - min(_RESERVED, limit // _MOST_OF_LIMIT):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
