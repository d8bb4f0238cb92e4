"""What was asked, by whom, and how it ended."""

from dataclasses import dataclass
from typing import Literal, Protocol

from tts_core.store.tenants import Scope, Tenant

OutcomeStatus = Literal["success", "failed", "cancelled"]


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
