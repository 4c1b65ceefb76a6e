"""Call commands in the test's process, through the entry point of the installed command.

A process of its own takes 0.1 to 0.3 CPU seconds, nearly all of them for Python's start and imports. Commands that
start no lane print, write files and end: they do the same here. At least one test of each still starts a process.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paropt_exporter.cli.main import main
from support.real_servers import SET_BY_CI


def call_command(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Call a command that starts no lane; return the same as `real_servers.run` of its process."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with open(os.devnull) as stdin, pytest.MonkeyPatch.context() as patch, _keep_logger():  # noqa: PTH123 -- a device
        patch.chdir(folder)
        for name in SET_BY_CI:
            patch.delenv(name, raising=False)
        for name, value in env.items():
            patch.setenv(name, value)
        for name, stream in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            patch.setattr(sys, name, stream)
        code = _call_main(arguments)
    return subprocess.CompletedProcess(["paropt-exporter", *arguments], code, _read(stdout), _read(stderr))


def _call_main(arguments: tuple[str, ...]) -> int:
    try:
        return main(arguments)
    except SystemExit as ended:  # a usage error, or --help
        return int(ended.code or 0)


@contextlib.contextmanager
def _keep_logger() -> Iterator[None]:
    """Restore the package's logger, which a command configures for its whole process."""
    logger = logging.getLogger("paropt_exporter")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def _read(stream: io.TextIOWrapper) -> str:
    """Return the written text, with newlines as a pipe's reader has them."""
    stream.seek(0)
    return stream.read()
