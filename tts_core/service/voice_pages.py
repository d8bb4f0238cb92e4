"""How voices are told: each as its owner or another tenant sees it, and pages of many."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import dropwhile, islice

from tts_core.jobs import JsonObject, VoiceRef, VoicesList
from tts_core.service.pages import page
from tts_core.speech import SpeechEngine
from tts_core.store import Place, Store, VoiceQuery, VoiceRow
from tts_core.text import choose_language
from tts_core.types import BuiltinVoice, Language

BUILTIN_AT = "0001-01-01T00:00:00.000000+00:00"
"""When built-in voices were made, as far as the order of a list goes: before any other."""


def told(voice: VoiceRow, *, tenant_id: str) -> JsonObject:
    """What a tenant may know of a voice: of another's neither whose it is nor what was stated about it."""
    is_own = voice.tenant_id == tenant_id
    traits, version = voice.traits, voice.version
    return {
        "id": voice.id,
        "name": traits.name,
        "description": traits.description,
        "language": traits.language,
        "gender": traits.gender,
        "accent": traits.accent,
        "tags": list(traits.tags),
        "user_id": traits.user_id if is_own else None,
        "version": version.number,
        "versions": list(voice.versions),
        "file_type": "video" if any(clip.file_type == "video" for clip in version.clips) else "audio",
        "consent": version.consent if is_own else None,
        "consent_at": version.created_at if is_own else None,
        "consent_request_id": version.request_id if is_own else None,
        "report": [dict(clip.report) for clip in version.clips],
        "created_at": voice.created_at,
        "updated_at": voice.updated_at,
        "builtin": False,
        "shared": not is_own,
        "shared_with": list(voice.shared_with),
    }


def told_builtin(voice: BuiltinVoice) -> JsonObject:
    return {**asdict(voice), "builtin": True}


class VoicePages:
    """Reads `voices.list`: saved voices, newest first, and then those of the engine."""

    def __init__(self, engine: SpeechEngine, store: Store) -> None:
        self._engine = engine
        self._store = store

    async def page(self, request: VoicesList, tenant_id: str) -> JsonObject:
        """raises  LanguageUnsupported, PersonaNotFound"""
        language = choose_language(request.language, "") if request.language else None
        voice_ids = await self._of_persona(request, tenant_id)
        query = VoiceQuery(
            limit=request.limit + 1,
            user_id=request.user_id,
            tag=request.tag,
            language=language,
            voice_ids=voice_ids,
            include_shared=request.include_shared or voice_ids is not None,
            after=request.after,
        )
        saved = await self._store.list_voices(tenant_id, query)
        found: list[tuple[Place, JsonObject]] = [
            ((voice.created_at, voice.id), told(voice, tenant_id=tenant_id)) for voice in saved
        ]
        found += [((BUILTIN_AT, voice.id), told_builtin(voice)) for voice in self._builtin(query)]
        rows = found[: request.limit + 1]
        return page("voices", rows, limit=request.limit, told=lambda row: row[1], place=lambda row: row[0])

    async def _of_persona(self, request: VoicesList, tenant_id: str) -> tuple[str, ...] | None:
        if request.persona_id is None:
            return None
        persona = await self._store.get_persona(tenant_id, request.persona_id)
        return () if persona.voice_id is None else (VoiceRef.parse(persona.voice_id).id,)

    def _builtin(self, query: VoiceQuery) -> Sequence[BuiltinVoice]:
        if query.user_id is not None or query.tag is not None:
            return ()
        voices = [voice for voice in self._engine.voices() if _passes(voice, query.language, query.voice_ids)]
        return _after(voices, query.after)


def _passes(voice: BuiltinVoice, language: Language | None, voice_ids: Sequence[str] | None) -> bool:
    speaks_it = language is None or not voice.languages or language in voice.languages
    return speaks_it and (voice_ids is None or voice.id in voice_ids)


def _after(voices: Sequence[BuiltinVoice], place: Place | None) -> Sequence[BuiltinVoice]:
    if place is None or place[0] != BUILTIN_AT:
        return voices
    return list(islice(dropwhile(lambda voice: voice.id != place[1], voices), 1, None))
