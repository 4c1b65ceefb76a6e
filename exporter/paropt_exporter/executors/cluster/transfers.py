"""Move files between the coordinator and a worker in pieces, directly instead of through the scheduler."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

PIECE_BYTES = 4 << 20
_ANSWER_SECONDS = 300.0  # of a worker, as long as Dask's scheduler waits for one by default (worker-ttl)


async def call_worker(client: Any, address: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function on the event loop of a worker, without the scheduler in between.

    Raises OSError if the worker has gone, or hangs: the connection of a stopped process stays.
    """
    from distributed.protocol.pickle import dumps

    pickled: Any = dumps
    call = client.rpc(address).run(function=pickled(function), args=pickled(args), kwargs=pickled({}), wait=True)
    try:
        answer = await asyncio.wait_for(call, _ANSWER_SECONDS)
    except TimeoutError:
        raise OSError(f"{address} does not answer") from None
    if answer["status"] == "OK":
        return answer["result"]
    from distributed.core import clean_exception

    _, error, _ = clean_exception(**answer)
    raise error if error is not None else OSError(f"{address} does not answer")


async def send_bytes(client: Any, address: str, data: bytes, path: str) -> None:
    """Write `data` to a file on a worker's host. Raises OSError."""
    view = memoryview(data)
    for offset in range(0, max(1, len(view)), PIECE_BYTES):
        await call_worker(client, address, write_piece, path, offset, bytes(view[offset : offset + PIECE_BYTES]))


async def fetch_pieces(client: Any, address: str, path: str) -> AsyncIterator[bytes]:
    """Yield the pieces of a file on a worker's host. Raises OSError."""
    offset = 0
    while piece := await call_worker(client, address, read_piece, path, offset):
        yield piece
        offset += len(piece)


# On a worker. These run on its event loop: each blocks for one piece of a local file at most.


def write_piece(path: str, offset: int, data: bytes) -> None:
    """Write one piece; the first one creates the file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if offset == 0 else 0)
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.seek(offset)
        file.write(data)


def read_piece(path: str, offset: int) -> bytes:
    """Read one piece; empty at the end."""
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)


def remove_files(paths: tuple[str, ...]) -> None:
    """Remove temporary files."""
    for path in paths:
        Path(path).unlink(missing_ok=True)
