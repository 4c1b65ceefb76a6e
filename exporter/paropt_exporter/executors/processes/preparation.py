"""The state of the parent that a new worker process takes over, and the pool's initializer."""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Callable
from typing import Any

from paropt_exporter.environment import copy_environment
from paropt_exporter.executors.worker import mp_context, payload
from paropt_exporter.executors.worker.pickle_buffers import PickleBuffers


class Preparation:
    """Builds the message that prepares a new worker process of one pool. Any thread may call it.

    UnpicklableError if the initializer can't be pickled: from the constructor, for the caller of the pool's.
    """

    def __init__(
        self, packer: payload.Packer, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self._packer = packer
        self._initializer, self._initargs = initializer, tuple(initargs)  # users pass lists too
        self._pack_initializer()

    def build(self, name: str) -> bytes:
        """Return import path, folder, environment, limits and initializer as they are now, for the worker `name`."""
        try:
            directory = os.getcwd()  # noqa: PTH109 -- marshal takes no Path
        except OSError:
            directory = "/"
        # str() also of strings, since marshal takes no subclass.
        path = [str(os.fsdecode(entry)) for entry in sys.path if isinstance(entry, (str, bytes, os.PathLike))]
        parent = mp_context.get_authkey(), mp_context.get_name(), os.getpid()
        context = name, parent, mp_context.get_tracker() is not None
        arguments = [str(argument) for argument in getattr(sys, "argv", ())]  # a program that embeds Python may lack it
        limits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
        taken = path, directory, copy_environment(), arguments, limits
        return marshal.dumps((*taken, *context, *self._pack_initializer()))

    def _pack_initializer(self) -> tuple[bytes, bytes | tuple[Any, ...]]:
        """Pickle the initializer, each time again: a descriptor among its arguments can be fetched once."""
        if self._initializer is None:
            return b"", b""
        function, arguments = self._packer.pack(self._initializer, self._initargs, {})
        return function, arguments.join() if isinstance(arguments, PickleBuffers) else arguments
