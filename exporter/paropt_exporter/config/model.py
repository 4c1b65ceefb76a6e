"""The keys of `paropt.yml` with their meanings and types, as pydantic models that validate and report faults.

The rest of the program reads `values`, whose classes have the same names and fields: `to_values` converts.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StrictInt,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from paropt_exporter.config import values
from paropt_exporter.config.fields import (
    Addresses,
    CallTarget,
    Command,
    Date,
    Duration,
    DurationOrZero,
    EnvironmentPattern,
    FileItem,
    HeaderFiles,
    Headers,
    InputPattern,
    Name,
    OutputPattern,
    Query,
    Scheduler,
    Size,
    Text,
    Url,
    UrlPath,
    Variable,
    Word,
)
from paropt_exporter.config.units import DURATION_PATTERN, MOST_REQUESTS, MOST_WORKERS, format_value
from paropt_exporter.events import Strategy

MOST_STAGES = 10_000  # one scrape renders as many in under a second

_DURATION_TEXT = {"type": "string", "pattern": DURATION_PATTERN}
_SECONDS = {"type": "number", "exclusiveMinimum": 0}

Count = Annotated[StrictInt, Field(ge=1, le=MOST_WORKERS)]
Ratio = Annotated[float, Field(gt=0, le=1, strict=True)]


class Section(BaseModel):
    """A mapping of the file, immutable. Unknown keys are faults."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=False, defer_build=True
    )


class Shorthand(Section):
    """A section that may also be a single value, which then is the value of one of its keys."""

    @classmethod
    def build_short_schemas(cls) -> list[dict[str, Any]]:
        """Return the JSON Schemas of the single values."""
        raise NotImplementedError

    @classmethod
    def describe_expected(cls) -> str:
        """Return the values that the section accepts, for an error message."""
        raise NotImplementedError

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [*cls.build_short_schemas(), handler(core_schema)]}


class Workers(Shorthand):
    """How many tasks of a lane run at once: `auto`, a number, or bounds of the size."""

    min: Count | None = Field(default=None, description="Never fewer workers than this. Default: 1.")
    max: Count | None = Field(default=None, description="Never more workers than this. Default: as `auto` chooses.")
    start: Count | None = Field(
        default=None, description="Workers at the start. Default: the cores allowed, within min and max."
    )

    @classmethod
    def build_short_schemas(cls) -> list[dict[str, Any]]:
        return [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MOST_WORKERS}]

    @classmethod
    def describe_expected(cls) -> str:
        return "auto, a number of workers, or a mapping of min, max and start"

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: object) -> object:
        if value == "auto":
            return {}
        if isinstance(value, int) and not isinstance(value, bool):
            return {"min": value, "max": value, "start": value}
        return value

    @model_validator(mode="after")
    def _check_order(self) -> Workers:
        given = [number for number in (self.min, self.start, self.max) if number is not None]
        if given != sorted(given):
            raise ValueError(f"expected min <= start <= max, found {', '.join(map(str, given))}")
        return self


class Sla(Shorthand):
    """A limit on a duration, checked while the work runs: a duration or a mapping."""

    max: Duration = Field(description="The limit on the duration.")
    warn_at: Ratio = Field(default=0.8, description="The ratio of `max` at which to warn, over 0 and at most 1.")
    critical: StrictBool = Field(default=False, description="Whether breaking the limit stops the lane (exit code 4).")

    @classmethod
    def build_short_schemas(cls) -> list[dict[str, Any]]:
        return [_DURATION_TEXT, _SECONDS]

    @classmethod
    def describe_expected(cls) -> str:
        return "a duration, or a mapping of max, warn_at and critical"

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: object) -> object:
        return {"max": value} if isinstance(value, str | int | float) else value


