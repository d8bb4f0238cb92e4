"""Users, personas and messages through the whole service, on either body of the Store."""

import base64
import json
from collections.abc import AsyncIterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_engine import ScriptedEngine
from tests.stores import Clock
from tts_core.errors import ReferenceUnreachable
from tts_core.service import Service
from tts_core.service.delivery import MAX_YIELD_BYTES, wire_bytes
from tts_core.settings import Settings
from tts_core.store import NewKey, Scope, Store, UsageRow

Event = dict[str, Any]
EVERYTHING: tuple[Scope, ...] = ("synthesize", "voices", "personas", "usage")


class Tenant:
    """One tenant's way to the service."""

    def __init__(self, service: Service, key: NewKey) -> None:
        self.service, self.key = service, key
        self._jobs = count()

    async def events(self, body: Event, *, job_id: str | None = None) -> list[Event]:
        job_id = job_id or f"job-{next(self._jobs)}"
        asked = {"tenant_key": self.key.secret, **body}
        return [event async for event in self.service.answer(asked, job_id=job_id)]

    async def ask(self, action: str, *, job_id: str | None = None, **fields: Any) -> Event:
        (answer,) = await self.events({"action": action, **fields}, job_id=job_id)
        assert "error" not in answer, answer
        return answer

    async def refused(self, action: str, **fields: Any) -> Event:
        *_, answer = await self.events({"action": action, **fields})
        error: Event = json.loads(answer["error"])
        return error

    async def speak(self, **fields: Any) -> Event:
        return await self.ask("synthesize", text="abc", language="en", **fields)

    async def usage(self) -> Sequence[UsageRow]:
        return await self.service.store.usage(self.key.tenant.id)


async def no_network(url: str) -> bytes:
    raise ReferenceUnreachable("no network in this test")


class Ticking(Clock):
    """No two rows of usage have one time, so their order is that of the requests."""

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Ticking()


