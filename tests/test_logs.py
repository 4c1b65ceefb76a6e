"""Log lines as logfmt or JSON, with their fields as keys."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from paropt_exporter import logs

log = logging.getLogger("paropt_exporter.some.module")


pytestmark = pytest.mark.usefixtures("logger_as_before")


def test_logfmt_quotes_ambiguous_values(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "logfmt")
    log.info("it broke", extra={"stage": "unit", "cause": 'a "b" = c', "empty": "", "lines": "x\ny"})
    line = capsys.readouterr().err
    assert line.startswith("ts=")
    assert line.partition(" ")[2] == (
        'level=info msg="it broke" stage=unit cause="a \\"b\\" = c" empty="" lines="x\\ny"\n'
    )


def test_json_log_has_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warn", "json")
    log.info("not told")
    log.warning("told", extra={"path": object, "count": 3})
    (line,) = capsys.readouterr().err.splitlines()
    fields = json.loads(line)
    assert (fields["level"], fields["msg"], fields["count"]) == ("warn", "told", 3)
    assert fields["ts"].endswith("Z")


def test_traceback_is_logged_only_at_level_debug(capsys: pytest.CaptureFixture[str]) -> None:
    for level, shown in (("info", False), ("debug", True)):
        logs.configure(level, "json")
        try:
            raise ValueError("no")
        except ValueError:
            log.exception("failed")
        fields = json.loads(capsys.readouterr().err)
        assert fields["err"] == "ValueError: no"
        assert ("traceback" in fields) == shown


@pytest.mark.parametrize("level", logs.LEVELS)
def test_each_level_of_exporter_toolkit_is_accepted(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level, "logfmt")
    log.error("told")
    assert "level=error" in capsys.readouterr().err


_SHORT_OF_DESCRIPTORS = """
import logging, resource, sys
from paropt_exporter import logs

logs.configure("info", sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
logging.getLogger("paropt_exporter").warning("can't accept", extra={"err": "Too many open files"})
"""


@pytest.mark.parametrize("style", ["logfmt", "json"])
def test_log_line_needs_no_descriptor(style: str) -> None:
    """It may say that none are left, so no module is imported for it."""
    program = [sys.executable, "-c", _SHORT_OF_DESCRIPTORS, style]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    (line,) = done.stderr.splitlines()
    assert '"Too many open files"' in line
