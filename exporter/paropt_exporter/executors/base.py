"""The names of the executors, and the protocols by which the engine uses them without knowing their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Protocol, TypeVar

from msgspec import Struct, field

if TYPE_CHECKING:  # the plan needs the names only
    from pathlib import Path

    from paropt_exporter.events import PoolStatistics, RunningTask
    from paropt_exporter.executors.commands.output import OutputFile, OutputSink
    from paropt_exporter.executors.future import TaskFuture

P = ParamSpec("P")
T = TypeVar("T")

COMMANDS = "commands"
THREADS = "threads"
PROCESSES = "processes"
DASK = "dask"
CALL_POOLS = frozenset({THREADS, PROCESSES})  # they run Python calls on this host

SHUTDOWN_MESSAGE = "cannot schedule new futures after shutdown"  # as CPython's executors say

PROFILES_NAME = "functions.json"  # the file of call profiles, in `.paropt`

REPORT_PATH = "@paropt-report@"  # in the environment of a remote command: a temporary file of its host


def check_size(size: int, most: int, workers: str) -> int:
    """Return the size of a pool. Raises TypeError if it is not an integer, and ValueError if it is out of range.

    `os.cpu_count() / 2` is not an integer: with 2.5, the number of workers would never equal the size.
    """
    try:
        number = index(size)
    except TypeError:
        raise TypeError(f"a pool of {size!r} {workers}: expected an integer") from None
    if not 1 <= number <= most:
        raise ValueError(f"a pool of {number} {workers}: expected 1 to {most}")
    return number


def check_arguments(max_workers: int, initializer: object) -> None:
    """Raise the standard library's errors for invalid arguments of an executor; `check_size` refuses other types."""
    if isinstance(max_workers, int) and max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")


def check_label(name: str, value: object) -> None:
    """Raise TypeError for a value that is no string: each scrape of the program's registry would fail."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}: expected a string")


def build_task_label(stage: str, index: int, *, alone: bool) -> str:
    """Return a label of a stage's task that no other task of a run has. `alone`: the stage has no other task."""
    return stage if alone and find_stage(stage) == stage else f"{stage}[{index}]"


def find_stage(label: str) -> str:
    """Return the stage of the task that has this label."""
    stage, bracket, index = label.removesuffix("]").rpartition("[")
    return stage if bracket and index.isdecimal() and label.endswith("]") else label


def refuse_pickling(pool: object) -> NoReturn:
    """Raise TypeError: a copy would share the pool's workers, and lose them once the pool itself is dropped."""
    raise TypeError(f"cannot pickle or copy this {type(pool).__name__}: make another where it is needed")


# Why a pool was resized. An executor counts its resizes by reason and rejects any other, so that the label has a bound.
RESIZE_REASONS = (
    "start", "demand", "deadline", "rescue", "load", "limit", "bounds", "pinned", "plan", "cpu_limit", "memory_limit",
    "ineffective", "caller",
)  # fmt: skip


class RemoteTaskOptions(Struct, frozen=True, kw_only=True):
    """How a task of a stage runs on another host.

    `folder`, where it runs, is relative to the root of the project; of the environment only `env` is sent;
    `memory_bytes` must be free on the host; `outputs` are patterns of the files that are sent back, relative to the
    root. `programs`: a folder to put first on PATH, if there is one on the host; absolute or relative to the root. The
    whole output goes to `output_file` and the sink of `open_sink`, the runner's report to `report`, on this host and
    before the future settles.
    """

    folder: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    slots: int = 1
    memory_bytes: int = 0
    outputs: tuple[str, ...] = ()
    programs: str = ""
    output_file: OutputFile | None = None
    open_sink: Callable[[], OutputSink | None] | None = None
    report: Path | None = None

    @property
    def keeps_output(self) -> bool:
        """Whether the whole output is sent back."""
        return self.output_file is not None or self.open_sink is not None


class WorkerPool(Protocol):
    """A pool of workers whose size changes while tasks run. Every method may be called from any thread."""

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> int:
        """The number of workers that the pool was asked to have."""

    @property
    def live(self) -> int:
        """The number of workers that exist, including those that exit after their task."""

    @property
    def busy(self) -> int:
        """The number of workers that have a task."""

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set the target and return at once. Surplus workers exit now if idle, otherwise after their task.

        Raises ValueError if the pool does not accept the size or the reason.
        """

    def statistics(self) -> PoolStatistics:
        """Return counts and totals, which never fall."""

    def running(self) -> tuple[RunningTask, ...]:
        """Return the running tasks with their CPU, memory and wait for a core up to now."""

    def close_within(self, seconds: float) -> tuple[str, ...]:
        """Shut down, wait up to `seconds`, kill the workers that are left and return their names."""


class CallPool(WorkerPool, Protocol):
    """A worker pool whose tasks are calls of functions: threads or processes."""

    def submit_named(self, label: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a call that has `label` in errors and listings, and is measured in full."""

    def stop(self, future: TaskFuture[Any], error: BaseException, *, grace_seconds: float = ...) -> bool:
        """Stop a task, whose future gets `error`. Return False if it has ended already. Does not block."""


class RemotePool(WorkerPool, Protocol):
    """A worker pool whose tasks run on other hosts: commands, and calls of `module:function`."""

    @property
    def helper_pids(self) -> frozenset[int]:
        """The child processes of this one that belong to the pool."""

    def begin_run(self, programs: tuple[str, ...]) -> None:
        """Send the workers the files as they are now, and check that they have the programs. Blocks."""

    def submit_commands(
        self, label: str, steps: Sequence[Sequence[str]], *, options: RemoteTaskOptions = ...
    ) -> TaskFuture[Any]:
        """Submit commands that run one after another."""

    def submit_call(
        self, label: str, target: str, arguments: tuple[str, ...], *, options: RemoteTaskOptions = ...
    ) -> TaskFuture[Any]:
        """Submit a call of `module:function`."""

    def stop(self, future: TaskFuture[Any], error: BaseException | None = None, *, grace_seconds: float = ...) -> bool:
        """Stop a task: SIGTERM, and SIGKILL after the grace. Return False if it has ended. Does not block."""

    def give_up(self, future: TaskFuture[Any]) -> None:
        """Settle a task whose worker does not answer. Does not block."""
