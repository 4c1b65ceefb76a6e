"""Modules of the standard library have stand-ins in the modules that a run imports, until they are used."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from paropt_exporter.cli.late_modules import import_late_modules_on_use
with import_late_modules_on_use():
    import linecache, textwrap, uuid
assert not {"platform", "textwrap", "tokenize"} & set(sys.modules), "each is loaded"
"""


def run(program: str) -> str:
    """Run a program after the imports, in an interpreter of its own, and return its output."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}{PROGRAM}{program}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_stand_in_loads_its_module_when_it_is_used() -> None:
    assert run("print(textwrap.dedent('  a'), 'textwrap' in sys.modules)") == "a True\n"


def test_a_later_import_gets_the_module_itself() -> None:
    assert (
        run("late = textwrap\nimport textwrap\nprint(textwrap is late, textwrap.dedent is late.dedent)")
        == "False True\n"
    )


def test_a_loaded_module_has_no_stand_in() -> None:
    program = (
        "import platform\nwith import_late_modules_on_use():\n    import platform as again\nprint(platform is again)"
    )
    assert run(program) == "True\n"


def test_a_traceback_shows_the_line_of_an_error() -> None:
    """`linecache` reads it with `tokenize`."""
    program = "import traceback\ntry:\n    uuid.UUID('no')\nexcept ValueError:\n    print(traceback.format_exc())"
    assert "raise ValueError('badly formed hexadecimal UUID string')" in run(program)
