"""What the service does with a `synthesize` request: who speaks, what is said, what is kept, how it is told."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict

from tts_core.audio.encode import check_rate, content_type, default_rate_hz
from tts_core.errors import ResultExpired, StoreUnavailable
from tts_core.jobs import JsonObject, Synthesize
from tts_core.service.alignments import restored
from tts_core.service.answers import Answers, Brief
from tts_core.service.attempt import Attempt
from tts_core.service.delivery import ChunkStream, tell
from tts_core.service.flight import Answer
from tts_core.service.kept import KeptJob, is_kept
from tts_core.service.listening import Listening
from tts_core.service.personas import PersonaLibrary
from tts_core.service.references import References
from tts_core.service.run import Run
from tts_core.store import Store, Tenant
from tts_core.text import check_script, check_text, choose_language
from tts_core.types import Warn

EXPIRED = "the request has succeeded before, but its audio is no longer kept"
NOT_KEPT = Warn("audio_not_kept", "the store did not take the audio: this answer is all there is of it")


class Synthesis:
    """Speaks requests, and tells finished ones again."""

    def __init__(
        self,
        answers: Answers,
        store: Store,
        *,
        references: References,
        personas: PersonaLibrary,
        max_text_chars: int,
    ) -> None:
        self._answers = answers
        self._store = store
        self._references = references
        self._personas = personas
        self._max_text_chars = max_text_chars

    async def perform(self, request: Synthesize, run: Run, attempt: Attempt) -> JsonObject:
        """Answer the request from the cache or by speaking, streaming if asked to; returns the result as it is told."""
        attempt.metadata = json.dumps(request.metadata)
        request, warnings = await self._personas.cast(request, attempt)
        brief = await self.brief(request, attempt.reserved.tenant)
        attempt.voice_id = brief.voice.voice_id
        prepared_s = time.monotonic()
        job = await self._open_job(brief, attempt)
        path = _audio_path(request, attempt)
        listening = Listening(request, attempt, path=path, emit=run.emit, objects=self._store)
        async with self._answers.seat(brief, job=job) as seat:
            answer = await listening.follow(seat)
        spoken_s = time.monotonic()
        kept_at = attempt.audio_path = await self._keep(answer, request, path=path)
        warnings = [*warnings, *brief.warnings, *([] if kept_at else [NOT_KEPT])]
        result = self._result(brief, answer, attempt, warnings=warnings)
        if job is not None:
            attempt.afterwards = job.tidy_up
            await job.keep(kept_at, duration_s=answer.entry.audio_seconds, alignments=result["alignments"])
        result["timings_ms"] = _timings(attempt.started_s, prepared_s, attempt.first_audio_s, spoken_s)
        return await tell(request, result, answer.audio, chunks=listening.chunks, kept_at=kept_at, path=path)

    async def _open_job(self, brief: Brief, attempt: Attempt) -> KeptJob | None:
        """raises  StoreUnavailable, if it was asked for"""
        if not is_kept(brief.request):
            return None
        try:
            return await KeptJob.open(self._store, attempt, brief.request, language=brief.language)
        except StoreUnavailable:
            if brief.request.keep:
                raise
            return None

    async def repeat(self, request: Synthesize, run: Run, attempt: Attempt) -> JsonObject:
        """Tell a finished request again from what was kept of it; nothing is spoken or charged."""
        outcome = attempt.reserved.outcome
        assert outcome is not None
        if outcome.result is None or outcome.audio_path is None:
            raise ResultExpired(EXPIRED)
        try:
            audio = await self._store.get_object(outcome.audio_path)
        except KeyError as exc:
            raise ResultExpired(EXPIRED) from exc
        path = f"{_audio_path(request, attempt)}.again"
        chunks = ChunkStream(run.emit, self._store, path=path, audio_format=request.format)
        if request.streaming:
            await chunks.send(audio)
        result = json.loads(outcome.result)
        return await tell(request, result, audio, chunks=chunks, kept_at=outcome.audio_path, path=path)

    async def brief(self, request: Synthesize, tenant: Tenant) -> Brief:
        """Everything that decides how the request sounds. raises TextError, VoiceNotFound, InvalidInput and others"""
        check_text(request.text, max_chars=self._max_text_chars)
        asked_hz = request.sample_rate
        rate_hz = default_rate_hz(request.format) if asked_hz is None else asked_hz
        check_rate(request.format, rate_hz)
        language = await asyncio.to_thread(choose_language, request.language, request.text)
        voice = await self._references.choose(request, tenant)
        return Brief(request, tenant, language, voice, rate_hz, check_script(request.text, language=language))

    async def _keep(self, answer: Answer, request: Synthesize, *, path: str) -> str | None:
        """Where the audio lies from now on, so that a repeated request is told from it; None if the store is away.

        What the cache does not hold has an object of its own, and so has what was asked to be kept: that stays,
        whatever becomes of the cache.
        """
        if answer.path is not None and not request.keep:
            return answer.path
        try:
            await self._store.put_object(path, answer.audio, content_type=content_type(request.format))
        except StoreUnavailable:
            return answer.path
        return path

    def _result(self, brief: Brief, answer: Answer, attempt: Attempt, *, warnings: Sequence[Warn]) -> JsonObject:
        request, engine = brief.request, self._answers.engine
        details, audio_seconds = json.loads(answer.entry.details), round(answer.entry.audio_seconds, 3)
        wants_alignments = request.include_alignments
        return {
            "status": "success",
            "request_id": attempt.reserved.request_id,
            "duration": audio_seconds,
            "text": request.text,
            "voice_id": brief.voice.voice_id,
            "language": brief.language,
            "format": request.format,
            "sample_rate": brief.rate_hz,
            "cached": attempt.cached,
            "engine": engine.name,
            "engine_revision": engine.revision,
            "alignments": restored(details["alignments"], request.text) if wants_alignments else None,
            "quality": details["quality"],
            "warnings": [asdict(warning) for warning in warnings],
            "usage": {
                "characters": len(request.text),
                "audio_seconds": audio_seconds,
                "quota_left_s": attempt.quota_left_s,
            },
        }


def _audio_path(request: Synthesize, attempt: Attempt) -> str:
    return f"audio/{attempt.reserved.tenant.id}/{attempt.reserved.request_id}.{request.format}"


def _timings(started_s: float, prepared_s: float, first_audio_s: float | None, spoken_s: float) -> JsonObject:
    """Milliseconds since the request arrived, each phase to its end."""
    moments = {"prepared": prepared_s, "first_audio": first_audio_s, "spoken": spoken_s, "kept": time.monotonic()}
    return {name: round((at_s - started_s) * 1000) for name, at_s in moments.items() if at_s is not None}
