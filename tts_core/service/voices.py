"""Voices a tenant saves: the clips as they were sent, what was measured on them, and who agreed to it.

An answer that would hold names or statements is not kept with its request, as it would outlive its voice: the request
made again is told the voice as it is by then.
"""

from collections.abc import Mapping

from tts_core.errors import InvalidInput, LimitReached, VoiceNotFound
from tts_core.jobs import (
    JsonObject,
    Request,
    VoiceRef,
    VoicesCreate,
    VoicesDelete,
    VoicesGet,
    VoicesList,
    VoicesShare,
    VoicesUnshare,
    VoicesUpdate,
)
from tts_core.service.actions import Action
from tts_core.service.attempt import Attempt
from tts_core.service.cache import Cache
from tts_core.service.references import References
from tts_core.service.voice_clips import VoiceClips
from tts_core.service.voice_pages import VoicePages, told, told_builtin
from tts_core.speech import SpeechEngine
from tts_core.store import CachePick, Reserved, Store, VoiceRow, VoiceTraits
from tts_core.text import choose_language


class VoiceLibrary:
    """What the service does with `voices.*` requests."""

    def __init__(
        self, engine: SpeechEngine, store: Store, *, references: References, cache: Cache, max_voices: int
    ) -> None:
        """max_voices: of one tenant"""
        self._engine = engine
        self._store = store
        self._references = references
        self._cache = cache
        self._max_voices = max_voices
        self._clips = VoiceClips(engine, store, references=references)
        self._pages = VoicePages(engine, store)

    def actions(self) -> Mapping[type[Request], Action]:
        return {
            VoicesCreate: self.create,
            VoicesList: self.list,
            VoicesGet: self.get,
            VoicesUpdate: self.update,
            VoicesDelete: self.delete,
            VoicesShare: self.share,
            VoicesUnshare: self.unshare,
        }

    async def create(self, request: VoicesCreate, attempt: Attempt) -> JsonObject:
        """Check the clips with the engine itself, then store them; the voice has the request's id."""
        reserved, voice_id = attempt.reserved, attempt.reserved.request_id
        attempt.voice_id = voice_id
        if reserved.outcome is not None:
            return await self._as_it_is(reserved, voice_id)
        if not request.has_reference:
            raise InvalidInput("reference_audio_base64: a voice needs a clip, here or in reference_audio_url")
        traits = _traits(request)
        version, speaker = await self._clips.upload(request, reserved, voice_id=voice_id)
        try:
            voice = await self._store.create_voice(
                reserved.tenant.id, voice_id, traits=traits, version=version, max_voices=self._max_voices
            )
        except LimitReached:
            await self._clips.delete(clip.path for clip in version.clips)
            raise
        await self._references.keep(voice, speaker)
        return told(voice, tenant_id=reserved.tenant.id)

    async def list(self, request: VoicesList, attempt: Attempt) -> JsonObject:
        return await self._pages.page(request, attempt.reserved.tenant.id)

    async def get(self, request: VoicesGet, attempt: Attempt) -> JsonObject:
        """The voice, and for its owner where its clips can be heard."""
        for builtin in self._engine.voices():
            if builtin.id == request.voice_id:
                return told_builtin(builtin)
        tenant_id, wanted = attempt.reserved.tenant.id, request.voice
        voice = await self._store.get_voice(tenant_id, wanted.id, version=wanted.version)
        clips = voice.version.clips if voice.tenant_id == tenant_id else ()
        return told(voice, tenant_id=tenant_id) | {"clips": await self._clips.told(clips)}

    async def update(self, request: VoicesUpdate, attempt: Attempt) -> JsonObject:
        """Change what was named; clips make a newer version, which is the one that speaks from then on."""
        reserved, voice_id = attempt.reserved, _whole(request)
        if reserved.outcome is not None:
            return await self._as_it_is(reserved, voice_id)
        changes = _changes(request)
        if request.has_reference:
            voice = await self._renew(request, reserved, changes=changes)
        else:
            voice = await self._store.update_voice(reserved.tenant.id, voice_id, changes=changes)
        return told(voice, tenant_id=reserved.tenant.id)

    async def delete(self, request: VoicesDelete, attempt: Attempt) -> JsonObject:
        tenant_id, request_id = attempt.reserved.tenant.id, attempt.reserved.request_id
        receipt = await self.forget(tenant_id, request.voice, request_id=request_id)
        return {"deleted": request.voice_id, "receipt": receipt}

    async def forget(self, tenant_id: str, unwanted: VoiceRef, *, request_id: str) -> JsonObject:
        """Rows first: an object without a row is silent, a voice without its clips fails its next listener.

        returns  a receipt
        raises   VoiceNotFound, InvalidInput
        """
        purge = await self._store.delete_voice(tenant_id, unwanted.id, request_id=request_id, version=unwanted.version)
        self._references.forget(unwanted.id)
        await self._clips.delete(stored.path for stored in purge.objects)
        cached = [await self._cache.forget(pool, CachePick(voice=unwanted.id)) for pool in purge.tenant_ids]
        return {
            "rows": purge.rows,
            "objects": len(purge.objects),
            "bytes": sum(stored.size_bytes for stored in purge.objects),
            "cached_entries": sum(size.entries for size in cached),
            "cached_bytes": sum(size.bytes for size in cached),
        }

    async def share(self, request: VoicesShare, attempt: Attempt) -> JsonObject:
        reserved, voice_id = attempt.reserved, _whole(request)
        if request.tenant_id == reserved.tenant.id:
            raise InvalidInput("tenant_id: is your own; a voice is shared with another tenant")
        if reserved.outcome is not None:
            return await self._as_it_is(reserved, voice_id)
        voice = await self._store.share_voice(reserved.tenant.id, voice_id, with_tenant_id=request.tenant_id)
        return told(voice, tenant_id=reserved.tenant.id)

    async def unshare(self, request: VoicesUnshare, attempt: Attempt) -> JsonObject:
        """What the other tenant's cache has of the voice goes too."""
        reserved, voice_id = attempt.reserved, _whole(request)
        if reserved.outcome is not None:
            return await self._as_it_is(reserved, voice_id)
        voice = await self._store.unshare_voice(reserved.tenant.id, voice_id, with_tenant_id=request.tenant_id)
        if request.tenant_id != reserved.tenant.id:
            await self._cache.forget(request.tenant_id, CachePick(voice=voice_id))
        return told(voice, tenant_id=reserved.tenant.id)

    async def _renew(self, request: VoicesUpdate, reserved: Reserved, *, changes: Mapping[str, object]) -> VoiceRow:
        tenant_id, voice_id = reserved.tenant.id, request.voice.id
        voice = await self._store.get_voice(tenant_id, voice_id)  # before clips are fetched for nothing
        if voice.tenant_id != tenant_id:
            raise VoiceNotFound(f"no voice {voice_id!r}")
        version, speaker = await self._clips.upload(request, reserved, voice_id=voice_id)
        try:
            voice = await self._store.update_voice(tenant_id, voice_id, changes=changes, version=version)
        except VoiceNotFound:
            await self._clips.delete(clip.path for clip in version.clips)
            raise
        await self._references.keep(voice, speaker)
        return voice

    async def _as_it_is(self, reserved: Reserved, voice_id: str) -> JsonObject:
        """raises VoiceNotFound"""
        return told(await self._store.get_voice(reserved.tenant.id, voice_id), tenant_id=reserved.tenant.id)


def _traits(request: VoicesCreate) -> VoiceTraits:
    """raises LanguageUnsupported"""
    return VoiceTraits(
        name=request.name,
        description=request.description,
        language=choose_language(request.language, "") if request.language else None,
        gender=request.gender,
        accent=request.accent,
        tags=tuple(request.tags),
        user_id=request.user_id,
    )


def _changes(request: VoicesUpdate) -> Mapping[str, object]:
    """raises LanguageUnsupported"""
    if request.language is None:
        return request.changes
    return {**request.changes, "language": choose_language(request.language, "")}


def _whole(request: VoicesUpdate | VoicesShare | VoicesUnshare) -> str:
    """raises  InvalidInput if one version is named: they cannot be changed"""
    if request.voice.version is not None:
        raise InvalidInput("voice_id: names a version; this is done to a voice as a whole")
    return request.voice.id
