"""What ages out, and whose turn a chore is, in the local store.

Objects go before the rows that know of them: a purge that is killed half way is finished by the next one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from storage.local.area import LocalArea
from storage.local.database import Connection, Row, translated
from storage.local.schema import Migration, utc
from tts_core.errors import TenantNotFound
from tts_core.store import Purged, Retention
from tts_core.store.retention import UNFINISHED_DAYS

MIGRATIONS: tuple[Migration, ...] = (
    (
        "0008_retention",
        (
            "alter table tenants add column audio_days integer check (audio_days >= 1)",
            "alter table tenants add column text_days integer check (text_days >= 1)",
            "alter table tenants add column message_days integer check (message_days >= 1)",
            # Of attempts up to this one no object is left.
            "alter table requests add column swept_fence integer not null default 0",
            """
            create index requests_unswept on requests (tenant_id, settled_at)
                where status <> 'running' and fence > swept_fence
            """,
            "create index requests_told on requests (tenant_id, settled_at) where result is not null",
            "create index jobs_read on jobs (tenant_id, updated_at) where text is not null",
            """
            create table chores (
                name text primary key,
                holder text not null,
                held_until text not null
            ) strict
            """,
        ),
    ),
)

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Aged:
    """Requests whose audio or texts have aged out, by tenant."""

    audio: Mapping[str, set[str]]
    texts: Mapping[str, set[str]]

    def has(self, tenant_id: str, name: str) -> bool:
        """Whether an object of the bucket `audio` goes: it is named after its request, and alignments are texts too."""
        request_id = name.partition(".")[0]
        is_text = name.endswith(".json") and request_id in self.texts.get(tenant_id, ())
        return is_text or request_id in self.audio.get(tenant_id, ())


class LocalRetentions(LocalArea):
    """`tts_core.store.Retentions`"""

    async def get_retention(self, tenant_id: str) -> Retention:
        return await self._database.read(lambda tx: get_retention(tx, tenant_id))

    async def set_retention(self, tenant_id: str, retention: Retention) -> None:
        await self._database.write(lambda tx: set_retention(tx, tenant_id, retention))

    async def take_turn(self, chore: str, *, holder: str, for_s: float) -> bool:
        return await self._database.write(lambda tx: take_turn(tx, chore, holder, for_s=for_s, now_s=self._clock()))

    async def purge(self, *, limit: int) -> Purged:
        now_s = self._clock()
        chunks = await self._database.read(lambda tx: forgotten_chunks(tx, limit=limit, now_s=now_s))
        aged = await self._database.write(lambda tx: find_aged(tx, limit=limit, now_s=now_s))
        objects = await asyncio.to_thread(lambda: list(self._named_after(aged)))
        for path in [*(chunk["object_path"] for chunk in chunks), *objects]:
            await asyncio.to_thread(self._objects.delete, path)
        messages = await self._database.write(lambda tx: forget(tx, chunks, aged, limit=limit, now_s=now_s))
        audio, texts = (sum(map(len, ids.values())) for ids in (aged.audio, aged.texts))
        return Purged(
            len(objects), len(chunks), texts, messages, is_done=max(len(chunks), audio, texts, messages) < limit
        )

    def _named_after(self, aged: Aged) -> Iterator[str]:
        with translated():
            for tenant_id in aged.audio.keys() | aged.texts.keys():
                folder = self._folder / "objects" / "audio" / tenant_id
                names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
                yield from (f"audio/{tenant_id}/{name}" for name in sorted(names) if aged.has(tenant_id, name))


def get_retention(tx: Connection, tenant_id: str) -> Retention:
    row = tx.execute("select audio_days, text_days, message_days from tenants where id = ?", (tenant_id,)).fetchone()
    if row is None:
        raise TenantNotFound(f"no tenant {tenant_id!r}")
    return Retention(**row)


def set_retention(tx: Connection, tenant_id: str, retention: Retention) -> None:
    changed = tx.execute(
        """
        update tenants set audio_days = :audio_days, text_days = :text_days, message_days = :message_days
        where id = :tenant_id
        """,
        asdict(retention) | {"tenant_id": tenant_id},
    )
    if changed.rowcount == 0:
        raise TenantNotFound(f"no tenant {tenant_id!r}")


def take_turn(tx: Connection, chore: str, holder: str, *, for_s: float, now_s: float) -> bool:
    taken = tx.execute(
        """
        insert into chores (name, holder, held_until) values (:name, :holder, :until)
        on conflict (name) do update set holder = excluded.holder, held_until = excluded.held_until
        where chores.held_until <= :now or chores.holder = excluded.holder
        """,
        {"name": chore, "holder": holder, "until": utc(now_s + for_s), "now": utc(now_s)},
    )
    return taken.rowcount == 1


def forgotten_chunks(tx: Connection, *, limit: int, now_s: float) -> Sequence[Row]:
    """Of jobs that are completed, or that nobody has gone on with."""
    return tx.execute(
        """
        select job_chunks.* from jobs join job_chunks on job_chunks.tenant_id = jobs.tenant_id and job_id = id
        where jobs.status = 'completed' or jobs.updated_at < ? limit ?
        """,
        (utc(now_s - UNFINISHED_DAYS * DAY_S), limit),
    ).fetchall()


def find_aged(tx: Connection, *, limit: int, now_s: float) -> Aged:
    """`limit` requests of each kind at most."""
    audio = """
        select tenant_id, request_id from requests
        where tenant_id = :tenant_id and status <> 'running' and fence > swept_fence and settled_at < :before
        order by settled_at limit :limit
    """
    texts = """
        select * from (
            select tenant_id, request_id from requests
            where tenant_id = :tenant_id and result is not null and settled_at < :before
            order by settled_at limit :limit
        ) union select * from (
            select tenant_id, id from jobs
            where tenant_id = :tenant_id and text is not null and status in ('completed', 'failed')
                and updated_at < :before
            order by updated_at limit :limit
        ) limit :limit
    """
    return Aged(
        _by_tenant(tx, audio, days="audio_days", limit=limit, now_s=now_s),
        _by_tenant(tx, texts, days="text_days", limit=limit, now_s=now_s),
    )


def _by_tenant(tx: Connection, query: str, *, days: str, limit: int, now_s: float) -> Mapping[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for tenant_id, before in _deadlines(tx, days=days, now_s=now_s):
        left = limit - sum(map(len, found.values()))
        for _, request_id in tx.execute(query, {"tenant_id": tenant_id, "before": before, "limit": left}):
            found[tenant_id].add(request_id)
    return found


def _deadlines(tx: Connection, *, days: str, now_s: float) -> Sequence[tuple[str, str]]:
    """Of each tenant that has one, the time before which everything has aged out."""
    rows = tx.execute(f"select id, {days} from tenants where {days} is not null order by id")  # noqa: S608  a column
    return [(tenant_id, utc(now_s - kept_days * DAY_S)) for tenant_id, kept_days in rows.fetchall()]


def forget(tx: Connection, chunks: Sequence[Row], aged: Aged, *, limit: int, now_s: float) -> int:
    """Rows of chunks, what other rows know of objects that are gone, texts, and messages; how many of the last."""
    tx.executemany(
        "delete from job_chunks where tenant_id = ? and job_id = ? and chunk_index = ?",
        [(chunk["tenant_id"], chunk["job_id"], chunk["chunk_index"]) for chunk in chunks],
    )
    for ids, of_request, of_job in (
        (aged.audio, "swept_fence = fence, audio_path = null", "audio_path = null, alignments_path = null"),
        (aged.texts, "result = null", "text = null, alignments_path = null"),
    ):
        pairs = [(tenant_id, request_id) for tenant_id, requests in ids.items() for request_id in requests]
        # What has been begun anew in the meantime is left alone.
        tx.executemany(
            f"update requests set {of_request} where tenant_id = ? and request_id = ? and status <> 'running'",  # noqa: S608
            pairs,
        )
        tx.executemany(
            f"update jobs set {of_job} where tenant_id = ? and id = ? and status in ('completed', 'failed')",  # noqa: S608
            pairs,
        )
    return sum(
        _forget_messages(tx, *deadline, limit=limit) for deadline in _deadlines(tx, days="message_days", now_s=now_s)
    )


def _forget_messages(tx: Connection, tenant_id: str, before: str, *, limit: int) -> int:
    return tx.execute(
        """
        delete from messages where rowid in (
            select rowid from messages where tenant_id = ? and created_at < ? order by created_at limit ?
        )
        """,
        (tenant_id, before, limit),
    ).rowcount