class Retries(Shorthand):
    """How often a failed task is retried: a number or a mapping."""

    count: Annotated[StrictInt, Field(ge=0, le=100)] = Field(default=0, description="Attempts after the first one.")
    flaky: Annotated[StrictInt, Field(ge=0, le=100)] = Field(
        default=0,
        description="Attempts after the first one while the stage is known to be flaky: it failed before and passed "
        "later with the same files. Not if three stages or more fail in a run.",
    )
    backoff: DurationOrZero = Field(
        default=1.0, description="The wait before the first retry; it doubles with each retry."
    )

    @classmethod
    def build_short_schemas(cls) -> list[dict[str, Any]]:
        return [{"type": "integer", "minimum": 0, "maximum": 100}]

    @classmethod
    def describe_expected(cls) -> str:
        return "a number of retries, or a mapping of count, flaky and backoff"

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: object) -> object:
        return {"count": value} if isinstance(value, int | float) else value


class Quarantine(Section):
    """An item whose failure does not fail its stage for a while."""

    item: FileItem = Field(description="One of the stage's items, a whole file.")
    owner: Text = Field(description="Who makes it reliable again.")
    until: Date = Field(description="The last day, in UTC. From the next one on its failures count again.")


class Items(Section):
    """The items that a stage is split into; exactly one of list, glob, command and changed."""

    list: tuple[Word, ...] | None = Field(default=None, description="The items themselves.")
    glob: Text | None = Field(
        default=None,
        description="Files that match, relative to the stage's `cwd`, sorted by name; found within 60 s.",
    )
    command: Command | None = Field(
        default=None,
        description="A command; each line that it prints is an item. Ends within 60 s. It runs before each run of the "
        "lane, and for the commands `plan` and `profile` too.",
    )
    changed: InputPattern | None = Field(
        default=None,
        description="Of the files that match, relative to the stage's `cwd`, those that differ from the commit of "
        "`--affected`, or from where the branch left the main branch. Without one the stage is skipped.",
    )
    allow_empty: StrictBool = Field(default=False, description="Skip the stage if it has no items. Default: it fails.")


def _parse_cache(value: object) -> str:
    if isinstance(value, bool):
        return "always" if value else "never"
    if value not in ("auto", "never"):
        raise ValueError(f"expected true, never or auto, found {format_value(value)}")
    return str(value)


def _parse_inputs(value: object) -> object:
    if isinstance(value, str) and value != values.AUTO_INPUTS:
        raise ValueError(f"expected a list or {values.AUTO_INPUTS}, found {format_value(value)}: put it in [ ]")
    return [value] if value == values.AUTO_INPUTS else value


Inputs = Annotated[
    tuple[InputPattern, ...] | None,
    BeforeValidator(_parse_inputs),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": values.AUTO_INPUTS},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ]
        }
    ),
]
# `true` is "always" here, and `false` means `never`.
Cache = Annotated[
    Literal["auto", "always", "never"],
    BeforeValidator(_parse_cache),
    WithJsonSchema({"enum": [True, False, "auto", "never"]}),
]


