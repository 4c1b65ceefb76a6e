"""The settings of a cluster: where its scheduler is, how to trust it, and how files reach the workers."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from paropt_exporter.errors import ParoptError

INSTALL_HINT = "pip install 'paropt-exporter[dask]'"


class ClusterError(ParoptError):
    """The cluster can't be used: no scheduler, no fit worker, or no trust between the two sides."""

    exit_code = 2


class TlsFiles(Struct, frozen=True, kw_only=True):
    """The certificates of a connection, in PEM files."""

    ca: Path
    cert: Path
    key: Path


class ClusterSettings(Struct, frozen=True, kw_only=True):
    """Where the workers are, and what reaches them.

    At most one of `scheduler` (an address), `scheduler_file` and `factory` (`module:function`) is set; with none of
    them the workers run on this host. `shared_root`: the folder in which the workers find the files of the project;
    None: each host receives a copy.
    """

    root: Path
    scheduler: str = ""
    scheduler_file: Path | None = None
    factory: str = ""
    tls: TlsFiles | None = None
    insecure: bool = False
    shared_root: str | None = None
    include: tuple[str, ...] = ()
    upload_max_bytes: int = 500_000_000
    partition_grace_seconds: float = 45.0
    start_timeout_seconds: float = 120.0
    worker_timeout_seconds: float = 10.0  # for the first worker of a fixed cluster
    reconnect_seconds: float = 30.0
    idle_seconds: float = 10.0

    @property
    def is_fixed(self) -> bool:
        """Whether someone else decides how many workers there are."""
        return bool(self.scheduler or self.scheduler_file)

    @property
    def is_local(self) -> bool:
        """Whether the workers run on this host."""
        return not self.is_fixed and not self.factory
