"""The wire of `messages.*`."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tts_core.jobs.base import Request
from tts_core.jobs.fields import Prose, RowId
from tts_core.jobs.pages import PagedByPosition
from tts_core.store import Role


class MessagesAdd(Request):
    """Add to the end of a persona's conversation; a `message_id` that is there already is not added again."""

    scope = "personas"

    action: Literal["messages.add"]
    persona_id: RowId
    role: Role
    content: Annotated[Prose, Field(min_length=1)]
    message_id: RowId | None = None


class MessagesList(PagedByPosition):
    scope = "personas"

    action: Literal["messages.list"]
    persona_id: RowId


class MessagesDelete(Request):
    """Forget one message, or all of a conversation."""

    scope = "personas"

    action: Literal["messages.delete"]
    persona_id: RowId
    message_id: RowId | None = None
    all: bool = False

    @model_validator(mode="after")
    def _one_or_all(self) -> Self:
        if self.all == (self.message_id is not None):
            raise ValueError("message_id, or all: true; one of them, not both")
        return self


ACTIONS: Mapping[str, type[Request]] = {
    "messages.add": MessagesAdd,
    "messages.list": MessagesList,
    "messages.delete": MessagesDelete,
}
