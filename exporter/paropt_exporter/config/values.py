"""The keys of `paropt.yml` and of the host config: their names, types, defaults and descriptions.

Each class is a section, and its instances have the values of a valid file. The string below a key describes it in the
JSON Schema. The type of a key is one of `fields`, which says what a file may have there: a duration becomes seconds, a
size bytes.

A run with an unchanged config, which `parsed_configs` keeps, loads neither `fields` nor pydantic: annotations stay
strings until `model` builds the models that validate a file.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct, field

from paropt_exporter.events import SlaLimit, Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from paropt_exporter.config.fields import (
        Addresses,
        Boolean,
        Cache,
        CallTarget,
        Command,
        Count,
        Date,
        Duration,
        DurationOrZero,
        EnvironmentPattern,
        FileItem,
        HeaderFiles,
        Headers,
        InputPattern,
        Inputs,
        Name,
        OneOrByName,
        OutputPattern,
        PositiveNumber,
        Query,
        Ratio,
        RequestCount,
        RetryCount,
        RunCount,
        Scheduler,
        Size,
        StageList,
        StageNumber,
        StageSelection,
        Steps,
        Text,
        Url,
        UrlPath,
        Variable,
        Word,
    )

ALL_STAGES = "*"  # in a lane's limits by stage: all other stages


class Workers(Struct, frozen=True, kw_only=True):
    """How many tasks of a lane run at once: `auto`, a number, or bounds of the size."""

    min: Count | None = None
    """Never fewer workers than this. Default: 1."""
    max: Count | None = None
    """Never more workers than this. Default: as `auto` chooses."""
    start: Count | None = None
    """Workers at the start. Default: the cores allowed, within min and max."""


class Sla(Struct, frozen=True, kw_only=True):
    """A limit on a duration, checked while the work runs: a duration or a mapping."""

    max: Duration
    """The limit on the duration."""
    warn_at: Ratio = 0.8
    """The ratio of `max` at which to warn, over 0 and at most 1."""
    critical: Boolean = False
    """Whether breaking the limit stops the lane (exit code 4)."""

    def to_limit(self) -> SlaLimit:
        return SlaLimit(max_seconds=self.max, warn_seconds=self.max * self.warn_at, critical=self.critical)


class Retries(Struct, frozen=True, kw_only=True):
    """How often a failed task is retried: a number or a mapping."""

    count: RetryCount = 0
    """Attempts after the first one."""
    flaky: RetryCount = 0
    """Attempts after the first one while the stage is known to be flaky: it failed before and passed later with the
    same files. Not if three stages or more fail in a run.
    """
    backoff: DurationOrZero = 1.0
    """The wait before the first retry; it doubles with each retry."""


class Quarantine(Struct, frozen=True, kw_only=True):
    """An item whose failure does not fail its stage for a while."""

    item: FileItem
    """One of the stage's items, a whole file."""
    owner: Text
    """Who makes it reliable again."""
    until: Date
    """The last day, in UTC. From the next one on its failures count again."""


class Items(Struct, frozen=True, kw_only=True):
    """The items that a stage is split into; exactly one of list, glob, command and changed."""

    list: tuple[Word, ...] | None = None
    """The items themselves."""
    glob: Text | None = None
    """Files that match, relative to the stage's `cwd`, sorted by name; found before the run starts, within 60 s."""
    command: Command | None = None
    """A command; each line that it prints is an item. Ends within 60 s. It runs before each run of the lane, and for
    the commands `plan` and `profile` too.
    """
    changed: InputPattern | None = None
    """Of the files that match, relative to the stage's `cwd`, those that differ from the commit of `--affected`, or
    from where the branch left the main branch. Without one the stage is skipped.
    """
    allow_empty: Boolean = False
    """Skip the stage if it has no items. Default: it fails."""


AUTO_INPUTS = "auto"  # among the inputs of a stage: the files that its commands are seen to read; `./auto` is a file


