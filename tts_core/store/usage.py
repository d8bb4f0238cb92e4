"""What every attempt at a request has used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tts_core.store.requests import OutcomeStatus


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


class Usage(Protocol):
    async def usage(self, tenant_id: str) -> Sequence[UsageRow]:
        """Every usage row of a tenant, oldest first."""
