"""Implement Executor.map by submit: results in order, chunks, a bounded buffer, and cancellation of the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from time import monotonic
from typing import Any, TypeVar

from paropt_exporter.executors.worker import run_chunk

T = TypeVar("T")


def has_own_submit(pool: Executor, base: type[Executor]) -> bool:
    """Return whether a subclass or the instance replaces `submit`, which `map` must call then, as in the library."""
    return "submit" in vars(pool) or type(pool).submit is not base.submit


def check_buffersize(buffersize: int | None) -> None:
    """Raise the errors of Python 3.14's executors for this argument of `map`."""
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def map_in_order(
    submit: Callable[..., Future[Any]],
    function: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    *,
    timeout: float | None,
    chunksize: int,
    buffersize: int | None,
    takes_chunks: bool = False,
) -> Iterator[T]:
    """Submit all chunks now, or the first `buffersize`. The iterator returns results in order and cancels the rest.

    `takes_chunks`: if `chunksize` is above 1, `submit` itself makes a task from the function and a chunk of arguments.
    """
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    check_buffersize(buffersize)
    deadline = None if timeout is None else monotonic() + timeout
    items = zip(*iterables, strict=False)
    if chunksize == 1:
        futures = (submit(function, *arguments) for arguments in items)
        return _iter_results(futures, deadline, buffersize)
    chunks = iter(lambda: tuple(islice(items, chunksize)), ())
    call = (function,) if takes_chunks else (run_chunk, function)
    lists = _iter_results((submit(*call, chunk) for chunk in chunks), deadline, buffersize)
    return (result for results in lists for result in _iter_dropping(results))


def _iter_results(source: Iterator[Future[Any]], deadline: float | None, buffersize: int | None) -> Iterator[Any]:
    pending = deque(source if buffersize is None else islice(source, buffersize))

    def take() -> Any:
        result = _take_result(pending.popleft(), deadline)
        if buffersize is not None:
            pending.extend(islice(source, 1))
        return result

    def results() -> Iterator[Any]:
        try:
            while pending:
                yield take()  # no local name for the result, so that only the consumer keeps it alive
        finally:
            while pending:
                pending.pop().cancel()

    return results()


def _take_result(future: Future[Any], deadline: float | None) -> Any:
    try:
        return future.result(None if deadline is None else deadline - monotonic())
    finally:
        future.cancel()
        del future  # its exception's traceback holds this frame: break the cycle


def _iter_dropping(results: list[Any]) -> Iterator[Any]:
    results.reverse()
    while results:
        yield results.pop()
