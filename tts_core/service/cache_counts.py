"""Hits and misses of the cache, counted in memory and told to the store in batches: no row is hot."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from tts_core.errors import StoreUnavailable
from tts_core.service.flight import Answer
from tts_core.store import CacheCount, CacheEntry, Store, Tenant

log = logging.getLogger(__name__)

FLUSH_S = 10.0
"""Between a first hit and the store hearing of it. What a killed worker had not told yet is not counted."""


class Counts:
    def __init__(self, store: Store, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._counts: dict[tuple[str, str, str, str], CacheCount] = {}
        self._untold: dict[str, list[CacheCount]] = {}
        self._flushing: asyncio.Task[None] | None = None
        self.by_layer: Counter[tuple[str, str]] = Counter()
        """Hits of a tenant (its id) in a layer, since this worker started."""

    def hit(self, tenant: Tenant, answer: Answer) -> None:
        self.by_layer[tenant.id, answer.layer] += 1
        self._add(tenant, answer.entry, hits=1, audio_seconds=answer.entry.audio_seconds)

    def miss(self, tenant: Tenant, answer: Answer) -> None:
        self._add(tenant, answer.entry, misses=1)

    async def flush(self) -> None:
        """raises StoreUnavailable; what was not told is kept, and told under the same batch id the next time"""
        if self._counts:
            self._untold[uuid4().hex] = list(self._counts.values())
            self._counts.clear()
        for batch_id, counts in list(self._untold.items()):
            await self._store.record_cache_hits(batch_id, counts)
            self._untold.pop(batch_id, None)  # somebody else may have told it at the same time

    async def close(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
        try:
            await self.flush()
        except StoreUnavailable:
            log.warning("cache hits not counted: the store did not answer")

    def _add(
        self, tenant: Tenant, entry: CacheEntry, *, audio_seconds: float = 0.0, hits: int = 0, misses: int = 0
    ) -> None:
        day = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        key = (tenant.id, entry.pool, entry.content_hash, day)
        so_far = self._counts.get(key) or CacheCount(*key)
        self._counts[key] = replace(
            so_far,
            hits=so_far.hits + hits,
            misses=so_far.misses + misses,
            audio_seconds=so_far.audio_seconds + audio_seconds,
        )
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_later())

    async def _flush_later(self) -> None:
        await asyncio.sleep(FLUSH_S)
        try:
            await self.flush()
        except StoreUnavailable:
            log.warning("cache hits not told yet: the store did not answer")
