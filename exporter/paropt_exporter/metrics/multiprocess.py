"""Disable prometheus_client's multi-process mode, before any module imports the client."""

from __future__ import annotations

import os

# With one of these variables the client keeps each value in a memory-mapped file. Here, tasks return their
# measurements.
DROPPED = [name for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir") if os.environ.pop(name, None)]
