"""Saved voices, in Supabase."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from storage.supabase.area import SupabaseArea, row_of
from tts_core.errors import VoiceNotFound
from tts_core.store import (
    MAX_VOICE_GRANTS,
    Clip,
    NewVersion,
    StoredObject,
    VoicePurge,
    VoiceQuery,
    VoiceRow,
    VoiceTraits,
    VoiceVersion,
)


class SupabaseVoices(SupabaseArea):
    """`tts_core.store.Voices`"""

    async def create_voice(
        self, tenant_id: str, voice_id: str, *, traits: VoiceTraits, version: NewVersion, max_voices: int
    ) -> VoiceRow:
        new = {"traits": asdict(traits), "version": asdict(version), "max_voices": max_voices}
        return await self._voice("create_voice", tenant_id, voice_id, **new)

    async def update_voice(
        self, tenant_id: str, voice_id: str, *, changes: Mapping[str, object], version: NewVersion | None = None
    ) -> VoiceRow:
        new = None if version is None else asdict(version)
        return await self._voice("update_voice", tenant_id, voice_id, changes=dict(changes), version=new)

    async def get_voice(self, tenant_id: str, voice_id: str, *, version: int | None = None) -> VoiceRow:
        return await self._voice("get_voice", tenant_id, voice_id, version=version)

    async def list_voices(self, tenant_id: str, query: VoiceQuery) -> Sequence[VoiceRow]:
        rows = await self._call("list_voices", list, tenant_id=tenant_id, **asdict(query))
        return tuple(map(_row, rows))

    async def delete_voice(
        self, tenant_id: str, voice_id: str, *, request_id: str, version: int | None = None
    ) -> VoicePurge:
        what = {"tenant_id": tenant_id, "voice_id": voice_id, "version": version, "request_id": request_id}
        purge = (await self._call("delete_voice", dict, **what))["purge"]
        if purge is None:
            raise _unknown(voice_id)
        return row_of(VoicePurge, {**purge, "objects": [StoredObject(**stored) for stored in purge["objects"]]})

    async def share_voice(self, tenant_id: str, voice_id: str, *, with_tenant_id: str) -> VoiceRow:
        grant = {"with_tenant_id": with_tenant_id, "max_grants": MAX_VOICE_GRANTS}
        return await self._voice("share_voice", tenant_id, voice_id, **grant)

    async def unshare_voice(self, tenant_id: str, voice_id: str, *, with_tenant_id: str) -> VoiceRow:
        return await self._voice("unshare_voice", tenant_id, voice_id, with_tenant_id=with_tenant_id)

    async def note_latents(self, tenant_id: str, voice_id: str, version: int, *, latents: StoredObject) -> bool:
        where = {"tenant_id": tenant_id, "voice_id": voice_id, "version": version}
        return await self._call("note_voice_latents", bool, **where, **asdict(latents))

    async def _voice(self, function: str, tenant_id: str, voice_id: str, **p: Any) -> VoiceRow:
        """raises VoiceNotFound"""
        answer = await self._call(function, dict, tenant_id=tenant_id, voice_id=voice_id, **p)
        if answer["voice"] is None:
            raise _unknown(voice_id)
        return _row(answer["voice"])


def _unknown(voice_id: str) -> VoiceNotFound:
    return VoiceNotFound(f"no voice {voice_id!r}")


def _row(voice: Mapping[str, Any]) -> VoiceRow:
    version = {**voice["version"], "clips": [Clip(**clip) for clip in voice["version"]["clips"]]}
    traits = row_of(VoiceTraits, voice["traits"])
    return row_of(VoiceRow, {**voice, "traits": traits, "version": row_of(VoiceVersion, version)})
