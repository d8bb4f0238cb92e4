"""Which voice speaks: the engine's own, one the tenant saved, or clips sent with the job."""

import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tts_core.audio.reference import ReferenceReader
from tts_core.errors import ConsentRequired, InvalidInput, ReferenceNotAudio, VoiceNotFound
from tts_core.jobs import Synthesize, VoiceRef, WithReference
from tts_core.service.latents import Latents
from tts_core.speech import SpeechEngine
from tts_core.store import Store, Tenant, VoiceRow
from tts_core.types import ReferenceClip, Speaker

MAX_SPEAKERS = 64
"""Cloned voices kept in memory; one of XTTS is about 130 KB."""

FetchClip = Callable[[str], Awaitable[bytes]]
Load = Callable[[], Awaitable[Speaker]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Whose voice a request is spoken with, before anything of it was loaded.

    identity  the same for the same voice, and never for two
    voice_id  to tell; None for clips sent with the job
    load      the speaker; may raise what `SpeechEngine.clone` and `ReferenceReader.read` raise
    """

    identity: str
    voice_id: str | None
    load: Load

    @property
    def is_builtin(self) -> bool:
        return self.identity.startswith("builtin:")


class References:
    """Finds or makes the speaker of a request."""

    def __init__(self, engine: SpeechEngine, store: Store, *, reader: ReferenceReader, fetch: FetchClip) -> None:
        self._engine = engine
        self._store = store
        self._reader = reader
        self._fetch = fetch
        self._latents = Latents(engine, store)
        self._speakers: OrderedDict[str, Speaker] = OrderedDict()

    async def speaker(self, request: Synthesize, tenant: Tenant) -> tuple[Speaker, str | None]:
        """The speaker and the voice id to tell, which is None for clips sent with the job.

        raises  VoiceNotFound, ConsentRequired, InvalidInput, any ReferenceRefused
        """
        chosen = await self.choose(request, tenant)
        return await chosen.load(), chosen.voice_id

    async def choose(self, request: Synthesize, tenant: Tenant) -> Chosen:
        """raises  VoiceNotFound, ConsentRequired, InvalidInput, ReferenceRefused for a clip that cannot be had"""
        if request.has_reference:
            if request.voice_id is not None:
                raise InvalidInput("voice_id: not together with reference_audio_url or reference_audio_base64")
            return self._sent(await self.clips(request, tenant))
        builtin = [voice.id for voice in self._engine.voices()]
        if request.voice_id in builtin or (request.voice_id is None and builtin):
            return _builtin(request.voice_id or builtin[0])
        if request.voice_id is None:
            raise VoiceNotFound("the model has no built-in voice: name a voice_id or send a reference clip")
        wanted = VoiceRef.parse(request.voice_id)
        return self._saved(await self._store.get_voice(tenant.id, wanted.id, version=wanted.version))

    async def clips(self, request: WithReference, tenant: Tenant) -> list[bytes]:
        """The files a request brings along, base64 first; none of them has been looked into.

        raises  ConsentRequired, ReferenceRefused
        """
        if request.consent is None and not tenant.attested_consent:
            raise ConsentRequired("consent: state that the speaker has agreed to having the voice cloned")
        sent = [_decode(clip) for clip in request.reference_audio_base64]
        return sent + [await self._fetch(url) for url in request.reference_audio_url]

    async def read(self, files: Sequence[bytes]) -> list[ReferenceClip]:
        return [await self._reader.read(file) for file in files]

    async def keep(self, voice: VoiceRow, speaker: Speaker) -> None:
        """Have this worker and others know what a saved voice sounds like."""
        self._remember(_identity(voice), speaker)
        await self._latents.keep(voice, speaker)

    def forget(self, voice_id: str) -> None:
        """What this worker remembers of all versions of a voice."""
        for identity in [known for known in self._speakers if known.startswith(f"voice:{voice_id}@")]:
            del self._speakers[identity]

    def _sent(self, files: Sequence[bytes]) -> Chosen:
        digest = hashlib.sha256(b"".join(hashlib.sha256(file).digest() for file in files)).hexdigest()

        async def clone() -> Speaker:
            return await self._engine.clone(await self.read(files))

        return Chosen(f"clips:{digest}", None, self._remembering(f"clips:{digest}", clone))

    def _saved(self, voice: VoiceRow) -> Chosen:
        async def find_or_clone() -> Speaker:
            if (speaker := await self._latents.find(voice)) is not None:
                return speaker
            files = [await self._store.get_object(clip.path) for clip in voice.version.clips]
            speaker = await self._engine.clone(await self.read(files))
            await self._latents.keep(voice, speaker)
            return speaker

        return Chosen(_identity(voice), voice.id, self._remembering(_identity(voice), find_or_clone))

    def _remembering(self, identity: str, make: Load) -> Load:
        async def load() -> Speaker:
            speaker = self._speakers.get(identity) or await make()
            self._remember(identity, speaker)
            return speaker

        return load

    def _remember(self, identity: str, speaker: Speaker) -> None:
        self._speakers[identity] = speaker
        self._speakers.move_to_end(identity)
        while len(self._speakers) > MAX_SPEAKERS:
            self._speakers.popitem(last=False)


def _identity(voice: VoiceRow) -> str:
    return f"voice:{voice.id}@{voice.version.number}"


def _builtin(voice_id: str) -> Chosen:
    async def load() -> Speaker:
        return Speaker(builtin=voice_id)

    return Chosen(f"builtin:{voice_id}", voice_id, load)


def _decode(clip: str) -> bytes:
    try:
        return base64.b64decode("".join(clip.split()), validate=True)  # `base64 FILE` wraps its lines
    except (binascii.Error, ValueError) as exc:
        raise ReferenceNotAudio("reference_audio_base64: is not base64") from exc
