"""The summary's hints after real lanes: given where following them would help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import projects
from support.real_servers import run

BURN = """
    import time
    while time.process_time() < 0.15:
        sum(range(1000))
"""


def hints(folder: Path, stages: str, *arguments: str) -> list[str]:
    """Run the stages and return the summary's hints."""
    projects.write(folder, stages, burn=BURN)
    ended = run(folder, "--once", *arguments)
    assert ended.returncode == 0, ended.stderr
    return [line for line in ended.stdout.splitlines() if line.startswith(("  hint", "  slowest"))]


def test_waiting_tasks_with_too_few_workers_get_a_hint_with_the_gain(tmp_path: Path) -> None:
    items = "items: {list: [1.01, 1.02, 1.03, 1.04, 1.05, 1.06]}"
    (hint,) = hints(tmp_path, f'name: waits, run: "sleep {{item}}", {items}', "--workers", "2")
    assert re.fullmatch(
        r"  hint     workers were busy \d+% of their time while tasks waited; "
        r"6 workers would have taken \d\.\d s instead of \d\.\d s",
        hint,
    )


@pytest.mark.parametrize("arguments", [("--workers", "2"), ()], ids=["fixed", "adaptive"])
def test_computing_tasks_on_all_cores_get_no_hint(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    items = "items: {list: [a, b, c, d, e, f]}"
    assert hints(tmp_path, f'name: burns, run: "python3 burn.py {{item}}", {items}', *arguments) == []


def test_many_brief_stages_get_no_hint(tmp_path: Path) -> None:
    stages = "\n".join(f'name: brief_{number}, run: "true"' for number in range(100))
    assert hints(tmp_path, stages) == []
