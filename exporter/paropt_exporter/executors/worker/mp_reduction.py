"""Pickles multiprocessing's own objects (queues, locks, shared memory, connections, managers' proxies) for tasks.

They can be pickled only for a child that is being started, so this pretends to start one. Locks travel by name, and
descriptors through multiprocessing's resource sharer, a thread of the sender that passes each of them on once.
"""

from __future__ import annotations

import io
import pickle
from multiprocessing import context, resource_sharer, synchronize
from multiprocessing.reduction import ForkingPickler
from typing import Any

from paropt_exporter.executors.worker import by_value


class _Receiver:
    """Stands for the process that will load the pickle, as `multiprocessing.reduction.DupFd` needs one."""

    DupFd = staticmethod(resource_sharer.DupFd)

    def duplicate_for_child(self, descriptor: int) -> int:
        return descriptor


def dumps(value: object, protocol: int) -> bytes:
    """Pickle by value if there is no importable name, and multiprocessing's objects as for a child of this process."""
    buffer = io.BytesIO()
    before = context.get_spawning_popen()
    context.set_spawning_popen(_Receiver())  # type: ignore[arg-type]  # all that the reductions use
    try:
        _Pickler(buffer, protocol).dump(value)
    finally:
        context.set_spawning_popen(before)
    return buffer.getvalue()


def _reduce_lock(lock: Any) -> Any:
    if lock._semlock.name is None:  # its pickle is an address in this process's memory
        raise TypeError(
            "a lock of start method 'fork' has no name that a worker could open it by: "
            "make it with multiprocessing.get_context('forkserver'), or pass a Manager's"
        )
    return lock.__reduce_ex__(pickle.HIGHEST_PROTOCOL)


_LOCKS = dict.fromkeys(
    (synchronize.Lock, synchronize.RLock, synchronize.Semaphore, synchronize.BoundedSemaphore), _reduce_lock
)


class _Pickler(by_value.Pickler):
    @property
    def dispatch_table(self) -> dict[Any, Any]:
        """Return the reducers by type, those by value before multiprocessing's, whose table grows as types are used."""
        table: Any = ForkingPickler(io.BytesIO())
        return {**table.dispatch_table, **super().dispatch_table, **_LOCKS}
