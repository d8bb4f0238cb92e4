"""Tenants and their keys: each function is one transaction's work on the local store's connection."""

import json
from collections.abc import Sequence
from typing import get_args
from uuid import uuid4

from storage.database import Connection, Row
from storage.keys import digest, new_key, shown_prefix
from storage.schema import utc
from tts_core.errors import Forbidden, Unauthorized
from tts_core.store import NewKey, Scope, Tenant

LOCAL_TENANT = "local"
"""Id and name of the tenant that owns the local profile: the same in a new database, so its objects stay its own."""


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
