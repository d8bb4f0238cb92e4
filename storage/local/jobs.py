"""Kept jobs and their chunks, in the local store: each function is one transaction's work on its connection.

Which attempt may write is told by `jobs.fence`: of the last attempt that has opened the job.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from storage.local.area import LocalArea
from storage.local.database import Connection, Row
from storage.local.schema import Migration, utc
from tts_core.errors import JobNotFound, RequestRunning
from tts_core.store import ChunkRow, ChunkSpeech, JobRow, JobStatus, NewChunk, NewJob, Place, Reserved
from tts_core.store.jobs import LISTED_CHARS

MIGRATIONS: tuple[Migration, ...] = (
    (
        "0008_jobs",
        (
            """
            create table jobs (
                id text not null,
                tenant_id text not null references tenants (id) on delete cascade,
                fence integer not null check (fence >= 1),
                user_id text,
                text text,
                voice_id text,
                language text not null,
                include_alignments integer not null check (include_alignments in (0, 1)),
                status text not null check (status in ('queued', 'processing', 'completed', 'failed')),
                error text,
                audio_path text check (
                    audio_path glob 'audio/' || tenant_id || '/*'
                    or audio_path glob 'tts-cache/' || tenant_id || '/*' or audio_path glob 'tts-cache/shared/*'
                ),
                alignments_path text check (alignments_path glob 'audio/' || tenant_id || '/*'),
                duration_s real,
                created_at text not null,
                updated_at text not null,
                primary key (tenant_id, id)
            ) strict
            """,
            "create index jobs_newest on jobs (tenant_id, created_at, id)",
            "create index jobs_of_status on jobs (tenant_id, status, created_at, id)",
            """
            create table job_chunks (
                tenant_id text not null,
                job_id text not null,
                chunk_index integer not null check (chunk_index >= 0),
                text_excerpt text not null,
                fingerprint text not null,
                object_path text not null check (object_path glob 'audio/' || tenant_id || '/*'),
                status text not null check (status in ('pending', 'leased', 'done', 'failed')),
                attempts integer not null default 0,
                is_paid integer not null default 0 check (is_paid in (0, 1)),
                lease_token text,
                lease_expires_at text,
                sha256 text,
                duration_s real,
                alignment text,
                primary key (tenant_id, job_id, chunk_index),
                foreign key (tenant_id, job_id) references jobs (tenant_id, id) on delete cascade
            ) strict
            """,
            # Settling a request, which may be done by a worker that knows of no job, is what ends the job.
            """
            create trigger jobs_follow_requests after update of status on requests when new.status <> 'running' begin
                update jobs set
                    status = iif(new.status = 'success', 'completed', 'failed'),
                    error = iif(new.status = 'success', null, coalesce(new.error, new.status)),
                    updated_at = new.settled_at
                where tenant_id = new.tenant_id and id = new.request_id;
                update job_chunks set is_paid = 1
                where tenant_id = new.tenant_id and job_id = new.request_id and status = 'done'
                    and new.status in ('failed', 'cancelled');
            end
            """,
        ),
    ),
)


class LocalJobs(LocalArea):
    """`tts_core.store.Jobs`"""

    async def open_job(self, reserved: Reserved, job: NewJob) -> None:
        await self._database.write(lambda tx: open_job(tx, reserved, job, now_s=self._clock()))

    async def begin_job(self, reserved: Reserved, *, chunks: Sequence[NewChunk]) -> Sequence[ChunkRow]:
        return await self._database.write(lambda tx: begin_job(tx, reserved, chunks, now_s=self._clock()))

    async def claim_chunk(self, reserved: Reserved, *, token: str, lease_s: float) -> ChunkRow | None:
        return await self._database.write(
            lambda tx: claim_chunk(tx, reserved, token, lease_s=lease_s, now_s=self._clock())
        )

    async def finish_chunk(self, reserved: Reserved, speech: ChunkSpeech, *, token: str) -> bool:
        return await self._database.write(lambda tx: finish_chunk(tx, reserved, speech, token=token))

    async def fail_chunk(self, reserved: Reserved, *, token: str) -> None:
        await self._database.write(lambda tx: fail_chunk(tx, reserved, token=token))

    async def keep_job(
        self, reserved: Reserved, *, audio_path: str | None, alignments_path: str | None, duration_s: float
    ) -> None:
        made = {"audio_path": audio_path, "alignments_path": alignments_path, "duration_s": duration_s}
        await self._database.write(lambda tx: keep_job(tx, reserved, made, now_s=self._clock()))

    async def get_job(self, tenant_id: str, job_id: str) -> JobRow:
        return await self._database.read(lambda tx: get_job(tx, tenant_id, job_id))

    async def list_jobs(
        self, tenant_id: str, *, status: JobStatus | None = None, after: Place | None = None, limit: int
    ) -> Sequence[JobRow]:
        return await self._database.read(lambda tx: list_jobs(tx, tenant_id, status=status, after=after, limit=limit))

    async def list_chunks(self, tenant_id: str, job_id: str) -> Sequence[ChunkRow]:
        return await self._database.read(lambda tx: list_chunks(tx, tenant_id, job_id))

    async def drop_chunks(self, tenant_id: str, job_id: str) -> None:
        for path in await self._database.read(lambda tx: paths_of_completed(tx, tenant_id, job_id)):
            await asyncio.to_thread(self._objects.delete, path)
        await self._database.write(lambda tx: drop_chunks(tx, tenant_id, job_id))


def open_job(tx: Connection, reserved: Reserved, job: NewJob, *, now_s: float) -> None:
    tx.execute(
        """
        insert into jobs (
            id, tenant_id, fence, user_id, text, voice_id, language, include_alignments, status,
            created_at, updated_at
        ) values (
            :job_id, :tenant_id, :fence, :user_id, :text, :voice_id, :language, :include_alignments, 'queued',
            :now, :now
        ) on conflict (tenant_id, id) do update set
            fence = excluded.fence, text = excluded.text, voice_id = excluded.voice_id, language = excluded.language,
            status = 'queued', error = null, updated_at = excluded.updated_at
        where excluded.fence > jobs.fence
        """,
        _attempt(reserved) | asdict(job) | {"now": utc(now_s)},
    )


def begin_job(tx: Connection, reserved: Reserved, chunks: Sequence[NewChunk], *, now_s: float) -> Sequence[ChunkRow]:
    began = tx.execute(
        """
        update jobs set status = 'processing', updated_at = :now
        where tenant_id = :tenant_id and id = :job_id and fence = :fence and status in ('queued', 'processing')
        """,
        _attempt(reserved) | {"now": utc(now_s)},
    )
    if began.rowcount == 0:
        raise RequestRunning("another worker has taken this request over")
    # Another planner made more of them once: their rows stay, as they know the objects that have to go some day.
    tx.execute(
        "update job_chunks set status = 'failed' where tenant_id = ? and job_id = ? and chunk_index >= ?",
        (reserved.tenant.id, reserved.request_id, len(chunks)),
    )
    for index, chunk in enumerate(chunks):
        tx.execute(
            """
            insert into job_chunks (tenant_id, job_id, chunk_index, text_excerpt, fingerprint, object_path, status)
            values (:tenant_id, :job_id, :index, :text_excerpt, :fingerprint, :object_path, 'pending')
            on conflict (tenant_id, job_id, chunk_index) do update set
                text_excerpt = excluded.text_excerpt, fingerprint = excluded.fingerprint, status = 'pending',
                object_path = excluded.object_path, is_paid = 0, lease_token = null, lease_expires_at = null,
                sha256 = null, duration_s = null, alignment = null
            where job_chunks.status <> 'done' or job_chunks.fingerprint <> excluded.fingerprint
            """,
            _attempt(reserved) | asdict(chunk) | {"index": index},
        )
    return list_chunks(tx, reserved.tenant.id, reserved.request_id)[: len(chunks)]


def claim_chunk(tx: Connection, reserved: Reserved, token: str, *, lease_s: float, now_s: float) -> ChunkRow | None:
    asked = _attempt(reserved) | {"token": token, "now": utc(now_s), "until": utc(now_s + lease_s)}
    row = tx.execute(
        "select * from job_chunks where tenant_id = :tenant_id and job_id = :job_id and lease_token = :token", asked
    ).fetchone()
    if row is None:
        row = tx.execute(
            """
            update job_chunks set
                status = 'leased', lease_token = :token, lease_expires_at = :until, attempts = attempts + 1
            where tenant_id = :tenant_id and job_id = :job_id and chunk_index = (
                select chunk_index from job_chunks join jobs on jobs.tenant_id = job_chunks.tenant_id and id = job_id
                where job_chunks.tenant_id = :tenant_id and job_id = :job_id and fence = :fence
                    and (job_chunks.status = 'pending'
                        or (job_chunks.status = 'leased' and lease_expires_at <= :now))
                order by chunk_index limit 1
            )
            returning *
            """,
            asked,
        ).fetchone()
    return None if row is None else _chunk(row)


def finish_chunk(tx: Connection, reserved: Reserved, speech: ChunkSpeech, *, token: str) -> bool:
    """A lease that has run out still counts while nobody else has taken the chunk."""
    done = tx.execute(
        """
        update job_chunks set
            status = 'done', lease_expires_at = null, sha256 = :sha256, duration_s = :duration_s,
            alignment = :alignment
        where tenant_id = :tenant_id and job_id = :job_id and lease_token = :token and status in ('leased', 'done')
        """,
        _attempt(reserved) | asdict(speech) | {"token": token},
    )
    return done.rowcount == 1


def fail_chunk(tx: Connection, reserved: Reserved, *, token: str) -> None:
    tx.execute(
        """
        update job_chunks set status = 'failed', lease_expires_at = null
        where tenant_id = :tenant_id and job_id = :job_id and lease_token = :token and status = 'leased'
        """,
        _attempt(reserved) | {"token": token},
    )


def keep_job(tx: Connection, reserved: Reserved, made: Mapping[str, Any], *, now_s: float) -> None:
    tx.execute(
        """
        update jobs set
            audio_path = :audio_path, alignments_path = :alignments_path, duration_s = :duration_s, updated_at = :now
        where tenant_id = :tenant_id and id = :job_id and fence = :fence
        """,
        {**_attempt(reserved), **made, "now": utc(now_s)},
    )


def get_job(tx: Connection, tenant_id: str, job_id: str) -> JobRow:
    row = tx.execute("select * from jobs where tenant_id = ? and id = ?", (tenant_id, job_id)).fetchone()
    if row is None:
        raise JobNotFound(f"no job {job_id!r}")
    return _job(row)


def list_jobs(
    tx: Connection, tenant_id: str, *, status: JobStatus | None, after: Place | None, limit: int
) -> Sequence[JobRow]:
    of_status, named = ("", ()) if status is None else ("and status = ?", (status,))
    further, place = ("", ()) if after is None else ("and (created_at, id) < (?, ?)", after)
    rows = tx.execute(
        f"select * from jobs where tenant_id = ? {of_status} {further} order by created_at desc, id desc limit ?",  # noqa: S608  no value in it
        (tenant_id, *named, *place, limit),
    )
    return tuple(replace(job, text=job.text and job.text[:LISTED_CHARS]) for job in map(_job, rows))


def list_chunks(tx: Connection, tenant_id: str, job_id: str) -> Sequence[ChunkRow]:
    rows = tx.execute(
        "select * from job_chunks where tenant_id = ? and job_id = ? order by chunk_index", (tenant_id, job_id)
    )
    return tuple(map(_chunk, rows))


def paths_of_completed(tx: Connection, tenant_id: str, job_id: str) -> Sequence[str]:
    """Of a job that may be continued there are none."""
    rows = tx.execute(
        """
        select object_path from job_chunks
        join jobs on jobs.tenant_id = job_chunks.tenant_id and jobs.id = job_id and jobs.status = 'completed'
        where job_chunks.tenant_id = ? and job_id = ?
        """,
        (tenant_id, job_id),
    )
    return tuple(row["object_path"] for row in rows)


def drop_chunks(tx: Connection, tenant_id: str, job_id: str) -> None:
    tx.execute(
        """
        delete from job_chunks where tenant_id = :tenant_id and job_id = :job_id
            and exists (select 1 from jobs where tenant_id = :tenant_id and id = :job_id and status = 'completed')
        """,
        {"tenant_id": tenant_id, "job_id": job_id},
    )


def _attempt(reserved: Reserved) -> dict[str, Any]:
    return {"tenant_id": reserved.tenant.id, "job_id": reserved.request_id, "fence": reserved.fence}


def _job(row: Row) -> JobRow:
    columns = {field.name: row[field.name] for field in fields(JobRow)}
    return JobRow(**columns | {"include_alignments": bool(row["include_alignments"])})


def _chunk(row: Row) -> ChunkRow:
    speech = {field.name: row[field.name] for field in fields(ChunkSpeech)}
    return ChunkRow(
        index=row["chunk_index"],
        text_excerpt=row["text_excerpt"],
        fingerprint=row["fingerprint"],
        object_path=row["object_path"],
        status=row["status"],
        attempts=row["attempts"],
        is_paid=bool(row["is_paid"]),
        speech=ChunkSpeech(**speech) if row["status"] == "done" else None,
    )
