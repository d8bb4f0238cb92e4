"""Tenants' keys, in the local store: each function is one transaction's work on its connection."""

import json
from collections.abc import Sequence

from storage.keys import digest, new_key, shown_prefix
from storage.local.database import Connection, Row
from storage.local.schema import utc
from tts_core.errors import InvalidInput, KeyNotFound
from tts_core.store import Key, NewKey, Scope, Tenant

LAST_USE_NOTED_S = 60.0
"""A key's last use is written again only when the one that is written is older: most requests write nothing."""


def add_key(
    tx: Connection,
    tenant: Tenant,
    *,
    scopes: Sequence[Scope],
    now_s: float,
    expires_at: str | None = None,
    made_by: str | None = None,
    replaces: str | None = None,
) -> NewKey:
    """A key that takes the place of the one that an earlier attempt of `made_by` has made, and nobody was told.

    replaces  prefix of the one it was made for
    """
    secret = new_key()
    key = Key(shown_prefix(secret), tuple(scopes), created_at=utc(now_s), expires_at=expires_at)
    tx.execute("delete from api_keys where tenant_id = ? and made_by = ?", (tenant.id, made_by))
    insert_key(tx, secret, tenant_id=tenant.id, key=key)
    tx.execute("update api_keys set made_by = ?, replaces = ? where sha256 = ?", (made_by, replaces, digest(secret)))
    return NewKey(tenant, secret, key)


def insert_key(tx: Connection, secret: str, *, tenant_id: str, key: Key) -> None:
    """Nothing, if the key is there already."""
    tx.execute(
        """
        insert into api_keys (sha256, prefix, tenant_id, scopes, created_at, expires_at)
        values (?, ?, ?, ?, ?, ?) on conflict (sha256) do nothing
        """,
        (digest(secret), key.prefix, tenant_id, json.dumps(key.scopes), key.created_at, key.expires_at),
    )


def list_keys(tx: Connection, tenant_id: str) -> Sequence[Key]:
    rows = tx.execute("select * from api_keys where tenant_id = ? order by created_at, prefix", (tenant_id,))
    return tuple(map(_key, rows))


def get_key(tx: Connection, tenant_id: str, prefix: str) -> Key:
    """raises KeyNotFound"""
    row = tx.execute("select * from api_keys where tenant_id = ? and prefix = ?", (tenant_id, prefix)).fetchone()
    if row is None:
        raise KeyNotFound(f"this tenant has no key {prefix!r}")
    return _key(row)


def rotate_key(
    tx: Connection, tenant: Tenant, prefix: str | None, *, overlap_s: float, made_by: str | None, now_s: float
) -> NewKey:
    # The key that an earlier attempt of the same request has replaced is still meant, valid or not.
    replaced = tx.execute(
        "select replaces from api_keys where tenant_id = ? and made_by = ?", (tenant.id, made_by)
    ).fetchone()
    if replaced is not None:
        prefix = str(replaced["replaces"])
    elif prefix is None:
        prefix = _only_valid(list_keys(tx, tenant.id), utc(now_s))
    old = get_key(tx, tenant.id, prefix)
    if replaced is None and not old.is_valid(utc(now_s)):
        raise KeyNotFound(f"the key {prefix!r} is no longer valid")
    ends_at = utc(now_s + overlap_s)
    tx.execute(
        "update api_keys set expires_at = min(coalesce(expires_at, :ends_at), :ends_at) "
        "where tenant_id = :tenant_id and prefix = :prefix",
        {"ends_at": ends_at, "tenant_id": tenant.id, "prefix": prefix},
    )
    return add_key(tx, tenant, scopes=old.scopes, made_by=made_by, replaces=prefix, now_s=now_s)


def revoke_key(tx: Connection, tenant_id: str, prefix: str, *, now_s: float) -> Key:
    """A key that was revoked before stays as it is."""
    get_key(tx, tenant_id, prefix)
    tx.execute(
        "update api_keys set revoked_at = coalesce(revoked_at, ?) where tenant_id = ? and prefix = ?",
        (utc(now_s), tenant_id, prefix),
    )
    return get_key(tx, tenant_id, prefix)


def note_use(tx: Connection, sha256: bytes, *, now_s: float) -> None:
    tx.execute(
        "update api_keys set last_used_at = ? where sha256 = ? and (last_used_at is null or last_used_at <= ?)",
        (utc(now_s), sha256, utc(now_s - LAST_USE_NOTED_S)),
    )


def _only_valid(keys: Sequence[Key], now: str) -> str:
    valid = [key.prefix for key in keys if key.is_valid(now)]
    if not valid:
        raise KeyNotFound("this tenant has no valid key")
    if len(valid) > 1:
        raise InvalidInput(f"prefix: say which of this tenant's valid keys: {', '.join(valid)}")
    return valid[0]


def _key(row: Row) -> Key:
    return Key(
        prefix=row["prefix"],
        scopes=tuple(json.loads(row["scopes"])),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )
