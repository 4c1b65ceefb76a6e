"""Give each host the files of the project, once for each run, and write the files of replies on this host."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from paropt_exporter.errors import describe, to_one_line
from paropt_exporter.executors.cluster import agent, transfers
from paropt_exporter.executors.cluster.messages import RemoteFile, TaskReply
from paropt_exporter.executors.cluster.settings import ClusterError, ClusterSettings
from paropt_exporter.executors.cluster.snapshot import Repository, Snapshot
from paropt_exporter.executors.cluster.work_items import WorkItem
from paropt_exporter.executors.cluster.workers import RemoteWorker
from paropt_exporter.executors.commands.output import Capture
from paropt_exporter.files import find_cache_folder
from paropt_exporter.input_files import InputPatterns

log = logging.getLogger(__name__)


class Uploads:
    """The copies of the project's files on the hosts; for the event loop of the coordinator.

        take ──> snapshot (each host restores the last one) ──provide(worker)──> one worker of a host gets the pack

    Guarantees: a host gets a snapshot once, as the difference to the one that it has, and again only if it lost it; its
    copy changes for one run at a time, also if a worker came late in the run before; the user's repository stays
    untouched.
    """

    def __init__(self, settings: ClusterSettings, session: str) -> None:
        self._settings = settings
        self._session = session
        self._project = hashlib.sha256(str(settings.root).encode()).hexdigest()[:16]
        self._repository: Repository | None = None
        self._snapshot: Snapshot | None = None
        self._hosts: dict[str, asyncio.Task[None]] = {}  # of this snapshot
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by host; guards: its copy
        self._packs: dict[str, tuple[str, bytes]] = {}  # commit and pack, by the commit that the receiver has
        self._has_warned = False

    async def take(self, client: Any, workers: Iterable[RemoteWorker]) -> None:
        """Take a snapshot of the files as they are now. Raises ClusterError.

        Meanwhile the workers' hosts restore the files of the last one.
        """
        try:
            repository = await asyncio.to_thread(self._open_repository)
        except OSError as error:
            raise ClusterError(f"dask: no snapshot of the files: {to_one_line(describe(error))}") from None
        hosts = {worker.host_key: worker for worker in workers}
        # A host that fails here fails again when it receives the files, with the reason.
        restoring = asyncio.gather(
            *(self._restore(client, worker, repository.folder) for worker in hosts.values()), return_exceptions=True
        )
        try:
            self._snapshot = await asyncio.to_thread(self._take, repository)
        finally:
            await restoring
        self._hosts.clear()
        self._packs.clear()

    async def provide(self, client: Any, worker: RemoteWorker) -> None:
        """Bring the files of a worker's host to the snapshot, if there is one. Raises OSError and ClusterError."""
        if self._snapshot is None:
            return
        earlier = self._hosts.get(worker.host_key)
        was_done = earlier is not None and earlier.done()
        _, known, path = await transfers.call_worker(
            client, worker.address, agent.open_tree, self._session, self._snapshot.folder, self._project
        )
        # The host's workers may have ended, and another session may have used their copy, or the host lost it.
        if was_done and self._hosts.get(worker.host_key) is earlier and known not in self._list_commits():
            del self._hosts[worker.host_key]
        while True:
            running = self._hosts.get(worker.host_key)
            is_own = running is None or (running.done() and (running.cancelled() or running.exception() is not None))
            if running is None or is_own:
                running = asyncio.get_running_loop().create_task(self._send(client, worker, known, path))
                self._hosts[worker.host_key] = running
            try:
                await asyncio.shield(running)
            except (OSError, ClusterError):
                if is_own:
                    raise  # otherwise the other worker may have ended
            else:
                return

    def _list_commits(self) -> set[str]:
        """Return the commits as which the snapshot was sent: each is the difference to another one."""
        return {commit for commit, _ in self._packs.values()}

    async def _restore(self, client: Any, worker: RemoteWorker, folder: str) -> None:
        call = transfers.call_worker
        async with self._locks[worker.host_key]:
            await call(client, worker.address, agent.open_tree, self._session, folder, self._project)
            await call(client, worker.address, agent.restore_tree, self._session)

    async def _send(self, client: Any, worker: RemoteWorker, known: str, path: str) -> None:
        snapshot, repository = self._snapshot, self._repository
        assert snapshot is not None and repository is not None
        base = known if await asyncio.to_thread(repository.has, known) else ""
        if base not in self._packs:
            most = self._settings.upload_max_bytes
            self._packs[base] = await asyncio.to_thread(repository.pack, snapshot, base, most_bytes=most)
        commit, pack = self._packs[base]
        call = transfers.call_worker
        async with self._locks[worker.host_key]:
            try:
                await transfers.send_bytes(client, worker.address, pack, path)
                await call(client, worker.address, agent.install_tree, self._session, commit)
            except OSError:
                with contextlib.suppress(OSError):  # the host may have gone, too
                    await call(client, worker.address, transfers.remove_files, (path,))  # a full disk has room again
                raise

    def _open_repository(self) -> Repository:
        if self._repository is None:
            place = find_cache_folder(os.environ) / "snapshots" / f"{self._project}.git"
            self._repository = Repository(self._settings.root, place)
        return self._repository

    def _take(self, repository: Repository) -> Snapshot:
        snapshot = repository.take(self._settings.include)
        if snapshot.submodules and not self._has_warned:
            self._has_warned = True
            log.warning("submodules are not sent to the workers", extra={"submodules": ", ".join(snapshot.submodules)})
        return snapshot


