"""Look up known advisories of all packages that requirements.lock pins, where the package index has them.

Usage: python .ci/audit.py [--required] [--pip-audit PROGRAM]. Exits with 1 if a package has an advisory. Says SKIPPED,
and exits with 0 (with --required: 1), where advisories can't be fetched: an index without them answers "not found",
which pip-audit counts as no advisory. So an old package with a known advisory must have one first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
_CANARY = "pyyaml==5.3"  # its loader runs code: CVE-2020-1747
_PIP_AUDIT = Path(sys.executable).parent / "pip-audit"
_TIMEOUT_SECONDS = 300.0


class NoAnswer(Exception):
    """The advisories could not be fetched."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--required", action="store_true", help="fail if the advisories can't be fetched")
    parser.add_argument("--pip-audit", default=str(_PIP_AUDIT), metavar="PROGRAM")
    given = parser.parse_args()
    try:
        lines = find_advisories(given.pip_audit)
    except NoAnswer as error:
        print(f"SKIPPED: no advisories were looked up: {error}")
        return int(given.required)
    print(*lines or [f"no known advisory for any package of {LOCK.name}"], sep="\n")
    return int(bool(lines))


def find_advisories(program: str) -> list[str]:
    """Return a line for each advisory. Raises NoAnswer unless each package got an answer."""
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text(f"{_CANARY}\n")
        (known,) = fetch_answers(program, canary, "--no-deps")
    if not known.get("vulns"):
        raise NoAnswer(
            f"the index has none for {_CANARY}, which has one ({known.get('skip_reason', 'no reason given')})"
        )
    answers = fetch_answers(program, LOCK, "--require-hashes")
    if unknown := [each["name"] for each in answers if "vulns" not in each]:
        raise NoAnswer(f"the index does not know {', '.join(unknown)}")
    return [
        f"{each['name']} {each['version']}: {advisory['id']}, fixed in {', '.join(advisory['fix_versions']) or 'none'}"
        for each in answers
        for advisory in each["vulns"]
    ]


def fetch_answers(program: str, requirements: Path, *flags: str) -> list[dict[str, Any]]:
    """Return the answer for each package. Raises NoAnswer."""
    command = [
        program,
        "--disable-pip",
        *flags,
        "--requirement",
        str(requirements),
        "--format=json",
        "--progress-spinner=off",
    ]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS)
        return list(json.loads(ended.stdout)["dependencies"])
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"no answer within {_TIMEOUT_SECONDS:g} s") from None
    except OSError as error:
        raise NoAnswer(f"{program}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        said = ended.stderr.strip().splitlines()
        raise NoAnswer(said[-1] if said else "pip-audit printed no answer") from None


if __name__ == "__main__":
    raise SystemExit(main())
