"""What is the Supabase store's own: lost answers and faults, how it starts, and what it never tells."""

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import soundfile
from aiohttp import web
from aiohttp.test_utils import TestServer

from storage import open_store
from storage.supabase import client, open_supabase
from storage.supabase.faults import fault_of
from storage.supabase.pages import PAGE_ROWS, after
from tests.postgres import Postgres
from tests.scripted_engine import ScriptedEngine
from tests.stores import Clock, Project
from tests.supabase_server import Kind, SupabaseServer
from tts_core.errors import InvalidInput, NotSupported, RateLimited, StartupError, StoreUnavailable, VoiceNotFound
from tts_core.service import Service
from tts_core.settings import Settings
from tts_core.store import NewKey, Outcome, Reservation, Store

SUCCESS = Outcome(status="success", latency_ms=3, audio_seconds=1.5)
OBJECT = "audio/t1/a.wav"

Ask = Callable[[Store, NewKey], Awaitable[object]]


@pytest.fixture
async def store(project: Project) -> AsyncIterator[Store]:
    store = await open_supabase(project.server.url, project.server.service_key)
    yield store
    await store.close()


@pytest.fixture
async def key(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=["synthesize"])


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES_S", (0.0, 0.0))


def reservation(key: NewKey, *, identity: str = "job-1") -> Reservation:
    return Reservation(key.secret, "synthesize", identity=identity, fingerprint="f", action="synthesize")


async def an_attempt(store: Store, key: NewKey) -> object:
    return await store.settle(await store.reserve(reservation(key)), SUCCESS)


ASKS: dict[str, Ask] = {
    "create_tenant": lambda store, key: store.create_tenant("second", scopes=["usage"]),
    "list_tenants": lambda store, key: store.list_tenants(),
    "reserve and settle": an_attempt,
    "usage": lambda store, key: store.usage(key.tenant.id),
    "put_object": lambda store, key: store.put_object(OBJECT, b"1", content_type="audio/wav"),
    "get_object": lambda store, key: store.get_object("audio/t1/kept.wav"),
    "object_url": lambda store, key: store.object_url("audio/t1/kept.wav"),
    "delete_object": lambda store, key: store.delete_object("audio/t1/kept.wav"),
}


async def state(store: Store, key: NewKey) -> tuple[object, ...]:
    tenants = sorted(tenant.name for tenant in await store.list_tenants())
    usage = [(row.fence, row.status, row.audio_seconds) for row in await store.usage(key.tenant.id)]
    return tenants, usage, await objects_of(store)


async def objects_of(store: Store) -> list[str]:
    found = []
    for path in (OBJECT, "audio/t1/kept.wav"):
        try:
            await store.get_object(path)
            found.append(path)
        except KeyError:
            pass
    return found