class Stage(Struct, frozen=True, kw_only=True):
    """One step of the workflow, with exactly one of `run`, `call` and `steps`."""

    number: StageNumber
    """Its number; breaks ties in the order. Default: the next one above those before it."""
    name: Name
    """Its name, the label `stage` of its metrics."""
    description: Text | None = None
    """Its purpose in a line, for `--list`."""
    run: Command | None = None
    """A command: a line, split into words like a shell does but run without one, or a list of words. `{args}` stands
    for the arguments after `--` on the command line.
    """
    call: CallTarget | None = None
    """A Python function, `module:function`. If the stage has `items`, each item is the argument of a call."""
    steps: Steps | None = None
    """Commands that run one after another in one task; the first failure ends it."""
    items: Items | None = None
    """The items that the stage is split into: `{item}` in its words is one item for each task, `{items}` is several for
    each command, in balanced batches.
    """
    needs: tuple[Word, ...] = ()
    """Names of the stages that must have succeeded before this one starts."""
    retries: Retries = Retries()
    """How often a failed task is retried. Default: 0."""
    quarantine: tuple[Quarantine, ...] = ()
    """Flaky items: until a date a failure or timeout of one is shown, but does not fail the stage."""
    timeout: Duration | None = None
    """The limit on each attempt, after which all its processes are ended."""
    env: Mapping[Variable, Word] = field(default_factory=lambda: MappingProxyType({}))
    """Environment variables, added to those of the exporter. PATH begins with the active virtual environment, or with
    the nearest .venv or venv (in the stage's folder or above), unless it is set here.
    """
    cwd: Text | None = None
    """Where the commands run and globs start, relative to the config's folder."""
    shell: Boolean = False
    """Whether /bin/sh reads the line of `run`: pipes, &&, $VARIABLES. It ends at the first failure (`sh -e`)."""
    file: Text | None = None
    """A file for the output of all tasks and attempts, relative to the config's folder; each run empties it. In a stage
    of several tasks an attempt's output is added when it ends, in one piece up to 256 KiB; longer output is cut between
    lines.
    """
    inputs: Inputs | None = None
    """The files that the stage reads: paths, folders (all files in them) and globs, relative to the stage's `cwd`; `!`
    before one leaves files out, `{item}` is the task's item. Default: the files that git tracks, and others that it
    does not ignore. `auto`, alone or in the list: the files that its commands are seen to read; the others count where
    the system does not let them be traced.
    """
    outputs: tuple[OutputPattern, ...] = ()
    """The files that the stage writes, written like `inputs`. A cached stage keeps them with its result and restores
    them instead of running again; in a lane of strategy dask they come back from the worker.
    """
    cache: Cache = "auto"
    """Whether an unchanged stage is skipped, and its output shown again. `auto`: if it has `inputs`; `true`: also
    without them; `never`: it always runs, as a deployment should.
    """
    pass_env: tuple[EnvironmentPattern, ...] = ()
    """Environment variables, by name or glob, that a cached stage sees besides `env` and a few standard ones; a change
    of a value runs the stage again.
    """
    sla: Sla | None = None
    """The limit on the stage's duration; it overrides its lane's for all."""
    locks: tuple[Name, ...] = ()
    """Stages that share a name here never overlap."""
    exclusive: Boolean = False
    """Whether nothing else may run while this stage runs."""
    memory: Size | None = None
    """The memory that each of its tasks needs; a task starts when as much is free."""
    slots: Count = 1
    """How many workers' slots each of its tasks takes."""
    local: Boolean = False
    """Whether it stays on this host in a lane of strategy dask. Other lanes ignore it."""

    @property
    def commands(self) -> tuple[str | tuple[str, ...], ...]:
        """The commands of `run` or `steps`, each a line or words; none for a call."""
        return (self.run,) if self.run is not None else self.steps or ()

    @property
    def traces_inputs(self) -> bool:
        """Whether its inputs are the files that its commands are seen to read (`inputs: auto`)."""
        return AUTO_INPUTS in (self.inputs or ())

    @property
    def declared_inputs(self) -> tuple[str, ...] | None:
        """The patterns of its inputs. None: the files that git does not ignore."""
        return tuple(pattern for pattern in self.inputs or () if pattern != AUTO_INPUTS) or None


