"""Messages between the coordinator and a worker's agent, over a connection that packs them as Dask's does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from paropt_exporter.executors.cluster import message_stream
from paropt_exporter.executors.cluster.message_stream import MessageStream

msgpack = pytest.importorskip("msgpack")  # comes with Dask
PIECE_BYTES = 100


class PackingConnection:
    """One side of a connection; msgpack refuses long pieces, as it does from 4 GiB on."""

    peer_address = "tcp://other"

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self.other = self

    async def write(self, message: dict[str, Any]) -> None:
        self.other._arrived.put_nowait(msgpack.packb(message))

    async def read(self) -> Any:
        return msgpack.unpackb(await self._arrived.get(), use_list=False, max_bin_len=PIECE_BYTES)

    def abort(self) -> None:
        pass


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_message_that_is_too_large_for_one_piece_arrives_whole(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(message_stream, "_PIECE_BYTES", PIECE_BYTES)

    async def exchange() -> list[bytes]:
        here, there = PackingConnection(), PackingConnection()
        here.other, there.other = there, here
        sender, receiver = MessageStream(here), MessageStream(there)
        arrived: asyncio.Queue[bytes] = asyncio.Queue()

        def handle(messages: list[bytes]) -> None:
            for message in messages:
                arrived.put_nowait(message)

        sides = [asyncio.create_task(side.serve(handle)) for side in (sender, receiver)]
        sender.send(b"x" * size, b"end")
        found = [await arrived.get(), await arrived.get()]
        for side in sides:
            side.cancel()
        await asyncio.gather(*sides, return_exceptions=True)
        return found

    assert asyncio.run(exchange()) == [b"x" * size, b"end"]
