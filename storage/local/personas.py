"""Personas, in the local store: each function is one transaction's work on its connection."""

from collections.abc import Sequence
from dataclasses import asdict, fields

from storage.local.area import LocalArea
from storage.local.database import Connection, Row
from storage.local.people import count, once
from storage.local.schema import utc
from storage.local.users import get_user
from tts_core.errors import PersonaNotFound
from tts_core.store import PersonaChanges, PersonaRow, Place, Removal

_LIST_ALL = """
    select * from personas where tenant_id = :tenant_id and (created_at, id) > (:after, :after_id)
    order by created_at, id limit :limit
"""
_LIST_OF_USER = """
    select * from personas
    where tenant_id = :tenant_id and user_id = :user_id and (created_at, id) > (:after, :after_id)
    order by created_at, id limit :limit
"""


class LocalPersonas(LocalArea):
    """`tts_core.store.Personas`"""

    async def create_persona(self, persona: PersonaRow) -> PersonaRow:
        return await self._database.write(lambda tx: create_persona(tx, persona))

    async def get_persona(self, tenant_id: str, persona_id: str) -> PersonaRow:
        return await self._database.read(lambda tx: get_persona(tx, tenant_id, persona_id))

    async def list_personas(
        self, tenant_id: str, *, user_id: str | None = None, after: Place | None = None, limit: int
    ) -> Sequence[PersonaRow]:
        return await self._database.read(
            lambda tx: list_personas(tx, tenant_id, user_id=user_id, after=after, limit=limit)
        )

    async def update_persona(self, tenant_id: str, persona_id: str, changes: PersonaChanges) -> PersonaRow:
        return await self._database.write(lambda tx: update_persona(tx, tenant_id, persona_id, changes=changes))

    async def delete_persona(self, tenant_id: str, persona_id: str, *, request_id: str) -> Removal:
        now = utc(self._clock())
        return await self._database.write(
            lambda tx: once(
                tx, tenant_id, request_id, now=now, remove=lambda: delete_persona(tx, tenant_id, persona_id)
            )
        )


def create_persona(tx: Connection, persona: PersonaRow) -> PersonaRow:
    get_user(tx, persona.tenant_id, persona.user_id)
    tx.execute(
        """
        insert into personas (id, tenant_id, user_id, name, persona_prompt, voice_id, created_at)
        values (:id, :tenant_id, :user_id, :name, :persona_prompt, :voice_id, :created_at)
        on conflict (tenant_id, id) do nothing
        """,
        asdict(persona),
    )
    return get_persona(tx, persona.tenant_id, persona.id)


def get_persona(tx: Connection, tenant_id: str, persona_id: str) -> PersonaRow:
    row = tx.execute("select * from personas where tenant_id = ? and id = ?", (tenant_id, persona_id)).fetchone()
    if row is None:
        raise PersonaNotFound(f"no persona {persona_id!r}")
    return _persona(row)


def list_personas(
    tx: Connection, tenant_id: str, *, user_id: str | None, after: Place | None, limit: int
) -> Sequence[PersonaRow]:
    created_at, row_id = after or ("", "")
    rows = tx.execute(
        _LIST_ALL if user_id is None else _LIST_OF_USER,
        {"tenant_id": tenant_id, "user_id": user_id, "after": created_at, "after_id": row_id, "limit": limit},
    )
    return tuple(map(_persona, rows))


def update_persona(tx: Connection, tenant_id: str, persona_id: str, *, changes: PersonaChanges) -> PersonaRow:
    before = get_persona(tx, tenant_id, persona_id)
    tx.execute(
        """
        update personas set name = :name, persona_prompt = :persona_prompt, voice_id = :voice_id
        where tenant_id = :tenant_id and id = :id
        """,
        asdict(before) | dict(changes),
    )
    return get_persona(tx, tenant_id, persona_id)


def delete_persona(tx: Connection, tenant_id: str, persona_id: str) -> Removal:
    get_persona(tx, tenant_id, persona_id)
    messages = count(tx, "select count(*) from messages where tenant_id = ? and persona_id = ?", tenant_id, persona_id)
    tx.execute("delete from personas where tenant_id = ? and id = ?", (tenant_id, persona_id))
    return Removal(personas=1, messages=messages)


def _persona(row: Row) -> PersonaRow:
    return PersonaRow(**{field.name: row[field.name] for field in fields(PersonaRow)})
