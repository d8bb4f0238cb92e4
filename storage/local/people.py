"""The tables of users, their personas, and what these have said; and how a removal is kept to be told again."""

import json
from collections.abc import Callable
from dataclasses import asdict

from storage.local.database import Connection
from storage.local.schema import Migration
from tts_core.store import Removal

MIGRATIONS: tuple[Migration, ...] = (
    (
        "0007_people",
        (
            """
            create table users (
                id text not null,
                tenant_id text not null references tenants (id) on delete cascade,
                external_id text not null,
                email text,
                auth_user_id text,
                created_at text not null,
                primary key (tenant_id, id),
                unique (tenant_id, external_id)
            ) strict
            """,
            "create index users_of_tenant on users (tenant_id, created_at, id)",
            """
            create table personas (
                id text not null,
                tenant_id text not null references tenants (id) on delete cascade,
                user_id text not null,
                name text not null,
                persona_prompt text not null,
                voice_id text,
                created_at text not null,
                messages_added integer not null default 0,
                primary key (tenant_id, id),
                foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade
            ) strict
            """,
            "create index personas_of_tenant on personas (tenant_id, created_at, id)",
            "create index personas_of_user on personas (tenant_id, user_id, created_at, id)",
            """
            create table messages (
                id text not null,
                tenant_id text not null references tenants (id) on delete cascade,
                persona_id text not null,
                role text not null check (role in ('user', 'assistant', 'system')),
                content text not null,
                created_at text not null,
                position integer not null check (position >= 1),
                primary key (tenant_id, persona_id, id),
                unique (tenant_id, persona_id, position),
                foreign key (tenant_id, persona_id) references personas (tenant_id, id) on delete cascade
            ) strict
            """,
            "create index messages_of_tenant on messages (tenant_id, created_at)",
            """
            create table removals (
                id text not null,
                tenant_id text not null references tenants (id) on delete cascade,
                removed text not null check (json_type(removed) = 'object'),
                created_at text not null,
                primary key (tenant_id, id)
            ) strict
            """,
            "alter table requests add column user_id text",
            "alter table usage_logs add column user_id text",
        ),
    ),
)


def once(tx: Connection, tenant_id: str, request_id: str, *, now: str, remove: Callable[[], Removal]) -> Removal:
    """What `remove` has taken away, or what it took away when it was first asked for under this id."""
    kept = tx.execute("select removed from removals where tenant_id = ? and id = ?", (tenant_id, request_id)).fetchone()
    if kept is not None:
        return Removal(**json.loads(kept["removed"]))
    removal = remove()
    tx.execute(
        "insert into removals (id, tenant_id, removed, created_at) values (?, ?, ?, ?)",
        (request_id, tenant_id, json.dumps(asdict(removal)), now),
    )
    return removal


def count(tx: Connection, query: str, *arguments: str) -> int:
    (number,) = tx.execute(query, arguments).fetchone()
    return int(number)
