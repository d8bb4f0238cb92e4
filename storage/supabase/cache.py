"""The permanent cache, in a Supabase project."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from storage.supabase.area import SupabaseArea, row_of
from tts_core.store import CacheCount, CacheEntry, CacheGroup, CachePick, CacheTotals


class SupabaseCache(SupabaseArea):
    """`tts_core.store.CacheEntries`"""

    async def find_cached(self, tenant_id: str, content_hash: str) -> CacheEntry | None:
        return _entry(await self._call("find_cached", dict, tenant_id=tenant_id, content_hash=content_hash))

    async def put_cached(
        self,
        entry: CacheEntry,
        *,
        tenant_id: str,
        epoch: int,
        replace: bool = False,
        expired_before: str | None = None,
    ) -> CacheEntry | None:
        kept = await self._call(
            "put_cached",
            dict,
            entry=asdict(entry),
            tenant_id=tenant_id,
            epoch=epoch,
            replace=replace,
            expired_before=expired_before,
        )
        return _entry(kept)

    async def retire_cached(self, pool: str, pick: CachePick, *, limit: int) -> Sequence[CacheEntry]:
        rows = await self._call("retire_cached", list, pool=pool, limit=limit, **asdict(pick))
        return tuple(row_of(CacheEntry, row) for row in rows)

    async def drop_cached(self, pool: str, content_hashes: Sequence[str]) -> None:
        await self._call("drop_cached", list, pool=pool, content_hashes=list(content_hashes))

    async def record_cache_hits(self, batch_id: str, counts: Sequence[CacheCount]) -> None:
        await self._call("record_cache_hits", list, id=batch_id, counts=[asdict(count) for count in counts])

    async def cache_totals(self, tenant_id: str) -> CacheTotals:
        totals = await self._call("cache_totals", dict, tenant_id=tenant_id)
        groups = tuple(CacheGroup(**group) for group in totals.pop("groups"))
        return CacheTotals(**totals, groups=groups)


def _entry(found: Mapping[str, Any]) -> CacheEntry | None:
    return None if found["entry"] is None else row_of(CacheEntry, found["entry"])
