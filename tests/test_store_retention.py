"""What every body of the Store promises about what ages out, and about whose turn a chore is."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from tests.stores import Clock, Place
from tts_core.errors import TenantNotFound
from tts_core.store import (
    ChunkSpeech,
    MessageRow,
    NewChunk,
    NewJob,
    NewKey,
    Outcome,
    PersonaRow,
    Purged,
    Reservation,
    Reserved,
    Retention,
    Store,
    UserRow,
)

DAY_S = 86_400.0
LEASE_S = 30.0
LIMIT = 100
JOB = NewJob("A secret text.", "en")
NOTHING = Purged()


@pytest.fixture
async def key(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=["synthesize"])


async def speak(store: Store, key: NewKey, *, identity: str = "job-1", chunks: int = 0) -> Reserved:
    """A kept request that has succeeded, with all that is left of it."""
    reserved = await begin(store, key, identity=identity, chunks=chunks)
    path = path_of(reserved)
    await store.put_object(path, b"audio", content_type="audio/wav")
    await store.put_object(f"{path}.json", b"[]", content_type="application/json")
    await store.keep_job(reserved, audio_path=path, alignments_path=f"{path}.json", duration_s=1.0)
    result = json.dumps({"text": JOB.text})
    await store.settle(reserved, Outcome(status="success", latency_ms=1, result=result, audio_path=path))
    return reserved


async def begin(store: Store, key: NewKey, *, identity: str, chunks: int) -> Reserved:
    reserved = await store.reserve(Reservation(key.secret, "synthesize", identity, "f", "synthesize", lease_s=LEASE_S))
    planned = [NewChunk("A secret", f"f{n}", f"{path_of(reserved)}.chunk{n}") for n in range(chunks)]
    await store.open_job(reserved, JOB)
    await store.begin_job(reserved, chunks=planned)
    for chunk in planned:
        await store.claim_chunk(reserved, token=chunk.fingerprint, lease_s=LEASE_S)
        await store.put_object(chunk.object_path, b"samples", content_type="audio/wav")
        await store.finish_chunk(reserved, ChunkSpeech("a" * 64, 1.0, "[]"), token=chunk.fingerprint)
    return reserved


def path_of(reserved: Reserved) -> str:
    return f"audio/{reserved.tenant.id}/{reserved.request_id}.wav"


async def is_there(store: Store, path: str) -> bool:
    try:
        await store.get_object(path)
    except KeyError:
        return False
    return True


async def told(store: Store, key: NewKey, *, identity: str = "job-1") -> tuple[str | None, str | None]:
    """Result and audio path of a request that is asked for again."""
    again = await store.reserve(Reservation(key.secret, "synthesize", identity, "f", "synthesize"))
    assert again.outcome is not None
    return again.outcome.result, again.outcome.audio_path


class TestSettings:
    async def test_a_new_tenant_keeps_everything(self, store: Store, key: NewKey) -> None:
        assert await store.get_retention(key.tenant.id) == Retention()

    async def test_what_was_set_is_told(self, store: Store, other_worker: Store, key: NewKey) -> None:
        for retention in (Retention(1, 30, None), Retention(None, None, 1)):
            await store.set_retention(key.tenant.id, retention)
            assert await other_worker.get_retention(key.tenant.id) == retention

    async def test_an_unknown_tenant_has_none(self, store: Store) -> None:
        with pytest.raises(TenantNotFound):
            await store.get_retention("nobody")
        with pytest.raises(TenantNotFound):
            await store.set_retention("nobody", Retention())


class TestPurge:
    async def test_without_retention_nothing_ages(self, store: Store, key: NewKey, clock: Clock) -> None:
        reserved = await speak(store, key)
        clock.now_s += 10_000 * DAY_S
        assert await store.purge(limit=LIMIT) == NOTHING
        assert await is_there(store, path_of(reserved))

    async def test_audio_goes_when_its_days_are_over(self, store: Store, key: NewKey, clock: Clock) -> None:
        await store.set_retention(key.tenant.id, Retention(audio_days=30))
        reserved = await speak(store, key)
        path = path_of(reserved)
        await store.put_object(f"{path}.1.7", b"a chunk of a stream that no row knows of", content_type="audio/wav")
        clock.now_s += 29.9 * DAY_S
        assert await store.purge(limit=LIMIT) == NOTHING
        clock.now_s += 0.2 * DAY_S
        assert await store.purge(limit=LIMIT) == Purged(audio=3)
        assert not any([await is_there(store, name) for name in (path, f"{path}.json", f"{path}.1.7")])
        job = await store.get_job(key.tenant.id, reserved.request_id)
        assert (job.status, job.text, job.audio_path, job.alignments_path) == ("completed", JOB.text, None, None)
        result, audio_path = await told(store, key)
        assert (result is not None, audio_path) == (True, None)
        assert await store.purge(limit=LIMIT) == NOTHING

    async def test_texts_go_when_their_days_are_over(self, store: Store, key: NewKey, clock: Clock) -> None:
        await store.set_retention(key.tenant.id, Retention(text_days=7))
        reserved = await speak(store, key)
        clock.now_s += 6.9 * DAY_S
        assert await store.purge(limit=LIMIT) == NOTHING
        clock.now_s += 0.2 * DAY_S
        purged = await store.purge(limit=LIMIT)
        assert (purged.texts, purged.audio) == (1, 1), "the alignments tell the text, the audio stays"
        assert await is_there(store, path_of(reserved))
        assert not await is_there(store, f"{path_of(reserved)}.json")
        assert (await store.get_job(key.tenant.id, reserved.request_id)).text is None
        assert await told(store, key) == (None, path_of(reserved))

    async def test_a_job_that_is_old_and_runs_again_is_left_alone(
        self, store: Store, key: NewKey, clock: Clock
    ) -> None:
        await store.set_retention(key.tenant.id, Retention(text_days=1))
        failed = await begin(store, key, identity="job-1", chunks=2)
        await store.settle(failed, Outcome(status="failed", latency_ms=1))
        clock.now_s += 2 * DAY_S
        reserved = await begin(store, key, identity="job-1", chunks=2)
        assert await store.purge(limit=LIMIT) == NOTHING
        assert (await store.get_job(key.tenant.id, reserved.request_id)).text == JOB.text

    async def test_messages_go_when_their_days_are_over(self, store: Store, key: NewKey, clock: Clock) -> None:
        tenant_id = key.tenant.id
        await store.set_retention(tenant_id, Retention(message_days=1))
        await store.put_user(UserRow("u1", tenant_id, "ext", None, None, iso(clock)))
        await store.create_persona(PersonaRow("p1", tenant_id, "u1", "Ada", "", None, iso(clock)))
        await store.add_message(MessageRow("m1", tenant_id, "p1", "user", "old", iso(clock)))
        clock.now_s += 0.9 * DAY_S
        await store.add_message(MessageRow("m2", tenant_id, "p1", "user", "new", iso(clock)))
        assert await store.purge(limit=LIMIT) == NOTHING
        clock.now_s += 0.2 * DAY_S
        assert await store.purge(limit=LIMIT) == Purged(messages=1)
        assert [message.id for message in await store.list_messages(tenant_id, "p1", limit=10)] == ["m2"]

    async def test_one_tenants_days_are_not_anothers(self, store: Store, key: NewKey, clock: Clock) -> None:
        other = await store.create_tenant("other", scopes=["synthesize"])
        await store.set_retention(other.tenant.id, Retention(1, 1, 1))
        reserved = await speak(store, key)
        clock.now_s += 2 * DAY_S
        assert await store.purge(limit=LIMIT) == NOTHING
        assert await is_there(store, path_of(reserved))

    async def test_a_request_that_is_made_anew_ages_anew(self, store: Store, key: NewKey, clock: Clock) -> None:
        await store.set_retention(key.tenant.id, Retention(1, 1, 1))
        failed = await begin(store, key, identity="job-1", chunks=0)
        await store.settle(failed, Outcome(status="failed", latency_ms=1))
        clock.now_s += 2 * DAY_S
        assert (await store.purge(limit=LIMIT)).texts == 1
        reserved = await speak(store, key)
        clock.now_s += 0.9 * DAY_S
        assert await store.purge(limit=LIMIT) == NOTHING
        clock.now_s += 0.2 * DAY_S
        assert await store.purge(limit=LIMIT) == Purged(audio=2, texts=1)
        assert not await is_there(store, path_of(reserved))

    async def test_requests_that_left_nothing_are_looked_at_once(self, store: Store, key: NewKey, clock: Clock) -> None:
        await store.set_retention(key.tenant.id, Retention(audio_days=1))
        for number in range(5):
            asked = Reservation(key.secret, "synthesize", f"job-{number}", "f", "synthesize")
            await store.settle(await store.reserve(asked), Outcome(status="failed", latency_ms=1))
        clock.now_s += 2 * DAY_S
        assert [(await store.purge(limit=2)).is_done for _ in range(4)] == [False, False, True, True]

    async def test_of_many_tenants_one_ages(self, store: Store, clock: Clock) -> None:
        keys = [await store.create_tenant(f"{n}", scopes=["synthesize"]) for n in range(6)]
        paths = [path_of(await speak(store, key)) for key in keys]
        clock.now_s += 2 * DAY_S
        for n in (2, 3):
            await store.set_retention(keys[n].tenant.id, Retention(audio_days=1))
            assert await store.purge(limit=LIMIT) == Purged(audio=2)
        assert [await is_there(store, path) for path in paths] == [True, True, False, False, True, True]

    async def test_voices_and_the_cache_do_not_age(self, store: Store, key: NewKey, clock: Clock) -> None:
        await store.set_retention(key.tenant.id, Retention(1, 1, 1))
        paths = [f"{bucket}/{key.tenant.id}/a.wav" for bucket in ("voices", "tts-cache")]
        for path in paths:
            await store.put_object(path, b"x", content_type="audio/wav")
        clock.now_s += 1_000 * DAY_S
        assert await store.purge(limit=LIMIT) == NOTHING
        assert all([await is_there(store, path) for path in paths])

    async def test_it_goes_in_batches(self, store: Store, key: NewKey, clock: Clock) -> None:
        await store.set_retention(key.tenant.id, Retention(1, 1, 1))
        for number in range(5):
            await speak(store, key, identity=f"job-{number}")
        clock.now_s += 2 * DAY_S
        batches = [await store.purge(limit=4)]
        while not batches[-1].is_done:
            batches.append(await store.purge(limit=4))
        assert [(batch.audio, batch.texts) for batch in batches] == [(8, 4), (2, 1)]
        assert await store.purge(limit=4) == NOTHING


class TestChunks:
    async def test_those_of_a_completed_job_go_at_once(self, store: Store, key: NewKey) -> None:
        reserved = await speak(store, key, chunks=3)
        assert await store.purge(limit=LIMIT) == Purged(chunks=3)
        assert await store.list_chunks(key.tenant.id, reserved.request_id) == ()
        assert not await is_there(store, f"{path_of(reserved)}.chunk0")
        assert await is_there(store, path_of(reserved))

    async def test_those_of_another_wait_for_a_week(self, store: Store, key: NewKey, clock: Clock) -> None:
        reserved = await begin(store, key, identity="job-1", chunks=3)
        await store.settle(reserved, Outcome(status="failed", latency_ms=1))
        clock.now_s += 6.9 * DAY_S
        assert await store.purge(limit=LIMIT) == NOTHING
        clock.now_s += 0.2 * DAY_S
        assert await store.purge(limit=2) == Purged(chunks=2, is_done=False)
        assert await store.purge(limit=2) == Purged(chunks=1)
        assert await store.list_chunks(key.tenant.id, reserved.request_id) == ()
        assert not await is_there(store, f"{path_of(reserved)}.chunk0")

    async def test_two_purges_at_once_do_no_harm(
        self, store: Store, other_worker: Store, key: NewKey, clock: Clock
    ) -> None:
        await store.set_retention(key.tenant.id, Retention(1, 1, 1))
        reserved = await speak(store, key, chunks=3)
        clock.now_s += 2 * DAY_S
        await asyncio.gather(store.purge(limit=LIMIT), other_worker.purge(limit=LIMIT))
        assert await store.purge(limit=LIMIT) == NOTHING
        assert not await is_there(store, path_of(reserved))


class TestTurns:
    async def test_a_chore_is_one_workers_at_a_time(self, store: Store, other_worker: Store, clock: Clock) -> None:
        assert await store.take_turn("purge", holder="a", for_s=300)
        assert not await other_worker.take_turn("purge", holder="b", for_s=300)
        assert await other_worker.take_turn("another", holder="b", for_s=300)
        clock.now_s += 299.9
        assert not await other_worker.take_turn("purge", holder="b", for_s=300)
        clock.now_s += 0.1
        assert await other_worker.take_turn("purge", holder="b", for_s=300)

    async def test_the_same_call_again_has_the_same_answer(self, store: Store) -> None:
        assert await store.take_turn("purge", holder="a", for_s=300)
        assert await store.take_turn("purge", holder="a", for_s=300)

    async def test_of_many_at_once_one_gets_it(self, store: Store, place: Place, clock: Clock) -> None:
        workers = [await place.open(clock) for _ in range(8)]
        turns = await asyncio.gather(
            *(worker.take_turn("purge", holder=f"{n}", for_s=300) for n, worker in enumerate(workers))
        )
        for worker in workers:
            await worker.close()
        assert turns.count(True) == 1


def iso(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now_s, UTC).isoformat(timespec="microseconds")
