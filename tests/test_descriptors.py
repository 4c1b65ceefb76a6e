"""The limit on descriptors rises for this process and stays the same for its children."""

from __future__ import annotations

import pytest

from support.processes import run_python

PROGRAM = """
import resource, subprocess, sys
from paropt_exporter import descriptors
kind = resource.RLIMIT_NOFILE
resource.setrlimit(kind, (int(sys.argv[1]), int(sys.argv[2])))
descriptors.raise_limit()
descriptors.raise_limit()
with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
    descriptors.restore_limit(child.pid)
    restored = resource.prlimit(child.pid, kind)[0]
    child.communicate(b"\\n")
with descriptors.use_original_limit():
    started = int(subprocess.run(["sh", "-c", "ulimit -Sn"], capture_output=True, check=True).stdout)
print(descriptors.get_limit(), restored, started, resource.getrlimit(kind)[0])
"""


@pytest.mark.parametrize(("soft", "hard", "raised"), [(300, 400, 400), (400, 400, 400)])
def test_soft_limit_is_raised_here_and_kept_for_children(soft: int, hard: int, raised: int) -> None:
    told = run_python(PROGRAM, str(soft), str(hard), check=True)
    assert told.stdout.split() == [str(raised), str(soft), str(soft), str(raised)]
