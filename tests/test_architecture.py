"""ARCHITECTURE.md names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMED = sorted(set(re.findall(r"`([a-z_/]+(?:\.py|/))`", (ROOT / "ARCHITECTURE.md").read_text())))


@pytest.mark.parametrize("name", NAMED)
def test_every_named_file_or_folder_exists(name: str) -> None:
    assert (ROOT / name).exists() or any((ROOT / "exporter").rglob(name.rstrip("/")))
