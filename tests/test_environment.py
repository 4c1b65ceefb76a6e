"""The copy of the environment that commands get."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os
from paropt_exporter.environment import copy_environment
print("" in os.environ, os.environ.keys() - copy_environment().keys())
"""


def test_variable_without_a_name_is_left_out() -> None:
    words = ["env", "=odd", sys.executable, "-c", SCRIPT]  # Python itself can't set such a variable
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "True {''}\n"
