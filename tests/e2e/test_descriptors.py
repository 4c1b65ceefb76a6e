"""Strangers' connections take no descriptors from the work, and the work's programs see the limit of the start."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from support import projects
from support.processes import open_descriptors
from support.real_servers import HANG_SECONDS, environment, eventually, installed_command

COUNT = 100


def limited(folder: Path, soft: int, hard: int, *arguments: str) -> subprocess.Popen[str]:
    """Start the command under limits on descriptors."""
    shell = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    with (folder / "stderr.log").open("w") as log:
        return subprocess.Popen(
            ["sh", "-c", shell, "sh", installed_command(), *arguments],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


def test_idle_strangers_fail_no_task_under_270_descriptors(tmp_path: Path) -> None:
    """Under 270 the endpoint took 256: 241 of 300 tasks failed."""
    os.mkfifo(tmp_path / "go")
    projects.write(
        tmp_path,
        f"""
        name: wait, run: "cat go"
        name: work, run: "true {{item}}", items: {{list: {[str(n) for n in range(COUNT)]}}}, needs: [wait]
        """,
        lanes="lanes: {standard: {strategy: thread, workers: 4}}",
    )
    command = limited(tmp_path, 270, 270, projects.ANY_PORT, "--every", "1h")
    try:
        url = projects.url(tmp_path)
        host, port = re.fullmatch(r"http://(.*):(\d+)/metrics", url).groups()  # type: ignore[union-attr]
        with ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=HANG_SECONDS))
            eventually("the endpoint takes as many as it may", lambda: open_descriptors(command.pid) >= 270 // 4)
            (tmp_path / "go").write_text("")
            eventually("the run ends", lambda: projects.runs(tmp_path)[-1:])
            [run] = projects.runs(tmp_path)
            assert projects.stages(run)["work"] == ("success", "")
    finally:
        command.terminate()
        command.communicate(timeout=HANG_SECONDS)


@pytest.mark.parametrize("strategy", ["thread", "process"])
def test_programs_see_the_soft_limit_of_the_start(tmp_path: Path, strategy: str) -> None:
    projects.write(
        tmp_path,
        """
        name: command, run: "sh -c 'ulimit -Sn >command.txt'"
        name: items, shell: true, run: "echo {item} >items.txt", items: {command: "sh -c 'ulimit -Sn'"}
        name: worker, call: "limits:tell"
        """,
        lanes=f"lanes: {{standard: {{strategy: {strategy}, workers: 2}}}}",
        limits="""
            import resource
            from pathlib import Path

            def tell() -> None:
                Path("worker.txt").write_text(str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
            """,
    )
    command = limited(tmp_path, 300, 600, projects.ANY_PORT, "--once")
    command.communicate(timeout=HANG_SECONDS)
    assert command.returncode == 0, projects.messages(tmp_path)
    told = {name: (tmp_path / f"{name}.txt").read_text().strip() for name in ("command", "items", "worker")}
    # A call in a thread runs in the exporter, which has enough descriptors.
    assert told == {"command": "300", "items": "300", "worker": "600" if strategy == "thread" else "300"}


def test_call_that_forbids_its_process_descriptors_fails_alone(tmp_path: Path) -> None:
    projects.write(
        tmp_path,
        """
        name: forbids, call: "limits:forbid"
        name: reads, call: "limits:read"
        """,
        lanes="lanes: {standard: {strategy: process, workers: 1}}",
        limits="""
            import resource
            from pathlib import Path

            def forbid() -> None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))

            def read() -> None:
                Path("limits.py").read_text()
            """,
    )
    command = limited(tmp_path, 300, 600, projects.ANY_PORT, "--once")
    command.communicate(timeout=HANG_SECONDS)
    assert command.returncode == 1, projects.messages(tmp_path)
    found = projects.stages(projects.runs(tmp_path)[-1])
    assert found["reads"] == ("success", "")
    assert found["forbids"][0] == "failure" and "(RLIMIT_NOFILE) to 0" in found["forbids"][1]
