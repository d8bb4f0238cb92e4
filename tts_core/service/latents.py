"""What an engine has computed from the clips of a saved voice, kept beside them for the next worker."""

import logging
import re

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tts_core.errors import StoreUnavailable
from tts_core.speech import SpeechEngine
from tts_core.store import Store, StoredObject, VoiceRow
from tts_core.types import Speaker

log = logging.getLogger(__name__)


class Latents:
    """Finds and keeps what `SpeechEngine.clone` made of a voice's clips; each revision of an engine has its own."""

    def __init__(self, engine: SpeechEngine, store: Store) -> None:
        self._engine = engine
        self._store = store

    async def find(self, voice: VoiceRow) -> Speaker | None:
        """None if none were kept, or what was kept is damaged."""
        try:
            arrays = load(await self._store.get_object(self._path(voice)))
        except (KeyError, SafetensorError):
            return None
        if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()):
            return None
        return Speaker(conditioning=arrays)

    async def keep(self, voice: VoiceRow, speaker: Speaker) -> None:
        """Have the next worker find it. A store that does not answer costs that worker the computing, no more."""
        try:
            await self._keep(voice, speaker)
        except StoreUnavailable:
            log.warning("latents of voice %s not kept: the store did not answer", voice.id)

    async def _keep(self, voice: VoiceRow, speaker: Speaker) -> None:
        data = save({name: np.ascontiguousarray(array) for name, array in speaker.conditioning.items()})
        latents = StoredObject(self._path(voice), len(data))
        # Noted before, so that a deletion meanwhile names the object; and after, as it may have come too early for it.
        if not await self._note(voice, latents):
            return
        await self._store.put_object(latents.path, data, content_type="application/octet-stream")
        if not await self._note(voice, latents):
            await self._store.delete_object(latents.path)

    async def _note(self, voice: VoiceRow, latents: StoredObject) -> bool:
        return await self._store.note_latents(voice.tenant_id, voice.id, voice.version.number, latents=latents)

    def _path(self, voice: VoiceRow) -> str:
        revision = re.sub(r"[^A-Za-z0-9.]+", "-", self._engine.revision)
        folder = f"voices/{voice.tenant_id}/{voice.id}/v{voice.version.number}"
        return f"{folder}/latents-{revision}.safetensors"
