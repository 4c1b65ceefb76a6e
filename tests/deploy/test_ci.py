"""The CI snippets are valid and pinned, and their lane step works in a shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import projects
from support.deployed import schema_faults
from support.real_servers import HANG_SECONDS, environment, free_port, server
from support.yaml_documents import load_yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/ci"
OUR_WORKFLOW = ROOT / ".github/workflows/ci.yml"
GITHUB: dict[str, Any] = load_yaml((FOLDER / "github.yml").read_text())
GITLAB: dict[str, Any] = load_yaml((FOLDER / "gitlab-ci.yml").read_text())
STEPS: list[dict[str, Any]] = GITHUB["jobs"]["checks"]["steps"]
(LANE_STEP,) = (step["run"] for step in STEPS if step.get("name") == "lane")
# The script of the lane step, and the environment of a CI runner's shell.
LANES = {
    "github": (LANE_STEP, {"GITHUB_REPOSITORY": "acme/shop"}),
    "gitlab": (
        "\n".join(GITLAB["checks"]["script"]),
        {"CI_PROJECT_PATH": "acme/shop", "CI_COMMIT_BRANCH": "main", "CI_DEFAULT_BRANCH": "main"},
    ),
}
every_lane = pytest.mark.parametrize("which", LANES)


@pytest.mark.parametrize(
    ("paths", "schema"),
    [
        ((FOLDER / "github.yml", FOLDER / "github-shards.yml", OUR_WORKFLOW), "github-workflows"),
        ((FOLDER / "gitlab-ci.yml", FOLDER / "gitlab-shards.yml"), "gitlab-ci"),
    ],
    ids=["github", "gitlab"],
)
def test_the_files_are_valid(paths: tuple[Path, ...], schema: str) -> None:
    assert schema_faults(schema, *paths) == ""


@pytest.mark.parametrize("path", [*sorted(FOLDER.glob("github*.yml")), OUR_WORKFLOW], ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_with_their_version(path: Path) -> None:
    uses = re.findall(r"uses: (.*)", path.read_text())
    assert uses
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use) for use in uses)


def test_our_workflow_runs_on_every_supported_python() -> None:
    (job,) = load_yaml(OUR_WORKFLOW.read_text())["jobs"].values()
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    named = re.findall(r"Python :: (\d\.\d+)", " ".join(classifiers))
    assert job["strategy"]["matrix"]["python"] == named
    assert job["container"]["image"] == "python:${{ matrix.python }}-bookworm"
    assert job["steps"][-2:] == [{"run": ".ci/run"}, {"run": "make audit"}]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_image_is_pinned() -> None:
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", GITLAB[".paropt"]["image"])


def test_the_history_is_saved_after_a_failed_lane() -> None:
    assert GITLAB[".paropt"]["cache"]["when"] == "always"
    (save,) = (step for step in STEPS if "cache/save" in step.get("uses", ""))
    assert (save["if"], save["with"]["path"].split()) == ("always()", [".paropt", "!.paropt/logs"])


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    flags = (f"--web.listen-address={address}", "--log.level=warn", "--persistence.file=")
    url = f"http://{address}"
    with server("prometheus-pushgateway", *flags, log=tmp_path / "gateway.log", healthy=f"{url}/-/ready"):
        yield url


def ran(script: str, folder: Path, **env: str) -> int:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=environment(PATH=path, CI="true", **env), timeout=HANG_SECONDS, check=False
    ).returncode


@every_lane
def test_the_lane_is_run_and_pushed_under_the_name_of_the_repository(which: str, tmp_path: Path, gateway: str) -> None:
    projects.write(tmp_path, 'name: good, run: "true"')
    script, variables = LANES[which]
    assert ran(script, tmp_path, PUSHGATEWAY_URL=gateway, **variables) == 0
    samples = projects.scraped(f"{gateway}/metrics")
    assert ("paropt_run_last_success_timestamp_seconds", "acme/shop", "paropt", "standard") in samples


def test_only_the_default_branch_is_pushed(tmp_path: Path, gateway: str) -> None:
    """Branches have histories of their own: in one group of the gateway their totals would go up and down."""
    projects.write(tmp_path, 'name: good, run: "true"')
    script, variables = LANES["gitlab"]
    for branch in ("feature", ""):  # a pipeline of a merge request has no branch
        assert ran(script, tmp_path, PUSHGATEWAY_URL=gateway, **{**variables, "CI_COMMIT_BRANCH": branch}) == 0
    assert not [key for key in projects.scraped(f"{gateway}/metrics") if key[0].startswith("paropt_")]
    (step,) = (step for step in STEPS if step.get("name") == "lane")
    for name in ("PUSHGATEWAY_URL", "PUSHGATEWAY_PASSWORD"):
        (condition, *_) = step["env"][name].split(" && ")
        assert condition == "${{ github.ref_name == github.event.repository.default_branch"


def test_stages_of_other_branches_have_no_password_of_the_gateway(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "test -z \\"$PUSHGATEWAY_PASSWORD\\"", shell: true')
    script, variables = LANES["gitlab"]
    secret = {"PUSHGATEWAY_URL": "http://127.0.0.1:1", "PUSHGATEWAY_PASSWORD": "s3cret"}
    assert ran(script, tmp_path, **secret, **{**variables, "CI_COMMIT_BRANCH": "feature"}) == 0


@every_lane
def test_without_a_gateway_the_lane_runs(which: str, tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: bad, run: "false"')
    script, variables = LANES[which]
    assert ran(script, tmp_path, PUSHGATEWAY_URL="", **variables) == 1


def test_a_self_hosted_runner_gets_a_textfile(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"')
    (tmp_path / "collected").mkdir()
    assert ran(GITLAB["nightly"]["script"][0], tmp_path, TEXTFILE_FOLDER=str(tmp_path / "collected")) == 0
    assert [path.name for path in (tmp_path / "collected").iterdir()] == ["paropt_demo_heavy.prom"]


@pytest.mark.parametrize("which", ["github", "gitlab"])
def test_shards_of_the_examples_run_all_items_and_merge(which: str, tmp_path: Path) -> None:
    text = (FOLDER / f"{which}-shards.yml").read_text()
    jobs: dict[str, Any] = load_yaml(text)
    count = (
        len(jobs["jobs"]["shard"]["strategy"]["matrix"]["shard"]) if which == "github" else jobs["shards"]["parallel"]
    )
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    projects.write(
        checkout, "name: unit, shell: true, run: 'echo {item} >> $OUT', items: {list: [a, b, c, d, e, f, g]}"
    )
    merging = tmp_path / "merging"
    projects.copy(checkout, merging)
    for index in range(1, count + 1):
        folder = projects.copy(checkout, tmp_path / f"shard{index}")
        if which == "github":
            (lane,) = (step["run"] for step in jobs["jobs"]["shard"]["steps"] if step.get("name") == "lane")
            kept = merging / f"shards/shard-{index}/.paropt"
        else:
            lane = "\n".join([*jobs["shards"]["script"], *jobs["shards"]["after_script"]])
            kept = merging / "shards"
        variables = {"SHARD": f"{index}/{count}", "CI_NODE_INDEX": str(index), "CI_NODE_TOTAL": str(count)}
        assert ran(lane, folder, OUT=str(tmp_path / "out.txt"), **variables) == 0
        shutil.copytree(folder / (".paropt" if which == "github" else "shards"), kept, dirs_exist_ok=True)
    assert sorted((tmp_path / "out.txt").read_text().split()) == [*"abcdefg"]
    merge = (
        next(step["run"] for step in jobs["jobs"]["merge"]["steps"] if step.get("name") == "merge")
        if which == "github"
        else jobs["merge"]["script"][0]
    )
    assert ran(merge, merging) == 0
    assert (merging / ".paropt/history.db").exists()
