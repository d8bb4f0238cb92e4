"""What the service does with `personas.*` requests, and whose voice speaks for a persona."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from tts_core.jobs import (
    JsonObject,
    PersonasCreate,
    PersonasDelete,
    PersonasGet,
    PersonasList,
    PersonasUpdate,
    Request,
    Synthesize,
    VoiceRef,
)
from tts_core.service.actions import Action, now
from tts_core.service.attempt import Attempt
from tts_core.service.pages import page
from tts_core.speech import SpeechEngine
from tts_core.store import PersonaRow, Store
from tts_core.types import Warn


class PersonaLibrary:
    def __init__(self, engine: SpeechEngine, store: Store) -> None:
        self._engine = engine
        self._store = store

    def actions(self) -> Mapping[type[Request], Action]:
        return {
            PersonasCreate: self.create,
            PersonasGet: self.get,
            PersonasList: self.list,
            PersonasUpdate: self.update,
            PersonasDelete: self.delete,
        }

    async def create(self, request: PersonasCreate, attempt: Attempt) -> JsonObject:
        """The persona has the request's id. What is kept of this answer holds no name and no prompt."""
        tenant_id = attempt.reserved.tenant.id
        await self._require_voice(tenant_id, request.voice_id)
        asked = PersonaRow(
            id=attempt.reserved.request_id,
            tenant_id=tenant_id,
            user_id=request.user_id,
            name=request.name,
            persona_prompt=request.persona_prompt,
            voice_id=request.voice_id,
            created_at=now(),
        )
        persona = await self._store.create_persona(asked)
        return {"id": persona.id, "created_at": persona.created_at}

    async def get(self, request: PersonasGet, attempt: Attempt) -> JsonObject:
        return _told(await self._store.get_persona(attempt.reserved.tenant.id, request.persona_id))

    async def list(self, request: PersonasList, attempt: Attempt) -> JsonObject:
        """raises  UserNotFound"""
        tenant_id, user_id = attempt.reserved.tenant.id, request.user_id
        rows = await self._store.list_personas(tenant_id, user_id=user_id, after=request.after, limit=request.limit + 1)
        if not rows and user_id is not None:
            await self._store.get_user(tenant_id, user_id)
        return page("personas", rows, limit=request.limit, told=_told, place=lambda row: (row.created_at, row.id))

    async def update(self, request: PersonasUpdate, attempt: Attempt) -> JsonObject:
        tenant_id = attempt.reserved.tenant.id
        await self._require_voice(tenant_id, request.voice_id)
        persona = await self._store.update_persona(tenant_id, request.persona_id, request.changes)
        return {"id": persona.id, "updated": sorted(request.changes)}

    async def delete(self, request: PersonasDelete, attempt: Attempt) -> JsonObject:
        reserved = attempt.reserved
        removal = await self._store.delete_persona(
            reserved.tenant.id, request.persona_id, request_id=reserved.request_id
        )
        return {"deleted": request.persona_id, "receipt": asdict(removal)}

    async def cast(self, request: Synthesize, attempt: Attempt) -> tuple[Synthesize, Sequence[Warn]]:
        """The request with the voice of its persona, unless it names a voice or brings one along.

        Notes on whose behalf it is spoken: the user it names, or the persona's.

        raises  UserNotFound, PersonaNotFound
        """
        tenant_id = attempt.reserved.tenant.id
        if request.user_id is not None:
            attempt.user_id = (await self._store.get_user(tenant_id, request.user_id)).id
        if request.persona_id is None:
            return request, []
        persona = await self._store.get_persona(tenant_id, request.persona_id)
        attempt.user_id = attempt.user_id or persona.user_id
        if request.voice_id is not None or request.has_reference:
            return request, []
        if persona.voice_id is None:
            return request, [Warn("persona_without_voice", "the persona has no voice: the default voice speaks")]
        return request.model_copy(update={"voice_id": persona.voice_id}), []

    async def _require_voice(self, tenant_id: str, voice_id: str | None) -> None:
        """raises  VoiceNotFound unless the tenant may speak with it"""
        if voice_id is not None and voice_id not in {voice.id for voice in self._engine.voices()}:
            wanted = VoiceRef.parse(voice_id)
            await self._store.get_voice(tenant_id, wanted.id, version=wanted.version)


def _told(persona: PersonaRow) -> JsonObject:
    told = asdict(persona)
    del told["tenant_id"]
    return told
