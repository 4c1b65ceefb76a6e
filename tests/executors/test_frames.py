"""Frames arrive whole and in order, however a channel cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.executors.frames import FrameReader, build_frame

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(VALUES, max_size=5), st.integers(1, 20))
def test_values_arrive_in_chunks_of_any_length(values: list[object], length: int) -> None:
    sent = b"".join(map(build_frame, values))
    reader = FrameReader()
    chunks = [sent[begin : begin + length] for begin in range(0, len(sent), length)]
    assert [value for chunk in chunks for value in reader.read(chunk)] == values


def test_several_frames_arrive_in_one_chunk() -> None:
    assert FrameReader().read(build_frame({"env": {b"A": b"\xff"}}) + build_frame((1, 2.5))) == [
        {"env": {b"A": b"\xff"}},
        (1, 2.5),
    ]


def test_value_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        build_frame(object())
