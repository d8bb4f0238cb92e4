"""Who may ask, and for how much: what the service does with `tenants.*` requests.

An admin key of the operator manages every tenant. One of another tenant manages that tenant's keys, and to it any
other tenant is as unknown as one that does not exist.
"""

from collections.abc import Mapping
from dataclasses import asdict

from tts_core.errors import Forbidden, TenantNotFound
from tts_core.jobs import (
    JsonObject,
    Request,
    TenantsCreate,
    TenantsCreateKey,
    TenantsDelete,
    TenantsDisable,
    TenantsGet,
    TenantsList,
    TenantsRevokeKey,
    TenantsRotateKey,
    TenantsUpdate,
)
from tts_core.service.actions import Action
from tts_core.service.attempt import Attempt
from tts_core.service.cache import Cache
from tts_core.store import Key, NewKey, Receipt, Standing, Store, Tenant

HOUR_S = 3600.0


class TenantRegistry:
    def __init__(self, store: Store, cache: Cache) -> None:
        self._store = store
        self._cache = cache

    def actions(self) -> Mapping[type[Request], Action]:
        return {
            TenantsCreate: self.create,
            TenantsList: self.list,
            TenantsGet: self.get,
            TenantsUpdate: self.update,
            TenantsDisable: self.disable,
            TenantsDelete: self.delete,
            TenantsCreateKey: self.create_key,
            TenantsRotateKey: self.rotate_key,
            TenantsRevokeKey: self.revoke_key,
        }

    async def create(self, request: TenantsCreate, attempt: Attempt) -> JsonObject:
        """The tenant has the request's id, so that a second attempt makes no second one."""
        _require_operator(attempt)
        made = await self._store.create_tenant(
            request.name,
            scopes=request.scopes,
            limits=request.limits,
            attested_consent=request.attested_consent,
            tenant_id=attempt.reserved.request_id,
        )
        return told_new_key(made)

    async def list(self, request: TenantsList, attempt: Attempt) -> JsonObject:
        _require_operator(attempt)
        tenants = [told_tenant(tenant) for tenant in await self._store.list_tenants()]
        return {"tenants": tenants, "count": len(tenants)}

    async def get(self, request: TenantsGet, attempt: Attempt) -> JsonObject:
        tenant = await self._store.get_tenant(_whose(request.tenant_id, attempt))
        keys = await self._store.list_keys(tenant.id)
        quota = _told_quota(tenant, await self._store.standing(tenant.id))
        return {"tenant": told_tenant(tenant), "keys": [_told_key(key) for key in keys], "quota": quota}

    async def update(self, request: TenantsUpdate, attempt: Attempt) -> JsonObject:
        _require_operator(attempt)
        return {"tenant": told_tenant(await self._store.update_tenant(request.tenant_id, request.change))}

    async def disable(self, request: TenantsDisable, attempt: Attempt) -> JsonObject:
        _require_operator(attempt)
        return {"tenant": told_tenant(await self._store.update_tenant(request.tenant_id, {"disabled": True}))}

    async def delete(self, request: TenantsDelete, attempt: Attempt) -> JsonObject:
        _require_operator(attempt)
        receipt = await self._store.delete_tenant(request.tenant_id)
        await self._cache.drop_copies(request.tenant_id)
        return {"receipt": told_receipt(receipt)}

    async def create_key(self, request: TenantsCreateKey, attempt: Attempt) -> JsonObject:
        made = await self._store.create_key(
            _whose(request.tenant_id, attempt),
            scopes=request.scopes,
            expires_at=request.expires_at,
            made_by=attempt.reserved.request_id,
        )
        return told_new_key(made)

    async def rotate_key(self, request: TenantsRotateKey, attempt: Attempt) -> JsonObject:
        made = await self._store.rotate_key(
            _whose(request.tenant_id, attempt),
            request.prefix,
            overlap_s=request.overlap_hours * HOUR_S,
            made_by=attempt.reserved.request_id,
        )
        return told_new_key(made)

    async def revoke_key(self, request: TenantsRevokeKey, attempt: Attempt) -> JsonObject:
        return {"key": _told_key(await self._store.revoke_key(_whose(request.tenant_id, attempt), request.prefix))}


def told_tenant(tenant: Tenant) -> JsonObject:
    told = asdict(tenant)
    del told["cache_epoch"]  # the cache's own
    return told


def told_new_key(made: NewKey) -> JsonObject:
    """`tenant_key` is the secret; it is left out of what is kept of the answer."""
    return {"tenant": told_tenant(made.tenant), "tenant_key": made.secret, "key": _told_key(made.key)}


def told_receipt(receipt: Receipt) -> JsonObject:
    return asdict(receipt)


def _told_key(key: Key) -> JsonObject:
    return asdict(key) | {"scopes": list(key.scopes)}


def _told_quota(tenant: Tenant, standing: Standing) -> JsonObject:
    minutes = tenant.limits.quota_minutes
    left_s = None if minutes is None else round(minutes * 60 - standing.used_s - standing.held_s, 3)
    return {"minutes": minutes, "period": tenant.limits.quota_period, "left_s": left_s} | asdict(standing)


def _require_operator(attempt: Attempt) -> None:
    if not attempt.reserved.tenant.is_operator:
        raise Forbidden("only the operator of this installation manages tenants; your key manages your own keys")


def _whose(tenant_id: str | None, attempt: Attempt) -> str:
    """raises  TenantNotFound for another tenant's, unless the operator asks"""
    own = attempt.reserved.tenant
    if tenant_id in (None, own.id):
        return own.id
    if not own.is_operator:
        raise TenantNotFound(f"no tenant {tenant_id!r}")
    return str(tenant_id)