class Lane(Struct, frozen=True, kw_only=True):
    """One way of running the workflow."""

    description: Text | None = None
    """Its purpose in a line, for `--list`."""
    strategy: Strategy = Strategy.ADAPTIVE
    """Where its tasks run."""
    workers: Workers = Workers()
    """How many tasks run at once. Default: auto."""
    sla: OneOrByName[Sla] | None = None
    """The limit on the duration of each of its stages: a limit, or limits by the names of stages, of which `*` is that
    of all others. One that names a stage wins over the stage's own.
    """
    total: Sla | None = None
    """The limit on the duration of the whole lane."""
    fail_fast: Boolean = False
    """Whether the first failed stage ends the lane."""
    stages: StageSelection | None = None
    """Only these stages, by name or number, and those that they need. Default: all."""

    def includes(self, stage: Stage) -> bool:
        return self.stages is None or stage.name in self.stages

    def get_limit(self, stage: Stage) -> Sla | None:
        """Return the limit on a stage: the lane's for it by name, its own, or the lane's for all."""
        if self.sla is None or isinstance(self.sla, Sla):
            return stage.sla or self.sla
        return self.sla.get(stage.name) or stage.sla or self.sla.get(ALL_STAGES)


class BasicAuth(Struct, frozen=True, kw_only=True):
    """A user name and a password, which comes from a file or an environment variable."""

    username: Text
    """The name."""
    password_file: Text | None = None
    """A file with the password; read for each query."""
    password_env: Variable | None = None
    """The environment variable with the password."""


class Tls(Struct, frozen=True, kw_only=True):
    """Certificates of a connection, with paths relative to the config's folder."""

    ca_file: Text | None = None
    """Trusted certificates. Default: the system's."""
    cert_file: Text | None = None
    """The client certificate, for a server that requires one."""
    key_file: Text | None = None
    """Its private key. Default: in cert_file."""


class Access(Struct, frozen=True, kw_only=True):
    """How to authenticate to a server, with paths relative to the config's folder; absolute ones of the host config."""

    bearer_token_file: Text | None = None
    """A file with the token; read again for each request."""
    bearer_token_env: Variable | None = None
    """The environment variable with the token."""
    basic_auth: BasicAuth | None = None
    """A name and a password instead of a token."""
    tls: Tls | None = None
    """Certificates for https."""
    headers: Headers = field(default_factory=lambda: MappingProxyType({}))
    """Headers sent with each request, such as X-Scope-OrgID."""
    header_files: HeaderFiles = field(default_factory=lambda: MappingProxyType({}))
    """Headers whose values are secret: each in a file."""


class Prometheus(Access, frozen=True, kw_only=True):
    """The Prometheus, Thanos, Mimir or VictoriaMetrics to query."""

    url: Url | None = None
    """Its base URL; a path is kept. Default: the one of the host config."""
    timeout: Duration = 5.0
    """The longest time that one query may take."""


class Signal(Struct, frozen=True, kw_only=True):
    """A query of your own that influences the size of the pools."""

    query: Query
    """PromQL; its answer must be one number."""
    use: Literal["load", "limit"]
    """`load`: the floor is value / target workers. `limit`: above the target the ceiling falls."""
    target: PositiveNumber
    """For `load` the value per worker, for `limit` the highest value."""


