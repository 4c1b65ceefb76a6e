"""The Dockerfile follows hadolint's rules and the image's guarantees; these tests need no docker."""

from __future__ import annotations

import http.server
import json
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.deployed import parsed

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in joined.splitlines() if line.strip()]


def collect_instructions(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def find_last_stage() -> list[tuple[str, str]]:
    starts = [index for index, (name, _) in enumerate(instructions()) if name == "FROM"]
    return instructions()[starts[-1] :]


def test_every_instruction_is_known() -> None:
    known = ["FROM", "WORKDIR", "COPY", "RUN", "ENV", "LABEL", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"]
    assert {name for name, _ in instructions()} <= set(known)


def test_base_images_are_pinned_by_full_version() -> None:
    images = [arguments.split()[0] for arguments in collect_instructions("FROM")]
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", image) for image in images)
    assert len(set(images)) == 1, "what is built with one Python runs with the same"


def test_the_image_has_only_installed_files_of_the_build() -> None:
    copies = [arguments for name, arguments in find_last_stage() if name == "COPY"]
    assert copies == ["--from=build /opt/paropt /opt/paropt"]


def test_cached_results_are_kept_beside_the_history() -> None:
    """The home folder lasts as long as the container."""
    assert "PAROPT_CACHE_DIR=/project/.paropt/cache" in list_variables()


def test_the_home_is_writable_for_every_user_and_outside_of_the_project() -> None:
    """It was the project, where the caches of tools are untracked files that change with each run.

    For a --user that the image does not know it was /, which --read-only makes unwritable.
    """
    assert "HOME=/tmp" in list_variables()
    assert any("useradd" in arguments and "--home-dir /tmp " in arguments for _, arguments in find_last_stage())


def list_variables() -> list[str]:
    return [word for name, arguments in find_last_stage() if name == "ENV" for word in arguments.split()]


def test_it_runs_as_a_numeric_non_root_user() -> None:
    user = [arguments for name, arguments in find_last_stage() if name == "USER"][-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_command_and_health_check_run_without_a_shell() -> None:
    for name in ("ENTRYPOINT", "CMD"):
        assert all(isinstance(json.loads(arguments), list) for arguments in collect_instructions(name))
    (check,) = collect_instructions("HEALTHCHECK")
    assert isinstance(json.loads(check.partition("CMD ")[2]), list)


def test_the_command_is_valid() -> None:
    assert json.loads(collect_instructions("ENTRYPOINT")[-1]) == ["paropt-exporter"]
    parsed(json.loads(collect_instructions("CMD")[-1]))


def test_working_directories_are_absolute_and_nothing_is_fetched_or_elevated() -> None:
    assert all(path.startswith("/") for path in collect_instructions("WORKDIR"))
    assert not re.search(r"\b(sudo|curl|wget|apt-get|ADD)\b", TEXT)


def test_copied_files_exist_and_are_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [
        word
        for arguments in collect_instructions("COPY")
        if "--from" not in arguments
        for word in arguments.split()[:-1]
    ]
    assert sources
    assert all((ROOT / source).exists() and f"!{source}" in ignored for source in sources)


def test_every_runtime_dependency_is_pinned_by_the_constraints() -> None:
    (filter_lines,) = [arguments for arguments in collect_instructions("RUN") if "constraints.txt" in arguments]
    command = shlex.split(filter_lines.partition(">")[0])
    pins = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    wanted = re.findall(r'^  "([\w-]+)>=', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {name.lower() for name in [*wanted, "bcrypt"]} <= {pin.partition("==")[0] for pin in pins}


@pytest.mark.parametrize(("status", "code"), [(200, 0), (401, 0), (400, 0), (503, 1)])
def test_the_health_check_accepts_any_response(status: int, code: int) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    (check,) = collect_instructions("HEALTHCHECK")
    _, option, program = json.loads(check.partition("CMD ")[2])
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        asked = program.replace("10178", str(server.server_port))
        assert subprocess.run([sys.executable, option, asked], check=False).returncode == code
        thread.join()
