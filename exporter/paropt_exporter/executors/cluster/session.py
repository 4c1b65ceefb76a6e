"""The thread of a coordinator: its event loop, Dask's client in it, and the background tasks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from paropt_exporter.errors import describe, to_one_line
from paropt_exporter.executors.cluster import dask_client
from paropt_exporter.executors.cluster.dask_client import HostedCluster
from paropt_exporter.executors.cluster.settings import ClusterError, ClusterSettings

log = logging.getLogger(__name__)

CLOSE_SECONDS = 3.0


class ClusterSession:
    """A thread with an event loop, and the Dask client that lives in it.

    `start`, `call`, `call_soon` and `stop` are for other threads. All else runs in the event loop.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        self.settings = settings
        self.id = secrets.token_hex(6)
        self.loop = asyncio.new_event_loop()
        self.client: Any = None
        self.closing = False  # once set, by any thread, it stays
        self._thread = threading.Thread(target=self._run, name="paropt-cluster", daemon=True)
        self._keys = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def call(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call_soon(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: all items have been settled
            self.loop.call_soon_threadsafe(function, *arguments)

    def stop(self) -> None:
        """End the event loop and its thread, which may not have started."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(CLOSE_SECONDS)
        elif not self.loop.is_closed():
            self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="paropt-cluster"))  # see list_own_threads
        self.loop.set_exception_handler(_log_unexpected)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    # Everything below runs in the event loop.

    async def connect(self, hosted: HostedCluster | None) -> str:
        """Connect to the scheduler, that of `hosted` if there is one, and return its address. Raises ClusterError."""
        from distributed import Client

        dask_client.silence_logs()
        settings = self.settings
        if hosted is not None:
            address, security = hosted.address, hosted.security
            dask_client.require_encryption(
                address, "dask.cluster", "let it make one with TLS", insecure=settings.insecure
            )
        else:
            address, security = dask_client.read_address(settings), dask_client.build_security(settings.tls)
            await asyncio.to_thread(dask_client.check_address, address, tls=settings.tls, insecure=settings.insecure)
        make: Any = Client
        self.client = make(
            address, security=security, asynchronous=True, set_as_default=False,
            timeout=settings.reconnect_seconds, heartbeat_interval="2s",
        )  # fmt: skip
        try:
            await asyncio.wait_for(self.client, settings.reconnect_seconds)  # Dask would wait without limit
        except TimeoutError:
            raise ClusterError(
                f"dask: {address}: the scheduler does not answer within {settings.reconnect_seconds:g} s"
            ) from None
        except OSError as error:
            raise ClusterError(f"dask: {address}: {to_one_line(describe(error))}") from None
        except Exception as error:  # noqa: BLE001 -- TypeError, ValueError, MemoryError and others
            told = to_one_line(describe(error))
            raise ClusterError(f"dask: {address}: no Dask scheduler of this version answers there: {told}") from None
        return address

    @property
    def is_connected(self) -> bool:
        return bool(self.client.status == "running")

    async def disconnect(self) -> None:
        """Close the client and cancel the background tasks."""
        if self.client is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.client.close(), CLOSE_SECONDS)
        for task in tuple(self._tasks):
            task.cancel()

    async def ask_scheduler(self, seconds: float) -> bool:
        """Return whether the scheduler answers a small question in time."""
        if not self.is_connected:
            return False
        with contextlib.suppress(OSError):
            await asyncio.wait_for(self.client.scheduler.identity(n_workers=0), seconds)
            return True
        return False

    async def ask_for_workers(self) -> dict[str, Any]:
        """Return the scheduler's information on its workers, by address. Raises OSError, also if it does not answer."""
        asked = self.client.scheduler.identity(n_workers=-1)
        identity = await asyncio.wait_for(asked, self.settings.reconnect_seconds)
        found: dict[str, Any] = identity["workers"]
        return found

    def draw_number(self) -> int:
        """Return a number that no other key of this session has."""
        return next(self._keys)

    def submit_pinned(self, address: str, key: str, call: tuple[Any, ...]) -> Any:
        """Submit a Dask task to one worker, and return Dask's future."""
        return self.client.submit(*call, key=key, workers=[address], allow_other_workers=False, retries=0, pure=False)

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine in the background. `disconnect` cancels it; an error before that is logged."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.closing:
            log.error("internal error in the cluster's coordinator", exc_info=error)


def _log_unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log errors of Dask's own tasks without a reader, such as those of connections which broke."""
    del loop
    log.debug("an error in the event loop", extra={"err": f"{context.get('message')}: {context.get('exception')}"})
