"""Durations and sizes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.config.units import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1d", 86400),
        ("1m5s250ms", 65.25),
        (2, 2),
        ("90", 90),
    ],
)
def test_duration_is_read_as_prometheus_reads_it_or_as_seconds(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "s",
        "30 s",
        "1s1m",
        "1.5h",
        "-5s",
        "1e3",
        "٣s",
        0,
        -1,
        math.nan,
        math.inf,
        True,
        None,
        [],
        10**400,
        "9999999y",
    ],
)
def test_faulty_duration_is_rejected_with_a_message(written: object) -> None:
    with pytest.raises(ValueError, match=r"duration|too long"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "likely"),
    [
        ("5min", "5m"), ("30 secs", "30s"), ("1.5h", "1h30m"), ("2 hours 30 minutes", "2h30m"), ("100 msec", "100ms"),
        ("1.5 msec", None), ("1.2345 s", None), ("2 GiB", None), ("5M", None), ("5:00", None), ("0.0 s", None),
        ("9" * 38 + "d", None),
    ],
)  # fmt: skip
def test_other_spelling_of_a_duration_gets_ours(written: str, likely: str | None) -> None:
    with pytest.raises(ValueError, match=r"duration|too long") as caught:
        parse_duration(written)
    assert ("did you mean" in str(caught.value)) is (likely is not None)
    assert likely is None or str(caught.value).endswith(f": did you mean '{likely}'?")
    assert likely is None or parse_duration(likely) > 0


@pytest.mark.parametrize(
    ("written", "likely"),
    [
        ("2gb", "2GB"),
        ("1.5 g", "1.5GB"),
        ("512Mi", "512MiB"),
        ("2 gib", "2GiB"),
        ("2 bytes", None),
        ("0K", None),
        ("", None),
    ],
)
def test_other_spelling_of_a_size_gets_ours(written: str, likely: str | None) -> None:
    with pytest.raises(ValueError, match="expected a size") as caught:
        parse_size(written)
    assert ("did you mean" in str(caught.value)) is (likely is not None)
    assert likely is None or (str(caught.value).endswith(f": did you mean '{likely}'?") and parse_size(likely) > 0)


def test_zero_is_a_duration_only_on_request() -> None:
    assert parse_duration("0s", zero=True) == 0


@pytest.mark.parametrize(
    ("written", "size"), [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5KiB", 1536), (4096, 4096), ("1 kB", 1000)]
)
def test_size_is_read_with_decimal_and_binary_units(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["2G", "GiB", "-1MB", 0, -5, 1.5, True, None, "2000TiB", 10**30, "0B"])
def test_faulty_size_is_rejected_with_a_message(written: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(written)


@given(st.integers(min_value=1, max_value=10**10))
def test_formatted_duration_parses_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)
