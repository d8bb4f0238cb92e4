"""What requests have used, in Supabase: `settle_request` writes the rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from storage.supabase.area import SupabaseArea, columns_of, row_of
from tts_core.store import UsageCounts, UsageGroup, UsageQuery, UsageRow, UsageSummary


class SupabaseUsage(SupabaseArea):
    """`tts_core.store.Usage`"""

    async def usage(self, tenant_id: str) -> Sequence[UsageRow]:
        rows = await self._project.rows(
            "usage_logs",
            columns=columns_of(UsageRow),
            where={"tenant_id": tenant_id},
            order=["created_at", "request_id", "fence"],
        )
        return tuple(row_of(UsageRow, row) for row in rows)

    async def summarize_usage(self, tenant_id: str, query: UsageQuery) -> UsageSummary:
        found = await self._call("usage_summary", dict, tenant_id=tenant_id, **asdict(query))
        groups = tuple(map(_group, found["groups"]))
        return UsageSummary(row_of(UsageCounts, found["totals"]), groups, left_out=found["left_out"])

    async def count_unsettled(self) -> int:
        return 0


def _group(row: Mapping[str, Any]) -> UsageGroup:
    return UsageGroup(row["day"], row["action"], row["voice_id"], row["user_id"], counts=row_of(UsageCounts, row))
