"""Modules of the project that are named like the standard library's break nothing of the exporter's."""

from __future__ import annotations

import sys
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from support import projects
from support.fake_prometheus import fake_prometheus, number
from support.http_servers import QuietHandler, run_http_server
from support.real_servers import HANG_SECONDS, run
from support.secured import PASSWORD, hashed, web_config


@contextmanager
def gateway() -> Iterator[tuple[str, list[str]]]:
    """Accept every push. Yields the URL and the paths of the pushes."""
    paths: list[str] = []

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.reply()

        do_PUT = do_POST

    with run_http_server(Handler) as port:
        yield f"http://localhost:{port}", paths


@cache
def list_modules() -> frozenset[str]:
    """Return what the exporter could import: the modules of the standard library and of all installed packages."""
    others = {name for name in packages_distributions() if name.isidentifier() and name != "paropt_exporter"}
    return frozenset({*sys.stdlib_module_names, *others} - {*sys.builtin_module_names, "__future__"})


def shadow(folder: Path) -> None:
    """Write a module that fails for each of them."""
    for name in list_modules():
        (folder / f"{name}.py").write_text(f"raise RuntimeError('the project has a module {name}')\n")


FEEDBACK = """
feedback:
  interval: 1s
  prometheus: {url: "URL"}
  signals: {load: {query: up, use: load, target: 1}}
"""


# The test of the password is about threads, in which adaptive runs these calls too.
@pytest.mark.parametrize(("strategy", "feedback"), [("process", ""), ("adaptive", FEEDBACK)])
def test_run_with_everything_works_beside_them(tmp_path: Path, strategy: str, feedback: str) -> None:
    (tmp_path / "out").mkdir()
    web_config(tmp_path, f"basic_auth_users: {{alice: {hashed()}}}")
    with fake_prometheus(number("2")) as prometheus, gateway() as (url, pushed):
        projects.write(
            tmp_path,
            """
            name: call, call: "checks:work"
            name: items, call: "checks:take", items: {list: [a, b]}, needs: [call]
            name: failing, call: "checks:fail", needs: [call]
            name: command, run: "echo {item}", items: {list: [a, b]}, needs: [items]
            """,
            lanes=f"lanes: {{standard: {{strategy: {strategy}, workers: {{min: 1, max: 3}}}}}}"
            + feedback.replace("URL", prometheus.url),
            checks="""
                def work() -> None:
                    print("works")

                def take(item: str) -> None:
                    print(item)

                def fail() -> None:
                    raise ValueError("as expected")
                """,
        )
        shadow(tmp_path)
        ended = run(
            tmp_path,
            projects.ANY_PORT,
            "--once",
            "--textfile=out",
            f"--push.url={url}",
            "--push.fail",
            "--web.config.file=web.yml",
        )
    assert "has a module" not in ended.stdout + ended.stderr
    assert ended.returncode == 1, ended.stderr
    assert "as expected" in ended.stdout
    assert len(pushed) == 1
    [one] = projects.runs(tmp_path)
    results = {name: result for name, (result, _) in projects.stages(one).items()}
    assert results == {"call": "success", "items": "success", "failing": "failure", "command": "success"}


def test_password_is_compared_beside_them(tmp_path: Path) -> None:
    web_config(tmp_path, f"basic_auth_users: {{alice: {hashed()}}}")
    projects.write(
        tmp_path,
        'name: call, call: "checks:work"',
        lanes="lanes: {standard: {strategy: thread}}",
        checks="def work() -> None: pass",
    )
    shadow(tmp_path)
    with projects.served(tmp_path, "--web.config.file=web.yml") as url:
        login = b64encode(f"alice:{PASSWORD}".encode()).decode()
        asked = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
        with urllib.request.urlopen(asked, timeout=HANG_SECONDS) as answer:
            assert answer.status == 200
