"""After `tenants.delete` nothing of a tenant is left in any table or bucket, and nothing of another is missing."""

import base64
import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from storage.local import open_local
from storage.supabase import open_supabase
from tests.scripted_engine import ScriptedEngine
from tests.stores import Project
from tests.test_tenants import SECRET, Desk, no_network
from tts_core.service import Service
from tts_core.settings import Settings
from tts_core.store import Store

Dump = Callable[[], Mapping[str, str]]
"""Every row of every table but the operator's own (which say what it asked for), and the names of all objects."""


async def fill(desk: Desk, key: str, *, share_with: str) -> None:
    """Something of every area."""
    clip = base64.b64encode(Path("samples/nova.flac").read_bytes()).decode()
    voice = await desk.ask(key, "voices.create", name="Ada", reference_audio_base64=clip, consent="synthetic")
    await desk.ask(key, "voices.share", voice_id=voice["id"], tenant_id=share_with)
    user = await desk.ask(key, "users.put", external_id="auth0|1")
    persona = await desk.ask(key, "personas.create", user_id=user["id"], name="Echo", voice_id=voice["id"])
    await desk.ask(key, "messages.add", persona_id=persona["id"], role="user", content="Hello.")
    await desk.ask(
        key, "synthesize", text="abc " * 200, language="en", keep=True, output="url", persona_id=persona["id"]
    )
    await desk.ask(key, "synthesize", text="abc", language="en", voice_id=voice["id"])
    await desk.ask(key, "cache.seed", texts=["abc"], voices=["nova"])
    await desk.ask(key, "cache.stats")
    await desk.ask(key, "usage.summary")
    await desk.ask(key, "retention.set", audio_days=1, text_days=None, message_days=None)


def mentions(dump: Mapping[str, str], tenant_id: str) -> dict[str, int]:
    return {table: text.count(tenant_id) for table, text in dump.items() if tenant_id in text}


async def check(store: Store, dump: Dump, folder: Path) -> None:
    service = Service(ScriptedEngine(), store, settings=Settings(data_dir=folder), fetch=no_network)
    desk = Desk(service)
    scopes = ["synthesize", "voices", "personas", "cache", "usage", "admin"]
    gone, stays = [await desk.tenant(scopes=scopes, requests_per_minute=1000, quota_minutes=60) for _ in range(2)]
    gone_id, stays_id = gone["tenant"]["id"], stays["tenant"]["id"]
    await fill(desk, gone["tenant_key"], share_with=stays_id)
    await fill(desk, stays["tenant_key"], share_with=gone_id)
    await desk.settled()
    await service._cache.counts.flush()
    before = dump()
    receipt = (await desk.ask(SECRET, "tenants.delete", tenant_id=gone_id, confirm=True))["receipt"]
    await service.close()
    after = dump()
    assert {"voices", "personas", "users", "messages", "jobs", "tts_cache", "usage_daily", "usage_logs"} <= set(
        receipt["rows"]
    )
    assert receipt["objects"] == mentions(before, gone_id)["objects"] > 0
    assert mentions(after, gone_id).keys() == {"deleted_tenants"}
    kept = {table: n - mentions(after, stays_id).get(table, 0) for table, n in mentions(before, stays_id).items()}
    assert {table for table, n in kept.items() if n} == {"voice_grants"}, "both grants were between the two"


@pytest.fixture
def operator_key() -> bytes:
    return hashlib.sha256(SECRET.encode()).digest()


async def test_in_the_local_store(tmp_path: Path, operator_key: bytes) -> None:
    def dump() -> Mapping[str, str]:
        with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            connection.row_factory = sqlite3.Row
            assert connection.execute("pragma foreign_key_check").fetchall() == []
            names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
            rows = {name: [dict(row) for row in connection.execute(f"select * from {name}")] for name in names}
        objects = [str(path) for path in (tmp_path / "objects").rglob("*") if path.is_file()]
        return told(rows) | {"objects": "\n".join(objects)}

    await check(await open_local(tmp_path, operator_key=operator_key), dump, tmp_path / "worker")


async def test_in_supabase(project: Project, tmp_path: Path, operator_key: bytes) -> None:
    def dump() -> Mapping[str, str]:
        with project.database.connect(role="supabase_admin") as connection:
            tables = connection.execute(
                "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
            )
            names = [str(name) for (name,) in tables.fetchall()]
            rows = {
                name: [row for (row,) in connection.execute(_ROWS.format(sql.Identifier("public", name))).fetchall()]
                for name in names
            }
            objects = connection.execute("select bucket_id || '/' || name from storage.objects").fetchall()
        return told(rows) | {"objects": "\n".join(path for (path,) in objects)}

    store = await open_supabase(project.server.url, project.server.service_key, operator_key=operator_key)
    await check(store, dump, tmp_path)


_ROWS = sql.SQL("select to_jsonb(t) from {} as t")


def told(rows: Mapping[str, list[dict[str, Any]]]) -> dict[str, str]:
    return {
        table: "\n".join(str(row) for row in of_table if row.get("tenant_id") != "operator")
        for table, of_table in rows.items()
    }
