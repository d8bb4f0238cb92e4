"""Users, in the local store: each function is one transaction's work on its connection."""

from collections.abc import Sequence
from dataclasses import asdict, fields

from storage.local.area import LocalArea
from storage.local.database import Connection, Row
from storage.local.people import count, once
from storage.local.schema import utc
from tts_core.errors import UserNotFound
from tts_core.store import Place, Removal, UserRow


class LocalUsers(LocalArea):
    """`tts_core.store.Users`"""

    async def put_user(self, user: UserRow) -> UserRow:
        return await self._database.write(lambda tx: put_user(tx, user))

    async def get_user(self, tenant_id: str, user_id: str) -> UserRow:
        return await self._database.read(lambda tx: get_user(tx, tenant_id, user_id))

    async def find_user(self, tenant_id: str, external_id: str) -> UserRow:
        return await self._database.read(lambda tx: find_user(tx, tenant_id, external_id))

    async def list_users(self, tenant_id: str, *, after: Place | None = None, limit: int) -> Sequence[UserRow]:
        return await self._database.read(lambda tx: list_users(tx, tenant_id, after=after, limit=limit))

    async def delete_user(self, tenant_id: str, user_id: str, *, request_id: str) -> Removal:
        now = utc(self._clock())
        return await self._database.write(
            lambda tx: once(tx, tenant_id, request_id, now=now, remove=lambda: delete_user(tx, tenant_id, user_id))
        )


def put_user(tx: Connection, user: UserRow) -> UserRow:
    row = tx.execute(
        """
        insert into users (id, tenant_id, external_id, email, auth_user_id, created_at)
        values (:id, :tenant_id, :external_id, :email, :auth_user_id, :created_at)
        on conflict (tenant_id, external_id) do update set
            email = excluded.email, auth_user_id = excluded.auth_user_id
        returning *
        """,
        asdict(user),
    ).fetchone()
    return _user(row)


def get_user(tx: Connection, tenant_id: str, user_id: str) -> UserRow:
    row = tx.execute("select * from users where tenant_id = ? and id = ?", (tenant_id, user_id)).fetchone()
    if row is None:
        raise UserNotFound(f"no user {user_id!r}")
    return _user(row)


def find_user(tx: Connection, tenant_id: str, external_id: str) -> UserRow:
    row = tx.execute("select * from users where tenant_id = ? and external_id = ?", (tenant_id, external_id)).fetchone()
    if row is None:
        raise UserNotFound(f"no user with the external_id {external_id!r}")
    return _user(row)


def list_users(tx: Connection, tenant_id: str, *, after: Place | None, limit: int) -> Sequence[UserRow]:
    rows = tx.execute(
        "select * from users where tenant_id = ? and (created_at, id) > (?, ?) order by created_at, id limit ?",
        (tenant_id, *(after or ("", "")), limit),
    )
    return tuple(map(_user, rows))


def delete_user(tx: Connection, tenant_id: str, user_id: str) -> Removal:
    get_user(tx, tenant_id, user_id)
    personas = count(tx, "select count(*) from personas where tenant_id = ? and user_id = ?", tenant_id, user_id)
    messages = count(
        tx,
        """
        select count(*) from personas join messages
            on messages.tenant_id = personas.tenant_id and messages.persona_id = personas.id
        where personas.tenant_id = ? and personas.user_id = ?
        """,
        tenant_id,
        user_id,
    )
    tx.execute("delete from users where tenant_id = ? and id = ?", (tenant_id, user_id))
    return Removal(users=1, personas=personas, messages=messages)


def _user(row: Row) -> UserRow:
    return UserRow(**{field.name: row[field.name] for field in fields(UserRow)})
