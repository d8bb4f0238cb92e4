"""The voices tenants save."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tts_core.types import Language


@dataclass(frozen=True, slots=True)
class VoiceRow:
    """A saved voice: its clips are objects of the tenant."""

    id: str
    tenant_id: str
    name: str
    description: str
    language: Language | None
    consent: str
    clip_paths: tuple[str, ...]
    report: str
    """JSON text: the ClipReport of each clip."""
    created_at: str


class Voices(Protocol):
    async def put_voice(self, voice: VoiceRow) -> None: ...

    async def get_voice(self, tenant_id: str, voice_id: str) -> VoiceRow:
        """raises VoiceNotFound"""

    async def list_voices(self, tenant_id: str) -> Sequence[VoiceRow]:
        """Newest first."""

    async def delete_voice(self, tenant_id: str, voice_id: str) -> None:
        """Row and clips. raises VoiceNotFound"""
