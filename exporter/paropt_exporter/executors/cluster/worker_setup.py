"""Make a worker of a cluster fit for a run: its agent, its versions, the project's files, the programs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

from paropt_exporter._version import __version__
from paropt_exporter.executors.cluster import agent, dask_client, transfers, workers
from paropt_exporter.executors.cluster.file_sync import Uploads
from paropt_exporter.executors.cluster.message_stream import open_stream
from paropt_exporter.executors.cluster.messages import WorkerFacts, are_sound_facts
from paropt_exporter.executors.cluster.session import ClusterSession
from paropt_exporter.executors.cluster.settings import ClusterError
from paropt_exporter.executors.cluster.workers import RemoteWorker

_PREPARE_SECONDS = 60.0


class WorkerSetup:
    """The steps that a worker takes before it gets tasks. It does not know which workers there are.

    Each step raises OSError if the worker has gone, and ClusterError or another exception if it is unfit.
    """

    def __init__(self, session: ClusterSession) -> None:
        settings = session.settings
        self.programs: tuple[str, ...] = ()  # of the run
        self._session = session
        self._uploads = None if settings.is_local or settings.shared_root else Uploads(settings, session.id)
        self._root = settings.shared_root or str(settings.root)
        self._load_agent = dask_client.Source(_load_agent)

    @property
    def uploads_files(self) -> bool:
        """Whether the hosts have no files of the project but those that they get from here."""
        return self._uploads is not None

    async def take_snapshot(self, present: Sequence[RemoteWorker]) -> None:
        """Take the snapshot of the files that `provide` brings to the hosts from now on. Raises ClusterError."""
        if self._uploads is not None:
            await self._uploads.take(self._session.client, present)

    async def open_session(self, address: str, number: int, lease: Any) -> RemoteWorker:
        """Begin a session with the agent of a worker, and connect to it."""
        facts = await asyncio.wait_for(self._prepare_agent(address, number, lease.key), _PREPARE_SECONDS)
        info = (await self._session.ask_for_workers()).get(address)
        if info is None:
            raise OSError(f"the worker at {address} has gone")
        stream = await open_stream(
            self._session.client, address, session=self._session.id, number=number, worker_id=facts.worker_id
        )
        return RemoteWorker(
            address,
            info["id"],
            facts,
            lease,
            stream,
            number,
            heard_seconds=monotonic(),
            memory_available_bytes=facts.memory_available_bytes,
            status=str(info.get("status", "")),
        )

    async def _prepare_agent(self, address: str, number: int, lease: str) -> WorkerFacts:
        """Begin a session with the agent of a worker, which first loads it outside of its event loop."""
        client = self._session.client
        call = transfers.call_worker
        found = await call(client, address, asyncio.to_thread, *self._load_agent.build_call(__version__))
        if isinstance(found, str):
            raise ClusterError(found)
        if fault := workers.find_version_fault(workers.read_versions(), found, needs_git=False):
            raise ClusterError(fault)
        facts: WorkerFacts = await call(client, address, agent.prepare, self._session.id, number, lease, self._root)
        if not are_sound_facts(facts):
            raise ClusterError("it describes itself in a way that makes no sense")
        return facts

    async def provide(self, worker: RemoteWorker) -> None:
        """Give a worker the files of this run and check its programs."""
        ours, theirs = workers.read_versions(), worker.facts.versions
        if fault := workers.find_version_fault(ours, theirs, needs_git=self.uploads_files):
            raise ClusterError(fault)
        client, call = self._session.client, transfers.call_worker
        if self._uploads is not None:
            await self._uploads.provide(client, worker)
        if fault := await call(client, worker.address, agent.check_root, self._session.id):
            raise ClusterError(fault)
        missing = await call(client, worker.address, agent.find_missing, self.programs)
        worker.differences = workers.list_differences(ours, theirs, missing)


def _load_agent(version: str) -> object:
    """Import the agent if it has this version. Return the version that a worker has, or the reason why it has none."""
    try:
        from paropt_exporter._version import __version__

        if __version__ == version:
            import paropt_exporter.executors.cluster.agent  # noqa: F401 -- the next call finds it loaded
    except ImportError as error:
        import sys

        return f"{error}: install paropt-exporter[dask] for {sys.executable} of this worker"
    return {"paropt-exporter": __version__}
