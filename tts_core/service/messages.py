"""What the service does with `messages.*` requests."""

from collections.abc import Mapping

from tts_core.jobs import JsonObject, MessagesAdd, MessagesDelete, MessagesList, Request
from tts_core.service.actions import Action, now
from tts_core.service.attempt import Attempt
from tts_core.service.pages import page
from tts_core.store import MessageRow, Store


class Conversations:
    def __init__(self, store: Store) -> None:
        self._store = store

    def actions(self) -> Mapping[type[Request], Action]:
        return {MessagesAdd: self.add, MessagesList: self.list, MessagesDelete: self.delete}

    async def add(self, request: MessagesAdd, attempt: Attempt) -> JsonObject:
        """A message without an id of its own has the request's. What is kept of this answer holds no content."""
        asked = MessageRow(
            id=request.message_id or attempt.reserved.request_id,
            tenant_id=attempt.reserved.tenant.id,
            persona_id=request.persona_id,
            role=request.role,
            content=request.content,
            created_at=now(),
        )
        message = await self._store.add_message(asked)
        return {"id": message.id, "persona_id": message.persona_id, "created_at": message.created_at}

    async def list(self, request: MessagesList, attempt: Attempt) -> JsonObject:
        """raises  PersonaNotFound"""
        tenant_id, persona_id = attempt.reserved.tenant.id, request.persona_id
        rows = await self._store.list_messages(tenant_id, persona_id, after=request.after, limit=request.limit + 1)
        if not rows:
            await self._store.get_persona(tenant_id, persona_id)
        return page("messages", rows, limit=request.limit, told=_told, place=lambda row: row.position)

    async def delete(self, request: MessagesDelete, attempt: Attempt) -> JsonObject:
        reserved = attempt.reserved
        removal = await self._store.delete_messages(
            reserved.tenant.id, request.persona_id, request.message_id, request_id=reserved.request_id
        )
        return {"deleted": request.message_id or "all", "receipt": {"messages": removal.messages}}


def _told(message: MessageRow) -> JsonObject:
    return {"id": message.id, "role": message.role, "content": message.content, "created_at": message.created_at}
