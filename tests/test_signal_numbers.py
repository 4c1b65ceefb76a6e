"""Names of signals, without the module `signal`."""

from __future__ import annotations

import signal

import pytest

from paropt_exporter.signal_numbers import name_signal


@pytest.mark.parametrize("number", signal.Signals)
def test_names_are_those_of_the_module_signal(number: signal.Signals) -> None:
    assert name_signal(int(number)) == number.name


@pytest.mark.parametrize("number", [0, -1, 99])
def test_unknown_number_raises_value_error(number: int) -> None:
    with pytest.raises(ValueError, match=f"no signal has the number {number}"):
        name_signal(number)
