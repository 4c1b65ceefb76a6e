"""The values of a checked `paropt.yml` or host config; `model` and `host_model` have their meanings.

They are separate from the pydantic models of the same names, so that a run with an unchanged config, which
`parsed_configs` keeps, does not load pydantic. The defaults count that are here; `model` repeats them for the schema.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct, field

from paropt_exporter.events import SlaLimit, Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

ALL_STAGES = "*"  # in a lane's limits by stage: all other stages


class Workers(Struct, frozen=True, kw_only=True):
    """How many tasks of a lane run at once. None: as `auto` chooses."""

    min: int | None = None
    max: int | None = None
    start: int | None = None


class Sla(Struct, frozen=True, kw_only=True):
    """A limit on a duration: `max` in seconds, `warn_at` as a ratio of it."""

    max: float
    warn_at: float = 0.8
    critical: bool = False

    def to_limit(self) -> SlaLimit:
        return SlaLimit(max_seconds=self.max, warn_seconds=self.max * self.warn_at, critical=self.critical)


class Retries(Struct, frozen=True, kw_only=True):
    """How often a failed task is retried, after a wait in seconds that doubles each time."""

    count: int = 0
    flaky: int = 0
    backoff: float = 1.0


class Quarantine(Struct, frozen=True, kw_only=True):
    """An item whose failure does not fail its stage, until the end of a day in UTC, in ISO 8601."""

    item: str
    owner: str
    until: str


class Items(Struct, frozen=True, kw_only=True):
    """The items that a stage is split into: exactly one of list, glob, command and changed is set."""

    list: tuple[str, ...] | None = None
    glob: str | None = None
    command: str | tuple[str, ...] | None = None
    changed: str | None = None
    allow_empty: bool = False


AUTO_INPUTS = "auto"  # among the inputs of a stage: the files that its commands are seen to read; `./auto` is a file


class Stage(Struct, frozen=True, kw_only=True):
    """One step of the workflow, with exactly one of `run`, `call` and `steps`; `memory` in bytes."""

    number: int
    name: str
    description: str | None = None
    run: str | tuple[str, ...] | None = None
    call: str | None = None
    steps: tuple[str | tuple[str, ...], ...] | None = None
    items: Items | None = None
    needs: tuple[str, ...] = ()
    retries: Retries = Retries()
    quarantine: tuple[Quarantine, ...] = ()
    timeout: float | None = None
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cwd: str | None = None
    shell: bool = False
    file: str | None = None
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] = ()
    cache: Literal["auto", "always", "never"] = "auto"
    pass_env: tuple[str, ...] = ()
    sla: Sla | None = None
    locks: tuple[str, ...] = ()
    exclusive: bool = False
    memory: int | None = None
    slots: int = 1
    local: bool = False

    @property
    def traces_inputs(self) -> bool:
        """Whether its inputs are the files that its commands are seen to read (`inputs: auto`)."""
        return AUTO_INPUTS in (self.inputs or ())

    @property
    def declared_inputs(self) -> tuple[str, ...] | None:
        """The patterns of its inputs. None: the files that git does not ignore."""
        return tuple(pattern for pattern in self.inputs or () if pattern != AUTO_INPUTS) or None


class Lane(Struct, frozen=True, kw_only=True):
    """One way of running the workflow. `sla`: a limit for each stage, or limits by the names of stages."""

    description: str | None = None
    strategy: Strategy = Strategy.ADAPTIVE
    workers: Workers = Workers()
    sla: Sla | Mapping[str, Sla] | None = None
    total: Sla | None = None
    fail_fast: bool = False
    stages: tuple[str, ...] | None = None

    def includes(self, stage: Stage) -> bool:
        return self.stages is None or stage.name in self.stages

    def get_limit(self, stage: Stage) -> Sla | None:
        """Return the limit on a stage: the lane's for it by name, its own, or the lane's for all."""
        if self.sla is None or isinstance(self.sla, Sla):
            return stage.sla or self.sla
        return self.sla.get(stage.name) or stage.sla or self.sla.get(ALL_STAGES)


class BasicAuth(Struct, frozen=True, kw_only=True):
    """A user name, and where its password is."""

    username: str
    password_file: str | None = None
    password_env: str | None = None


class Tls(Struct, frozen=True, kw_only=True):
    """Certificates of a connection, with paths relative to the config's folder."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class Access(Struct, frozen=True, kw_only=True):
    """How to authenticate to a server, with paths relative to the config's folder; absolute ones of the host config."""

    bearer_token_file: str | None = None
    bearer_token_env: str | None = None
    basic_auth: BasicAuth | None = None
    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    header_files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Prometheus(Access, frozen=True, kw_only=True):
    """The server to query; `timeout` in seconds. Without a `url` it is the one of the host config."""

    url: str | None = None
    timeout: float = 5.0


