"""The wire of `retention.*`: how many days a tenant's own things are kept."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from tts_core.jobs.base import Request

MAX_DAYS = 36_500

Days = Annotated[int, Field(ge=1, le=MAX_DAYS)]


class RetentionGet(Request):
    scope = "admin"
    answer_is_kept = False

    action: Literal["retention.get"]


class RetentionSet(Request):
    """All three at once; null keeps for ever."""

    scope = "admin"

    action: Literal["retention.set"]
    audio_days: Days | None
    text_days: Days | None
    message_days: Days | None


ACTIONS: Mapping[str, type[Request]] = {"retention.get": RetentionGet, "retention.set": RetentionSet}
