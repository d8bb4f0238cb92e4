"""One `cache.seed` at work: every text in every voice, a few at a time."""

import asyncio
import logging
import time

from tts_core.errors import InvalidInput, TTSError, scrubbed
from tts_core.jobs import CacheSeed, JsonObject, Synthesize
from tts_core.service.answers import Answers
from tts_core.service.attempt import Attempt
from tts_core.service.cache import Cache
from tts_core.service.flight import Seat
from tts_core.service.synthesis import Synthesis

log = logging.getLogger(__name__)

SEEDS_AT_ONCE = 4
"""In the engine at once: they share its steps, and leave room for who listens."""

PROGRESS_S = 1.0


class Seeding:
    def __init__(
        self, request: CacheSeed, attempt: Attempt, *, cache: Cache, answers: Answers, synthesis: Synthesis, pool: str
    ) -> None:
        self._request = request
        self._attempt = attempt
        self._cache = cache
        self._answers = answers
        self._synthesis = synthesis
        self._pool = pool
        self._takes = list(enumerate(request.takes()))
        self._waiting = iter(self._takes)
        self._done: dict[int, JsonObject] = {}
        self._told_s = time.monotonic()

    async def run(self) -> JsonObject:
        self._attempt.cached = True  # until something is spoken
        async with asyncio.TaskGroup() as group:
            for _ in range(SEEDS_AT_ONCE):
                group.create_task(self._work())
        done = [self._done[n] for n, _ in self._takes]
        entries = [report for report in done if "code" not in report]
        return {
            "entries": entries,
            "failed": [report for report in done if "code" in report],
            "spoken": sum(not entry["cached"] for entry in entries),
            "audio_seconds": round(self._attempt.audio_seconds, 3),
        }

    async def _work(self) -> None:
        for n, take in self._waiting:
            where = {"text": self._request.texts.index(take.text), "voice_id": take.voice_id}
            self._done[n] = where | await self._report(take)
            await self._tell_progress()

    async def _report(self, take: Synthesize) -> JsonObject:
        try:
            return await self._seed(take)
        except TTSError as exc:
            return {"code": exc.code, "message": str(exc)}
        except Exception as exc:  # noqa: BLE001  the root of a take: the others go on
            log.error("request %s: %s", self._attempt.reserved.request_id, scrubbed(exc))
            return {"code": TTSError.code, "message": "something went wrong inside the worker"}

    async def _seed(self, take: Synthesize) -> JsonObject:
        brief = await self._synthesis.brief(take, self._attempt.reserved.tenant)
        if self._request.shared and not brief.voice.is_builtin:
            raise InvalidInput("voices: only built-in ones can be shared")
        kind = self._request.content_type
        async with self._answers.seat(brief, kind=kind, pool=self._pool) as seat:
            try:
                while await seat.changed():
                    pass
            finally:
                self._charge(seat)
            answer = seat.answer
        if answer.path is None:
            return {"code": "not_kept", "message": "it was spoken badly, or the store did not answer"}
        entry = answer.entry
        if entry.content_type != kind and entry.pool == self._pool:
            await self._cache.relabel(answer, kind, tenant=brief.tenant)
        return {"content_hash": entry.content_hash, "audio_file_size": entry.audio_file_size, "cached": not seat.pays}

    def _charge(self, seat: Seat) -> None:
        if (take := seat.take) is not None and seat.pays:
            self._attempt.cached = False
            self._attempt.audio_seconds += take.audio_seconds - take.paid_seconds
            self._attempt.audio_bytes += take.recording.size_bytes - take.paid_bytes

    async def _tell_progress(self) -> None:
        is_last = len(self._done) == len(self._takes)
        if self._request.progress and (is_last or time.monotonic() - self._told_s >= PROGRESS_S):
            self._told_s = time.monotonic()
            await self._attempt.emit(self._progress())

    def _progress(self) -> JsonObject:
        return {
            "event": "progress",
            "takes_done": len(self._done),
            "takes_total": len(self._takes),
            "audio_seconds": round(self._attempt.audio_seconds, 2),
        }
