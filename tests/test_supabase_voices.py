"""Voices in Supabase: what a tenant's own people may read of them, and lost answers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from storage.supabase import client, open_supabase
from tests.stores import Clock, Project
from tests.supabase_server import Kind
from tests.test_store_voices import FULL, PLAIN, a_version, everything, make
from tts_core.errors import VoiceNotFound
from tts_core.store import Store, StoredObject, VoiceRow

ADA, BOB = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


@pytest.fixture
async def store(project: Project, clock: Clock) -> AsyncIterator[Store]:
    store = await open_supabase(project.server.url, project.server.service_key, clock=clock)
    yield store
    await store.close()


@pytest.fixture
async def acme(store: Store) -> str:
    return (await store.create_tenant("acme", scopes=["voices"])).tenant.id


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES_S", (0.0, 0.0))


async def test_the_people_of_a_tenant_read_its_own_voices_and_write_none(
    store: Store, project: Project, acme: str
) -> None:
    other = (await store.create_tenant("other", scopes=["voices"])).tenant.id
    with project.database.connect(role="postgres") as connection:
        for tenant_id, person in ((acme, ADA), (other, BOB)):
            connection.execute("insert into auth.users (id) values (%s)", [person])
            connection.execute("insert into tenant_members values (%s, %s)", [tenant_id, person])
    await make(store, acme, "v1")
    await store.share_voice(acme, "v1", with_tenant_id=other)
    async with httpx.AsyncClient(base_url=f"{project.server.url}/rest/v1") as http:

        async def ask(method: str, path: str, *, sub: str, body: Any = None) -> Any:
            token = project.server.token("authenticated", sub=sub)
            headers = {"apikey": project.server.anon_key, "Authorization": f"Bearer {token}"}
            return (await http.request(method, path, headers=headers, json=body)).json()

        for table, column in (("voices", "id"), ("voice_versions", "voice_id"), ("voice_grants", "voice_id")):
            assert [row[column] for row in await ask("GET", f"/{table}", sub=ADA)] == ["v1"]
            assert await ask("GET", f"/{table}", sub=BOB) == []
            assert (await ask("DELETE", f"/{table}?tenant_id=neq.x", sub=ADA))["code"] == "42501"
        for table in ("voice_latents", "voice_purges"):
            assert (await ask("GET", f"/{table}", sub=ADA))["code"] == "42501"
        body = {"p": {"tenant_id": acme, "voice_id": "v1"}}
        assert (await ask("POST", "/rpc/get_voice", sub=ADA, body=body))["code"] == "42501"


Ask = Callable[[Store, str], Awaitable[object]]
LATENTS = StoredObject("voices/t/latents", 130_000)
ASKS: dict[str, Ask] = {
    "create_voice": lambda store, acme: make(store, acme, "v2", FULL),
    "get_voice": lambda store, acme: store.get_voice(acme, "v1", version=1),
    "list_voices": lambda store, acme: store.list_voices(acme, everything()),
    "update_voice": lambda store, acme: store.update_voice(acme, "v1", changes={}, version=a_version("r2")),
    "share_voice": lambda store, acme: store.share_voice(acme, "v1", with_tenant_id="second"),
    "unshare_voice": lambda store, acme: store.unshare_voice(acme, "v1", with_tenant_id="first"),
    "delete_voice": lambda store, acme: store.delete_voice(acme, "v1", request_id="d"),
    "note_latents": lambda store, acme: store.note_latents(acme, "v1", 1, latents=LATENTS),
}
Left = list[tuple[str, tuple[int, ...], tuple[str, ...]]]
UNTOUCHED: Left = [("v1", (1,), ("first",))]
LEFT: dict[str, Left] = {
    "create_voice": [("v2", (1,), ()), *UNTOUCHED],
    "update_voice": [("v1", (1, 2), ("first",))],
    "share_voice": [("v1", (1,), ("first", "second"))],
    "unshare_voice": [("v1", (1,), ())],
    "delete_voice": [],
}
"""Each voice's id, versions and grantees, where they are others than `UNTOUCHED`."""


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize(("kind", "carried_out"), [(Kind.RESET, True), (Kind.HALF, True), (Kind.UNAVAILABLE, False)])
async def test_a_lost_answer_changes_nothing(
    store: Store, project: Project, acme: str, name: str, kind: Kind, carried_out: bool
) -> None:
    await make(store, acme, "v1", PLAIN)
    await store.share_voice(acme, "v1", with_tenant_id="first")
    project.server.faults.next(2, kind, carried_out=carried_out)
    answer = await ASKS[name](store, acme)
    assert project.server.faults.done[kind] == 2
    voices = await store.list_voices(acme, everything())
    assert [(voice.id, voice.versions, voice.shared_with) for voice in voices] == LEFT.get(name, UNTOUCHED)
    assert answer is not False
    if isinstance(answer, VoiceRow):
        assert answer == await store.get_voice(acme, answer.id)


async def test_a_deletion_whose_answer_was_lost_still_names_its_objects(
    store: Store, project: Project, acme: str
) -> None:
    await make(store, acme, "v1")
    project.server.faults.next(1, Kind.RESET, carried_out=True)
    purge = await store.delete_voice(acme, "v1", request_id="d")
    assert [stored.path for stored in purge.objects] == ["voices/t/v1-a"]
    with pytest.raises(VoiceNotFound):
        await store.delete_voice(acme, "v1", request_id="another")
