"""Write the files of a reply on this host: outputs, the runner's report, the whole output of a task."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from paropt_exporter.executors.cluster import transfers
from paropt_exporter.executors.cluster.messages import RemoteFile, TaskReply
from paropt_exporter.executors.cluster.workers import LocalFiles
from paropt_exporter.executors.commands.output import RAW_BYTES
from paropt_exporter.input_files import InputPatterns


async def fetch_files(
    client: Any, address: str, files: LocalFiles, reply: TaskReply, *, root: Path, wants_outputs: bool
) -> None:
    """Fetch all files of a reply. Raises OSError, also for an output outside `root`."""
    fetched: list[str] = []
    if wants_outputs:
        for output in reply.outputs:
            path = choose_destination(root, output.name, files.outputs)
            await _write_file(client, address, output, path)
    if reply.report is not None and files.report is not None:
        await _write_file(client, address, reply.report, files.report)
        fetched += [reply.report.path] if reply.report.content is None else []
    if reply.output is not None:
        await _write_output(client, address, reply.output, files)
        fetched += [reply.output.path] if reply.output.content is None else []
    if fetched:
        await transfers.call_worker(client, address, transfers.remove_files, tuple(fetched))


def choose_destination(root: Path, name: str, patterns: tuple[str, ...]) -> Path:
    """Return where an output goes. Raises OSError for a name that no pattern asked for, or that leaves `root`."""
    path = root / name
    inside = not os.path.isabs(name) and path.resolve().is_relative_to(root.resolve())  # noqa: PTH117
    if not inside or not InputPatterns(patterns).could_find(name):
        raise OSError(f"the worker offers {name!r}, which no pattern of outputs asks for")
    return path


async def _read(client: Any, address: str, file: RemoteFile) -> AsyncIterator[bytes]:
    if file.content is not None:
        yield file.content
        return
    async for piece in transfers.fetch_pieces(client, address, file.path):
        yield piece


async def _write_file(client: Any, address: str, file: RemoteFile, path: Path) -> None:
    """Write a file beside its place, then move it there: readers never see a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode & 0o777 | 0o600), "wb") as made:
            async for piece in _read(client, address, file):
                await asyncio.to_thread(made.write, piece)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


async def _write_output(client: Any, address: str, file: RemoteFile, files: LocalFiles) -> None:
    """Append the whole output of a task to its stage's file, and hand it to the task logs."""
    tail, sink = b"", files.open_sink() if files.open_sink is not None else None
    appended = files.output_file.open() if files.output_file is not None else None
    try:
        async for piece in _read(client, address, file):
            if appended is not None:
                appended.write(piece)
            if sink is not None:
                sink.write(piece)
            tail = (tail + piece)[-RAW_BYTES:]
    finally:
        if appended is not None:
            appended.close()
        if sink is not None:
            sink.close(lambda: tail)
