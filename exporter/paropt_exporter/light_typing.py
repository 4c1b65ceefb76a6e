"""Names of `typing` that only annotations and base classes use, without loading it.

`typing` takes 2 ms to load, and each of its protocols 0.1 ms to define. Type checkers see the real names. At run time
annotations are not evaluated, a protocol is a plain class, and the rest stands for any object. A program that reads
annotations (`typing.get_type_hints`) needs the real module.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any as Any  # noqa: PLC0414 -- exported, as all below
    from typing import BinaryIO as BinaryIO  # noqa: PLC0414
    from typing import Concatenate as Concatenate  # noqa: PLC0414
    from typing import Generic as Generic  # noqa: PLC0414
    from typing import NoReturn as NoReturn  # noqa: PLC0414
    from typing import ParamSpec as ParamSpec  # noqa: PLC0414
    from typing import Protocol as Protocol  # noqa: PLC0414
    from typing import Self as Self  # noqa: PLC0414
    from typing import TextIO as TextIO  # noqa: PLC0414
    from typing import TypeAlias as TypeAlias  # noqa: PLC0414
    from typing import TypeGuard as TypeGuard  # noqa: PLC0414
    from typing import TypeVar as TypeVar  # noqa: PLC0414
    from typing import assert_never as assert_never  # noqa: PLC0414
    from typing import cast as cast  # noqa: PLC0414
else:

    class _Parametrized:
        __slots__ = ()

        def __class_getitem__(cls, parameters):
            return cls

    class Generic(_Parametrized):
        """A base class that takes parameters."""

        __slots__ = ()

    class Protocol(_Parametrized):
        """A base class whose methods are signatures."""

        __slots__ = ()

    Any = BinaryIO = Concatenate = NoReturn = Self = TextIO = TypeAlias = TypeGuard = _Parametrized

    def assert_never(value):
        """Raise AssertionError: a type checker has found that this is never called."""
        raise AssertionError(f"unexpected value: {value!r}")

    def cast(kind, value):  # noqa: ARG001 -- for type checkers
        """Return the value."""
        return value

    def ParamSpec(name, **settings):  # noqa: ARG001, N802 -- named as in typing
        """Return a stand-in, of which only the name is known."""
        return name

    TypeVar = ParamSpec
