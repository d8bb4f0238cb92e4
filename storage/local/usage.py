"""What requests have used, in the local store: each function is one transaction's work on its connection."""

from collections.abc import Sequence
from dataclasses import fields

from storage.local.area import LocalArea
from storage.local.database import Connection, Row
from storage.local.schema import Migration
from tts_core.store import UsageRow

MIGRATIONS: tuple[Migration, ...] = ()
"""The first table of usage came with the ledger of requests: 0003_ledger."""


class LocalUsage(LocalArea):
    """`tts_core.store.Usage`"""

    async def usage(self, tenant_id: str) -> Sequence[UsageRow]:
        return await self._database.read(lambda tx: usage(tx, tenant_id))


def record_usage(tx: Connection, request_id: str) -> None:
    """Write the usage row of a request's attempt that has just been closed."""
    tx.execute(
        """
        insert into usage_logs (
            tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming,
            voice_id, status, error, cached, metadata, created_at
        ) select
            tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming,
            coalesce(spoken_voice_id, voice_id), status, error, cached, metadata, settled_at
        from requests where request_id = ?
        """,
        (request_id,),
    )


def usage(tx: Connection, tenant_id: str) -> Sequence[UsageRow]:
    rows = tx.execute("select * from usage_logs where tenant_id = ? order by id", (tenant_id,))
    return tuple(map(_usage_row, rows))


def _usage_row(row: Row) -> UsageRow:
    columns = {field.name: row[field.name] for field in fields(UsageRow)}
    return UsageRow(**columns | {"streaming": bool(row["streaming"]), "cached": bool(row["cached"])})
