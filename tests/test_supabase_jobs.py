"""Kept jobs and retention in Supabase: lost answers, and what a look behind the back shows."""

from collections.abc import AsyncIterator

import pytest

from storage.supabase import client, open_supabase
from tests.stores import Clock, Project
from tests.supabase_server import Kind
from tests.test_store_jobs import SPEECH, SUCCESS, begin, chunks_of, reserve
from tests.test_store_retention import DAY_S, speak
from tts_core.errors import StoreUnavailable
from tts_core.store import NewKey, Purged, Retention, Store

RPC = "/rest/v1/rpc/"
LOST = [Kind.RESET, Kind.HTML, Kind.HALF]


@pytest.fixture
async def store(project: Project, clock: Clock) -> AsyncIterator[Store]:
    store = await open_supabase(project.server.url, project.server.service_key, clock=clock)
    yield store
    await store.close()


@pytest.fixture
async def key(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=["synthesize"])


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES_S", (0.0, 0.0))


@pytest.mark.parametrize("kind", LOST)
async def test_a_job_whose_every_answer_is_lost_once_is_as_any_other(
    store: Store, key: NewKey, project: Project, kind: Kind
) -> None:
    def lose(function: str) -> None:
        project.server.faults.next(1, kind, carried_out=True, prefix=f"{RPC}{function}")

    reserved = await reserve(store, key)
    for function in ("open_job", "begin_job", "claim_chunk", "finish_chunk", "fail_chunk", "keep_job", "list_jobs"):
        lose(function)
    assert await begin(store, reserved, 3) == [("pending", 0)] * 3
    first = await store.claim_chunk(reserved, token="a", lease_s=30)
    assert first is not None
    assert await store.finish_chunk(reserved, SPEECH, token="a")
    await store.claim_chunk(reserved, token="b", lease_s=30)
    await store.fail_chunk(reserved, token="b")
    path = f"audio/{key.tenant.id}/{reserved.request_id}.wav"
    await store.keep_job(reserved, audio_path=path, alignments_path=None, duration_s=2.5)
    chunks = await store.list_chunks(key.tenant.id, reserved.request_id)
    assert [(chunk.status, chunk.attempts) for chunk in chunks] == [("done", 1), ("failed", 1), ("pending", 0)]
    await store.settle(reserved, SUCCESS)
    (job,) = await store.list_jobs(key.tenant.id, limit=10)
    assert (job.status, job.audio_path) == ("completed", path)
    for function in ("chunks_of_completed", "forget_chunks"):
        lose(function)
    await store.drop_chunks(key.tenant.id, reserved.request_id)
    assert await store.list_chunks(key.tenant.id, reserved.request_id) == ()
    assert project.server.faults.done[kind] == 9


@pytest.mark.parametrize("kind", LOST)
async def test_a_purge_whose_every_answer_is_lost_once_leaves_nothing(
    store: Store, key: NewKey, project: Project, clock: Clock, kind: Kind
) -> None:
    await store.set_retention(key.tenant.id, Retention(1, 1, 1))
    await speak(store, key, chunks=2)
    clock.now_s += 2 * DAY_S
    functions = ("forgotten_chunks", "forget_chunks", "aged", "forget_aged", "take_turn")
    for function in functions:
        project.server.faults.next(1, kind, carried_out=True, prefix=f"{RPC}{function}")
    assert await store.take_turn("purge", holder="a", for_s=300)
    await store.purge(limit=100)
    assert project.server.faults.done[kind] == len(functions)
    assert await store.purge(limit=100) == Purged()
    assert objects(project) == []
    with project.database.connect(role="postgres") as connection:
        rows = connection.execute("select text, audio_path from jobs union all select result, audio_path from requests")
        assert rows.fetchall() == [(None, None)] * 2


@pytest.mark.parametrize("step", ["forget_chunks", "forget_aged"])
async def test_a_purge_that_dies_between_objects_and_rows_is_finished_by_the_next(
    store: Store, key: NewKey, project: Project, clock: Clock, step: str
) -> None:
    await store.set_retention(key.tenant.id, Retention(1, 1, 1))
    await speak(store, key, chunks=2)
    clock.now_s += 2 * DAY_S
    project.server.faults.next(3, Kind.UNAVAILABLE, prefix=f"{RPC}{step}")
    with pytest.raises(StoreUnavailable):
        await store.purge(limit=100)
    assert (await store.purge(limit=100)).is_done
    assert await store.purge(limit=100) == Purged()
    assert objects(project) == []
    with project.database.connect(role="postgres") as connection:
        assert connection.execute("select count(*) from job_chunks").fetchone() == (0,)


async def test_more_chunks_than_postgrest_tells_at_once(store: Store, key: NewKey) -> None:
    reserved = await reserve(store, key)
    assert len(await begin(store, reserved, 1_100)) == 1_100
    assert len(await store.list_chunks(key.tenant.id, reserved.request_id)) == 1_100


async def test_a_path_of_another_tenant_is_kept_in_no_row(store: Store, key: NewKey) -> None:
    """The last wall: our own code names no such path."""
    reserved = await reserve(store, key)
    await begin(store, reserved, 1)
    foreign = "audio/another/a.wav"
    for paths in ({"audio_path": foreign, "alignments_path": None}, {"audio_path": None, "alignments_path": foreign}):
        with pytest.raises(Exception, match="check constraint"):
            await store.keep_job(reserved, **paths, duration_s=1.0)
    chunk = chunks_of(reserved, 1)[0]
    with pytest.raises(Exception, match="check constraint"):
        await store.begin_job(reserved, chunks=[chunk, type(chunk)("x", "y", foreign)])


def objects(project: Project) -> list[str]:
    with project.database.connect(role="postgres") as connection:
        return [name for (name,) in connection.execute("select name from storage.objects")]