class TestLostAnswers:
    @pytest.mark.parametrize("name", ASKS)
    @pytest.mark.parametrize(
        ("kind", "carried_out"),
        [(Kind.RESET, False), (Kind.RESET, True), (Kind.HTML, True), (Kind.HALF, True), (Kind.UNAVAILABLE, False)],
    )
    async def test_every_call_is_carried_out_once(
        self, store: Store, key: NewKey, project: Project, name: str, kind: Kind, carried_out: bool
    ) -> None:
        await store.put_object("audio/t1/kept.wav", b"kept", content_type="audio/wav")
        project.server.faults.next(2, kind, carried_out=carried_out)
        answer = await ASKS[name](store, key)
        assert project.server.faults.done[kind] == 2
        assert answer is not False
        assert await state(store, key) == {
            "create_tenant": (["acme", "second"], [], ["audio/t1/kept.wav"]),
            "reserve and settle": (["acme"], [(1, "success", 1.5)], ["audio/t1/kept.wav"]),
            "put_object": (["acme"], [], [OBJECT, "audio/t1/kept.wav"]),
            "delete_object": (["acme"], [], []),
        }.get(name, (["acme"], [], ["audio/t1/kept.wav"]))

    @pytest.mark.parametrize("name", ASKS)
    async def test_three_lost_answers_are_told(
        self, store: Store, key: NewKey, project: Project, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        project.server.faults.next(99, Kind.RESET)
        before = len(project.server.faults.requests)
        with pytest.raises(StoreUnavailable) as caught:
            await ASKS[name](store, key)
        assert len(project.server.faults.requests) - before == 3
        told = f"{caught.value} {caplog.text}"
        assert project.server.service_key not in told
        assert key.secret not in told
        assert project.server.url not in told

    async def test_no_answer_in_time(
        self, store: Store, key: NewKey, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "DATABASE_DEADLINE_S", 0.2)
        project.server.faults.next(1, Kind.STALL)
        with pytest.raises(StoreUnavailable, match="in time"):
            await store.list_tenants()
        assert len(await store.list_tenants()) == 1

    async def test_more_calls_than_connections_take_turns(self, store: Store, key: NewKey) -> None:
        asked = [store.reserve(reservation(key, identity=str(number))) for number in range(100)]
        assert [reserved.fence for reserved in await asyncio.gather(*asked)] == [1] * 100

    async def test_what_is_refused_is_not_asked_again(self, store: Store, key: NewKey, project: Project) -> None:
        before = len(project.server.faults.requests)
        with pytest.raises(VoiceNotFound):
            await store.get_voice(key.tenant.id, "none")
        with pytest.raises(KeyError):
            await store.get_object(OBJECT)
        assert len(project.server.faults.requests) - before == 2


class TestStart:
    async def test_a_refused_key_is_told_and_not_shown(self, project: Project) -> None:
        for key in ("sb_secret_wrong", project.server.anon_key, project.server.token("service_role", lives_s=-1)):
            with pytest.raises(StartupError, match="SUPABASE_SERVICE_ROLE_KEY") as caught:
                await open_supabase(project.server.url, key)
            assert key not in str(caught.value)

    async def test_the_legacy_key_is_accepted(self, project: Project) -> None:
        store = await open_supabase(project.server.url, project.server.token("service_role"))
        assert await store.list_tenants() == ()
        await store.close()

    async def test_a_project_without_our_tables(self, postgres: Postgres, tmp_path: Path) -> None:
        with (
            postgres.database() as empty,
            SupabaseServer(empty, tmp_path) as server,
            pytest.raises(StartupError, match="supabase db push"),
        ):
            await open_supabase(server.url, server.service_key)

    async def test_a_schema_that_is_not_exposed(self, project: Project) -> None:
        with pytest.raises(StartupError, match="supabase db push"):
            await open_supabase(project.server.url, project.server.service_key, schema="private")

    async def test_a_project_that_is_away_may_come_back(self, project: Project) -> None:
        project.server.faults.next(99, Kind.UNAVAILABLE)
        store = await open_supabase(project.server.url, project.server.service_key)
        with pytest.raises(StoreUnavailable):
            await store.list_tenants()
        project.server.faults.clear()
        assert await store.list_tenants() == ()
        await store.close()

    async def test_nobody_listens(self) -> None:
        store = await open_supabase("http://127.0.0.1:1", "sb_secret_x")
        with pytest.raises(StoreUnavailable):
            await store.list_tenants()
        await store.close()

    @pytest.mark.parametrize(
        ("status", "answer", "startup_error"),
        [
            (401, {"message": "Invalid API key", "hint": "Double check it"}, "SUPABASE_SERVICE_ROLE_KEY"),
            (404, {"msg": "not found"}, "supabase db push"),
            (302, None, "SUPABASE_URL leads elsewhere"),
            (400, {"message": "odd"}, None),
            (540, {"message": "Project paused"}, None),
        ],
    )
    async def test_a_gateway_that_has_no_codes_is_understood_by_its_status(
        self, status: int, answer: dict[str, str] | None, startup_error: str | None
    ) -> None:
        async def say(_: web.Request) -> web.Response:
            return web.json_response(answer, status=status) if answer else web.Response(status=status)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", say)
        async with TestServer(app) as server:
            if startup_error is not None:
                with pytest.raises(StartupError, match=startup_error):
                    await open_supabase(str(server.make_url("/")), "sb_secret_x")
                return
            store = await open_supabase(str(server.make_url("/")), "sb_secret_x")
            with pytest.raises(StoreUnavailable):
                await store.list_tenants()
            await store.close()

    def test_a_store_is_used_in_another_loop_than_it_was_opened_in(self, project: Project) -> None:
        store = asyncio.run(open_supabase(project.server.url, project.server.service_key))

        async def use() -> int:
            await store.create_tenant("acme", scopes=[])
            found = len(await store.list_tenants())
            await store.close()
            return found

        assert [asyncio.run(use()), asyncio.run(use())] == [1, 2]


class TestOpenStore:
    def settings(self, tmp_path: Path, **env: str) -> Settings:
        return Settings.from_env({"XTTS_DATA_DIR": str(tmp_path), **env})

    async def test_supabase_is_taken_where_it_is_configured(self, project: Project, tmp_path: Path) -> None:
        env = {"SUPABASE_URL": project.server.url + "/", "SUPABASE_SERVICE_ROLE_KEY": project.server.service_key}
        for choice in ("auto", "supabase"):
            store = await open_store(self.settings(tmp_path, XTTS_STORE=choice, **env))
            with pytest.raises(NotSupported, match="tenant_key"):
                await store.local_key()
            await store.close()
        store = await open_store(self.settings(tmp_path, XTTS_STORE="local", **env))
        assert await store.local_key()
        await store.close()

    @pytest.mark.parametrize(
        ("env", "missing"),
        [
            ({"SUPABASE_URL": "https://x.supabase.co"}, "SUPABASE_SERVICE_ROLE_KEY is not set"),
            ({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_hidden"}, "SUPABASE_URL is not set"),
            ({"XTTS_STORE": "supabase"}, "SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY is not set"),
        ],
    )
    async def test_what_is_missing_is_named(self, tmp_path: Path, env: dict[str, str], missing: str) -> None:
        with pytest.raises(StartupError, match=missing) as caught:
            await open_store(self.settings(tmp_path, **env))
        assert "hidden" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("SUPABASE_URL", "x.supabase.co"), ("SUPABASE_URL", "https://x.co/rest/v1"), ("SUPABASE_SCHEMA", "a b")],
    )
    def test_a_wrong_value_is_named_and_not_shown(self, tmp_path: Path, name: str, value: str) -> None:
        with pytest.raises(StartupError, match=name) as caught:
            self.settings(tmp_path, **{name: value})
        assert value not in str(caught.value)

    def test_there_is_one_name_for_each(self, tmp_path: Path) -> None:
        with pytest.raises(StartupError, match="XTTS_SUPABASE_URL"):
            self.settings(tmp_path, XTTS_SUPABASE_URL="https://x.supabase.co")

    def test_the_names_of_the_systems_before_are_read(self, tmp_path: Path) -> None:
        """XTTS_DATA_DIR and AUDIO_STORAGE_DIR are one setting."""
        asked = Settings.from_env({"AUDIO_STORAGE_DIR": str(tmp_path), "SUPABASE_SCHEMA": "speech"})
        assert (asked.data_dir, asked.supabase_schema) == (tmp_path, "speech")

    def test_settings_do_not_show_the_key(self, tmp_path: Path) -> None:
        assert "hidden" not in repr(self.settings(tmp_path, SUPABASE_SERVICE_ROLE_KEY="sb_secret_hidden"))


class TestFaults:
    @pytest.mark.parametrize(
        "code", ["500", "502", "503", "520", "429", "PGRST000", "PGRST003", "57P01", "57014", "08006", "53300", "40P01"]
    )
    def test_no_answer(self, code: str) -> None:
        assert isinstance(fault_of(code), StoreUnavailable)

    @pytest.mark.parametrize("code", ["401", "PGRST301", "42501", "PGRST202", "PGRST205", "42P01"])
    def test_no_project_of_ours(self, code: str) -> None:
        assert isinstance(fault_of(code), StartupError)

    @pytest.mark.parametrize("code", ["23505", "23503", "22P02", "PGRST100", "PGRST116", "P0001", ""])
    def test_our_own_mistakes_are_not_translated(self, code: str) -> None:
        assert fault_of(code) is None

    def test_an_error_of_ours_has_its_words_and_fields(self) -> None:
        fault = fault_of("XT429", message="rate_limited", detail="too many", hint='{"retry_after_s": 2}')
        assert isinstance(fault, RateLimited)
        assert json.loads(fault.to_wire("r")) == {
            "code": "rate_limited",
            "message": "too many",
            "retryable": True,
            "request_id": "r",
            "retry_after_s": 2,
        }

    async def test_a_text_that_postgres_cannot_keep(self, store: Store) -> None:
        for name in ("a\0b", "\ud800"):
            with pytest.raises(InvalidInput):
                await store.create_tenant(name, scopes=[])

    async def test_an_upload_that_the_bucket_refuses_is_our_mistake(self, store: Store) -> None:
        with pytest.raises(Exception, match="mime type"):
            await store.put_object(OBJECT, b"x", content_type="text/html")

    async def test_a_bucket_that_is_gone(self, store: Store, project: Project) -> None:
        with project.database.connect(role="supabase_admin") as connection:
            connection.execute("set storage.allow_delete_query = 'true'; delete from storage.buckets")
        with pytest.raises(StartupError, match="buckets"):
            await store.put_object(OBJECT, b"x", content_type="audio/wav")


class TestPages:
    async def test_a_long_table_is_read_whole_and_in_order(
        self, store: Store, key: NewKey, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        total = 2 * PAGE_ROWS + 7
        with project.database.connect(role="postgres") as connection:
            connection.execute(
                """
                insert into public.usage_logs (
                    tenant_id, request_id, fence, action, input_chars, audio_seconds, audio_bytes, latency_ms,
                    streaming, status, cached, metadata, created_at
                ) select
                    %s, 'r' || lpad((n / 3)::text, 6, '0'), n %% 3, 'synthesize', 0, n, 0, 0,
                    false, 'success', false, '{}', now() - interval '1 minute' * (n / 100)
                from generate_series(1, %s) as n
                """,
                (key.tenant.id, total),
            )
        rows = await store.usage(key.tenant.id)
        assert len({row.audio_seconds for row in rows}) == len(rows) == total
        placed = [(row.created_at, row.request_id, row.fence) for row in rows]
        assert placed == sorted(placed)
        assert project.server.faults.attempts("/rest/v1/usage_logs") == 3

    def test_what_follows_a_row(self) -> None:
        row = {"created_at": "2026-11-21T06:00:00+00:00", "name": 'a"\\b,c', "id": 7}
        assert after(row, ["id"]) == 'id.gt."7"'
        assert after(row, ["created_at.desc", "name"]) == (
            'created_at.lt."2026-11-21T06:00:00+00:00",'
            'and(created_at.eq."2026-11-21T06:00:00+00:00",or(name.gt."a\\"\\\\b,c"))'
        )


class TestThroughTheService:
    async def events(self, service: Service, body: Mapping[str, object], job_id: str) -> list[dict[str, Any]]:
        return [event async for event in service.answer(body, job_id=job_id)]

    async def test_a_job_is_spoken_kept_signed_and_settled(
        self, store: Store, key: NewKey, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        service = Service(ScriptedEngine(), store, settings=Settings(), fetch=self.no_network)
        job = {"tenant_key": key.secret, "text": "abc", "language": "en", "output": "url", "metadata": {"a": 1}}
        (result,) = await self.events(service, job, "1")
        assert result["status"] == "success"
        with await asyncio.to_thread(urlopen, result["audio_url"]) as answer:
            assert answer.headers["content-type"] == "audio/wav"
            samples, _ = soundfile.read(io.BytesIO(answer.read()))
        assert len(samples) == 7200
        await asyncio.gather(*(run.owner for run in service._runs.values()))
        left = datetime.fromisoformat(result["expires_at"]) - datetime.now(UTC)
        assert timedelta(minutes=9) < left <= timedelta(minutes=10)
        (again,) = await self.events(service, job, "1")
        assert (again["request_id"], again["duration"]) == (result["request_id"], result["duration"])
        (row,) = await store.usage(key.tenant.id)
        assert (row.status, row.input_chars, json.loads(row.metadata)) == ("success", 3, {"a": 1})
        assert key.secret not in caplog.text
        await service.close()

    async def test_a_job_survives_lost_answers(self, store: Store, key: NewKey, project: Project) -> None:
        service = Service(ScriptedEngine(), store, settings=Settings(), fetch=self.no_network)
        for function in ("reserve_request", "settle_request"):
            project.server.faults.next(2, Kind.RESET, carried_out=True, prefix=f"/rest/v1/rpc/{function}")
        job = {"tenant_key": key.secret, "text": "abc", "language": "en"}
        (result,) = await self.events(service, job, "1")
        assert result["status"] == "success"
        assert [(row.fence, row.status) for row in await store.usage(key.tenant.id)] == [(1, "success")]
        await service.close()

    async def test_an_outage_is_told_and_may_be_repeated(self, store: Store, key: NewKey, project: Project) -> None:
        service = Service(ScriptedEngine(), store, settings=Settings(), fetch=self.no_network)
        project.server.faults.next(3, Kind.UNAVAILABLE, prefix="/rest/v1/rpc/reserve_request")
        job = {"tenant_key": key.secret, "text": "abc", "language": "en"}
        (failed,) = await self.events(service, job, "1")
        assert (json.loads(failed["error"])["code"], json.loads(failed["error"])["retryable"]) == (
            "store_unavailable",
            True,
        )
        await asyncio.gather(*(run.owner for run in service._runs.values()))  # until then it is told the same
        (result,) = await self.events(service, job, "1")
        assert result["status"] == "success"
        await service.close()

    async def no_network(self, url: str) -> bytes:
        raise AssertionError("no clip is fetched here")


async def test_the_databases_clock_dates_rows_where_no_other_is_given(project: Project, clock: Clock) -> None:
    server = project.server
    real, moved = [await open_supabase(server.url, server.service_key, clock=given) for given in (None, clock)]
    now = datetime.now(UTC)
    made = await real.create_tenant("now", scopes=["synthesize"])
    assert abs(datetime.fromisoformat(made.tenant.created_at) - now) < timedelta(minutes=1)
    reserved = await moved.reserve(replace(reservation(made), lease_s=1))
    await moved.settle(reserved, SUCCESS)
    (row,) = await real.usage(made.tenant.id)
    assert datetime.fromisoformat(row.created_at) == datetime.fromtimestamp(clock.now_s, UTC)
    for store in (real, moved):
        await store.close()


async def test_the_command_line_makes_tenants_and_logs_no_address(project: Project) -> None:
    env = {"SUPABASE_URL": project.server.url, "SUPABASE_SERVICE_ROLE_KEY": project.server.service_key}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "handler.py", "tenants", "create", "Acme",
        env={"PATH": os.environ["PATH"], **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    made = json.loads(out)
    store = await open_supabase(project.server.url, project.server.service_key)
    assert [tenant.id for tenant in await store.list_tenants()] == [made["tenant_id"]]
    await store.close()
    assert process.returncode == 0
    assert not any(secret.encode() in err for secret in (*env.values(), made["tenant_key"]))
