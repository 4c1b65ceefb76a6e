"""End the worker processes of executors at a Ctrl-C in their `with` block."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING, NoReturn

from paropt_exporter.executors.base import refuse_pickling

if TYPE_CHECKING:
    from types import TracebackType


class InterruptibleExecutor(Executor):
    """An executor that ends its workers after a Ctrl-C, which reaches neither the workers nor queued tasks."""

    def terminate_workers(self) -> None:
        """Shut down, cancel the queued tasks, and end the workers. Does not block."""
        raise NotImplementedError

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Shut down. After a Ctrl-C, in the block or while waiting for tasks here, call `terminate_workers` first."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.terminate_workers()
            return super().__exit__(kind, error, trace)
        try:
            return super().__exit__(kind, error, trace)
        except KeyboardInterrupt:
            self.terminate_workers()
            super().__exit__(kind, error, trace)
            raise
