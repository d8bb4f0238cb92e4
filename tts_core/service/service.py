"""From a job's input to its events."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from uuid import uuid4

from tts_core.audio.reference import ReferenceReader
from tts_core.errors import IdempotencyConflict, ResultExpired, TTSError, Unauthorized
from tts_core.jobs import Health, JsonObject, Request, Synthesize, parse
from tts_core.service.actions import Action, Area
from tts_core.service.answers import Answers
from tts_core.service.attempt import Attempt
from tts_core.service.cache import open_cache
from tts_core.service.cache_actions import CacheActions
from tts_core.service.estimate import estimate_of
from tts_core.service.jobs import KeptJobs
from tts_core.service.journal import log_unread
from tts_core.service.messages import Conversations
from tts_core.service.personas import PersonaLibrary
from tts_core.service.references import FetchClip, References
from tts_core.service.retention import Janitor, RetentionActions
from tts_core.service.run import LEASE_S, Run, Work
from tts_core.service.synthesis import Synthesis
from tts_core.service.tenants import TenantRegistry
from tts_core.service.usage import UsageReports
from tts_core.service.users import UserDirectory
from tts_core.service.voices import VoiceLibrary
from tts_core.settings import Settings
from tts_core.speech import SpeechEngine
from tts_core.store import Outcome, Reservation, Store
from tts_core.synthesizer import Synthesizer

JOB = "job:"


class Service:
    """Answers requests; the same request asked for twice at once is worked on once."""

    def __init__(self, engine: SpeechEngine, store: Store, *, settings: Settings, fetch: FetchClip) -> None:
        self.engine = engine
        self.store = store
        self._reader = ReferenceReader(max_bytes=settings.max_reference_bytes)
        references = References(engine, store, reader=self._reader, fetch=fetch)
        personas = PersonaLibrary(engine, store)
        self._cache = open_cache(store, settings)
        voices = VoiceLibrary(
            engine,
            store,
            references=references,
            cache=self._cache,
            max_voices=settings.max_voices_per_tenant,
        )
        answers = Answers(Synthesizer(engine), self._cache)
        self._synthesis = Synthesis(
            answers,
            store,
            references=references,
            personas=personas,
            max_text_chars=settings.max_text_chars,
        )
        areas: Sequence[Area] = [
            voices,
            UserDirectory(store, voices),
            personas,
            Conversations(store),
            UsageReports(store),
            TenantRegistry(store, self._cache),
            KeptJobs(store),
            RetentionActions(store),
            CacheActions(
                self._cache,
                answers,
                self._synthesis,
                store,
                price_per_audio_hour=settings.price_per_audio_hour,
            ),
        ]
        self.actions: Mapping[type[Request], Action] = {
            kind: act for area in areas for kind, act in area.actions().items()
        }
        self._deadline_s = settings.job_deadline_s
        self._runs: dict[tuple[str, str], Run] = {}
        self._janitor = Janitor(store, is_idle=lambda: not self._runs)

    async def answer(self, body: object, *, job_id: str) -> AsyncGenerator[JsonObject]:
        """Every event of one job, the last of them its result or `{"error": JSON text}`.

        Closing the generator early cancels the request, unless somebody else listens to it too.
        """
        try:
            request = parse(body)
            if isinstance(request, Health):
                yield await self._health()
                return
            run = await self._find_or_start(request, job_id)
        except TTSError as exc:
            log_unread(exc.code)
            yield {"error": exc.to_wire(job_id)}
            return
        async with aclosing(run.listen()) as events:
            async for event in events:
                yield event

    async def lost(self) -> None:
        """Until the engine is lost, and all who waited for it have been told: only another process can help then."""
        await self.engine.lost()
        await self._all_settled()

    async def close(self) -> None:
        """Let what is running settle, then stop the engine and free everything."""
        await self._all_settled()
        await self._janitor.close()
        await self._reader.close()
        await self._cache.close()
        await self.engine.close()
        await self.store.close()

    async def _all_settled(self) -> None:
        """Of the runs there are now. One may have been cancelled, as asyncio.run does, while it tidied up."""
        await asyncio.gather(*(run.owner for run in self._runs.values()), return_exceptions=True)

    async def _find_or_start(self, request: Request, job_id: str) -> Run:
        """raises  Unauthorized without a key, IdempotencyConflict if the same identity runs with another body"""
        if not request.tenant_key:
            raise Unauthorized("tenant_key: is missing")
        reservation = _reservation(request, job_id)
        identity = (hashlib.sha256(reservation.tenant_key.encode()).hexdigest(), reservation.identity)
        while (run := self._runs.get(identity)) is not None and run.abandoned:
            await asyncio.wait({run.owner})
        if run is None:
            run = self._runs[identity] = Run(
                self.store, reservation, job_id=job_id, work=self._work(request), deadline_s=self._deadline_s
            )
            run.owner.add_done_callback(lambda _: self._ended(identity))
        elif run.fingerprint != reservation.fingerprint:
            raise IdempotencyConflict("the same idempotency_key or job id is being worked on with another body")
        return run

    def _ended(self, identity: tuple[str, str]) -> None:
        del self._runs[identity]
        self._janitor.wake()

    def _work(self, request: Request) -> Work:
        async def work(run: Run, attempt: Attempt) -> JsonObject:
            outcome = attempt.reserved.outcome
            attempt.answer_is_kept = request.answer_is_kept
            if outcome is not None and isinstance(request, Synthesize):
                return await self._synthesis.repeat(request, run, attempt)
            if outcome is not None and request.answer_is_kept:
                return _repeated(outcome)
            await self.engine.known()
            if isinstance(request, Synthesize):
                return await self._synthesis.perform(request, run, attempt)
            answer = await self.actions[type(request)](request, attempt)
            return {"status": "success", "request_id": attempt.reserved.request_id} | answer

        return work

    async def _health(self) -> JsonObject:
        """raises  StartupError, EngineLost: this worker will never speak"""
        engine, is_ready = self.engine, self.engine.is_ready
        if engine.fault is not None:
            raise engine.fault
        told = {"engine": engine.name, "engine_revision": engine.revision} if is_ready else {}
        counts = {"running": len(self._runs), "unsettled": await self.store.count_unsettled()}
        return {"status": "success", "ready": is_ready, **told, **counts}


def _repeated(outcome: Outcome) -> JsonObject:
    """raises  ResultExpired: done again it might undo what was done since"""
    if outcome.result is None:
        raise ResultExpired("the request has succeeded before, but its answer is no longer kept")
    repeated: JsonObject = json.loads(outcome.result)
    return repeated


def _identity(idempotency_key: str | None, job_id: str) -> str:
    """A key of the form `job:ID` names the request of an earlier job that had none; no other one can."""
    if idempotency_key is None:
        return f"{JOB}{job_id}"
    return idempotency_key if idempotency_key.startswith(JOB) else f"key:{idempotency_key}"


def _reservation(request: Request, job_id: str) -> Reservation:
    scope = request.needed_scope
    assert scope is not None
    assert request.tenant_key is not None
    return Reservation(
        tenant_key=request.tenant_key,
        scope=scope,
        identity=_identity(request.idempotency_key, job_id),
        fingerprint=request.fingerprint(),
        action=request.action,
        input_chars=request.input_chars,
        estimate_s=estimate_of(request),
        streaming=request.is_streamed,
        voice_id=request.named_voice_id,
        lease_s=LEASE_S,
        holder=uuid4().hex,
    )
