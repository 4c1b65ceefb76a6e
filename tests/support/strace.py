"""The files that strace sees a command read: what a trace is compared with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

_SECONDS = 120
_LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+|\?)")
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
_WRITES = ("O_WRONLY", "O_RDWR", "O_CREAT")


def find_reads(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> set[str]:
    """Return the absolute paths of the files that a command opens for reading or executes, without the kernel's own."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.fail("strace is missing: apt-get install strace")
    calls = "trace=open,openat,openat2,execve,chdir"
    subprocess.run(
        [strace, "-f", "-y", "-qq", "-s", "4096", "-e", calls, "-o", log, *command],
        cwd=cwd,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=_SECONDS,
    )
    found = set()
    for line in log.read_text(errors="surrogateescape").splitlines():
        match = _LINE.match(line)
        if match is None or match[3] in ("?", "-1") or any(flag in match[2] for flag in _WRITES):
            continue
        path = _PATH.search(match[2])
        folder = re.match(r"AT_FDCWD<([^>]*)>|\d+<([^>]*)>", match[2])
        if path is not None:
            base = (folder[1] or folder[2]) if folder is not None else str(cwd)
            found.add(os.path.normpath(f"{base}/{path[1]}" if path[1][0] != "/" else path[1]))
    return {path for path in found if not path.startswith(("/proc/", "/sys/", "/dev/"))}
