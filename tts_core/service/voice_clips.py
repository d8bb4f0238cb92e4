"""The clips of saved voices: heard by the engine, kept as they were sent, played to their owner, deleted."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from tts_core.jobs import JsonObject, WithReference
from tts_core.service.references import References
from tts_core.speech import SpeechEngine
from tts_core.store import Clip, NewVersion, Objects, Reserved
from tts_core.types import ReferenceClip, Speaker

ATTESTED = "attested by the tenant"
"""In place of a statement, from tenants who once stated that they have consent for every clip they send."""


class VoiceClips:
    def __init__(self, engine: SpeechEngine, objects: Objects, *, references: References) -> None:
        self._engine = engine
        self._objects = objects
        self._references = references

    async def upload(self, request: WithReference, reserved: Reserved, *, voice_id: str) -> tuple[NewVersion, Speaker]:
        """The clips of a request as objects: nothing is kept of what the engine takes no voice from.

        raises  ConsentRequired, any ReferenceRefused
        """
        files = await self._references.clips(request, reserved.tenant)
        heard = await self._references.read(files)
        speaker = await self._engine.clone(heard)
        # Named by the request: carried out twice, it writes over its own.
        folder = f"voices/{reserved.tenant.id}/{voice_id}"
        clips = [
            _clip(f"{folder}/{reserved.request_id}-{n}", file, clip)
            for n, (file, clip) in enumerate(zip(files, heard, strict=True))
        ]
        for clip, file in zip(clips, files, strict=True):
            await self._objects.put_object(clip.path, file, content_type=clip.content_type)
        return NewVersion(reserved.request_id, consent=request.consent or ATTESTED, clips=tuple(clips)), speaker

    async def told(self, clips: Sequence[Clip]) -> list[JsonObject]:
        """Where each can be heard."""
        return [await self._told(clip) for clip in clips]

    async def delete(self, paths: Iterable[str]) -> None:
        await asyncio.gather(*(self._objects.delete_object(path) for path in paths))

    async def _told(self, clip: Clip) -> JsonObject:
        address = await self._objects.object_url(clip.path)
        return {
            "audio_url": address.url,
            "expires_at": address.expires_at,
            "content_type": clip.content_type,
            "file_type": clip.file_type,
            "bytes": clip.size_bytes,
        }


def _clip(path: str, file: bytes, heard: ReferenceClip) -> Clip:
    return Clip(path, size_bytes=len(file), content_type=heard.content_type, report=asdict(heard.report))
