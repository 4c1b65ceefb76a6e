"""No output, file or command line has a secret, wherever the product takes secrets from and whatever servers answer."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support import projects
from support.echoing_server import (
    BROKEN_HEADER,
    BROKEN_STATUS,
    ERROR,
    REDIRECT,
    WARNING,
    EchoingServer,
    echoing_server,
)
from support.in_process import call_command
from support.real_servers import HANG_SECONDS, environment, free_port, installed_command, serving
from support.secured import Authority, hashed

SECRETS = {
    name: f"zq-{name.replace('_', '-')}-7f3a9"
    for name in (
        "push_password", "push_token", "query_token", "query_header", "cache_token", "otlp_header", "otlp_broken",
        "otlp_password", "otlp_query", "passed", "unrelated", "stage_literal", "web_password",
    )
}  # fmt: skip
LITERALS = ("stage_literal",)  # they stand in paropt.yml: a kept config is a copy of it
SCENARIOS = (ERROR, REDIRECT, WARNING, BROKEN_HEADER, BROKEN_STATUS, "tls", "unreachable")
# Reads the command lines of the exporter and all that it started, from inside a stage.
CMDLINES = """
import os, pathlib, sys
def parent(pid): return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
def children(pid):
    return [int(one) for each in pathlib.Path(f"/proc/{pid}/task").glob("*/children")
            for one in each.read_text().split()]
def tree(pid):
    try:
        yield pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        for child in children(pid): yield from tree(child)
    except OSError: pass
pid = os.getpid()
while b"paropt-exporter" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes(): pid = parent(pid)
pathlib.Path("cmdlines").write_bytes(b"\\n".join(tree(pid)))
"""
STAGES = """
    name: called, call: "calls:fine"
    name: cached, run: [cat, input], inputs: [input], pass_env: [PASSED]
    name: spying, run: [PYTHON, spy.py], env: {STAGE_TOKEN: LITERAL}
    name: failing, run: "echo no secret here; exit 1", shell: true
"""


def prepare(folder: Path, url: str, scenario: str) -> dict[str, str]:
    """Write a project, its secrets and a host config. Return the environment of its runs."""
    project, home = folder / "project", folder / "home"
    for each in (project, home / ".config/paropt-exporter", folder / "collected"):
        each.mkdir(parents=True, mode=0o755)
    Authority(folder).issue("server")
    tls = "tls_server_config: {cert_file: server.pem, key_file: server.key}"
    (folder / "web.yml").write_text(f"{tls}\nbasic_auth_users: {{ops: {hashed(SECRETS['web_password'])}}}\n")
    for name in ("push_password", "query_token", "query_header"):
        (home / ".config/paropt-exporter" / name).write_text(f"{SECRETS[name]}\n")
    (home / ".config/paropt-exporter/config.yml").write_text(f"""
servers:
  - {{url: "{url}/prometheus", bearer_token_file: query_token, header_files: {{X-Key: query_header}}}}
  - {{url: "{url}/push", basic_auth: {{username: ci, password_file: push_password}}}}
  - {{url: "{url}/cache", bearer_token_env: CACHE_TOKEN}}
allow: [{{url: "{url}/own"}}]
cache: {{url: "{url}/cache", write: true}}
""")
    push = f'url: "{url}/own", bearer_token_env: PUSH_TOKEN' if scenario == WARNING else f'url: "{url}/push"'
    stages = STAGES.replace("PYTHON", sys.executable).replace("LITERAL", SECRETS["stage_literal"])
    config = f'push: {{{push}}}\nfeedback: {{interval: 100ms, prometheus: {{url: "{url}/prometheus", timeout: 1s}}}}\n'
    # Worker processes and their server have command lines and environments of their own; they take a while to start.
    strategy = "process" if scenario == ERROR else "thread"
    lanes = f"{config}lanes: {{standard: {{strategy: {strategy}}}}}"
    projects.write(project, stages, lanes=lanes, calls="def fine(): pass")
    (project / "spy.py").write_text(CMDLINES)
    (project / "input").touch()
    endpoint = url.replace("://", f"://me:{SECRETS['otlp_password']}@")
    broken = f"api key: {SECRETS['otlp_broken']}," if scenario == REDIRECT else ""
    return {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PUSH_TOKEN": SECRETS["push_token"],
        "CACHE_TOKEN": SECRETS["cache_token"],
        "PASSED": SECRETS["passed"],
        "AWS_SECRET_ACCESS_KEY": SECRETS["unrelated"],
        "OTEL_EXPORTER_OTLP_HEADERS": f"{broken}x-api-key=Bearer%20{SECRETS['otlp_header']}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{endpoint}/?token={SECRETS['otlp_query']}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }


def run_lane(folder: Path, environ: Mapping[str, str], log_format: str) -> bytes:
    """Run the lane with every report and return all that it printed."""
    reports = [f"--report={kind}=report.{kind}" for kind in ("junit", "gitlab", "json", "trace")]
    ended = subprocess.run(
        [
            installed_command(), "--once", projects.ANY_PORT, "--verbose", "--log.level=debug",
            f"--log.format={log_format}", *reports, "--report=github", "--report=otlp",
            f"--web.config.file={folder / 'web.yml'}", f"--textfile={folder / 'collected'}",
        ],
        cwd=folder / "project", env={**without_host_config(), **environ}, capture_output=True, check=False, timeout=100,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr.decode()
    return ended.stdout + ended.stderr


def without_host_config() -> dict[str, str]:
    return {name: value for name, value in environment().items() if name != "PAROPT_HOST_CONFIG"}


def iter_written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each file that the exporter wrote."""
    for part in ("project", "cache", "collected"):
        for path in (folder / part).rglob("*"):
            if path.is_file() and path.name != "paropt.yml":
                yield str(path.relative_to(folder)), path.read_bytes()


