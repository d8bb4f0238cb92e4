"""How long a tenant's audio, texts and messages are kept, and the chores of whoever is idle."""

from dataclasses import dataclass
from typing import Protocol

UNFINISHED_DAYS = 7
"""How long the chunks of a job that was not completed wait to be continued, whatever the tenant's retention is."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Days; None keeps for ever.

    audio_days    encoded audio, and what was recorded of unfinished jobs
    text_days     texts of jobs, results told again, alignments
    message_days  conversations
    """

    audio_days: int | None = None
    text_days: int | None = None
    message_days: int | None = None


@dataclass(frozen=True, slots=True)
class Purged:
    """What one purge has removed: objects of audio and alignments, chunks, the texts of requests, messages."""

    audio: int = 0
    chunks: int = 0
    texts: int = 0
    messages: int = 0
    is_done: bool = True
    """Nothing that has aged out is left."""


class Retentions(Protocol):
    async def get_retention(self, tenant_id: str) -> Retention:
        """raises  TenantNotFound"""

    async def set_retention(self, tenant_id: str, retention: Retention) -> None:
        """raises  TenantNotFound"""

    async def purge(self, *, limit: int) -> Purged:
        """Remove what has aged out since its request ended, of `limit` requests for each kind. The cache stays."""

    async def take_turn(self, chore: str, *, holder: str, for_s: float) -> bool:
        """Whether the chore is `holder`'s to do for the next `for_s` seconds: of all workers one at a time is told so.

        holder  new for each turn
        """
