"""Make random edits in a cached project, and compare each run with a cold one: no false hit may appear.

Usage: python benchmarks/cache_edits.py [--traced] [EDITS [SEED]]. Default: 10,000 edits and a seed from the clock.
`--traced`: shell scripts with `inputs: auto` in place of functions with patterns; half a second each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from paropt_exporter.executors.commands.command_pool import CommandPool
from support.random_edits import RandomEdits
from support.traced_edits import TracedEdits

_PROGRESS_EVERY = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traced", action="store_true")
    parser.add_argument("edits", nargs="?", type=int, default=10_000)
    parser.add_argument("seed", nargs="?", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    count, seed = options.edits, options.seed
    print(f"seed {seed}", flush=True)
    began, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="paropt-edits-") as folder, CommandPool(4) as pool:
        edits = TracedEdits(Path(folder), seed, pool) if options.traced else RandomEdits(Path(folder), seed)
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
