"""Syntheses that asked to be kept, and the chunks of long ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tts_core.store.pages import Place
from tts_core.store.requests import Reserved

LISTED_CHARS = 200
"""Of a text in a list."""

JobStatus = Literal["queued", "processing", "completed", "failed"]
ChunkStatus = Literal["pending", "leased", "done", "failed"]


@dataclass(frozen=True, slots=True)
class NewJob:
    """What was asked to be spoken and kept."""

    text: str
    language: str
    voice_id: str | None = None
    user_id: str | None = None
    include_alignments: bool = False


@dataclass(frozen=True, slots=True)
class JobRow:
    """A kept synthesis; `id` is its request's.

    text              None once it has aged out
    status            follows the request: whoever settles that, be it as abandoned, has told it here
    error             code of the error the last attempt ended with
    audio_path        None until it is completed, where nothing could be kept, and once it has aged out
    alignments_path   of a JSON file, where alignments were asked for
    duration_s        of the audio
    """

    id: str
    tenant_id: str
    user_id: str | None
    text: str | None
    voice_id: str | None
    language: str
    include_alignments: bool
    status: JobStatus
    error: str | None
    audio_path: str | None
    alignments_path: str | None
    duration_s: float | None
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A part of a long text: some utterances in a row.

    text_excerpt  its beginning
    fingerprint   sha256 of everything its samples depend on: what was spoken under another one is of no use
    object_path   where its samples will lie: told beforehand, so that no object is ever without a row
    """

    text_excerpt: str
    fingerprint: str
    object_path: str


@dataclass(frozen=True, slots=True)
class ChunkSpeech:
    """What became of a chunk.

    sha256     of the object with its samples, as hex
    alignment  JSON text: how the samples are divided among utterances, and when their words sound
    """

    sha256: str
    duration_s: float
    alignment: str


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk of a job; `index` counts from 0.

    attempts  how often it was claimed
    is_paid   an attempt that failed or was cancelled has been charged for it
    """

    index: int
    text_excerpt: str
    fingerprint: str
    object_path: str
    status: ChunkStatus
    attempts: int
    is_paid: bool
    speech: ChunkSpeech | None


class Jobs(Protocol):
    """What an attempt writes here is ignored once a newer attempt has opened the job."""

    async def open_job(self, reserved: Reserved, job: NewJob) -> None:
        """Write the row, `queued`; a later attempt finds its row and queues it again."""

    async def begin_job(self, reserved: Reserved, *, chunks: Sequence[NewChunk]) -> Sequence[ChunkRow]:
        """The job is `processing`, in these chunks (none: it is short); returns them, in order.

        Chunks that an earlier attempt has finished with the same fingerprint are still `done`; all others are
        `pending`, whoever leased them.

        raises  RequestRunning if a newer attempt has opened the job
        """

    async def claim_chunk(self, reserved: Reserved, *, token: str, lease_s: float) -> ChunkRow | None:
        """Lease the first chunk that is pending, or whose lease has run out; None if there is none for this attempt.

        token  new for each claim; the same one again gives the same chunk again
        """

    async def finish_chunk(self, reserved: Reserved, speech: ChunkSpeech, *, token: str) -> bool:
        """The chunk claimed with this token is `done`; False if another claim has taken it over."""

    async def fail_chunk(self, reserved: Reserved, *, token: str) -> None:
        """The chunk claimed with this token could not be spoken or kept; the next attempt may."""

    async def keep_job(
        self, reserved: Reserved, *, audio_path: str | None, alignments_path: str | None, duration_s: float
    ) -> None:
        """Note what was made. The job is `completed` when its request is settled."""

    async def get_job(self, tenant_id: str, job_id: str) -> JobRow:
        """raises  JobNotFound"""

    async def list_jobs(
        self, tenant_id: str, *, status: JobStatus | None = None, after: Place | None = None, limit: int
    ) -> Sequence[JobRow]:
        """Newest first, from after `after` on; of texts the first LISTED_CHARS."""

    async def list_chunks(self, tenant_id: str, job_id: str) -> Sequence[ChunkRow]:
        """In order."""

    async def drop_chunks(self, tenant_id: str, job_id: str) -> None:
        """Forget the chunks of a completed job, objects first; of any other job nothing."""
