"""Who may ask: tenants and their keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Scope = Literal["synthesize", "voices", "usage", "admin"]


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    name: str
    created_at: str
    """UTC, ISO 8601, like every time in a row."""
    attested_consent: bool = False
    """The tenant stated once that it has consent for every clip it sends."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `secret` is shown once: the store keeps only its sha256."""

    tenant: Tenant
    secret: str


class Tenants(Protocol):
    async def create_tenant(self, name: str, *, scopes: Sequence[Scope]) -> NewKey:
        """A new tenant with one key."""

    async def list_tenants(self) -> Sequence[Tenant]: ...

    async def local_key(self) -> str:
        """The key of this machine's own profile, made at random on first use and kept with mode 0600.

        raises  NotSupported where the store is shared with other machines
        """
