"""What the service does with `jobs.*` requests, which only read."""

from collections.abc import Mapping

from tts_core.jobs import JobsGet, JobsList, JsonObject, Request
from tts_core.service.actions import Action
from tts_core.service.attempt import Attempt
from tts_core.service.delivery import MAX_YIELD_BYTES, wire_bytes
from tts_core.service.pages import page
from tts_core.store import ChunkRow, JobRow, SignedUrl, Store

MAX_JOB_BYTES = MAX_YIELD_BYTES - 1_000


class KeptJobs:
    def __init__(self, store: Store) -> None:
        self._store = store

    def actions(self) -> Mapping[type[Request], Action]:
        return {JobsGet: self.get, JobsList: self.list}

    async def get(self, request: JobsGet, attempt: Attempt) -> JsonObject:
        """The job with addresses that were made for this answer."""
        tenant_id = attempt.reserved.tenant.id
        job = await self._store.get_job(tenant_id, request.job_id)
        audio, alignments = [await self._address(path) for path in (job.audio_path, job.alignments_path)]
        told = _told(job) | {
            "audio_url": audio and audio.url,
            "alignments_url": alignments and alignments.url,
            "expires_at": audio and audio.expires_at,
            "chunks": [_told_chunk(chunk) for chunk in await self._store.list_chunks(tenant_id, job.id)],
        }
        return {"job": told if wire_bytes(told) <= MAX_JOB_BYTES else told | {"text": None}}

    async def list(self, request: JobsList, attempt: Attempt) -> JsonObject:
        """Without addresses, and with the beginnings of texts only."""
        tenant_id, limit = attempt.reserved.tenant.id, request.limit
        rows = await self._store.list_jobs(tenant_id, status=request.status, after=request.after, limit=limit + 1)
        return page("jobs", rows, limit=limit, told=_told, place=lambda row: (row.created_at, row.id))

    async def _address(self, path: str | None) -> SignedUrl | None:
        """None where there is nothing, any more or at all."""
        try:
            return await self._store.object_url(path) if path is not None else None
        except KeyError:
            return None


def _told(job: JobRow) -> JsonObject:
    return {
        "job_id": job.id,
        "status": job.status,
        "error": job.error,
        "user_id": job.user_id,
        "text": job.text,
        "voice_id": job.voice_id,
        "language": job.language,
        "include_alignments": job.include_alignments,
        "duration": None if job.duration_s is None else round(job.duration_s, 3),
        "created_at": job.created_at,
        "updated_at": job.updated_at,
    }


def _told_chunk(chunk: ChunkRow) -> JsonObject:
    return {
        "index": chunk.index,
        "text_excerpt": chunk.text_excerpt,
        "status": chunk.status,
        "attempts": chunk.attempts,
        "duration": chunk.speech and round(chunk.speech.duration_s, 3),
    }
