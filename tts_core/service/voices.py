"""Voices a tenant saves: the clips as they were sent, what was measured on them, and who agreed to it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from tts_core.errors import InvalidInput
from tts_core.jobs import JsonObject, Request, VoicesCreate, VoicesDelete, VoicesGet, VoicesList
from tts_core.service.actions import Action
from tts_core.service.references import References
from tts_core.service.run import Attempt
from tts_core.speech import SpeechEngine
from tts_core.store import Store, VoiceRow
from tts_core.text import choose_language


class VoiceLibrary:
    """What the service does with `voices.*` requests."""

    def __init__(self, engine: SpeechEngine, store: Store, *, references: References) -> None:
        self._engine = engine
        self._store = store
        self._references = references

    def actions(self) -> Mapping[type[Request], Action]:
        return {VoicesCreate: self.create, VoicesList: self.list, VoicesGet: self.get, VoicesDelete: self.delete}

    async def create(self, request: VoicesCreate, attempt: Attempt) -> JsonObject:
        """Check the clips with the engine itself, then store them; the voice has the request's id."""
        tenant, voice_id = attempt.reserved.tenant, attempt.reserved.request_id
        if not request.has_reference:
            raise InvalidInput("reference_audio_base64: a voice needs a clip, here or in reference_audio_url")
        language = choose_language(request.language, "") if request.language else None
        files = await self._references.clips(request, tenant)
        clips = await self._references.read(files)
        await self._engine.clone(clips)
        paths = tuple(f"voices/{tenant.id}/{voice_id}-{n}" for n in range(len(files)))
        for path, file in zip(paths, files, strict=True):
            await self._store.put_object(path, file, content_type="application/octet-stream")
        voice = VoiceRow(
            id=voice_id,
            tenant_id=tenant.id,
            name=request.name,
            description=request.description,
            language=language,
            consent=request.consent or "attested by the tenant",
            clip_paths=paths,
            report=json.dumps([asdict(clip.report) for clip in clips]),
            created_at=datetime.now(UTC).isoformat(),
        )
        await self._store.put_voice(voice)
        return _told(voice)

    async def list(self, request: VoicesList, attempt: Attempt) -> JsonObject:
        saved = [_told(voice) for voice in await self._store.list_voices(attempt.reserved.tenant.id)]
        builtin = [{**asdict(voice), "builtin": True} for voice in self._engine.voices()]
        return {"voices": saved + builtin, "count": len(saved) + len(builtin)}

    async def get(self, request: VoicesGet, attempt: Attempt) -> JsonObject:
        for voice in self._engine.voices():
            if voice.id == request.voice_id:
                return {**asdict(voice), "builtin": True}
        return _told(await self._store.get_voice(attempt.reserved.tenant.id, request.voice_id))

    async def delete(self, request: VoicesDelete, attempt: Attempt) -> JsonObject:
        await self._store.delete_voice(attempt.reserved.tenant.id, request.voice_id)
        return {"deleted": request.voice_id}


def _told(voice: VoiceRow) -> JsonObject:
    return {
        "id": voice.id,
        "name": voice.name,
        "description": voice.description,
        "language": voice.language,
        "consent": voice.consent,
        "report": json.loads(voice.report),
        "created_at": voice.created_at,
        "builtin": False,
    }
