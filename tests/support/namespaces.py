"""Words that start a program in namespaces of its own."""

from __future__ import annotations

import subprocess

import pytest

WITHOUT_PROC = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs paropt /proc && exec "$@"', "sh")
WITH_FOREIGN_PROC = ("unshare", "--pid", "--fork", "--kill-child")


def skip_unless_allowed(words: tuple[str, ...]) -> None:
    """Skip the test if the system allows no such namespaces."""
    tried = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces can be made here: {tried.stderr.strip()}")
