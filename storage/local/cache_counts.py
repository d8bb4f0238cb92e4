"""The cache's hits, misses and totals, in the local store: each function is one transaction's work."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from storage.local.database import Connection
from storage.local.schema import utc
from tts_core.store import SHARED, CacheCount, CacheGroup, CacheTotals

MAX_GROUPS = 100
KEEP_BATCHES_S = 86_400.0
"""How long a batch of hits is known: far longer than anybody tries to tell it again."""


def record_cache_hits(tx: Connection, batch_id: str, counts: Sequence[CacheCount], *, now_s: float) -> None:
    tx.execute("delete from tts_cache_batches where created_at < ?", (utc(now_s - KEEP_BATCHES_S),))
    new = tx.execute("insert into tts_cache_batches values (?, ?) on conflict do nothing", (batch_id, utc(now_s)))
    if new.rowcount == 0:
        return
    rows = [asdict(count) for count in counts]
    tx.executemany(
        """
        insert into tts_cache_hits (pool, content_hash, day, hits)
        select pool, content_hash, :day, :hits from tts_cache
            where pool = :pool and content_hash = :content_hash and :hits > 0
        on conflict (pool, content_hash, day) do update set hits = hits + excluded.hits
        """,
        rows,
    )
    tx.executemany(
        """
        insert into tts_cache_days (tenant_id, day, hits, misses, audio_seconds_saved)
        select id, :day, :hits, :misses, :audio_seconds from tenants where id = :tenant_id
        on conflict (tenant_id, day) do update set
            hits = hits + excluded.hits, misses = misses + excluded.misses,
            audio_seconds_saved = audio_seconds_saved + excluded.audio_seconds_saved
        """,
        rows,
    )


def cache_totals(tx: Connection, tenant_id: str) -> CacheTotals:
    entries, size = _size(tx, tenant_id)
    shared_entries, shared_size = _size(tx, SHARED)
    saved = tx.execute(
        """
        select coalesce(sum(hits), 0) as hits, coalesce(sum(misses), 0) as misses,
            coalesce(sum(audio_seconds_saved), 0.0) as seconds
        from tts_cache_days where tenant_id = ?
        """,
        (tenant_id,),
    ).fetchone()
    return CacheTotals(
        entries=entries,
        bytes=size,
        shared_entries=shared_entries,
        shared_bytes=shared_size,
        hits=saved["hits"],
        misses=saved["misses"],
        audio_seconds_saved=saved["seconds"],
        groups=tuple(_groups(tx, tenant_id)),
    )


def _size(tx: Connection, pool: str) -> tuple[int, int]:
    row = tx.execute(
        "select count(*), coalesce(sum(audio_file_size), 0) from tts_cache where pool = ? and is_active", (pool,)
    ).fetchone()
    return row[0], row[1]


def _groups(tx: Connection, pool: str) -> Iterator[CacheGroup]:
    rows = tx.execute(
        """
        select content_type, voice, count(*) as entries, sum(audio_file_size) as bytes from tts_cache
        where pool = ? and is_active group by content_type, voice
        order by entries desc, content_type, voice limit ?
        """,
        (pool, MAX_GROUPS),
    )
    return (CacheGroup(**dict(row)) for row in rows)
