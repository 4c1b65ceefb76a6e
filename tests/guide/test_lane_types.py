"""Which lane a change calls for, by the guide's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter import LaneType, detect_lane
from paropt_exporter.errors import UsageError


@pytest.mark.parametrize(
    ("paths", "lane"),
    [
        (["README.md", "docs/a.rst", "notes.txt"], LaneType.DOCS),
        (["src/a.py"], LaneType.STANDARD),
        (["README.md", "src/a.py"], LaneType.STANDARD),
        ([f"src/{n}.py" for n in range(5)], LaneType.STANDARD),
        ([f"src/{n}.py" for n in range(6)], LaneType.HEAVY),
        ([f"tests/test_{n}.py" for n in range(4)], LaneType.HEAVY),
        (["pyproject.toml"], LaneType.HEAVY),
        (["requirements.txt"], LaneType.HEAVY),
        ([".github/workflows/ci.yml"], LaneType.HEAVY),
        ([], LaneType.STANDARD),
    ],
)
def test_lane_follows_what_changed(paths: list[str], lane: LaneType) -> None:
    assert detect_lane(paths) is lane


def test_paths_may_be_path_objects() -> None:
    assert detect_lane([Path("docs/guide.md"), "README.md"]) is LaneType.DOCS
    assert detect_lane([Path("docs/guide.md")], asked="docs") is LaneType.DOCS


def test_a_text_in_place_of_paths_is_refused() -> None:
    with pytest.raises(TypeError, match=r"paths is 'README.md': expected a list of paths"):
        detect_lane("README.md")


@pytest.mark.parametrize("lane", [LaneType.STANDARD, LaneType.HEAVY, "heavy"])
def test_lane_that_was_asked_for_is_taken(lane: LaneType | str) -> None:
    assert detect_lane(["README.md"], asked=lane) is LaneType(lane)


def test_asking_for_docs_with_only_documents_changed_is_fine() -> None:
    assert detect_lane(["README.md"], asked=LaneType.DOCS) is LaneType.DOCS


def test_asking_for_docs_with_code_changed_is_an_error_with_a_remedy() -> None:
    with pytest.raises(UsageError, match=r"src/a\.py changed: use --lane standard"):
        detect_lane(["README.md", "src/a.py"], asked=LaneType.DOCS)


def test_unknown_lane_is_rejected() -> None:
    with pytest.raises(ValueError, match="'quick' is not a valid LaneType"):
        detect_lane(["README.md"], asked="quick")


def test_without_paths_git_decides_and_standard_is_the_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert detect_lane() is LaneType.STANDARD
