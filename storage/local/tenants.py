"""Tenants, in the local store: each function is one transaction's work on its connection."""

import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import get_args
from uuid import uuid4

from storage.keys import digest, is_key, new_key, shown_prefix
from storage.local import api_keys, deletion, limits
from storage.local.area import LocalArea
from storage.local.database import Connection, Row
from storage.local.files import write_whole
from storage.local.schema import Migration, utc
from tts_core.errors import Forbidden, StartupError, TenantNotFound, Unauthorized
from tts_core.store import Key, Limits, NewKey, Receipt, Scope, Standing, Tenant, TenantChange

LOCAL_TENANT = "local"
"""Id and name of the tenant that owns the local profile: the same in a new database, so its objects stay its own."""

OPERATOR = "operator"
"""Id and name of the tenant of whoever holds the bootstrap key."""

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

    async def create_tenant(
        self,
        name: str,
        *,
        scopes: Sequence[Scope],
        limits: Limits = Limits(),  # noqa: B008  frozen
        attested_consent: bool = False,
        tenant_id: str | None = None,
    ) -> NewKey:
        now = utc(self._clock())
        tenant = Tenant(tenant_id or uuid4().hex, name, now, attested_consent=attested_consent, limits=limits)
        return await self._database.write(lambda tx: create_tenant(tx, tenant, scopes=scopes, now_s=self._clock()))

    async def list_tenants(self) -> Sequence[Tenant]:
        return await self._database.read(list_tenants)

    async def get_tenant(self, tenant_id: str) -> Tenant:
        return await self._database.read(lambda tx: get_tenant(tx, tenant_id))

    async def update_tenant(self, tenant_id: str, change: TenantChange) -> Tenant:
        return await self._database.write(lambda tx: update_tenant(tx, tenant_id, change, now_s=self._clock()))

    async def delete_tenant(self, tenant_id: str) -> Receipt:
        if receipt := await self._database.read(lambda tx: deletion.find_receipt(tx, tenant_id)):
            return receipt
        await self._database.write(lambda tx: close_tenant(tx, tenant_id, now_s=self._clock()))
        await self._database.read(lambda tx: deletion.refuse_while_running(tx, tenant_id, now_s=self._clock()))
        # Objects go first: as long as the tenant is there, whoever failed half way can be told to go on.
        objects = await asyncio.to_thread(self._objects.delete_all, tenant_id)
        return await self._database.write(
            lambda tx: deletion.delete_tenant(tx, tenant_id, objects=objects, now_s=self._clock())
        )

    async def list_keys(self, tenant_id: str) -> Sequence[Key]:
        await self.get_tenant(tenant_id)
        return await self._database.read(lambda tx: api_keys.list_keys(tx, tenant_id))

    async def create_key(
        self, tenant_id: str, *, scopes: Sequence[Scope], expires_at: str | None = None, made_by: str | None = None
    ) -> NewKey:
        def create(tx: Connection) -> NewKey:
            tenant, now_s = get_tenant(tx, tenant_id), self._clock()
            return api_keys.add_key(tx, tenant, scopes=scopes, expires_at=expires_at, made_by=made_by, now_s=now_s)

        return await self._database.write(create)

    async def rotate_key(
        self, tenant_id: str, prefix: str | None, *, overlap_s: float, made_by: str | None = None
    ) -> NewKey:
        def rotate(tx: Connection) -> NewKey:
            tenant, now_s = get_tenant(tx, tenant_id), self._clock()
            return api_keys.rotate_key(tx, tenant, prefix, overlap_s=overlap_s, made_by=made_by, now_s=now_s)

        return await self._database.write(rotate)

    async def revoke_key(self, tenant_id: str, prefix: str) -> Key:
        def revoke(tx: Connection) -> Key:
            get_tenant(tx, tenant_id)
            return api_keys.revoke_key(tx, tenant_id, prefix, now_s=self._clock())

        return await self._database.write(revoke)

    async def standing(self, tenant_id: str) -> Standing:
        return await self._database.read(lambda tx: limits.standing(tx, get_tenant(tx, tenant_id), now_s=self._clock()))

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


