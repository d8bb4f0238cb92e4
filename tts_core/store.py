"""The ports of everything the product remembers; `storage` implements them, `handler.main` chooses the body.

Every call is safe to repeat. Any of them raises StoreUnavailable when the backend does not answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tts_core.types import Language

Scope = Literal["synthesize", "voices", "usage", "admin"]
OutcomeStatus = Literal["success", "failed", "cancelled"]


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


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request asks of the store before anything is done for it.

    tenant_key   as the caller sent it
    identity     `idempotency_key` or the job's id; unique per tenant
    fingerprint  sha256 of what was asked, without key and identity
    """

    tenant_key: str
    scope: Scope
    identity: str
    fingerprint: str
    action: str
    input_chars: int = 0
    streaming: bool = False
    voice_id: str | None = None
    lease_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt at a request ended: closes the `requests` row and becomes its usage row.

    audio_seconds  what was spoken, also when the request failed later
    result         JSON text of the answer without audio, for success only
    audio_path     object path of the encoded audio, if it was kept
    """

    status: OutcomeStatus
    latency_ms: int
    audio_seconds: float = 0.0
    audio_bytes: int = 0
    voice_id: str | None = None
    error: str | None = None
    cached: bool = False
    result: str | None = None
    audio_path: str | None = None
    metadata: str = "{}"


@dataclass(frozen=True, slots=True)
class Reserved:
    """The row behind a request.

    fence    attempt number; the store ignores a settlement with an older one
    outcome  of this very request when it has already succeeded; nothing is left to do but to tell it again
    """

    tenant: Tenant
    request_id: str
    fence: int
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class VoiceRow:
    """A saved voice: its clips are objects of the tenant."""

    id: str
    tenant_id: str
    name: str
    description: str
    language: Language | None
    consent: str
    clip_paths: tuple[str, ...]
    report: str
    """JSON text: the ClipReport of each clip."""
    created_at: str


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One attempt at one request, whatever came of it."""

    tenant_id: str
    request_id: str
    fence: int
    action: str
    input_chars: int
    audio_seconds: float
    audio_bytes: int
    latency_ms: int
    streaming: bool
    voice_id: str | None
    status: OutcomeStatus | Literal["abandoned"]
    error: str | None
    cached: bool
    metadata: str
    created_at: str


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """expires_at: UTC, ISO 8601; None where the address does not expire (a file: URL)."""

    url: str
    expires_at: str | None


class Tenants(Protocol):
    async def create_tenant(self, name: str, *, scopes: Sequence[Scope]) -> NewKey:
        """A new tenant with one key."""

    async def list_tenants(self) -> Sequence[Tenant]: ...

    async def local_key(self) -> str:
        """The key of this machine's own profile, made at random on first use and kept with mode 0600.

        raises  NotSupported where the store is shared with other machines
        """


class Requests(Protocol):
    async def reserve(self, reservation: Reservation) -> Reserved:
        """Authenticate, check the scope, and write the `requests` row: the durable intent.

        The same identity again: the outcome, if it succeeded; a new attempt (fence + 1), if it failed, was
        cancelled, or its lease ran out (that attempt is settled as `abandoned`).

        raises  Unauthorized, Forbidden, IdempotencyConflict (other fingerprint), RequestRunning (lease alive)
        """

    async def renew(self, reserved: Reserved, *, lease_s: float) -> bool:
        """Extend the lease; False if a newer attempt has taken over."""

    async def settle(self, reserved: Reserved, outcome: Outcome) -> bool:
        """Close the attempt and insert its usage row in one transaction; False if it was already closed."""

    async def usage(self, tenant_id: str) -> Sequence[UsageRow]:
        """Every usage row of a tenant, oldest first."""


class Voices(Protocol):
    async def put_voice(self, voice: VoiceRow) -> None: ...

    async def get_voice(self, tenant_id: str, voice_id: str) -> VoiceRow:
        """raises VoiceNotFound"""

    async def list_voices(self, tenant_id: str) -> Sequence[VoiceRow]:
        """Newest first."""

    async def delete_voice(self, tenant_id: str, voice_id: str) -> None:
        """Row and clips. raises VoiceNotFound"""


class Objects(Protocol):
    """Paths are `bucket/tenant_id/name`; anything else is refused with ValueError."""

    async def put_object(self, path: str, data: bytes | Path, *, content_type: str) -> None:
        """Store bytes, or a copy of a file; an object of this name is replaced whole, never seen half."""

    async def get_object(self, path: str) -> bytes:
        """raises KeyError if there is none"""

    async def object_url(self, path: str) -> SignedUrl: ...

    async def delete_object(self, path: str) -> None:
        """No error if there is none."""


class Store(Tenants, Requests, Voices, Objects, Protocol):
    async def close(self) -> None: ...
