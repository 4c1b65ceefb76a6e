"""The committed generated files are up to date and complete, and none is obsolete."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from paropt_exporter.cli import generate, main
from paropt_exporter.errors import UsageError
from paropt_exporter.monitoring.options import Format, Options

ROOT = Path(__file__).parents[2]
GENERATED = ("alerts/*.yml", "alerts/fleet/*.yml", "dashboards/*.json", "deploy/kubernetes/base/generated/*")


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return generate.render_files((), Options())


def test_the_committed_files_are_up_to_date(files: dict[str, str]) -> None:
    assert {path: (ROOT / path).read_text() for path in files} == files, "run: make generate"


def test_no_generated_file_is_obsolete(files: dict[str, str]) -> None:
    committed = {str(path.relative_to(ROOT)) for pattern in GENERATED for path in ROOT.glob(pattern)}
    assert committed - files.keys() == set(), "delete what nothing generates any more"


def test_only_the_given_kinds_are_rendered() -> None:
    paths = ["docs/paropt.schema.json", "docs/host-config.schema.json", "docs/run.schema.json"]
    assert [*generate.render_files(["schema"], Options())] == paths


def test_an_unknown_kind_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"cannot generate 'alert'; choose from .*schema, docs"):
        generate.render_files(["schema", "alert"], Options())


def test_file_that_is_no_text_is_replaced_once(tmp_path: Path, files: dict[str, str]) -> None:
    schema = tmp_path / "docs/paropt.schema.json"
    schema.parent.mkdir()
    schema.write_bytes(b"\xe9")
    assert generate.run(["schema"], tmp_path, Options(), stdout=io.StringIO()) == 0
    assert schema.read_text() == files["docs/paropt.schema.json"]
    written, printed = schema.stat(), io.StringIO()
    assert generate.run(["schema"], tmp_path, Options(), stdout=printed) == 0
    assert f"{schema} is up to date\n" in printed.getvalue()
    assert schema.stat().st_mtime_ns == written.st_mtime_ns


def test_empty_folder_is_an_error_that_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--out "$UNSET"` would replace the project's own docs/runbook.md."""
    monkeypatch.chdir(tmp_path)
    assert main.main(["generate", "docs", "--out", ""]) == 2
    assert capsys.readouterr().err == "paropt-exporter: --out: the path is empty: correct it, or leave the flag out\n"
    assert [*tmp_path.iterdir()] == []


def test_window_of_part_of_a_minute_is_for_dashboards_only() -> None:
    options = Options(rate_window="90s")
    assert any("[90s]" in text for text in generate.render_files(["dashboards"], options).values())
    for kinds in (["alerts"], ["fleet"], ["deploy"], ["dashboards", "alerts"]):
        with pytest.raises(UsageError, match="--rate-window: expected whole minutes, like 5m, for rules"):
            generate.render_files(kinds, options)


def test_all_flags_reach_the_files(tmp_path: Path) -> None:
    options = Options(
        selector='env="prod"',
        rate_window="7m",
        datasource_uid="uid1",
        runbook_url="https://wiki/runbook",
        grafana_url="https://grafana",
        sla_target=0.9,
        format=Format.PROVISIONING,
    )
    flags = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in options.__struct_fields__]
    assert main.main(["generate", "alerts", "dashboards", "--out", str(tmp_path), *flags]) == 0
    written = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == generate.render_files(["alerts", "dashboards"], options)
