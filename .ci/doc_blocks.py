"""Write the Python blocks of README.md and docs to files, which `make types` checks: the README calls everything typed.

Usage: python .ci/doc_blocks.py FOLDER
"""

import re
import sys
from pathlib import Path

PAGES = ("README.md", "docs/guide.md", "docs/python.md")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
UNTYPED = "sys.modules"  # in a script that replaces modules


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    blocks = [block for page in PAGES for block in BLOCK.findall(Path(page).read_text())]
    for number, block in enumerate(block for block in blocks if UNTYPED not in block):
        (folder / f"block_{number}.py").write_text(block)


if __name__ == "__main__":
    main()
