"""The lines that runs and `serve` send each other: one JSON object each.

    run    Hello, then Labels when its config changes, Usage when its demand changes, State each second, Bye
    serve  Welcome or Refusal, then Grant when the share changes and each second; Status for `serve status`

Unknown fields and unknown families are ignored, so that versions may differ; another PROTOCOL is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from paropt_exporter.aggregation import HistogramTotal, SeriesKey
from paropt_exporter.errors import ParoptError
from paropt_exporter.metrics.event_state import LaneLabels
from paropt_exporter.metrics.page import Value
from paropt_exporter.terminal import to_unicode

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOL = 2
LONGEST_LINE_BYTES = 64 * 1024 * 1024  # the state of a lane with 10,000 stages has 5 MB
UNLIMITED = -1.0  # JSON has no infinity

# Larger than any machine; the bounds keep sums over all runs finite.
Cores = Annotated[float, Meta(ge=0.0, le=1e6)]
Bytes = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
GrantNumber = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
ProcessId = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]


class BadMessage(ParoptError):
    """A line is not a message of this protocol."""


class Registration(Struct, frozen=True, kw_only=True):
    """A project: where its history is, and the label sets of its series. `bounds`: (min, max) of each pool."""

    project: str
    root: str
    history: str
    lanes: tuple[LaneLabels, ...] = ()
    bounds: dict[str, tuple[int, int]] = field(default_factory=dict)


def find_fault(registration: Registration) -> str:
    """Return why a registration is invalid, or ""."""
    places = (registration.root, registration.history)
    are_absolute = all(os.path.isabs(path) and "\0" not in path for path in places)  # noqa: PTH117 -- texts so far
    if not registration.project or not are_absolute:
        return "a registration needs a project, and the absolute paths of its folder and history"
    return ""


class Usage(Struct, frozen=True, kw_only=True, tag="usage"):
    """The demand of a run. `number`: the grant that it follows; wanted amounts include held ones."""

    number: int = 0
    cores_held: Cores = 0.0
    cores_wanted: Cores = 0.0
    memory_held_bytes: Bytes = 0
    memory_wanted_bytes: Bytes = 0


class Hello(Struct, frozen=True, kw_only=True, tag="hello"):
    """The start of a session. `share`: the cores and bytes of an earlier session whose `serve` died; None: a new run.

    `last_number`: that of the last grant of an earlier session; the first one of this session has the next number.
    `limited`: whether its tasks run on this machine and follow its share. `process`: an id that is the same in all
    sessions of a process, whose counters continue; "" from versions that send none.
    """

    protocol: int
    version: str
    pid: ProcessId
    lane: str
    registration: Registration
    limited: bool = True
    share: tuple[Cores, float] | None = None
    usage: Usage = Usage()
    last_number: GrantNumber = 0
    process: str = ""


class Labels(Struct, frozen=True, kw_only=True, tag="labels"):
    """The label sets after a change of the config."""

    lanes: tuple[LaneLabels, ...]
    bounds: dict[str, tuple[int, int]]


class Sample(Struct, frozen=True, kw_only=True, array_like=True):
    """A series with its value. `value`: None if it has ended; for a histogram its buckets, and `sum` is set."""

    family: str
    labels: tuple[str, ...]
    value: float | tuple[float, ...] | None
    sum: float = 0.0


def build_sample(key: SeriesKey, value: Value | None) -> Sample:
    """Return a series with its value, None if it has ended, as a sample."""
    family, labels = key
    if isinstance(value, HistogramTotal):
        return Sample(family=family, labels=labels, value=value.buckets, sum=value.sum)
    return Sample(family=family, labels=labels, value=value)


def get_value(sample: Sample) -> Value | None:
    """Return a sample's value, None if its series has ended."""
    if isinstance(sample.value, tuple):
        return HistogramTotal(buckets=sample.value, sum=sample.sum)
    return sample.value


class State(Struct, frozen=True, kw_only=True, tag="state"):
    """The series of a process that have changed since the last State. `run_id`: the present run; "" between runs."""

    run_id: str
    samples: tuple[Sample, ...]


class Bye(Struct, frozen=True, kw_only=True, tag="bye"):
    """The end of a session."""


class AskStatus(Struct, frozen=True, kw_only=True, tag="ask_status"):
    """The request of `serve status`."""


class Welcome(Struct, frozen=True, kw_only=True, tag="welcome"):
    """The answer to Hello. `url`: where the page is."""

    protocol: int
    version: str
    pid: int
    url: str


class Refusal(Struct, frozen=True, kw_only=True, tag="refusal"):
    """The reason why `serve` refuses a session."""

    reason: str


class Grant(Struct, frozen=True, kw_only=True, tag="grant"):
    """The share of the machine that a run may use from now on; UNLIMITED: any amount."""

    number: int
    cores: float
    memory_bytes: float


class RunStatus(Struct, frozen=True, kw_only=True):
    """A registered run, for `serve status`. `waits_for`: cores that it lacks, by the run that holds them."""

    pid: int
    project: str
    lane: str
    version: str
    limited: bool
    cores_held: float
    cores_granted: float
    cores_wanted: float
    memory_held_bytes: int
    waiting_seconds: float
    waits_for: dict[str, float]


class ProjectStatus(Struct, frozen=True, kw_only=True):
    """A registered project. `fault`: why its history can't be read, or ""."""

    project: str
    root: str
    runs: int
    fault: str


class Status(Struct, frozen=True, kw_only=True, tag="status"):
    """The state of `serve`."""

    version: str
    pid: int
    url: str
    cores: float
    memory_bytes: int
    projects: tuple[ProjectStatus, ...]
    runs: tuple[RunStatus, ...]


FromRun = Hello | Labels | Usage | State | Bye | AskStatus
FromServe = Welcome | Refusal | Grant | Status
_encoder = msgspec.json.Encoder()
_from_run: msgspec.json.Decoder[FromRun] = msgspec.json.Decoder(FromRun)
_from_serve: msgspec.json.Decoder[FromServe] = msgspec.json.Decoder(FromServe)


def encode(message: Struct) -> bytes:
    """Return a message as a line. Text that is not valid Unicode is escaped."""
    try:
        return _encoder.encode(message) + b"\n"
    except UnicodeEncodeError:
        return _encoder.encode(_make_valid(msgspec.to_builtins(message))) + b"\n"


def _make_valid(value: Any) -> Any:  # any JSON
    if isinstance(value, str):
        return to_unicode(value)
    if isinstance(value, dict):
        return {_make_valid(key): _make_valid(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_make_valid(each) for each in value]
    return value


def decode_from_run(line: bytes) -> FromRun:
    """Return the message of a run. Raises BadMessage."""
    try:
        return _from_run.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"no message of a run: {error}") from error


def decode_from_serve(line: bytes) -> FromServe:
    """Return the message of `serve`. Raises BadMessage."""
    try:
        return _from_serve.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"no message of `serve`: {error}") from error


class LineBuffer:
    """Splits received bytes into lines."""

    def __init__(self, longest_bytes: int = LONGEST_LINE_BYTES) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._longest_bytes = longest_bytes

    def add(self, received: bytes) -> Sequence[bytes]:
        """Return the lines that are now complete. Raises BadMessage if one is too long."""
        *lines, rest = received.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._parts, self._size = [], 0
        self._parts.append(rest)
        self._size += len(rest)
        if self._size > self._longest_bytes:
            raise BadMessage(f"a line of more than {self._longest_bytes:,} bytes")
        return lines
