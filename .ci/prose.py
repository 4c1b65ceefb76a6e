"""Refuse phrases that made the first version hard to read: in code, test names, docs and configs.

Usage: python .ci/prose.py [PATH...]; without paths: all that is committed. Prints file:line: phrase, with a suggestion.
The exit code is 1 if anything was found. A line that must quote a phrase ends with the comment `prose: quoted`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = ("CHANGELOG.md", ".ci/prose.py", "LICENSE", "requirements.lock")
PATTERNS = ("*.py", "*.md", "*.yml", "*.yaml", "*.toml", "*.service", "*.socket", "*.timer", "*Dockerfile", "*Makefile")

PHRASES = {
    r"\bnobody\b": "name the actor, or say that there is none",
    r"\bno one\b": "name the actor, or say that there is none",
    r"\banew\b": "again",
    r"\breckon\w*\b": "compute, count",
    r"\bmend(s|ed|ing)?\b": "fix, repair",
    r"\bheed(s|ed|ing)?\b": "honour, follow",
    r"\bto be had\b": "available",
    r"\bfor ever\b": "forever, without a limit",
    r"\bgoes without a word\b": "is dropped silently",
    r"\b(is|are|was|were) told\b": "say who reports it to whom",
    r"\bwhoever\b": "name the caller",
    r"\bwhat waits\b": "queued tasks",
    r"\bwhat runs\b": "running tasks",
    r"\bwhat it was sent\b": "the batch",
    r"\bas long as needed\b": "until …",
    r"\bhad better\b": "should",
    r"\bcome what may\b": "always",
    r"\bin vain\b": "without success",
    r"\bof one's own\b": "separate",
    r"\bthe like\b": "and similar",
    r"\bby and by\b": "gradually",
    r"\bdoes not? hold good\b": "is false",
    r"\bwhat is not there\b": "missing",
}
# Free relative clauses read naturally in a guide, but hide the subject of a docstring or a comment.
PHRASES_OF_CODE = {
    r"\bwith what\b": "name the thing",
    r"\bof what\b": "name the thing",
    r"\bwhat (it|they|we|others|else)\b": "name the thing",
}
_BOUNDARY = r"\b"


def main() -> None:
    found = [line for path in _paths() for line in check(path)]
    print(*found, sep="\n")
    raise SystemExit(bool(found))


def check(path: Path) -> Iterator[str]:
    """Yield a line for each phrase in a file, in order."""
    phrases = PHRASES | PHRASES_OF_CODE if path.suffix == ".py" else PHRASES
    # Each begins with \b, which is looked for once at a place instead of once for each of them.
    choices = "|".join(f"({phrase.removeprefix(_BOUNDARY).replace('(', '(?:')})" for phrase in phrases)
    pattern = re.compile(f"{_BOUNDARY}(?:{choices})", re.IGNORECASE)
    suggestions = tuple(phrases.values())
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.rstrip().endswith("prose: quoted"):
            continue
        # A test's name is prose whose spaces are underscores.
        for match in pattern.finditer(line.replace("_", " ") if "def test_" in line else line):
            yield f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: {suggestions[(match.lastindex or 1) - 1]}"


def _paths() -> Iterator[Path]:
    if sys.argv[1:]:
        given = [Path(name).resolve() for name in sys.argv[1:]]
        yield from (path for path in given if path.is_file())
        folders = [path for path in given if path.is_dir()]
        if not folders:
            return
    else:
        folders = [ROOT]
    patterns = [f"{folder}/{pattern}" for folder in folders for pattern in PATTERNS]
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = (ROOT / name for name in listed.stdout.splitlines() if name not in SKIPPED)
    yield from (path for path in tracked if path.exists())  # git lists deleted files until they are staged


if __name__ == "__main__":
    main()
