"""The permanent cache through the whole service, on either body of the Store."""

import asyncio
import base64
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile

from storage.keys import digest, new_key
from tests.cached_worker import TwoVoices, Worker
from tests.stores import Clock, Place
from tts_core.errors import ReferenceUnreachable, StoreUnavailable
from tts_core.service import Service
from tts_core.service.delivery import wire_bytes
from tts_core.settings import Settings
from tts_core.store import CachePick, NewKey, Reservation, Scope, Store, Tenant
from tts_core.types import AudioFormat, FloatArray

Event = dict[str, Any]
EVERYTHING: tuple[Scope, ...] = ("synthesize", "voices", "personas", "cache", "usage", "admin")
CLIP = base64.b64encode(Path("samples/nova.flac").read_bytes()).decode()
SECONDS_PER_DAY = 86_400


async def no_network(url: str) -> bytes:
    raise ReferenceUnreachable("no network in this test")


@pytest.fixture
async def start(store: Store, tmp_path: Path) -> AsyncIterator[Callable[..., Service]]:
    """Starts workers, each with a folder of its own unless it is named."""
    started: list[tuple[Service, bool]] = []
    folders = count()

    def start(
        *, folder: str | None = None, on: Store | None = None, owns_store: bool = False, **settings: object
    ) -> Service:
        data_dir = tmp_path / (folder or f"worker-{next(folders)}")
        how = Settings.model_validate({"data_dir": data_dir, **settings})
        service = Service(TwoVoices(), on or store, settings=how, fetch=no_network)
        started.append((service, owns_store))
        return service

    yield start
    for service, owns_store in started:
        if not owns_store:
            service.store = _StaysOpen()  # type: ignore[assignment]
        await service.close()


class _StaysOpen:
    async def close(self) -> None: ...


@pytest.fixture
async def key(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=EVERYTHING)


@pytest.fixture
async def worker(start: Callable[..., Service], key: NewKey) -> Worker:
    return Worker(start(), key)


@pytest.fixture
async def other(worker: Worker, store: Store) -> Worker:
    """Another tenant at the same worker."""
    return Worker(worker.service, await store.create_tenant("other", scopes=EVERYTHING))


def bytes_of(event: Event) -> bytes:
    if "audio_base64" in event:
        return base64.b64decode(event["audio_base64"])
    with urlopen(event["audio_url"]) as answer:
        return bytes(answer.read())


def joined(events: list[Event]) -> bytes:
    return b"".join(bytes_of(event) for event in events if event.get("event") == "audio")


def samples_of(audio: bytes) -> FloatArray:
    samples, _ = soundfile.read(io.BytesIO(audio), dtype="float32")
    return np.asarray(samples)


def told(result: Event) -> Event:
    """What two answers to the same question have in common."""
    differs = ("request_id", "cached", "timings_ms", "audio_url", "expires_at")
    return {name: value for name, value in result.items() if name not in differs}


async def test_what_was_spoken_once_is_told_again_and_costs_nothing(worker: Worker) -> None:
    first = await worker.speak("abc", include_alignments=True)
    again = await worker.speak("abc", include_alignments=True)
    assert (first["cached"], again["cached"]) == (False, True)
    assert told(first) == told(again)
    assert first["alignments"]
    assert worker.engine.started == ["abc"]
    spoken, cached = sorted(await worker.usage(), key=lambda row: row.cached)
    assert (spoken.cached, cached.cached) == (False, True)
    assert (cached.audio_seconds, cached.audio_bytes) == (spoken.audio_seconds, spoken.audio_bytes)
    assert cached.voice_id == "nova"


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "opus", "pcm", "aac", "ulaw"])
async def test_a_stream_that_ended_well_is_kept_as_the_whole_file_it_would_have_been(
    worker: Worker, format: AudioFormat
) -> None:
    text = "abcdefghij " * 8
    fresh = await worker.speak(text, format=format, cache="bypass")
    stream = [event async for event in worker.stream(text, format=format)]
    whole = await worker.speak(text, format=format)
    assert (stream[-1]["cached"], whole["cached"]) == (False, True)
    assert bytes_of(whole) == bytes_of(fresh)
    streamed_again = [event async for event in worker.stream(text, format=format)]
    assert streamed_again[-1]["cached"] is True
    assert joined(streamed_again) == bytes_of(fresh)
    assert len(joined(stream)) == len(joined(streamed_again))


