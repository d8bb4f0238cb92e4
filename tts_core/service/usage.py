"""What the service does with `usage.*` requests."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from tts_core.errors import TenantNotFound
from tts_core.jobs import JsonObject, Request, UsageSummarize
from tts_core.service.actions import Action
from tts_core.service.attempt import Attempt
from tts_core.service.delivery import MAX_YIELD_BYTES, wire_bytes
from tts_core.store import Grouping, Store, Tenant, UsageCounts, UsageGroup, UsageQuery

MAX_GROUPS = 1000
MAX_GROUP_BYTES = MAX_YIELD_BYTES - 5_000
"""What is left of an event for the groups."""


class UsageReports:
    def __init__(self, store: Store) -> None:
        self._store = store

    def actions(self) -> Mapping[type[Request], Action]:
        return {UsageSummarize: self.summarize}

    async def summarize(self, request: UsageSummarize, attempt: Attempt) -> JsonObject:
        """raises  InvalidInput, TenantNotFound, StoreUnavailable"""
        first, last = request.days(datetime.now(UTC).date())
        tenant_id = await self._whose(request, attempt.reserved.tenant)
        query = UsageQuery(first.isoformat(), last.isoformat(), by=request.by, limit=MAX_GROUPS)
        summary = await self._store.summarize_usage(tenant_id, query)
        groups = _that_fit([_key(group, request.by) | _counts(group.counts) for group in summary.groups])
        return {
            "tenant_id": tenant_id,
            "from": query.first_day,
            "to": query.last_day,
            "by": list(request.by),
            "totals": _counts(summary.totals),
            "groups": groups,
            "groups_left_out": summary.left_out + len(summary.groups) - len(groups),
        }

    async def _whose(self, request: UsageSummarize, asker: Tenant) -> str:
        """raises  TenantNotFound, also to whoever may not know that there is one"""
        if request.tenant_id is None or request.tenant_id == asker.id:
            return asker.id
        if not asker.is_operator:
            raise TenantNotFound(f"no tenant {request.tenant_id!r}")
        return (await self._store.get_tenant(request.tenant_id)).id


def _key(group: UsageGroup, by: tuple[Grouping, ...]) -> JsonObject:
    values = {"day": group.day, "endpoint": group.action, "voice": group.voice_id, "user": group.user_id}
    names = {"day": "day", "endpoint": "endpoint", "voice": "voice_id", "user": "user_id"}
    return {names[grouping]: values[grouping] for grouping in by}


def _counts(counts: UsageCounts) -> JsonObject:
    told = asdict(counts)
    took_ms, ended = told.pop("latency_ms"), counts.requests - counts.abandoned
    return told | {
        "audio_seconds": round(counts.audio_seconds, 3),
        "mean_latency_ms": round(took_ms / ended) if ended else None,
    }


def _that_fit(groups: list[JsonObject]) -> list[JsonObject]:
    """The first of them, as many as one event holds."""
    size = 0
    for place, group in enumerate(groups):
        size += wire_bytes(group) + 2
        if size > MAX_GROUP_BYTES:
            return groups[:place]
    return groups
