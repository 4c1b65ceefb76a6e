"""`paropt-exporter serve` on a full disk: a real one, of 1 MiB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paropt_exporter import families
from paropt_exporter.clock import SystemClock
from paropt_exporter.history import History
from support import projects
from support.real_servers import run
from support.serve_process import ServeProcess, check_page, serve, sum_series
from support.small_disks import SmallDisk, mount_small_disk

QUICK = 'name: quick, run: "true"'


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mount_small_disk(tmp_path / "disk") as mounted:
        yield mounted


def write_project(folder: Path) -> Path:
    """Write a project that is named like its folder."""
    folder.mkdir()
    return projects.write(folder, QUICK, project=folder.name)


def count_runs(page: str, project: str) -> float:
    return sum_series(page, "paropt_runs_total", project=project)


def count_stored_runs(project: Path) -> float:
    with closing(
        History(project / ".paropt/history.db", project=project.name, clock=SystemClock(), for_reading=True)
    ) as history:
        return sum(
            value for (family, _), value in history.load_totals().counters.items() if family == families.RUNS.name
        )


def test_full_runtime_folder_costs_only_the_memory_of_new_projects(tmp_path: Path, disk: SmallDisk) -> None:
    served = ServeProcess(disk.folder)
    one, two = write_project(tmp_path / "one"), write_project(tmp_path / "two")
    served.start()
    try:
        assert run(one, **served.environment).returncode == 0
        disk.fill()
        assert run(two, **served.environment).returncode == 0
        page = served.page()
        check_page(page)
        assert (count_runs(page, "one"), count_runs(page, "two")) == (1, 1)
        (line,) = [line for line in served.messages().splitlines() if "registration" in line]
        assert "No space left on device" in line
        served.kill()
        served.start_again()
        page = served.page()
        check_page(page)
        assert (count_runs(page, "one"), count_runs(page, "two")) == (1, 0)
        disk.free()
        assert run(two, **served.environment).returncode == 0
        served.kill()
        served.start_again()
        page = served.page()
        assert (count_runs(page, "one"), count_runs(page, "two")) == (1, 2)
    finally:
        served.stop()


def test_history_on_a_full_disk_keeps_its_totals_on_the_page(tmp_path: Path, disk: SmallDisk) -> None:
    one = write_project(disk.folder / "one")
    with serve(tmp_path) as served:
        assert run(one, **served.environment).returncode == 0
        assert count_runs(served.page(), "one") == 1
        disk.fill()
        failed = run(one, **served.environment)
        assert failed.returncode == 3, failed.stderr
        page = served.page()
        check_page(page)
        assert count_runs(page, "one") == count_stored_runs(one) == 1
        served.kill()
        served.start_again()
        page = served.page()
        assert count_runs(page, "one") == 1
        disk.free()
        assert run(one, **served.environment).returncode == 0
        page = served.page()
        assert count_runs(page, "one") == count_stored_runs(one) == 2
        assert sum_series(page, "paropt_serve_history_readable", project="one") == 1