async def test_a_hit_is_told_in_every_way_that_can_be_asked_for(worker: Worker) -> None:
    text = "abcdefghij " * 40
    spoken = bytes_of(await worker.speak(text, output="url"))
    made = worker.engine.chunks_made
    by_url = await worker.speak(text, output="url")
    inline = await worker.events({"text": text, "language": "en", "output": "inline"})
    stream = [event async for event in worker.stream(text)]
    assert worker.engine.chunks_made == made
    assert bytes_of(by_url) == spoken
    for events in (inline, stream):
        assert joined(events) == spoken
        assert events[-1]["chunks"] == len(events) - 1 > 1
        assert max(map(wire_bytes, events)) <= 512_000
        assert events[-1]["cached"] is True


async def test_each_layer_answers_and_fills_those_above(start: Callable[..., Service], key: NewKey) -> None:
    first = Worker(start(folder="first"), key)
    await first.speak("abc")
    restarted, elsewhere = Worker(start(folder="first"), key), Worker(start(), key)
    for worker, layer in ((first, "memory"), (restarted, "folder"), (elsewhere, "store")):
        for nearest in (layer, "memory"):
            assert (await worker.speak("abc"))["cached"] is True
            stats = await worker.ask("cache.stats")
            hits = {name: size["worker_hits"] for name, size in stats["layers"].items()}
            assert hits[nearest] >= 1, (hits, layer)
        assert sum(hits.values()) == 2
        assert [stats["layers"][name]["entries"] for name in ("memory", "folder", "store")] == [1, 1, 1]
        assert not worker.engine.started or worker is first


async def test_a_hundred_at_once_cost_one_synthesis(worker: Worker) -> None:
    whole = [worker.speak("abc#defgh", include_alignments=n % 2 == 0) for n in range(50)]
    streams = [worker.events({"text": "abc#defgh", "language": "en", "streaming": True}) for _ in range(50)]
    asking = asyncio.gather(*whole, *streams)
    await worker.boarded(100)
    worker.engine.gate.set()
    results: list[Any] = await asking
    assert worker.engine.started == ["abc#defgh"]
    wholes, streamed = results[:50], results[50:]
    assert len({bytes_of(result) for result in wholes}) == 1
    assert len({len(joined(events)) for events in streamed}) == 1
    rows = await worker.usage()
    assert Counter(row.cached for row in rows) == {False: 1, True: 99}
    assert len({row.request_id for row in rows}) == 100
    stats = await worker.ask("cache.stats")
    assert (stats["hits"], stats["misses"], stats["entries"]) == (99, 1, 1)


async def test_who_streams_what_is_being_spoken_hears_it_while_it_is_spoken(worker: Worker) -> None:
    speaking = asyncio.create_task(worker.speak("abcdef#"))
    await worker.engine.begun.wait()
    async with aclosing(worker.stream("abcdef#")) as stream:
        first = await anext(stream)
        assert first["event"] == "audio"
        assert worker.engine.active == 1
        worker.engine.gate.set()
        rest = [event async for event in stream]
    assert (await speaking)["cached"] is False
    assert rest[-1]["cached"] is True
    assert len(joined([first, *rest])) == len(bytes_of(await worker.speak("abcdef#")))


async def test_who_stops_reading_holds_nobody_else_back(worker: Worker) -> None:
    text = "abcdefghi " * 120
    async with aclosing(worker.stream(text)) as slow:
        first = await anext(slow)
        fast = await worker.events({"text": text, "language": "en", "streaming": True})
        assert fast[-1]["event"] == "done"
        rest = [event async for event in slow]
    assert len(joined([first, *rest])) == len(joined(fast))
    assert (rest[-1]["cached"], fast[-1]["cached"]) == (False, True)