class Feedback(Struct, frozen=True, kw_only=True):
    """How the size of the pools is controlled."""

    prometheus: Prometheus | None = None
    """The server to query. Default: none, own counters only."""
    interval: Duration = 15.0
    """The time between two queries."""
    mode: Literal["act", "advise"] = "act"
    """`advise` computes and exports decisions, and resizes nothing."""
    source: Literal["both", "local", "prometheus"] | None = None
    """Which measurements count. Default: both with a URL, otherwise local."""
    objective: Literal["fast", "deadline"] = "fast"
    """`fast`: as many workers as help. `deadline`: just enough to keep the lane's `total` and its stages' limits."""
    window: Duration | None = None
    """The range of rates, at least four scrapes. Default: 1m or 4 intervals, whichever is longer."""
    stabilization: Duration | None = None
    """How long a lower floor must suffice before it applies. Default: 3 windows, at least 1m."""
    signals: Mapping[Name, Signal] = field(default_factory=lambda: MappingProxyType({}))
    """Queries of your own, by name."""
    jobserver: Boolean = False
    """Share the slots with make (4.4 or later), ninja and cargo in the stages, by make's jobserver."""


class Web(Struct, frozen=True, kw_only=True):
    """The endpoint that Prometheus scrapes. Flags override it."""

    listen_address: Addresses = ()
    """Where to listen, one address or a list. Default: 127.0.0.1:10178."""
    telemetry_path: UrlPath = "/metrics"
    """The path of the metrics."""
    max_requests: RequestCount = 0
    """Scrapes that wait for their page at once; more get 503. 0: no limit."""
    disable_exporter_metrics: Boolean = False
    """Leave out process_* and python_* metrics."""
    config_file: Text | None = None
    """A file with TLS, basic authentication and headers, as exporter-toolkit has it."""


class Push(Access, frozen=True, kw_only=True):
    """The Pushgateway that receives the final values of each run. Flags override it."""

    url: Url | None = None
    """Its base URL; a path is kept. Default: the one of the host config, or nothing is pushed."""
    fail: Boolean = False
    """Whether a push that fails makes the exit code 3."""
    job: Text = "paropt"
    """The label `job` of the pushed values."""
    instance: Text | None = None
    """The label `instance` of the pushed values. Default: the host's name. The history has totals for each name."""
    timeout: Duration = 10.0
    """The longest time that a push may take, with its retries."""


class Server(Access, frozen=True, kw_only=True):
    """A server, and the credentials that this host sends to it and nowhere else."""

    url: Url
    """Its URL. The entry is for this host and port, and for paths below this one."""


class DefaultUrl(Struct, frozen=True, kw_only=True):
    """The server for projects whose `paropt.yml` names none."""

    url: Url
    """Its base URL; a path is kept."""


class RemoteCacheUrl(Struct, frozen=True, kw_only=True):
    """The remote cache of this host."""

    url: Url
    """Its base URL; a path is kept."""
    write: Boolean = False
    """Whether results of this host are uploaded."""


class Permission(Struct, frozen=True, kw_only=True):
    """Where credentials may go that a `paropt.yml` names; with both keys, both must hold."""

    url: Url | None = None
    """To this server, and paths below this one."""
    repository: Text | None = None
    """If the project is in this folder, or below it."""


class HostFile(Struct, frozen=True, kw_only=True):
    """The servers of a host, the credentials for them, and the projects that may name their own."""

    servers: tuple[Server, ...] = ()
    """Servers with their credentials."""
    prometheus: DefaultUrl | None = None
    """Queried for lanes without feedback.prometheus."""
    push: DefaultUrl | None = None
    """The Pushgateway of lanes without push.url."""
    cache: RemoteCacheUrl | None = None
    """The remote cache of results."""
    allow: tuple[Permission, ...] = ()
    """Where credentials of a paropt.yml may go."""
    only_known_urls: Boolean = False
    """Whether a paropt.yml may name only URLs that are listed here."""


class Keep(Struct, frozen=True, kw_only=True):
    """How long runs stay in the history: a number of runs, a duration, or a mapping of runs, age and size."""

    runs: RunCount | None = None
    """The number of latest runs to keep. Default: 1000; no limit if `keep` has only an age or a size."""
    age: Duration | None = None
    """The age up to which to keep runs. Default: any age."""
    size: Size = 512 << 20
    """The size of the file up to which to keep runs; each lane's last run stays. Default: 512MiB."""


