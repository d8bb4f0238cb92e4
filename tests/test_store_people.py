"""Users, personas and messages: what every body of the Store promises of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from tests.hostile_people import ROW_IDS
from tts_core.errors import IdempotencyConflict, MessageNotFound, PersonaNotFound, TTSError, UserNotFound
from tts_core.store import MessageRow, Outcome, PersonaRow, Place, Removal, Reservation, Role, Store, UserRow

NOBODY = "0" * 32


def at(second: int) -> str:
    return f"2027-01-15T08:00:{second:02}.000000+00:00"


@pytest.fixture
async def tenant(store: Store) -> str:
    return (await store.create_tenant("acme", scopes=["personas"])).tenant.id


@pytest.fixture
async def stranger(store: Store) -> str:
    return (await store.create_tenant("other", scopes=["personas"])).tenant.id


def a_user(tenant_id: str, name: str = "ada", *, second: int = 0) -> UserRow:
    return UserRow(
        id=f"user-{name}",
        tenant_id=tenant_id,
        external_id=f"auth0|{name}",
        email=f"{name}@example.com",
        auth_user_id="00000000-0000-4000-8000-00000000000a",
        created_at=at(second),
    )


def a_persona(user: UserRow, name: str = "echo", *, second: int = 0) -> PersonaRow:
    return PersonaRow(
        id=f"persona-{name}",
        tenant_id=user.tenant_id,
        user_id=user.id,
        name=name,
        persona_prompt="You are an echo.\n\t'\"\\ \U0001f600",
        voice_id="nova",
        created_at=at(second),
    )


def a_message(persona: PersonaRow, n: int = 1, *, role: Role = "user") -> MessageRow:
    return MessageRow(
        id=f"message-{n}",
        tenant_id=persona.tenant_id,
        persona_id=persona.id,
        role=role,
        content=f"Words {n} \U0001f600\n",
        created_at=at(n % 60),
    )


@pytest.fixture
async def user(store: Store, tenant: str) -> UserRow:
    return await store.put_user(a_user(tenant))


@pytest.fixture
async def persona(store: Store, user: UserRow) -> PersonaRow:
    return await store.create_persona(a_persona(user))


async def said(store: Store, persona: PersonaRow) -> list[str]:
    return [message.id for message in await store.list_messages(persona.tenant_id, persona.id, limit=500)]


class TestUsers:
    async def test_a_user_is_told_as_it_was_put(self, store: Store, tenant: str) -> None:
        asked = a_user(tenant)
        assert await store.put_user(asked) == asked
        assert await store.get_user(tenant, asked.id) == asked
        assert await store.find_user(tenant, asked.external_id) == asked

    async def test_most_may_be_unknown_of_a_user(self, store: Store, tenant: str) -> None:
        asked = replace(a_user(tenant), email=None, auth_user_id=None)
        assert await store.put_user(asked) == asked == await store.get_user(tenant, asked.id)

    async def test_put_again_it_is_the_same_user_with_other_values(self, store: Store, user: UserRow) -> None:
        again = replace(user, id="another", email=None, auth_user_id=None, created_at=at(9))
        kept = await store.put_user(again)
        assert kept == replace(user, email=None, auth_user_id=None)
        assert await store.list_users(user.tenant_id, limit=9) == (kept,)

    async def test_the_same_external_id_in_two_tenants_is_two_users(
        self, store: Store, user: UserRow, stranger: str
    ) -> None:
        theirs = await store.put_user(replace(user, tenant_id=stranger, email="else@example.com"))
        assert await store.get_user(user.tenant_id, user.id) == user
        assert await store.get_user(stranger, user.id) == theirs

    async def test_put_at_once_it_is_one(self, store: Store, other_worker: Store, tenant: str) -> None:
        asked = [replace(a_user(tenant), id=f"u{n}") for n in range(6)]
        made = await asyncio.gather(*((store, other_worker)[n % 2].put_user(user) for n, user in enumerate(asked)))
        assert len({user.id for user in made}) == 1

    async def test_users_are_listed_in_pages_oldest_first(self, store: Store, tenant: str) -> None:
        for name, second in (("c", 2), ("a", 1), ("b", 1), ("d", 0)):
            await store.put_user(a_user(tenant, name, second=second))
        first = await store.list_users(tenant, limit=3)
        assert [user.id for user in first] == ["user-d", "user-a", "user-b"]
        rest = await store.list_users(tenant, after=(first[-1].created_at, first[-1].id), limit=3)
        assert [user.id for user in rest] == ["user-c"]

    async def test_a_page_follows_one_whose_last_row_is_gone(self, store: Store, tenant: str) -> None:
        for n in range(4):
            await store.put_user(a_user(tenant, str(n), second=n))
        first = await store.list_users(tenant, limit=2)
        await store.delete_user(tenant, first[-1].id, request_id="r")
        rest = await store.list_users(tenant, after=(first[-1].created_at, first[-1].id), limit=9)
        assert [user.id for user in rest] == ["user-2", "user-3"]


class TestPersonas:
    async def test_a_persona_is_told_as_it_was_made(self, store: Store, user: UserRow) -> None:
        asked = a_persona(user)
        assert await store.create_persona(asked) == asked == await store.get_persona(user.tenant_id, asked.id)

    async def test_made_again_it_is_what_it_was(self, store: Store, user: UserRow, persona: PersonaRow) -> None:
        assert await store.create_persona(replace(persona, name="else", created_at=at(5))) == persona
        assert await store.list_personas(user.tenant_id, limit=9) == (persona,)

    async def test_nobody_has_no_persona(self, store: Store, user: UserRow, stranger: str) -> None:
        for asked in (replace(a_persona(user), user_id=NOBODY), replace(a_persona(user), tenant_id=stranger)):
            with pytest.raises(UserNotFound):
                await store.create_persona(asked)
        assert await store.list_personas(user.tenant_id, limit=9) == ()
        assert await store.list_personas(stranger, limit=9) == ()

    async def test_personas_are_listed_by_user_in_pages(self, store: Store, tenant: str) -> None:
        ada, bob = [await store.put_user(a_user(tenant, name)) for name in ("ada", "bob")]
        for name, user, second in (("c", ada, 2), ("a", ada, 1), ("b", ada, 1), ("d", bob, 0)):
            await store.create_persona(a_persona(user, name, second=second))

        async def listed(**how: object) -> Sequence[PersonaRow]:
            return await store.list_personas(tenant, **how)  # type: ignore[arg-type]

        assert [persona.name for persona in await listed(limit=9)] == ["d", "a", "b", "c"]
        first = await listed(user_id=ada.id, limit=2)
        assert [persona.name for persona in first] == ["a", "b"]
        after: Place = (first[-1].created_at, first[-1].id)
        assert [persona.name for persona in await listed(user_id=ada.id, after=after, limit=2)] == ["c"]
        assert [persona.name for persona in await listed(after=after, limit=2)] == ["c"]
        assert await listed(user_id=NOBODY, limit=9) == ()

    async def test_only_what_is_named_is_changed(self, store: Store, persona: PersonaRow) -> None:
        tenant_id = persona.tenant_id
        renamed = await store.update_persona(tenant_id, persona.id, {"name": "else"})
        assert renamed == replace(persona, name="else")
        mute = await store.update_persona(tenant_id, persona.id, {"voice_id": None, "persona_prompt": ""})
        assert mute == replace(persona, name="else", voice_id=None, persona_prompt="")
        assert await store.get_persona(tenant_id, persona.id) == mute


class TestMessages:
    async def test_messages_are_told_in_the_order_they_were_added(self, store: Store, persona: PersonaRow) -> None:
        roles: tuple[Role, ...] = ("system", "user", "assistant")
        added = [await store.add_message(a_message(persona, 9 - n, role=role)) for n, role in enumerate(roles)]
        assert [message.position for message in added] == [1, 2, 3]
        assert added[0] == replace(a_message(persona, 9, role="system"), position=1)
        assert list(await store.list_messages(persona.tenant_id, persona.id, limit=9)) == added

    async def test_a_page_begins_after_a_position(self, store: Store, persona: PersonaRow) -> None:
        for n in range(5):
            await store.add_message(a_message(persona, n))
        pages = [await store.list_messages(persona.tenant_id, persona.id, after=n, limit=2) for n in (0, 2, 4, 5)]
        assert [[message.position for message in page] for page in pages] == [[1, 2], [3, 4], [5], []]

    async def test_added_again_it_is_there_once(self, store: Store, persona: PersonaRow) -> None:
        first = await store.add_message(a_message(persona))
        await store.add_message(a_message(persona, 2))
        assert await store.add_message(replace(a_message(persona), created_at=at(30))) == first
        assert await said(store, persona) == ["message-1", "message-2"]

    @pytest.mark.parametrize("change", [{"content": "else"}, {"role": "assistant"}])
    async def test_another_message_under_the_same_id_is_a_conflict(
        self, store: Store, persona: PersonaRow, change: dict[str, str]
    ) -> None:
        await store.add_message(a_message(persona))
        with pytest.raises(IdempotencyConflict):
            await store.add_message(replace(a_message(persona), **change))  # type: ignore[arg-type]

    async def test_two_conversations_may_use_the_same_ids(self, store: Store, user: UserRow) -> None:
        one, two = [await store.create_persona(a_persona(user, name)) for name in ("one", "two")]
        await store.add_message(a_message(one))
        assert (await store.add_message(replace(a_message(two), content="else"))).position == 1
        assert await said(store, one) == await said(store, two) == ["message-1"]

    async def test_added_at_once_each_has_its_own_place(
        self, store: Store, other_worker: Store, persona: PersonaRow
    ) -> None:
        asked = [a_message(persona, n % 10) for n in range(20)]
        added = await asyncio.gather(
            *((store, other_worker)[n % 2].add_message(message) for n, message in enumerate(asked))
        )
        assert sorted({message.position for message in added}) == list(range(1, 11))
        assert len(await said(store, persona)) == 10

    async def test_a_place_is_not_given_again(self, store: Store, persona: PersonaRow) -> None:
        for n in (1, 2):
            await store.add_message(a_message(persona, n))
        await store.delete_messages(persona.tenant_id, persona.id, "message-2", request_id="r")
        assert (await store.add_message(a_message(persona, 3))).position == 3

    async def test_nobody_says_nothing(self, store: Store, persona: PersonaRow, stranger: str) -> None:
        for asked in (
            replace(a_message(persona), persona_id=NOBODY),
            replace(a_message(persona), tenant_id=stranger),
        ):
            with pytest.raises(PersonaNotFound):
                await store.add_message(asked)
            assert await store.list_messages(asked.tenant_id, asked.persona_id, limit=9) == ()

    async def test_long_conversations_are_told_whole(self, store: Store, persona: PersonaRow) -> None:
        content = "\U0001f600" * 20_000
        await store.add_message(replace(a_message(persona), content=content))
        (message,) = await store.list_messages(persona.tenant_id, persona.id, limit=9)
        assert message.content == content


class TestRemoval:
    async def test_a_user_goes_with_everything_and_nothing_else(
        self, store: Store, user: UserRow, persona: PersonaRow
    ) -> None:
        other = await store.put_user(a_user(user.tenant_id, "bob"))
        theirs = await store.create_persona(a_persona(other, "theirs"))
        await store.create_persona(a_persona(user, "second"))
        for n in range(3):
            await store.add_message(a_message(persona, n))
            await store.add_message(a_message(theirs, n))
        removed = await store.delete_user(user.tenant_id, user.id, request_id="r")
        assert removed == Removal(users=1, personas=2, messages=3)
        assert await store.list_users(user.tenant_id, limit=9) == (other,)
        assert await store.list_personas(user.tenant_id, limit=9) == (theirs,)
        assert len(await said(store, theirs)) == 3
        assert await said(store, persona) == []

    async def test_a_persona_goes_with_its_messages(self, store: Store, user: UserRow, persona: PersonaRow) -> None:
        await store.add_message(a_message(persona))
        removed = await store.delete_persona(persona.tenant_id, persona.id, request_id="r")
        assert removed == Removal(personas=1, messages=1)
        assert await store.get_user(user.tenant_id, user.id) == user
        with pytest.raises(PersonaNotFound):
            await store.get_persona(persona.tenant_id, persona.id)

    async def test_one_message_goes_or_all(self, store: Store, persona: PersonaRow) -> None:
        for n in range(4):
            await store.add_message(a_message(persona, n))
        tenant_id = persona.tenant_id
        one = await store.delete_messages(tenant_id, persona.id, "message-2", request_id="r1")
        assert (one, await said(store, persona)) == (Removal(messages=1), ["message-0", "message-1", "message-3"])
        rest = await store.delete_messages(tenant_id, persona.id, None, request_id="r2")
        assert (rest, await said(store, persona)) == (Removal(messages=3), [])
        none = await store.delete_messages(tenant_id, persona.id, None, request_id="r3")
        assert none == Removal()

    async def test_the_same_request_is_told_the_same_again(self, store: Store, persona: PersonaRow) -> None:
        tenant_id, user_id = persona.tenant_id, persona.user_id
        await store.add_message(a_message(persona))
        for _ in range(2):
            gone = await store.delete_messages(tenant_id, persona.id, "message-1", request_id="r1")
            assert gone == Removal(messages=1)
        for _ in range(2):
            gone = await store.delete_persona(tenant_id, persona.id, request_id="r2")
            assert gone == Removal(personas=1)
        for _ in range(2):
            assert await store.delete_user(tenant_id, user_id, request_id="r3") == Removal(users=1)

    async def test_removed_at_once_by_one_request_it_is_told_alike(
        self, store: Store, other_worker: Store, persona: PersonaRow
    ) -> None:
        await store.add_message(a_message(persona))
        told = await asyncio.gather(
            *(
                worker.delete_user(persona.tenant_id, persona.user_id, request_id="r")
                for worker in (store, other_worker) * 4
            )
        )
        assert set(told) == {Removal(users=1, personas=1, messages=1)}

    async def test_another_request_finds_nothing(self, store: Store, persona: PersonaRow) -> None:
        tenant_id = persona.tenant_id
        await store.delete_user(tenant_id, persona.user_id, request_id="r1")
        with pytest.raises(UserNotFound):
            await store.delete_user(tenant_id, persona.user_id, request_id="r2")
        with pytest.raises(PersonaNotFound):
            await store.delete_persona(tenant_id, persona.id, request_id="r3")
        with pytest.raises(PersonaNotFound):
            await store.delete_messages(tenant_id, persona.id, None, request_id="r4")

    async def test_anothers_request_is_not_told_what_went(self, store: Store, user: UserRow, stranger: str) -> None:
        await store.delete_user(user.tenant_id, user.id, request_id="r")
        with pytest.raises(UserNotFound):
            await store.delete_user(stranger, user.id, request_id="r")

    async def test_a_message_that_is_not_there_is_not_removed(self, store: Store, persona: PersonaRow) -> None:
        with pytest.raises(MessageNotFound, match="message-9"):
            await store.delete_messages(persona.tenant_id, persona.id, "message-9", request_id="r")


class TestOthers:
    async def test_what_is_anothers_is_as_unknown_as_what_is_not_there(
        self, store: Store, persona: PersonaRow, stranger: str
    ) -> None:
        """The same words, but for the id."""
        await store.add_message(a_message(persona))
        asks: dict[str, tuple[str, type[TTSError], Sequence[Callable[[str], Awaitable[object]]]]] = {
            "user": (
                persona.user_id,
                UserNotFound,
                [
                    lambda i: store.get_user(stranger, i),
                    lambda i: store.delete_user(stranger, i, request_id="r"),
                    lambda i: store.create_persona(replace(persona, tenant_id=stranger, user_id=i)),
                ],
            ),
            "persona": (
                persona.id,
                PersonaNotFound,
                [
                    lambda i: store.get_persona(stranger, i),
                    lambda i: store.update_persona(stranger, i, {"name": "mine"}),
                    lambda i: store.delete_persona(stranger, i, request_id="r"),
                    lambda i: store.add_message(replace(a_message(persona), tenant_id=stranger, persona_id=i)),
                    lambda i: store.delete_messages(stranger, i, None, request_id="r"),
                    lambda i: store.delete_messages(stranger, i, "message-1", request_id="r"),
                ],
            ),
        }
        for foreign, kind, calls in asks.values():
            for call in calls:
                with pytest.raises(kind) as theirs:
                    await call(foreign)
                with pytest.raises(kind) as unknown:
                    await call(NOBODY)
                assert str(theirs.value).replace(foreign, "") == str(unknown.value).replace(NOBODY, "")
        assert await said(store, persona) == ["message-1"]

    async def test_ids_are_taken_as_they_are(self, store: Store, user: UserRow) -> None:
        """None of them means anything to SQL or in an address; one that is there is found."""
        for odd in [row_id for row_id in ROW_IDS if row_id.isascii() and row_id.isprintable() and row_id]:
            with pytest.raises(UserNotFound):
                await store.get_user(user.tenant_id, odd)
            made = await store.put_user(replace(user, id=odd, external_id=f"{odd} \u0661\U0001f600"))
            assert await store.get_user(user.tenant_id, odd) == made
            assert await store.find_user(user.tenant_id, made.external_id) == made

    async def test_an_external_id_of_anothers_user_is_unknown(self, store: Store, user: UserRow, stranger: str) -> None:
        with pytest.raises(UserNotFound):
            await store.find_user(stranger, user.external_id)


async def test_usage_names_the_user_it_was_for(store: Store) -> None:
    key = await store.create_tenant("acme", scopes=["synthesize"])
    asked = Reservation(key.secret, "synthesize", identity="job-1", fingerprint="f", action="synthesize")
    reserved = await store.reserve(asked)
    await store.settle(reserved, Outcome(status="success", latency_ms=1, user_id="user-ada", result="{}"))
    assert [row.user_id for row in await store.usage(key.tenant.id)] == ["user-ada"]
    outcome = (await store.reserve(asked)).outcome
    assert outcome is not None
    assert outcome.user_id == "user-ada"
