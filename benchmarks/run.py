"""Every performance figure, one benchmark after another: `make bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    for name in ("lanes.py", "pools.py", "strategies.py"):
        if (HERE / name).exists():
            print(f"== {name.removesuffix('.py')}", flush=True)
            subprocess.run([sys.executable, str(HERE / name)], check=True)


if __name__ == "__main__":
    main()