@pytest.fixture
async def service(store: Store, tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(ScriptedEngine(), store, settings=Settings(data_dir=tmp_path), fetch=no_network)
    yield service
    await service.close()


@pytest.fixture
async def acme(service: Service, store: Store) -> Tenant:
    return Tenant(service, await store.create_tenant("acme", scopes=EVERYTHING))


@pytest.fixture
async def other(service: Service, store: Store) -> Tenant:
    return Tenant(service, await store.create_tenant("other", scopes=EVERYTHING))


async def a_user(tenant: Tenant, name: str = "ada") -> str:
    user = await tenant.ask("users.put", external_id=f"auth0|{name}", email=f"{name}@example.com")
    return str(user["id"])


async def a_persona(tenant: Tenant, user_id: str, **fields: Any) -> str:
    persona = await tenant.ask("personas.create", user_id=user_id, name="Echo", **fields)
    return str(persona["id"])


async def a_voice(tenant: Tenant, **fields: Any) -> str:
    clip = base64.b64encode(Path("samples/nova.flac").read_bytes()).decode()
    voice = await tenant.ask("voices.create", name="Ada", reference_audio_base64=clip, consent="synthetic", **fields)
    return str(voice["id"])


class TestUsers:
    async def test_a_user_is_put_told_and_put_again(self, acme: Tenant) -> None:
        made = await acme.ask("users.put", external_id="auth0|1", email="a@example.com")
        told = await acme.ask("users.get", external_id="auth0|1")
        assert told["id"] == made["id"]
        assert (told["email"], told["auth_user_id"]) == ("a@example.com", None)
        again = await acme.ask("users.put", external_id="auth0|1", auth_user_id="00000000-0000-4000-8000-00000000000a")
        assert (again["id"], again["created_at"]) == (made["id"], made["created_at"])
        told = await acme.ask("users.get", user_id=made["id"])
        assert (told["email"], told["auth_user_id"]) == (None, "00000000-0000-4000-8000-00000000000a")

    async def test_users_are_listed_in_pages(self, acme: Tenant) -> None:
        ids = [await a_user(acme, str(n)) for n in range(5)]
        first = await acme.ask("users.list", limit=2)
        second = await acme.ask("users.list", limit=2, cursor=first["next_cursor"])
        third = await acme.ask("users.list", limit=2, cursor=second["next_cursor"])
        pages = [first, second, third]
        assert [page["count"] for page in pages] == [2, 2, 1]
        assert [user["id"] for page in pages for user in page["users"]] == ids
        assert third["next_cursor"] is None

    @pytest.mark.parametrize("cursor", ["", "x", "W10=", "WzEsMl0=", "WyIyMDI2LTAxLTAxIiwgIngiXQ==", "é"])
    async def test_a_cursor_of_ones_own_making_is_refused(self, acme: Tenant, cursor: str) -> None:
        for action in ("users.list", "personas.list"):
            assert (await acme.refused(action, cursor=cursor))["code"] == "invalid_input"

    async def test_a_user_goes_with_personas_messages_and_voices(self, acme: Tenant) -> None:
        user_id, other_id = await a_user(acme), await a_user(acme, "bob")
        persona_id = await a_persona(acme, user_id)
        await acme.ask("messages.add", persona_id=persona_id, role="user", content="Hi.")
        mine, others = await a_voice(acme, user_id=user_id), await a_voice(acme, user_id=other_id)
        gone = await acme.ask("users.delete", user_id=user_id, job_id="delete")
        assert gone["receipt"] == {"users": 1, "personas": 1, "messages": 1, "voices": 1}
        assert await acme.ask("users.delete", user_id=user_id, job_id="delete") == gone
        assert (await acme.refused("users.delete", user_id=user_id))["code"] == "user_not_found"
        assert (await acme.refused("voices.get", voice_id=mine))["code"] == "voice_not_found"
        assert (await acme.ask("voices.get", voice_id=others))["id"] == others
        assert [user["id"] for user in (await acme.ask("users.list"))["users"]] == [other_id]

    async def test_one_id_is_named_not_none_and_not_both(self, acme: Tenant) -> None:
        for fields in ({}, {"user_id": "u", "external_id": "e"}):
            assert (await acme.refused("users.get", **fields))["code"] == "invalid_input"


class TestPersonas:
    async def test_a_persona_is_made_told_changed_and_deleted(self, acme: Tenant) -> None:
        user_id = await a_user(acme)
        persona_id = await a_persona(acme, user_id, persona_prompt="Be brief.", voice_id="nova")
        told = await acme.ask("personas.get", persona_id=persona_id)
        assert (told["name"], told["persona_prompt"], told["voice_id"]) == ("Echo", "Be brief.", "nova")
        changed = await acme.ask("personas.update", persona_id=persona_id, name="Alma", voice_id=None)
        assert changed["updated"] == ["name", "voice_id"]
        told = await acme.ask("personas.get", persona_id=persona_id)
        assert (told["name"], told["persona_prompt"], told["voice_id"]) == ("Alma", "Be brief.", None)
        gone = await acme.ask("personas.delete", persona_id=persona_id)
        assert gone["receipt"] == {"users": 0, "personas": 1, "messages": 0}
        assert (await acme.refused("personas.get", persona_id=persona_id))["code"] == "persona_not_found"

    async def test_personas_are_listed_by_user(self, acme: Tenant) -> None:
        ada, bob, eve = [await a_user(acme, name) for name in ("ada", "bob", "eve")]
        made = {user: [await a_persona(acme, user) for _ in range(2)] for user in (ada, bob)}
        for user, ids in (made | {eve: []}).items():
            told = await acme.ask("personas.list", user_id=user)
            assert [persona["id"] for persona in told["personas"]] == ids
        assert (await acme.ask("personas.list"))["count"] == 4
        assert (await acme.refused("personas.list", user_id="nobody"))["code"] == "user_not_found"

    async def test_a_voice_must_be_one_the_tenant_may_speak_with(self, acme: Tenant, other: Tenant) -> None:
        user_id, mine, theirs = await a_user(acme), await a_voice(acme), await a_voice(other)
        persona_id = await a_persona(acme, user_id, voice_id=mine)
        refusals = [
            await acme.refused("personas.create", user_id=user_id, name="E", voice_id=theirs),
            await acme.refused("personas.update", persona_id=persona_id, voice_id=theirs),
            await acme.refused("personas.update", persona_id=persona_id, voice_id="nobody"),
        ]
        assert {error["code"] for error in refusals} == {"voice_not_found"}
        await other.ask("voices.share", voice_id=theirs, tenant_id=acme.key.tenant.id)
        await acme.ask("personas.update", persona_id=persona_id, voice_id=theirs)
        assert (await acme.speak(persona_id=persona_id))["voice_id"] == theirs

    async def test_an_update_changes_something(self, acme: Tenant) -> None:
        for fields in ({}, {"name": None}, {"persona_prompt": None}):
            error = await acme.refused("personas.update", persona_id="p", **fields)
            assert error["code"] == "invalid_input"

    async def test_to_take_the_voice_away_is_not_to_leave_it(self, acme: Tenant) -> None:
        persona_id = await a_persona(acme, await a_user(acme), voice_id="nova")
        await acme.ask("personas.update", persona_id=persona_id, name="A", idempotency_key="k")
        error = await acme.refused(
            "personas.update", persona_id=persona_id, name="A", voice_id=None, idempotency_key="k"
        )
        assert error["code"] == "idempotency_conflict"


class TestMessages:
    async def test_a_conversation_is_told_in_pages_oldest_first(self, acme: Tenant) -> None:
        persona_id = await a_persona(acme, await a_user(acme))
        for n, role in enumerate(("system", "user", "assistant")):
            await acme.ask("messages.add", persona_id=persona_id, role=role, content=f"{n}")
        first = await acme.ask("messages.list", persona_id=persona_id, limit=2)
        rest = await acme.ask("messages.list", persona_id=persona_id, cursor=first["next_cursor"])
        told = [(message["role"], message["content"]) for message in first["messages"] + rest["messages"]]
        assert told == [("system", "0"), ("user", "1"), ("assistant", "2")]
        assert (first["count"], rest["count"], rest["next_cursor"]) == (2, 1, None)

    async def test_a_message_delivered_twice_is_there_once(self, acme: Tenant) -> None:
        persona_id = await a_persona(acme, await a_user(acme))
        said: Event = {"persona_id": persona_id, "role": "user", "content": "Hi."}
        one = await acme.ask("messages.add", **said, job_id="same")
        assert await acme.ask("messages.add", **said, job_id="same") == one
        named = [await acme.ask("messages.add", **said, message_id="m1") for _ in range(2)]
        assert named[0]["created_at"] == named[1]["created_at"]
        ids = [message["id"] for message in (await acme.ask("messages.list", persona_id=persona_id))["messages"]]
        assert ids == [one["id"], "m1"]
        error = await acme.refused("messages.add", **said | {"content": "Bye."}, message_id="m1")
        assert error["code"] == "idempotency_conflict"

    async def test_messages_are_deleted_one_by_one_or_all(self, acme: Tenant) -> None:
        persona_id = await a_persona(acme, await a_user(acme))
        for n in range(3):
            await acme.ask("messages.add", persona_id=persona_id, role="user", content="Hi.", message_id=f"m{n}")
        gone = await acme.ask("messages.delete", persona_id=persona_id, message_id="m1")
        assert (gone["deleted"], gone["receipt"]) == ("m1", {"messages": 1})
        error = await acme.refused("messages.delete", persona_id=persona_id, message_id="m1")
        assert error["code"] == "message_not_found"
        assert (await acme.ask("messages.delete", persona_id=persona_id, all=True))["receipt"] == {"messages": 2}
        for fields in ({}, {"all": True, "message_id": "m2"}):
            error = await acme.refused("messages.delete", persona_id=persona_id, **fields)
            assert error["code"] == "invalid_input"

    async def test_a_page_of_the_longest_messages_fits_an_event(self, acme: Tenant) -> None:
        persona_id = await a_persona(acme, await a_user(acme))
        content = "\U0001f600" * 20_000
        for _ in range(3):
            await acme.ask("messages.add", persona_id=persona_id, role="user", content=content)
        cursor, seen = None, list[str]()
        while cursor is not None or not seen:
            page = await acme.ask("messages.list", persona_id=persona_id, cursor=cursor)
            assert wire_bytes(page) <= MAX_YIELD_BYTES
            cursor = page["next_cursor"]
            seen += [message["content"] for message in page["messages"]]
        assert seen == [content] * 3

    async def test_a_page_of_the_largest_personas_fits_an_event(self, acme: Tenant) -> None:
        largest: Event = {"name": "\U0001f600" * 200, "persona_prompt": "\U0001f600" * 20_000}
        user = await acme.ask("users.put", external_id="\U0001f600" * 200, email="\U0001f600" * 100 + "@x")
        for _ in range(3):
            await acme.ask("personas.create", user_id=user["id"], **largest)
        page = await acme.ask("personas.list")
        assert page["count"] == 2
        assert wire_bytes(page) <= MAX_YIELD_BYTES
        assert (await acme.ask("personas.list", cursor=page["next_cursor"]))["count"] == 1


class TestVoices:
    async def test_a_persona_speaks_with_its_voice(self, acme: Tenant) -> None:
        voice_id = await a_voice(acme)
        user_id = await a_user(acme)
        persona_id = await a_persona(acme, user_id, voice_id=voice_id)
        spoken = await acme.speak(persona_id=persona_id)
        assert (spoken["voice_id"], spoken["warnings"]) == (voice_id, [])
        assert (await acme.speak(persona_id=persona_id, voice_id="nova"))["voice_id"] == "nova"
        rows = [row for row in await acme.usage() if row.action == "synthesize"]
        assert [row.voice_id for row in rows] == [voice_id, "nova"]
        assert [row.user_id for row in rows] == [user_id, user_id]

    async def test_a_clip_of_ones_own_goes_before_the_personas_voice(self, acme: Tenant) -> None:
        persona_id = await a_persona(acme, await a_user(acme), voice_id="nova")
        clip = base64.b64encode(Path("samples/nova.flac").read_bytes()).decode()
        spoken = await acme.speak(persona_id=persona_id, reference_audio_base64=clip, consent="synthetic")
        assert spoken["voice_id"] is None

    async def test_without_a_voice_the_default_speaks_and_says_so(self, acme: Tenant) -> None:
        persona_id = await a_persona(acme, await a_user(acme))
        spoken = await acme.speak(persona_id=persona_id)
        assert spoken["voice_id"] == "nova"
        assert [warning["code"] for warning in spoken["warnings"]] == ["persona_without_voice"]

    async def test_a_voice_that_is_gone_is_not_replaced(self, acme: Tenant) -> None:
        voice_id = await a_voice(acme)
        persona_id = await a_persona(acme, await a_user(acme), voice_id=voice_id)
        await acme.ask("voices.delete", voice_id=voice_id)
        error = await acme.refused("synthesize", text="abc", persona_id=persona_id)
        assert error["code"] == "voice_not_found"

    async def test_usage_names_the_user_also_of_what_failed(self, acme: Tenant) -> None:
        user_id = await a_user(acme)
        await acme.speak(user_id=user_id)
        await acme.refused("synthesize", text="...", user_id=user_id)
        rows = [row for row in await acme.usage() if row.action == "synthesize"]
        assert [(row.status, row.user_id) for row in rows] == [("success", user_id), ("failed", user_id)]

    async def test_a_user_of_another_persona_is_the_one_that_counts(self, acme: Tenant) -> None:
        ada, bob = await a_user(acme), await a_user(acme, "bob")
        await acme.speak(user_id=bob, persona_id=await a_persona(acme, ada, voice_id="nova"))
        assert (await acme.usage())[-1].user_id == bob

    async def test_for_nobody_nothing_is_spoken(self, acme: Tenant, other: Tenant) -> None:
        user_id = await a_user(other)
        persona_id = await a_persona(other, user_id, voice_id="nova")
        for field, foreign in (("user_id", user_id), ("persona_id", persona_id)):
            for named in (foreign, "nobody"):
                error = await acme.refused("synthesize", text="abc", **{field: named})
                assert error["code"] == f"{field.removesuffix('_id')}_not_found"
        assert [(row.audio_seconds, row.user_id) for row in await acme.usage()] == [(0.0, None)] * 4


class TestScopes:
    async def test_another_scope_does_not_do(self, service: Service, store: Store) -> None:
        tenant = Tenant(service, await store.create_tenant("acme", scopes=("synthesize", "voices", "usage")))
        for action, fields in (
            ("users.list", {}),
            ("personas.list", {}),
            ("messages.list", {"persona_id": "p"}),
            ("users.put", {"external_id": "e"}),
        ):
            assert (await tenant.refused(action, **fields))["code"] == "forbidden"


class TestForgetting:
    async def test_the_ledger_keeps_no_word_of_what_was_said(
        self, acme: Tenant, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What answers a repeated request holds ids and times: nothing that outlives a deletion."""
        settled: list[str] = []
        settle = store.settle

        async def noting(reserved: Any, outcome: Any) -> bool:
            settled.append(repr(outcome))
            return await settle(reserved, outcome)

        monkeypatch.setattr(store, "settle", noting)
        user = await acme.ask("users.put", external_id="auth0|secret", email="secret@example.com")
        persona_id = await a_persona(acme, user["id"], persona_prompt="secret prompt")
        await acme.ask("personas.update", persona_id=persona_id, name="secret name", persona_prompt="secret prompt")
        await acme.ask("messages.add", persona_id=persona_id, role="user", content="secret words")
        for action, fields in (
            ("users.get", {"user_id": user["id"]}),
            ("users.list", {}),
            ("personas.get", {"persona_id": persona_id}),
            ("personas.list", {}),
            ("messages.list", {"persona_id": persona_id}),
        ):
            assert "secret" in repr(await acme.ask(action, **fields))
        await acme.ask("users.delete", user_id=user["id"])
        assert len(settled) == 10
        assert [outcome for outcome in settled if "secret" in outcome] == []

    async def test_a_list_asked_for_again_is_read_again(self, acme: Tenant) -> None:
        assert (await acme.ask("users.list", job_id="same"))["count"] == 0
        await a_user(acme)
        assert (await acme.ask("users.list", job_id="same"))["count"] == 1
        assert [row.action for row in await acme.usage()] == ["users.list", "users.put"]
