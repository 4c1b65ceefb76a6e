"""Every performance figure, one benchmark after another, as Markdown for docs/benchmarks.md: `make bench`.

Usage: python benchmarks/run.py [NAME...], for example `pools properties`
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil

HERE = Path(__file__).parent
NAMES = (
    "lanes", "pools", "pool_cases", "properties", "makespan", "strategies", "scarce_cores", "control", "cluster",
    "unchanged",
)  # fmt: skip
ARGUMENTS = {"unchanged": ("build/bench-peers",)}  # the folder for peers that pip and npm install


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a module of this folder")
    names = parser.parse_args().names or NAMES
    print(f"Measured on {datetime.date.today()}, on {machine()}.", flush=True)
    for name in names:
        print(f"\n## {name.capitalize()}\n", flush=True)
        subprocess.run([sys.executable, str(HERE / f"{name}.py"), *ARGUMENTS.get(name, ())], check=True)


def machine() -> str:
    """Return what the figures depend on."""
    memory = psutil.virtual_memory().total / (1 << 30)
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores with {memory:.0f} GiB, {system}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
