"""Load the results of tasks from the store or the remote cache, and restore their outputs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping

from msgspec import Struct

from paropt_exporter.cache.entry import BadEntry
from paropt_exporter.cache.file_states import UnusableFile
from paropt_exporter.cache.misses import Miss
from paropt_exporter.cache.open_cache import CacheSetup, OpenCache
from paropt_exporter.cache.output_files import NotRestored, restore_outputs
from paropt_exporter.cache.result_finder import DamagedResult, FoundResult, ResultFinder
from paropt_exporter.cache.result_store import StoreUnusable
from paropt_exporter.cache.stage_keys import KeptTask, StagePart, StageReading
from paropt_exporter.events import CacheReason
from paropt_exporter.plan.structure import PlannedStage

log = logging.getLogger(__name__)


class StageResults(Struct, frozen=True, kw_only=True):
    """The results of a stage's parts, and why the others have none.

    `outputs`: the files in the places of the outputs of the parts that run.
    """

    reading: StageReading
    found: Mapping[StagePart, KeptTask | Miss]
    outputs: Mapping[str, os.stat_result]

    def list_missed(self) -> list[str]:
        """Return the keys of the parts that run."""
        return [self.reading.keys[part].digest for part, result in self.found.items() if isinstance(result, Miss)]


class ResultLoader:
    """Loads the results of tasks for one run, or the reasons why there are none. One thread at a time uses it."""

    def __init__(self, setup: CacheSetup, opened: OpenCache, given_up: threading.Event) -> None:
        """`given_up`: set when the run ends, which ends downloads."""
        self._setup = setup
        self._store = setup.store
        self._opened = opened
        self._given_up = given_up
        self._finder = ResultFinder(setup, opened, self._fetch)
        self._last_output = ("", "")  # its digest and its text

    def find(self, stage: PlannedStage) -> StageResults | Miss:
        """Return the results of a stage as its inputs are now, and restore their outputs; a Miss: it can have none."""
        reading = self._finder.read(stage)
        if isinstance(reading, Miss):
            return reading
        found = self._load(reading, reading.parts)
        if reading.is_recorded and any(isinstance(result, Miss) for result in found.values()):
            try:
                reading, found = self._complete(reading, found)
            except UnusableFile as error:
                return Miss(CacheReason.UNCACHEABLE, str(error))
        outputs = self._finder.find_outputs(
            reading, (part for part, result in found.items() if isinstance(result, Miss))
        )
        return outputs if isinstance(outputs, Miss) else StageResults(reading=reading, found=found, outputs=outputs)

    def find_kept_meanwhile(self, results: StageResults) -> dict[StagePart, KeptTask]:
        """Return the results of missed parts that another run has just kept."""
        reading = results.reading
        missed = [part for part, result in results.found.items() if isinstance(result, Miss)]
        if not self._setup.reads or not any(self._store.contains(reading.keys[part].digest) for part in missed):
            return {}
        more = self._load(reading, missed)
        return {part: result for part, result in more.items() if isinstance(result, KeptTask)}

    def _complete(
        self, recorded: StageReading, found: Mapping[StagePart, KeptTask | Miss]
    ) -> tuple[StageReading, dict[StagePart, KeptTask | Miss]]:
        """Return a whole reading with its results, for tasks that run since their results turned out to be damaged.

        Raises UnusableFile.
        """
        reading = self._opened.reader.read(recorded.stage)
        if reading.list_digests() != recorded.list_digests():  # a file has changed since
            return reading, self._load(reading, reading.parts)
        return reading, {new: found[old] for old, new in zip(recorded.parts, reading.parts, strict=True)}

    def _load(self, reading: StageReading, parts: Iterable[StagePart]) -> dict[StagePart, KeptTask | Miss]:
        return {part: self._load_part(reading, part) for part in parts}

    def _load_part(self, reading: StageReading, part: StagePart) -> KeptTask | Miss:
        try:
            found = self._finder.find(reading, part)
            return found if isinstance(found, Miss) else self._restore(reading, part, found)
        except DamagedResult as damaged:
            if not damaged.may_be_sound:
                self._store.remove(damaged.key)
            for digest in damaged.entry.list_blobs() if damaged.entry is not None else ():
                self._store.verify(digest)  # so that other damaged contents are not met one run after another
            return damaged.why

    def _restore(self, reading: StageReading, part: StagePart, found: FoundResult) -> KeptTask | Miss:
        """Put the outputs of a result in place. Raises DamagedResult."""
        entry = found.entry
        try:
            output = self._read_output(entry.output)
            restore_outputs(self._opened.states.folder, self._store, found.restoration)
        except BadEntry as error:
            raise DamagedResult(entry.key, entry, error) from None
        except NotRestored as error:
            return Miss(CacheReason.STORE, str(error))
        self._store.mark_used(entry)
        if found.strong is not None:
            self._opened.traced.mark_used(reading.keys[part], found.strong)
            # its weak key is that of other files, too
            self._opened.notes.forget_unkept(reading.stage.name, part.task.item)
        return KeptTask(entry, output)

    def _read_output(self, digest: str) -> str:
        """Return a kept output. Many tasks print the same, often nothing: the last one is remembered."""
        if self._last_output[0] != digest:
            self._last_output = digest, self._store.read(digest).decode("utf-8", "replace")
        return self._last_output[1]

    def _fetch(self, digest: str) -> bool:
        """Download a result from the remote cache. Return whether the store has it now."""
        remote = self._setup.remote
        if remote is None or remote.failure:
            return False
        from paropt_exporter.cache.remote import RemoteFailed, ResultTooLarge

        try:
            return remote.fetch(digest, self._store, self._given_up)
        except (RemoteFailed, ResultTooLarge) as error:
            self._setup.say(str(error))
        except StoreUnusable as error:
            log.debug("a result was not downloaded", extra={"err": str(error)})
        return False
