"""Tenants and their keys, in the local store: each function is one transaction's work on its connection."""

import io
import json
from collections.abc import Sequence
from typing import get_args
from uuid import uuid4

from storage.keys import digest, is_key, new_key, shown_prefix
from storage.local.area import LocalArea
from storage.local.database import Connection, Row
from storage.local.files import write_whole
from storage.local.schema import Migration, utc
from tts_core.errors import Forbidden, StartupError, Unauthorized
from tts_core.store import NewKey, Scope, Tenant

LOCAL_TENANT = "local"
"""Id and name of the tenant that owns the local profile: the same in a new database, so its objects stay its own."""

MIGRATIONS: tuple[Migration, ...] = (
    (
        "0001_tenants",
        (
            """
            create table tenants (
                id text primary key,
                name text not null,
                attested_consent integer not null default 0 check (attested_consent in (0, 1)),
                created_at text not null
            ) strict
            """,
            """
            create table api_keys (
                sha256 blob primary key check (length(sha256) = 32),
                prefix text not null,
                tenant_id text not null references tenants (id),
                scopes text not null check (json_type(scopes) = 'array'),
                created_at text not null,
                expires_at text,
                revoked_at text
            ) strict
            """,
            "create index api_keys_of_tenant on api_keys (tenant_id)",
        ),
    ),
)


class LocalTenants(LocalArea):
    """`tts_core.store.Tenants`"""

    async def create_tenant(self, name: str, *, scopes: Sequence[Scope]) -> NewKey:
        return await self._database.write(lambda tx: create_tenant(tx, name, scopes=scopes, now_s=self._clock()))

    async def list_tenants(self) -> Sequence[Tenant]:
        return await self._database.read(list_tenants)

    async def local_key(self) -> str:
        return await self._database.write(self._register_kept_key)

    def _register_kept_key(self, tx: Connection) -> str:
        """The key in the file, made if there is none: the transaction is what keeps two processes from making two."""
        key_file = self._folder / "local_key"
        if not key_file.exists():
            write_whole(key_file, io.BytesIO(new_key().encode()))
        key = key_file.read_text(errors="replace").strip()
        if not is_key(key):
            raise StartupError("local_key in the data folder holds no key; delete it to have a new one made")
        register_local_key(tx, key, now_s=self._clock())
        return key


def authenticate(tx: Connection, key: str, *, scope: Scope, now_s: float) -> Tenant:
    """raises Unauthorized, in the same words for every kind of bad key; Forbidden"""
    row = tx.execute(
        """
        select tenants.*, api_keys.scopes from api_keys join tenants on tenants.id = api_keys.tenant_id
        where sha256 = ? and revoked_at is null and (expires_at is null or expires_at > ?)
        """,
        (digest(key), utc(now_s)),
    ).fetchone()
    if row is None:
        raise Unauthorized("tenant_key is missing, unknown, or no longer valid")
    if not {scope, "admin"} & set(json.loads(row["scopes"])):
        raise Forbidden(f"this key lacks the scope {scope!r}")
    return _tenant(row)


def create_tenant(tx: Connection, name: str, *, scopes: Sequence[Scope], now_s: float) -> NewKey:
    tenant = Tenant(id=uuid4().hex, name=name, created_at=utc(now_s))
    key = new_key()
    _insert_tenant(tx, tenant)
    _insert_key(tx, key, tenant_id=tenant.id, scopes=scopes, created_at=tenant.created_at)
    return NewKey(tenant, key)


def list_tenants(tx: Connection) -> Sequence[Tenant]:
    """Oldest first."""
    return tuple(map(_tenant, tx.execute("select * from tenants order by created_at, id")))


def register_local_key(tx: Connection, key: str, *, now_s: float) -> None:
    """Make `key` the one key of the local tenant: whoever deletes the file has its old key revoked by the new."""
    now = utc(now_s)
    _insert_tenant(tx, Tenant(id=LOCAL_TENANT, name=LOCAL_TENANT, created_at=now))
    _insert_key(tx, key, tenant_id=LOCAL_TENANT, scopes=get_args(Scope), created_at=now)
    tx.execute(
        "update api_keys set revoked_at = iif(sha256 = ?, null, coalesce(revoked_at, ?)) where tenant_id = ?",
        (digest(key), now, LOCAL_TENANT),
    )


def _insert_tenant(tx: Connection, tenant: Tenant) -> None:
    tx.execute(
        "insert into tenants (id, name, attested_consent, created_at) values (?, ?, ?, ?) on conflict do nothing",
        (tenant.id, tenant.name, tenant.attested_consent, tenant.created_at),
    )


def _insert_key(tx: Connection, key: str, *, tenant_id: str, scopes: Sequence[Scope], created_at: str) -> None:
    tx.execute(
        """
        insert into api_keys (sha256, prefix, tenant_id, scopes, created_at) values (?, ?, ?, ?, ?)
        on conflict do nothing
        """,
        (digest(key), shown_prefix(key), tenant_id, json.dumps(list(scopes)), created_at),
    )


def _tenant(row: Row) -> Tenant:
    return Tenant(
        id=row["id"],
        name=row["name"],
        created_at=row["created_at"],
        attested_consent=bool(row["attested_consent"]),
    )
