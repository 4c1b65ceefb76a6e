"""Which reports are asked for, and which requests are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter.errors import UsageError
from paropt_exporter.reports import parse

ON_GITHUB = {"GITHUB_ACTIONS": "true"}


def kinds(*texts: str, **environment: str) -> list[str]:
    return [option.kind for option in parse(texts, environment)]


def test_a_file_is_one_of_the_folder_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (option,) = parse(["junit=out/report.xml"], {})
    assert option.path == tmp_path / "out" / "report.xml"
    assert str(option) == f"junit={tmp_path}/out/report.xml"


def test_several_reports_may_be_asked_for() -> None:
    assert kinds("junit=a", "json=b", "github", "otlp", "junit=c") == ["junit", "json", "github", "otlp", "junit"]


def test_on_github_the_report_is_on_by_itself_and_can_be_turned_off() -> None:
    assert kinds("junit=a", **ON_GITHUB) == ["junit", "github"]
    assert kinds("github", **ON_GITHUB) == ["github"]
    assert kinds("none", "junit=a", **ON_GITHUB) == ["junit"]
    assert kinds() == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["xml=a"], "there is no kind 'xml'; there are junit, github, gitlab, json, trace, otlp, none"),
        (["junit"], "junit needs a file: --report junit=FILE"),
        (["junit="], "junit needs a file"),
        (["github=a"], "github goes to no file"),
        (["junit=a", "json=a"], "two reports would go to"),
        (["junit=/"], "/ is a folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(texts, {})
