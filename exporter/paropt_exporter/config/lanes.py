"""Choose a lane for a change: docs for documents only, heavy for a wide or risky change, standard otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from paropt_exporter.errors import UsageError, join_names

DOCS, STANDARD, HEAVY = "docs", "standard", "heavy"
AUTO = "auto"  # of --lane: choose one of these
MOST_CODE_FILES = 5  # the guide's limits; a change of more files is wide
MOST_TEST_FILES = 3

_DOCUMENT_SUFFIXES = frozenset({".md", ".rst", ".txt"})
_CODE_SUFFIXES = frozenset(
    {
        ".py", ".pyi", ".pyx", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".vue", ".svelte", ".go", ".rs",
        ".c", ".h", ".cc", ".cpp", ".hpp", ".java", ".kt", ".scala", ".rb", ".php", ".cs", ".swift", ".sh",
        ".sql", ".proto", ".lua", ".pl",
    }
)  # fmt: skip
_RISKY_NAMES = frozenset(
    {
        "pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "noxfile.py", "pipfile", "pipfile.lock",
        "poetry.lock", "uv.lock", "pdm.lock", "package.json", "package-lock.json", "yarn.lock",
        "pnpm-lock.yaml", "tsconfig.json", "go.mod", "go.sum", "cargo.toml", "cargo.lock", "gemfile",
        "gemfile.lock", "pom.xml", "build.gradle", "build.gradle.kts", "makefile", "gnumakefile",
        "cmakelists.txt", "meson.build", "build.bazel", "workspace", "dockerfile", "docker-compose.yml",
        "docker-compose.yaml", "compose.yml", "compose.yaml", "jenkinsfile", ".gitlab-ci.yml", ".travis.yml",
        "azure-pipelines.yml", ".pre-commit-config.yaml", "paropt.yml", "paropt.yaml", "environment.yml",
        "conanfile.txt", ".python-version", ".tool-versions",
    }
)  # fmt: skip
_RISKY_FOLDERS = (".github/workflows/", ".github/actions/", ".circleci/", ".ci/", ".buildkite/", "requirements/")


def classify_change(paths: Iterable[str]) -> tuple[str, str]:
    """Return the lane for changed files, and the reason. Paths use `/` and are relative to the project."""
    changed = sorted({path for path in paths if path})
    if not changed:
        return STANDARD, "nothing changed"
    risky = [path for path in changed if _is_risky(path)]
    if risky:
        return HEAVY, f"{_format_paths(risky)} changed: dependencies, build or CI"
    code = [path for path in changed if _is_code(path) and not _is_test(path)]
    tests = [path for path in changed if _is_code(path) and _is_test(path)]
    if len(code) > MOST_CODE_FILES:
        return HEAVY, f"a wide change: {len(code)} code files, more than {MOST_CODE_FILES}"
    if len(tests) > MOST_TEST_FILES:
        return HEAVY, f"a wide change: {len(tests)} test files, more than {MOST_TEST_FILES}"
    others = [path for path in changed if not _is_document(path)]
    if not others:
        return DOCS, f"only documents changed: {_format_paths(changed)}"
    return STANDARD, f"{_format_paths(others)} changed"


def require_docs_only(paths: Iterable[str]) -> None:
    """Raise UsageError if other files than documents changed, which the docs lane would not check."""
    others = sorted({path for path in paths if path and not (_is_document(path) and not _is_risky(path))})
    if others:
        raise UsageError(
            f"the docs lane is for documents only, but {_format_paths(others)} changed: use --lane standard"
        )


def choose_lane(root: Path, ref: str | None = None) -> tuple[str, str]:
    """Return the lane for the changes of a project since `ref`, and the reason; `standard` if they are unknown.

    A file is changed if it differs from the commit where the branch left `ref`, or its target branch if None, or is
    untracked. Each call of git blocks for `git.GIT_SECONDS` at most.
    """
    from paropt_exporter.changes import UnknownChange  # here: only `--lane auto` needs it

    try:
        return classify_change(find_changed_paths(root, ref))
    except UnknownChange as error:
        return STANDARD, str(error)


def find_changed_paths(root: Path, ref: str | None = None) -> frozenset[str]:
    """Return the changed files in the project's folder. Raises UnknownChange."""
    from paropt_exporter.changes import find_changes

    changes = find_changes(root, ref)
    return frozenset(path for path in changes.paths if not path.startswith("../"))


def _is_document(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in _DOCUMENT_SUFFIXES


def _is_code(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in _CODE_SUFFIXES


def _is_test(path: str) -> bool:
    file = PurePosixPath(path)
    stem = file.name.split(".")[0]
    in_folder = any(part in ("tests", "test", "__tests__", "spec") for part in file.parts[:-1])
    return (
        in_folder
        or stem.startswith("test_")
        or stem.endswith("_test")
        or ".test." in file.name
        or ".spec." in file.name
    )


def _is_risky(path: str) -> bool:
    name = PurePosixPath(path).name.lower()
    requirements = name.endswith((".txt", ".in")) and name.startswith(("requirements", "constraints"))
    return name in _RISKY_NAMES or requirements or path.startswith(_RISKY_FOLDERS) or name.startswith("dockerfile.")


def _format_paths(paths: list[str]) -> str:
    return join_names([path.encode(errors="surrogateescape").decode(errors="replace") for path in paths], 3)
