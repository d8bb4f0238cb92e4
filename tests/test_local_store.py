"""What is the local store's own: its files and their modes, its key, its tables, and how it fails."""

import asyncio
import multiprocessing
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, closing
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage import open_store
from storage.keys import is_key, new_key, shown_prefix
from storage.local import MIGRATIONS, database, open_local
from storage.local.requests import MAX_REAPED
from storage.local.schema import utc
from tts_core.errors import StartupError, StoreUnavailable, Unauthorized
from tts_core.settings import Settings
from tts_core.store import Clip, NewVersion, Outcome, Reservation, Scope, Store, VoiceQuery, VoiceTraits

NOW_S = 1_800_000_000.0
SCHEMA = {
    "migrations": "name TEXT, applied_at TEXT",
    "tenants": (
        "id TEXT, name TEXT, attested_consent INTEGER, created_at TEXT, requests_per_minute INTEGER, "
        "requests_per_hour INTEGER, quota_minutes REAL, quota_period TEXT, disabled_at TEXT, is_operator INTEGER, "
        "cache_epoch INTEGER, audio_days INTEGER, text_days INTEGER, message_days INTEGER"
    ),
    "rate_buckets": "tenant_id TEXT, per TEXT, tokens REAL, refilled_at_s REAL",
    "quota_used": "tenant_id TEXT, period TEXT, started_at TEXT, used_s REAL",
    "deleted_tenants": "tenant_id TEXT, deleted_at TEXT, rows TEXT, objects INTEGER",
    "api_keys": (
        "sha256 BLOB, prefix TEXT, tenant_id TEXT, scopes TEXT, created_at TEXT, expires_at TEXT, revoked_at TEXT, "
        "last_used_at TEXT, made_by TEXT, replaces TEXT"
    ),
    "voices": (
        "id TEXT, tenant_id TEXT, user_id TEXT, name TEXT, description TEXT, language TEXT, gender TEXT, accent TEXT, "
        "tags TEXT, versions_made INTEGER, created_at TEXT, updated_at TEXT"
    ),
    "voice_versions": (
        "voice_id TEXT, tenant_id TEXT, number INTEGER, request_id TEXT, consent TEXT, clips TEXT, created_at TEXT"
    ),
    "voice_latents": "voice_id TEXT, tenant_id TEXT, number INTEGER, path TEXT, size_bytes INTEGER",
    "voice_grants": "voice_id TEXT, tenant_id TEXT, grantee_id TEXT, created_at TEXT",
    "voice_purges": "tenant_id TEXT, request_id TEXT, purge TEXT, created_at TEXT",
    "tts_cache": (
        "pool TEXT, content_hash TEXT, tenant_id TEXT, content_type TEXT, content_text TEXT, voice TEXT, "
        "audio_path TEXT, audio_file_size INTEGER, audio_seconds REAL, details TEXT, is_active INTEGER, "
        "created_at TEXT"
    ),
    "tts_cache_hits": "pool TEXT, content_hash TEXT, day TEXT, hits INTEGER",
    "tts_cache_days": "tenant_id TEXT, day TEXT, hits INTEGER, misses INTEGER, audio_seconds_saved REAL",
    "tts_cache_batches": "id TEXT, created_at TEXT",
    "users": "id TEXT, tenant_id TEXT, external_id TEXT, email TEXT, auth_user_id TEXT, created_at TEXT",
    "personas": (
        "id TEXT, tenant_id TEXT, user_id TEXT, name TEXT, persona_prompt TEXT, voice_id TEXT, created_at TEXT, "
        "messages_added INTEGER"
    ),
    "messages": (
        "id TEXT, tenant_id TEXT, persona_id TEXT, role TEXT, content TEXT, created_at TEXT, position INTEGER"
    ),
    "removals": "id TEXT, tenant_id TEXT, removed TEXT, created_at TEXT",
    "jobs": (
        "id TEXT, tenant_id TEXT, fence INTEGER, user_id TEXT, text TEXT, voice_id TEXT, language TEXT, "
        "include_alignments INTEGER, status TEXT, error TEXT, audio_path TEXT, alignments_path TEXT, duration_s REAL, "
        "created_at TEXT, updated_at TEXT"
    ),
    "job_chunks": (
        "tenant_id TEXT, job_id TEXT, chunk_index INTEGER, text_excerpt TEXT, fingerprint TEXT, object_path TEXT, "
        "status TEXT, attempts INTEGER, is_paid INTEGER, lease_token TEXT, lease_expires_at TEXT, sha256 TEXT, "
        "duration_s REAL, alignment TEXT"
    ),
    "chores": "name TEXT, holder TEXT, held_until TEXT",
    "requests": (
        "request_id TEXT, tenant_id TEXT, identity TEXT, fingerprint TEXT, action TEXT, input_chars INTEGER, "
        "streaming INTEGER, voice_id TEXT, status TEXT, fence INTEGER, lease_expires_at TEXT, created_at TEXT, "
        "settled_at TEXT, latency_ms INTEGER, audio_seconds REAL, audio_bytes INTEGER, spoken_voice_id TEXT, "
        "error TEXT, cached INTEGER, result TEXT, audio_path TEXT, metadata TEXT, held_s REAL, user_id TEXT, "
        "swept_fence INTEGER, holder TEXT"
    ),
    "usage_daily": (
        "tenant_id TEXT, day TEXT, action TEXT, voice_id TEXT, user_id TEXT, requests INTEGER, successes INTEGER, "
        "failures INTEGER, cancelled INTEGER, abandoned INTEGER, cached INTEGER, input_chars INTEGER, "
        "audio_seconds REAL, audio_bytes INTEGER, latency_ms INTEGER"
    ),
    "usage_logs": (
        "id INTEGER, tenant_id TEXT, request_id TEXT, fence INTEGER, action TEXT, input_chars INTEGER, "
        "audio_seconds REAL, audio_bytes INTEGER, latency_ms INTEGER, streaming INTEGER, voice_id TEXT, "
        "status TEXT, error TEXT, cached INTEGER, metadata TEXT, created_at TEXT, user_id TEXT"
    ),
}
INDEXES = {
    ("api_keys", "sha256"),
    ("api_keys", "tenant_id, made_by"),
    ("api_keys", "tenant_id, prefix"),
    ("deleted_tenants", "tenant_id"),
    ("quota_used", "tenant_id, period"),
    ("rate_buckets", "tenant_id, per"),
    ("chores", "name"),
    ("job_chunks", "tenant_id, job_id, chunk_index"),
    ("jobs", "tenant_id, created_at, id"),
    ("jobs", "tenant_id, id"),
    ("jobs", "tenant_id, status, created_at, id"),
    ("jobs", "tenant_id, updated_at"),
    ("messages", "tenant_id, created_at"),
    ("messages", "tenant_id, persona_id, id"),
    ("messages", "tenant_id, persona_id, position"),
    ("migrations", "name"),
    ("personas", "tenant_id, created_at, id"),
    ("personas", "tenant_id, id"),
    ("personas", "tenant_id, user_id, created_at, id"),
    ("removals", "tenant_id, id"),
    ("requests", "lease_expires_at"),
    ("requests", "request_id"),
    ("requests", "tenant_id"),
    ("requests", "tenant_id, identity"),
    ("requests", "tenant_id, settled_at"),
    ("tenants", "id"),
    ("tts_cache", "pool, content_hash"),
    ("tts_cache", "tenant_id"),
    ("tts_cache_batches", "created_at"),
    ("tts_cache_batches", "id"),
    ("tts_cache_days", "tenant_id, day"),
    ("tts_cache_hits", "pool, content_hash, day"),
    ("usage_daily", "tenant_id, day, action, voice_id, user_id"),
    ("usage_logs", "request_id, fence"),
    ("usage_logs", "tenant_id, id"),
    ("users", "tenant_id, created_at, id"),
    ("users", "tenant_id, external_id"),
    ("users", "tenant_id, id"),
    ("voice_grants", "grantee_id"),
    ("voice_grants", "voice_id, grantee_id"),
    ("voice_latents", "voice_id, number, path"),
    ("voice_purges", "tenant_id, request_id"),
    ("voice_versions", "voice_id, number"),
    ("voice_versions", "voice_id, request_id"),
    ("voices", "id"),
    ("voices", "tenant_id, created_at, id"),
}


