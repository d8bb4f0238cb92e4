"""Two thousand requests by two tenants: neither is shown a row, an object or a cached take of the other's, or that
there is one.

Each tenant is answered as if it were alone: what it was told beside the other is what it is told when it says the same
again by itself, with ids that are nobody's in the place of the other's. So a foreign id is answered exactly like an
unknown one, and nothing that one does changes what the other has. On both bodies, through the whole service.
"""

import base64
import json
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from storage.local import open_local
from storage.supabase import open_supabase
from tests import clips
from tests.scripted_engine import ScriptedEngine
from tests.stores import Project
from tts_core.errors import ReferenceUnreachable
from tts_core.service import Service
from tts_core.settings import Settings
from tts_core.store import NewKey, Scope, Store

Json = dict[str, Any]
Kind = Literal["voice", "user", "persona", "message", "job", "tenant"]
Whose = Literal["own", "foreign", "unknown"]
WHOSE: Sequence[Whose] = ("own", "foreign", "unknown")

STEPS, SEED = 2_000, 20261127
SUPABASE_STEPS = 500
"""As far as that body follows: a step takes five times as long there."""

SCOPES: Sequence[Scope] = ("synthesize", "voices", "personas", "cache", "usage", "admin")
MARKS = ("heron", "plover")
"""A word that is in every text, name and address of the one, and in none of the other's."""

ID = re.compile(r"[0-9a-f]{32}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(\+00:00|Z)?")
UNLIKE = ("timings_ms", "audio_url", "alignments_url", "expires_at", "next_cursor", "mean_latency_ms")
"""What no two answers have in common."""


@dataclass(frozen=True)
class What:
    """A kind of request: how often it is made, its fields, which of them name what, and what its success makes.

    In a field, {n} is one of few numbers, and {mark} the tenant's own word.
    """

    action: str
    weight: int
    fields: Mapping[str, object] = field(default_factory=dict)
    names: Mapping[str, Kind] = field(default_factory=dict)
    makes: Kind | None = None


WHATS = [
    What("synthesize", 14, {"text": "Same words {n}.", "language": "en"}),
    What("synthesize", 6, {"text": "By {mark} {n}.", "language": "en", "idempotency_key": "same key {n}"}),
    What("synthesize", 6, {"text": "Kept {n}.", "language": "en", "keep": True, "streaming": True}, makes="job"),
    What("synthesize", 5, {"text": "In a voice {n}.", "language": "en"}, {"voice_id": "voice"}),
    What("synthesize", 5, {"text": "As somebody {n}.", "language": "en"}, {"persona_id": "persona"}),
    What("synthesize", 3, {"text": "For somebody {n}.", "language": "en"}, {"user_id": "user"}),
    What("voices.create", 1, {"name": "{mark}", "consent": "by {mark}"}, makes="voice"),
    What("voices.list", 3),
    What("voices.list", 2, {}, {"user_id": "user"}),
    What("voices.list", 2, {"include_shared": True}, {"persona_id": "persona"}),
    What("voices.get", 6, {}, {"voice_id": "voice"}),
    What("voices.update", 4, {"name": "{mark} {n}"}, {"voice_id": "voice", "user_id": "user"}),
    What("voices.delete", 2, {}, {"voice_id": "voice"}),
    What("users.put", 8, {"external_id": "external {n}", "email": "{mark}{n}@example.com"}, makes="user"),
    What("users.get", 5, {}, {"user_id": "user"}),
    What("users.get", 4, {"external_id": "external {n}"}),
    What("users.list", 3),
    What("users.delete", 3, {}, {"user_id": "user"}),
    What("personas.create", 8, {"name": "{mark}"}, {"user_id": "user", "voice_id": "voice"}, makes="persona"),
    What("personas.create", 6, {"name": "{mark}"}, {"user_id": "user"}, makes="persona"),
    What("personas.get", 5, {}, {"persona_id": "persona"}),
    What("personas.list", 3),
    What("personas.list", 3, {}, {"user_id": "user"}),
    What("personas.update", 3, {"persona_prompt": "{mark} {n}"}, {"persona_id": "persona"}),
    What("personas.update", 3, {"name": "{mark} {n}"}, {"persona_id": "persona", "voice_id": "voice"}),
    What("personas.delete", 2, {}, {"persona_id": "persona"}),
    What("messages.add", 8, {"role": "user", "content": "{mark}"}, {"persona_id": "persona"}, makes="message"),
    What("messages.add", 4, {"role": "user", "content": "{mark}"}, {"persona_id": "persona", "message_id": "message"}),
    What("messages.list", 5, {}, {"persona_id": "persona"}),
    What("messages.delete", 4, {}, {"persona_id": "persona", "message_id": "message"}),
    What("jobs.get", 6, {}, {"job_id": "job"}),
    What("jobs.list", 3),
    What("usage.summary", 3, {"by": ["endpoint"]}),
    What("usage.summary", 2, {}, {"tenant_id": "tenant"}),
    What("cache.stats", 4),
    What("cache.invalidate", 3, {}, {"voice_id": "voice"}),
    What("cache.invalidate", 1, {"all": True}),
    What("retention.get", 1),
    What("tenants.get", 3, {}, {"tenant_id": "tenant"}),
    What("tenants.create_key", 1, {"scopes": ["admin"]}, {"tenant_id": "tenant"}),
    What("tenants.delete", 1, {"confirm": True}, {"tenant_id": "tenant"}),
    What("tenants.list", 1),
]


