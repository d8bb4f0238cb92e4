"""What was said between users and their personas."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tts_core.store.users import Removal

Role = Literal["user", "assistant", "system"]


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message of a persona's conversation.

    id        the caller's, or the request's: unique within the conversation
    position  from 1 on, in the order of adding, none of them given twice; 0 until the store has given it
    """

    id: str
    tenant_id: str
    persona_id: str
    role: Role
    content: str
    created_at: str
    position: int = 0


class Messages(Protocol):
    async def add_message(self, message: MessageRow) -> MessageRow:
        """The message of this id, which is added at the end if there is none.

        raises  PersonaNotFound; IdempotencyConflict if the message of this id says something else
        """

    async def list_messages(
        self, tenant_id: str, persona_id: str, *, after: int = 0, limit: int
    ) -> Sequence[MessageRow]:
        """From the first position after `after` on, oldest first. No row of a persona that is not there."""

    async def delete_messages(
        self, tenant_id: str, persona_id: str, message_id: str | None, *, request_id: str
    ) -> Removal:
        """One message, or with None the whole conversation; the same answer to the same `request_id`.

        raises  PersonaNotFound, MessageNotFound
        """
