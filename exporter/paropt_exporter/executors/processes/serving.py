"""The thread of one slot of a ProcessPool: it makes the slot's process, settles what comes back, and buries it."""

from __future__ import annotations

import contextlib
import errno
import logging
import marshal
import os
import select
import signal
from time import monotonic

from paropt_exporter.errors import UnpicklableError, WorkerDied, describe
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.processes.crew import ProcessCrew
from paropt_exporter.executors.processes.link import Frame, ProcessLink
from paropt_exporter.executors.processes.settling import Body, settle, settle_all
from paropt_exporter.executors.processes.slot import ProcessSlot, ProcessTask
from paropt_exporter.executors.worker import payload, wire
from paropt_exporter.executors.worker.forkserver import NOT_FORKED

log = logging.getLogger(__name__)

_OVERDUE_SECONDS = 0.01  # ten times what a batch should take: no stall of the machine, a task that is slow for once
_MUTE_SECONDS = 1.0  # between a worker's closing its line, which only a task of the user's does, and its end
_NURSERY_SECONDS = 1.0  # a worker begins, or its end is told, within that, if nobody has stopped the fork server
_LEFT_SECONDS = 2.0  # as the fork server has it for what crashed workers leave
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 5.0
_MOST_DOUBLINGS = 10  # more than the longest pause takes; a power without a bound would overflow one day
_HOPELESS = 3  # processes in a row that ended by themselves before they could begin: the fault is in how they begin
_HOPELESS_STARTS = 10  # tries in a row, over some 20 s, without a process or with one that was killed: it may pass


def serve(crew: ProcessCrew, slot: ProcessSlot) -> None:
    """Keep a process in the slot until the slot is to go."""
    while not slot.leaving:
        _pause(slot)
        if not slot.leaving and _start(crew, slot):
            _live(crew, slot)


def _pause(slot: ProcessSlot) -> None:
    """Wait before another process, the longer the more of them were of no use."""
    if slot.failures:
        poll = select.poll()
        poll.register(slot.call, select.POLLIN)
        doublings = min(slot.failures - 1, _MOST_DOUBLINGS)
        poll.poll(1000 * min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**doublings))
    _answer(slot)


def _answer(slot: ProcessSlot) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(slot.call)


def _start(crew: ProcessCrew, slot: ProcessSlot) -> bool:
    try:
        preparation = crew.preparation()
        link = ProcessLink(lifetime.FORK_SERVERS)
    except (OSError, UnpicklableError) as error:
        _not_started(crew, slot, error)
        return False
    link.watch(slot.call)
    with crew.roster.lock:
        slot.link = link
        slot.recycling = False
        if slot.leaving:
            link.dismiss()
    link.prepare(preparation)
    return True


def _not_started(crew: ProcessCrew, slot: ProcessSlot, error: Exception) -> None:
    """Say that the system won't give a worker now; `_pause` comes before the next try."""
    slot.failures += 1
    log.warning("a worker could not be started", extra={"pool": crew.counters.name, "err": str(error)})
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE) and crew.roster.note_shortage(slot):
        return
    if slot.failures >= _HOPELESS_STARTS:
        crew.give_up(error)


def _live(crew: ProcessCrew, slot: ProcessSlot) -> None:
    """Converse with a worker until it is gone. Should that fail on this side, end the worker and tell its tasks."""
    try:
        _converse(crew, slot)
    except Exception as error:  # no memory, a bug: whatever it is, nobody may wait for these tasks for ever
        log.exception("a worker is given up", extra={"pool": crew.counters.name, "worker": slot.name})
        lifetime.FORK_SERVERS.end(slot.pid, 0.0)
        with crew.roster.lock:
            crew.desk.reclaim(slot)
            lost = [*slot.settling.values(), *slot.open.values()]
            crew.counters.deaths["signal"] += 1
            _part(crew, slot)
        _settle_lost(slot, lost, f"worker {slot.name} was given up: {describe(error)}", None)
        crew.desk.dispatch()


