"""ARCHITECTURE.md names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMED = sorted(set(re.findall(r"`([a-z_/]+(?:\.py|/))`", (ROOT / "ARCHITECTURE.md").read_text())))


def test_every_named_file_or_folder_exists() -> None:
    assert NAMED
    inside = {path.relative_to(ROOT).as_posix() for path in (ROOT / "exporter").rglob("*")}
    for name in NAMED:
        assert (ROOT / name).exists() or any(f"/{path}".endswith(f"/{name.rstrip('/')}") for path in inside), name
