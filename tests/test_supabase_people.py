"""Users, personas and messages in Supabase: what a person may read with the own token, and lost answers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from storage.supabase import client, open_supabase
from tests.stores import Clock, Project
from tests.supabase_server import Kind
from tests.test_store_people import a_message, a_persona, a_user
from tts_core.store import PersonaRow, Removal, Store

ADA, BOB = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


@pytest.fixture
async def store(project: Project, clock: Clock) -> AsyncIterator[Store]:
    store = await open_supabase(project.server.url, project.server.service_key, clock=clock)
    yield store
    await store.close()


@pytest.fixture
async def tenant(store: Store) -> str:
    return (await store.create_tenant("acme", scopes=["personas"])).tenant.id


@pytest.fixture
async def persona(store: Store, tenant: str) -> PersonaRow:
    return await store.create_persona(a_persona(await store.put_user(a_user(tenant))))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES_S", (0.0, 0.0))


class TestTokens:
    """Ada and Bob are users of acme, and other people of another tenant have the same ids and names."""

    @pytest.fixture
    async def read(self, store: Store, project: Project) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
        for tenant_name, people in (("acme", {"ada": ADA, "bob": BOB}), ("other", {"ada": None, "bob": BOB})):
            tenant_id = (await store.create_tenant(tenant_name, scopes=["personas"])).tenant.id
            for name, auth_user_id in people.items():
                user = await store.put_user(replace(a_user(tenant_id, name), auth_user_id=auth_user_id))
                persona = replace(a_persona(user, name), name=f"{name} of {tenant_name}")
                await store.add_message(a_message(await store.create_persona(persona)))

        async with httpx.AsyncClient(base_url=f"{project.server.url}/rest/v1") as http:

            async def read(path: str, *, sub: str, method: str = "GET", body: Any = None) -> Any:
                token = project.server.token("authenticated", sub=sub)
                headers = {"apikey": project.server.anon_key, "Authorization": f"Bearer {token}"}
                return (await http.request(method, path, headers=headers, json=body)).json()

            yield read

    async def test_a_person_reads_what_is_the_persons_own(self, read: Callable[..., Awaitable[Any]]) -> None:
        assert [user["external_id"] for user in await read("/users", sub=ADA)] == ["auth0|ada"]
        assert [persona["name"] for persona in await read("/personas", sub=ADA)] == ["ada of acme"]
        assert [message["persona_id"] for message in await read("/messages", sub=ADA)] == ["persona-ada"]

    async def test_in_every_tenant_that_knows_the_person(self, read: Callable[..., Awaitable[Any]]) -> None:
        names = sorted(persona["name"] for persona in await read("/personas", sub=BOB))
        assert names == ["bob of acme", "bob of other"]
        assert len(await read("/messages", sub=BOB)) == 2

    async def test_nothing_else_and_changes_nothing(self, read: Callable[..., Awaitable[Any]]) -> None:
        stranger = ADA.replace("a", "c")
        for path in ("/users", "/personas", "/messages"):
            assert await read(path, sub=stranger) == []
            assert (await read(f"{path}?id=neq.x", sub=ADA, method="DELETE"))["code"] == "42501"
        assert (await read("/removals", sub=ADA))["code"] == "42501"
        assert (await read("/rpc/list_users", sub=ADA, method="POST", body={"p": {}}))["code"] == "42501"


Ask = Callable[[Store, PersonaRow], Awaitable[object]]
ASKS: dict[str, Ask] = {
    "put_user": lambda store, persona: store.put_user(a_user(persona.tenant_id, "bob")),
    "get_user": lambda store, persona: store.get_user(persona.tenant_id, persona.user_id),
    "find_user": lambda store, persona: store.find_user(persona.tenant_id, "auth0|ada"),
    "list_users": lambda store, persona: store.list_users(persona.tenant_id, limit=5),
    "delete_user": lambda store, persona: store.delete_user(persona.tenant_id, persona.user_id, request_id="r"),
    "create_persona": lambda store, persona: store.create_persona(replace(persona, id="another")),
    "get_persona": lambda store, persona: store.get_persona(persona.tenant_id, persona.id),
    "list_personas": lambda store, persona: store.list_personas(persona.tenant_id, limit=5),
    "update_persona": lambda store, persona: store.update_persona(persona.tenant_id, persona.id, {"name": "else"}),
    "delete_persona": lambda store, persona: store.delete_persona(persona.tenant_id, persona.id, request_id="r"),
    "add_message": lambda store, persona: store.add_message(a_message(persona, 2)),
    "list_messages": lambda store, persona: store.list_messages(persona.tenant_id, persona.id, limit=5),
    "delete_messages": lambda store, persona: store.delete_messages(
        persona.tenant_id, persona.id, "message-1", request_id="r"
    ),
}
LEFT = {
    "put_user": (2, 1, [1]),
    "delete_user": (0, 0, []),
    "create_persona": (1, 2, [1]),
    "delete_persona": (1, 0, []),
    "add_message": (1, 1, [1, 2]),
    "delete_messages": (1, 1, []),
}
"""Users, personas, and positions of messages, where they are others than (1, 1, [1])."""


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize("kind", [Kind.RESET, Kind.HTML])
async def test_a_call_whose_answer_is_lost_twice_is_as_one(
    store: Store, persona: PersonaRow, project: Project, name: str, kind: Kind
) -> None:
    await store.add_message(a_message(persona))
    project.server.faults.next(2, kind, carried_out=True)
    answer = await ASKS[name](store, persona)
    assert project.server.faults.done[kind] == 2
    if isinstance(answer, Removal):
        assert answer != Removal()
    tenant_id = persona.tenant_id
    left = (
        len(await store.list_users(tenant_id, limit=9)),
        len(await store.list_personas(tenant_id, limit=9)),
        [message.position for message in await store.list_messages(tenant_id, persona.id, limit=9)],
    )
    assert left == LEFT.get(name, (1, 1, [1]))