class Signal(Struct, frozen=True, kw_only=True):
    """A query of the user's own that influences the size of the pools."""

    query: str
    use: Literal["load", "limit"]
    target: float


class Feedback(Struct, frozen=True, kw_only=True):
    """How the size of the pools is controlled; durations in seconds."""

    prometheus: Prometheus | None = None
    interval: float = 15.0
    mode: Literal["act", "advise"] = "act"
    source: Literal["both", "local", "prometheus"] | None = None
    objective: Literal["fast", "deadline"] = "fast"
    window: float | None = None
    stabilization: float | None = None
    signals: Mapping[str, Signal] = field(default_factory=lambda: MappingProxyType({}))
    jobserver: bool = False


class Web(Struct, frozen=True, kw_only=True):
    """The endpoint that Prometheus scrapes."""

    listen_address: tuple[str, ...] = ()
    telemetry_path: str = "/metrics"
    max_requests: int = 0
    disable_exporter_metrics: bool = False
    config_file: str | None = None


class Push(Access, frozen=True, kw_only=True):
    """The Pushgateway that receives the final values of each run; `timeout` in seconds."""

    url: str | None = None
    fail: bool = False
    job: str = "paropt"
    instance: str | None = None
    timeout: float = 10.0


class Server(Access, frozen=True, kw_only=True):
    """A server, and the credentials that this host sends to it and nowhere else."""

    url: str


class DefaultUrl(Struct, frozen=True, kw_only=True):
    """The server for projects whose `paropt.yml` names none."""

    url: str


class RemoteCacheUrl(Struct, frozen=True, kw_only=True):
    """The remote cache of this host, and whether its results are uploaded."""

    url: str
    write: bool = False


class Permission(Struct, frozen=True, kw_only=True):
    """Where credentials may go that a `paropt.yml` names: below a URL, of a project in a folder, or both."""

    url: str | None = None
    repository: str | None = None


class HostFile(Struct, frozen=True, kw_only=True):
    """A checked host config. `only_known_urls`: a `paropt.yml` names no other URLs than those listed here."""

    servers: tuple[Server, ...] = ()
    prometheus: DefaultUrl | None = None
    push: DefaultUrl | None = None
    cache: RemoteCacheUrl | None = None
    allow: tuple[Permission, ...] = ()
    only_known_urls: bool = False


class Keep(Struct, frozen=True, kw_only=True):
    """How many runs, up to which age in seconds and which size of the file in bytes, stay in the history."""

    runs: int | None = None
    age: float | None = None
    size: int = 512 << 20


class Logs(Struct, frozen=True, kw_only=True):
    """How much output of tasks is kept: bytes of one run and of all, and the age in seconds."""

    enabled: bool = True
    run: int = 64 << 20
    total: int = 256 << 20
    age: float = 14 * 86_400.0


class DaskTls(Struct, frozen=True, kw_only=True):
    """The certificates of a cluster, with paths relative to the config's folder."""

    ca: str
    cert: str
    key: str


class DaskUpload(Struct, frozen=True, kw_only=True):
    """The files that each host receives besides those of git; `max` in bytes, also of the files that a task returns."""

    include: tuple[str, ...] = ()
    max: int = 500_000_000


class Dask(Struct, frozen=True, kw_only=True):
    """The cluster of lanes with strategy dask; durations in seconds."""

    scheduler: str | None = None
    file: str | None = None
    cluster: str | None = None
    tls: DaskTls | None = None
    insecure: bool = False
    shared: str | None = None
    upload: DaskUpload = DaskUpload()
    pass_env: tuple[str, ...] = ()
    partition_grace: float = 45.0
    start_timeout: float = 120.0


class History(Struct, frozen=True, kw_only=True):
    """The record of earlier runs."""

    path: str = ".paropt/history.db"
    keep: Keep = Keep(runs=1000)
    logs: Logs = Logs()


class File(Struct, frozen=True, kw_only=True):
    """A whole file, with the default lanes. `stages` is None if it lists none: built-in ones are to be detected.

    `places` has the position of each stage, as `:line:column: stages[index]`.
    """

    project: str | None = None
    lanes: Mapping[str, Lane] = field(default_factory=lambda: MappingProxyType({}))
    stages: tuple[Stage, ...] | None = None
    feedback: Feedback = Feedback()
    web: Web = Web()
    push: Push = Push()
    dask: Dask = Dask()
    history: History = History()
    places: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