OPERATORS = ("tenants.delete", "tenants.list")
"""Refused to these two, whatever they name."""


@dataclass(frozen=True)
class Step:
    """who: 0 or 1; chosen: for each id that is named, whose and which of theirs, by the order they were made in"""

    who: int
    what: What
    number: int
    chosen: Mapping[str, tuple[Whose, int]]


class Tenant:
    """Asks, and notes what it was told, with its ids in the order in which it met them."""

    def __init__(self, service: Service, key: NewKey, *, mark: str) -> None:
        self.made: defaultdict[Kind, list[str]] = defaultdict(list)
        self.made["tenant"].append(key.tenant.id)
        self.told: list[str] = []
        self.raw = ""
        self.named: set[str] = set()
        self._service, self._key, self._mark = service, key, mark
        self._met: dict[str, str] = {}

    async def ask(self, step: Step, named: Mapping[str, str]) -> None:
        fields = {name: self._filled(value, step.number) for name, value in step.what.fields.items()}
        clip = {"reference_audio_base64": a_clip()} if step.what.action == "voices.create" else {}
        body = {"tenant_key": self._key.secret, "action": step.what.action, **fields, **clip, **named}
        job_id = f"job-{len(self.told)}"  # the other has used it too
        events = [event async for event in self._service.answer(body, job_id=job_id)]
        *_, last = events
        self.named |= set(named.values())
        kind = step.what.makes
        if kind is not None and "error" not in last and (made := _id_of(last)) not in self.made[kind]:
            self.made[kind].append(made)  # the user with this external id may have been there
        said = json.dumps([_like(event) for event in events], sort_keys=True)  # Postgres sorts an object's keys
        self.raw = json.dumps([{**event, "audio_base64": None} for event in events])
        self.told.append(f"{step.what.action} {MOMENT.sub('then', ID.sub(self._ordinal, said))}")

    def _ordinal(self, found: re.Match[str]) -> str:
        return self._met.setdefault(found.group(), f"id {len(self._met)}")

    def _filled(self, value: object, number: int) -> object:
        return value.format(n=number, mark=self._mark) if isinstance(value, str) else value


@cache
def a_clip() -> str:
    return base64.b64encode(clips.encoded(clips.speech(4.0))).decode()


def _id_of(answer: Json) -> str:
    found = answer.get("voice", answer).get("id") or answer["request_id"]
    assert isinstance(found, str)
    return found


def _like(event: Json) -> Json:
    """Without what differs each time; an error's own text is read."""
    if "error" in event and isinstance(event["error"], str):
        event = {**event, "error": json.loads(event["error"])}
    if "audio_base64" in event:
        event = {**event, "audio_base64": hash(event["audio_base64"])}
    if "key" in event:
        event = {**event, "tenant_key": None, "key": {**event["key"], "prefix": None}}
    if "groups" in event:
        event = {**event, "groups": _nameless(event["groups"])}
    return {name: _alike(value) for name, value in event.items() if name not in UNLIKE}


def _alike(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _alike(each) for name, each in value.items() if name not in (*UNLIKE, "prefix", "last_used_at")}
    if isinstance(value, list | tuple):
        return [_alike(each) for each in value]
    return float(round(value, 6)) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _nameless(groups: Sequence[Json]) -> list[str]:
    """Groups that are alike come in the order of their ids, which differ each time."""
    return sorted(ID.sub("somebody", json.dumps(_alike(group), sort_keys=True)) for group in groups)


