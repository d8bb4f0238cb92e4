"""The wire of `cache.*`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from tts_core.jobs.base import Request
from tts_core.jobs.fields import Name, Text
from tts_core.jobs.synthesize import Synthesize, WithManner
from tts_core.store import Scope

MAX_TEXTS = 500
MAX_VOICES = 50
MAX_TAKES = 1_000
"""Of one `cache.seed`: what is told of each makes one event together. A longer list is a second request."""


def _each_once(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))


ContentType = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,49}$")]
ContentHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS), AfterValidator(_each_once)]
VoiceIds = Annotated[list[Name], Field(min_length=1, max_length=MAX_VOICES), AfterValidator(_each_once)]


class OfPool(Request):
    """About the tenant's own entries, or with `shared` about those that all tenants hear: for the operator only."""

    scope = "cache"

    shared: bool = False

    @property
    def needed_scope(self) -> Scope | None:
        return "admin" if self.shared else "cache"


class CacheSeed(OfPool, WithManner):
    """Speak texts in voices and keep the takes: a `synthesize` with the same fields has its answer at once.

    `shared` takes built-in voices only.
    """

    action: Literal["cache.seed"]
    texts: Texts
    voices: VoiceIds
    content_type: ContentType = "seed"
    progress: bool = False

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if len(self.texts) * len(self.voices) > MAX_TAKES:
            raise ValueError(f"texts and voices make more than {MAX_TAKES} takes")
        return self

    @property
    def input_chars(self) -> int:
        return sum(map(len, self.texts)) * len(self.voices)

    def takes(self) -> Iterator[Synthesize]:
        """Every text in every voice, voice by voice."""
        manner = self.model_dump(include=set(WithManner.model_fields) - set(Request.model_fields))
        for voice_id in self.voices:
            yield from (Synthesize(text=text, voice_id=voice_id, **manner) for text in self.texts)


class CacheStats(Request):
    """What the cache holds and has saved."""

    scope = "cache"
    answer_is_kept = False

    action: Literal["cache.stats"]


class CacheInvalidate(OfPool):
    """Forget the entries that all of the named fields fit, and what was told from them; `all` where none is named."""

    action: Literal["cache.invalidate"]
    voice_id: Name | None = None
    content_type: ContentType | None = None
    content_hash: ContentHash | None = None
    older_than_days: float | None = Field(default=None, ge=0, le=36_500)
    all: bool = False

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        named = [self.voice_id, self.content_type, self.content_hash, self.older_than_days]
        if self.all == any(field is not None for field in named):
            raise ValueError("name voice_id, content_type, content_hash or older_than_days, or else all")
        return self

    @property
    def named_voice_id(self) -> str | None:
        return self.voice_id


ACTIONS: Mapping[str, type[Request]] = {
    "cache.seed": CacheSeed,
    "cache.stats": CacheStats,
    "cache.invalidate": CacheInvalidate,
}
