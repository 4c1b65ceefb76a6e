"""Modules of the standard library have stand-ins in the modules that a run imports, until they are used."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from paropt_exporter.cli.deferred_modules import defer_modules
with defer_modules():
    import linecache, socket, textwrap, urllib.parse, uuid
assert not {"ipaddress", "platform", "selectors", "textwrap", "tokenize"} & set(sys.modules), "each is loaded"
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
    program = "import platform\nwith defer_modules():\n    import platform as again\nprint(platform is again)"
    assert run(program) == "True\n"


def test_a_traceback_shows_the_line_of_an_error() -> None:
    """`linecache` reads it with `tokenize`."""
    program = "import traceback\ntry:\n    uuid.UUID('no')\nexcept ValueError:\n    print(traceback.format_exc())"
    assert "raise ValueError('badly formed hexadecimal UUID string')" in run(program)


def test_modules_of_a_project_hide_none_of_a_stand_in() -> None:
    """A call puts the project's folder first on the import path."""
    program = (
        "from paropt_exporter.app.late_imports import import_late_modules\n"
        "import_late_modules(reloads=False)\n"
        "sys.path[:] = []\n"
        "import socket, urllib.parse\n"
        "print(textwrap.dedent('  a'), socket.selectors.PollSelector, urllib.parse.ipaddress.ip_address('::1'))"
    )
    assert run(program) == "a <class 'selectors.PollSelector'> ::1\n"