async def fetch_files(
    client: Any, address: str, item: WorkItem, reply: TaskReply, *, root: Path, wants_outputs: bool, max_bytes: int
) -> None:
    """Fetch all files of a reply. Raises OSError, also for an output outside `root`, or for more than `max_bytes`.

    An error of the stage's output file is noted in `item` and logged, and costs the task nothing.
    """
    options, fetched = item.options, list[str]()
    download = _Download(client, address, max_bytes)
    if wants_outputs:
        for output in reply.outputs:
            path = choose_destination(root, output.name, options.outputs)
            await _write_file(download, output, path)
    if reply.report is not None and options.report is not None:
        await _write_file(download, reply.report, options.report)
        fetched += [reply.report.path] if reply.report.content is None else []
    if reply.output is not None:
        await _write_output(download, reply.output, item)
        fetched += [reply.output.path] if reply.output.content is None else []
    if fetched:
        await transfers.call_worker(client, address, transfers.remove_files, tuple(fetched))


def choose_destination(root: Path, name: str, patterns: tuple[str, ...]) -> Path:
    """Return where an output goes. Raises OSError for a name that no pattern asked for, or that leaves `root`."""
    path = root / name
    inside = name == os.path.normpath(name) and root.resolve() in path.resolve().parents
    if not inside or path.name == ".git" or not InputPatterns(patterns).could_find(name):
        raise OSError(f"the worker offers {name!r}, which no pattern of outputs asks for")
    return path


class _Download:
    """Reads the files of one reply, up to `max_bytes` of all together: a worker may send a file without end."""

    def __init__(self, client: Any, address: str, max_bytes: int) -> None:
        self._client = client
        self._address = address
        self._max_bytes = self._left_bytes = max_bytes

    async def read(self, file: RemoteFile) -> AsyncIterator[bytes]:
        """Yield the pieces of a file. Raises OSError."""
        if file.content is not None:
            yield self._count(file.content)
            return
        async for piece in transfers.fetch_pieces(self._client, self._address, file.path):
            yield self._count(piece)

    def _count(self, piece: bytes) -> bytes:
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise OSError(f"they have more than {self._max_bytes:,} bytes, dask.upload.max: write less, or raise it")
        return piece


async def _write_file(download: _Download, file: RemoteFile, path: Path) -> None:
    """Write a file beside its place, then move it there: readers never see a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode & 0o777 | 0o600), "wb") as made:
            async for piece in download.read(file):
                await asyncio.to_thread(made.write, piece)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


async def _write_output(download: _Download, file: RemoteFile, item: WorkItem) -> None:
    """Append the whole output of a task to its stage's file, and hand it to the task logs."""
    open_sink = item.options.open_sink
    with Capture(item.options.output_file, None if open_sink is None else open_sink()) as capture:
        async for piece in download.read(file):
            capture.write(piece)
    if capture.file_error:
        item.lacks_output_file = True
        log.warning(capture.file_error)
