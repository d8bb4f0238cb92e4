"""The cache on Supabase when answers are lost: twice is as once, and a request is answered all the same."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.supabase import client, open_supabase
from tests.cached_worker import TwoVoices, Worker
from tests.stores import Project
from tests.supabase_server import Kind
from tests.test_store_cache import ALL, DAY, LATE, a_hash, an_entry, put
from tts_core.errors import ReferenceUnreachable
from tts_core.service import Service
from tts_core.settings import Settings
from tts_core.store import CacheCount, NewKey, Store

OBJECTS = "/storage/v1/object/tts-cache"


@pytest.fixture
async def store(project: Project) -> AsyncIterator[Store]:
    store = await open_supabase(project.server.url, project.server.service_key)
    yield store
    await store.close()


@pytest.fixture
async def key(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=("synthesize", "cache"))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES_S", (0.0, 0.0))


def lose_answers(project: Project, function: str) -> None:
    project.server.faults.next(2, Kind.RESET, carried_out=True, prefix=f"/rest/v1/rpc/{function}")


async def test_what_is_carried_out_again_because_its_answer_was_lost_is_as_once(
    store: Store, key: NewKey, project: Project
) -> None:
    tenant = key.tenant
    first, second = an_entry(tenant.id), an_entry(tenant.id, created_at=LATE)
    for entry, replace in ((first, False), (second, True)):
        lose_answers(project, "put_cached")
        assert await put(store, entry, tenant, replace=replace) == entry
    assert (await store.get_tenant(tenant.id)).cache_epoch == 1
    lose_answers(project, "record_cache_hits")
    await store.record_cache_hits("a", [CacheCount(tenant.id, tenant.id, a_hash(), DAY, hits=2, audio_seconds=1.0)])
    totals = await store.cache_totals(tenant.id)
    assert (totals.hits, totals.audio_seconds_saved) == (2, 1.0)
    for _ in range(2):
        lose_answers(project, "retire_cached")
        assert await store.retire_cached(tenant.id, ALL, limit=10) == (second,)
    lose_answers(project, "drop_cached")
    await store.drop_cached(tenant.id, [a_hash()])
    assert await store.retire_cached(tenant.id, ALL, limit=10) == ()
    assert project.server.faults.done[Kind.RESET] == 12


async def no_network(url: str) -> bytes:
    raise ReferenceUnreachable("no network in this test")


@pytest.fixture
async def workers(project: Project, key: NewKey, tmp_path: Path) -> AsyncIterator[list[Worker]]:
    """Two, each with layers of its own."""
    services = []
    for name in ("one", "two"):
        store = await open_supabase(project.server.url, project.server.service_key)
        settings = Settings(data_dir=tmp_path / name)
        services.append(Service(TwoVoices(), store, settings=settings, fetch=no_network))
    yield [Worker(service, key) for service in services]
    for service in services:
        await service.close()


@pytest.mark.parametrize("kind", [Kind.HALF, Kind.RESET, Kind.HTML, Kind.UNAVAILABLE])
async def test_a_cached_take_that_cannot_be_had_whole_is_spoken(
    workers: list[Worker], project: Project, kind: Kind
) -> None:
    one, two = workers
    first = await one.speak("abc")
    project.server.faults.next(99, kind, prefix=OBJECTS)
    spoken = await two.speak("abc")
    assert (spoken["cached"], spoken["audio_base64"]) == (False, first["audio_base64"])
    project.server.faults.clear()
    again = await two.speak("abc")
    assert (again["cached"], again["audio_base64"]) == (True, first["audio_base64"])


@pytest.mark.parametrize("prefix", [OBJECTS, "/rest/v1/rpc/put_cached", "/rest/v1/rpc/find_cached"])
async def test_a_cache_that_is_away_costs_nobody_an_answer(
    workers: list[Worker], project: Project, prefix: str
) -> None:
    one, two = workers
    project.server.faults.next(99, Kind.UNAVAILABLE, prefix=prefix)
    results = [await worker.speak("abc") for worker in (one, two)]
    assert [result["status"] for result in results] == ["success", "success"]
    assert len({result["audio_base64"] for result in results}) == 1
    project.server.faults.clear()
    await one.speak("abc")
    assert (await two.speak("abc"))["cached"] is True
    assert len(await one.usage()) == 4
