"""The permanent cache as the service uses it: memory, then this worker's folder, then the store."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tts_core.cache import FolderLayer, Kept, MemoryLayer, Size
from tts_core.errors import StoreUnavailable
from tts_core.service.cache_counts import Counts
from tts_core.service.flight import Answer
from tts_core.settings import Settings
from tts_core.store import CacheEntry, CachePick, Store, Tenant

log = logging.getLogger(__name__)

MAX_SEEN = 20_000
"""Entries of which a worker remembers that they were there."""

PURGE_BATCH = 200
SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the store said of a key: in which pool its entry is, and which one, when the tenant's epoch was this."""

    pool: str
    created_at: str
    epoch: int


class Cache:
    """Finds and keeps takes. Without the store it finds less and keeps nothing: never an error of the request."""

    def __init__(
        self,
        store: Store,
        *,
        memory: MemoryLayer,
        folder: FolderLayer,
        max_age_days: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """max_age_days: an entry older than this is spoken anew; None: none ever is"""
        self._store = store
        self._memory = memory
        self._folder = folder
        self._max_age_days = max_age_days
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], Seen] = OrderedDict()
        self.counts = Counts(store, clock=clock)

    async def find(self, content_hash: str, *, pool: str, epoch: int) -> Answer | None:
        """The take of a key, from the nearest layer that has it; the layers above have it from then on.

        pool   the tenant's id: its own entries, and then the shared ones; SHARED: those alone
        epoch  the tenant's `cache_epoch`, as its reservation told it: entries seen at another one are asked for again
        """
        try:
            return await self._find(content_hash, pool=pool, epoch=epoch)
        except StoreUnavailable:
            log.warning("the cache was not asked: the store did not answer")
            return None

    async def keep(self, kept: Kept, *, tenant: Tenant, mime_type: str, anew: bool = False) -> Answer:
        """Keep a take in all layers.

        tenant  as the reservation told it before the take was begun
        anew    write over what is there
        """
        entry, expired_before = kept.entry, self._expired_before()
        try:
            await self._store.put_object(entry.audio_path, kept.audio, content_type=mime_type)
            standing = await self._store.put_cached(
                entry, tenant_id=tenant.id, epoch=tenant.cache_epoch, replace=anew, expired_before=expired_before
            )
            if standing is None:
                await self._undo(entry)
        except StoreUnavailable:
            log.warning("a take was not kept in the cache: the store did not answer")
            standing = None
        if standing is None:
            return Answer(entry, kept.audio, "engine", None)
        # Another worker may have been first: its entry describes the same speech.
        kept = Kept(replace(standing, audio_file_size=len(kept.audio)), kept.audio)
        self._remember(standing, pool=entry.pool, epoch=tenant.cache_epoch)
        await self._hold(kept)
        return Answer(kept.entry, kept.audio, "engine", standing.audio_path)

    async def relabel(self, answer: Answer, content_type: str, *, tenant: Tenant) -> None:
        """Have an entry be of another kind of text. raises StoreUnavailable"""
        entry = replace(answer.entry, content_type=content_type)
        await self._store.put_cached(entry, replace=True, tenant_id=tenant.id, epoch=tenant.cache_epoch)
        self._memory.put(Kept(entry, answer.audio))

    async def forget(self, pool: str, pick: CachePick) -> Size:
        """Remove entries, their objects and this worker's copies.

        Other workers tell their copies to no request that is reserved from now on; they go when room is needed.

        returns  what was removed
        raises   StoreUnavailable; what is left then goes the next time
        """
        entries, size = 0, 0
        while retired := await self._store.retire_cached(pool, pick, limit=PURGE_BATCH):
            for entry in retired:
                await self._store.delete_object(entry.audio_path)
                await self._let_go((pool, entry.content_hash))
            await self._store.drop_cached(pool, [entry.content_hash for entry in retired])
            entries, size = entries + len(retired), size + sum(entry.audio_file_size for entry in retired)
        return Size(entries, size)

    async def drop_copies(self, pool: str) -> None:
        """Of all that a tenant had, from this worker's own layers: the store has deleted the rest."""
        for place in [place for place in self._seen if place[0] == pool]:
            del self._seen[place]
        self._memory.drop_pool(pool)
        await self._folder.drop_pool(pool)

    async def sizes(self, pool: str) -> dict[str, Size]:
        """Of a pool, in this worker's own layers."""
        return {"memory": self._memory.size(pool), "folder": await self._folder.size(pool)}

    async def close(self) -> None:
        await self.counts.close()

    async def _find(self, content_hash: str, *, pool: str, epoch: int) -> Answer | None:
        seen, entry = self._seen.get((pool, content_hash)), None
        if seen is None or seen.epoch != epoch or self._has_expired(seen.created_at):
            entry = await self._store.find_cached(pool, content_hash)
            seen = self._remember(entry, pool=pool, epoch=epoch) if entry else None
        if seen is None:
            await self._let_go((pool, content_hash))
            return None
        if self._has_expired(seen.created_at):
            return None
        if (near := await self._near(seen, content_hash)) is not None:
            return near
        entry = entry or await self._store.find_cached(pool, content_hash)
        return await self._fetched(entry) if entry else None

    async def _near(self, seen: Seen, content_hash: str) -> Answer | None:
        """From memory or folder, if what they hold is the entry that the store has."""
        place = (seen.pool, content_hash)
        if (kept := self._memory.get(place)) is not None and kept.entry.created_at == seen.created_at:
            return Answer(kept.entry, kept.audio, "memory", kept.entry.audio_path)
        if (kept := await self._folder.get(place)) is not None and kept.entry.created_at == seen.created_at:
            self._memory.put(kept)
            return Answer(kept.entry, kept.audio, "folder", kept.entry.audio_path)
        return None

    async def _fetched(self, entry: CacheEntry) -> Answer | None:
        try:
            audio = await self._store.get_object(entry.audio_path)
        except KeyError:  # retired in between; or lost, and then whoever speaks it anew mends it
            return None
        kept = Kept(replace(entry, audio_file_size=len(audio)), audio)
        await self._hold(kept)
        return Answer(kept.entry, audio, "store", entry.audio_path)

    async def _hold(self, kept: Kept) -> None:
        self._memory.put(kept)
        await self._folder.put(kept)

    async def _let_go(self, place: tuple[str, str]) -> None:
        self._seen.pop(place, None)
        self._memory.drop(place)
        await self._folder.drop(place)

    async def _undo(self, entry: CacheEntry) -> None:
        """Entries were retired while this take was made. Its object goes, unless an entry has come to name it."""
        log.info("a take was not kept in the cache: it was begun before an invalidation")
        standing = await self._store.find_cached(entry.pool, entry.content_hash)
        if standing is None or standing.pool != entry.pool:
            await self._store.delete_object(entry.audio_path)

    def _remember(self, entry: CacheEntry, *, pool: str, epoch: int) -> Seen:
        seen = self._seen[pool, entry.content_hash] = Seen(entry.pool, entry.created_at, epoch)
        self._seen.move_to_end((pool, entry.content_hash))
        while len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return seen

    def _expired_before(self) -> str | None:
        if self._max_age_days is None:
            return None
        return _utc(self._clock() - self._max_age_days * SECONDS_PER_DAY)

    def _has_expired(self, created_at: str) -> bool:
        before = self._expired_before()
        return before is not None and created_at < before


def open_cache(store: Store, settings: Settings) -> Cache:
    return Cache(
        store,
        memory=MemoryLayer(max_bytes=settings.cache_memory_bytes),
        folder=FolderLayer(settings.data_dir / "cache", max_bytes=settings.cache_folder_bytes),
        max_age_days=settings.cache_max_age_days,
    )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
