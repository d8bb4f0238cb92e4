"""One request, one transaction, as the caller."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeAlias

from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from tests.supabase_server.callers import Caller

Connection: TypeAlias = AsyncConnection[DictRow]

API_ROLES = ["anon", "authenticated", "service_role"]
POOL_SIZE = 10
"""As PostgREST has it by default, and its 10 seconds of waiting for one."""


class WrongLogin(Exception):
    """Whoever is not `authenticator` could do more than the real API."""


class Transactions:
    """Ten connections to one database, all of them `authenticator`.

    url  for psycopg
    """

    def __init__(self, url: str) -> None:
        self._pool = AsyncConnectionPool(
            url,
            connection_class=AsyncConnection[DictRow],
            kwargs={"autocommit": True, "prepare_threshold": None, "row_factory": dict_row},
            min_size=1,
            max_size=POOL_SIZE,
            timeout=10,
            open=False,
        )
        self._role_settings: dict[str, list[str]] = {}

    async def __aenter__(self) -> Self:
        """raises WrongLogin"""
        await self._pool.open(wait=True)
        async with self._pool.connection() as connection:
            row = await one(connection, "select session_user as login")
            if row["login"] != "authenticator":
                await self._pool.close()
                raise WrongLogin(f"logged in as {row['login']!r}")
            cursor = await connection.execute(
                "select rolname, coalesce(rolconfig, '{}') as settings from pg_roles where rolname = any(%s)",
                [API_ROLES],
            )
            self._role_settings = {row["rolname"]: row["settings"] for row in await cursor.fetchall()}
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def begin(
        self, caller: Caller, *, read_only: bool = False, rehearsal: bool = False, search_path: Sequence[str] = ()
    ) -> AsyncIterator[Connection]:
        """rehearsal: nothing of it stays, even if it succeeds"""
        path = sql.SQL(", ").join(map(sql.Identifier, [*search_path, "public", "extensions"]))
        settings = [
            *[tuple(setting.split("=", 1)) for setting in self._role_settings.get(caller.role, [])],
            ("transaction_read_only", "on" if read_only else "off"),
            ("search_path", path.as_string()),
            ("request.jwt.claims", json.dumps(caller.claims)),
            ("role", caller.role),
        ]
        calls = sql.SQL(", ").join(sql.SQL("set_config({}, {}, true)").format(*setting) for setting in settings)
        async with self._pool.connection() as connection, connection.transaction(force_rollback=rehearsal):
            await connection.execute(sql.SQL("select {}").format(calls))
            yield connection


async def one(connection: Connection, query: sql.Composed | str, parameters: Sequence[Any] | None = None) -> DictRow:
    """The only row. raises LookupError if there is none"""
    cursor = await connection.execute(query.encode() if isinstance(query, str) else query, parameters)
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("no row")
    return row
