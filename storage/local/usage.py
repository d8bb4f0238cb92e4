"""What requests have used, in the local store: each function is one transaction's work on its connection."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Literal

from storage.local.area import LocalArea
from storage.local.database import Connection, Row
from storage.local.schema import Migration
from tts_core.store import Grouping, UsageCounts, UsageGroup, UsageQuery, UsageRow, UsageSummary

_COUNTS = tuple(field.name for field in fields(UsageCounts))

_COUNTED = """
    select tenant_id, substr(created_at, 1, 10), action, coalesce(voice_id, ''), coalesce(user_id, ''), count(*),
        sum(status = 'success'), sum(status = 'failed'), sum(status = 'cancelled'), sum(status = 'abandoned'),
        sum(cached), sum(input_chars), sum(audio_seconds), sum(audio_bytes), sum(latency_ms)
    from usage_logs
"""
"""Usage rows as rows of `usage_daily`."""

MIGRATIONS: tuple[Migration, ...] = (
    # The first table of usage came with the ledger of requests: 0003_ledger.
    (
        "0009_usage",
        (
            # No voice or user is an empty text: nulls are never the same row to a key.
            """
            create table usage_daily (
                tenant_id text not null references tenants (id) on delete cascade,
                day text not null,
                action text not null,
                voice_id text not null,
                user_id text not null,
                requests integer not null,
                successes integer not null,
                failures integer not null,
                cancelled integer not null,
                abandoned integer not null,
                cached integer not null,
                input_chars integer not null,
                audio_seconds real not null,
                audio_bytes integer not null,
                latency_ms integer not null,
                primary key (tenant_id, day, action, voice_id, user_id),
                check (requests = successes + failures + cancelled + abandoned)
            ) strict
            """,
            f"insert into usage_daily {_COUNTED} group by 1, 2, 3, 4, 5",
        ),
    ),
)

_KEYS: dict[Grouping, tuple[str, str]] = {
    "day": ("day", "day"),
    "endpoint": ("action", "action"),
    "voice": ("voice_id", "nullif(voice_id, '')"),
    "user": ("user_id", "nullif(user_id, '')"),
}
"""The column of a group, and what is in it."""


class LocalUsage(LocalArea):
    """`tts_core.store.Usage`"""

    async def usage(self, tenant_id: str) -> Sequence[UsageRow]:
        return await self._database.read(lambda tx: usage(tx, tenant_id))

    async def summarize_usage(self, tenant_id: str, query: UsageQuery) -> UsageSummary:
        return await self._database.read(lambda tx: summarize(tx, tenant_id, query))

    async def count_unsettled(self) -> int:
        return 0


def record_usage(tx: Connection, request_id: str) -> None:
    """Write the usage row of a request's attempt that has just been closed, and count it by day.

    Of one that had been given up as abandoned it takes the place of the row that said so.
    """
    attempt = tx.execute("select request_id, fence from requests where request_id = ?", (request_id,)).fetchone()
    _count(tx, attempt, sign="-")
    tx.execute(
        """
        insert into usage_logs (
            tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming,
            voice_id, status, error, cached, metadata, created_at, user_id
        ) select
            tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms, streaming,
            coalesce(spoken_voice_id, voice_id), status, error, cached, metadata, settled_at, user_id
        from requests where request_id = ?
        on conflict (request_id, fence) do update set
            audio_seconds = excluded.audio_seconds, audio_bytes = excluded.audio_bytes,
            latency_ms = excluded.latency_ms, voice_id = excluded.voice_id, status = excluded.status,
            error = excluded.error, cached = excluded.cached, metadata = excluded.metadata, user_id = excluded.user_id
        """,
        (request_id,),
    )
    _count(tx, attempt, sign="+")


def _count(tx: Connection, attempt: Row, *, sign: Literal["+", "-"]) -> None:
    """Count the usage row of an attempt, if it has one, or count it no longer."""
    counted = ", ".join(f"{count} = {count} {sign} excluded.{count}" for count in _COUNTS)
    tx.execute(
        f"""
        insert into usage_daily {_COUNTED} where request_id = ? and fence = ? group by id
        on conflict (tenant_id, day, action, voice_id, user_id) do update set {counted}
        """,
        tuple(attempt),
    )


def usage(tx: Connection, tenant_id: str) -> Sequence[UsageRow]:
    rows = tx.execute("select * from usage_logs where tenant_id = ? order by id", (tenant_id,))
    return tuple(map(_usage_row, rows))


def summarize(tx: Connection, tenant_id: str, query: UsageQuery) -> UsageSummary:
    keys = ", ".join(f"{value if by in query.by else 'null'} as {name}" for by, (name, value) in _KEYS.items())
    counts = ", ".join(f"sum({count}) as {count}" for count in _COUNTS)
    rows = tx.execute(
        f"""
        with counted as (
            select {keys}, {counts} from usage_daily where tenant_id = ? and day between ? and ?
            group by 1, 2, 3, 4 having sum(requests) > 0
        )
        select * from counted order by day, requests desc, action, voice_id, user_id
        """,  # noqa: S608  names of ours
        (tenant_id, query.first_day, query.last_day),
    )
    groups = tuple(map(_group, rows))
    told = groups[: query.limit]
    return UsageSummary(_sum(group.counts for group in groups), told, left_out=len(groups) - len(told))


def _sum(counts: Iterable[UsageCounts]) -> UsageCounts:
    each = list(counts)
    return UsageCounts(**{name: sum(getattr(count, name) for count in each) for name in _COUNTS})


def _group(row: Row) -> UsageGroup:
    counts = UsageCounts(**{name: row[name] for name in _COUNTS})
    return UsageGroup(**{name: row[name] for name, _ in _KEYS.values()}, counts=counts)


def _usage_row(row: Row) -> UsageRow:
    columns = {field.name: row[field.name] for field in fields(UsageRow)}
    return UsageRow(**columns | {"streaming": bool(row["streaming"]), "cached": bool(row["cached"])})
