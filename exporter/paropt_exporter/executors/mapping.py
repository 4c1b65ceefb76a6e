"""Executor.map by way of submit: results in order, chunks, a bounded buffer, and nothing left running behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from time import monotonic
from typing import Any, TypeVar

from paropt_exporter.executors.worker.chunks import run_chunk

T = TypeVar("T")


def map_in_order(
    submit: Callable[..., Future[Any]],
    function: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    chunksize: int,
    buffersize: int | None,
) -> Iterator[T]:
    """Submit all now, or the first `buffersize` chunks; the iterator takes results in order, and cancels the rest."""
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
    deadline = None if timeout is None else monotonic() + timeout
    items = zip(*iterables, strict=False)
    if chunksize == 1:
        futures = (submit(function, *arguments) for arguments in items)
        return _results(futures, deadline, buffersize)
    chunks = iter(lambda: tuple(islice(items, chunksize)), ())
    lists = _results((submit(run_chunk, function, chunk) for chunk in chunks), deadline, buffersize)
    return (result for results in lists for result in _dropping(results))


def _results(source: Iterator[Future[Any]], deadline: float | None, buffersize: int | None) -> Iterator[Any]:
    waiting = deque(source if buffersize is None else islice(source, buffersize))

    def take() -> Any:
        result = _result_or_cancel(waiting.popleft(), deadline)
        if buffersize is not None:
            waiting.extend(islice(source, 1))
        return result

    def results() -> Iterator[Any]:
        try:
            while waiting:
                yield take()  # no name for the result: the consumer alone shall hold it
        finally:
            while waiting:
                waiting.pop().cancel()

    return results()


def _result_or_cancel(future: Future[Any], deadline: float | None) -> Any:
    try:
        return future.result(None if deadline is None else deadline - monotonic())
    finally:
        future.cancel()
        del future  # its exception's traceback holds this frame: break the cycle


def _dropping(results: list[Any]) -> Iterator[Any]:
    results.reverse()
    while results:
        yield results.pop()
