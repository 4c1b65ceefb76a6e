"""Rule out prometheus_client's multi-process mode, before anything imports it."""

from __future__ import annotations

import os

# The client looks at this at import, and would then keep every value in memory-mapped files that other programs read
# too. Tasks here bring their measurements home themselves.
DROPPED = [name for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir") if os.environ.pop(name, None)]
