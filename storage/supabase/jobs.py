"""Kept jobs and their chunks, in Supabase."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from storage.paths import checked
from storage.supabase.area import SupabaseArea, columns_of, row_of
from tts_core.errors import JobNotFound
from tts_core.store import ChunkRow, ChunkSpeech, JobRow, JobStatus, NewChunk, NewJob, Place, Reserved
from tts_core.store.jobs import LISTED_CHARS


class SupabaseJobs(SupabaseArea):
    """`tts_core.store.Jobs`"""

    async def open_job(self, reserved: Reserved, job: NewJob) -> None:
        await self._call("open_job", list, **_attempt(reserved), **asdict(job))

    async def begin_job(self, reserved: Reserved, *, chunks: Sequence[NewChunk]) -> Sequence[ChunkRow]:
        planned = [asdict(chunk) for chunk in chunks]
        rows = await self._call("begin_job", list, **_attempt(reserved), chunks=planned)
        return tuple(map(_chunk, rows))

    async def claim_chunk(self, reserved: Reserved, *, token: str, lease_s: float) -> ChunkRow | None:
        answer = await self._call("claim_chunk", dict, **_attempt(reserved), token=token, lease_s=lease_s)
        return None if answer["chunk"] is None else _chunk(answer["chunk"])

    async def finish_chunk(self, reserved: Reserved, speech: ChunkSpeech, *, token: str) -> bool:
        return await self._call("finish_chunk", bool, **_attempt(reserved), **asdict(speech), token=token)

    async def fail_chunk(self, reserved: Reserved, *, token: str) -> None:
        await self._call("fail_chunk", list, **_attempt(reserved), token=token)

    async def keep_job(
        self, reserved: Reserved, *, audio_path: str | None, alignments_path: str | None, duration_s: float
    ) -> None:
        made = {"audio_path": audio_path, "alignments_path": alignments_path, "duration_s": duration_s}
        await self._call("keep_job", list, **_attempt(reserved), **made)

    async def get_job(self, tenant_id: str, job_id: str) -> JobRow:
        where = {"tenant_id": tenant_id, "id": job_id}
        rows = await self._project.rows("jobs", columns=columns_of(JobRow), where=where, order=["id"])
        if not rows:
            raise JobNotFound(f"no job {job_id!r}")
        return row_of(JobRow, rows[0])

    async def list_jobs(
        self, tenant_id: str, *, status: JobStatus | None = None, after: Place | None = None, limit: int
    ) -> Sequence[JobRow]:
        place = {} if after is None else {"after_created_at": after[0], "after_id": after[1]}
        asked = {"tenant_id": tenant_id, "status": status, "limit": limit, "excerpt_chars": LISTED_CHARS}
        return tuple(row_of(JobRow, row) for row in await self._call("list_jobs", list, **asked, **place))

    async def list_chunks(self, tenant_id: str, job_id: str) -> Sequence[ChunkRow]:
        where = {"tenant_id": tenant_id, "job_id": job_id}
        rows = await self._project.rows("job_chunks", columns="*", where=where, order=["chunk_index"])
        return tuple(map(_chunk, rows))

    async def drop_chunks(self, tenant_id: str, job_id: str) -> None:
        chunks = await self._call("chunks_of_completed", list, tenant_id=tenant_id, job_id=job_id)
        await self._forget(chunks)

    async def _forget(self, chunks: Sequence[Mapping[str, Any]]) -> None:
        """Objects first: their rows are all that knows of them."""
        if chunks:
            names = [checked(chunk["object_path"]).removeprefix("audio/") for chunk in chunks]
            await self._project.remove("audio", names)
            await self._call("forget_chunks", int, chunks=chunks)


def _attempt(reserved: Reserved) -> dict[str, Any]:
    return {"tenant_id": reserved.tenant.id, "job_id": reserved.request_id, "fence": reserved.fence}


def _chunk(row: Mapping[str, Any]) -> ChunkRow:
    is_done = row["status"] == "done"
    speech = row_of(ChunkSpeech, row) if is_done else None
    return row_of(ChunkRow, {**row, "index": row["chunk_index"], "speech": speech})
