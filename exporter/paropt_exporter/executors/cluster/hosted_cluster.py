"""A cluster that this program starts and sizes, in a process of its own: a local one, or that of a user's factory."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import select
import subprocess
import sys
import threading
from typing import Any

from paropt_exporter.errors import to_one_line
from paropt_exporter.executors.cluster.settings import ClusterError, ClusterSettings

_CLOSE_SECONDS = 10.0
_KILL_SECONDS = 5.0


class HostedCluster:
    """The process that hosts a cluster. `scale` and `scale_down` return at once; from any thread."""

    def __init__(self, settings: ClusterSettings) -> None:
        """Start the cluster; blocks until it has a scheduler. Raises ClusterError."""
        options = {"factory": settings.factory, "root": str(settings.root)}
        self._what = f"dask.cluster: {settings.factory}" if settings.factory else "strategy dask: a local cluster"
        self._lock = threading.Lock()  # guards: writing to the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "paropt_exporter.executors.cluster.cluster_host", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if settings.factory else subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        answer = self._read_answer(settings.start_timeout_seconds)
        self.address: str = answer["address"]
        self.security: Any = pickle.loads(base64.b64decode(answer["security"])) if answer["security"] else None
        self.can_scale_down: bool = answer["can_scale_down"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def scale(self, workers: int) -> None:
        """Ask for this many workers."""
        self._order({"scale": workers})

    def scale_down(self, names: list[str | int]) -> None:
        """End the workers of these names."""
        self._order({"scale_down": names})

    def close(self) -> None:
        """Close the cluster; blocks for seconds at most."""
        with self._lock:
            if self._process.stdin is not None and not self._process.stdin.closed:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_KILL_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _order(self, order: dict[str, Any]) -> None:
        with self._lock:
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(json.dumps(order) + "\n")
                self._process.stdin.flush()
            except (OSError, ValueError):
                return  # it has ended; the loss of its scheduler says so

    def _read_answer(self, timeout_seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_seconds)
        line = self._process.stdout.readline() if ready else ""
        answer: dict[str, Any] = json.loads(line) if line else {}
        error = answer.get("error") or (
            "" if line else f"no scheduler within {timeout_seconds:g} s" if not ready else "it ended"
        )
        if error:
            self.close()
            raise ClusterError(f"{self._what} could not start: {to_one_line(error)}")
        if answer["adapts"]:
            self.close()
            raise ClusterError(f"{self._what} adapts itself: leave out cluster.adapt(), since this program sizes it")
        return answer
