"""The voices tenants save: what they are called, their versions, and which other tenants may speak them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tts_core.store.pages import Place
from tts_core.types import Language

FileType = Literal["audio", "video"]
Gender = Literal["female", "male", "neutral"]

MAX_VOICE_GRANTS = 100
"""Tenants one voice may be shared with."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A reference clip, kept as it was sent.

    content_type  of its container, `video/...` where the reference is the sound track of a video
    report        the ClipReport
    """

    path: str
    size_bytes: int
    content_type: str
    report: Mapping[str, float]

    @property
    def file_type(self) -> FileType:
        return "video" if self.content_type.startswith("video/") else "audio"


@dataclass(frozen=True, slots=True)
class NewVersion:
    """Clips of a speaker, and what was stated about having them.

    request_id  of the request that brought them: it makes one version, however often it is carried out
    """

    request_id: str
    consent: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True, slots=True)
class VoiceVersion:
    """number: from 1, never given twice to versions of one voice"""

    number: int
    request_id: str
    consent: str
    clips: tuple[Clip, ...]
    created_at: str


@dataclass(frozen=True, slots=True)
class VoiceTraits:
    """What its tenant says of a voice, and may change.

    language  None: nothing was said
    user_id   the tenant's own name of the user whose voice it is
    """

    name: str
    description: str = ""
    language: Language | None = None
    gender: Gender | None = None
    accent: str | None = None
    tags: tuple[str, ...] = ()
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class VoiceRow:
    """A saved voice as one tenant sees it.

    tenant_id    its owner
    version      the one that was asked for, or the newest
    versions     numbers of all there are, ascending
    shared_with  ids of the tenants it is shared with; empty for these tenants themselves
    """

    id: str
    tenant_id: str
    traits: VoiceTraits
    version: VoiceVersion
    versions: tuple[int, ...]
    shared_with: tuple[str, ...]
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class VoiceQuery:
    """Which voices are wanted; a filter that is None lets all pass.

    voice_ids  no others than these
    after      only those that come later
    """

    limit: int
    user_id: str | None = None
    tag: str | None = None
    language: Language | None = None
    voice_ids: tuple[str, ...] | None = None
    include_shared: bool = False
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class VoicePurge:
    """What a deletion has taken from the tables, and which objects it leaves to be deleted.

    rows          that are gone
    objects       clips and latents, named by no row any more
    tenant_ids    who could speak the voice: its owner and those it was shared with
    """

    voice_id: str
    rows: int
    objects: tuple[StoredObject, ...]
    tenant_ids: tuple[str, ...]


class Voices(Protocol):
    """A voice that another tenant owns is as unknown as one that does not exist, unless it was shared.

    Only `get_voice` and `list_voices` show shared ones. Versions are those of the voice's newest unless one is named.
    """

    async def create_voice(
        self, tenant_id: str, voice_id: str, *, traits: VoiceTraits, version: NewVersion, max_voices: int
    ) -> VoiceRow:
        """The voice in its first version. raises LimitReached if the tenant has `max_voices`"""

    async def update_voice(
        self, tenant_id: str, voice_id: str, *, changes: Mapping[str, object], version: NewVersion | None = None
    ) -> VoiceRow:
        """Change some traits (names and values of VoiceTraits), and give the voice a newer version.

        raises  VoiceNotFound
        """

    async def get_voice(self, tenant_id: str, voice_id: str, *, version: int | None = None) -> VoiceRow:
        """raises VoiceNotFound"""

    async def list_voices(self, tenant_id: str, query: VoiceQuery) -> Sequence[VoiceRow]:
        """Newest first, by `created_at` and `id`."""

    async def delete_voice(
        self, tenant_id: str, voice_id: str, *, request_id: str, version: int | None = None
    ) -> VoicePurge:
        """Forget a voice, or one of its versions, at once; the caller then deletes the objects.

        The same request again gives the same answer, also after the voice is gone.

        raises  VoiceNotFound; InvalidInput for the only version of a voice
        """

    async def share_voice(self, tenant_id: str, voice_id: str, *, with_tenant_id: str) -> VoiceRow:
        """Whether there is such a tenant is not told. raises VoiceNotFound, LimitReached"""

    async def unshare_voice(self, tenant_id: str, voice_id: str, *, with_tenant_id: str) -> VoiceRow:
        """No error if it was not shared. raises VoiceNotFound"""

    async def note_latents(self, tenant_id: str, voice_id: str, version: int, *, latents: StoredObject) -> bool:
        """Have `delete_voice` name an object; False if the version is gone (the caller then deletes the object)."""
