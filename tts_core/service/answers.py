"""From what is to be said to its sound: out of the cache, or out of the engine, once for all who ask at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing, nullcontext
from dataclasses import dataclass

from tts_core.audio.encode import content_type
from tts_core.cache import Kept, Resolved
from tts_core.jobs import Synthesize
from tts_core.service.actions import now
from tts_core.service.alignments import shortened
from tts_core.service.cache import Cache
from tts_core.service.chunks import Chunks
from tts_core.service.flight import Answer, Flight, Flights, Seat
from tts_core.service.kept import KeptJob
from tts_core.service.references import Chosen
from tts_core.service.take import Script, Take
from tts_core.speech import SpeechEngine
from tts_core.store import CacheEntry, Tenant
from tts_core.synthesizer import Synthesizer
from tts_core.text import plan
from tts_core.types import Language, Manner, Warn

SPEECH = "speech"
"""The `content_type` of what was cached because it was asked for, not seeded."""


@dataclass(frozen=True, slots=True, eq=False)
class Brief:
    """A request with its names looked up and its defaults filled in: everything that decides how it sounds.

    rate_hz   of the encoded audio
    warnings  what of the text will not be heard
    """

    request: Synthesize
    tenant: Tenant
    language: Language
    voice: Chosen
    rate_hz: int
    warnings: Sequence[Warn]

    def resolved(self, engine: SpeechEngine) -> Resolved:
        request = self.request
        return Resolved(
            text=request.text,
            ssml=request.ssml,
            language=self.language,
            voice=self.voice.identity,
            speed=request.speed,
            sampling=request.sampling,
            format=request.format,
            rate_hz=self.rate_hz,
            engine=engine.name,
            engine_revision=engine.revision,
        )


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where a take is looked for and kept: its pool and key, and what kind of text it is said to be."""

    pool: str
    content_hash: str
    content_type: str


class Answers:
    """Gives seats in flights that bring answers."""

    def __init__(self, synthesizer: Synthesizer, cache: Cache) -> None:
        self.engine = synthesizer.engine
        self._synthesizer = synthesizer
        self._cache = cache
        self._flights = Flights()

    @asynccontextmanager
    async def seat(
        self, brief: Brief, *, kind: str = SPEECH, pool: str | None = None, job: KeptJob | None = None
    ) -> AsyncIterator[Seat]:
        """A seat in the flight that brings the answer.

        kind  `content_type` to keep it under; pool: where it is looked for and kept, the tenant's own by default
        job   keeps the chunks of a long text, if it has to be spoken and this is the first seat
        """
        shelf = Shelf(pool or brief.tenant.id, brief.resolved(self.engine).content_hash, kind)
        may_be_old = brief.request.cache == "use"

        async def work(flight: Flight) -> Answer:
            found = await self._find(brief, shelf) if may_be_old else None
            return found or await self._speak(brief, flight, shelf, job=job)

        async with self._flights.join((shelf.pool, shelf.content_hash) if may_be_old else None, work) as seat:
            yield seat
            if may_be_old:
                self._count(brief.tenant, seat)

    async def _find(self, brief: Brief, shelf: Shelf) -> Answer | None:
        return await self._cache.find(shelf.content_hash, pool=shelf.pool, epoch=brief.tenant.cache_epoch)

    async def _speak(self, brief: Brief, flight: Flight, shelf: Shelf, *, job: KeptJob | None) -> Answer:
        script = await self._script(brief)
        with closing(Take(script)) as take:
            flight.take = take
            async with job.reading(script, self.engine) if job else nullcontext(None) as chunks:
                await self._read(brief, script, flight, take=take, chunks=chunks)
            await take.finish()
            flight.tell()
            return await self._keep(brief, shelf, take)  # in here: who came late still reads the recording

    async def _read(self, brief: Brief, script: Script, flight: Flight, *, take: Take, chunks: Chunks | None) -> None:
        speech = self._synthesizer.speak(
            script.plan,
            script.manner,
            tenant=brief.tenant.id,
            streamed=brief.request.streaming,
            source=chunks.speak if chunks else None,
        )
        async with aclosing(speech):
            async for spoken in speech:
                await take.hear(spoken, is_paid=chunks is not None and chunks.is_paid(spoken.utterance))
                flight.tell()
                await flight.heard()
                if chunks is not None and spoken.finished:
                    await chunks.heard(spoken.utterance)

    async def _keep(self, brief: Brief, shelf: Shelf, take: Take) -> Answer:
        audio = await asyncio.to_thread(take.recording.read, 0)
        kept = Kept(_entry(brief, shelf, take, size_bytes=len(audio)), audio)
        how = brief.request.cache
        if how == "bypass" or not take.quality.is_good:
            return Answer(kept.entry, audio, "engine", None)
        mime_type = content_type(brief.request.format)
        return await self._cache.keep(kept, tenant=brief.tenant, mime_type=mime_type, anew=how == "refresh")

    async def _script(self, brief: Brief) -> Script:
        request, language = brief.request, brief.language
        speaker = await brief.voice.load()
        return Script(
            text=request.text,
            plan=plan(request.text, language=language, max_chars=self.engine.max_chars(language)),
            manner=Manner(speaker, language, request.speed, request.sampling),
            engine_rate_hz=self.engine.sample_rate_hz,
            format=request.format,
            rate_hz=brief.rate_hz,
        )

    def _count(self, tenant: Tenant, seat: Seat) -> None:
        if seat.pays:
            self._cache.counts.miss(tenant, seat.answer)
        else:
            self._cache.counts.hit(tenant, seat.answer)


def _entry(brief: Brief, shelf: Shelf, take: Take, *, size_bytes: int) -> CacheEntry:
    return CacheEntry(
        pool=shelf.pool,
        content_hash=shelf.content_hash,
        content_type=shelf.content_type,
        content_text=brief.request.text.replace("\0", ""),  # Postgres has no text with a NUL in it
        voice=brief.voice.voice_id,
        audio_path=f"tts-cache/{shelf.pool}/{shelf.content_hash}.{brief.request.format}",
        audio_file_size=size_bytes,
        audio_seconds=take.audio_seconds,
        details=json.dumps({"alignments": shortened(take.alignments.items), "quality": take.quality.told()}),
        created_at=now(),
    )
