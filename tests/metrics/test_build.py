"""Which revision a build says it is."""

from __future__ import annotations

from pathlib import Path

from paropt_exporter.metrics.build import revision

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def repository(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / ".git" / name.replace("__", "/").replace("_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_branch_is_followed_to_its_commit(tmp_path: Path) -> None:
    root = repository(tmp_path, HEAD="ref: refs/heads/main\n", refs__heads__main=f"{COMMIT}\n")
    assert revision(root) == COMMIT[:12]


def test_a_detached_head_is_the_commit_itself(tmp_path: Path) -> None:
    assert revision(repository(tmp_path, HEAD=f"{COMMIT}\n")) == COMMIT[:12]


def test_a_packed_branch_is_found_too(tmp_path: Path) -> None:
    packed = f"# pack-refs with: peeled\n{COMMIT} refs/heads/main\n"
    root = repository(tmp_path, HEAD="ref: refs/heads/main\n", packed_refs=packed)
    assert revision(root) == COMMIT[:12]


def test_an_installed_package_says_that_its_revision_is_unknown(tmp_path: Path) -> None:
    assert revision(tmp_path) == "unknown"
