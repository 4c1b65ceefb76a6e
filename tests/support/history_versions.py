"""Convert a history file to an earlier version of its schema."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_BACK = {
    7: """
    DROP TABLE flaky_items; ALTER TABLE runs DROP COLUMN tree_state;
    ALTER TABLE stages DROP COLUMN first_attempts; ALTER TABLE stages DROP COLUMN flaky_attempts;
    """,
    6: """
    ALTER TABLE runs DROP COLUMN shard; ALTER TABLE runs DROP COLUMN split; ALTER TABLE runs DROP COLUMN merged;
    DROP TABLE shard_items;
    """,
    5: "ALTER TABLE runs DROP COLUMN partial; ALTER TABLE stages DROP COLUMN scope;",
    4: "DROP TABLE items; DROP TABLE failed_items;",
    3: """
    DROP INDEX runs_by_sequence; ALTER TABLE runs DROP COLUMN sequence;
    CREATE INDEX runs_by_lane ON runs (project, lane, started_ts);
    """,
    2: "ALTER TABLE stages DROP COLUMN shown_cpu_total;",
}


def write_as_version(path: Path, version: int) -> None:
    steps = "".join(script for earlier, script in _BACK.items() if earlier >= version)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{steps} PRAGMA user_version = {version};")
