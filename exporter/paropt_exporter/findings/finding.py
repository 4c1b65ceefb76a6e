"""A place and a message in the output of a failed check."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

CUT_NOTE = "[about "  # the beginning of the first line if only the end of an output was kept


class Level(StrEnum):
    """How bad a finding is; the values are those of GitHub's annotations."""

    ERROR = "error"
    WARNING = "warning"


class Finding(Struct, frozen=True, kw_only=True):
    """A place and a message. `path` is written as the tool wrote it; `line` and `column` count from 1.

    `rule`: the tool's name for the kind of finding, such as `F401` or `return-value`. `test`: the failing test's id.
    """

    message: str
    path: str | None = None
    line: int | None = None
    column: int | None = None
    rule: str | None = None
    test: str | None = None
    level: Level = Level.ERROR

    @property
    def place(self) -> str:
        """Return the test's id, otherwise `path:line:column` as far as it is known; "" without a path."""
        if self.test is not None:
            return self.test
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)

    @property
    def text(self) -> str:
        """Return the finding in one line."""
        rule = f" [{self.rule}]" if self.rule else ""
        return f"{self.place}: {self.message}{rule}" if self.place else f"{self.message}{rule}"