class Stage(Section):
    """One step of the workflow, with exactly one of `run`, `call` and `steps`."""

    # A file may leave it out: `raw_yaml.number_stages`.
    number: Annotated[StrictInt, Field(ge=0, le=1_000_000)] = Field(
        description="Its number; breaks ties in the order. Default: the next one above those before it."
    )
    name: Name = Field(description="Its name, the label `stage` of its metrics.")
    description: Text | None = Field(default=None, description="Its purpose in a line, for `--list`.")
    run: Command | None = Field(
        default=None,
        description=(
            "A command: a line, split into words like a shell does but run without one, or a list of words. `{args}` "
            "stands for the arguments after `--` on the command line."
        ),
    )
    call: CallTarget | None = Field(default=None, description="A Python function, `module:function`.")
    steps: tuple[Command, ...] | None = Field(
        default=None,
        json_schema_extra={"minItems": 1},
        description="Commands that run one after another in one task; the first failure ends it.",
    )
    items: Items | None = Field(
        default=None,
        description=(
            "The items that the stage is split into: `{item}` in its words is one item for each task, `{items}` is "
            "several for each command, in balanced batches."
        ),
    )
    needs: tuple[Word, ...] = Field(
        default=(), description="Names of the stages that must have succeeded before this one starts."
    )
    retries: Retries = Field(default=Retries(), description="How often a failed task is retried. Default: 0.")
    quarantine: tuple[Quarantine, ...] = Field(
        default=(),
        description="Flaky items: until a date a failure or timeout of one is shown, but does not fail the stage.",
    )
    timeout: Duration | None = Field(
        default=None, description="The limit on each attempt, after which all its processes are ended."
    )
    env: dict[Variable, Word] = Field(
        default={},
        description="Environment variables, added to those of the exporter. PATH begins with the active virtual "
        "environment, or with .venv or venv beside the config, unless it is set here.",
    )
    cwd: Text | None = Field(
        default=None, description="Where the commands run and globs start, relative to the config's folder."
    )
    shell: StrictBool = Field(
        default=False, description="Whether /bin/sh reads the line of `run`: pipes, &&, $VARIABLES."
    )
    file: Text | None = Field(
        default=None,
        description=(
            "A file for the output of all tasks and attempts, relative to the config's folder; each run empties it. "
            "In a stage of several tasks an attempt's output is added when it ends, in one piece up to 256 KiB; longer "
            "output is cut between lines."
        ),
    )
    inputs: Inputs = Field(
        default=None,
        description=(
            "The files that the stage reads: paths, folders (all files in them) and globs, relative to the stage's "
            "`cwd`; `!` before one leaves files out, `{item}` is the task's item. Default: the files that git tracks, "
            "and others that it does not ignore. `auto`, alone or in the list: the files that its commands are seen to "
            "read; the others count where the system does not let them be traced."
        ),
    )
    outputs: tuple[OutputPattern, ...] = Field(
        default=(),
        description=(
            "The files that the stage writes, written like `inputs`. A cached stage keeps them with its result and "
            "restores them instead of running again; in a lane of strategy dask they come back from the worker."
        ),
    )
    cache: Cache = Field(
        default="auto",
        description=(
            "Whether an unchanged stage is skipped, and its output shown again. `auto`: if it has `inputs`; `true`: "
            "also without them; `never`: it always runs, as a deployment should."
        ),
    )
    pass_env: tuple[EnvironmentPattern, ...] = Field(
        default=(),
        description=(
            "Environment variables, by name or glob, that a cached stage sees besides `env` and a few standard ones; a "
            "change of a value runs the stage again."
        ),
    )
    sla: Sla | None = Field(
        default=None, description="The limit on the stage's duration; it overrides its lane's for all."
    )
    locks: tuple[Name, ...] = Field(default=(), description="Stages that share a name here never overlap.")
    exclusive: StrictBool = Field(default=False, description="Whether nothing else may run while this stage runs.")
    memory: Size | None = Field(
        default=None, description="The memory that each of its tasks needs; a task starts when as much is free."
    )
    slots: Count = Field(default=1, description="How many workers' slots each of its tasks takes.")
    local: StrictBool = Field(
        default=False, description="Whether it stays on this host in a lane of strategy dask. Other lanes ignore it."
    )


