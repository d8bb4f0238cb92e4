"""Voices, as every body of the Store promises to keep them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.stores import Clock
from tts_core.errors import InvalidInput, LimitReached, VoiceNotFound
from tts_core.store import (
    MAX_VOICE_GRANTS,
    Clip,
    NewVersion,
    Place,
    Store,
    StoredObject,
    VoicePurge,
    VoiceQuery,
    VoiceRow,
    VoiceTraits,
)

PLAIN = VoiceTraits("Ada")
FULL = VoiceTraits(
    "Ada",
    description="a clear one",
    language="pt",
    gender="female",
    accent="Lisbon",
    tags=("calm", "näh \"er'"),
    user_id="auth0|4711",
)
REPORT = {"duration_s": 5.25, "speech_s": 4.0, "snr_db": 31.5}


def a_clip(name: str, *, size_bytes: int = 1_000, content_type: str = "audio/wav") -> Clip:
    return Clip(f"voices/t/{name}", size_bytes=size_bytes, content_type=content_type, report=REPORT)


def a_version(request_id: str, *names: str, consent: str = "I am the speaker") -> NewVersion:
    return NewVersion(request_id, consent=consent, clips=tuple(a_clip(f"{request_id}-{name}") for name in names or "a"))


async def make(store: Store, tenant_id: str, voice_id: str, traits: VoiceTraits = PLAIN) -> VoiceRow:
    version = a_version(voice_id)
    return await store.create_voice(tenant_id, voice_id, traits=traits, version=version, max_voices=1_000)


async def ids(store: Store, tenant_id: str, query: VoiceQuery) -> list[str]:
    return [voice.id for voice in await store.list_voices(tenant_id, query)]


def everything(limit: int = 100) -> VoiceQuery:
    return VoiceQuery(limit=limit, include_shared=True)


@pytest.fixture
async def acme(store: Store) -> str:
    return (await store.create_tenant("acme", scopes=["voices"])).tenant.id


@pytest.fixture
async def other(store: Store) -> str:
    return (await store.create_tenant("other", scopes=["voices"])).tenant.id


class TestCreate:
    async def test_a_voice_comes_back_as_it_was(
        self, store: Store, other_worker: Store, acme: str, clock: Clock
    ) -> None:
        film = a_clip("film", size_bytes=2**33, content_type="video/mp4")
        version = replace(a_version("r1", "a"), clips=(a_clip("a"), film))
        made = await store.create_voice(acme, "v1", traits=FULL, version=version, max_voices=1)
        assert await other_worker.get_voice(acme, "v1") == made
        assert (made.id, made.tenant_id, made.traits, made.versions, made.shared_with) == ("v1", acme, FULL, (1,), ())
        assert (made.version.number, made.version.request_id, made.version.consent) == (1, "r1", "I am the speaker")
        assert made.version.clips == version.clips
        assert [clip.file_type for clip in made.version.clips] == ["audio", "video"]
        now = datetime.fromtimestamp(clock.now_s, UTC).isoformat(timespec="microseconds")
        assert {made.created_at, made.updated_at, made.version.created_at} == {now}

    async def test_what_was_not_said_of_it_is_not_made_up(self, store: Store, acme: str) -> None:
        assert (await make(store, acme, "v1")).traits == PLAIN

    async def test_creating_again_changes_nothing(self, store: Store, acme: str, clock: Clock) -> None:
        made = await make(store, acme, "v1")
        clock.now_s += 5
        version = a_version("v1", "b")
        again = await store.create_voice(acme, "v1", traits=FULL, version=version, max_voices=1)
        assert again == made == await store.get_voice(acme, "v1")

    async def test_a_tenant_has_so_many_and_no_more(self, store: Store, acme: str, other: str) -> None:
        await make(store, other, "theirs")
        asked = [
            store.create_voice(acme, f"v{n}", traits=PLAIN, version=a_version(f"v{n}"), max_voices=3) for n in range(8)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(answer, VoiceRow) for answer in answers) == 3
        refused = [answer for answer in answers if not isinstance(answer, VoiceRow)]
        assert {(type(answer), str(answer)) for answer in refused} == {
            (LimitReached, "the tenant has 3 voices, and may have 3")
        }
        made = next(answer for answer in answers if isinstance(answer, VoiceRow))
        again = await store.create_voice(acme, made.id, traits=PLAIN, version=a_version(made.id), max_voices=3)
        assert again == made


class TestGet:
    @pytest.mark.parametrize("voice_id", ["v1", "none", "", "V1", "v%", "'"])
    async def test_a_foreign_voice_is_as_unknown_as_none(
        self, store: Store, acme: str, other: str, voice_id: str
    ) -> None:
        await make(store, acme, "v1")
        with pytest.raises(VoiceNotFound) as caught:
            await store.get_voice(other, voice_id)
        assert str(caught.value) == f"no voice {voice_id!r}"

    @pytest.mark.parametrize("version", [0, 2, 99])
    async def test_a_version_that_is_not_there(self, store: Store, acme: str, version: int) -> None:
        await make(store, acme, "v1")
        with pytest.raises(VoiceNotFound, match="no voice 'v1'"):
            await store.get_voice(acme, "v1", version=version)


class TestUpdate:
    async def test_what_is_not_named_stays(self, store: Store, acme: str, clock: Clock) -> None:
        made = await make(store, acme, "v1", FULL)
        clock.now_s += 5
        changed = await store.update_voice(acme, "v1", changes={"name": "Vega", "tags": ("new",), "accent": None})
        assert changed.traits == replace(FULL, name="Vega", tags=("new",), accent=None)
        assert (changed.version, changed.versions, changed.created_at) == (made.version, (1,), made.created_at)
        assert datetime.fromisoformat(changed.updated_at).timestamp() == clock.now_s
        assert await store.get_voice(acme, "v1") == changed

    async def test_every_trait_can_be_changed(self, store: Store, acme: str) -> None:
        await make(store, acme, "v1")
        changes = {field: getattr(FULL, field) for field in VoiceTraits.__slots__}
        assert (await store.update_voice(acme, "v1", changes=changes)).traits == FULL
        nothing = {"description": "", "language": None, "gender": None, "accent": None, "tags": (), "user_id": None}
        assert (await store.update_voice(acme, "v1", changes=nothing)).traits == PLAIN

    async def test_clips_make_a_newer_version_beside_the_older(self, store: Store, acme: str, clock: Clock) -> None:
        first = await make(store, acme, "v1", FULL)
        clock.now_s += 5
        newer = a_version("r2", "b", "c", consent="She agreed again")
        second = await store.update_voice(acme, "v1", changes={}, version=newer)
        assert (second.version.number, second.version.consent) == (2, "She agreed again")
        assert second.version.clips == newer.clips
        assert (second.versions, second.traits, second.created_at) == ((1, 2), FULL, first.created_at)
        assert await store.get_voice(acme, "v1") == second
        assert (await store.get_voice(acme, "v1", version=2)) == second
        assert (await store.get_voice(acme, "v1", version=1)).version == first.version

    async def test_one_request_makes_one_version(self, store: Store, other_worker: Store, acme: str) -> None:
        await make(store, acme, "v1")
        workers = [store, other_worker] * 5
        asked = [worker.update_voice(acme, "v1", changes={}, version=a_version("r2", "b")) for worker in workers]
        assert {voice.versions for voice in await asyncio.gather(*asked)} == {(1, 2)}

    async def test_requests_at_once_make_a_version_each(self, store: Store, other_worker: Store, acme: str) -> None:
        await make(store, acme, "v1")
        asked = [
            worker.update_voice(acme, "v1", changes={}, version=a_version(f"r{n}", "b"))
            for n, worker in enumerate([store, other_worker] * 5)
        ]
        numbers = [voice.version.number for voice in await asyncio.gather(*asked)]
        assert max(numbers) == 11
        voice = await store.get_voice(acme, "v1")
        assert voice.versions == tuple(range(1, 12))
        versions = [(await store.get_voice(acme, "v1", version=n)).version for n in voice.versions]
        assert {version.request_id for version in versions} == {"v1", *(f"r{n}" for n in range(10))}

    async def test_a_foreign_voice_is_unknown(self, store: Store, acme: str, other: str) -> None:
        made = await make(store, acme, "v1")
        await store.share_voice(acme, "v1", with_tenant_id=other)
        for voice_id in ("v1", "none"):
            with pytest.raises(VoiceNotFound) as caught:
                await store.update_voice(other, voice_id, changes={"name": "mine"}, version=a_version("r2"))
            assert str(caught.value) == f"no voice {voice_id!r}"
        assert replace(await store.get_voice(acme, "v1"), shared_with=()) == made


class TestList:
    async def test_newest_first_and_names_may_repeat(self, store: Store, acme: str, clock: Clock) -> None:
        for voice_id in ("a", "c", "b"):
            clock.now_s += 1
            await make(store, acme, voice_id)
        assert await ids(store, acme, everything()) == ["b", "c", "a"]

    async def test_page_by_page_nothing_is_left_out_or_told_twice(self, store: Store, acme: str, clock: Clock) -> None:
        for n in range(7):
            clock.now_s += n % 3 * 0.000_5  # some are made at the same moment
            await make(store, acme, f"v{n}")
        assert await page_by_page(store, acme, limit=2) == await ids(store, acme, everything())

    async def test_a_voice_deleted_meanwhile_ends_no_list(self, store: Store, acme: str, clock: Clock) -> None:
        for n in range(4):
            clock.now_s += 1
            await make(store, acme, f"v{n}")
        first = await store.list_voices(acme, everything(limit=2))
        await store.delete_voice(acme, first[-1].id, request_id="d")
        assert await ids(store, acme, replace(everything(), after=place_of(first))) == ["v1", "v0"]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            (VoiceQuery(limit=9), {"full", "plain", "german"}),
            (VoiceQuery(limit=9, user_id="auth0|4711"), {"full"}),
            (VoiceQuery(limit=9, user_id="auth0"), set[str]()),
            (VoiceQuery(limit=9, tag="calm"), {"full", "german"}),
            (VoiceQuery(limit=9, tag="cal"), set[str]()),
            (VoiceQuery(limit=9, tag="näh \"er'"), {"full"}),
            (VoiceQuery(limit=9, language="de"), {"german"}),
            (VoiceQuery(limit=9, language="de", tag="calm"), {"german"}),
            (VoiceQuery(limit=9, language="pt", user_id="another"), set[str]()),
            (VoiceQuery(limit=9, voice_ids=("plain", "german", "none", "theirs")), {"plain", "german"}),
            (VoiceQuery(limit=9, voice_ids=()), set[str]()),
        ],
    )
    async def test_a_filter_lets_pass_what_fits(
        self, store: Store, acme: str, other: str, query: VoiceQuery, found: set[str]
    ) -> None:
        await make(store, acme, "full", FULL)
        await make(store, acme, "plain")
        await make(store, acme, "german", VoiceTraits("Ada", language="de", tags=("calm",)))
        await make(store, other, "theirs", FULL)
        assert set(await ids(store, acme, query)) == found
        assert set(await ids(store, acme, replace(query, include_shared=True))) == found

    async def test_each_is_told_as_get_tells_it(self, store: Store, acme: str, other: str) -> None:
        await make(store, acme, "v1", FULL)
        await store.update_voice(acme, "v1", changes={}, version=a_version("r2", "b"))
        await store.share_voice(acme, "v1", with_tenant_id=other)
        for tenant_id in (acme, other):
            assert await store.list_voices(tenant_id, everything()) == (await store.get_voice(tenant_id, "v1"),)


class TestShare:
    async def test_the_other_tenant_sees_it_until_it_no_longer_may(
        self, store: Store, other_worker: Store, acme: str, other: str
    ) -> None:
        await make(store, acme, "v1", FULL)
        assert (await store.share_voice(acme, "v1", with_tenant_id=other)).shared_with == (other,)
        seen = await other_worker.get_voice(other, "v1")
        assert (seen.tenant_id, seen.traits, seen.shared_with) == (acme, FULL, ())
        assert await ids(store, other, everything()) == ["v1"]
        assert await ids(store, other, VoiceQuery(limit=9)) == []
        assert (await store.unshare_voice(acme, "v1", with_tenant_id=other)).shared_with == ()
        with pytest.raises(VoiceNotFound, match="no voice 'v1'"):
            await other_worker.get_voice(other, "v1")
        assert await ids(store, other, everything()) == []

    async def test_a_third_tenant_sees_nothing(self, store: Store, acme: str, other: str) -> None:
        third = (await store.create_tenant("third", scopes=["voices"])).tenant.id
        await make(store, acme, "v1")
        await store.share_voice(acme, "v1", with_tenant_id=other)
        with pytest.raises(VoiceNotFound):
            await store.get_voice(third, "v1")
        assert await ids(store, third, everything()) == []

    async def test_both_can_be_repeated(self, store: Store, acme: str, other: str) -> None:
        await make(store, acme, "v1")
        for _ in range(2):
            assert (await store.share_voice(acme, "v1", with_tenant_id=other)).shared_with == (other,)
        for _ in range(2):
            assert (await store.unshare_voice(acme, "v1", with_tenant_id=other)).shared_with == ()

    async def test_whether_there_is_such_a_tenant_is_not_told(self, store: Store, acme: str) -> None:
        await make(store, acme, "v1")
        assert (await store.share_voice(acme, "v1", with_tenant_id="nobody")).shared_with == ("nobody",)

    async def test_shared_ones_are_told_in_order_with_the_own(
        self, store: Store, acme: str, other: str, clock: Clock
    ) -> None:
        for n in range(6):
            clock.now_s += 1
            await make(store, (acme, other)[n % 2], f"v{n}")
        for n in (0, 4):
            await store.share_voice(acme, f"v{n}", with_tenant_id=other)
        assert await page_by_page(store, other, limit=2) == ["v5", "v4", "v3", "v1", "v0"]

    async def test_a_users_voices_are_those_of_the_own_users(self, store: Store, acme: str, other: str) -> None:
        await make(store, acme, "v1", FULL)
        await store.share_voice(acme, "v1", with_tenant_id=other)
        assert await ids(store, other, replace(everything(), user_id=FULL.user_id)) == []
        assert await ids(store, acme, replace(everything(), user_id=FULL.user_id)) == ["v1"]

    async def test_who_got_a_voice_cannot_pass_it_on(self, store: Store, acme: str, other: str) -> None:
        await make(store, acme, "v1")
        await store.share_voice(acme, "v1", with_tenant_id=other)
        for voice_id in ("v1", "none"):
            for ask in (store.share_voice, store.unshare_voice):
                with pytest.raises(VoiceNotFound) as caught:
                    await ask(other, voice_id, with_tenant_id=other)
                assert str(caught.value) == f"no voice {voice_id!r}"
        assert (await store.get_voice(acme, "v1")).shared_with == (other,)

    async def test_with_so_many_and_no_more(self, store: Store, acme: str) -> None:
        await make(store, acme, "v1")
        for n in range(MAX_VOICE_GRANTS):
            await store.share_voice(acme, "v1", with_tenant_id=f"t{n}")
        with pytest.raises(LimitReached, match=f"{MAX_VOICE_GRANTS} tenants"):
            await store.share_voice(acme, "v1", with_tenant_id="one too many")
        assert len((await store.share_voice(acme, "v1", with_tenant_id="t0")).shared_with) == MAX_VOICE_GRANTS


class TestDelete:
    async def test_a_deleted_voice_is_gone_for_everybody(self, store: Store, acme: str, other: str) -> None:
        await make(store, acme, "v1")
        await make(store, acme, "v2")
        await store.share_voice(acme, "v1", with_tenant_id=other)
        await store.delete_voice(acme, "v1", request_id="d")
        for tenant_id in (acme, other):
            with pytest.raises(VoiceNotFound, match="no voice 'v1'"):
                await store.get_voice(tenant_id, "v1")
        assert (await ids(store, acme, everything()), await ids(store, other, everything())) == (["v2"], [])
        with pytest.raises(VoiceNotFound, match="no voice 'v1'"):
            await store.delete_voice(acme, "v1", request_id="d2")

    async def test_it_names_what_is_to_be_deleted(self, store: Store, acme: str, other: str) -> None:
        await make(store, acme, "v1")
        await store.update_voice(acme, "v1", changes={}, version=a_version("r2", "b", "c"))
        await store.share_voice(acme, "v1", with_tenant_id=other)
        latents = StoredObject("voices/t/latents", 130_000)
        assert await store.note_latents(acme, "v1", 2, latents=latents)
        assert await store.delete_voice(acme, "v1", request_id="d") == VoicePurge(
            voice_id="v1",
            rows=5,  # the voice, two versions, latents, a grant
            objects=(
                StoredObject("voices/t/v1-a", 1_000),
                StoredObject("voices/t/r2-b", 1_000),
                StoredObject("voices/t/r2-c", 1_000),
                latents,
            ),
            tenant_ids=(acme, other),
        )

    async def test_the_same_request_gets_the_same_answer(self, store: Store, other_worker: Store, acme: str) -> None:
        await make(store, acme, "v1")
        answers = await asyncio.gather(
            *(worker.delete_voice(acme, "v1", request_id="d") for worker in [store, other_worker] * 5)
        )
        assert answers == [answers[0]] * 10

    async def test_a_version_goes_alone_and_its_number_does_not_come_back(self, store: Store, acme: str) -> None:
        first = await make(store, acme, "v1")
        await store.update_voice(acme, "v1", changes={}, version=a_version("r2", "b"))
        latents = [StoredObject(f"voices/t/latents-{n}", n) for n in (1, 2)]
        for n in (1, 2):
            await store.note_latents(acme, "v1", n, latents=latents[n - 1])
        purge = await store.delete_voice(acme, "v1", version=2, request_id="d")
        assert purge == VoicePurge("v1", 2, (StoredObject("voices/t/r2-b", 1_000), latents[1]), (acme,))
        assert replace(await store.get_voice(acme, "v1"), updated_at="") == replace(first, updated_at="")
        with pytest.raises(VoiceNotFound):
            await store.get_voice(acme, "v1", version=2)
        third = await store.update_voice(acme, "v1", changes={}, version=a_version("r3", "c"))
        assert (third.version.number, third.versions) == (3, (1, 3))

    async def test_an_older_version_may_go(self, store: Store, acme: str) -> None:
        await make(store, acme, "v1")
        second = await store.update_voice(acme, "v1", changes={}, version=a_version("r2", "b"))
        await store.delete_voice(acme, "v1", version=1, request_id="d")
        assert await store.get_voice(acme, "v1") == replace(second, versions=(2,))

    async def test_the_only_version_stays(self, store: Store, acme: str) -> None:
        made = await make(store, acme, "v1")
        with pytest.raises(InvalidInput, match="only version"):
            await store.delete_voice(acme, "v1", version=1, request_id="d")
        assert await store.get_voice(acme, "v1") == made

    async def test_a_foreign_voice_is_unknown(self, store: Store, acme: str, other: str) -> None:
        await make(store, acme, "v1")
        await store.share_voice(acme, "v1", with_tenant_id=other)
        for voice_id, version in (("v1", None), ("v1", 1), ("v1", 9), ("none", None)):
            with pytest.raises(VoiceNotFound) as caught:
                await store.delete_voice(other, voice_id, version=version, request_id="d")
            assert str(caught.value) == f"no voice {voice_id!r}"
        assert (await store.get_voice(acme, "v1")).id == "v1"

    async def test_a_version_that_is_not_there(self, store: Store, acme: str) -> None:
        await make(store, acme, "v1")
        with pytest.raises(VoiceNotFound, match="no voice 'v1'"):
            await store.delete_voice(acme, "v1", version=2, request_id="d")

    async def test_a_request_of_another_tenant_is_another(self, store: Store, acme: str, other: str) -> None:
        await make(store, acme, "v1")
        await make(store, other, "v2")
        assert (await store.delete_voice(acme, "v1", request_id="d")).voice_id == "v1"
        assert (await store.delete_voice(other, "v2", request_id="d")).voice_id == "v2"


class TestLatents:
    async def test_the_same_object_is_noted_once(self, store: Store, acme: str) -> None:
        await make(store, acme, "v1")
        for size_bytes in (1, 2):
            assert await store.note_latents(acme, "v1", 1, latents=StoredObject("voices/t/latents", size_bytes))
        purge = await store.delete_voice(acme, "v1", request_id="d")
        assert purge.objects[1:] == (StoredObject("voices/t/latents", 2),)

    async def test_what_is_gone_has_none(self, store: Store, acme: str, other: str) -> None:
        await make(store, acme, "v1")
        latents = StoredObject("voices/t/latents", 1)
        assert not await store.note_latents(acme, "v1", 2, latents=latents)
        assert not await store.note_latents(acme, "none", 1, latents=latents)
        assert not await store.note_latents(other, "v1", 1, latents=latents)
        await store.delete_voice(acme, "v1", request_id="d")
        assert not await store.note_latents(acme, "v1", 1, latents=latents)


async def test_with_its_tenant_everything_goes(store: Store, acme: str, other: str) -> None:
    await make(store, acme, "v1")
    await make(store, other, "v2")
    await store.share_voice(acme, "v1", with_tenant_id=other)
    await store.share_voice(other, "v2", with_tenant_id=acme)
    objects = [f"voices/{acme}/v1/{name}" for name in ("r-0", "v1/latents-1.safetensors", "v2/latents-1.safetensors")]
    kept = f"voices/{other}/v2/v1/latents-1.safetensors"
    for path in (*objects, kept):
        await store.put_object(path, b"x", content_type="application/octet-stream")
    await store.note_latents(acme, "v1", 1, latents=StoredObject(objects[1], 1))
    await store.delete_voice(other, "v2", request_id="d")
    receipt = await store.delete_tenant(acme)
    assert {table: n for table, n in receipt.rows.items() if table.startswith("voice")} == {
        "voices": 1,
        "voice_versions": 1,
        "voice_latents": 1,
        "voice_grants": 1,
    }
    assert receipt.objects == len(objects)
    for path in objects:
        with pytest.raises(KeyError):
            await store.get_object(path)
    assert await store.get_object(kept) == b"x"
    assert await ids(store, other, everything()) == []


async def page_by_page(store: Store, tenant_id: str, *, limit: int) -> list[str]:
    found: list[str] = []
    query = everything(limit=limit)
    while page := await store.list_voices(tenant_id, query):
        found += [voice.id for voice in page]
        query = replace(query, after=place_of(page))
    return found


def place_of(page: Sequence[VoiceRow]) -> Place:
    return page[-1].created_at, page[-1].id