@asynccontextmanager
async def opened(folder: Path, *, clock: Callable[[], float] = lambda: NOW_S) -> AsyncIterator[Store]:
    store = await open_local(folder, clock=clock)
    try:
        yield store
    finally:
        await store.close()


def rows_of(folder: Path, query: str) -> list[tuple[object, ...]]:
    """Look at the file, or change it, behind the store's back."""
    with closing(sqlite3.connect(folder / "store.db")) as connection, connection:
        return connection.execute(query).fetchall()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def reservation(key: str, *, identity: str = "job-1") -> Reservation:
    return Reservation(key, "synthesize", identity=identity, fingerprint="f", action="synthesize")


class TestSchema:
    async def test_a_new_folder_has_the_tables(self, tmp_path: Path) -> None:
        async with opened(tmp_path):
            pass
        columns: dict[str, list[str]] = {}
        for table, column in rows_of(
            tmp_path,
            """
            select tables.name, columns.name || ' ' || columns.type
            from pragma_table_list as tables join pragma_table_info(tables.name) as columns
            where tables.name not like 'sqlite%' and tables.strict order by tables.name, columns.cid
            """,
        ):
            columns.setdefault(str(table), []).append(str(column))
        assert {table: ", ".join(names) for table, names in columns.items()} == SCHEMA

    async def test_every_lookup_has_its_index(self, tmp_path: Path) -> None:
        async with opened(tmp_path):
            pass
        indexes = rows_of(
            tmp_path,
            """
            select tables.name, (select group_concat(name, ', ') from pragma_index_info(indexes.name))
            from pragma_table_list as tables join pragma_index_list(tables.name) as indexes
            where tables.name not like 'sqlite%'
            """,
        )
        assert set(indexes) == INDEXES

    async def test_each_migration_is_applied_once(self, tmp_path: Path) -> None:
        for _ in range(2):
            async with opened(tmp_path):
                pass
        names = [name for (name,) in rows_of(tmp_path, "select name from migrations order by rowid")]
        assert names == [
            "0001_tenants",
            "0002_voices",
            "0003_ledger",
            "0004_limits",
            "0005_cache",
            "0006_voices",
            "0007_people",
            "0008_jobs",
            "0008_retention",
            "0009_usage",
            "0010_holder",
        ]

    def test_no_two_areas_have_a_migration_of_one_name(self) -> None:
        names = [name for name, _ in MIGRATIONS]
        assert len(set(names)) == len(names)

    async def test_an_older_file_is_brought_up_to_date(self, tmp_path: Path) -> None:
        old = await database.Database.open(tmp_path / "store.db", migrations=MIGRATIONS[:1])
        await old.write(lambda tx: tx.execute("insert into tenants values ('t1', 'acme', 1, 'then')"))
        await old.close()
        async with opened(tmp_path) as store:
            (tenant,) = await store.list_tenants()
            assert (tenant.id, tenant.attested_consent) == ("t1", True)
            assert await store.list_voices("t1", VoiceQuery(limit=1)) == ()

    async def test_voices_of_an_older_file_are_kept(self, tmp_path: Path) -> None:
        before = [migration for migration in MIGRATIONS if migration[0] < "0004"]
        old = await database.Database.open(tmp_path / "store.db", migrations=before)
        row = """('v1', 't1', 'nova', 'clear', 'pt', 'I agree', '["voices/t1/v1-0", "voices/t1/v1-1"]',
            '[{"snr_db": 30.5}, {"snr_db": 31}]', 'then')"""
        await old.write(lambda tx: tx.execute("insert into tenants values ('t1', 'acme', 1, 'then')"))
        await old.write(lambda tx: tx.execute(f"insert into voices values {row}"))
        await old.close()
        async with opened(tmp_path) as store:
            voice = await store.get_voice("t1", "v1")
        assert voice.traits == VoiceTraits("nova", description="clear", language="pt")
        assert (voice.version.number, voice.version.consent, voice.created_at) == (1, "I agree", "then")
        assert voice.version.clips == tuple(
            Clip(f"voices/t1/v1-{n}", size_bytes=0, content_type="application/octet-stream", report={"snr_db": snr_db})
            for n, snr_db in enumerate((30.5, 31))
        )

    async def test_a_migration_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        broken = ("0002_broken", ("create table half (id integer) strict", "create nonsense"))
        with pytest.raises(StoreUnavailable):
            await database.Database.open(tmp_path / "store.db", migrations=(*MIGRATIONS[:1], broken))
        assert rows_of(tmp_path, "select name from sqlite_master") == []

    async def test_a_newer_file_is_refused(self, tmp_path: Path) -> None:
        async with opened(tmp_path):
            pass
        rows_of(tmp_path, "insert into migrations values ('9999_from_the_future', 'then')")
        with pytest.raises(StartupError, match="9999_from_the_future"):
            await open_local(tmp_path)


