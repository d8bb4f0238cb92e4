"""Which syntheses are kept, and the job row of one while it is worked on."""

import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tts_core.errors import StoreUnavailable
from tts_core.jobs import Synthesize
from tts_core.service.attempt import Attempt
from tts_core.service.chunks import Chunks, new_chunks
from tts_core.service.take import Script
from tts_core.speech import SpeechEngine
from tts_core.store import ChunkRow, NewChunk, NewJob, Reserved, Store
from tts_core.types import Language

log = logging.getLogger(__name__)

LONG_CHARS = 2_000
"""About two minutes of speech: what is longer does not leave in one piece, and is dear to speak again."""


def is_kept(request: Synthesize) -> bool:
    """What asks for it; and what would be lost if not: audio that is fetched later, or long."""
    if request.keep is not None:
        return request.keep
    return request.output == "url" or (request.output == "auto" and len(request.text) > LONG_CHARS)


class KeptJob:
    """The job row of one attempt at a synthesis."""

    def __init__(self, store: Store, reserved: Reserved) -> None:
        self._store = store
        self._reserved = reserved

    @classmethod
    async def open(cls, store: Store, attempt: Attempt, request: Synthesize, *, language: Language) -> "KeptJob":
        job = NewJob(
            text=request.text,
            language=language,
            voice_id=attempt.voice_id,
            user_id=attempt.user_id,
            include_alignments=request.include_alignments,
        )
        await store.open_job(attempt.reserved, job)
        return cls(store, attempt.reserved)

    @asynccontextmanager
    async def reading(self, script: Script, engine: SpeechEngine) -> AsyncIterator[Chunks | None]:
        """Who speaks a long text, so that what was spoken of it before is not spoken again; None: it is not long."""
        folder = f"audio/{self._reserved.tenant.id}/{self._reserved.request_id}"
        rows = await self._begin(new_chunks(script.plan, script.manner, engine, path=folder))
        if not rows:
            yield None
            return
        language = script.manner.language
        async with Chunks(engine, self._store, self._reserved, plan=script.plan, language=language, rows=rows) as them:
            yield them

    async def _begin(self, chunks: Sequence[NewChunk]) -> Sequence[ChunkRow]:
        """None if the store does not answer. raises  RequestRunning if another worker has taken over"""
        try:
            return await self._store.begin_job(self._reserved, chunks=chunks)
        except StoreUnavailable:
            log.warning("request %s: spoken without keeping chunks", self._reserved.request_id)
            return ()

    async def keep(self, audio_path: str | None, *, duration_s: float, alignments: object) -> None:
        """alignments: JSON, where they were asked for. A store that does not answer costs the row, not the request."""
        reserved, path = self._reserved, None
        try:
            if alignments is not None:
                path = f"audio/{reserved.tenant.id}/{reserved.request_id}.alignments.json"
                data = json.dumps(alignments, ensure_ascii=False).encode()
                await self._store.put_object(path, data, content_type="application/json")
            await self._store.keep_job(reserved, audio_path=audio_path, alignments_path=path, duration_s=duration_s)
        except StoreUnavailable:
            log.warning("request %s: its job does not know where its audio lies", reserved.request_id)

    async def tidy_up(self) -> None:
        """Once the request is settled nobody needs the chunks any more; what stays, the next purge takes."""
        try:
            await self._store.drop_chunks(self._reserved.tenant.id, self._reserved.request_id)
        except StoreUnavailable:
            log.warning("request %s: its chunks are left to the next purge", self._reserved.request_id)
