"""The endpoint's paths, and the URL of its metrics page."""

from __future__ import annotations

import string

from paropt_exporter.errors import UsageError

HEALTHY = "/-/healthy"
READY = "/-/ready"
_PATH_CHARACTERS = frozenset(string.ascii_letters + string.digits + "_./~-")  # as in the config's `fields.UrlPath`
_LOCAL = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # nosec B104 # the address to open if it listens on all interfaces


def check_telemetry_path(path: str) -> None:
    """Raise UsageError if the metrics can't have this path."""
    if path in (HEALTHY, READY) or not path.startswith("/") or not _PATH_CHARACTERS.issuperset(path):
        raise UsageError(f"telemetry path {path!r}: expected one like /metrics, other than {HEALTHY} and {READY}")


def format_url(address: str, telemetry_path: str, *, secure: bool) -> str:
    """Return the URL of the metrics page at an address, as a browser can open it."""
    if address.startswith(("unix:", "vsock:")):
        return address
    host, _, port = address.rpartition(":")
    return f"{'https' if secure else 'http'}://{_LOCAL.get(host, host)}:{port}{telemetry_path}"