async def test_when_the_first_leaves_the_next_one_pays_the_rest(worker: Worker) -> None:
    async with aclosing(worker.stream("abcdef#gh")) as stream:
        await anext(stream)
        staying = asyncio.create_task(worker.speak("abcdef#gh"))
        await worker.boarded(2)
    worker.engine.gate.set()
    answer = await staying
    assert answer["cached"] is False
    assert worker.engine.started == ["abcdef#gh"]
    left, stayed = sorted(await worker.usage(), key=lambda row: row.status)
    assert (left.status, left.cached) == ("cancelled", False)
    assert left.audio_seconds > 0
    assert stayed.audio_seconds > 0
    assert left.audio_seconds + stayed.audio_seconds == pytest.approx(answer["duration"], abs=0.001)
    assert (stayed.status, stayed.cached) == ("success", False)
    assert (await worker.speak("abcdef#gh"))["cached"] is True


async def test_when_all_have_left_nothing_is_spoken_or_kept(worker: Worker) -> None:
    async with aclosing(worker.stream("abcdef#gh")) as one, aclosing(worker.stream("abcdef#gh")) as two:
        await asyncio.gather(anext(one), anext(two))
    await worker.settled()
    assert worker.engine.active == 0
    worker.engine.gate.set()
    assert (await worker.speak("abcdef#gh"))["cached"] is False


async def test_a_failure_is_everybodys_and_is_not_kept(worker: Worker) -> None:
    asking = asyncio.gather(*(worker.refused("synthesize", text="abc#!", language="en") for _ in range(5)))
    await worker.boarded(5)
    worker.engine.gate.set()
    assert {error["code"] for error in await asking} == {"internal"}
    assert worker.engine.started == ["abc#!"]
    await worker.refused("synthesize", text="abc#!", language="en")
    assert worker.engine.started == ["abc#!", "abc#!"]
    rows = await worker.usage()
    assert Counter(row.cached for row in rows) == {False: 2, True: 4}
    assert {row.status for row in rows} == {"failed"}


async def test_a_bad_take_is_told_to_who_waited_and_not_kept(worker: Worker) -> None:
    worker.engine.verdict = "loop"
    asking = asyncio.gather(*(worker.speak("abc#") for _ in range(3)))
    await worker.boarded(3)
    worker.engine.gate.set()
    results = await asking
    assert worker.engine.started == ["abc#"]
    assert {result["quality"]["verdict"] for result in results} == {"loop"}
    assert sorted(result["cached"] for result in results) == [False, True, True]
    worker.engine.verdict = "ok"
    assert (await worker.speak("abc#"))["cached"] is False
    again = await worker.speak("abc#")
    assert (again["cached"], again["quality"]["verdict"]) == (True, "ok")


async def test_a_text_with_a_nul_is_kept_like_any_other(worker: Worker) -> None:
    first = await worker.speak("abc\0 def", include_alignments=True)
    again = await worker.speak("abc\0 def", include_alignments=True)
    assert (first["cached"], again["cached"]) == (False, True)
    assert told(first) == told(again)
    assert again["text"] == "abc\0 def"


async def test_bypass_neither_looks_nor_keeps(worker: Worker) -> None:
    for _ in range(2):
        assert (await worker.speak("abc", cache="bypass"))["cached"] is False
    assert (await worker.speak("abc"))["cached"] is False
    assert len(worker.engine.started) == 3
    assert (await worker.ask("cache.stats"))["misses"] == 1


async def test_refresh_speaks_anew_for_every_worker(start: Callable[..., Service], key: NewKey) -> None:
    one, two = Worker(start(), key), Worker(start(), key)
    await one.speak("abc")
    old = await two.speak("abc")
    one.engine.verdict = two.engine.verdict = "ok"
    refreshed = await one.speak("abc", cache="refresh")
    assert (old["cached"], refreshed["cached"]) == (True, False)
    assert one.engine.started == ["abc", "abc"]
    assert (await two.speak("abc"))["cached"] is True
    stats = await two.ask("cache.stats")
    assert (stats["entries"], stats["layers"]["store"]["worker_hits"]) == (1, 2)


async def test_a_refresh_that_goes_badly_leaves_what_was_kept(worker: Worker) -> None:
    await worker.speak("abc")
    worker.engine.verdict = "stall"
    assert (await worker.speak("abc", cache="refresh"))["quality"]["verdict"] == "stall"
    again = await worker.speak("abc")
    assert (again["cached"], again["quality"]["verdict"]) == (True, "ok")


