"""What is the Supabase store's own about tenants and limits: lost answers, its clock and locks, who may read."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict

import httpx
import pytest
from psycopg.types.json import Jsonb

from storage.keys import digest
from storage.supabase import client, open_supabase
from tests.stores import Project
from tests.supabase_server import Kind
from tts_core.errors import QuotaExceeded, RateLimited
from tts_core.store import Limits, NewKey, Outcome, Reservation, Reserved, Store

USER = "00000000-0000-4000-8000-00000000000a"


@pytest.fixture
async def store(project: Project) -> AsyncIterator[Store]:
    store = await open_supabase(project.server.url, project.server.service_key)
    yield store
    await store.close()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES_S", (0.0, 0.0))


def asked(key: NewKey, *, identity: str = "job-1", estimate_s: float = 0.0) -> Reservation:
    return Reservation(
        key.secret, "synthesize", identity=identity, fingerprint="f", action="synthesize", estimate_s=estimate_s
    )


async def limited(store: Store, limits: Limits) -> NewKey:
    return await store.create_tenant("acme", scopes=["synthesize"], limits=limits)


Ask = Callable[[Store, NewKey], Awaitable[object]]
ASKS: dict[str, Ask] = {
    "create_tenant": lambda store, key: store.create_tenant("second", scopes=["usage"]),
    "update_tenant": lambda store, key: store.update_tenant(key.tenant.id, {"disabled": True}),
    "create_key": lambda store, key: store.create_key(key.tenant.id, scopes=["usage"]),
    "rotate_key": lambda store, key: store.rotate_key(key.tenant.id, None, overlap_s=0),
    "revoke_key": lambda store, key: store.revoke_key(key.tenant.id, key.key.prefix),
    "close_tenant": lambda store, key: store.delete_tenant(key.tenant.id),
    "delete_tenant": lambda store, key: store.delete_tenant(key.tenant.id),
    "reserve_request": lambda store, key: store.reserve(asked(key, estimate_s=10)),
}


@pytest.mark.parametrize("function", ASKS)
async def test_a_call_whose_answer_is_lost_is_carried_out_once(store: Store, project: Project, function: str) -> None:
    key = await limited(store, Limits(requests_per_minute=1, quota_minutes=10 / 60))
    project.server.faults.next(2, Kind.RESET, carried_out=True, prefix=f"/rest/v1/rpc/{function}")
    answer = await ASKS[function](store, key)
    assert project.server.faults.done[Kind.RESET] == 2
    tenants = await store.list_tenants()
    assert [tenant.name for tenant in tenants] == {
        "create_tenant": ["acme", "second"],
        "close_tenant": [],
        "delete_tenant": [],
    }.get(function, ["acme"])
    if tenants:
        keys = await store.list_keys(tenants[0].id)
        assert len(keys) == {"create_key": 2, "rotate_key": 2}.get(function, 1)
    if isinstance(answer, NewKey):
        assert answer.key in await store.list_keys(answer.tenant.id)
    if isinstance(answer, Reserved):
        assert (answer.fence, answer.left_s, (await store.standing(key.tenant.id)).held_s) == (1, 10, 10)


async def test_a_settlement_whose_answer_is_lost_is_charged_once(store: Store, project: Project) -> None:
    key = await limited(store, Limits(quota_minutes=1))
    reserved = await store.reserve(asked(key, estimate_s=10))
    project.server.faults.next(2, Kind.RESET, carried_out=True)
    assert await store.settle(reserved, Outcome("success", latency_ms=1, audio_seconds=7))
    assert (await store.standing(key.tenant.id)).used_s == 7


async def test_by_the_databases_clock_a_burst_is_as_large_as_the_rate(store: Store, project: Project) -> None:
    key = await limited(store, Limits(requests_per_hour=25))
    other = await open_supabase(project.server.url, project.server.service_key)
    takes = ([store, other][n % 2].reserve(asked(key, identity=str(n))) for n in range(200))
    answers = await asyncio.gather(*takes, return_exceptions=True)
    await other.close()
    assert sum(isinstance(answer, Reserved) for answer in answers) == 25
    assert sum(isinstance(answer, RateLimited) for answer in answers) == 175


async def test_the_clock_is_read_after_the_lock(store: Store, project: Project) -> None:
    """Who waits for a bucket has rested as long."""
    key = await limited(store, Limits(requests_per_minute=600))
    await store.reserve(asked(key))
    with project.database.connect(role="postgres") as other, other.transaction():
        other.execute("select from public.rate_buckets for update")
        waiting = asyncio.create_task(store.reserve(asked(key, identity="job-2")))
        await until_somebody_waits(project)
        other.execute("update public.rate_buckets set tokens = 0, refilled_at = clock_timestamp()")
        await asyncio.to_thread(time.sleep, 0.2)  # two requests' worth
    assert (await waiting).fence == 1


async def test_who_asks_at_the_same_moment_sees_what_is_held(store: Store, project: Project) -> None:
    key = await limited(store, Limits(quota_minutes=1))
    await store.settle(await store.reserve(asked(key)), Outcome("success", latency_ms=1, audio_seconds=1))
    p = asdict(asked(key, identity="job-2", estimate_s=40)) | {"key_sha256": digest(key.secret).hex(), "holder": "h"}
    with project.database.connect(role="postgres") as other, other.transaction():
        other.execute("select public.reserve_request(%s)", [Jsonb(p)])
        waiting = asyncio.create_task(store.reserve(asked(key, identity="job-3", estimate_s=40)))
        await until_somebody_waits(project)
    with pytest.raises(QuotaExceeded, match=r"19\.0 s are left"):
        await waiting


async def until_somebody_waits(project: Project) -> None:
    with project.database.connect(role="supabase_admin") as watching:
        while True:
            query = (
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            (waiting,) = watching.execute(query).fetchone() or (0,)
            if waiting:
                return
            await asyncio.sleep(0.01)


async def test_many_tenants_and_workers_at_once_end_with_the_books_right(store: Store, project: Project) -> None:
    """Every lock is taken in one order: a deadlock would be told as store_unavailable or slow this down by a second."""
    other = await open_supabase(project.server.url, project.server.service_key)
    keys = [await limited(store, Limits(quota_minutes=0.5, requests_per_minute=1000)) for _ in range(3)]

    async def request(number: int) -> tuple[str, float]:
        key, worker = keys[number % 3], [store, other][number % 2]
        try:
            reserved = await worker.reserve(asked(key, identity=str(number), estimate_s=3))
        except QuotaExceeded:
            return key.tenant.id, 0.0
        await worker.settle(reserved, Outcome("failed", latency_ms=1, audio_seconds=1))
        return key.tenant.id, 1.0

    spoken = await asyncio.gather(*map(request, range(90)))
    await other.close()
    for key in keys:
        standing = await store.standing(key.tenant.id)
        total_s = sum(seconds for tenant_id, seconds in spoken if tenant_id == key.tenant.id)
        assert (standing.used_s, standing.held_s) == (total_s, 0)
        assert 0 < standing.used_s <= 30


async def test_buckets_are_not_in_the_log(project: Project) -> None:
    with project.database.connect(role="postgres") as connection:
        found = connection.execute(
            "select relname from pg_class where relpersistence = 'u' and relkind = 'r'"
        ).fetchall()
    assert found == [("rate_buckets",)]


async def test_a_tenants_user_reads_how_it_stands_and_nothing_of_keys(store: Store, project: Project) -> None:
    keys = [await limited(store, Limits(quota_minutes=1, requests_per_minute=5)) for _ in range(2)]
    for key in keys:
        await store.settle(await store.reserve(asked(key)), Outcome("success", latency_ms=1, audio_seconds=2))
    with project.database.connect(role="postgres") as connection:
        connection.execute("insert into auth.users (id) values (%s)", [USER])
        connection.execute(
            "insert into public.tenant_members (tenant_id, auth_user_id) values (%s, %s)", [keys[0].tenant.id, USER]
        )
    headers = {
        "apikey": project.server.anon_key,
        "Authorization": f"Bearer {project.server.token('authenticated', sub=USER)}",
    }
    async with httpx.AsyncClient(base_url=f"{project.server.url}/rest/v1", headers=headers, verify=False) as user:
        rows = (await user.get("/quota_used", params={"select": "tenant_id,period,used_s"})).json()
        assert sorted(row["period"] for row in rows) == ["day", "month", "total"]
        assert {row["tenant_id"] for row in rows} == {keys[0].tenant.id}
        for table in ("api_keys", "rate_buckets", "deleted_tenants"):
            assert (await user.get(f"/{table}")).status_code == 403
        for function in ("create_key", "update_tenant", "delete_tenant"):
            answer = await user.post(f"/rpc/{function}", json={"p": {"tenant_id": keys[0].tenant.id}})
            assert answer.status_code in (403, 404)
