"""Find the items of a stage: a list, the files that match a glob, or the lines that a command prints."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter import descriptors
from paropt_exporter.environment import copy_environment
from paropt_exporter.errors import Interrupted
from paropt_exporter.signal_numbers import name_signal, signal
from paropt_exporter.signals import DeferredSignals

if TYPE_CHECKING:
    import selectors
    import subprocess

    from paropt_exporter.config.values import Items

COMMAND_SECONDS = 60.0  # longer work belongs in a stage of its own
MOST_BYTES = 16 << 20  # of an item command's output: more than MOST_ITEMS paths need
_CHUNK_BYTES = 1 << 16
MOST_ITEMS = 100_000
_PACKAGES = frozenset({"node_modules", "site-packages"})  # folders of other projects' files
# Prints the matches of a glob, up to a count, without those below folders of some names; each ends with a NUL. Fails if
# it may not read one of the other folders, which `glob` would pass over.
_WALK = """
import glob, itertools, os, sys
pattern, root, most, *packages = sys.argv[1:]
closed, list_entries = [], os.scandir
def is_counted(name):
    return not {*packages} & {*name.split("/")}
def note_closed(folder):
    try:
        return list_entries(folder)
    except PermissionError:
        closed.append(os.path.relpath(folder, root))
        raise
os.scandir = note_closed
for name in itertools.islice(filter(is_counted, glob.iglob(pattern, root_dir=root, recursive=True)), int(most)):
    sys.stdout.buffer.write(os.fsencode(name) + b"\\0")
sys.exit(next((f"this user may not read {name}" for name in filter(is_counted, closed)), 0))
"""


class ItemsError(Exception):
    """The items can't be determined. The message has the reason and the remedy."""


def find_items(
    items: Items, *, cwd: Path, env: Mapping[str, str], limit_seconds: float = COMMAND_SECONDS
) -> tuple[str, ...]:
    """Return the items in order; a glob starts in `cwd`, the stage's folder.

    Blocks for at most `limit_seconds`. Raises ItemsError.
    """
    if items.list is not None:
        found = items.list
    elif items.glob is not None:
        found = _match_files(items.glob, cwd, limit_seconds)
    else:
        command = items.command or ()
        words = tuple(shlex.split(command)) if isinstance(command, str) else command
        found = _read_command_lines(words, cwd=cwd, env=env, limit_seconds=limit_seconds)
    if len(found) > MOST_ITEMS:
        count = f"{len(found):,} are more than" if items.glob is None else "there are more than"  # the search stopped
        raise ItemsError(f"items: {count} {MOST_ITEMS:,}, the most that one stage may have")
    return found


def describe_no_items(items: Items) -> str:
    """Return a short reason why there are no items."""
    if items.glob is not None:
        return f"nothing matches {items.glob}"
    if items.changed is not None:
        return f"no changed file matches {items.changed}"
    return "the command printed none" if items.command is not None else "the list is empty"


def describe_missing_items(items: Items) -> str:
    """Return the fault of a stage that needs items but has none, and the remedy."""
    what = "command" if items.glob is None else "glob"
    return f"items: {describe_no_items(items)}: correct the {what}, or write allow_empty: true"


def _match_files(pattern: str, root: Path, limit_seconds: float) -> tuple[str, ...]:
    """Return the matches, without those in folders of installed packages unless the pattern names one.

    If more than one folder must be searched, a separate process does it, which can be killed: the search may walk a
    whole disk, or follow links in a circle.
    """
    import glob

    if glob.has_magic(os.path.dirname(pattern)):  # noqa: PTH120 -- a pattern
        packages = _PACKAGES.difference(pattern.split("/"))
        walk = (sys.executable, "-I", "-S", "-c", _WALK, pattern, str(root), str(MOST_ITEMS + 1), *packages)
        printed = _capture_output(
            walk, cwd=root, env={}, what=f"the glob {_shorten(pattern)}", limit_seconds=limit_seconds
        )
        found = [os.fsdecode(name) for name in printed.split(b"\0")[:-1]]
    else:
        folder = os.path.join(root, os.path.dirname(pattern))  # noqa: PTH118, PTH120 -- as above
        if glob.has_magic(pattern) and os.path.isdir(folder) and not os.access(folder, os.R_OK):  # noqa: PTH112
            raise ItemsError(f"items: the glob {_shorten(pattern)} failed: this user may not read {folder}")
        matches = glob.iglob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 -- takes absolute patterns too
        found = [*islice(matches, MOST_ITEMS + 1)]
    # A name that looks like an option must not become one.
    return tuple(f"./{name}" if name.startswith("-") else name for name in sorted(found))


