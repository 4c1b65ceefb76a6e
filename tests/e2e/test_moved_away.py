"""A call that changes the exporter's folder moves nothing of the exporter's."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import projects
from support.real_servers import run


@pytest.mark.parametrize("strategy", ["thread", "adaptive", "hybrid"])
def test_relative_paths_are_those_of_the_start(tmp_path: Path, strategy: str) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project, project / "out", elsewhere):
        folder.mkdir()
    (project / "web.yml").write_text("")
    projects.write(
        project,
        """
        name: away, call: "moving:away"
        name: write, run: "echo here", needs: [away], file: later.txt
        name: print, run: "pwd", needs: [away], file: pwd.txt
        """,
        lanes=f"lanes: {{standard: {{strategy: {strategy}, workers: 2}}}}",
        moving=f"""
            import os

            def away() -> None:
                os.chdir({str(elsewhere)!r})
            """,
    )
    ended = run(
        project,
        projects.ANY_PORT,
        "--once",
        "--textfile=out",
        "--web.config.file=web.yml",
        "--config.file=paropt.yml",
    )
    assert ended.returncode == 0, ended.stderr
    assert [path.suffix for path in (project / "out").iterdir()] == [".prom"]
    assert (project / "later.txt").read_text() == "here\n"
    assert (project / "pwd.txt").read_text().strip() == str(project)
    assert [*elsewhere.iterdir()] == []
    assert len(projects.runs(project)) == 1
