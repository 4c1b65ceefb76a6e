"""Make random edits in a cached project, and compare each run with a cold one: no false hit may appear.

Usage: python benchmarks/cache_edits.py [EDITS [SEED]]. Default: 10,000 edits and a seed from the clock.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.random_edits import RandomEdits

_PROGRESS_EVERY = 1000


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000
    print(f"seed {seed}", flush=True)
    began, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="paropt-edits-") as folder:
        edits = RandomEdits(Path(folder), seed)
        for number in range(1, count + 1):
            edits.step()
            if number % _PROGRESS_EVERY == 0:
                print(f"{number:,} edits, {edits.hits:,} hits, no false hit", flush=True)
    seconds = time.perf_counter() - began
    print(
        f"{count:,} edits in {seconds:.0f} s ({time.process_time() - cpu:.0f} s CPU), {edits.hits:,} hits, 0 false hits"
    )
    for name, times in sorted(edits.counts.items()):
        print(f"  {times:6,} {name.replace('_', ' ')}")


if __name__ == "__main__":
    main()
