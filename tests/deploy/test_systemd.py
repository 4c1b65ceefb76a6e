"""The units pass systemd's own checks, where it is installed, and ours everywhere."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.deployed import parsed

FOLDER = Path(__file__).parents[2] / "deploy/systemd"
SERVICES = sorted(FOLDER.glob("*.service"))
PROGRAM = "/opt/paropt/bin/paropt-exporter"
MOST_EXPOSED = 25  # of 100, by `systemd-analyze security`, which rates up to 40 as OK

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
every_service = pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)


def read_unit(path: Path) -> configparser.RawConfigParser:
    unit = configparser.RawConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # keys are written with capitals
    unit.read(path)
    return unit


def settings(path: Path) -> dict[str, str]:
    return dict(read_unit(path)["Service"])


@every_service
def test_the_unit_command_is_valid(service: Path) -> None:
    words = [word for word in shlex.split(settings(service)["ExecStart"]) if word != "$ARGS"]
    assert words[0] == PROGRAM
    parsed(words[1:])


@every_service
def test_it_is_stopped_by_sigterm_to_the_exporter_alone(service: Path) -> None:
    found = settings(service)
    assert found["KillMode"] == "mixed"  # only the exporter gets SIGTERM; it stops its commands and closes the history
    assert int(found["TimeoutStopSec"].removesuffix("s")) > 10
    assert found["OOMPolicy"] == "continue"


@every_service
def test_a_stop_is_no_failure(service: Path) -> None:
    """Interrupted by SIGTERM, a run ends with 143. Between runs, the exporter ends with the code of the last one."""
    found = settings(service)
    words = shlex.split(found["ExecStart"])
    codes = "1 4 143" if "--every" in words else "143" if "--lane" in words else "0"
    assert found.get("SuccessExitStatus", "0") == codes
    assert "--every" not in words or found["Restart"] == "always"  # also after a 1 without a stop


@pytest.mark.parametrize(
    "service", [path for path in SERVICES if "Restart" in settings(path)], ids=lambda path: path.name
)
def test_no_number_of_restarts_ends_the_socket(service: Path) -> None:
    """systemd's default limit, five starts within ten seconds, would let the unit and its socket fail for good."""
    unit, seconds = read_unit(service)["Unit"], float(settings(service)["RestartSec"].removesuffix("s"))
    assert unit.get("StartLimitIntervalSec") == "0" or seconds * 5 > 10


@every_service
def test_its_output_folders_are_writable(service: Path) -> None:
    found = settings(service)
    writable = found["ReadWritePaths"].split()
    assert found["WorkingDirectory"] in writable
    assert all(folder in writable for folder in re.findall(r"--textfile (\S+)", found["ExecStart"]))


def test_the_home_of_the_user_is_writable_and_outside_of_the_project() -> None:
    """Tools write caches into their home: in the project they would be untracked files, which change with each run."""
    page = (FOLDER.parents[1] / "docs/deploy.md").read_text()
    texts = (page, (FOLDER / "paropt-exporter.service").read_text())
    (home,) = {found for text in texts for found in re.findall(r"useradd --system --home-dir (\S+)", text)}
    for found in (settings(service) for service in SERVICES if "--lane" in settings(service)["ExecStart"]):
        assert f"/var/lib/{found['StateDirectory']}" == home
        assert not Path(home).is_relative_to(found["WorkingDirectory"])


def test_unit_of_a_project_beside_serve_needs_no_socket(tmp_path: Path) -> None:
    """paropt-serve.socket conflicts with the socket that paropt-exporter.service would start."""
    page = (FOLDER.parents[1] / "docs/deploy.md").read_text()
    (command,) = re.findall(r"^ *(sed .*\n.*) > /etc/systemd/system/paropt-shop.service$", page, re.MULTILINE)
    unit = tmp_path / "paropt-shop.service"
    with unit.open("w") as file:
        subprocess.run(["sh", "-c", command], cwd=FOLDER.parents[1], stdout=file, check=True)
    found = read_unit(unit)
    assert not [value for section in found.sections() for value in found[section].values() if "socket" in value]
    assert found["Service"]["WorkingDirectory"] == found["Service"]["ReadWritePaths"] == "/srv/shop"
    assert found["Unit"]["After"] == "network-online.target"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with an existing program and folder."""
    ours = str(Path(sys.executable).with_name("paropt-exporter"))
    for unit in FOLDER.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, ours).replace("/srv/paropt", "/tmp"))
    return tmp_path


@needs_systemd
def test_systemd_finds_no_fault(units: Path) -> None:
    verified = subprocess.run(
        ["systemd-analyze", "verify", *sorted(units.iterdir())], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


@needs_systemd
@every_service
def test_systemd_rates_its_exposure_as_low(units: Path, service: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}"]
    judged = subprocess.run([*command, units / service.name], capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout
