"""The permanent cache: what was spoken once, kept under what it was made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SHARED = "shared"
"""The pool of takes by built-in voices that every tenant hears and only the operator fills; no tenant has this id."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A take that was kept: a row, and an object of bucket `tts-cache`.

    pool             whose it is: a tenant's id, or SHARED
    content_hash     sha256 of the resolved request: whatever can change a sample of it changes this
    content_type     what kind of text it is, in the caller's words ("narrative", "question"); "speech" if not said
    voice            id of the voice, None for clips that came with the request
    audio_path       of the object, which is there before its row is
    audio_file_size  bytes of it
    details          JSON text: what a result tells of the take besides
    """

    pool: str
    content_hash: str
    content_type: str
    content_text: str
    voice: str | None
    audio_path: str
    audio_file_size: int
    audio_seconds: float
    details: str
    created_at: str


@dataclass(frozen=True, slots=True)
class CachePick:
    """Which entries of a pool are meant; a filter that is None lets all pass."""

    voice: str | None = None
    content_type: str | None = None
    content_hash: str | None = None
    created_before: str | None = None


@dataclass(frozen=True, slots=True)
class CacheCount:
    """How often a tenant was answered from an entry on a day (UTC, `2026-11-21`), or missed one.

    audio_seconds  that did not have to be spoken
    """

    tenant_id: str
    pool: str
    content_hash: str
    day: str
    hits: int = 0
    misses: int = 0
    audio_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """Entries of one kind of text in one voice."""

    content_type: str
    voice: str | None
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CacheTotals:
    """What a tenant's cache holds and has saved.

    shared_entries, _bytes  of the pool that all tenants share
    groups                  of the tenant's own entries, the largest first, 100 at most
    """

    entries: int
    bytes: int
    shared_entries: int
    shared_bytes: int
    hits: int
    misses: int
    audio_seconds_saved: float
    groups: tuple[CacheGroup, ...]


class CacheEntries(Protocol):
    """A tenant's `cache_epoch` grows whenever an entry it could hear is retired or replaced: whoever holds copies
    of entries asks again then. `reserve` tells it."""

    async def find_cached(self, tenant_id: str, content_hash: str) -> CacheEntry | None:
        """The tenant's own entry, or else the shared one."""

    async def put_cached(
        self,
        entry: CacheEntry,
        *,
        tenant_id: str,
        epoch: int,
        replace: bool = False,
        expired_before: str | None = None,
    ) -> CacheEntry | None:
        """Keep an entry whose object is there; where one is already, that one stays.

        tenant_id, epoch  who keeps it, and its epoch when the take was begun: what was begun before entries were
                          retired may be one of those, and is not kept
        replace           the one that is there goes instead, and whoever holds a copy of it asks again
        expired_before    the one that is there goes instead if it was created before
        returns           the entry that is there now; None if nothing was kept
        """

    async def retire_cached(self, pool: str, pick: CachePick, *, limit: int) -> Sequence[CacheEntry]:
        """Have nobody find these entries from now on; `limit` of them at most, also such as were retired before.

        The caller deletes their objects, then drops them; until then every call tells them again.
        """

    async def drop_cached(self, pool: str, content_hashes: Sequence[str]) -> None:
        """Forget retired entries; one that was kept anew in the meantime stays."""

    async def record_cache_hits(self, batch_id: str, counts: Sequence[CacheCount]) -> None:
        """Add up what was counted; a batch that was added before changes nothing."""

    async def cache_totals(self, tenant_id: str) -> CacheTotals: ...