def _read_command_lines(
    words: tuple[str, ...], *, cwd: Path, env: Mapping[str, str], limit_seconds: float
) -> tuple[str, ...]:
    printed = _capture_output(
        words, cwd=cwd, env=env, what=f"the command `{_shorten(shlex.join(words))}`", limit_seconds=limit_seconds
    )
    # Split as bytes: text would also be split at form feeds or Unicode line separators in file names.
    return tuple(line for line in map(os.fsdecode, printed.splitlines()) if line.strip())


def _shorten(text: str) -> str:
    return text[:100]


def _capture_output(
    words: tuple[str, ...], *, cwd: Path, env: Mapping[str, str], what: str, limit_seconds: float
) -> bytes:
    """Return a command's output. Raises ItemsError if it fails, prints too much, or does not end in time.

    Raises Interrupted after a signal, when the command has ended.
    """
    with DeferredSignals() as held:
        code, output, errors = _run_command(words, cwd=cwd, env=env, what=what, limit_seconds=limit_seconds, held=held)
    if held.number is not None:
        raise Interrupted(held.number, f"interrupted by {name_signal(held.number)} before a run: {what} ran")
    if code != 0:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["it printed no error"]
        raise ItemsError(f"items: {what} failed (exit {code}): {last[0][:200]}")
    return output


def _run_command(
    words: tuple[str, ...], *, cwd: Path, env: Mapping[str, str], what: str, limit_seconds: float, held: DeferredSignals
) -> tuple[int, bytes, bytes]:
    """Return a command's exit code, output and stderr, up to its end or a signal."""
    import subprocess

    try:
        with descriptors.use_original_limit():
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**copy_environment(), **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that its children are killed, too, at the limit
            )
    except OSError as error:
        raise ItemsError(f"items: {what} can't be run: {error.strerror}") from None
    with process:
        try:
            output, errors = _read_output(process, what, limit_seconds, held)
        finally:
            _kill_group(process)
    return process.returncode, output, errors


def _read_output(
    process: subprocess.Popen[bytes], what: str, limit_seconds: float, held: DeferredSignals
) -> tuple[bytes, bytes]:
    """Return the command's output and stderr, until it exits or a signal arrives.

    It does not wait for the pipes to close, since a daemon that the command started may keep them open.
    """
    import selectors  # here, as subprocess: most items are files

    assert process.stdout is not None and process.stderr is not None
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    deadline = time.monotonic() + limit_seconds
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for descriptor in (*kept, ended, held.wake_reader):
                selector.register(descriptor, selectors.EVENT_READ)
            while held.number is None and (process.poll() is None or _select_ready(selector, kept, 0.0)):
                ready = _select_ready(selector, kept, max(0.0, deadline - time.monotonic()))
                if not ready and process.poll() is None and time.monotonic() >= deadline:
                    raise ItemsError(f"items: {what} did not end within {limit_seconds:g} s")
                for descriptor in ready:
                    chunk = os.read(descriptor, _CHUNK_BYTES)
                    kept[descriptor] += chunk
                    if not chunk:
                        selector.unregister(descriptor)
                    if len(kept[descriptor]) > MOST_BYTES:
                        raise ItemsError(f"items: {what} printed more than {MOST_BYTES >> 20} MiB")
    finally:
        os.close(ended)
    output, errors = kept.values()
    return bytes(output), bytes(errors)


def _select_ready(selector: selectors.BaseSelector, pipes: Mapping[int, bytearray], seconds: float) -> list[int]:
    return [key.fd for key, _ in selector.select(seconds) if key.fd in pipes]


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the remaining processes of the command's group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