class _AnyOf:
    """Let editors accept a value that fits several branches, such as `{max: 30s}` with a stage `max`."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        return {"anyOf": schema["oneOf"]}


_LIMIT, _LIMITS = "<limit>", "<limits>"  # tags of the branches, as in `fields`


def _limit_branch(value: object) -> str:
    return _LIMITS if isinstance(value, dict) and value and not value.keys() & Sla.model_fields.keys() else _LIMIT


StageLimits = Annotated[
    Annotated[Sla, Tag(_LIMIT)] | Annotated[dict[Name, Sla], Tag(_LIMITS)], Discriminator(_limit_branch), _AnyOf()
]


class Lane(Section):
    """One way of running the workflow."""

    description: Text | None = Field(default=None, description="Its purpose in a line, for `--list`.")
    strategy: Strategy = Field(default=Strategy.ADAPTIVE, description="Where its tasks run.")
    workers: Workers = Field(default=Workers(), description="How many tasks run at once. Default: auto.")
    sla: StageLimits | None = Field(
        default=None,
        description=(
            "The limit on the duration of each of its stages: a limit, or limits by the names of stages, of which `*` "
            "is that of all others. One that names a stage wins over the stage's own."
        ),
    )
    total: Sla | None = Field(default=None, description="The limit on the duration of the whole lane.")
    fail_fast: StrictBool = Field(default=False, description="Whether the first failed stage ends the lane.")
    stages: tuple[Word, ...] | None = Field(
        default=None,
        json_schema_extra={"minItems": 1},
        description="Only these stages, by name or number. Default: all.",
    )


class BasicAuth(Section):
    """A user name and a password, which comes from a file or an environment variable."""

    username: Text = Field(description="The name.")
    password_file: Text | None = Field(default=None, description="A file with the password; read for each query.")
    password_env: Variable | None = Field(default=None, description="The environment variable with the password.")


class Tls(Section):
    """Certificates of a connection, with paths relative to the config's folder."""

    ca_file: Text | None = Field(default=None, description="Trusted certificates. Default: the system's.")
    cert_file: Text | None = Field(default=None, description="The client certificate, for a server that requires one.")
    key_file: Text | None = Field(default=None, description="Its private key. Default: in cert_file.")


class Prometheus(Section):
    """The Prometheus, Thanos, Mimir or VictoriaMetrics to query."""

    url: Url | None = Field(
        default=None, description="Its base URL; a path is kept. Default: the one of the host config."
    )
    timeout: Duration = Field(default=5.0, description="The longest time that one query may take.")
    bearer_token_file: Text | None = Field(
        default=None, description="A file with the token; read again for each query."
    )
    bearer_token_env: Variable | None = Field(default=None, description="The environment variable with the token.")
    basic_auth: BasicAuth | None = Field(default=None, description="A name and a password instead of a token.")
    tls: Tls | None = Field(default=None, description="Certificates for https.")
    headers: Headers = Field(default={}, description="Headers sent with each query, such as X-Scope-OrgID.")
    header_files: HeaderFiles = Field(default={}, description="Headers whose values are secret: each in a file.")


class Signal(Section):
    """A query of your own that influences the size of the pools."""

    query: Query = Field(description="PromQL; its answer must be one number.")
    use: Literal["load", "limit"] = Field(
        description="`load`: the floor is value / target workers. `limit`: above the target the ceiling falls."
    )
    target: Annotated[float, Field(gt=0, strict=True)] = Field(
        description="For `load` the value per worker, for `limit` the highest value."
    )


class Feedback(Section):
    """How the size of the pools is controlled."""

    prometheus: Prometheus | None = Field(
        default=None, description="The server to query. Default: none, own counters only."
    )
    interval: Duration = Field(default=15.0, description="The time between two queries.")
    mode: Literal["act", "advise"] = Field(
        default="act", description="`advise` computes and exports decisions, and resizes nothing."
    )
    source: Literal["both", "local", "prometheus"] | None = Field(
        default=None, description="Which measurements count. Default: both with a URL, otherwise local."
    )
    objective: Literal["fast", "deadline"] = Field(
        default="fast",
        description="`fast`: as many workers as help. `deadline`: just enough to keep the lane's `total`.",
    )
    window: Duration | None = Field(
        default=None, description="The range of rates, at least four scrapes. Default: 1m, or 4 intervals."
    )
    stabilization: Duration | None = Field(
        default=None, description="How long a lower floor must suffice before it applies. Default: 3 windows."
    )
    signals: dict[Name, Signal] = Field(default={}, description="Queries of your own, by name.")
    jobserver: StrictBool = Field(
        default=False,
        description="Share the slots with make (4.4 or later), ninja and cargo in the stages, by make's jobserver.",
    )