def nobodys(whose: Whose, kind: Kind, number: int) -> str:
    """An id that is nobody's, always the same."""
    return UUID(int=random.Random(f"{whose} {kind} {number}").getrandbits(128)).hex


def a_step(draw: random.Random, tenants: Sequence[Tenant]) -> Step:
    """Of two numbers of what has been made one is likely to be recent."""
    who = draw.randrange(2)
    (what,) = draw.choices(WHATS, [what.weight for what in WHATS])
    chosen: dict[str, tuple[Whose, int]] = {}
    for name, kind in what.names.items():
        whose = draw.choices(WHOSE, (6, 3, 1))[0]
        if what.action == "tenants.delete":
            whose = draw.choice(WHOSE[1:])
        there = len(tenants[who if whose == "own" else 1 - who].made[kind])
        last = there - 1 - draw.randrange(min(there, 5)) if there else 0
        chosen[name] = (whose, last) if there else ("unknown", last)
    return Step(who, what, draw.randrange(4), chosen)


def named(step: Step, tenants: Mapping[int, Tenant]) -> dict[str, str]:
    """The ids of a step. Those of a tenant that is not there are nobody's."""
    found = {}
    for name, (whose, number) in step.chosen.items():
        kind = step.what.names[name]
        owner = {"own": tenants[step.who], "foreign": tenants.get(1 - step.who), "unknown": None}[whose]
        found[name] = owner.made[kind][number] if owner else nobodys(whose, kind, number)
    return found


async def no_network(url: str) -> bytes:
    raise ReferenceUnreachable("no network in this test")


async def asked(store: Store, folder: Path, who: Sequence[int], plan: Sequence[Step | None]) -> tuple[Any, list[Step]]:
    """What these tenants were told, and the steps, where they are still to be drawn. Closes the store."""
    service = Service(ScriptedEngine(), store, settings=Settings(data_dir=folder), fetch=no_network)
    keys = {number: await store.create_tenant("t", scopes=SCOPES) for number in who}
    tenants = {number: Tenant(service, key, mark=MARKS[number]) for number, key in keys.items()}
    draw, taken = random.Random(SEED), []
    for planned in plan:
        step = planned or a_step(draw, list(tenants.values()))
        taken.append(step)
        ids = named(step, tenants)
        await tenants[step.who].ask(step, ids)
        if other := tenants.get(1 - step.who):
            assert_unseen(tenants[step.who], other, mark=MARKS[1 - step.who])
    await service.close()
    return tenants, taken


def assert_unseen(tenant: Tenant, other: Tenant, *, mark: str) -> None:
    """In its last answer: neither the other's word, nor an id of the other's that it has not named itself."""
    assert mark not in tenant.raw
    assert not set(ID.findall(tenant.raw)) & {each for made in other.made.values() for each in made} - tenant.named


async def test_each_of_two_tenants_is_answered_as_if_it_were_alone(project: Project, tmp_path: Path) -> None:
    local, plan = await asked(await open_local(tmp_path / "both"), tmp_path / "a", (0, 1), [None] * STEPS)
    supabase = await open_supabase(project.server.url, project.server.service_key)
    beside, _ = await asked(supabase, tmp_path / "b", (0, 1), plan[:SUPABASE_STEPS])
    for who in (0, 1):
        own = [step for step in plan if step.who == who]
        alone, _ = await asked(await open_local(tmp_path / f"alone-{who}"), tmp_path / f"c{who}", (who,), own)
        for number, answer in enumerate(alone[who].told):
            assert local[who].told[number] == answer
        for number, answer in enumerate(beside[who].told):
            assert alone[who].told[number] == answer
    assert_many_of_each([answer for tenant in local.values() for answer in tenant.told])


def assert_many_of_each(told: Sequence[str]) -> None:
    """The sequence is worth nothing if all of it is refused."""
    assert len(told) == STEPS
    for what in WHATS:
        answers = [answer for answer in told if answer.startswith(f"{what.action} ")]
        assert answers
        refused = [answer for answer in answers if '"error": {' in answer]
        assert what.action in OPERATORS or len(refused) < len(answers), what.action
        silent = not what.names or what.action == "cache.invalidate"  # which answers that nothing was there
        assert silent or any("_not_found" in answer or what.action in OPERATORS for answer in refused), what.action
