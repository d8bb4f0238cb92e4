"""What every body of the Store promises about kept jobs and their chunks."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import get_args

import pytest

from tests.stores import Clock, Place
from tts_core.errors import JobNotFound, RequestRunning
from tts_core.store import (
    ChunkSpeech,
    JobRow,
    JobStatus,
    NewChunk,
    NewJob,
    NewKey,
    Outcome,
    Reservation,
    Reserved,
    Store,
)

LEASE_S = 30.0
JOB = NewJob("A text.", "en", voice_id="nova", user_id="u1", include_alignments=True)
SUCCESS = Outcome(status="success", latency_ms=5, audio_seconds=2.5, result="{}")
FAILED = Outcome(status="failed", latency_ms=5, audio_seconds=0.5, error="internal")
CANCELLED = Outcome(status="cancelled", latency_ms=5, audio_seconds=0.5, error="cancelled")
SPEECH = ChunkSpeech(sha256="a" * 64, duration_s=1.25, alignment='[{"samples": 30000}]')


@pytest.fixture
async def key(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=["synthesize"])


@pytest.fixture
async def reserved(store: Store, key: NewKey) -> Reserved:
    return await reserve(store, key)


async def reserve(store: Store, key: NewKey, *, identity: str = "job-1") -> Reserved:
    """A request that runs, or its next attempt."""
    reservation = Reservation(key.secret, "synthesize", identity, "f", "synthesize", lease_s=LEASE_S)
    return await store.reserve(reservation)


def chunks_of(reserved: Reserved, count: int, *, fingerprint: str = "f") -> Sequence[NewChunk]:
    folder = f"audio/{reserved.tenant.id}/{reserved.request_id}"
    return [NewChunk(f"part {n}", f"{fingerprint}{n}", f"{folder}.chunk{n}") for n in range(count)]


async def begin(store: Store, reserved: Reserved, count: int, *, fingerprint: str = "f") -> list[tuple[str, int]]:
    """Open and begin; status and attempts of each chunk."""
    await store.open_job(reserved, JOB)
    chunks = chunks_of(reserved, count, fingerprint=fingerprint)
    rows = await store.begin_job(reserved, chunks=chunks)
    assert [row.index for row in rows] == list(range(count))
    return [(row.status, row.attempts) for row in rows]


async def speak(store: Store, reserved: Reserved, token: str) -> int:
    """Claim and finish one chunk."""
    chunk = await store.claim_chunk(reserved, token=token, lease_s=LEASE_S)
    assert chunk is not None
    await store.put_object(chunk.object_path, b"samples", content_type="audio/wav")
    assert await store.finish_chunk(reserved, SPEECH, token=token)
    return chunk.index


class TestJob:
    async def test_it_is_queued_and_begun_and_completed_with_its_request(
        self, store: Store, reserved: Reserved
    ) -> None:
        tenant_id, job_id = reserved.tenant.id, reserved.request_id
        await store.open_job(reserved, JOB)
        queued = await store.get_job(tenant_id, job_id)
        assert (queued.status, queued.text, queued.user_id) == ("queued", JOB.text, "u1")
        assert (queued.voice_id, queued.language) == ("nova", "en")
        assert queued.include_alignments
        await store.begin_job(reserved, chunks=())
        assert (await store.get_job(tenant_id, job_id)).status == "processing"
        paths = {"audio_path": f"audio/{tenant_id}/a.wav", "alignments_path": f"audio/{tenant_id}/a.json"}
        await store.keep_job(reserved, **paths, duration_s=2.5)
        assert (await store.get_job(tenant_id, job_id)).status == "processing"
        assert await store.settle(reserved, SUCCESS)
        job = await store.get_job(tenant_id, job_id)
        assert (job.status, job.error, job.duration_s) == ("completed", None, 2.5)
        assert (job.audio_path, job.alignments_path) == tuple(paths.values())

    async def test_its_times_are_the_clocks(self, store: Store, reserved: Reserved, clock: Clock) -> None:
        await store.open_job(reserved, JOB)
        clock.now_s += 5
        await store.begin_job(reserved, chunks=())
        job = await store.get_job(reserved.tenant.id, reserved.request_id)
        assert (job.created_at, job.updated_at) == (reserved.tenant.created_at, "2027-01-15T08:00:05.000000+00:00")

    @pytest.mark.parametrize(("outcome", "error"), [(FAILED, "internal"), (CANCELLED, "cancelled")])
    async def test_it_fails_with_its_request(
        self, store: Store, reserved: Reserved, outcome: Outcome, error: str
    ) -> None:
        await store.open_job(reserved, JOB)
        await store.settle(reserved, outcome)
        job = await store.get_job(reserved.tenant.id, reserved.request_id)
        assert (job.status, job.error) == ("failed", error)

    async def test_who_reaps_a_dead_worker_ends_its_job(self, store: Store, key: NewKey, clock: Clock) -> None:
        dead = await reserve(store, key)
        await begin(store, dead, 3)
        clock.now_s += LEASE_S + 1
        await reserve(store, key, identity="other")
        job = await store.get_job(dead.tenant.id, dead.request_id)
        assert (job.status, job.error) == ("failed", "abandoned")

    async def test_one_that_has_ended_is_not_begun(self, store: Store, reserved: Reserved) -> None:
        await store.open_job(reserved, JOB)
        await store.settle(reserved, SUCCESS)
        with pytest.raises(RequestRunning):
            await store.begin_job(reserved, chunks=chunks_of(reserved, 3))
        assert await store.list_chunks(reserved.tenant.id, reserved.request_id) == ()

    async def test_the_next_attempt_queues_it_again(self, store: Store, key: NewKey, clock: Clock) -> None:
        first = await reserve(store, key)
        await store.open_job(first, JOB)
        await store.settle(first, FAILED)
        clock.now_s += 10
        second = await reserve(store, key)
        await store.open_job(second, JOB)
        job = await store.get_job(first.tenant.id, first.request_id)
        assert (job.status, job.error, job.created_at) == ("queued", None, first.tenant.created_at)

    async def test_only_the_newest_attempt_writes_it(self, store: Store, key: NewKey, clock: Clock) -> None:
        old = await reserve(store, key)
        await begin(store, old, 3)
        clock.now_s += LEASE_S + 1
        new = await reserve(store, key)
        await begin(store, new, 3)
        with pytest.raises(RequestRunning):
            await store.begin_job(old, chunks=())
        await store.open_job(old, replace(JOB, text="old"))
        await store.keep_job(old, audio_path=None, alignments_path=None, duration_s=9.0)
        assert await store.claim_chunk(old, token="old", lease_s=LEASE_S) is None
        job = await store.get_job(new.tenant.id, new.request_id)
        assert (job.status, job.text, job.voice_id, job.duration_s) == ("processing", JOB.text, "nova", None)
        assert [chunk.status for chunk in await store.list_chunks(new.tenant.id, new.request_id)] == ["pending"] * 3

    async def test_an_unknown_and_a_foreign_id_are_the_same(self, store: Store, reserved: Reserved) -> None:
        await begin(store, reserved, 3)
        other = await store.create_tenant("other", scopes=["synthesize"])
        told = []
        for job_id in (reserved.request_id, "0" * 32):
            with pytest.raises(JobNotFound) as caught:
                await store.get_job(other.tenant.id, job_id)
            told.append(str(caught.value).replace(job_id, "id"))
            assert await store.list_chunks(other.tenant.id, job_id) == ()
        assert told[0] == told[1]
        assert await store.list_jobs(other.tenant.id, limit=10) == ()


class TestList:
    @pytest.mark.parametrize("status", [None, "queued"])
    async def test_the_newest_come_first_and_pages_join(
        self, store: Store, key: NewKey, clock: Clock, status: JobStatus | None
    ) -> None:
        made = []
        for number in range(7):
            clock.now_s += number % 3  # some at the same moment
            reserved = await reserve(store, key, identity=f"job-{number}")
            await store.open_job(reserved, replace(JOB, text=f"{number}" * 1_000))
            made.append(await store.get_job(key.tenant.id, reserved.request_id))
        expected = sorted(made, key=lambda job: (job.created_at, job.id), reverse=True)
        jobs, after = list[JobRow](), None
        while page := await store.list_jobs(key.tenant.id, status=status, after=after, limit=2):
            jobs += page
            after = (page[-1].created_at, page[-1].id)
        assert jobs == [replace(job, text=job.text and job.text[:200]) for job in expected]

    async def test_by_status(self, store: Store, key: NewKey) -> None:
        jobs = [await reserve(store, key, identity=f"job-{number}") for number in range(4)]
        for reserved in jobs:
            await store.open_job(reserved, JOB)
        await store.begin_job(jobs[1], chunks=())
        await store.settle(jobs[2], SUCCESS)
        await store.settle(jobs[3], FAILED)
        for status, reserved in zip(get_args(JobStatus), jobs, strict=True):
            (job,) = await store.list_jobs(key.tenant.id, status=status, limit=10)
            assert job.id == reserved.request_id
            assert await store.list_jobs(key.tenant.id, status=status, after=(job.created_at, job.id), limit=10) == ()


class TestChunks:
    async def test_they_are_claimed_in_order_and_finished(self, store: Store, reserved: Reserved) -> None:
        assert await begin(store, reserved, 3) == [("pending", 0)] * 3
        assert [await speak(store, reserved, token) for token in "abc"] == [0, 1, 2]
        assert await store.claim_chunk(reserved, token="d", lease_s=LEASE_S) is None
        for chunk in await store.list_chunks(reserved.tenant.id, reserved.request_id):
            assert (chunk.status, chunk.attempts, chunk.speech, chunk.is_paid) == ("done", 1, SPEECH, False)

    async def test_twice_is_as_once(self, store: Store, reserved: Reserved) -> None:
        await begin(store, reserved, 3)
        first = await store.claim_chunk(reserved, token="a", lease_s=LEASE_S)
        assert await store.claim_chunk(reserved, token="a", lease_s=LEASE_S) == first
        assert await store.finish_chunk(reserved, SPEECH, token="a")
        assert await store.finish_chunk(reserved, SPEECH, token="a")
        for _ in range(2):
            await store.open_job(reserved, JOB)
            rows = await store.begin_job(reserved, chunks=chunks_of(reserved, 3))
            assert [row.status for row in rows] == ["done", "pending", "pending"]

    async def test_the_next_attempt_goes_on_behind_what_is_done(self, store: Store, key: NewKey, clock: Clock) -> None:
        first = await reserve(store, key)
        await begin(store, first, 4)
        await speak(store, first, "a")
        await store.claim_chunk(first, token="b", lease_s=1_000)
        clock.now_s += LEASE_S + 1
        second = await reserve(store, key)
        assert await begin(store, second, 4) == [("done", 1), ("pending", 1), ("pending", 0), ("pending", 0)]
        assert not await store.finish_chunk(first, SPEECH, token="b")
        assert [await speak(store, second, token) for token in "cde"] == [1, 2, 3]

    async def test_what_would_sound_otherwise_now_is_spoken_again(
        self, store: Store, key: NewKey, clock: Clock
    ) -> None:
        first = await reserve(store, key)
        await begin(store, first, 3)
        await speak(store, first, "a")
        clock.now_s += LEASE_S + 1
        second = await reserve(store, key)
        assert await begin(store, second, 2, fingerprint="other") == [("pending", 1), ("pending", 0)]
        (chunk, _, left_over) = await store.list_chunks(second.tenant.id, second.request_id)
        assert (chunk.speech, left_over.status) == (None, "failed")
        assert [await speak(store, second, token) for token in "bc"] == [0, 1]
        assert await store.claim_chunk(second, token="d", lease_s=LEASE_S) is None

    async def test_a_lease_runs_out(self, store: Store, reserved: Reserved, clock: Clock) -> None:
        await begin(store, reserved, 1)
        await store.claim_chunk(reserved, token="a", lease_s=LEASE_S)
        assert await store.claim_chunk(reserved, token="b", lease_s=LEASE_S) is None
        clock.now_s += LEASE_S
        taken_over = await store.claim_chunk(reserved, token="b", lease_s=LEASE_S)
        assert taken_over is not None
        assert taken_over.attempts == 2
        assert not await store.finish_chunk(reserved, SPEECH, token="a")
        assert await store.finish_chunk(reserved, SPEECH, token="b")

    async def test_a_late_finish_counts_while_nobody_else_has_the_chunk(
        self, store: Store, reserved: Reserved, clock: Clock
    ) -> None:
        await begin(store, reserved, 1)
        await store.claim_chunk(reserved, token="a", lease_s=LEASE_S)
        clock.now_s += LEASE_S + 1
        assert await store.finish_chunk(reserved, SPEECH, token="a")

    async def test_a_failed_one_waits_for_the_next_attempt(self, store: Store, key: NewKey) -> None:
        first = await reserve(store, key)
        await begin(store, first, 2)
        await store.claim_chunk(first, token="a", lease_s=LEASE_S)
        await store.fail_chunk(first, token="a")
        assert not await store.finish_chunk(first, SPEECH, token="a")
        assert await speak(store, first, "b") == 1
        await store.settle(first, FAILED)
        second = await reserve(store, key)
        assert await begin(store, second, 2) == [("pending", 1), ("done", 1)]

    @pytest.mark.parametrize(("ending", "is_paid"), [(FAILED, True), (CANCELLED, True), (None, False)])
    async def test_what_an_attempt_was_charged_for_is_paid(
        self, store: Store, key: NewKey, clock: Clock, ending: Outcome | None, is_paid: bool
    ) -> None:
        first = await reserve(store, key)
        await begin(store, first, 2)
        await speak(store, first, "a")
        if ending is not None:
            await store.settle(first, ending)
        clock.now_s += LEASE_S + 1
        second = await reserve(store, key)
        await begin(store, second, 2)
        chunks = await store.list_chunks(second.tenant.id, second.request_id)
        assert [chunk.is_paid for chunk in chunks] == [is_paid, False]

    async def test_they_go_with_their_objects_once_the_job_is_completed(self, store: Store, reserved: Reserved) -> None:
        tenant_id, job_id = reserved.tenant.id, reserved.request_id
        await begin(store, reserved, 2)
        await speak(store, reserved, "a")
        paths = [chunk.object_path for chunk in await store.list_chunks(tenant_id, job_id)]
        await store.drop_chunks(tenant_id, job_id)
        assert await store.get_object(paths[0]) == b"samples"
        await store.settle(reserved, SUCCESS)
        for _ in range(2):
            await store.drop_chunks(tenant_id, job_id)
        assert await store.list_chunks(tenant_id, job_id) == ()
        with pytest.raises(KeyError):
            await store.get_object(paths[0])

    async def test_twenty_workers_claim_forty_chunks_once_each(
        self, store: Store, place: Place, clock: Clock, reserved: Reserved
    ) -> None:
        await begin(store, reserved, 40)
        async with AsyncExitStack() as stack:
            workers = []
            for _ in range(20):
                worker = await place.open(clock)
                stack.push_async_callback(worker.close)
                workers.append(worker)
            claimed = await asyncio.gather(*(claim_all(w, reserved, n) for n, w in enumerate(workers)))
        assert Counter(index for indexes in claimed for index in indexes) == Counter(range(40))
        chunks = await store.list_chunks(reserved.tenant.id, reserved.request_id)
        assert {(chunk.status, chunk.attempts) for chunk in chunks} == {("done", 1)}


async def claim_all(worker: Store, reserved: Reserved, number: int) -> list[int]:
    indexes: list[int] = []
    while chunk := await worker.claim_chunk(reserved, token=f"{number}-{len(indexes)}", lease_s=LEASE_S):
        indexes.append(chunk.index)
        await worker.finish_chunk(reserved, SPEECH, token=f"{number}-{len(indexes) - 1}")
    return indexes