class Logs(Struct, frozen=True, kw_only=True):
    """How much output of tasks is kept, in a file for each run beside the history; `false` keeps none."""

    enabled: Boolean = True
    """Whether the output of tasks is kept."""
    run: Size = 64 << 20
    """The limit for one run; of longer output the start and the end are kept. Default: 64MiB."""
    total: Size = 256 << 20
    """The limit for all runs together; the oldest are removed. Default: 256MiB."""
    age: Duration = 14 * 86_400.0
    """The age up to which to keep output. Default: 14d."""


class DaskTls(Struct, frozen=True, kw_only=True):
    """The certificates of the cluster, with paths relative to the config's folder."""

    ca: Text
    """The cluster's own authority. A client with a certificate of it runs code in the cluster."""
    cert: Text
    """Our certificate."""
    key: Text
    """Its private key."""


class DaskUpload(Struct, frozen=True, kw_only=True):
    """The files that each host receives: those that git knows or does not ignore, and these."""

    include: tuple[Text, ...] = ()
    """Further files, though git ignores them: paths relative to the config's folder."""
    max: Size = 500_000_000
    """The largest transfer to a host, and of the files of a task from it. Default: 500 MB."""


class Dask(Struct, frozen=True, kw_only=True):
    """The cluster of lanes with `strategy: dask`. Without a scheduler, file or cluster, it is one on this host."""

    scheduler: Scheduler | None = None
    """The address of a scheduler whose workers others manage, such as tls://sched:8786."""
    file: Text | None = None
    """A scheduler file, as `dask scheduler --scheduler-file` writes."""
    cluster: CallTarget | None = None
    """A function, `module:function`, that returns a cluster of dask-kubernetes, dask-jobqueue and others. It is sized
    by this program and closed at the end.
    """
    tls: DaskTls | None = None
    """The certificates for a tls:// address."""
    insecure: Boolean = False
    """Allow tcp:// outside this host: anyone who reaches the scheduler runs code."""
    shared: Text | None = None
    """The folder where every worker finds the project's files. Default: each host receives a copy."""
    upload: DaskUpload = DaskUpload()
    """What the copies contain."""
    pass_env: tuple[Variable, ...] = ()
    """The variables of the exporter that reach the tasks, besides a stage's `env`."""
    partition_grace: Duration = 45.0
    """How long after its last answer a cut-off worker's tasks count as running, before they fail."""
    start_timeout: Duration = 120.0
    """The longest wait for the first worker of a cluster."""


class History(Struct, frozen=True, kw_only=True):
    """The record of earlier runs."""

    path: Text = ".paropt/history.db"
    """The SQLite file, relative to the config's folder."""
    keep: Keep = Keep(runs=1000)
    """How much of it to keep. Totals are always kept."""
    logs: Logs = Logs()
    """How much output of tasks to keep, for the command `log`."""


class File(Struct, frozen=True, kw_only=True):
    """A workflow: stages, and the lanes that run them."""

    project: Name | None = None
    """The label `project` of every metric. Default: the folder's name."""
    lanes: Mapping[Name, Lane] = field(default_factory=lambda: MappingProxyType({}))
    """Lanes by name. docs, standard and heavy exist; keys that you leave out keep their defaults."""
    stages: StageList[Stage] | None = None
    """Default: the five built-in stages for the tools found."""
    feedback: Feedback = Feedback()
    """Control of the pools' size by own counters or queries."""
    web: Web = Web()
    """The endpoint that Prometheus scrapes."""
    push: Push = Push()
    """The Pushgateway for the final values of each run."""
    dask: Dask = Dask()
    """The cluster of lanes with strategy dask."""
    history: History = History()
    """Where runs are recorded, and for how long."""


class CheckedFile(File, frozen=True, kw_only=True):
    """A valid file, with the default lanes. `stages` is None if it lists none: built-in ones are to be detected.

    `places` has the position of each stage, as `:line:column: stages[index]`.
    """

    places: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
