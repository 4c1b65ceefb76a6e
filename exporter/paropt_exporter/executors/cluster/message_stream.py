"""A connection that carries messages both ways between the coordinator and the agent of a worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from paropt_exporter.errors import describe

log = logging.getLogger(__name__)

OPERATION = "paropt_stream"  # the name by which a worker knows the agent's side
READY = "ready"
_CONNECT_SECONDS = 10.0
_PIECE_BYTES = 1 << 30  # msgpack, with which Dask packs messages, takes at most 4 GiB of bytes in one piece


class MessageStream:
    """Messages over one of Dask's connections; for one event loop.

        send ──> pending ──one write for all that came during the last one──> the other side's `serve`

    Guarantees: messages arrive in order, or `serve` returns on both sides; so batches grow with the load, and a message
    that comes alone waits for nothing.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._pending: list[Any] = []
        self._wakes_writer = asyncio.Event()

    def send(self, *messages: Any) -> None:
        """Send messages soon. They are dropped if the connection has ended."""
        self._pending += messages
        self._wakes_writer.set()

    async def serve(self, handle: Callable[[list[Any]], None]) -> None:
        """Hand arriving messages to `handle` until the connection ends, then return.

        If messages can't be read, or `handle` raises, log a line and end the connection.
        """
        writer = asyncio.get_running_loop().create_task(self._write())
        try:
            while True:
                try:
                    message = await self._comm.read()
                except OSError:  # Dask's CommClosedError is one
                    return
                try:
                    handle(pickle.loads(_join(message["messages"])))
                except BaseException as error:  # noqa: BLE001 -- classes of the sender; an exit would end the event loop
                    facts = {"peer": self._comm.peer_address, "err": describe(error)}
                    log.warning("messages can't be read: their connection ends", extra=facts)
                    return
        finally:
            writer.cancel()
            self.close()

    def close(self) -> None:
        self._comm.abort()

    async def _write(self) -> None:
        try:
            while True:
                await self._wakes_writer.wait()
                self._wakes_writer.clear()
                messages, self._pending = self._pending, []
                await self._comm.write({"messages": _cut(pickle.dumps(messages))})
        except OSError:
            return
        finally:
            self.close()  # which ends the reader


def _cut(content: bytes) -> list[bytes]:
    return [content[start : start + _PIECE_BYTES] for start in range(0, len(content), _PIECE_BYTES)]


def _join(pieces: Sequence[bytes]) -> bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def open_stream(client: Any, address: str, *, session: str, number: int, worker_id: str) -> MessageStream:
    """Connect to the agent of a worker. Raises OSError, also if another worker answers at the address."""
    from distributed.comm import core

    connect: Any = core.connect
    comm = await connect(address, timeout=_CONNECT_SECONDS, **client.connection_args)
    try:
        await comm.write(
            {"op": OPERATION, "session": session, "number": number, "worker_id": worker_id, "reply": False}
        )
        answer = await asyncio.wait_for(comm.read(), _CONNECT_SECONDS)
    except BaseException:
        comm.abort()
        raise
    if answer != READY:
        with contextlib.suppress(Exception):
            comm.abort()
        raise OSError(f"the worker at {address} is another one by now")
    return MessageStream(comm)