async def test_one_tenants_takes_are_not_anothers(worker: Worker, other: Worker) -> None:
    await worker.speak("abc")
    assert (await other.speak("abc"))["cached"] is False
    assert len(worker.engine.started) == 2
    stats = await other.ask("cache.stats")
    assert (stats["entries"], stats["hits"], stats["layers"]["memory"]["entries"]) == (1, 0, 1)
    await other.ask("cache.invalidate", all=True)
    assert (await worker.speak("abc"))["cached"] is True


async def test_invalidation_reaches_every_layer_of_every_worker(start: Callable[..., Service], key: NewKey) -> None:
    one, two = Worker(start(), key), Worker(start(), key)
    for worker in (one, two):
        await worker.speak("abc")
        await worker.speak("xyz", voice_id="onyx")
    size = len(bytes_of(await one.speak("xyz", voice_id="onyx")))
    receipt = await one.ask("cache.invalidate", voice_id="onyx")
    assert receipt["invalidated"] == {"entries": 1, "bytes": size}
    for worker in (one, two):
        assert (await worker.speak("abc"))["cached"] is True
    assert (await two.speak("xyz", voice_id="onyx"))["cached"] is False
    assert (await one.speak("xyz", voice_id="onyx"))["cached"] is True


async def test_invalidation_by_each_of_its_fields(worker: Worker) -> None:
    seed = {"texts": ["abc"], "voices": ["nova"], "content_type": "narrative"}
    fields: list[Event] = [{"voice_id": "nova"}, {"content_type": "narrative"}, {"older_than_days": 0}, {"all": True}]
    for field in fields:
        await worker.ask("cache.seed", **seed)
        assert (await worker.ask("cache.invalidate", voice_id="onyx"))["invalidated"]["entries"] == 0
        assert (await worker.ask("cache.invalidate", content_type="question"))["invalidated"]["entries"] == 0
        assert (await worker.ask("cache.invalidate", older_than_days=1))["invalidated"]["entries"] == 0
        assert (await worker.ask("cache.invalidate", content_hash="0" * 64))["invalidated"]["entries"] == 0
        assert (await worker.ask("cache.invalidate", **field))["invalidated"]["entries"] == 1, field
        assert (await worker.ask("cache.stats"))["entries"] == 0
    seeded = await worker.ask("cache.seed", **seed)
    by_hash = await worker.ask("cache.invalidate", content_hash=seeded["entries"][0]["content_hash"])
    assert by_hash["invalidated"]["entries"] == 1
    assert (await worker.refused("cache.invalidate"))["code"] == "invalid_input"
    assert (await worker.refused("cache.invalidate", all=True, voice_id="nova"))["code"] == "invalid_input"


async def test_a_take_begun_before_an_invalidation_is_not_kept_after_it(worker: Worker) -> None:
    speaking = asyncio.create_task(worker.speak("abc#"))
    await worker.engine.begun.wait()
    await worker.ask("cache.invalidate", all=True)
    worker.engine.gate.set()
    result = await speaking
    assert (result["status"], result["cached"]) == ("success", False)
    assert (await worker.ask("cache.stats"))["entries"] == 0
    assert (await worker.speak("abc#"))["cached"] is False


async def test_seeded_texts_are_answered_at_once_in_each_voice(worker: Worker) -> None:
    seed = {"texts": ["abc", "defg"], "voices": ["nova", "onyx"], "content_type": "narrative", "format": "mp3"}
    *progress, seeded = await worker.events({"action": "cache.seed", "progress": True, **seed})
    assert progress[-1]["takes_done"] == progress[-1]["takes_total"] == 4
    assert (seeded["spoken"], seeded["failed"]) == (4, [])
    assert [(entry["text"], entry["voice_id"]) for entry in seeded["entries"]] == [
        (0, "nova"),
        (1, "nova"),
        (0, "onyx"),
        (1, "onyx"),
    ]
    assert (await worker.speak("defg", voice_id="onyx", format="mp3"))["cached"] is True
    (row,) = [row for row in await worker.usage() if row.action == "cache.seed"]
    assert (row.cached, row.input_chars) == (False, 14)
    assert row.audio_seconds == pytest.approx(1.4)
    stats = await worker.ask("cache.stats")
    assert [(g["content_type"], g["voice"], g["entries"]) for g in stats["groups"]] == [
        ("narrative", "nova", 2),
        ("narrative", "onyx", 2),
    ]


