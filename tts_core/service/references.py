"""Which voice speaks: the engine's own, one the tenant saved, or clips sent with the job."""

import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from tts_core.audio.reference import ReferenceReader
from tts_core.errors import ConsentRequired, InvalidInput, ReferenceNotAudio, VoiceNotFound
from tts_core.jobs import Synthesize, VoicesCreate
from tts_core.speech import SpeechEngine
from tts_core.store import Store, Tenant
from tts_core.types import ReferenceClip, Speaker

MAX_SPEAKERS = 64
"""Cloned voices kept in memory; one of XTTS is about 130 KB."""

FetchClip = Callable[[str], Awaitable[bytes]]


class References:
    """Finds or makes the speaker of a request."""

    def __init__(self, engine: SpeechEngine, store: Store, *, reader: ReferenceReader, fetch: FetchClip) -> None:
        self._engine = engine
        self._store = store
        self._reader = reader
        self._fetch = fetch
        self._speakers: OrderedDict[str, Speaker] = OrderedDict()

    async def speaker(self, request: Synthesize, tenant: Tenant) -> tuple[Speaker, str | None]:
        """The speaker and the voice id to tell, which is None for clips sent with the job.

        raises  VoiceNotFound, ConsentRequired, InvalidInput, any ReferenceRefused
        """
        if request.has_reference:
            if request.voice_id is not None:
                raise InvalidInput("voice_id: not together with reference_audio_url or reference_audio_base64")
            return await self._clone(await self.clips(request, tenant)), None
        builtin = [voice.id for voice in self._engine.voices()]
        if request.voice_id in builtin or (request.voice_id is None and builtin):
            voice_id = request.voice_id or builtin[0]
            return Speaker(builtin=voice_id), voice_id
        if request.voice_id is None:
            raise VoiceNotFound("the model has no built-in voice: name a voice_id or send a reference clip")
        voice = await self._store.get_voice(tenant.id, request.voice_id)
        return await self._clone([await self._store.get_object(path) for path in voice.clip_paths]), voice.id

    async def clips(self, request: Synthesize | VoicesCreate, tenant: Tenant) -> list[bytes]:
        """The files a request brings along, base64 first; none of them has been looked into.

        raises  ConsentRequired, ReferenceRefused
        """
        if request.consent is None and not tenant.attested_consent:
            raise ConsentRequired("consent: state that the speaker has agreed to having the voice cloned")
        sent = [_decode(clip) for clip in request.reference_audio_base64]
        return sent + [await self._fetch(url) for url in request.reference_audio_url]

    async def read(self, files: Sequence[bytes]) -> list[ReferenceClip]:
        return [await self._reader.read(file) for file in files]

    async def _clone(self, files: Sequence[bytes]) -> Speaker:
        key = hashlib.sha256(b"".join(hashlib.sha256(file).digest() for file in files)).hexdigest()
        if key not in self._speakers:
            self._speakers[key] = await self._engine.clone(await self.read(files))
        self._speakers.move_to_end(key)
        while len(self._speakers) > MAX_SPEAKERS:
            self._speakers.popitem(last=False)
        return self._speakers[key]


def _decode(clip: str) -> bytes:
    try:
        return base64.b64decode("".join(clip.split()), validate=True)  # `base64 FILE` wraps its lines
    except (binascii.Error, ValueError) as exc:
        raise ReferenceNotAudio("reference_audio_base64: is not base64") from exc
