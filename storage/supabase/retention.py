"""What ages out, and whose turn a chore is, in Supabase."""

from dataclasses import asdict

from storage.supabase.area import columns_of, row_of
from storage.supabase.jobs import SupabaseJobs
from tts_core.errors import TenantNotFound
from tts_core.store import Purged, Retention
from tts_core.store.retention import UNFINISHED_DAYS

MAX_REMOVED = 500
"""Objects that one request to the Storage API names."""


class SupabaseRetentions(SupabaseJobs):
    """`tts_core.store.Retentions`"""

    async def get_retention(self, tenant_id: str) -> Retention:
        columns = f"id,{columns_of(Retention)}"
        rows = await self._project.rows("tenants", columns=columns, where={"id": tenant_id}, order=["id"])
        if not rows:
            raise TenantNotFound(f"no tenant {tenant_id!r}")
        return row_of(Retention, rows[0])

    async def set_retention(self, tenant_id: str, retention: Retention) -> None:
        if not await self._call("set_retention", bool, tenant_id=tenant_id, **asdict(retention)):
            raise TenantNotFound(f"no tenant {tenant_id!r}")

    async def take_turn(self, chore: str, *, holder: str, for_s: float) -> bool:
        return await self._call("take_turn", bool, chore=chore, holder=holder, for_s=for_s)

    async def purge(self, *, limit: int) -> Purged:
        chunks = await self._call("forgotten_chunks", list, limit=limit, unfinished_days=UNFINISHED_DAYS)
        await self._forget(chunks)
        aged = await self._call("aged", dict, limit=limit)
        for start in range(0, len(aged["names"]), MAX_REMOVED):
            await self._project.remove("audio", aged["names"][start : start + MAX_REMOVED])
        messages = await self._call("forget_aged", int, limit=limit, audio=aged["audio"], texts=aged["texts"])
        is_done = max(len(chunks), len(aged["audio"]), len(aged["texts"]), messages) < limit
        return Purged(len(aged["names"]), len(chunks), len(aged["texts"]), messages, is_done)
