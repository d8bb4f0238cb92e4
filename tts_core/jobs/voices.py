"""The wire of `voices.*`."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from tts_core.jobs.base import Request, WithReference
from tts_core.jobs.fields import LanguageTag, Name


class VoicesCreate(WithReference):
    """Save a voice under the tenant."""

    scope = "voices"

    action: Literal["voices.create"]
    name: Name
    description: str = Field(default="", max_length=2000)
    language: LanguageTag | None = None


class VoicesList(Request):
    """The engine's built-in voices and the tenant's own."""

    scope = "voices"

    action: Literal["voices.list"]


class VoicesGet(Request):
    scope = "voices"

    action: Literal["voices.get"]
    voice_id: Name

    @property
    def named_voice_id(self) -> str | None:
        return self.voice_id


class VoicesDelete(Request):
    """Forget a voice and its clips."""

    scope = "voices"

    action: Literal["voices.delete"]
    voice_id: Name

    @property
    def named_voice_id(self) -> str | None:
        return self.voice_id


ACTIONS: Mapping[str, type[Request]] = {
    "voices.create": VoicesCreate,
    "voices.list": VoicesList,
    "voices.get": VoicesGet,
    "voices.delete": VoicesDelete,
}
