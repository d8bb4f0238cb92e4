"""Users, personas and messages, in Supabase."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from storage.supabase.area import SupabaseArea, columns_of, row_of
from tts_core.errors import PersonaNotFound, UserNotFound
from tts_core.store import MessageRow, PersonaChanges, PersonaRow, Place, Removal, UserRow


class SupabaseUsers(SupabaseArea):
    """`tts_core.store.Users`"""

    async def put_user(self, user: UserRow) -> UserRow:
        return row_of(UserRow, await self._call("put_user", dict, **asdict(user)))

    async def get_user(self, tenant_id: str, user_id: str) -> UserRow:
        for user in await self._users(tenant_id=tenant_id, id=user_id):
            return user
        raise UserNotFound(f"no user {user_id!r}")

    async def find_user(self, tenant_id: str, external_id: str) -> UserRow:
        for user in await self._users(tenant_id=tenant_id, external_id=external_id):
            return user
        raise UserNotFound(f"no user with the external_id {external_id!r}")

    async def list_users(self, tenant_id: str, *, after: Place | None = None, limit: int) -> Sequence[UserRow]:
        rows = await self._call("list_users", list, tenant_id=tenant_id, limit=limit, **_place(after))
        return tuple(row_of(UserRow, row) for row in rows)

    async def delete_user(self, tenant_id: str, user_id: str, *, request_id: str) -> Removal:
        removed = await self._call("delete_user", dict, tenant_id=tenant_id, id=user_id, request_id=request_id)
        return row_of(Removal, removed)

    async def _users(self, **where: str) -> Sequence[UserRow]:
        rows = await self._project.rows("users", columns=columns_of(UserRow), where=where, order=["id"], limit=1)
        return [row_of(UserRow, row) for row in rows]


class SupabasePersonas(SupabaseArea):
    """`tts_core.store.Personas`"""

    async def create_persona(self, persona: PersonaRow) -> PersonaRow:
        return row_of(PersonaRow, await self._call("create_persona", dict, **asdict(persona)))

    async def get_persona(self, tenant_id: str, persona_id: str) -> PersonaRow:
        where = {"tenant_id": tenant_id, "id": persona_id}
        columns = columns_of(PersonaRow)
        for row in await self._project.rows("personas", columns=columns, where=where, order=["id"], limit=1):
            return row_of(PersonaRow, row)
        raise PersonaNotFound(f"no persona {persona_id!r}")

    async def list_personas(
        self, tenant_id: str, *, user_id: str | None = None, after: Place | None = None, limit: int
    ) -> Sequence[PersonaRow]:
        rows = await self._call(
            "list_personas", list, tenant_id=tenant_id, user_id=user_id, limit=limit, **_place(after)
        )
        return tuple(row_of(PersonaRow, row) for row in rows)

    async def update_persona(self, tenant_id: str, persona_id: str, changes: PersonaChanges) -> PersonaRow:
        changed = await self._call("update_persona", dict, tenant_id=tenant_id, id=persona_id, changes=dict(changes))
        return row_of(PersonaRow, changed)

    async def delete_persona(self, tenant_id: str, persona_id: str, *, request_id: str) -> Removal:
        removed = await self._call("delete_persona", dict, tenant_id=tenant_id, id=persona_id, request_id=request_id)
        return row_of(Removal, removed)


class SupabaseMessages(SupabaseArea):
    """`tts_core.store.Messages`"""

    async def add_message(self, message: MessageRow) -> MessageRow:
        return row_of(MessageRow, await self._call("add_message", dict, **asdict(message)))

    async def list_messages(
        self, tenant_id: str, persona_id: str, *, after: int = 0, limit: int
    ) -> Sequence[MessageRow]:
        rows = await self._call(
            "list_messages", list, tenant_id=tenant_id, persona_id=persona_id, after=after, limit=limit
        )
        return tuple(row_of(MessageRow, row) for row in rows)

    async def delete_messages(
        self, tenant_id: str, persona_id: str, message_id: str | None, *, request_id: str
    ) -> Removal:
        asked = {"tenant_id": tenant_id, "persona_id": persona_id, "id": message_id, "request_id": request_id}
        return row_of(Removal, await self._call("delete_messages", dict, **asked))


def _place(after: Place | None) -> dict[str, Any]:
    created_at, row_id = after or ("-infinity", "")
    return {"after_time": created_at, "after_id": row_id}