class Web(Section):
    """The endpoint that Prometheus scrapes. Flags override it."""

    listen_address: Addresses = Field(
        default=(), description="Where to listen, one address or a list. Default: 127.0.0.1:10178."
    )
    telemetry_path: UrlPath = Field(default="/metrics", description="The path of the metrics.")
    max_requests: Annotated[StrictInt, Field(ge=0, le=MOST_REQUESTS)] = Field(
        default=0,
        description="Scrapes that wait for their page at once; more get 503. 0: no limit.",
    )
    disable_exporter_metrics: StrictBool = Field(default=False, description="Leave out process_* and python_* metrics.")
    config_file: Text | None = Field(
        default=None, description="A file with TLS, basic authentication and headers, as exporter-toolkit has it."
    )


class Push(Section):
    """The Pushgateway that receives the final values of each run. Flags override it."""

    url: Url | None = Field(
        default=None,
        description="Its base URL; a path is kept. Default: the one of the host config, or nothing is pushed.",
    )
    fail: StrictBool = Field(default=False, description="Whether a push that fails makes the exit code 3.")
    job: Text = Field(default="paropt", description="The label `job` of the pushed values.")
    instance: Text | None = Field(
        default=None, description="The label `instance` of the pushed values. Default: the host's name."
    )
    timeout: Duration = Field(default=10.0, description="The longest time that a push may take, with its retries.")
    bearer_token_file: Text | None = Field(default=None, description="A file with the token; read again for each push.")
    bearer_token_env: Variable | None = Field(default=None, description="The environment variable with the token.")
    basic_auth: BasicAuth | None = Field(default=None, description="A name and a password instead of a token.")
    tls: Tls | None = Field(default=None, description="Certificates for https.")
    headers: Headers = Field(default={}, description="Headers sent with each push, such as X-Scope-OrgID.")
    header_files: HeaderFiles = Field(default={}, description="Headers whose values are secret: each in a file.")


class DaskTls(Section):
    """The certificates of the cluster, with paths relative to the config's folder."""

    ca: Text = Field(
        description="The cluster's own authority. A client with a certificate of it runs code in the cluster."
    )
    cert: Text = Field(description="Our certificate.")
    key: Text = Field(description="Its private key.")


class DaskUpload(Section):
    """The files that each host receives: those that git knows or does not ignore, and these."""

    include: tuple[Text, ...] = Field(
        default=(), description="Further files, though git ignores them: paths relative to the config's folder."
    )
    max: Size = Field(
        default=500_000_000,
        description="The largest transfer to a host, and of the files of a task from it. Default: 500 MB.",
    )


class Dask(Section):
    """The cluster of lanes with `strategy: dask`. Without a scheduler, file or cluster, it is one on this host."""

    scheduler: Scheduler | None = Field(
        default=None, description="The address of a scheduler whose workers others manage, such as tls://sched:8786."
    )
    file: Text | None = Field(
        default=None, description="A scheduler file, as `dask scheduler --scheduler-file` writes."
    )
    cluster: CallTarget | None = Field(
        default=None,
        description="A function, `module:function`, that returns a cluster of dask-kubernetes, dask-jobqueue and "
        "others. It is sized by this program and closed at the end.",
    )
    tls: DaskTls | None = Field(default=None, description="The certificates for a tls:// address.")
    insecure: StrictBool = Field(
        default=False, description="Allow tcp:// outside this host: anyone who reaches the scheduler runs code."
    )
    shared: Text | None = Field(
        default=None,
        description="The folder where every worker finds the project's files. Default: each host receives a copy.",
    )
    upload: DaskUpload = Field(default=DaskUpload(), description="What the copies contain.")
    pass_env: tuple[Variable, ...] = Field(
        default=(), description="The variables of the exporter that reach the tasks, besides a stage's `env`."
    )
    partition_grace: Duration = Field(
        default=45.0,
        description="How long after its last answer a cut-off worker's tasks count as running, before they fail.",
    )
    start_timeout: Duration = Field(default=120.0, description="The longest wait for the first worker of a cluster.")


