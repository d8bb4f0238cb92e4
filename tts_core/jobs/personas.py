"""The wire of `personas.*`."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import model_validator

from tts_core.jobs.base import JsonObject, Request
from tts_core.jobs.fields import Name, Prose, RowId, VoiceRef
from tts_core.jobs.pages import PagedByTime
from tts_core.store import PersonaChanges

_CHANGEABLE: tuple[Literal["name", "persona_prompt", "voice_id"], ...] = ("name", "persona_prompt", "voice_id")


class PersonasCreate(Request):
    """A persona of a user, with or without a voice."""

    scope = "personas"

    action: Literal["personas.create"]
    user_id: RowId
    name: Name
    persona_prompt: Prose = ""
    voice_id: Name | None = None

    @property
    def named_voice_id(self) -> str | None:
        return None if self.voice_id is None else VoiceRef.parse(self.voice_id).id


class PersonasGet(Request):
    scope = "personas"
    answer_is_kept = False

    action: Literal["personas.get"]
    persona_id: RowId


class PersonasList(PagedByTime):
    """Of one user, or of all."""

    scope = "personas"

    action: Literal["personas.list"]
    user_id: RowId | None = None


class PersonasUpdate(Request):
    """What is absent stays as it is; null takes the voice away."""

    scope = "personas"

    action: Literal["personas.update"]
    persona_id: RowId
    name: Name | None = None
    persona_prompt: Prose | None = None
    voice_id: Name | None = None

    @model_validator(mode="after")
    def _only_the_voice_may_be_null(self) -> Self:
        if not self.changes:
            raise ValueError(f"names none of {', '.join(_CHANGEABLE)}")
        for field in ("name", "persona_prompt"):
            if field in self.model_fields_set and getattr(self, field) is None:
                raise ValueError(f"{field} may not be null")
        return self

    @property
    def changes(self) -> PersonaChanges:
        return {field: getattr(self, field) for field in _CHANGEABLE if field in self.model_fields_set}

    @property
    def named_voice_id(self) -> str | None:
        return None if self.voice_id is None else VoiceRef.parse(self.voice_id).id

    def _asked(self) -> JsonObject:
        # To take the voice away is another request than to leave it as it is.
        return super()._asked() | {"changes": dict(self.changes)}


class PersonasDelete(Request):
    """Forget a persona with its messages."""

    scope = "personas"

    action: Literal["personas.delete"]
    persona_id: RowId


ACTIONS: Mapping[str, type[Request]] = {
    "personas.create": PersonasCreate,
    "personas.get": PersonasGet,
    "personas.list": PersonasList,
    "personas.update": PersonasUpdate,
    "personas.delete": PersonasDelete,
}
