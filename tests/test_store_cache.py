"""The permanent cache's rows, as every body of the Store promises to keep them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stores import Clock, Places
from tts_core.store import SHARED, CacheCount, CacheEntry, CachePick, CacheTotals, Store, Tenant

EARLY, LATE = "2027-01-15T08:00:00.000001+00:00", "2027-01-15T08:00:00.000002+00:00"
DAY = "2027-01-15"
ALL = CachePick()


def a_hash(n: int = 0) -> str:
    return f"{n:064x}"


def an_entry(pool: str, n: int = 0, **columns: object) -> CacheEntry:
    entry = CacheEntry(
        pool=pool,
        content_hash=a_hash(n),
        content_type="narrative",
        content_text='"Wörter", {und} \\ mehr\n',
        voice="nova",
        audio_path=f"tts-cache/{pool}/{a_hash(n)}.wav",
        audio_file_size=1_000,
        audio_seconds=1.25,
        details='{"alignments": [], "quality": null}',
        created_at=EARLY,
    )
    return replace(entry, **columns)  # type: ignore[arg-type]


async def a_tenant(store: Store, name: str = "Acme") -> Tenant:
    return (await store.create_tenant(name, scopes=("cache",))).tenant


async def put(store: Store, entry: CacheEntry, tenant: Tenant, **how: object) -> CacheEntry | None:
    """With the epoch that the tenant has just now."""
    epoch = (await store.get_tenant(tenant.id)).cache_epoch
    return await store.put_cached(entry, tenant_id=tenant.id, epoch=epoch, **how)  # type: ignore[arg-type]


async def epoch_of(store: Store, tenant: Tenant) -> int:
    return (await store.get_tenant(tenant.id)).cache_epoch


async def purge(store: Store, pool: str, pick: CachePick = ALL, *, limit: int = 100) -> Sequence[CacheEntry]:
    purged: list[CacheEntry] = []
    while retired := await store.retire_cached(pool, pick, limit=limit):
        await store.drop_cached(pool, [entry.content_hash for entry in retired])
        purged += retired
    return purged


async def test_an_entry_is_found_as_it_was_kept(store: Store) -> None:
    tenant = await a_tenant(store)
    assert await store.find_cached(tenant.id, a_hash()) is None
    for n, entry in enumerate((an_entry(tenant.id), an_entry(tenant.id, 1, voice=None, audio_file_size=3 * 2**31))):
        assert await put(store, entry, tenant) == entry
        assert await store.find_cached(tenant.id, a_hash(n)) == entry


async def test_another_tenants_entry_is_as_unknown_as_none(store: Store) -> None:
    tenant, other = await a_tenant(store), await a_tenant(store, "Other")
    await put(store, an_entry(tenant.id), tenant)
    assert await store.find_cached(other.id, a_hash()) is None
    assert await purge(store, other.id) == []
    await store.drop_cached(other.id, [a_hash()])
    assert await store.find_cached(tenant.id, a_hash()) is not None
    assert (await store.cache_totals(other.id)).entries == 0
    assert await epoch_of(store, tenant) == 0


async def test_shared_entries_are_everybodys_and_ones_own_come_first(store: Store) -> None:
    tenant, other = await a_tenant(store), await a_tenant(store, "Other")
    shared, own = an_entry(SHARED), an_entry(tenant.id, created_at=LATE)
    await put(store, shared, other)
    assert await store.find_cached(tenant.id, a_hash()) == shared
    assert await store.find_cached(SHARED, a_hash()) == shared
    await put(store, own, tenant)
    assert await store.find_cached(tenant.id, a_hash()) == own
    assert await store.find_cached(other.id, a_hash()) == shared
    totals = await store.cache_totals(tenant.id)
    assert (totals.entries, totals.shared_entries, totals.shared_bytes) == (1, 1, 1_000)


async def test_the_first_entry_stays_unless_it_is_to_be_replaced(store: Store) -> None:
    tenant = await a_tenant(store)
    first, second = an_entry(tenant.id), an_entry(tenant.id, created_at=LATE, audio_file_size=2)
    await put(store, first, tenant)
    assert await put(store, second, tenant) == first
    assert await epoch_of(store, tenant) == 0
    assert await put(store, second, tenant, replace=True) == second
    assert await store.find_cached(tenant.id, a_hash()) == second
    assert await epoch_of(store, tenant) == 1


async def test_keeping_an_entry_twice_is_as_once(store: Store) -> None:
    tenant = await a_tenant(store)
    first, second = an_entry(tenant.id), an_entry(tenant.id, created_at=LATE)
    await put(store, first, tenant)
    for _ in range(2):
        assert await store.put_cached(second, tenant_id=tenant.id, epoch=0, replace=True) == second
    assert await epoch_of(store, tenant) == 1


async def test_an_entry_that_has_expired_is_replaced_without_a_new_epoch(store: Store) -> None:
    tenant = await a_tenant(store)
    first, second = an_entry(tenant.id), an_entry(tenant.id, created_at=LATE)
    await put(store, first, tenant)
    assert await put(store, second, tenant, expired_before=EARLY) == first
    assert await put(store, second, tenant, expired_before=LATE) == second
    assert await epoch_of(store, tenant) == 0


async def test_another_label_is_no_reason_to_ask_again(store: Store) -> None:
    tenant = await a_tenant(store)
    entry = an_entry(tenant.id)
    await put(store, entry, tenant)
    labelled = replace(entry, content_type="question")
    assert await put(store, labelled, tenant, replace=True) == labelled
    assert await epoch_of(store, tenant) == 0


async def test_a_retired_entry_is_found_no_more_and_told_until_it_is_dropped(store: Store) -> None:
    tenant = await a_tenant(store)
    entry = an_entry(tenant.id)
    await put(store, entry, tenant)
    for _ in range(2):
        assert await store.retire_cached(tenant.id, ALL, limit=10) == (entry,)
        assert await store.find_cached(tenant.id, a_hash()) is None
    assert (await store.cache_totals(tenant.id)).entries == 0
    await store.drop_cached(tenant.id, [a_hash(), a_hash(7)])
    assert await store.retire_cached(tenant.id, ALL, limit=10) == ()


async def test_what_was_kept_anew_after_it_was_retired_is_not_dropped(store: Store) -> None:
    tenant = await a_tenant(store)
    await put(store, an_entry(tenant.id), tenant)
    await store.retire_cached(tenant.id, ALL, limit=10)
    again = an_entry(tenant.id, created_at=LATE)
    assert await put(store, again, tenant) == again
    await store.drop_cached(tenant.id, [a_hash()])
    assert await store.find_cached(tenant.id, a_hash()) == again


async def test_what_was_begun_before_a_retirement_is_not_kept_after_it(store: Store) -> None:
    tenant, other = await a_tenant(store), await a_tenant(store, "Other")
    assert await store.retire_cached(tenant.id, CachePick(voice="nova"), limit=10) == ()
    entry = an_entry(tenant.id)
    assert await store.put_cached(entry, tenant_id=tenant.id, epoch=0) is None
    assert await store.find_cached(tenant.id, a_hash()) is None
    assert await put(store, entry, tenant) == entry
    assert await store.put_cached(an_entry(other.id), tenant_id=other.id, epoch=0) == an_entry(other.id)


async def test_a_change_of_the_shared_pool_is_a_new_epoch_for_all(store: Store) -> None:
    tenants = [await a_tenant(store), await a_tenant(store, "Other")]
    await put(store, an_entry(SHARED), tenants[0])
    await store.retire_cached(SHARED, ALL, limit=10)
    assert [await epoch_of(store, tenant) for tenant in tenants] == [1, 1]


async def test_only_picked_entries_go(store: Store) -> None:
    tenant = await a_tenant(store)
    entries = [
        an_entry(tenant.id, 1, voice="nova", content_type="narrative"),
        an_entry(tenant.id, 2, voice="onyx", content_type="narrative"),
        an_entry(tenant.id, 3, voice="onyx", content_type="question"),
        an_entry(tenant.id, 4, voice=None, content_type="speech", created_at=LATE),
    ]
    for pick, left in [
        (CachePick(voice="onyx"), {1, 4}),
        (CachePick(content_type="narrative"), {3, 4}),
        (CachePick(voice="onyx", content_type="narrative"), {1, 3, 4}),
        (CachePick(content_hash=a_hash(3)), {1, 2, 4}),
        (CachePick(created_before=LATE), {4}),
        (CachePick(voice="nobody"), {1, 2, 3, 4}),
        (ALL, set()),
    ]:
        for entry in entries:
            await put(store, entry, tenant)
        await purge(store, tenant.id, pick)
        assert {n for n in range(1, 5) if await store.find_cached(tenant.id, a_hash(n))} == left, pick
        await purge(store, tenant.id)


async def test_many_entries_go_in_batches(store: Store) -> None:
    tenant = await a_tenant(store)
    for n in range(7):
        await put(store, an_entry(tenant.id, n), tenant)
    purged = await purge(store, tenant.id, limit=3)
    assert sorted(entry.content_hash for entry in purged) == [a_hash(n) for n in range(7)]


async def test_a_tenant_that_is_deleted_takes_its_entries_along(store: Store) -> None:
    tenant, other = await a_tenant(store), await a_tenant(store, "Other")
    await put(store, an_entry(tenant.id), tenant)
    await put(store, an_entry(SHARED, 1), tenant)
    await store.record_cache_hits("1", [CacheCount(tenant.id, tenant.id, a_hash(), DAY, hits=1)])
    await store.delete_tenant(tenant.id)
    assert await store.find_cached(tenant.id, a_hash()) is None
    assert await store.find_cached(other.id, a_hash(1)) == an_entry(SHARED, 1)
    # What was counted meanwhile is of no use, and no harm.
    await store.record_cache_hits("2", [CacheCount(tenant.id, tenant.id, a_hash(), DAY, hits=1)])


async def test_totals_add_up_by_content_type_and_voice(store: Store) -> None:
    tenant = await a_tenant(store)
    empty = CacheTotals(0, 0, 0, 0, hits=0, misses=0, audio_seconds_saved=0.0, groups=())
    assert await store.cache_totals(tenant.id) == empty
    await put(store, an_entry(tenant.id, 1, voice="onyx", audio_file_size=10), tenant)
    await put(store, an_entry(tenant.id, 2, voice="onyx", audio_file_size=5), tenant)
    await put(store, an_entry(tenant.id, 3, voice="nova"), tenant)
    await put(store, an_entry(tenant.id, 4, voice=None), tenant)
    totals = await store.cache_totals(tenant.id)
    assert (totals.entries, totals.bytes) == (4, 2_015)
    groups = [(group.content_type, group.voice, group.entries, group.bytes) for group in totals.groups]
    assert groups == [
        ("narrative", "onyx", 2, 15),
        ("narrative", None, 1, 1_000),
        ("narrative", "nova", 1, 1_000),
    ]


async def test_hits_and_misses_are_added_up_once(store: Store, other_worker: Store) -> None:
    tenant, other = await a_tenant(store), await a_tenant(store, "Other")
    await put(store, an_entry(tenant.id), tenant)
    counts = [
        CacheCount(tenant.id, tenant.id, a_hash(), DAY, hits=3, audio_seconds=3.75),
        CacheCount(tenant.id, SHARED, a_hash(9), DAY, hits=1, audio_seconds=0.5),
        CacheCount(tenant.id, tenant.id, a_hash(5), "2027-01-16", misses=2),
        CacheCount(other.id, SHARED, a_hash(9), DAY, hits=1, misses=1, audio_seconds=0.5),
    ]
    for batch in ("a", "b", "a"):
        await asyncio.gather(store.record_cache_hits(batch, counts), other_worker.record_cache_hits(batch, counts))
    totals = await store.cache_totals(tenant.id)
    assert (totals.hits, totals.misses, totals.audio_seconds_saved) == (8, 4, 8.5)
    totals = await store.cache_totals(other.id)
    assert (totals.hits, totals.misses, totals.audio_seconds_saved) == (2, 2, 1.0)


async def test_batches_at_once_lose_nothing(store: Store, other_worker: Store) -> None:
    tenants = [await a_tenant(store, name) for name in "ab"]
    for n in range(4):
        await put(store, an_entry(SHARED, n), tenants[0])
    forth = [CacheCount(tenant.id, SHARED, a_hash(n), DAY, hits=1) for tenant in tenants for n in range(4)]
    batches = [store.record_cache_hits(uuid4().hex, forth) for _ in range(6)]
    batches += [other_worker.record_cache_hits(uuid4().hex, forth[::-1]) for _ in range(6)]
    await asyncio.gather(*batches)
    assert [(await store.cache_totals(tenant.id)).hits for tenant in tenants] == [48, 48]


async def test_workers_that_keep_one_take_at_once_agree_on_the_entry(store: Store, other_worker: Store) -> None:
    tenant = await a_tenant(store)
    for n in range(5):
        made = [an_entry(tenant.id, n, audio_file_size=size) for size in range(1, 7)]
        made = [replace(entry, created_at=EARLY.replace("001+", f"{i:03}+")) for i, entry in enumerate(made)]
        kept = await asyncio.gather(*(put((store, other_worker)[i % 2], e, tenant) for i, e in enumerate(made)))
        assert set(kept) == {await store.find_cached(tenant.id, a_hash(n))}


async def test_refreshes_and_retirements_at_once_never_wait_for_each_other(store: Store, other_worker: Store) -> None:
    tenants = [await a_tenant(store, name) for name in "ab"]

    async def change(worker: Store, n: int) -> None:
        tenant = tenants[n % 2]
        await put(worker, an_entry(tenant.id, n % 3, created_at=LATE), tenant, replace=True)
        await put(worker, an_entry(SHARED, n % 3, created_at=LATE), tenant, replace=n % 2 == 0)
        await worker.retire_cached((tenant.id, SHARED)[n % 2], ALL, limit=2)

    await asyncio.gather(*(change((store, other_worker)[n % 2], n) for n in range(12)))
    for pool in (SHARED, *(tenant.id for tenant in tenants)):
        await purge(store, pool)
        assert await store.find_cached(pool, a_hash()) is None


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "replace", "retire", "drop"]), st.integers(0, 2), st.integers(0, 2)),
    max_size=12,
)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_what_is_found_is_what_a_plain_model_finds(places: Places, operations: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        with places() as place:
            store = await place.open(Clock())
            tenants = [await a_tenant(store, name) for name in "ab"]
            pools = [SHARED, *(tenant.id for tenant in tenants)]
            active: dict[tuple[str, str], CacheEntry] = {}
            for step, (operation, p, n) in enumerate(operations):
                pool, key = pools[p], (pools[p], a_hash(n))
                entry = an_entry(pool, n, created_at=EARLY.replace("000001", f"{step:06}"))
                if operation in ("put", "replace"):
                    await put(store, entry, tenants[0], replace=operation == "replace")
                    active[key] = entry if operation == "replace" else active.get(key, entry)
                elif operation == "retire":
                    await store.retire_cached(pool, CachePick(content_hash=a_hash(n)), limit=5)
                    active.pop(key, None)
                else:
                    await store.drop_cached(pool, [a_hash(n)])
                for tenant in tenants:
                    expected = active.get((tenant.id, a_hash(n)), active.get((SHARED, a_hash(n))))
                    assert await store.find_cached(tenant.id, a_hash(n)) == expected
            await store.close()

    asyncio.run(run())
