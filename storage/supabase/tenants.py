"""Tenants and their keys, in Supabase."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any
from uuid import uuid4

from storage.keys import digest, new_key, shown_prefix
from storage.paths import BUCKETS, checked_tenant
from storage.supabase.area import SupabaseArea, columns_of, row_of
from tts_core.errors import NotSupported, RequestRunning, TenantNotFound
from tts_core.store import Key, Limits, NewKey, Receipt, Scope, Standing, Tenant, TenantChange

_COLUMNS = ",".join([f.name for f in fields(Tenant) if f.name != "limits"] + [f.name for f in fields(Limits)])


class SupabaseTenants(SupabaseArea):
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
        tenant_id = tenant_id or uuid4().hex
        what = {"id": tenant_id, "name": name, "attested_consent": attested_consent, "scopes": list(scopes)}
        return await self._made_key("create_tenant", made_by=tenant_id, **what, **asdict(limits))

    async def list_tenants(self) -> Sequence[Tenant]:
        rows = await self._project.rows("tenants", columns=_COLUMNS, where={}, order=["created_at", "id"])
        return tuple(map(tenant_of, rows))

    async def get_tenant(self, tenant_id: str) -> Tenant:
        rows = await self._project.rows("tenants", columns=_COLUMNS, where={"id": tenant_id}, order=["id"], limit=1)
        if not rows:
            raise TenantNotFound(f"no tenant {tenant_id!r}")
        return tenant_of(rows[0])

    async def update_tenant(self, tenant_id: str, change: TenantChange) -> Tenant:
        return tenant_of(await self._call("update_tenant", dict, id=tenant_id, change=change))

    async def delete_tenant(self, tenant_id: str) -> Receipt:
        closed = await self._call("close_tenant", dict, tenant_id=tenant_id)
        if closed.get("receipt"):
            return row_of(Receipt, closed["receipt"])
        if closed["is_running"]:
            raise RequestRunning("the tenant is disabled, but requests of it still run; delete it when they have ended")
        # Objects go first: as long as the tenant is there, whoever failed half way can be told to go on.
        objects = sum([await self._project.remove_below(bucket, checked_tenant(tenant_id)) for bucket in BUCKETS])
        return row_of(Receipt, await self._call("delete_tenant", dict, tenant_id=tenant_id, objects=objects))

    async def list_keys(self, tenant_id: str) -> Sequence[Key]:
        await self.get_tenant(tenant_id)
        where, order = {"tenant_id": tenant_id}, ["created_at", "prefix"]
        rows = await self._project.rows("api_keys", columns=columns_of(Key), where=where, order=order)
        return tuple(row_of(Key, row) for row in rows)

    async def create_key(
        self, tenant_id: str, *, scopes: Sequence[Scope], expires_at: str | None = None, made_by: str | None = None
    ) -> NewKey:
        what = {"tenant_id": tenant_id, "scopes": list(scopes), "expires_at": expires_at}
        return await self._made_key("create_key", made_by=made_by, **what)

    async def rotate_key(
        self, tenant_id: str, prefix: str | None, *, overlap_s: float, made_by: str | None = None
    ) -> NewKey:
        what = {"tenant_id": tenant_id, "prefix": prefix, "overlap_s": overlap_s}
        return await self._made_key("rotate_key", made_by=made_by, **what)

    async def revoke_key(self, tenant_id: str, prefix: str) -> Key:
        return row_of(Key, await self._call("revoke_key", dict, tenant_id=tenant_id, prefix=prefix))

    async def standing(self, tenant_id: str) -> Standing:
        return row_of(Standing, await self._call("tenant_standing", dict, tenant_id=tenant_id))

    async def local_key(self) -> str:
        raise NotSupported("this store is shared with other machines: send a tenant_key (tenants create makes one)")

    async def _made_key(self, function: str, *, made_by: str | None, **what: Any) -> NewKey:
        """Have a function make a key: it gets the hash of one that is made here, and may be asked twice."""
        key = new_key()
        answer = await self._call(
            function,
            dict,
            key_sha256=digest(key).hex(),
            key_prefix=shown_prefix(key),
            made_by=made_by or uuid4().hex,
            **what,
        )
        return NewKey(tenant_of(answer["tenant"]), key, row_of(Key, answer["key"]))


def tenant_of(row: Mapping[str, Any]) -> Tenant:
    """From a row of `tenants`, which has the limits beside the rest."""
    return row_of(Tenant, {**row, "limits": row_of(Limits, row)})
