"""Final values reach every target that accepts them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, repeat
from typing import Any

import pytest

from paropt_exporter.errors import DeliveryError
from paropt_exporter.exposition.deliveries import Sinks


def refuse(_: bytes) -> None:
    raise DeliveryError("no space")


def test_a_failing_target_is_logged_counted_and_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pages: list[bytes] = []
    deliveries = Sinks({"textfile": refuse, "pushgateway": pages.append})
    assert deliveries.deliver(lambda: b"page", lambda: 1) == {"textfile"}
    assert pages == [b"page"]
    assert [record.__dict__["err"] for record in caplog.records] == ["no space"]
    counts = {key: count for key, count in deliveries.count_deliveries().items() if count}
    assert counts == {("textfile", "failure"): 1, ("pushgateway", "success"): 1}
    assert deliveries.find_failing() == {"textfile": True, "pushgateway": False}


def test_without_targets_no_page_is_rendered() -> None:
    def never() -> Any:
        raise AssertionError

    assert Sinks({}).deliver(never, never) == frozenset()


@pytest.mark.parametrize(
    ("ended", "delivered"), [(repeat(1), 1), (iter((1, 2, 2, 2)), 2), (count(), 3)], ids=["none", "one", "always"]
)
def test_a_page_follows_if_another_run_ends_during_the_delivery(ended: Iterator[int], delivered: int) -> None:
    pages: list[bytes] = []
    sinks = Sinks({"textfile": pages.append, "pushgateway": refuse})
    assert sinks.deliver(lambda: b"page", lambda: next(ended)) == {"pushgateway"}
    assert len(pages) == delivered
    assert sinks.count_deliveries()["pushgateway", "failure"] == 1  # it may have taken ten seconds
