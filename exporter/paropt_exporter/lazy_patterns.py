"""Regular expressions that are compiled on first use: each takes 0.1 to 1 ms, and most runs need few."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re

    def compile_later(pattern: str, flags: int = 0) -> re.Pattern[str]:
        """Return a pattern that is compiled on its first use."""

else:

    class _LazyPattern:
        __slots__ = ("_compiled", "_flags", "_text")

        def __init__(self, text, flags):
            self._text, self._flags, self._compiled = text, flags, None

        def __getattr__(self, name):
            if self._compiled is None:
                import re  # `--version` needs no pattern

                self._compiled = re.compile(self._text, self._flags)
            return getattr(self._compiled, name)

    def compile_later(pattern, flags=0):
        """Return a pattern that is compiled on its first use."""
        return _LazyPattern(pattern, flags)
