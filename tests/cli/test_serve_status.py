"""The text of `serve status`."""

from __future__ import annotations

import pytest

from paropt_exporter.cli.serve import format_status
from paropt_exporter.serve.messages import ProjectStatus, RunStatus, Status


def build_status(*names: str) -> Status:
    """Return the state with two runs of the first project, and the others idle."""
    runs = tuple(
        RunStatus(
            pid=pid,
            project=names[0],
            lane="standard",
            version="1",
            limited=True,
            cores_held=1.0,
            cores_granted=1.0,
            cores_wanted=2.0,
            memory_held_bytes=0,
            waiting_seconds=3.0 if holders else 0.0,
            waits_for=holders,
        )
        for pid, holders in ((10, {}), (20, {f"{names[0]} (pid 10)": 1.0}))
    )
    projects = tuple(
        ProjectStatus(project=name, root=f"/srv/{name}", runs=0 if place else 2, fault="it\nis gone" if place else "")
        for place, name in enumerate(names)
    )
    return Status(version="1", pid=1, url="http://here", cores=2.0, memory_bytes=1, projects=projects, runs=runs)


def test_names_with_control_characters_keep_their_lines() -> None:
    lines = format_status(build_status("a\nb\x1b[31m", "wi\nki")).splitlines()
    assert lines[3:] == [
        r"run                            held  share  wanted  waits",
        r"a b\x1b[31m standard (pid 10)   1.0    1.0     2.0",
        r"a b\x1b[31m standard (pid 20)   1.0    1.0     2.0  3 s for a b\x1b[31m (pid 10)",
        "",
        "idle: wi ki (/srv/wi ki)",
        "wi ki: its history can't be read: it is gone",
    ]


@pytest.mark.parametrize("columns", [60, 80])
def test_status_keeps_within_the_terminal(columns: int) -> None:
    lines = format_status(build_status("a-project-of-a-team", *map(str, range(40))), columns).splitlines()
    assert max(map(len, lines)) <= columns
