"""What every attempt at a request has used, and what that comes to by day."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tts_core.store.requests import OutcomeStatus

Grouping = Literal["day", "voice", "endpoint", "user"]


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
    user_id: str | None
    status: OutcomeStatus | Literal["abandoned"]
    error: str | None
    cached: bool
    metadata: str
    created_at: str


@dataclass(frozen=True, slots=True)
class UsageCounts:
    """What a number of usage rows come to; `requests` is the sum of the four ways they ended.

    cached      how many of them were answered from the cache
    latency_ms  of all of them together; the abandoned have none
    """

    requests: int = 0
    successes: int = 0
    failures: int = 0
    cancelled: int = 0
    abandoned: int = 0
    cached: int = 0
    input_chars: int = 0
    audio_seconds: float = 0.0
    audio_bytes: int = 0
    latency_ms: int = 0


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """first_day, last_day: of UTC, as in 2026-11-21, both counted; limit: groups that are told"""

    first_day: str
    last_day: str
    by: tuple[Grouping, ...] = ()
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """The rows that have these in common. None: there is no voice or user, or it was not asked for."""

    day: str | None
    action: str | None
    voice_id: str | None
    user_id: str | None
    counts: UsageCounts


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """totals    of all rows, those of groups that are left out too
    groups    by day, and within one those of most requests first
    left_out  how many more groups there are
    """

    totals: UsageCounts
    groups: tuple[UsageGroup, ...]
    left_out: int


class Usage(Protocol):
    async def usage(self, tenant_id: str) -> Sequence[UsageRow]:
        """Every usage row of a tenant, oldest first."""

    async def summarize_usage(self, tenant_id: str, query: UsageQuery) -> UsageSummary:
        """From counts by day that each settlement keeps: takes no longer, however many rows there are."""

    async def count_unsettled(self) -> int:
        """Settlements that wait on this machine for a store that did not answer."""
