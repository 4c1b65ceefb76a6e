"""`cache info`, `cache prune` and `cache verify`: the store of cached results."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, TextIO

from paropt_exporter.cli.formatting import format_bytes
from paropt_exporter.errors import format_count

if TYPE_CHECKING:
    from paropt_exporter.cache.result_store import Store

_DAY_SECONDS = 86_400.0


def run_info(store: Store, *, output: str, stdout: TextIO) -> int:
    """Print where the store is and how large it is. Returns 0."""
    found = [*store.list_files()]
    facts = {
        "folder": str(store.folder),
        "size_bytes": sum(file.size_bytes for file in found),
        "limit_bytes": store.limit_bytes,
        "results": sum(store.is_result(file) for file in found),
        "contents": sum(not store.is_result(file) for file in found),
        "oldest_use_timestamp_seconds": min((file.used_timestamp_seconds for file in found), default=None),
    }
    if output == "json":
        stdout.write(json.dumps(facts, indent=2) + "\n")
        return 0
    size, limit = format_bytes(sum(file.size_bytes for file in found)), format_bytes(store.limit_bytes)
    stdout.write(f"folder    {facts['folder']}\nsize      {size} of {limit}\n")
    stdout.write(f"results   {facts['results']:,}\ncontents  {facts['contents']:,}\n")
    if found:
        days = (time.time() - min(file.used_timestamp_seconds for file in found)) / _DAY_SECONDS
        stdout.write(f"oldest    last used {format_count(int(days), 'day')} ago\n")
    return 0


def run_prune(store: Store, *, limit_bytes: int | None, output: str, stdout: TextIO) -> int:
    """Remove the least recently used results until the store has at most a size. Returns 0."""
    removed, removed_bytes = store.prune(store.limit_bytes if limit_bytes is None else limit_bytes, spare_young=False)
    if output == "json":
        stdout.write(json.dumps({"removed_files": removed, "removed_bytes": removed_bytes}, indent=2) + "\n")
        return 0
    stdout.write(f"removed {format_count(removed, 'file')}, {format_bytes(removed_bytes)}\n")
    return 0


def run_verify(store: Store, *, output: str, stdout: TextIO) -> int:
    """Compare each stored file with its digest, and remove damaged ones.

    Returns 0, or 1 if there were any, or if one can't be read.
    """
    from paropt_exporter.cache.entry import UnreadableFile

    checked = sum(1 for _ in store.list_files())
    faulty = [*store.list_faulty()]
    unreadable = [error for _, error in faulty if isinstance(error, UnreadableFile)]
    damaged = [file.path for file, error in faulty if not isinstance(error, UnreadableFile)]
    if output == "json":
        facts = {"checked_files": checked, "damaged": damaged, "unreadable": [*map(str, unreadable)]}
        stdout.write(json.dumps(facts, indent=2) + "\n")
        return 1 if faulty else 0
    stdout.writelines(f"{error}\n" for error in unreadable)
    stdout.writelines(f"damaged, removed: {path}\n" for path in damaged)
    stdout.write(f"{format_count(checked, 'file')} checked, {len(damaged)} damaged\n")
    return 1 if faulty else 0
