"""Usage by day: what every body of the Store promises of it."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from storage.local import open_local
from storage.supabase import open_supabase
from tests.stores import MIGRATIONS, Clock, Place, Project
from tts_core.store import (
    Grouping,
    NewKey,
    Outcome,
    Reservation,
    Store,
    UsageCounts,
    UsageGroup,
    UsageQuery,
    UsageRow,
    UsageSummary,
)

DAY_S = 86_400.0
EVER = UsageQuery("2000-01-01", "2999-12-31")
SPOKEN = Outcome("success", latency_ms=100, audio_seconds=2.5, audio_bytes=1000, voice_id="nova", user_id="ada")
EVERY_BY: list[tuple[Grouping, ...]] = [
    (),
    ("day",),
    ("voice",),
    ("endpoint",),
    ("user",),
    ("day", "voice", "endpoint", "user"),
]
OUTCOMES = [
    SPOKEN,
    replace(SPOKEN, voice_id="leo", audio_seconds=0.5),
    replace(SPOKEN, user_id=None, cached=True),
    Outcome("failed", latency_ms=20, error="text_unspeakable"),
    Outcome("cancelled", latency_ms=30, audio_seconds=0.25, voice_id="nova", error="cancelled"),
]


@pytest.fixture
async def key(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=["synthesize", "usage"])


def asked(key: NewKey, identity: str, *, action: str = "synthesize", voice_id: str | None = None) -> Reservation:
    return Reservation(
        key.secret, "synthesize", identity=identity, fingerprint="f", action=action, input_chars=7, voice_id=voice_id
    )


async def use(store: Store, key: NewKey, outcome: Outcome, *, identity: str, action: str = "synthesize") -> None:
    assert await store.settle(await store.reserve(asked(key, identity, action=action)), outcome)


async def fill(store: Store, key: NewKey, clock: Clock) -> None:
    """Three days of every kind of attempt, the abandoned too."""
    for day in range(3):
        for number, outcome in enumerate(OUTCOMES):
            action = "voices.list" if number == day else "synthesize"
            await use(store, key, outcome, identity=f"{day}-{number}", action=action)
        await store.reserve(asked(key, f"{day}-dead", voice_id="nova"))
        clock.now_s += DAY_S
    await use(store, key, SPOKEN, identity="last")


def summed(rows: list[UsageRow]) -> UsageCounts:
    def of(status: str) -> int:
        return sum(row.status == status for row in rows)

    return UsageCounts(
        requests=len(rows),
        successes=of("success"),
        failures=of("failed"),
        cancelled=of("cancelled"),
        abandoned=of("abandoned"),
        cached=sum(row.cached for row in rows),
        input_chars=sum(row.input_chars for row in rows),
        audio_seconds=sum(row.audio_seconds for row in rows),
        audio_bytes=sum(row.audio_bytes for row in rows),
        latency_ms=sum(row.latency_ms for row in rows),
    )


def expected(rows: list[UsageRow], by: tuple[Grouping, ...]) -> UsageSummary:
    """The slow way, from the rows themselves."""
    groups: dict[tuple[str | None, ...], list[UsageRow]] = {}
    for row in rows:
        values = {"day": row.created_at[:10], "endpoint": row.action, "voice": row.voice_id, "user": row.user_id}
        names: tuple[Grouping, ...] = ("day", "endpoint", "voice", "user")
        groups.setdefault(tuple(values[name] if name in by else None for name in names), []).append(row)
    told = [
        UsageGroup(day, action, voice_id, user_id, counts=summed(members))
        for (day, action, voice_id, user_id), members in groups.items()
    ]
    told.sort(key=lambda group: tuple(_first(v) for v in _place(group)))
    return UsageSummary(summed(rows), tuple(told), left_out=0)


def _place(group: UsageGroup) -> tuple[str | int | None, ...]:
    return group.day, -group.counts.requests, group.action, group.voice_id, group.user_id


def _first(value: str | int | None) -> tuple[bool, str | int]:
    """None before all else."""
    return value is not None, value if value is not None else 0


@pytest.mark.parametrize("by", EVERY_BY)
async def test_it_says_what_the_rows_come_to(store: Store, key: NewKey, clock: Clock, by: tuple[Grouping, ...]) -> None:
    await fill(store, key, clock)
    rows = list(await store.usage(key.tenant.id))
    assert [row.status for row in rows].count("abandoned") == 3
    assert await store.summarize_usage(key.tenant.id, replace(EVER, by=by)) == expected(rows, by)


async def test_days_are_utc_and_both_ends_count(store: Store, key: NewKey, clock: Clock) -> None:
    midnight_s = datetime(2027, 3, 1, tzinfo=UTC).timestamp()
    for offset_s in (-1e-3, 0, DAY_S - 1e-3, DAY_S):
        clock.now_s = midnight_s + offset_s
        await use(store, key, SPOKEN, identity=str(offset_s))
    summary = await store.summarize_usage(key.tenant.id, UsageQuery("2027-02-28", "2027-03-01", by=("day",)))
    assert [(group.day, group.counts.requests) for group in summary.groups] == [("2027-02-28", 1), ("2027-03-01", 2)]
    assert summary.totals.requests == 3


async def test_nothing_used_comes_to_nothing(store: Store, key: NewKey) -> None:
    assert await store.summarize_usage(key.tenant.id, replace(EVER, by=("day",))) == UsageSummary(UsageCounts(), (), 0)


async def test_groups_beyond_the_limit_are_counted(store: Store, key: NewKey) -> None:
    for number in range(5):
        await use(store, key, replace(SPOKEN, voice_id=f"voice-{min(number, 3)}"), identity=str(number))
    summary = await store.summarize_usage(key.tenant.id, replace(EVER, by=("voice",), limit=2))
    assert [group.voice_id for group in summary.groups] == ["voice-3", "voice-0"]
    assert (summary.left_out, summary.totals.requests) == (2, 5)


async def test_tenants_see_their_own(store: Store, key: NewKey) -> None:
    other = await store.create_tenant("other", scopes=["synthesize"])
    await use(store, other, SPOKEN, identity="1")
    assert (await store.summarize_usage(key.tenant.id, EVER)).totals == UsageCounts()
    assert (await store.summarize_usage("nobody", EVER)).totals == UsageCounts()
    assert (await store.summarize_usage(other.tenant.id, EVER)).totals.requests == 1


async def test_an_attempt_settled_ten_times_counts_once(store: Store, other_worker: Store, key: NewKey) -> None:
    reserved = await store.reserve(asked(key, "1"))
    await asyncio.gather(*(worker.settle(reserved, SPOKEN) for worker in [store, other_worker] * 5))
    assert (await store.summarize_usage(key.tenant.id, EVER)).totals.requests == 1


async def test_a_late_settlement_counts_instead_of_what_was_given_up(
    store: Store, other_worker: Store, key: NewKey, clock: Clock
) -> None:
    for voice_id in ("abc", "xyz", "nova", None):  # before and behind the one that is spoken
        reserved = await store.reserve(asked(key, f"late-{voice_id}", voice_id=voice_id))
        clock.now_s += 60
        await use(other_worker, key, SPOKEN, identity=f"next-{voice_id}")
        assert "abandoned" in [row.status for row in await store.usage(key.tenant.id)]
        for _ in range(2):
            assert await store.settle(reserved, SPOKEN)
    rows = list(await store.usage(key.tenant.id))
    assert [row.status for row in rows] == ["success"] * 8
    for by in EVERY_BY:
        assert await store.summarize_usage(key.tenant.id, replace(EVER, by=by)) == expected(rows, by)


async def test_those_who_settle_and_give_up_at_once_count_all(store: Store, other_worker: Store, clock: Clock) -> None:
    """Two tenants with rates and quotas: half of the attempts die, and are given up or taken over by the next."""
    keys = [await store.create_tenant(name, scopes=["synthesize"]) for name in ("acme", "other")]
    for key in keys:
        await store.update_tenant(key.tenant.id, {"quota_minutes": 1e6, "requests_per_minute": 1_000_000})

    async def attempt(worker: Store, key: NewKey, number: int, *, dies: bool) -> None:
        identity = f"{'dead' if dies else clock.now_s}-{number}"
        reserved = await worker.reserve(asked(key, identity, voice_id=str(number % 3)))
        if not dies:
            await worker.settle(reserved, SPOKEN)

    for _ in range(4):
        of_one = [(store, False), (other_worker, True)]
        every = product(of_one, keys, range(6))
        await asyncio.gather(*(attempt(worker, key, n, dies=dies) for (worker, dies), key, n in every))
        clock.now_s += 60
    for key in keys:
        await use(store, key, SPOKEN, identity="last")
        rows = list(await store.usage(key.tenant.id))
        assert Counter(row.status for row in rows) == {"success": 25, "abandoned": 24}
        assert await store.summarize_usage(key.tenant.id, replace(EVER, by=EVERY_BY[-1])) == expected(
            rows, EVERY_BY[-1]
        )


async def test_a_deleted_tenant_has_used_nothing(store: Store, key: NewKey) -> None:
    await use(store, key, SPOKEN, identity="1")
    receipt = await store.delete_tenant(key.tenant.id)
    assert receipt.rows["usage_daily"] == 1
    assert (await store.summarize_usage(key.tenant.id, EVER)).totals == UsageCounts()


async def test_it_is_there_after_reopening(place: Place, clock: Clock) -> None:
    store = await place.open(clock)
    key = await store.create_tenant("acme", scopes=["synthesize"])
    await use(store, key, SPOKEN, identity="1")
    await store.close()
    again = await place.open(clock)
    assert (await again.summarize_usage(key.tenant.id, EVER)).totals.audio_seconds == 2.5
    await again.close()


async def test_rows_from_before_there_were_counts_are_counted(tmp_path: Path, clock: Clock) -> None:
    """On this machine; the same for Supabase is below."""
    store = await open_local(tmp_path, clock=clock)
    key = await store.create_tenant("acme", scopes=["synthesize"])
    await fill(store, key, clock)
    rows = list(await store.usage(key.tenant.id))
    await store.close()
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection, connection:
        connection.execute("drop table usage_daily")
        connection.execute("delete from migrations where name = '0009_usage'")
    again = await open_local(tmp_path, clock=clock)
    assert await again.summarize_usage(key.tenant.id, replace(EVER, by=EVERY_BY[-1])) == expected(rows, EVERY_BY[-1])
    await again.close()


class TestSupabase:
    @pytest.fixture
    async def store(self, project: Project, clock: Clock) -> AsyncIterator[Store]:
        store = await open_supabase(project.server.url, project.server.service_key, clock=clock)
        yield store
        await store.close()

    async def test_rows_from_before_there_were_counts_are_counted(
        self, store: Store, key: NewKey, project: Project, clock: Clock
    ) -> None:
        await fill(store, key, clock)
        migration = next(MIGRATIONS.glob("*_usage.sql")).read_text()
        start = migration.index("insert into public.usage_daily\nselect")
        with project.database.connect(role="postgres") as connection:
            connection.execute("truncate public.usage_daily")
            connection.execute(migration[start : migration.index(";", start)].encode())
        rows = list(await store.usage(key.tenant.id))
        found = await store.summarize_usage(key.tenant.id, replace(EVER, by=EVERY_BY[-1]))
        assert found == expected(rows, EVERY_BY[-1])

    async def test_nobody_waits_for_whoever_waits_for_them(self, project: Project, store: Store, clock: Clock) -> None:
        """Postgres undoes one of two transactions in a deadlock; asked again it gets through, a second later."""
        other = await open_supabase(project.server.url, project.server.service_key, clock=clock)
        await test_those_who_settle_and_give_up_at_once_count_all(store, other, clock)
        with project.database.connect(role="postgres") as connection:
            (deadlocks,) = connection.execute(
                "select deadlocks from pg_stat_database where datname = current_database()"
            ).fetchone() or (None,)
        assert deadlocks == 0
        await other.close()

    async def test_users_read_their_own_tenants_and_write_nothing(
        self, store: Store, key: NewKey, project: Project
    ) -> None:
        await use(store, key, SPOKEN, identity="1")
        with project.database.connect(role="postgres") as connection:
            for role, granted in {"authenticated": ["SELECT"], "anon": []}.items():
                kinds = ["SELECT", "INSERT", "UPDATE", "DELETE"]
                asked_for = "select has_table_privilege(%s, 'public.usage_daily', %s)"
                allowed = [kind for kind in kinds if connection.execute(asked_for, (role, kind)).fetchone() == (True,)]
                assert allowed == granted
