"""The wire of `voices.*`."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tts_core.jobs.base import JsonObject, Request, WithReference
from tts_core.jobs.fields import Label, LanguageTag, Name, VoiceRef, Words
from tts_core.jobs.pages import PagedByTime
from tts_core.store import Gender

MAX_TAGS = 20


def _each_once(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


Tags = Annotated[list[Label], Field(max_length=MAX_TAGS), AfterValidator(_each_once)]


class VoicesCreate(WithReference):
    """Save a voice under the tenant."""

    scope = "voices"
    answer_is_kept = False

    action: Literal["voices.create"]
    name: Name
    description: Words = ""
    language: LanguageTag | None = None
    gender: Gender | None = None
    accent: Label | None = None
    tags: Tags = Field(default_factory=list)
    user_id: Name | None = None


class VoicesList(PagedByTime):
    """The tenant's own voices, newest first, those shared with it, and at the end the engine's built-in ones."""

    scope = "voices"

    action: Literal["voices.list"]
    user_id: Name | None = None
    persona_id: Name | None = None
    tag: Label | None = None
    language: LanguageTag | None = None
    include_shared: bool = False


class OfVoice(Request):
    """About one voice: `id`, or `id@2` for its second version."""

    scope = "voices"

    voice_id: Name

    @property
    def voice(self) -> VoiceRef:
        return VoiceRef.parse(self.voice_id)

    @property
    def named_voice_id(self) -> str | None:
        return self.voice.id


class VoicesGet(OfVoice):
    answer_is_kept = False

    action: Literal["voices.get"]


class VoicesUpdate(OfVoice, WithReference):
    """Change what is named; null takes a value away. A clip makes a new version."""

    answer_is_kept = False

    action: Literal["voices.update"]
    name: Name = ""
    description: Words = ""
    language: LanguageTag | None = None
    gender: Gender | None = None
    accent: Label | None = None
    tags: Tags = Field(default_factory=list)
    user_id: Name | None = None

    @property
    def changes(self) -> Mapping[str, object]:
        """The traits that are named, as they are to be."""
        return {field: getattr(self, field) for field in TRAITS if field in self.model_fields_set}

    def _asked(self) -> JsonObject:
        # To take a value away is another request than to leave it as it is.
        return super()._asked() | {"changes": sorted(self.changes)}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.changes and not self.has_reference:
            raise ValueError(f"voices.update changes nothing: name a clip or one of {', '.join(TRAITS)}")
        return self


TRAITS = ("name", "description", "language", "gender", "accent", "tags", "user_id")


class VoicesDelete(OfVoice):
    """Forget a voice, its clips and all that was made of them; with `@2` only that version."""

    action: Literal["voices.delete"]


class OfGrant(OfVoice):
    """tenant_id: the other tenant's"""

    answer_is_kept = False

    tenant_id: Name


class VoicesShare(OfGrant):
    """Let another tenant speak a voice."""

    action: Literal["voices.share"]


class VoicesUnshare(OfGrant):
    """Let it no longer."""

    action: Literal["voices.unshare"]


ACTIONS: Mapping[str, type[Request]] = {
    "voices.create": VoicesCreate,
    "voices.list": VoicesList,
    "voices.get": VoicesGet,
    "voices.update": VoicesUpdate,
    "voices.delete": VoicesDelete,
    "voices.share": VoicesShare,
    "voices.unshare": VoicesUnshare,
}
