"""The names of the executors, and the protocols by which the engine uses them without knowing their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:  # the plan needs the names only
    from paropt_exporter.events import PoolStatistics, RunningTask, WorkerMemory
    from paropt_exporter.executors.future import TaskFuture

P = ParamSpec("P")
T = TypeVar("T")

COMMANDS = "commands"
THREADS = "threads"
PROCESSES = "processes"
DASK = "dask"

# Why a pool was resized. An executor counts its resizes by reason and rejects any other, so that the label has a bound.
RESIZE_REASONS = (
    "start", "demand", "deadline", "rescue", "load", "limit", "bounds", "pinned", "plan", "cpu_limit", "memory_limit",
    "ineffective", "caller",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTaskOptions:
    """How a task of a stage runs on another host.

    `folder` is relative to the root of the project; `env` has the only variables that travel; `memory_bytes` must be
    free on its host; `outputs` are patterns of the files that come back, relative to the root.
    """

    folder: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    slots: int = 1
    memory_bytes: int = 0
    outputs: tuple[str, ...] = ()


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
        """The number of workers that hold a task."""

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set the target and return at once. Surplus workers exit now if idle, otherwise after their task.

        ValueError if the size or the reason is none that the pool accepts.
        """

    def statistics(self) -> PoolStatistics:
        """Return counts and totals, which never fall."""

    def running(self) -> tuple[RunningTask, ...]:
        """Return the running tasks with their CPU, memory and wait for a core up to now."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks. With `wait`, block until the workers have exited."""

    def kill_workers(self, after_seconds: float) -> tuple[str, ...]:
        """Shut down, wait up to `after_seconds`, kill the workers that are left and return their names."""


class CallPool(WorkerPool, Protocol):
    """A worker pool whose tasks are calls of functions: threads or processes."""

    def submit_named(self, label: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a call that has `label` in errors and listings, and is measured in full."""

    def stop(self, future: TaskFuture[Any], error: BaseException, *, grace_seconds: float = ...) -> bool:
        """Stop a task, whose future gets `error`. Return False if it has ended already. Does not block."""

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        """Return the memory of each worker process; nothing for threads."""
