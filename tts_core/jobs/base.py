"""What the requests of every area have in common."""

import hashlib
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, ClassVar, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tts_core.jobs.fields import MAX_CLIPS, Clips, Statement
from tts_core.store import Scope

JsonObject: TypeAlias = dict[str, Any]
"""An event or result on its way to the caller."""

Handler: TypeAlias = Callable[[JsonObject], AsyncGenerator[JsonObject]]
"""Answers a job, as RunPod delivers it, with events."""


class Request(BaseModel):
    """What every action takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False)
    scope: ClassVar[Scope | None] = None
    answer_is_kept: ClassVar[bool] = True
    """To be told again when the request is repeated; of one that only reads it is not: that one is read again."""

    action: str
    tenant_key: str | None = Field(default=None, max_length=500)
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")

    @property
    def needed_scope(self) -> Scope | None:
        """What the key must be allowed to do."""
        return self.scope

    @property
    def input_chars(self) -> int:
        """Characters of text that are to be spoken."""
        return 0

    @property
    def is_streamed(self) -> bool:
        """Whether the audio is told while it is being made."""
        return False

    @property
    def named_voice_id(self) -> str | None:
        """The voice that the request is about, if it names one."""
        return None

    def refuse_the_future(self) -> None:
        """raises  NotSupported for what a later version does"""

    def fingerprint(self) -> str:
        """sha256 of what is asked for; the same work under another key or identity has the same one."""
        return hashlib.sha256(json.dumps(self._asked(), sort_keys=True).encode()).hexdigest()

    def _asked(self) -> JsonObject:
        return self.model_dump(mode="json", exclude={"tenant_key", "idempotency_key"})


class WithReference(Request):
    """May bring clips of a speaker along."""

    reference_audio_url: Clips = ()
    reference_audio_base64: Clips = ()
    consent: Statement | None = None

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if len(self.reference_audio_url) + len(self.reference_audio_base64) > MAX_CLIPS:
            raise ValueError(f"reference_audio_url and _base64 have more than {MAX_CLIPS} clips together")
        return self

    @property
    def has_reference(self) -> bool:
        return bool(self.reference_audio_url or self.reference_audio_base64)