def find_secrets(texts: Mapping[str, bytes], key: Path) -> list[tuple[str, str]]:
    """Return the place and the name of each secret in a text, in any form in which it may have been sent."""
    forms = {
        name: [value.encode(), *(base64.b64encode(f"{user}:{value}".encode()) for user in ("ci", "me", "ops"))]
        for name, value in SECRETS.items()
    }
    forms["tls_key"] = [key.read_bytes().splitlines()[1]]
    forms["web_hash"] = [hashed(SECRETS["web_password"]).encode()]
    return [
        (place, name)
        for place, text in texts.items()
        for name, values in forms.items()
        if any(value in text for value in values)
        and not (name in LITERALS and place.startswith("cache/paropt-exporter/configs/"))
    ]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_run_with_secrets_everywhere_shows_none(tmp_path: Path, scenario: str) -> None:
    mode = scenario if scenario in (REDIRECT, WARNING, BROKEN_HEADER, BROKEN_STATUS) else ERROR
    with echoing_server(mode) as server:
        url = {
            "tls": server.url.replace("http:", "https:"),
            "unreachable": f"http://127.0.0.1:{free_port()}",
        }.get(scenario, server.url)
        environ = prepare(tmp_path, url, scenario)
        printed = run_lane(tmp_path, environ, "json" if scenario in (ERROR, "tls") else "logfmt")
        texts = {"printed": printed, "pushed": find_pushed(server), **dict(iter_written(tmp_path))}
        if url == server.url:
            sent = b"".join(server.received)
            used = ["query_token", "query_header", "cache_token", "otlp_header"]
            used += ["push_token"] if scenario == WARNING else []
            assert [name for name in used if SECRETS[name].encode() not in sent] == []
    assert b"paropt-exporter" in texts["project/cmdlines"]
    assert {"project/report.junit", "project/report.trace", "project/.paropt/history.db"} <= texts.keys()
    assert find_secrets(texts, tmp_path / "server.key") == []


def find_pushed(server: EchoingServer) -> bytes:
    """Return the bodies of all requests, without their heads, which rightly have the secrets."""
    return b"".join(request.partition(b"\n")[2].partition(b"\n")[2] for request in server.received)


LOOKING = (
    ("check",), ("plan", "--why"), ("plan", "--output", "json"), ("history",), ("history", "--output", "json"),
    ("explain",), ("explain", "--output", "json"), ("replay",), ("log",), ("sla",), ("cache", "info"), ("--list",),
)  # fmt: skip


def test_looking_at_a_run_with_secrets_shows_none(tmp_path: Path) -> None:
    with echoing_server(WARNING) as server:
        environ = prepare(tmp_path, server.url, WARNING)
        run_lane(tmp_path, environ, "logfmt")
        texts, environ["PAROPT_HOST_CONFIG"] = {}, host_file(tmp_path)
        for arguments in LOOKING:
            ended = call_command(tmp_path / "project", *arguments, "--log.level=debug", **environ)
            assert ended.returncode in (0, 1), ended.stderr
            texts[" ".join(arguments)] = (ended.stdout + ended.stderr).encode()
    assert find_secrets(texts, tmp_path / "server.key") == []


def host_file(folder: Path) -> str:
    return os.fspath(folder / "home/.config/paropt-exporter/config.yml")


def test_a_served_page_and_its_log_show_no_password_of_a_request(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{ops: {hashed(SECRETS['web_password'])}}}\n")
    projects.write(tmp_path, 'name: good, run: "true"')
    with serving(tmp_path, projects.ANY_PORT, "--web.config.file=web.yml", "--log.level=debug") as command:
        address = projects.url(tmp_path)
        texts = {
            "page": fetch(address, "web_password"),
            "refused": fetch(f"{address}?token={SECRETS['push_token']}", "push_password"),
            "missing": fetch(f"{address}/{SECRETS['push_token']}", "web_password"),
        }
        command.stop()
    assert b"paropt_run" in texts["page"]
    texts["log"] = (tmp_path / "stderr.log").read_bytes()
    Authority(tmp_path).issue("server")
    assert find_secrets(texts, tmp_path / "server.key") == []


def fetch(url: str, password: str) -> bytes:
    pair = base64.b64encode(f"ops:{SECRETS[password]}".encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {pair}"})
    try:
        with urllib.request.urlopen(request, timeout=HANG_SECONDS) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.read()
