"""The lines of a batch, so many at a time, each until it is spoken, given up, or everything stops."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tts_core.batch.failures import LineFailed
from tts_core.batch.lines import Line
from tts_core.batch.manifest import Entry, Manifest
from tts_core.batch.pace import Pace
from tts_core.batch.part import Part, Whole, is_whole, move
from tts_core.batch.retry import Policy, judge
from tts_core.batch.tally import Failed, Tally
from tts_core.jobs import JsonObject


@dataclass(frozen=True, slots=True)
class Ask:
    """One attempt at a line.

    body    `input` of the job with its idempotency key, without the tenant's
    part    what the audio is written to
    job_id  of a job that an earlier run has queued, to be waited for instead of queueing another
    queued  to be told the id of the job that was queued
    """

    body: JsonObject = field(repr=False)
    part: Part
    job_id: str | None
    queued: Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Spoken:
    """result: without audio, which is in the part. execution_ms: what is billed for it"""

    result: JsonObject
    execution_ms: int


class Site(Protocol):
    """Where lines are spoken."""

    async def speak(self, ask: Ask) -> Spoken:
        """raises  LineFailed; OSError if the audio cannot be written"""
        ...


class Runner:
    """tally: what is done so far; told() whenever it has changed."""

    def __init__(
        self, site: Site, manifest: Manifest, folder: Path, *, policy: Policy, tally: Tally, told: Callable[[], None]
    ) -> None:
        self._site = site
        self._manifest = manifest
        self._folder = folder
        self._policy = policy
        self._pace = Pace()
        self._tally = tally
        self._told = told
        self._stopped = asyncio.Event()

    async def run(self, lines: Sequence[Line], *, parallel: int) -> None:
        """Speak what is not there yet; returns when all are spoken or given up, after `stop` those on their way."""
        try:
            waiting = deque(await asyncio.to_thread(self._missing, lines))
        except OSError as error:
            self._stop_for(error)
            return
        self._told()

        async def work() -> None:
            while waiting and not self._stopped.is_set():
                try:
                    await self._until_settled(waiting.popleft())
                except OSError as error:  # of the disk: the network's are failures of a line
                    self._stop_for(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(parallel, len(waiting))):
                group.create_task(work())

    def stop(self, reason: str) -> None:
        """Send nothing more. The first reason counts."""
        self._tally.stopped = self._tally.stopped or reason
        self._stopped.set()

    def _stop_for(self, error: OSError) -> None:
        self.stop(f"{error.filename or self._folder}: {error.strerror}")

    def _missing(self, lines: Sequence[Line]) -> Sequence[Line]:
        """Those still to be spoken; those whose audio is there are counted, and their files moved as the lines were."""
        return [line for line in lines if not self._is_done(line)]

    def _is_done(self, line: Line) -> bool:
        entry = self._manifest[line.key(self._manifest.batch_id)]
        self._tally.spent_ms += entry.execution_ms
        if entry.state != "done" or entry.file is None:
            return False
        if not self._stopped.is_set():  # else the manifest's word has to do: to read a big folder takes a while
            self._move(entry, line)
            if not is_whole(self._folder / line.file, Whole(entry.size_bytes, entry.sha256)):
                return False
        self._tally.count_done(line.chars, entry.audio_seconds, from_before=True)
        return True

    def _move(self, entry: Entry, line: Line) -> None:
        """A line before it came or went: the file's number changes. Where the place is taken, it is asked for again."""
        old, new = self._folder / str(entry.file), self._folder / line.file
        if old != new and old.is_file() and not new.exists():
            move(old, new)
            self._manifest.note(line.key(self._manifest.batch_id), "done", file=line.file).result()

    async def _until_settled(self, line: Line) -> None:
        attempt = 1
        while not self._stopped.is_set():
            await self._until_departure()
            if self._stopped.is_set():
                return
            failure = await self._attempt(line)
            if failure is None:
                self._pace.accepted()
                return
            if self._stopped.is_set():  # perhaps by the very signal that ended it
                return
            verdict = judge(failure, attempt=attempt, policy=self._policy, chance=random.random())  # noqa: S311
            match verdict.what:
                case "stop":
                    self.stop(f"{failure.code}: {failure}")
                case "fail":
                    await self._give_up(line, failure, attempt)
                    return
                case "paced":
                    self._pace.refused(_now_s(), retry_after_s=verdict.wait_s)
                    attempt -= 1
                case "renew":
                    await self._renew(line)
            attempt += 1
            await self._pause(verdict.wait_s if verdict.what == "again" else 0.0)

    async def _attempt(self, line: Line) -> LineFailed | None:
        key = line.key(self._manifest.batch_id)
        entry = self._manifest[key]

        async def queued(job_id: str) -> None:
            await self._note(key, "submitted", job_id=job_id)

        sent_key = line.sent_key(self._manifest.batch_id, renewals=entry.renewals)
        try:
            with Part(self._folder / line.file) as part:
                ask = Ask(line.body | {"idempotency_key": sent_key}, part, entry.job_id, queued)
                spoken = await self._site.speak(ask)
                whole = await asyncio.to_thread(part.finish, spoken.result["format"])
        except LineFailed as failure:
            await self._note_failure(key, failure)
            return failure
        await self._note_done(line, spoken, whole)
        return None

    async def _note_done(self, line: Line, spoken: Spoken, whole: Whole) -> None:
        seconds = float(spoken.result.get("duration") or 0.0)
        await self._note(
            line.key(self._manifest.batch_id),
            "done",
            line=line.number,
            file=line.file,
            size_bytes=whole.size_bytes,
            sha256=whole.sha256,
            audio_seconds=seconds,
            execution_ms=spoken.execution_ms,
            request_id=spoken.result.get("request_id"),
        )
        self._tally.spent_ms += spoken.execution_ms
        self._tally.count_done(line.chars, seconds)
        self._told()

    async def _note_failure(self, key: str, failure: LineFailed) -> None:
        """So that the next attempt, in any run, waits for the job if it may be on its way, and else queues one."""
        spent = {"execution_ms": failure.execution_ms}
        await self._note(key, "retrying", code=failure.code, job_id=failure.job_id, **spent)
        self._tally.spent_ms += failure.execution_ms

    async def _give_up(self, line: Line, failure: LineFailed, attempts: int) -> None:
        key = line.key(self._manifest.batch_id)
        await self._note(key, "failed", line=line.number, code=failure.code, job_id=failure.job_id)
        self._tally.failures.append(Failed(line.number, line.file, failure.code, attempts, str(failure)))
        self._told()

    async def _renew(self, line: Line) -> None:
        key = line.key(self._manifest.batch_id)
        renewals = self._manifest[key].renewals + 1
        await self._note(key, "renewed", renewals=renewals)

    async def _note(self, key: str, state: str, **details: object) -> None:
        """Whoever stops waiting for it, it is written: a job that was queued must not be forgotten."""
        await asyncio.shield(asyncio.wrap_future(self._manifest.note(key, state, **details)))

    async def _until_departure(self) -> None:
        await self._pause(self._pace.departure_s(_now_s()) - _now_s())

    async def _pause(self, wait_s: float) -> None:
        """Wait, unless everything stops meanwhile."""
        if wait_s > 0:
            await asyncio.wait([stop := asyncio.create_task(self._stopped.wait())], timeout=wait_s)
            stop.cancel()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