@settings(deadline=None)
@given(earlier_s=st.floats(0, 4e9), later_s=st.floats(0, 4e9))
@example(earlier_s=NOW_S, later_s=NOW_S + 0.5)
def test_times_of_rows_sort_as_text(earlier_s: float, later_s: float) -> None:
    earlier, later = sorted((earlier_s, later_s))
    assert utc(earlier) <= utc(later)
    assert len(utc(earlier)) == len(utc(later)) == len("2027-01-15T08:00:00.000000+00:00")


class TestKeys:
    def test_a_key_has_256_random_bits(self) -> None:
        keys = {new_key() for _ in range(100)}
        assert len(keys) == 100
        assert all(is_key(key) and len(key.rpartition("_")[2]) == 43 for key in keys)

    async def test_no_file_holds_a_secret(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            key = (await store.create_tenant("acme", scopes=["synthesize"])).secret
            local_key = await store.local_key()
            await store.reserve(reservation(key))
            held = contents(tmp_path)
        assert any(shown_prefix(key).encode() in data for data in held.values())
        for secret, files in ((key, set[str]()), (local_key, {"local_key"})):
            assert {name for name, data in held.items() if secret.rpartition("_")[2].encode() in data} == files

    @pytest.mark.parametrize("change", [f"revoked_at = '{utc(NOW_S)}'", f"expires_at = '{utc(NOW_S)}'"])
    async def test_a_key_that_is_over_is_refused(self, tmp_path: Path, change: str) -> None:
        async with opened(tmp_path) as store:
            key = (await store.create_tenant("acme", scopes=["synthesize"])).secret
            assert (await store.reserve(reservation(key))).fence == 1
            rows_of(tmp_path, f"update api_keys set {change}")
            with pytest.raises(Unauthorized):
                await store.reserve(reservation(key, identity="job-2"))

    async def test_a_key_lasts_until_it_expires(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            key = (await store.create_tenant("acme", scopes=["synthesize"])).secret
            rows_of(tmp_path, f"update api_keys set expires_at = '{utc(NOW_S + 0.001)}'")
            assert (await store.reserve(reservation(key))).fence == 1


class TestLocalKey:
    async def test_it_may_do_everything_and_stays_the_same(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store, opened(tmp_path) as other_worker:
            key = await store.local_key()
            assert key == await store.local_key() == await other_worker.local_key()
            for scope in get_args(Scope):
                asked = Reservation(key, scope, identity=scope, fingerprint="", action="synthesize")
                assert (await store.reserve(asked)).tenant.name == "local"

    async def test_the_local_tenant_is_one(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store, opened(tmp_path) as other_worker:
            await asyncio.gather(store.local_key(), other_worker.local_key())
            assert [tenant.name for tenant in await store.list_tenants()] == ["local"]

    async def test_it_is_known_again_to_a_new_database(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            key = await store.local_key()
            tenant = (await store.reserve(reservation(key))).tenant
        (tmp_path / "store.db").unlink()
        async with opened(tmp_path) as store:
            assert await store.local_key() == key
            assert (await store.reserve(reservation(key))).tenant == tenant

    async def test_deleting_the_file_makes_a_new_key_and_revokes_the_old(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            old = await store.local_key()
            (tmp_path / "local_key").unlink()
            new = await store.local_key()
            assert new != old
            assert (await store.reserve(reservation(new))).tenant.name == "local"
            with pytest.raises(Unauthorized):
                await store.reserve(reservation(old))

    async def test_the_file_put_back_is_valid_again(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            old = await store.local_key()
            (tmp_path / "local_key").unlink()
            await store.local_key()
            (tmp_path / "local_key").write_text(old + "\n")
            assert await store.local_key() == old
            assert (await store.reserve(reservation(old))).tenant.name == "local"

    @pytest.mark.parametrize("content", [b"", b"hunter2", b"\xff\xfe", b"tts_live_short_secret"])
    async def test_a_file_without_a_key_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "local_key").write_bytes(content)
        async with opened(tmp_path) as store:
            with pytest.raises(StartupError, match="local_key"):
                await store.local_key()

    async def test_other_tenants_keys_stay(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            key = (await store.create_tenant("acme", scopes=["synthesize"])).secret
            await store.local_key()
            assert (await store.reserve(reservation(key))).fence == 1


@pytest.fixture
def no_umask() -> Iterator[None]:
    umask = os.umask(0)
    yield
    os.umask(umask)


@pytest.mark.usefixtures("no_umask")
async def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    async with opened(folder) as store:
        await store.local_key()
        await store.put_object("voices/t1/a.wav", b"x", content_type="audio/wav")
        modes = {
            str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))
        }
    assert modes.pop("store.lock") == 0o644, "holds nothing"
    assert modes == {
        ".": 0o700,
        "local_key": 0o600,
        "objects": 0o700,
        "objects/voices": 0o700,
        "objects/voices/t1": 0o700,
        "objects/voices/t1/a.wav": 0o600,
        "store.db": 0o600,
        "store.db-shm": 0o600,
        "store.db-wal": 0o600,
    }


class TestFailure:
    async def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "store.db").write_bytes(b"not a database" * 1_000)
        with pytest.raises(StoreUnavailable) as caught:
            await open_local(tmp_path)
        assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
        assert str(tmp_path) not in str(caught.value)

    async def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_bytes(b"a file")
        with pytest.raises(StoreUnavailable) as caught:
            await open_local(tmp_path / "data" / "deeper")
        assert isinstance(caught.value.__cause__, OSError)

    async def test_a_table_that_is_gone(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            rows_of(tmp_path, "drop table usage_logs")
            with pytest.raises(StoreUnavailable):
                await store.usage("t1")

    async def test_a_settlement_that_fails_half_way_is_undone(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            key = await store.create_tenant("acme", scopes=["synthesize"])
            reserved = await store.reserve(reservation(key.secret))
            rows_of(tmp_path, "create trigger broken before insert on usage_logs begin select raise(abort, 'no'); end")
            with pytest.raises(sqlite3.IntegrityError):
                await store.settle(reserved, Outcome(status="failed", latency_ms=1))
            assert rows_of(tmp_path, "select status from requests") == [("running",)]
            rows_of(tmp_path, "drop trigger broken")
            assert await store.settle(reserved, Outcome(status="failed", latency_ms=1))

    async def test_a_lock_that_is_not_released(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.0)
        async with opened(tmp_path) as store:
            with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
                other.execute("begin immediate")
                with pytest.raises(StoreUnavailable):
                    await store.create_tenant("acme", scopes=[])
                assert await store.list_tenants() == ()
            assert (await store.create_tenant("acme", scopes=[])).tenant.name == "acme"

    async def test_files_are_opened_one_by_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without this lock, opening a fresh file in several processes fails in about 2 of 100 cases."""
        monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.0)
        with closing(sqlite3.connect(tmp_path / "store.lock", isolation_level=None)) as other:
            other.execute("begin exclusive")
            with pytest.raises(StoreUnavailable):
                await open_local(tmp_path)
        async with opened(tmp_path) as store:
            assert await store.list_tenants() == ()

    async def test_a_row_of_an_unknown_tenant_is_refused(self, tmp_path: Path) -> None:
        version = NewVersion("v1", consent="", clips=())
        async with opened(tmp_path) as store:
            with pytest.raises(sqlite3.IntegrityError):
                await store.create_voice("nobody", "v1", traits=VoiceTraits("nova"), version=version, max_voices=1)

    async def test_our_own_mistakes_are_not_blamed_on_the_disk(self, tmp_path: Path) -> None:
        file = await database.Database.open(tmp_path / "store.db", migrations=MIGRATIONS)
        insert = "insert into tenants (id, name, attested_consent, created_at) values ('t1', 'acme', 2, 'then')"
        with pytest.raises(sqlite3.IntegrityError):
            await file.write(lambda tx: tx.execute(insert))
        await file.close()

    async def test_a_failed_open_leaves_no_thread(self, tmp_path: Path) -> None:
        (tmp_path / "store.db").write_bytes(b"not a database" * 1_000)
        with pytest.raises(StoreUnavailable):
            await open_local(tmp_path)
        for thread in sqlite_threads():
            thread.join(timeout=60)
            assert not thread.is_alive()


def sqlite_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("sqlite")]


async def test_closing_ends_the_thread_and_folds_the_log_into_the_file(tmp_path: Path) -> None:
    async with opened(tmp_path):
        assert len(sqlite_threads()) == 1
    assert sqlite_threads() == []
    assert sorted(contents(tmp_path)) == ["store.db", "store.lock"]


async def test_closing_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    file = await database.Database.open(tmp_path / "store.db", migrations=MIGRATIONS)
    released = threading.Event()
    slow = asyncio.create_task(file.read(lambda _: released.wait(10)))
    await asyncio.sleep(0)
    closed = asyncio.create_task(file.close())
    await asyncio.sleep(0)
    released.set()
    assert await slow
    await closed


async def test_a_new_attempt_keeps_when_the_request_was_first_made(tmp_path: Path) -> None:
    now_s = NOW_S
    async with opened(tmp_path, clock=lambda: now_s) as store:
        key = await store.create_tenant("acme", scopes=["synthesize"])
        first = await store.reserve(reservation(key.secret))
        await store.settle(first, Outcome(status="failed", latency_ms=7, error="internal"))
        now_s += 1
        await store.reserve(reservation(key.secret))
        rows = rows_of(tmp_path, "select created_at, fence, settled_at, latency_ms, error from requests")
    assert rows == [(utc(NOW_S), 2, None, None, None)]


async def test_one_reserve_settles_a_bounded_number_of_dead_attempts(tmp_path: Path) -> None:
    now_s = NOW_S
    async with opened(tmp_path, clock=lambda: now_s) as store:
        key = await store.create_tenant("acme", scopes=["synthesize"])
        for number in range(MAX_REAPED + 5):
            await store.reserve(reservation(key.secret, identity=f"job-{number}"))
        now_s += 60
        await store.reserve(reservation(key.secret, identity="next"))
        assert len(await store.usage(key.tenant.id)) == MAX_REAPED
        await store.reserve(reservation(key.secret, identity="after"))
        assert len(await store.usage(key.tenant.id)) == MAX_REAPED + 5


class TestOpenStore:
    async def test_the_folder_of_the_settings_is_used(self, tmp_path: Path) -> None:
        store = await open_store(Settings(data_dir=tmp_path / "data"))
        assert await store.list_tenants() == ()
        await store.close()
        assert sorted(contents(tmp_path / "data")) == ["store.db", "store.lock"]

    async def test_on_runpod_the_local_store_must_be_asked_for(self, tmp_path: Path) -> None:
        on_runpod = Settings(data_dir=tmp_path, runpod_job_url="https://example.org/job")
        with pytest.raises(StartupError, match="XTTS_STORE"):
            await open_store(on_runpod)
        store = await open_store(on_runpod.model_copy(update={"store": "local"}))
        await store.close()


ROUNDS = 10


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    """Each round opens a fresh folder in four processes at the same moment."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(4)
    with ProcessPoolExecutor(4, mp_context=spawn, initializer=_be_one_of, initargs=(barrier,)) as pool:
        keys = list(pool.map(partial(_local_keys, tmp_path), range(4)))
    for of_round in zip(*keys, strict=True):
        assert len(set(of_round)) == 1


_barriers: list[Barrier] = []


def _be_one_of(barrier: Barrier) -> None:
    _barriers.append(barrier)


def _local_keys(folder: Path, process: int) -> list[str]:
    return [asyncio.run(_local_key_that_works(folder / str(number), process)) for number in range(ROUNDS)]


async def _local_key_that_works(folder: Path, process: int) -> str:
    _barriers[0].wait(60)
    async with opened(folder) as store:
        key = await store.local_key()
        assert (await store.reserve(reservation(key, identity=f"process-{process}"))).fence == 1
        return key
