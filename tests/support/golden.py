"""Texts that tests compare with whole files in `tests/golden`."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "golden"
_VARIABLE = "WRITE_GOLDEN"


def assert_is_golden(text: str, name: str) -> None:
    """Compare a text with a golden file, or write it there if WRITE_GOLDEN is set."""
    path = FOLDER / name
    if os.environ.get(_VARIABLE):
        path.write_text(text)
    test = os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0]
    assert text == path.read_text(), f"if this change is meant: {_VARIABLE}=1 pytest {test}"
