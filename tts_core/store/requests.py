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
    holder       a random token of whoever will work on it: asked again with the same (the answer may have been lost),
                 the attempt is the same; None: nobody will ask again
    estimate_s   seconds of audio it may become, held from the tenant's quota; 0 asks for nothing of it
    """

    tenant_key: str
    scope: Scope
    identity: str
    fingerprint: str
    action: str
    input_chars: int = 0
    estimate_s: float = 0.0
    streaming: bool = False
    voice_id: str | None = None
    lease_s: float = 30.0
    holder: str | None = None

    @property
    def idempotency_key(self) -> str:
        """With which the same tenant names this request from another job."""
        return self.identity.removeprefix("key:")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt at a request ended: closes the `requests` row and becomes its usage row.

    audio_seconds  what was spoken, also when the request failed later
    user_id        on whose behalf: one of the tenant's users
    result         JSON text of the answer without audio, for success only
    audio_path     object path of the encoded audio, if it was kept
    """

    status: OutcomeStatus
    latency_ms: int
    audio_seconds: float = 0.0
    audio_bytes: int = 0
    voice_id: str | None = None
    user_id: str | None = None
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
    left_s   seconds of the tenant's quota that this request may use, its own estimate included; None: unlimited
    """

    tenant: Tenant
    request_id: str
    fence: int
    outcome: Outcome | None = None
    left_s: float | None = None


class Requests(Protocol):
    async def reserve(self, reservation: Reservation) -> Reserved:
        """Authenticate, check the scope, take from the rates, hold the estimate, and write the `requests` row.

        What is told again costs nothing. A new attempt takes one request from each rate, save the one that takes over
        from a worker that died, and holds its estimate until it is settled or its lease runs out.

        The same identity again: the outcome, if it succeeded; a new attempt (fence + 1), if it failed, was
        cancelled, or its lease ran out (that attempt is settled as `abandoned`).

        raises  Unauthorized, Forbidden, IdempotencyConflict (other fingerprint), RequestRunning (lease alive),
                RateLimited, QuotaExceeded
        """

    async def renew(self, reserved: Reserved, *, lease_s: float) -> bool:
        """Extend the lease; False if a newer attempt has taken over."""

    async def settle(self, reserved: Reserved, outcome: Outcome) -> bool:
        """Close the attempt and insert its usage row, which counts by day, in one transaction.

        True also if this attempt had ended so before: the first answer may have been lost. False if it ended otherwise.
        One that was given up as abandoned has ended as it says now, unless another attempt has followed it.
        """
