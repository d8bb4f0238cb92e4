"""A few rows in every table of public, made from its columns: two tenants' and, in the first, two users'.

A text is the word of its row, so that every reference finds its row.
"""

from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

Connection = psycopg.Connection[Any]

MEMBER, PERSON, OTHER = (f"00000000-0000-4000-8000-00000000000{n}" for n in "abc")

OWNERS = [
    ("a", "a", MEMBER, PERSON),
    ("a", "a2", OTHER[:-1] + "1", OTHER[:-1] + "2"),
    ("b", "b", OTHER[:-1] + "3", OTHER[:-1] + "4"),
]
"""tenant, word of the row, its member, its person"""

PLAIN: dict[str, object] = {
    "boolean": False,
    "integer": 1,
    "bigint": 1,
    "double precision": 1.0,
    "numeric": 1,
    "jsonb": "{}",
    "timestamp with time zone": "2026-11-21T00:00:00Z",
    "date": "2026-11-21",
}

COLUMNS = """
    select c.relname as table, a.attname as name, format_type(a.atttypid, null) as type
    from pg_attribute as a join pg_class as c on c.oid = a.attrelid
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
        and a.attidentity = '' and a.attgenerated = ''
        and (a.attname in ('auth_user_id', 'tenant_id') or a.attnotnull and not a.atthasdef)
"""

CONDITIONS = """
    select conrelid::regclass::text as table, quote_ident(conname) as name from pg_constraint
    where connamespace = 'public'::regnamespace and contype = 'c' and conrelid <> 0 and conislocal
"""


def seed(connection: Connection) -> None:
    """Triggers, references and conditions are off, so that neither values nor the order of tables matter."""
    connection.execute("set local session_replication_role = replica")
    for each in rows(connection, CONDITIONS):
        connection.execute(f"alter table {each.table} drop constraint {each.name}".encode())
    columns: dict[str, list[Any]] = {}
    for column in rows(connection, COLUMNS):
        columns.setdefault(column.table, []).append(column)
    for table, its_columns in columns.items():
        for tenant, word, member, person in OWNERS:
            user = person if table == "users" else member
            insert(connection, table, {c.name: value_of(c, tenant=tenant, word=word, user=user) for c in its_columns})
    connection.execute("set local session_replication_role = origin")


def insert(connection: Connection, table: str, row: dict[str, object]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, row))
    values = sql.SQL(", ").join(sql.Placeholder() * len(row))
    statement = sql.SQL("insert into {} ({}) values ({}) on conflict do nothing")
    connection.execute(statement.format(sql.Identifier("public", table), names, values), list(row.values()))


def value_of(column: Any, *, tenant: str, word: str, user: str) -> object:
    if column.name == "tenant_id":
        return tenant
    if column.type.endswith("[]"):
        return []
    return {"text": word, "uuid": user, "bytea": word.encode()}.get(column.type) or PLAIN[column.type]


def rows(connection: Connection, query: str) -> list[Any]:
    cursor = connection.cursor(row_factory=namedtuple_row)
    return cursor.execute(query.encode()).fetchall()
