"""The wire of `tenants.*`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, Field, model_validator

from tts_core.jobs.base import Request
from tts_core.jobs.fields import Name, RowId
from tts_core.store import Limits, Period, Scope, TenantChange

DEFAULT_SCOPES: tuple[Scope, ...] = ("synthesize", "voices", "personas", "cache", "usage")
"""Of a key whose scopes nobody named: all but `admin`."""

MAX_OVERLAP_HOURS = 24 * 90


def _each_once(scopes: list[Scope]) -> list[Scope]:
    return list(dict.fromkeys(scopes))


def _moment(value: str) -> str:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("must say its offset from UTC, as in 2027-01-31T12:00:00Z")
    try:
        return moment.astimezone(UTC).isoformat(timespec="microseconds")
    except OverflowError as exc:
        raise ValueError("lies outside the years 1 to 9999") from exc


def _true(value: bool) -> bool:
    if not value:
        raise ValueError("must be true")
    return value


Scopes = Annotated[list[Scope], Field(min_length=1), AfterValidator(_each_once)]
Moment = Annotated[str, Field(max_length=40), AfterValidator(_moment)]
"""ISO 8601, kept as rows are dated."""
Rate = Annotated[int, Field(ge=1, le=1_000_000)]
Minutes = Annotated[float, Field(ge=0, le=1e9)]


class WithLimits(Request):
    """Null is no limit."""

    scope = "admin"

    attested_consent: bool = False
    requests_per_minute: Rate | None = None
    requests_per_hour: Rate | None = None
    quota_minutes: Minutes | None = None
    quota_period: Period = "month"


class OfTenant(Request):
    """About the tenant that is named, or the key's own."""

    scope = "admin"

    tenant_id: RowId | None = None


class TenantsCreate(WithLimits):
    """A tenant with one key, which is told this once."""

    action: Literal["tenants.create"]
    name: Name
    scopes: Scopes = Field(default_factory=lambda: list(DEFAULT_SCOPES))

    @property
    def limits(self) -> Limits:
        return Limits(self.requests_per_minute, self.requests_per_hour, self.quota_minutes, self.quota_period)


class TenantsList(Request):
    scope = "admin"
    answer_is_kept = False

    action: Literal["tenants.list"]


class TenantsGet(OfTenant):
    """The tenant, its keys without their secrets, and how it stands in its period."""

    answer_is_kept = False

    action: Literal["tenants.get"]


class TenantsUpdate(WithLimits):
    """Change what is named; the rest stays. It holds from the next request on."""

    action: Literal["tenants.update"]
    tenant_id: RowId
    name: Name = ""
    disabled: bool = False

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.change:
            raise ValueError(f"name what is to change: {', '.join(TenantChange.__annotations__)}")
        return self

    @property
    def change(self) -> TenantChange:
        named = {name: getattr(self, name) for name in TenantChange.__annotations__ if name in self.model_fields_set}
        return cast(TenantChange, named)

    def _asked(self) -> dict[str, object]:
        # What is absent stays, so it is not the same as what has its default.
        return super()._asked() | {"change": dict(self.change)}


class TenantsDisable(Request):
    """Its keys answer `forbidden` until `tenants.update` with `"disabled": false`."""

    scope = "admin"

    action: Literal["tenants.disable"]
    tenant_id: RowId


class TenantsDelete(Request):
    """Remove the tenant and everything of it, for ever."""

    scope = "admin"

    action: Literal["tenants.delete"]
    tenant_id: RowId
    confirm: Annotated[bool, AfterValidator(_true)]


class TenantsCreateKey(OfTenant):
    """One more key, which is told this once."""

    action: Literal["tenants.create_key"]
    scopes: Scopes = Field(default_factory=lambda: list(DEFAULT_SCOPES))
    expires_at: Moment | None = None


class TenantsRotateKey(OfTenant):
    """A new key with the scopes of an old one, which stays valid for `overlap_hours`."""

    action: Literal["tenants.rotate_key"]
    prefix: RowId | None = None
    """Of the old one; null: the only one that is valid."""
    overlap_hours: float = Field(default=24.0, ge=0, le=MAX_OVERLAP_HOURS)


class TenantsRevokeKey(OfTenant):
    """A key that is refused from now on."""

    action: Literal["tenants.revoke_key"]
    prefix: RowId


ACTIONS: Mapping[str, type[Request]] = {
    "tenants.create": TenantsCreate,
    "tenants.list": TenantsList,
    "tenants.get": TenantsGet,
    "tenants.update": TenantsUpdate,
    "tenants.disable": TenantsDisable,
    "tenants.delete": TenantsDelete,
    "tenants.create_key": TenantsCreateKey,
    "tenants.rotate_key": TenantsRotateKey,
    "tenants.revoke_key": TenantsRevokeKey,
}
