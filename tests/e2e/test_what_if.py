"""`history --what-if` after a real run."""

from __future__ import annotations

from pathlib import Path

from support.in_process import call_command
from support.projects import write
from support.real_servers import run


def test_sequential_run_tells_the_gain_of_four_at_once(tmp_path: Path) -> None:
    write(tmp_path, 'name: waits, run: "sleep {item}", items: {list: [0.31, 0.32, 0.33, 0.34]}')
    assert run(tmp_path, "--once", "--workers", "1").returncode == 0
    told = run(tmp_path, "history", "--what-if", "4,1")
    assert (told.returncode, told.stderr) == (0, "")
    head, one, four = told.stdout.splitlines()
    assert "with up to 1 at once" in head
    assert one.startswith("with 1 worker, standard would have taken 1.") and one.endswith("(+0%)")
    assert four.startswith("with 4 workers, standard would have taken 0.")
    refused = call_command(tmp_path, "history", "--run", "2026", "--flaky")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
