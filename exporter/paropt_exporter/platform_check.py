"""Say in one sentence why this system is unsuitable: not Linux, a kernel without process descriptors, no /dev/null.

Or a Python that runs without the GIL, on which the pools rely.
"""

from __future__ import annotations

import errno
import os
import sys


def find_unsuitable() -> str | None:
    """Return what this system lacks and what to do, or None if it is suitable.

    Without `pidfd_open` or /dev/null no command could start, and each would fail with a message of its own.
    """
    if sys.platform != "linux":
        return f"needs Linux, and this is {sys.platform}: use a container or a virtual machine, such as WSL 2"
    if hasattr(sys, "_is_gil_enabled") and not sys._is_gil_enabled():  # a free-threaded Python, since 3.13
        return f"needs the GIL, and {sys.executable} runs without it: set PYTHON_GIL=1"
    if not hasattr(os, "pidfd_open"):
        return f"needs a Python that was built on Linux 5.3 or later, and {sys.executable} lacks os.pidfd_open"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            needs = "needs Linux 5.3 or later, and a container that allows the system call pidfd_open"
            return f"{needs}: this is Linux {os.uname().release}: {error.strerror}"
    try:
        os.close(os.open(os.devnull, os.O_RDWR))
    except OSError as error:
        return f"needs {os.devnull}, which all users may read and write: {error.strerror}"
    return None
