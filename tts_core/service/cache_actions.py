"""What the service does with `cache.*` requests: fill the cache ahead of time, tell what is in it, empty it."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from tts_core.errors import Forbidden
from tts_core.jobs import CacheInvalidate, CacheSeed, CacheStats, JsonObject, Request, VoiceRef
from tts_core.service.actions import Action
from tts_core.service.answers import Answers
from tts_core.service.attempt import Attempt
from tts_core.service.cache import Cache
from tts_core.service.seeding import Seeding
from tts_core.service.synthesis import Synthesis
from tts_core.store import SHARED, CachePick, Store, Tenant


class CacheActions:
    def __init__(
        self, cache: Cache, answers: Answers, synthesis: Synthesis, store: Store, *, price_per_audio_hour: float | None
    ) -> None:
        self._cache = cache
        self._answers = answers
        self._synthesis = synthesis
        self._store = store
        self._price_per_audio_hour = price_per_audio_hour

    def actions(self) -> Mapping[type[Request], Action]:
        return {CacheSeed: self.seed, CacheStats: self.stats, CacheInvalidate: self.invalidate}

    async def seed(self, request: CacheSeed, attempt: Attempt) -> JsonObject:
        """Speak what is not there yet. What is done stays done: the same request again goes on where this one ended."""
        pool = _pool(request.shared, attempt.reserved.tenant)
        seeding = Seeding(
            request, attempt, cache=self._cache, answers=self._answers, synthesis=self._synthesis, pool=pool
        )
        return await seeding.run()

    async def stats(self, request: CacheStats, attempt: Attempt) -> JsonObject:
        """raises  StoreUnavailable"""
        tenant_id = attempt.reserved.tenant.id
        await self._cache.counts.flush()
        totals = await self._store.cache_totals(tenant_id)
        asked = totals.hits + totals.misses
        hours_saved = totals.audio_seconds_saved / 3600
        price = self._price_per_audio_hour
        layers = {name: asdict(size) for name, size in (await self._cache.sizes(tenant_id)).items()}
        layers["store"] = {"entries": totals.entries, "bytes": totals.bytes}
        told = asdict(totals)
        del told["audio_seconds_saved"]
        return told | {
            "hit_ratio": round(totals.hits / asked, 4) if asked else None,
            "seconds_saved": round(totals.audio_seconds_saved, 3),
            "money_saved": None if price is None else round(hours_saved * price, 6),
            "layers": {
                name: size | {"worker_hits": self._cache.counts.by_layer[tenant_id, name]}
                for name, size in layers.items()
            },
        }

    async def invalidate(self, request: CacheInvalidate, attempt: Attempt) -> JsonObject:
        """raises  Forbidden, StoreUnavailable"""
        pick = CachePick(
            voice=VoiceRef.parse(request.voice_id).id if request.voice_id else None,
            content_type=request.content_type,
            content_hash=request.content_hash,
            created_before=_days_ago(request.older_than_days),
        )
        removed = await self._cache.forget(_pool(request.shared, attempt.reserved.tenant), pick)
        return {"invalidated": asdict(removed), "shared": request.shared}


def _pool(shared: bool, tenant: Tenant) -> str:
    """raises  Forbidden"""
    if shared and not tenant.is_operator:
        raise Forbidden("shared: only the operator's admin keys may change what all tenants hear")
    return SHARED if shared else tenant.id


def _days_ago(days: float | None) -> str | None:
    if days is None:
        return None
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="microseconds")