async def test_seeding_again_goes_on_where_it_ended(worker: Worker) -> None:
    seed = {"texts": ["abc", "no!", "...", "defg"], "voices": ["nova"], "content_type": "question"}
    first = await worker.ask("cache.seed", **seed)
    assert [(failure["text"], failure["code"]) for failure in first["failed"]] == [
        (1, "internal"),
        (2, "text_unspeakable"),
    ]
    again = await worker.ask("cache.seed", **seed)
    assert [entry["cached"] for entry in again["entries"]] == [True, True]
    assert Counter(worker.engine.started) == {"abc": 1, "defg": 1, "no!": 2}
    rows = await worker.usage()
    assert sorted(row.audio_seconds for row in rows) == pytest.approx([0.2, 0.9])  # "no" was spoken each time
    assert {row.cached for row in rows} == {False}


async def test_a_seeding_that_is_cancelled_keeps_and_charges_what_it_did(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tts_core.service.seeding.PROGRESS_S", 0.0)
    body = {"action": "cache.seed", "texts": ["abc", "def#"], "voices": ["nova"], "progress": True}
    async with aclosing(worker.service.answer(worker.asked(body), job_id="1")) as events:
        assert (await anext(events))["takes_done"] == 1
    rows = await worker.usage()
    (row,) = [row for row in rows if row.action == "cache.seed"]
    assert row.status == "cancelled"
    assert row.audio_seconds == pytest.approx(0.6)
    worker.engine.gate.set()
    again = await worker.ask("cache.seed", texts=["abc", "def#"], voices=["nova"])
    assert [entry["cached"] for entry in again["entries"]] == [True, False]


async def test_a_bad_take_fails_its_seed(worker: Worker) -> None:
    worker.engine.verdict = "loop"
    seeded = await worker.ask("cache.seed", texts=["abc"], voices=["nova"])
    assert [failure["code"] for failure in seeded["failed"]] == ["not_kept"]


async def test_what_was_spoken_before_it_was_seeded_gets_its_label(worker: Worker) -> None:
    await worker.speak("abc")
    await worker.ask("cache.seed", texts=["abc"], voices=["nova"], content_type="narrative")
    assert worker.engine.started == ["abc"]
    assert (await worker.ask("cache.invalidate", content_type="narrative"))["invalidated"]["entries"] == 1


async def test_only_the_operator_fills_the_shared_pool_and_all_hear_it(
    start: Callable[..., Service], place: Place, clock: Clock, worker: Worker, other: Worker
) -> None:
    shared = {"texts": ["abc"], "voices": ["nova"], "shared": True}
    for action in ({"action": "cache.seed", **shared}, {"action": "cache.invalidate", "shared": True, "all": True}):
        (answer,) = await worker.events(action)
        assert json.loads(answer["error"])["code"] == "forbidden"
    secret = new_key()
    at_home = await place.open(clock, operator_key=digest(secret))
    operator = Worker(
        start(on=at_home, owns_store=True), NewKey(await operator_of(at_home, secret), secret, worker.key.key)
    )
    made = await operator.ask("voices.create", name="Ada", consent="synthetic", reference_audio_base64=CLIP)
    seeded = await operator.ask("cache.seed", **shared | {"voices": ["nova", made["id"]]})
    assert [entry["voice_id"] for entry in seeded["entries"]] == ["nova"]
    assert [failure["code"] for failure in seeded["failed"]] == ["invalid_input"]
    for tenant in (worker, other, Worker(start(), other.key)):
        assert (await tenant.speak("abc"))["cached"] is True
    stats = await other.ask("cache.stats")
    assert (stats["entries"], stats["shared_entries"], stats["hits"]) == (0, 1, 1)
    assert (await operator.ask("cache.invalidate", shared=True, all=True))["invalidated"]["entries"] == 1
    assert (await other.speak("abc"))["cached"] is False


async def operator_of(store: Store, secret: str) -> Tenant:
    reservation = Reservation(tenant_key=secret, scope="admin", identity="hello", fingerprint="f" * 64, action="hello")
    return (await store.reserve(reservation)).tenant


async def test_a_key_without_the_scope_may_do_nothing_here(worker: Worker, store: Store) -> None:
    key = await store.create_tenant("narrow", scopes=("synthesize", "voices", "personas", "usage"))
    narrow = Worker(worker.service, key)
    for fields in ({"action": "cache.stats"}, {"action": "cache.invalidate", "all": True}):
        (answer,) = await narrow.events(fields)
        assert json.loads(answer["error"])["code"] == "forbidden"


async def test_stats_say_what_was_saved(start: Callable[..., Service], key: NewKey) -> None:
    worker = Worker(start(price_per_audio_hour=3.6), key)
    empty = await worker.ask("cache.stats")
    assert (empty["hits"], empty["hit_ratio"], empty["seconds_saved"], empty["money_saved"]) == (0, None, 0, 0)
    for _ in range(4):
        await worker.speak("abcde")
    stats = await worker.ask("cache.stats")
    assert (stats["hits"], stats["misses"], stats["hit_ratio"]) == (3, 1, 0.75)
    assert (stats["seconds_saved"], stats["money_saved"]) == (1.5, 0.0015)
    assert stats["bytes"] == stats["layers"]["memory"]["bytes"] == len(bytes_of(await worker.speak("abcde")))
    free = Worker(start(), key)
    assert (await free.ask("cache.stats"))["money_saved"] is None


async def test_hits_are_told_at_the_end_of_a_worker(start: Callable[..., Service], key: NewKey, store: Store) -> None:
    worker = Worker(start(), key)
    for _ in range(3):
        await worker.speak("abc")
    assert (await store.cache_totals(key.tenant.id)).hits == 0
    await worker.service._cache.close()
    assert (await store.cache_totals(key.tenant.id)).hits == 2


async def test_an_entry_whose_object_is_gone_is_spoken_anew_and_mended(
    start: Callable[..., Service], key: NewKey, store: Store
) -> None:
    await Worker(start(), key).speak("abc")
    (entry,) = await store.retire_cached(key.tenant.id, CachePick(), limit=1)
    await Worker(start(), key).speak("abc")
    await store.delete_object(entry.audio_path)
    assert (await Worker(start(), key).speak("abc"))["cached"] is False
    assert (await Worker(start(), key).speak("abc"))["cached"] is True


class Unwell:
    """A store whose cache does not answer."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if "cache" not in name:
            return getattr(self._store, name)

        async def refuse(*args: object, **how: object) -> None:
            raise StoreUnavailable("the store did not answer")

        return refuse


async def test_without_the_store_everything_is_spoken_as_if_there_were_no_cache(
    start: Callable[..., Service], key: NewKey, store: Store
) -> None:
    worker = Worker(start(on=Unwell(store)), key)
    results = [await worker.speak("abc", output="url") for _ in range(2)]
    assert [result["cached"] for result in results] == [False, False]
    assert len({bytes_of(result) for result in results}) == 1
    assert (await worker.refused("cache.stats"))["code"] == "store_unavailable"


async def test_a_take_that_is_too_old_is_spoken_anew(
    start: Callable[..., Service], key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [Worker(start(cache_max_age_days=30), key) for _ in range(2)]
    now_s = [workers[0].service._cache._clock()]
    for worker in workers:
        monkeypatch.setattr(worker.service._cache, "_clock", lambda: now_s[0])
        await worker.speak("abc")
    assert (await workers[0].speak("abc"))["cached"] is True
    now_s[0] += 31 * SECONDS_PER_DAY
    assert (await workers[0].speak("abc"))["cached"] is False
    now_s[0] -= 31 * SECONDS_PER_DAY
    assert (await workers[1].speak("abc"))["cached"] is True


async def test_the_same_request_again_is_told_from_the_cache(worker: Worker) -> None:
    first = await worker.speak("abc", idempotency_key="k")
    again = await worker.speak("abc", idempotency_key="k")
    assert (again["request_id"], bytes_of(again)) == (first["request_id"], bytes_of(first))
    assert len(await worker.usage()) == 1
    await worker.ask("cache.invalidate", all=True)
    expired = await worker.refused("synthesize", text="abc", language="en", idempotency_key="k")
    assert expired["code"] == "result_expired"