def _converse(crew: ProcessCrew, slot: ProcessSlot) -> None:
    link = slot.link
    assert link is not None
    while True:
        patience = _patience_seconds(slot, link)
        if patience is None:
            patience = crew.roster.get_retry_delay()
        owed = slot.ready_seconds is None or link.heard_out  # by the fork server: a worker that begins, or its end
        if owed:
            patience = _NURSERY_SECONDS if patience is None else min(patience, _NURSERY_SECONDS)
        ready = link.wait(patience)
        if owed and not ready:
            lifetime.FORK_SERVERS.resume()
        if link.said(ready):
            _hear(crew, slot, link, link.replies())
        if slot.call in ready:
            _answer(slot)
            crew.desk.line_up(slot)
        link.flush()
        if link.ended(ready):
            _bury(crew, slot, link)
            return
        if _patience_seconds(slot, link) == 0.0:
            _hurry(crew, slot, link)
        crew.ask_again()


def _patience_seconds(slot: ProcessSlot, link: ProcessLink) -> float | None:
    """Return how long the order at hand may still take; None when there is nothing to be done about it."""
    if link.mute_seconds is not None and slot.orders:
        return max(0.0, link.mute_seconds + _MUTE_SECONDS - monotonic())
    if slot.overdue or not slot.orders or (len(slot.orders) == 1 and slot.alone >= 0):
        return None
    return max(0.0, slot.ordered_seconds + _OVERDUE_SECONDS - monotonic())


def _hurry(crew: ProcessCrew, slot: ProcessSlot, link: ProcessLink) -> None:
    """Settle what an overdue batch has behind it, let others have what it has not begun; end a worker gone mute."""
    if link.mute_seconds is not None:
        link.mute_seconds = None
        lifetime.FORK_SERVERS.end(slot.pid, 0.0)
        return
    settle_all(crew, slot, slot.open, link.whispers())
    with crew.roster.lock:
        crew.desk.reclaim(slot)
    crew.desk.dispatch()


def _hear(crew: ProcessCrew, slot: ProcessSlot, link: ProcessLink, frames: list[Frame]) -> None:
    free = False
    for head, body in frames:
        kind = head[2]
        if kind == wire.READY:
            lifetime.FORK_SERVERS.warm = True
            with crew.roster.lock:
                slot.ready(int(body), monotonic())
            free = True
        elif kind == wire.REFUSED:
            _take_refusal(crew, slot, payload.load_any_error(body))
        else:
            _account(slot, head)
            slot.failures = 0
            if kind == wire.DONE:
                _succeed(crew, slot, link, unloaded=head[1])
                free = False  # it was seen to: a worker lines up once
            else:
                if head[1] == slot.alone:
                    free = True
                    with crew.roster.lock:
                        slot.alone = -1
                        slot.through(monotonic())
                _settle_said(crew, slot, link, head, body)
    if free:
        crew.desk.free(slot)


def _settle_said(crew: ProcessCrew, slot: ProcessSlot, link: ProcessLink, head: wire.Head, body: Body) -> None:
    """Settle a task whose reply was said aloud; a large body was left in the arena."""
    if head[2] & wire.ARENA_MARK:
        kind = head[2] & ~wire.ARENA_MARK
        try:
            body = link.body_in_arena(body)
        except OSError as error:
            text = f"what it came to could not be taken from its worker: {error}"
            kind, body = wire.LOST, payload.dumps((text, ""))
        settle(crew, slot, slot.open, (*head[:2], kind, *head[3:]), body)
        link.arena_done()
    elif head[2] == wire.PLAIN:
        settle(crew, slot, slot.open, head, marshal.loads(body))
    else:
        settle(crew, slot, slot.open, head, body)


def _succeed(crew: ProcessCrew, slot: ProcessSlot, link: ProcessLink, *, unloaded: int) -> None:
    """Give the worker its next tasks, and settle what it has ended meanwhile.

    Tasks that it could not load may have to be queued again: then that comes first, or a pool that is being closed
    would let its last worker go before.
    """
    ended = link.whispers()
    with crew.roster.lock:
        slot.settling = _taken_out(slot, ended)
        slot.through(monotonic())
    if unloaded:
        settle_all(crew, slot, slot.settling, ended)
        ended = {}
    crew.desk.free(slot)
    settle_all(crew, slot, slot.settling, ended)


