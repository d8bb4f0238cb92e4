"""Messages, in the local store: each function is one transaction's work on its connection."""

from collections.abc import Sequence
from dataclasses import asdict, fields

from storage.local.area import LocalArea
from storage.local.database import Connection, Row
from storage.local.people import once
from storage.local.personas import get_persona
from storage.local.schema import utc
from tts_core.errors import IdempotencyConflict, MessageNotFound
from tts_core.store import MessageRow, Removal


class LocalMessages(LocalArea):
    """`tts_core.store.Messages`"""

    async def add_message(self, message: MessageRow) -> MessageRow:
        return await self._database.write(lambda tx: add_message(tx, message))

    async def list_messages(
        self, tenant_id: str, persona_id: str, *, after: int = 0, limit: int
    ) -> Sequence[MessageRow]:
        return await self._database.read(lambda tx: list_messages(tx, tenant_id, persona_id, after=after, limit=limit))

    async def delete_messages(
        self, tenant_id: str, persona_id: str, message_id: str | None, *, request_id: str
    ) -> Removal:
        now = utc(self._clock())
        return await self._database.write(
            lambda tx: once(
                tx,
                tenant_id,
                request_id,
                now=now,
                remove=lambda: delete_messages(tx, tenant_id, persona_id, message_id=message_id),
            )
        )


def add_message(tx: Connection, message: MessageRow) -> MessageRow:
    get_persona(tx, message.tenant_id, message.persona_id)
    row = tx.execute(
        "select * from messages where tenant_id = ? and persona_id = ? and id = ?",
        (message.tenant_id, message.persona_id, message.id),
    ).fetchone()
    if row is None:
        return _append(tx, message)
    there = _message(row)
    if (there.role, there.content) != (message.role, message.content):
        raise IdempotencyConflict("this message_id was used before in this conversation with another role or content")
    return there


def _append(tx: Connection, message: MessageRow) -> MessageRow:
    # Counted by the persona, not by what is left of its messages: a reader's place must not be given anew.
    (position,) = tx.execute(
        """
        update personas set messages_added = messages_added + 1 where tenant_id = ? and id = ?
        returning messages_added
        """,
        (message.tenant_id, message.persona_id),
    ).fetchone()
    row = tx.execute(
        """
        insert into messages (id, tenant_id, persona_id, role, content, created_at, position)
        values (:id, :tenant_id, :persona_id, :role, :content, :created_at, :position)
        returning *
        """,
        asdict(message) | {"position": position},
    ).fetchone()
    return _message(row)


def list_messages(tx: Connection, tenant_id: str, persona_id: str, *, after: int, limit: int) -> Sequence[MessageRow]:
    rows = tx.execute(
        "select * from messages where tenant_id = ? and persona_id = ? and position > ? order by position limit ?",
        (tenant_id, persona_id, after, limit),
    )
    return tuple(map(_message, rows))


def delete_messages(tx: Connection, tenant_id: str, persona_id: str, *, message_id: str | None) -> Removal:
    get_persona(tx, tenant_id, persona_id)
    removed = tx.execute(
        "delete from messages where tenant_id = ? and persona_id = ? and id = coalesce(?, id)",
        (tenant_id, persona_id, message_id),
    ).rowcount
    if message_id is not None and removed == 0:
        raise MessageNotFound(f"no message {message_id!r}")
    return Removal(messages=removed)


def _message(row: Row) -> MessageRow:
    return MessageRow(**{field.name: row[field.name] for field in fields(MessageRow)})