def authenticate(tx: Connection, key: str, *, scope: Scope, operator_key: bytes | None, now_s: float) -> Tenant:
    """Whose key it is. raises Unauthorized, in the same words for every kind of bad key; Forbidden

    operator_key  sha256 of the key that is the operator's without being in any table
    """
    sha256 = digest(key)
    if sha256 == operator_key:
        return _operator(tx, now_s=now_s)
    row = tx.execute(
        """
        select tenants.*, api_keys.scopes from api_keys join tenants on tenants.id = api_keys.tenant_id
        where sha256 = ? and revoked_at is null and (expires_at is null or expires_at > ?)
        """,
        (sha256, utc(now_s)),
    ).fetchone()
    if row is None:
        raise Unauthorized("tenant_key is missing, unknown, or no longer valid")
    if row["disabled_at"] is not None:
        raise Forbidden("this tenant is disabled; whoever runs this installation can enable it again")
    if not {scope, "admin"} & set(json.loads(row["scopes"])):
        raise Forbidden(f"this key lacks the scope {scope!r}")
    api_keys.note_use(tx, sha256, now_s=now_s)
    return _tenant(row)


def create_tenant(tx: Connection, tenant: Tenant, *, scopes: Sequence[Scope], now_s: float) -> NewKey:
    _insert_tenant(tx, tenant)
    tenant = get_tenant(tx, tenant.id)
    return api_keys.add_key(tx, tenant, scopes=scopes, made_by=tenant.id, now_s=now_s)


def list_tenants(tx: Connection) -> Sequence[Tenant]:
    return tuple(map(_tenant, tx.execute("select * from tenants order by created_at, id")))


def get_tenant(tx: Connection, tenant_id: str) -> Tenant:
    """raises TenantNotFound"""
    row = tx.execute("select * from tenants where id = ?", (tenant_id,)).fetchone()
    if row is None:
        raise TenantNotFound(f"no tenant {tenant_id!r}")
    return _tenant(row)


def update_tenant(tx: Connection, tenant_id: str, change: TenantChange, *, now_s: float) -> Tenant:
    tenant = get_tenant(tx, tenant_id)
    columns = _columns(tenant) | {name: value for name, value in change.items() if name != "disabled"}
    if "disabled" in change:
        columns["disabled_at"] = (tenant.disabled_at or utc(now_s)) if change["disabled"] else None
    if tenant.is_operator and columns["disabled_at"]:
        raise Forbidden("the tenant of the operator cannot be disabled")
    assert columns.keys() == _columns(tenant).keys()
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    tx.execute(f"update tenants set {assignments} where id = :id", columns)  # noqa: S608  our own names
    return get_tenant(tx, tenant_id)


def close_tenant(tx: Connection, tenant_id: str, *, now_s: float) -> None:
    """Let no request of it begin any more."""
    if get_tenant(tx, tenant_id).is_operator:
        raise Forbidden("the tenant of the operator cannot be deleted")
    update_tenant(tx, tenant_id, {"disabled": True}, now_s=now_s)


def register_local_key(tx: Connection, key: str, *, now_s: float) -> None:
    """Make `key` the one key of the local tenant: whoever deletes the file has its old key revoked by the new."""
    now = utc(now_s)
    _insert_tenant(tx, Tenant(LOCAL_TENANT, LOCAL_TENANT, created_at=now, is_operator=True))
    row = Key(shown_prefix(key), get_args(Scope), created_at=now)
    api_keys.insert_key(tx, key, tenant_id=LOCAL_TENANT, key=row)
    tx.execute(
        "update api_keys set revoked_at = iif(sha256 = ?, null, coalesce(revoked_at, ?)) where tenant_id = ?",
        (digest(key), now, LOCAL_TENANT),
    )


def _operator(tx: Connection, *, now_s: float) -> Tenant:
    _insert_tenant(tx, Tenant(OPERATOR, OPERATOR, created_at=utc(now_s), is_operator=True))
    return get_tenant(tx, OPERATOR)


def _insert_tenant(tx: Connection, tenant: Tenant) -> None:
    """Nothing, if there is one of this id."""
    columns = _columns(tenant)
    names, values = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    tx.execute(f"insert into tenants ({names}) values ({values}) on conflict do nothing", columns)  # noqa: S608


def _columns(tenant: Tenant) -> dict[str, object]:
    columns: dict[str, object] = asdict(tenant) | asdict(tenant.limits)
    del columns["limits"]
    return columns


def _tenant(row: Row) -> Tenant:
    return Tenant(
        id=row["id"],
        name=row["name"],
        created_at=row["created_at"],
        attested_consent=bool(row["attested_consent"]),
        limits=Limits(**{field.name: row[field.name] for field in fields(Limits)}),
        disabled_at=row["disabled_at"],
        is_operator=bool(row["is_operator"]),
        cache_epoch=row["cache_epoch"],
    )