class Keep(Shorthand):
    """How long runs stay in the history: a number of runs, a duration, or a mapping of runs, age and size."""

    runs: Annotated[StrictInt, Field(ge=1)] | None = Field(
        default=None,
        description="The number of latest runs to keep. Default: 1000; no limit if `keep` has only an age or a size.",
    )
    age: Duration | None = Field(default=None, description="The age up to which to keep runs. Default: any age.")
    size: Size = Field(
        default=512 << 20,
        description="The size of the file up to which to keep runs; each lane's last run stays. Default: 512MiB.",
    )

    @classmethod
    def build_short_schemas(cls) -> list[dict[str, Any]]:
        return [{"type": "integer", "minimum": 1}, _DURATION_TEXT]

    @classmethod
    def describe_expected(cls) -> str:
        return "a number of runs, a duration, or a mapping of runs, age and size"

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"runs": value}
        return {"age": value} if isinstance(value, str) else value


class Logs(Shorthand):
    """How much output of tasks is kept, in a file for each run beside the history; `false` keeps none."""

    enabled: StrictBool = Field(default=True, description="Whether the output of tasks is kept.")
    run: Size = Field(
        default=64 << 20,
        description="The limit for one run; of longer output the start and the end are kept. Default: 64MiB.",
    )
    total: Size = Field(
        default=256 << 20, description="The limit for all runs together; the oldest are removed. Default: 256MiB."
    )
    age: Duration = Field(default=14 * 86_400.0, description="The age up to which to keep output. Default: 14d.")

    @classmethod
    def build_short_schemas(cls) -> list[dict[str, Any]]:
        return [{"type": "boolean"}]

    @classmethod
    def describe_expected(cls) -> str:
        return "true, false, or a mapping of run, total and age"

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: object) -> object:
        return {"enabled": value} if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check_sizes(self) -> Logs:
        if self.run > self.total:
            raise ValueError("run must not be larger than total")
        return self


class History(Section):
    """The record of earlier runs."""

    path: Text = Field(default=".paropt/history.db", description="The SQLite file, relative to the config's folder.")
    keep: Keep = Field(default=Keep(runs=1000), description="How much of it to keep. Totals are always kept.")
    logs: Logs = Field(default=Logs(), description="How much output of tasks to keep, for the command `log`.")


class File(Section):
    """A workflow: stages, and the lanes that run them."""

    project: Name | None = Field(
        default=None, description="The label `project` of every metric. Default: the folder's name."
    )
    lanes: dict[Name, Lane] = Field(
        default={},
        description="Lanes by name. docs, standard and heavy exist; keys that you leave out keep their defaults.",
    )
    stages: tuple[Stage, ...] | None = Field(
        default=None,
        json_schema_extra={"minItems": 1, "maxItems": MOST_STAGES},
        description="Default: the five built-in stages for the tools found.",
    )
    feedback: Feedback = Field(default=Feedback(), description="Control of the pools' size by own counters or queries.")
    web: Web = Field(default=Web(), description="The endpoint that Prometheus scrapes.")
    push: Push = Field(default=Push(), description="The Pushgateway for the final values of each run.")
    dask: Dask = Field(default=Dask(), description="The cluster of lanes with strategy dask.")
    history: History = Field(default=History(), description="Where runs are recorded, and for how long.")


def to_values(file: File) -> values.File:
    """Return the values of a validated file."""
    return values.File(**convert_fields(file))


def convert_section(section: Section) -> object:
    """Return the values of a section; keys that the file does not give have the defaults of `values`."""
    return getattr(values, type(section).__name__)(**convert_fields(section))


def convert_fields(section: Section) -> dict[str, Any]:
    """Return the fields that a section of the file gives, by name, as values."""
    return {name: _convert(getattr(section, name)) for name in sorted(section.model_fields_set)}


def _convert(value: object) -> object:
    if isinstance(value, Section):
        return convert_section(value)
    if isinstance(value, tuple):
        return tuple(_convert(each) for each in value)
    if isinstance(value, dict):
        return MappingProxyType({name: _convert(each) for name, each in value.items()})
    return value