def _taken_out(slot: ProcessSlot, ended: dict[int, wire.Reply]) -> dict[int, ProcessTask]:
    if len(ended) == len(slot.open):
        tasks, slot.open = slot.open, {}
        return tasks
    return {number: slot.open.pop(number) for number in ended}


def _take_refusal(crew: ProcessCrew, slot: ProcessSlot, error: BaseException) -> None:
    """Keep why the initializer failed; try again at once if all it lacked was a module that only this process has."""
    slot.refusal = error
    if isinstance(error, ModuleNotFoundError) and not slot.taught and crew.packer.learn(error.name or ""):
        with crew.roster.lock:
            slot.taught = slot.recycling = True


def _account(slot: ProcessSlot, head: wire.Head) -> None:
    slot.cpu_seconds += head[5]
    slot.delay_seconds += head[6]
    slot.cpu_base_seconds = head[7]


def _bury(crew: ProcessCrew, slot: ProcessSlot, link: ProcessLink) -> None:
    """Settle what a worker that has ended left behind: its last results, the task that it died of, the rest."""
    settle_all(crew, slot, slot.open, link.whispers())
    _hear(crew, slot, link, link.last_words())
    code, pid = link.exit_code(), slot.pid
    unforked = OSError(code - NOT_FORKED, os.strerror(code - NOT_FORKED)) if code and code >= NOT_FORKED else None
    with crew.roster.lock:
        crew.desk.reclaim(slot)
        lost = list(slot.open.values())
        message = _cause_of_death(slot, code)
        began, asked = slot.ready_seconds is not None, slot.leaving or slot.recycling
        cause = _death(slot, code, began=began)
        if lost or not (asked or unforked):
            crew.counters.deaths[cause] += 1
        _part(crew, slot)
    if lost and code == 0:  # it looks like an end that was asked for, whose processes the fork server leaves alone
        lifetime.FORK_SERVERS.end(pid, _LEFT_SECONDS)
    _settle_lost(slot, lost, message, code)
    if unforked is not None:
        _not_started(crew, slot, unforked)
    elif not asked and not lost:
        slot.failures += 1
        log.warning("a worker died", extra={"pool": crew.counters.name, "worker": slot.name, "err": message})
        killed = code in (-signal.SIGKILL, -signal.SIGTERM, None)  # it or its fork server, by somebody else perhaps
        if not began and slot.failures >= (_HOPELESS_STARTS if killed else _HOPELESS):
            crew.give_up(slot.refusal or WorkerDied(message, code))
    crew.desk.dispatch()


def _part(crew: ProcessCrew, slot: ProcessSlot) -> None:
    """Take a worker that has ended, or is about to, from its slot; with the lock held."""
    slot.gone(monotonic())
    crew.roster.unlist(slot)
    if slot.link is not None:
        slot.link.close()
    slot.link, slot.settling = None, {}


def _settle_lost(slot: ProcessSlot, lost: list[ProcessTask], message: str, code: int | None) -> None:
    for task in lost:
        if task.future.settle_exception(WorkerDied(f"{task.future.label}: {message}", code)):
            slot.tally.errors += 1
        else:
            slot.tally.cancelled += 1


def _death(slot: ProcessSlot, code: int | None, *, began: bool) -> str:
    if slot.stopping is not None:
        return "stopped"
    if not began:
        return "initializer"
    return "exit" if code is not None and code >= 0 else "signal"


def _cause_of_death(slot: ProcessSlot, code: int | None) -> str:
    where = f"in worker {slot.name} (pid {slot.pid})" if slot.pid else f"in worker {slot.name} before it was ready"
    if code is None:
        return f"ended for unknown reasons {where}"
    if code >= 0:
        return f"exited with code {code} {where}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"killed by signal {-code} ({name}) {where}"
