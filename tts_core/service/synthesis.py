"""What the service does with a `synthesize` request: who speaks, what is said, what is kept, how it is told."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from dataclasses import asdict

from tts_core.audio.encode import check_rate, content_type, default_rate_hz
from tts_core.errors import ResultExpired
from tts_core.jobs import JsonObject, Synthesize
from tts_core.service.delivery import ChunkStream, tell
from tts_core.service.references import References
from tts_core.service.run import Attempt, Run
from tts_core.service.take import Script, Take
from tts_core.store import Outcome, Store
from tts_core.synthesizer import Spoken, Synthesizer
from tts_core.text import check_script, check_text, choose_language, plan
from tts_core.types import Manner


class Synthesis:
    """Speaks requests, and tells finished ones again."""

    def __init__(self, synthesizer: Synthesizer, store: Store, *, references: References, max_text_chars: int) -> None:
        self._synthesizer = synthesizer
        self._store = store
        self._references = references
        self._max_text_chars = max_text_chars

    async def perform(self, request: Synthesize, run: Run, attempt: Attempt) -> JsonObject:
        """Speak the request, streaming if asked to; returns the result as it is told."""
        script = await self._prepare(request, attempt)
        prepared_s = time.monotonic()
        with closing(Take(request, script, attempt, emit=run.emit, objects=self._store)) as take:
            async with aclosing(self._spoken(script, request, attempt)) as speech:
                async for spoken in speech:
                    await take.hear(spoken)
            await take.finish()
            spoken_s = time.monotonic()
            await self._keep(request, script, attempt, take=take)
            result = self._result(request, script, attempt, take=take)
            result["timings_ms"] = _timings(attempt.started_s, prepared_s, take.first_audio_s, spoken_s)
            audio = await asyncio.to_thread(take.recording.path.read_bytes)
            return await tell(request, result, audio, chunks=take.chunks, path=script.audio_path)

    def _spoken(self, script: Script, request: Synthesize, attempt: Attempt) -> AsyncGenerator[Spoken]:
        tenant = attempt.reserved.tenant.id
        return self._synthesizer.speak(script.plan, script.manner, tenant=tenant, streamed=request.streaming)

    async def repeat(self, request: Synthesize, run: Run, outcome: Outcome) -> JsonObject:
        """Tell a finished request again from what was kept of it; nothing is spoken or charged."""
        assert outcome.result is not None
        assert outcome.audio_path is not None
        try:
            audio = await self._store.get_object(outcome.audio_path)
        except KeyError as exc:
            raise ResultExpired("the request has succeeded before, but its audio is no longer kept") from exc
        chunks = ChunkStream(run.emit, self._store, path=f"{outcome.audio_path}.again", audio_format=request.format)
        if request.streaming:
            await chunks.send(audio)
        return await tell(request, json.loads(outcome.result), audio, chunks=chunks, path=outcome.audio_path)

    async def _prepare(self, request: Synthesize, attempt: Attempt) -> Script:
        check_text(request.text, max_chars=self._max_text_chars)
        asked_hz = request.sample_rate
        rate_hz = default_rate_hz(request.format) if asked_hz is None else asked_hz
        check_rate(request.format, rate_hz)
        attempt.metadata = json.dumps(request.metadata)
        language = await asyncio.to_thread(choose_language, request.language, request.text)
        speaker, attempt.voice_id = await self._references.speaker(request, attempt.reserved.tenant)
        warnings = check_script(request.text, language=language)
        engine = self._synthesizer.engine
        utterances = plan(request.text, language=language, max_chars=engine.max_chars(language))
        return Script(
            plan=utterances,
            manner=Manner(speaker, language, request.speed, request.sampling),
            engine_rate_hz=engine.sample_rate_hz,
            rate_hz=rate_hz,
            warnings=warnings,
            audio_path=f"audio/{attempt.reserved.tenant.id}/{attempt.reserved.request_id}.{request.format}",
        )

    async def _keep(self, request: Synthesize, script: Script, attempt: Attempt, *, take: Take) -> None:
        path, kind = take.recording.path, content_type(request.format)
        await self._store.put_object(script.audio_path, path, content_type=kind)
        attempt.audio_path = script.audio_path

    def _result(self, request: Synthesize, script: Script, attempt: Attempt, *, take: Take) -> JsonObject:
        return {
            "status": "success",
            "request_id": attempt.reserved.request_id,
            "duration": round(attempt.audio_seconds, 3),
            "text": request.text,
            "voice_id": attempt.voice_id,
            "language": script.manner.language,
            "format": request.format,
            "sample_rate": script.rate_hz,
            "cached": False,
            "engine": self._synthesizer.engine.name,
            "engine_revision": self._synthesizer.engine.revision,
            "alignments": take.alignments.items if request.include_alignments else None,
            "quality": take.quality.told(),
            "warnings": [asdict(warning) for warning in script.warnings],
            "usage": {"characters": len(request.text), "audio_seconds": round(attempt.audio_seconds, 3)},
        }


def _timings(started_s: float, prepared_s: float, first_audio_s: float | None, spoken_s: float) -> JsonObject:
    """Milliseconds since the request arrived, each phase to its end."""
    moments = {"prepared": prepared_s, "first_audio": first_audio_s, "spoken": spoken_s, "kept": time.monotonic()}
    return {name: round((at_s - started_s) * 1000) for name, at_s in moments.items() if at_s is not None}
