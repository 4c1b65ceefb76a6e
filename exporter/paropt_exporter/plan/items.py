"""Find the items that a stage is split by: a list, files that match, or the lines that a command prints."""

from __future__ import annotations

import glob
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter import descriptors

if TYPE_CHECKING:
    from paropt_exporter.config.model import Items

ITEM = "{item}"
COMMAND_SECONDS = 60.0  # a command that lists work; one that works for a minute belongs in a stage of its own
MOST_BYTES = 16 << 20  # of an item command's output: MOST_ITEMS lines of a path each, and to spare
_CHUNK_BYTES = 1 << 16
MOST_ITEMS = 100_000


class NoItems(Exception):
    """The items can't be told; the message says why and what to do."""


def find_items(items: Items, *, root: Path, cwd: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the items in order; raises NoItems. Blocks for at most a minute, if they come from a command."""
    if items.list is not None:
        found = items.list
    elif items.glob is not None:
        found = _files(items.glob, root)
    else:
        command = items.command or ()
        words = tuple(shlex.split(command)) if isinstance(command, str) else command
        found = _lines(words, cwd=cwd, env=env)
    if len(found) > MOST_ITEMS:
        raise NoItems(f"items: {len(found):,} are more than {MOST_ITEMS:,}, the most that one stage may have")
    return found


def _files(pattern: str, root: Path) -> tuple[str, ...]:
    found = sorted(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207 -- takes absolute patterns too
    # A file named like an option must not become one.
    return tuple(f"./{name}" if name.startswith("-") else name for name in found)


def _lines(words: tuple[str, ...], *, cwd: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    shown = shlex.join(words)[:100]
    try:
        with descriptors.original():
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that its children end with it at the limit
            )
    except OSError as error:
        raise NoItems(f"items: the command `{shown}` can't be run: {error.strerror}") from None
    with process:
        try:
            output, errors = _read(process, shown)
        finally:
            _end(process)
    if process.returncode != 0:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["it printed no error"]
        raise NoItems(f"items: the command `{shown}` failed (exit {process.returncode}): {last[0][:200]}")
    return tuple(line for line in output.decode(errors="replace").splitlines() if line.strip())


def _read(process: subprocess.Popen[bytes], shown: str) -> tuple[bytes, bytes]:
    """Return what the command prints until it ends; not until its pipes do: a daemon that it left may hold them."""
    assert process.stdout is not None and process.stderr is not None
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    deadline = time.monotonic() + COMMAND_SECONDS
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for descriptor in (*kept, ended):
                selector.register(descriptor, selectors.EVENT_READ)
            while process.poll() is None or _ready(selector, kept, 0.0):
                ready = _ready(selector, kept, max(0.0, deadline - time.monotonic()))
                if not ready and process.poll() is None and time.monotonic() >= deadline:
                    raise NoItems(f"items: the command `{shown}` did not end within {COMMAND_SECONDS:.0f} s")
                for descriptor in ready:
                    chunk = os.read(descriptor, _CHUNK_BYTES)
                    kept[descriptor] += chunk
                    if not chunk:
                        selector.unregister(descriptor)
                    if len(kept[descriptor]) > MOST_BYTES:
                        raise NoItems(f"items: the command `{shown}` printed more than {MOST_BYTES >> 20} MiB")
    finally:
        os.close(ended)
    output, errors = kept.values()
    return bytes(output), bytes(errors)


def _ready(selector: selectors.BaseSelector, pipes: Mapping[int, bytearray], seconds: float) -> list[int]:
    return [key.fd for key, _ in selector.select(seconds) if key.fd in pipes]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what still lives of the command's group, also what it left behind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
