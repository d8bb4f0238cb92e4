"""Whatever two tenants do, neither learns of the other: each is answered as if it were alone, on either body.

Both use the same few ids and external ids, so that what one does would meet what the other has, if it could.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Literal, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.local import open_local
from storage.supabase import open_supabase
from tests.postgres import Postgres
from tests.stores import Clock, new_project
from tts_core.errors import TTSError
from tts_core.store import MessageRow, PersonaRow, Place, Store, UserRow

What = Literal[
    "put_user",
    "get_user",
    "find_user",
    "list_users",
    "delete_user",
    "create_persona",
    "get_persona",
    "list_personas",
    "update_persona",
    "delete_persona",
    "add_message",
    "list_messages",
    "delete_messages",
]
Answer = object


@dataclass(frozen=True)
class Step:
    """One thing a tenant does; the numbers choose among few ids, times and values."""

    what: What
    a: int
    b: int
    c: int


STEPS = st.builds(Step, st.sampled_from(get_args(What)), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))

FIRST: list[tuple[What, int, int]] = [
    ("put_user", 0, 0),
    ("put_user", 1, 1),
    ("create_persona", 0, 0),
    ("create_persona", 1, 1),
    ("add_message", 0, 0),
    ("add_message", 0, 1),
    ("add_message", 1, 0),
]
BEGINNING = [(who, Step(what, a, b, c=who)) for what, a, b in FIRST for who in (0, 1)]
"""Both begin with the same ids and with values of their own: most steps then find something."""


def at(number: int) -> str:
    return f"2027-01-15T08:00:{number:02}.000000+00:00"


class Tenant:
    """Does steps and notes the answers, without its own id, which differs each time."""

    def __init__(self, store: Store, tenant_id: str) -> None:
        self.answers: list[Answer] = []
        self._store = store
        self._id = tenant_id
        self._users = 0

    async def take(self, step: Step) -> None:
        try:
            answer = await self._do(step)
        except TTSError as exc:
            answer = (exc.code, str(exc))
        self.answers.append((step.what, _plain(answer, self._id)))

    async def _do(self, step: Step) -> Answer:
        store, tenant_id, request_id = self._store, self._id, f"request-{step.c}"
        user_id, persona_id, message_id = f"user-{step.a}", f"persona-{step.a}", f"message-{step.b}"
        match step.what:
            case "put_user":
                return await store.put_user(self._a_user(step))
            case "get_user":
                return await store.get_user(tenant_id, user_id)
            case "find_user":
                return await store.find_user(tenant_id, f"external-{step.a}")
            case "list_users":
                return await store.list_users(tenant_id, after=_place(step), limit=step.c + 1)
            case "delete_user":
                return await store.delete_user(tenant_id, user_id, request_id=request_id)
            case "create_persona":
                user = f"user-{step.b}"
                persona = PersonaRow(persona_id, tenant_id, user, f"name {step.c}", "", None, created_at=at(step.b))
                return await store.create_persona(persona)
            case "get_persona":
                return await store.get_persona(tenant_id, persona_id)
            case "list_personas":
                of_user = None if step.a else f"user-{step.b}"
                return await store.list_personas(tenant_id, user_id=of_user, after=_place(step), limit=step.c + 1)
            case "update_persona":
                voice_id = None if step.b else f"voice-{step.c}"
                return await store.update_persona(tenant_id, persona_id, {"voice_id": voice_id})
            case "delete_persona":
                return await store.delete_persona(tenant_id, persona_id, request_id=request_id)
            case "add_message":
                message = MessageRow(message_id, tenant_id, persona_id, "user", f"words {step.c}", at(step.c))
                return await store.add_message(message)
            case "list_messages":
                return await store.list_messages(tenant_id, persona_id, after=step.b, limit=step.c + 1)
            case "delete_messages":
                which = message_id if step.c else None
                return await store.delete_messages(tenant_id, persona_id, which, request_id=request_id)

    def _a_user(self, step: Step) -> UserRow:
        user_id = f"user-{self._users}"  # like a request's id, never one's own a second time
        self._users += 1
        return UserRow(user_id, self._id, f"external-{step.a}", f"{step.b}@example.com", None, created_at=at(step.c))


def _place(step: Step) -> Place | None:
    return (at(step.b), f"user-{step.c}") if step.b else None


def _plain(answer: object, tenant_id: str) -> object:
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return [_plain(item, tenant_id) for item in answer]
    if not is_dataclass(answer) or isinstance(answer, type):
        return answer
    row = asdict(answer)
    assert row.pop("tenant_id", tenant_id) == tenant_id
    return row


async def told(store: Store, plan: Sequence[tuple[int, Step]]) -> list[list[Answer]]:
    """What each of two tenants is told when they take the steps in turns."""
    tenants = [Tenant(store, (await store.create_tenant("t", scopes=["personas"])).tenant.id) for _ in range(2)]
    for number, step in plan:
        await tenants[number].take(step)
    return [tenant.answers for tenant in tenants]


@pytest.fixture
def bodies(postgres: Postgres, tmp_path: Path, clock: Clock) -> Iterator[tuple[asyncio.Runner, Sequence[Store]]]:
    """One store of each body for all examples: what earlier ones have left behind must not be seen either."""
    with new_project(postgres) as project, asyncio.Runner() as runner:
        url, key = project.server.url, project.server.service_key
        local = runner.run(open_local(tmp_path, clock=clock))
        supabase = runner.run(open_supabase(url, key, clock=clock))
        yield runner, [local, supabase]
        runner.run(local.close())
        runner.run(supabase.close())


def test_each_tenant_is_answered_as_if_it_were_alone(bodies: tuple[asyncio.Runner, Sequence[Store]]) -> None:
    runner, stores = bodies

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(steps=st.lists(st.tuples(st.integers(0, 1), STEPS), min_size=20, max_size=40))
    def check(steps: list[tuple[int, Step]]) -> None:
        plan = BEGINNING + steps
        local, supabase = [runner.run(told(store, plan)) for store in stores]
        assert local == supabase
        for number in (0, 1):
            alone = [(0, step) for who, step in plan if who == number]
            for store in stores:
                assert runner.run(told(store, alone))[0] == local[number]

    check()
