"""Dataclasses made by `lazy_dataclasses` behave like the standard library's."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from paropt_exporter.lazy_dataclasses import dataclass, field, replace

MANY = 40  # instances, after which `__init__` is compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point."""

    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)
    secret: str = field(default="", repr=False, compare=False)


@dataclass(slots=True)
class Counter:
    name: str
    count: int = 0

    def __post_init__(self) -> None:
        self.count += 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StandardPoint:
    x: int
    y: int = 0
    tags: list[str] = dataclasses.field(default_factory=list)
    secret: str = dataclasses.field(default="", repr=False, compare=False)


@pytest.fixture(params=["first instances", "compiled"])
def point(request: pytest.FixtureRequest) -> Callable[..., Point]:
    """The class with fresh counts, before or after its `__init__` is compiled."""
    cls: Callable[..., Point] = dataclass(frozen=True, slots=True, kw_only=True)(
        type("Point", (), {**_get_body(StandardPoint), "__module__": __name__})
    )
    if request.param == "compiled":
        for number in range(MANY):
            cls(x=number)
    return cls


def _get_body(standard: type) -> dict[str, Any]:
    return {
        "__annotations__": dict(standard.__annotations__),
        "y": 0,
        "tags": field(default_factory=list),
        "secret": field(default="", repr=False, compare=False),
    }


def test_defaults_are_the_standard_ones(point: Callable[..., Point]) -> None:
    made, standard = point(x=1), StandardPoint(x=1)
    assert (made.x, made.y, made.tags, made.secret) == (standard.x, standard.y, standard.tags, standard.secret)


def test_each_instance_has_its_own_list(point: Callable[..., Point]) -> None:
    assert point(x=1).tags is not point(x=1).tags


@pytest.mark.parametrize(
    ("args", "values"), [((), {}), ((), {"x": 1, "z": 2}), ((1,), {}), ((1,), {"x": 1}), ((1, 2, 3, 4, 5), {})]
)
def test_wrong_arguments_raise_the_standard_message(
    point: Callable[..., Point], args: tuple[Any, ...], values: dict[str, Any]
) -> None:
    messages = []
    for cls in (point, StandardPoint):
        with pytest.raises(TypeError) as caught:
            cls(*args, **values)
        messages.append(str(caught.value).replace("StandardPoint", "Point").partition(".__init__")[2])
    assert messages[0] == messages[1]


def test_a_frozen_instance_rejects_changes() -> None:
    point = Point(x=1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x


def test_there_is_no_room_for_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Counter("a").other = 1  # type: ignore[attr-defined]


def test_equality_and_hash_leave_out_fields_that_are_not_compared() -> None:
    first, second = Point(x=1, tags=[], secret="a"), Point(x=1, tags=[], secret="b")
    assert first == second
    assert first != Point(x=2)
    assert first != StandardPoint(x=1)  # type: ignore[comparison-overlap]
    assert hash(dataclasses.replace(first, tags=())) == hash(replace(second, tags=()))  # type: ignore[arg-type]


def test_repr_leaves_out_hidden_fields() -> None:
    assert repr(Point(x=1, secret="a")) == repr(StandardPoint(x=1, secret="a")).replace("Standard", "")


def test_replace_copies_the_other_fields() -> None:
    point = Point(x=1, y=2)
    assert replace(point, y=3) == point.__replace__(y=3) == Point(x=1, y=3)  # type: ignore[attr-defined]  # 3.13's


def test_positional_fields_and_post_init_work() -> None:
    for _ in range(MANY):
        assert Counter("a", 2).count == 3
        assert Counter("a").count == 1
        assert Counter(count=1, name="a").name == "a"
    match Counter("b", 1):
        case Counter(name, count):
            assert (name, count) == ("b", 2)


@pytest.mark.parametrize("instance", [Point(x=1, tags=["a"], secret="s"), Counter("a", 4)])
def test_instances_can_be_copied_and_pickled(instance: Point | Counter) -> None:
    for other in (pickle.loads(pickle.dumps(instance)), copy.copy(instance), copy.deepcopy(instance)):
        assert other == instance
        assert repr(other) == repr(instance)


def test_functions_of_the_standard_library_work() -> None:
    point = Point(x=1, tags=["a"])
    assert dataclasses.is_dataclass(point)
    assert [each.name for each in dataclasses.fields(point)] == [
        each.name for each in dataclasses.fields(StandardPoint)
    ]
    assert dataclasses.asdict(point) == {"x": 1, "y": 0, "tags": ["a"], "secret": ""}
    assert dataclasses.replace(point, x=2) == Point(x=2, tags=["a"])


def test_a_subclass_may_have_the_standard_decorator() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Named(Point):
        name: str

    assert dataclasses.asdict(Named(x=1, name="a")) == {"x": 1, "y": 0, "tags": [], "secret": "", "name": "a"}


def test_a_class_without_slots_is_rejected() -> None:
    with pytest.raises(TypeError, match="slots"):
        dataclass(slots=False)


def test_classes_are_defined_and_used_without_the_standard_module() -> None:
    program = (
        "import sys\n"
        "from paropt_exporter.lazy_dataclasses import dataclass\n"
        "@dataclass(frozen=True, slots=True)\nclass A:\n  a: 'int'\n"
        "assert A(1) == A(a=1)\n"
        "print(sorted({'dataclasses', 'inspect', 'typing'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@dataclass(frozen=True, slots=True)
class Empty:
    """Without fields."""


def test_class_without_fields_has_many_instances() -> None:
    assert {Empty() for _ in range(MANY)} == {Empty()}
