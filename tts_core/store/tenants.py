"""Who may ask, and for how much: tenants, their keys and their limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

Scope = Literal["synthesize", "voices", "personas", "cache", "usage", "admin"]
"""What a key may do. `admin` may do everything its tenant may, and manage that tenant's keys."""

Period = Literal["day", "month", "total"]
"""Over which a quota counts: a day or month of UTC, or all time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may use; None is no limit.

    requests_per_minute, _per_hour  token buckets, each as deep as its rate: full after a minute or an hour of rest
    quota_minutes                   of audio that is spoken (not of cached answers) in one `quota_period`
    """

    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    quota_minutes: float | None = None
    quota_period: Period = "month"


@dataclass(frozen=True, slots=True)
class Tenant:
    """is_operator: runs this installation. Its admin keys manage every tenant; it is never disabled or deleted."""

    id: str
    name: str
    created_at: str
    """UTC, ISO 8601, like every time in a row."""
    attested_consent: bool = False
    """The tenant stated once that it has consent for every clip it sends."""
    limits: Limits = Limits()
    disabled_at: str | None = None
    is_operator: bool = False
    cache_epoch: int = 0
    """Grows whenever cached entries that the tenant could hear are retired or replaced."""


class TenantChange(TypedDict, total=False):
    """What of a tenant is to be otherwise; what is absent stays."""

    name: str
    attested_consent: bool
    requests_per_minute: int | None
    requests_per_hour: int | None
    quota_minutes: float | None
    quota_period: Period
    disabled: bool


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key: all but its secret. prefix: unique among the tenant's keys"""

    prefix: str
    scopes: tuple[Scope, ...]
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = None
    """Written at most once a minute."""

    def is_valid(self, now: str) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `secret` is shown once: the store keeps only its sha256."""

    tenant: Tenant
    secret: str
    key: Key


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands in the period that is running.

    used_s      seconds of audio charged; may be more than the quota: speech is charged even where it overshoots
    held_s      seconds that requests now running may yet use, as estimated when they were reserved
    started_at  of the period; resets_at: when the next one starts; both None for `total`
    """

    used_s: float
    held_s: float
    started_at: str | None
    resets_at: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was removed with a tenant: rows by table, objects of all buckets."""

    tenant_id: str
    deleted_at: str
    rows: dict[str, int]
    objects: int


class Tenants(Protocol):
    async def create_tenant(
        self,
        name: str,
        *,
        scopes: Sequence[Scope],
        limits: Limits = Limits(),
        attested_consent: bool = False,
        tenant_id: str | None = None,
    ) -> NewKey:
        """A new tenant with one key.

        tenant_id  chosen by the caller, so that a repeated call makes no second tenant: it replaces the key
        """

    async def list_tenants(self) -> Sequence[Tenant]:
        """Oldest first."""

    async def get_tenant(self, tenant_id: str) -> Tenant:
        """raises TenantNotFound"""

    async def update_tenant(self, tenant_id: str, change: TenantChange) -> Tenant:
        """What changes holds from the next request on. raises TenantNotFound; Forbidden to disable the operator"""

    async def delete_tenant(self, tenant_id: str) -> Receipt:
        """Disable the tenant, then remove its objects and every row of it; again: the same receipt.

        raises  TenantNotFound; Forbidden to delete the operator; RequestRunning while requests of it still run
        """

    async def list_keys(self, tenant_id: str) -> Sequence[Key]:
        """Of all times, oldest first. raises TenantNotFound"""

    async def create_key(
        self, tenant_id: str, *, scopes: Sequence[Scope], expires_at: str | None = None, made_by: str | None = None
    ) -> NewKey:
        """made_by: id of the request that asks for it; asked again, the key of the first time is replaced by this one

        raises  TenantNotFound
        """

    async def rotate_key(
        self, tenant_id: str, prefix: str | None, *, overlap_s: float, made_by: str | None = None
    ) -> NewKey:
        """A new key of the same scopes; the old one is valid for another `overlap_s` at most.

        prefix   of the old one; None: the only one that is valid
        made_by  as in `create_key`
        raises   TenantNotFound; KeyNotFound if the tenant has no such valid key; InvalidInput if it has several
        """

    async def revoke_key(self, tenant_id: str, prefix: str) -> Key:
        """raises  TenantNotFound, KeyNotFound"""

    async def standing(self, tenant_id: str) -> Standing:
        """raises  TenantNotFound"""

    async def local_key(self) -> str:
        """The key of this machine's own profile, made at random on first use and kept with mode 0600.

        raises  NotSupported where the store is shared with other machines
        """
