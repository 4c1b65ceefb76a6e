"""The JSON of a plain run is that of the package `json`, which it does not import."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter import plain_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_values_are_written_and_read_as_by_json(value: object) -> None:
    text = plain_json.dumps(value)
    assert text == json.dumps(value)
    assert plain_json.loads(text) == plain_json.loads(text.encode()) == value


def test_tuples_and_infinity_are_written_as_by_json() -> None:
    assert plain_json.dumps((1, math.inf)) == json.dumps((1, math.inf))
    assert plain_json.loads("Infinity") == math.inf


@pytest.mark.parametrize("text", ["", "{", "{} {}", '{"a": }', "nul", '"\n"', "[1,]", "{a: 1}"])
def test_a_fault_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        plain_json.loads(text)


def test_other_types_are_written_as_by_json() -> None:
    assert plain_json.dumps({"a": [object]}, default=str) == json.dumps({"a": [object]}, default=str)


@given(st.text())
def test_text_beyond_ascii_is_quoted_as_by_json(text: str) -> None:
    assert plain_json.encode_basestring(text) == json.dumps(text, ensure_ascii=False)


def test_an_unknown_type_raises_type_error() -> None:
    with pytest.raises(TypeError, match="set is not a value of JSON"):
        plain_json.dumps({1})


def test_it_imports_neither_json_nor_re() -> None:
    program = (
        "import sys; from paropt_exporter import plain_json; "
        "assert plain_json.loads(plain_json.dumps([1])) == [1]; print({'json', 're', 'enum'} & {*sys.modules})"
    )
    folder = str(next(path for path in sys.path if path.endswith("exporter")))
    program = f"import sys; sys.path.append({folder!r}); {program}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")
