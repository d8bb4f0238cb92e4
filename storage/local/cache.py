"""The permanent cache, in the local store: each function is one transaction's work on its connection."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from storage.local.area import LocalArea
from storage.local.cache_counts import cache_totals, record_cache_hits
from storage.local.database import Connection, Row
from storage.local.schema import Migration
from tts_core.store import CacheCount, CacheEntry, CachePick, CacheTotals

MIGRATIONS: tuple[Migration, ...] = (
    (
        "0005_cache",
        (
            # `pool` is the tenant's id, or 'shared' for what belongs to no tenant.
            """
            create table tts_cache (
                pool text not null,
                content_hash text not null check (length(content_hash) = 64),
                tenant_id text references tenants (id) on delete cascade,
                content_type text not null,
                content_text text not null,
                voice text,
                audio_path text not null,
                audio_file_size integer not null,
                audio_seconds real not null,
                details text not null,
                is_active integer not null default 1 check (is_active in (0, 1)),
                created_at text not null,
                primary key (pool, content_hash),
                check (pool = coalesce(tenant_id, 'shared'))
            ) strict
            """,
            "create index tts_cache_of_tenant on tts_cache (tenant_id)",
            """
            create table tts_cache_hits (
                pool text not null,
                content_hash text not null,
                day text not null,
                hits integer not null,
                primary key (pool, content_hash, day),
                foreign key (pool, content_hash) references tts_cache (pool, content_hash) on delete cascade
            ) strict
            """,
            """
            create table tts_cache_days (
                tenant_id text not null references tenants (id) on delete cascade,
                day text not null,
                hits integer not null,
                misses integer not null,
                audio_seconds_saved real not null,
                primary key (tenant_id, day)
            ) strict
            """,
            """
            create table tts_cache_batches (
                id text primary key,
                created_at text not null
            ) strict
            """,
            "create index tts_cache_batches_by_time on tts_cache_batches (created_at)",
            "alter table tenants add column cache_epoch integer not null default 0",
            """
            create trigger tenants_id_is_no_pool before insert on tenants when new.id = 'shared'
            begin select raise(abort, 'no tenant has the id of the shared pool'); end
            """,
        ),
    ),
)


class LocalCache(LocalArea):
    """`tts_core.store.CacheEntries`"""

    async def find_cached(self, tenant_id: str, content_hash: str) -> CacheEntry | None:
        return await self._database.read(lambda tx: find_cached(tx, tenant_id, content_hash))

    async def put_cached(
        self,
        entry: CacheEntry,
        *,
        tenant_id: str,
        epoch: int,
        replace: bool = False,
        expired_before: str | None = None,
    ) -> CacheEntry | None:
        return await self._database.write(
            lambda tx: put_cached(
                tx, entry, is_late=not _is_epoch(tx, tenant_id, epoch), replace=replace, expired_before=expired_before
            )
        )

    async def retire_cached(self, pool: str, pick: CachePick, *, limit: int) -> Sequence[CacheEntry]:
        return await self._database.write(lambda tx: retire_cached(tx, pool, pick, limit=limit))

    async def drop_cached(self, pool: str, content_hashes: Sequence[str]) -> None:
        await self._database.write(lambda tx: drop_cached(tx, pool, content_hashes))

    async def record_cache_hits(self, batch_id: str, counts: Sequence[CacheCount]) -> None:
        await self._database.write(lambda tx: record_cache_hits(tx, batch_id, counts, now_s=self._clock()))

    async def cache_totals(self, tenant_id: str) -> CacheTotals:
        return await self._database.write(lambda tx: cache_totals(tx, tenant_id))


def find_cached(tx: Connection, tenant_id: str, content_hash: str) -> CacheEntry | None:
    row = tx.execute(
        """
        select * from tts_cache where pool in (?, 'shared') and content_hash = ? and is_active
        order by pool = 'shared' limit 1
        """,
        (tenant_id, content_hash),
    ).fetchone()
    return None if row is None else _entry(row)


def put_cached(
    tx: Connection, entry: CacheEntry, *, is_late: bool, replace: bool, expired_before: str | None
) -> CacheEntry | None:
    """is_late: entries were retired since the take was begun"""
    key = (entry.pool, entry.content_hash)
    row = tx.execute("select * from tts_cache where pool = ? and content_hash = ? and is_active", key).fetchone()
    standing = None if row is None else _entry(row)
    if standing == entry:
        return entry
    if is_late:
        return None
    if standing is not None and not replace and (expired_before is None or standing.created_at >= expired_before):
        return standing
    row = tx.execute(
        """
        insert into tts_cache (
            pool, content_hash, tenant_id, content_type, content_text, voice, audio_path, audio_file_size,
            audio_seconds, details, created_at
        ) values (
            :pool, :content_hash, nullif(:pool, 'shared'), :content_type, :content_text, :voice, :audio_path,
            :audio_file_size, :audio_seconds, :details, :created_at
        )
        on conflict (pool, content_hash) do update set
            content_type = excluded.content_type, content_text = excluded.content_text, voice = excluded.voice,
            audio_path = excluded.audio_path, audio_file_size = excluded.audio_file_size,
            audio_seconds = excluded.audio_seconds, details = excluded.details, created_at = excluded.created_at,
            is_active = 1
        returning *
        """,
        asdict(entry),
    ).fetchone()
    if standing is not None and replace and standing.created_at != entry.created_at:
        _next_epoch(tx, entry.pool)
    return _entry(row)


def retire_cached(tx: Connection, pool: str, pick: CachePick, *, limit: int) -> Sequence[CacheEntry]:
    rows = tx.execute(
        """
        update tts_cache set is_active = 0 where pool = :pool and content_hash in (
            select content_hash from tts_cache where pool = :pool
                and (:voice is null or voice = :voice)
                and (:content_type is null or content_type = :content_type)
                and (:content_hash is null or content_hash = :content_hash)
                and (:created_before is null or created_at < :created_before)
            order by content_hash limit :limit
        ) returning *
        """,
        asdict(pick) | {"pool": pool, "limit": limit},
    ).fetchall()
    _next_epoch(tx, pool)
    return tuple(map(_entry, rows))


def drop_cached(tx: Connection, pool: str, content_hashes: Sequence[str]) -> None:
    tx.execute(
        """
        delete from tts_cache where pool = ? and not is_active
            and content_hash in (select value from json_each(?))
        """,
        (pool, json.dumps(list(content_hashes))),
    )


def _is_epoch(tx: Connection, tenant_id: str, epoch: int) -> bool:
    return (
        tx.execute("select 1 from tenants where id = ? and cache_epoch = ?", (tenant_id, epoch)).fetchone() is not None
    )


def _next_epoch(tx: Connection, pool: str) -> None:
    """Have every worker ask again for what it holds of a pool; the shared one is everybody's."""
    tx.execute("update tenants set cache_epoch = cache_epoch + 1 where id = :pool or :pool = 'shared'", {"pool": pool})


def _entry(row: Row) -> CacheEntry:
    columns: dict[str, Any] = {field.name: row[field.name] for field in fields(CacheEntry)}
    return CacheEntry(**columns)
