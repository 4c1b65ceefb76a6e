"""A short form of `make fuzz`: mutated inputs get an answer or a clear error. Its findings have tests of their own."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

import fuzz

KINDS = dict(fuzz.list_kinds(7, requests=200, count=40))


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_inputs_get_an_answer_or_a_clear_error(kind: str) -> None:
    figures = KINDS[kind]()
    count, endings = (100, ("200", "400")) if kind.startswith("requests") else (40, ("accepted", "refused"))
    assert figures.startswith(f"{count}: ")
    assert all(ending in figures for ending in endings)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 500 Internal Server Error\r\n\r\n", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"200 OK", b"<html>",
     b"HTTP/1.1 400 Bad Request\r\n\r\nTraceback"],
)  # fmt: skip
def test_wrong_answer_to_a_request_is_noticed(answer: bytes) -> None:
    with pytest.raises(fuzz.WrongAnswer):
        fuzz.read_status(answer)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"HTTP/1.1 431 X\r\n\r\n"])
def test_right_answer_raises_nothing(answer: bytes) -> None:
    assert fuzz.read_status(answer)


def test_wrong_ending_of_a_config_is_noticed_and_its_input_is_saved(
    tmp_path: Path,
) -> None:
    saved = tmp_path / "saved"

    def fail(_: Path) -> str:
        raise KeyError("a bug")

    with pytest.raises(fuzz.WrongAnswer, match="KeyError"):
        fuzz.fuzz_files("1", partial(fuzz.mutate_document, fuzz.CONFIG), fail, count=5, failures=saved)
    assert len([*saved.iterdir()]) == 5


def test_hanging_config_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError), fuzz.alarm(0.05):
        while True:
            pass


def test_same_seed_gives_the_same_inputs() -> None:
    one, again = random.Random(5), random.Random(5)
    first = [fuzz.mutate_bytes(fuzz.HEADS[0], one, fuzz.HEAD_PARTS) for _ in range(50)]
    assert first == [fuzz.mutate_bytes(fuzz.HEADS[0], again, fuzz.HEAD_PARTS) for _ in range(50)]
    assert len({*first}) > 40
