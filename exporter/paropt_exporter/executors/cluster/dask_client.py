"""Connect to a Dask scheduler, or host a cluster in a process of its own, with errors of one line.

The scheduler gets functions that it can read without this package.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import inspect
import json
import logging
import pickle
import select
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paropt_exporter.errors import describe, to_one_line
from paropt_exporter.executors.cluster.settings import INSTALL_HINT, ClusterError, ClusterSettings, TlsFiles

CONNECT_SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROTECTED = ("tls", "wss", "inproc")  # the last one connects to nothing outside its process
_ABOVE_ALL = logging.CRITICAL + 1
_ALERT_SECONDS = 2.0  # a scheduler greets at once, and refuses a certificate at once
_CLOSE_SECONDS = 10.0
_KILL_SECONDS = 5.0


def require_distributed() -> None:
    """Raise ClusterError if the extra is not installed, or if it can't be imported."""
    if importlib.util.find_spec("distributed") is None:
        raise ClusterError(f"strategy dask: there is no module distributed: {INSTALL_HINT}")
    try:
        from distributed import Client, Status  # noqa: F401 -- an old version lacks one of them
    except Exception as error:
        why = to_one_line(describe(error))
        raise ClusterError(f"strategy dask: distributed can't be imported ({why}): {INSTALL_HINT}") from error


def read_address(settings: ClusterSettings) -> str:
    """Return the scheduler's address from the settings or from its file. Raises ClusterError."""
    if settings.scheduler_file is None:
        return settings.scheduler
    try:
        return str(json.loads(settings.scheduler_file.read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(
            f"dask.scheduler_file: {settings.scheduler_file} names no scheduler: {to_one_line(describe(error))}"
        ) from None


def check_address(address: str, *, tls: TlsFiles | None, insecure: bool) -> None:
    """Refuse an address without TLS outside this host, and check that the scheduler answers. Raises ClusterError."""
    scheme, _, rest = address.partition("://")
    name, _, port = rest.rpartition(":")
    if scheme not in ("tcp", "tls") or not name or not port.isdigit():
        raise ClusterError(f"dask.scheduler: expected tcp://host:port or tls://host:port, found {address!r}")
    name = name.strip("[]")
    require_encryption(address, "dask.scheduler", "use tls:// with dask.tls", insecure=insecure)
    if scheme == "tls" and tls is None:
        raise ClusterError(f"dask.scheduler: {address} needs certificates: set ca, cert and key in dask.tls")
    context = _build_context(tls) if scheme == "tls" and tls is not None else None
    try:
        _greet(name, int(port), context)
    except ssl.SSLError as error:
        raise ClusterError(f"dask.scheduler: {address}: TLS failed: {to_one_line(describe(error))}") from None
    except OSError as error:
        raise ClusterError(f"dask.scheduler: no answer from {address}: {to_one_line(describe(error))}") from None


def require_encryption(address: str, key: str, remedy: str, *, insecure: bool) -> None:
    """Refuse an address without TLS outside this host. Raises ClusterError, which names the config's key."""
    if is_exposed(address) and not insecure:
        raise ClusterError(
            f"{key}: {address} has no TLS, and anyone who reaches it runs code as its workers: "
            f"{remedy}, or write insecure: true if the network is yours alone"
        )


def is_exposed(address: str) -> bool:
    """Return whether connections to an address leave this host without TLS."""
    scheme, _, rest = address.partition("://")
    return scheme not in _PROTECTED and rest.rpartition(":")[0].strip("[]") not in _LOOPBACK


def build_security(tls: TlsFiles | None) -> Any:
    """Return Dask's security settings, or None without certificates."""
    if tls is None:
        return None
    from distributed.security import Security

    make: Any = Security
    return make(
        tls_ca_file=str(tls.ca),
        tls_client_cert=str(tls.cert),
        tls_client_key=str(tls.key),
        require_encryption=True,
    )


def silence_logs() -> None:
    """Leave reports of lost connections to this package: Dask logs a line for each call that one breaks."""
    logging.getLogger("distributed").setLevel(_ABOVE_ALL)
    for name in ("comm", "core", "client", "scheduler", "worker", "nanny", "batched"):
        logging.getLogger(f"distributed.{name}").setLevel(_ABOVE_ALL)


class Source:
    """A function that travels as text: a scheduler may lack this package, and another Python has other byte code.

    The function must import everything that it uses.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._text = f"{inspect.getsource(function)}\nresult = {function.__name__}(*arguments)\n"

    def build_call(self, *arguments: object) -> tuple[Any, ...]:
        """Return a function that each Python has, and arguments with which it calls the one of the source."""
        return eval, "exec(source, names) or names['result']", {"source": self._text, "names": {"arguments": arguments}}


def _build_context(tls: TlsFiles) -> ssl.SSLContext:
    for key, path in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        if not Path(path).is_file():
            raise ClusterError(f"dask.tls.{key}: there is no file {path}")
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(tls.ca))
        context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ClusterError(f"dask.tls: {to_one_line(describe(error))}: {tls.ca}, {tls.cert}, {tls.key}") from None
    context.check_hostname = False  # Dask trusts the authority, not the name: addresses of workers change
    return context


def _greet(name: str, port: int, context: ssl.SSLContext | None) -> None:
    """Connect once, and read the first byte that a scheduler sends, or its alert."""
    with socket.create_connection((name, port), timeout=CONNECT_SECONDS) as plain:
        if context is None:
            return
        with context.wrap_socket(plain, server_hostname=name) as secured:
            secured.settimeout(_ALERT_SECONDS)
            try:
                secured.recv(1)
            except TimeoutError:
                return


class HostedCluster:
    """The process of a cluster that this program starts and sizes: a local one, or that of a user's factory.

    `scale` and `scale_down` return at once; from any thread.
    """

    def __init__(self, settings: ClusterSettings, wake_reader: int | None = None) -> None:
        """Start the cluster; blocks until it has a scheduler, or `wake_reader` is readable. Raises ClusterError."""
        options = {"factory": settings.factory, "root": str(settings.root)}
        self._what = f"dask.cluster: {settings.factory}" if settings.factory else "strategy dask: a local cluster"
        self._lock = threading.Lock()  # guards: writing to the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "paropt_exporter.executors.cluster.cluster_host", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if settings.factory else subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        answer = self._read_answer(settings.start_timeout_seconds, wake_reader)
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

    def _read_answer(self, timeout_seconds: float, wake_reader: int | None) -> dict[str, Any]:
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        waited = [output] if wake_reader is None else [output, wake_reader]
        ready, _, _ = select.select(waited, [], [], timeout_seconds)
        line = self._process.stdout.readline() if output in ready else ""
        answer: dict[str, Any] = json.loads(line) if line else {}
        error = answer.get("error") or (
            "" if line else f"no scheduler within {timeout_seconds:g} s" if not ready else "it ended, or a signal came"
        )
        if error:
            self.close()
            raise ClusterError(f"{self._what} could not start: {to_one_line(error)}")
        if answer["adapts"]:
            self.close()
            raise ClusterError(f"{self._what} adapts itself: leave out cluster.adapt(), since this program sizes it")
        return answer
