"""Dataclasses that cost little to define: methods are shared, and `__init__` is compiled for classes that need it.

The standard library's decorator compiles six functions for each class and imports `inspect`, which together took 90 ms
of the start of a program with 190 classes. Here the first instances of a class are filled field by field; `__init__`
is compiled for a class with more instances, and is faster than the standard one if frozen.

Type checkers see the standard library's own functions. A class must have slots; `order`, `init=False`, `InitVar` and
`ClassVar` are not supported. `dataclasses.fields`, `asdict`, `replace` and decorated subclasses work.
"""

from __future__ import annotations

from operator import attrgetter

TYPE_CHECKING = False  # typing takes longer to load than this module
if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 -- exported
    from dataclasses import field as field  # noqa: PLC0414
    from dataclasses import replace as replace  # noqa: PLC0414

    def get_field_names(cls: type) -> tuple[str, ...]:
        """Return the names of a class's fields, in order."""

else:
    _FEW_INSTANCES = 16  # to compile takes 0.2 ms, as much as to fill 100 instances
    _MISSING = object()

    class _Field:
        """The settings of a field."""

        __slots__ = ("compare", "default", "default_factory", "repr")

        def __init__(self, *, default=_MISSING, default_factory=_MISSING, repr=True, compare=True):  # noqa: A002
            self.default = default
            self.default_factory = default_factory
            self.repr = repr
            self.compare = compare

        def make_default(self):
            """Return the default value, or _MISSING if there is none."""
            return self.default if self.default_factory is _MISSING else self.default_factory()

    field = _Field

    def dataclass(*, slots, frozen=False, kw_only=False, eq=True):
        """Return a decorator; the arguments have the standard library's meaning, and `slots` must be true."""
        if not slots:
            raise TypeError("a class without slots needs the standard library's dataclass")
        return lambda cls: _define_class(cls, frozen=frozen, kw_only=kw_only, eq=eq)

    def replace(instance, /, **changes):
        """Return a copy of an instance with changed fields."""
        cls = type(instance)
        for name in cls.__definition__.fields:
            if name not in changes:
                changes[name] = getattr(instance, name)
        return cls(**changes)

    def get_field_names(cls):
        """Return the names of a class's fields, in order."""
        return tuple(cls.__definition__.fields)

    class _Definition:
        """The fields of a class by name, inherited ones first, and how its instances are made."""

        def __init__(self, fields, *, frozen, kw_only, eq):
            self.frozen = frozen
            self.eq = eq
            self.kw_only = kw_only
            self.fields = fields
            self.compared = _make_getter([name for name, settings in fields.items() if settings.compare])

        def fill(self, instance, args, values):
            """Set the fields of a new instance. Return whether the arguments fit; otherwise it is left half filled."""
            if args:
                if self.kw_only or len(args) > len(self.fields):
                    return False
                for name, value in zip(self.fields, args, strict=False):
                    if name in values:
                        return False
                    values[name] = value
            cls, given = type(instance), 0
            for name, settings in self.fields.items():
                if name in values:
                    value = values[name]
                    given += 1
                elif (value := settings.make_default()) is _MISSING:
                    return False
                getattr(cls, name).__set__(instance, value)
            return given == len(values)

        def compile_init(self, cls):
            """Return a function `__init__` of the class."""
            parameters, body, scope = ["self", "*"] if self.kw_only else ["self"], [], {"_MISSING": _MISSING}
            for name, settings in self.fields.items():
                value = name
                scope[f"_set_{name}"] = getattr(cls, name).__set__
                if settings.default_factory is not _MISSING:
                    scope[f"_make_{name}"] = settings.default_factory
                    value = f"_make_{name}() if {name} is _MISSING else {name}"
                    parameters.append(f"{name}=_MISSING")
                elif settings.default is not _MISSING:
                    scope[f"_default_{name}"] = settings.default
                    parameters.append(f"{name}=_default_{name}")
                else:
                    parameters.append(name)
                body.append(f"_set_{name}(self, {value})" if self.frozen else f"self.{name} = {value}")
            if hasattr(cls, "__post_init__"):
                body.append("self.__post_init__()")
            code = f"def __init__({', '.join(parameters)}): {'; '.join(body) or 'pass'}"
            exec(code, scope)  # nosec B102 -- names of our source
            made = scope["__init__"]
            made.__qualname__ = f"{cls.__qualname__}.__init__"
            return made

    class _StandardAttribute:
        """An attribute that the standard library's functions read. Its own decorator makes it when they do."""

        def __init__(self, name):
            self._name = name

        def __get__(self, instance, owner):
            import dataclasses  # here: it imports inspect

            definition, namespace = owner.__definition__, {"__module__": owner.__module__, "__annotations__": {}}
            for name, settings in definition.fields.items():
                given = {key: each for key in _Field.__slots__ if (each := getattr(settings, key)) is not _MISSING}
                namespace["__annotations__"][name] = owner.__annotations__[name]
                namespace[name] = dataclasses.field(**given, kw_only=definition.kw_only)
            standard = type(owner.__name__, (), namespace)
            value = getattr(dataclasses.dataclass(standard, frozen=definition.frozen, eq=definition.eq), self._name)
            setattr(owner, self._name, value)
            return value

    _FIELDS, _PARAMS = _StandardAttribute("__dataclass_fields__"), _StandardAttribute("__dataclass_params__")

    def _define_class(cls, *, frozen, kw_only, eq):
        namespace, own = dict(cls.__dict__), {}
        for name in namespace.get("__annotations__", ()):
            default = namespace.pop(name, _MISSING)
            own[name] = default if isinstance(default, _Field) else _Field(default=default)
        namespace.pop("__dict__", None)
        namespace.pop("__weakref__", None)
        namespace["__slots__"] = tuple(own)
        namespace["__qualname__"] = cls.__qualname__
        definition = namespace["__definition__"] = _Definition(own, frozen=frozen, kw_only=kw_only, eq=eq)
        namespace["__match_args__"] = () if kw_only else tuple(own)
        namespace["__dataclass_fields__"], namespace["__dataclass_params__"] = _FIELDS, _PARAMS
        namespace["__init__"] = _make_first_init(definition, "__post_init__" in namespace)
        namespace.setdefault("__repr__", _format_instance)
        if eq:
            namespace.setdefault("__eq__", _are_equal)
            namespace.setdefault("__hash__", _hash_instance if frozen else None)
        if frozen:
            namespace["__setattr__"], namespace["__delattr__"] = _refuse_change, _refuse_deletion
        namespace["__getstate__"], namespace["__setstate__"] = _get_state, _set_state
        namespace["__replace__"] = replace  # of `copy.replace`, from Python 3.13 on
        return type(cls)(cls.__name__, cls.__bases__, namespace)

    def _make_first_init(definition, has_post_init):
        instances = 0

        def __init__(self, *args, **values):  # noqa: N807 -- it is one
            nonlocal instances
            instances += 1
            if instances <= _FEW_INSTANCES and definition.fill(self, args, dict(values)):
                if has_post_init:
                    self.__post_init__()
                return
            owner = next(cls for cls in type(self).__mro__ if cls.__dict__.get("__definition__") is definition)
            made = definition.compile_init(owner)
            if owner.__init__ is __init__:
                owner.__init__ = made
            made(self, *args, **values)  # raises the usual TypeError if the arguments don't fit

        return __init__

    def _make_getter(names):
        """Return a function from an instance to the tuple of the values of some fields."""
        if len(names) > 1:
            return attrgetter(*names)
        return lambda instance: tuple([getattr(instance, name) for name in names])

    def _format_instance(self):
        shown = [name for name, settings in self.__definition__.fields.items() if settings.repr]
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def _are_equal(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        get_values = self.__definition__.compared
        return get_values(self) == get_values(other)

    def _hash_instance(self):
        return hash(self.__definition__.compared(self))

    def _refuse_change(self, name, value):  # noqa: ARG001
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def _refuse_deletion(self, name):  # noqa: ARG001
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def _get_state(self):
        return [getattr(self, name) for name in self.__definition__.fields]

    def _set_state(self, state):
        cls = type(self)
        for name, value in zip(self.__definition__.fields, state, strict=True):
            getattr(cls, name).__set__(self, value)
