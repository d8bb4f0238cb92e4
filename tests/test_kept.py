"""Kept jobs through the whole service: what of a long text was spoken is not spoken again, whoever was killed."""

import asyncio
import base64
import json
import multiprocessing
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, closing
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from storage.local import open_local
from tests.faulty_worker import HANGS, FaultyEngine
from tests.scripted_engine import ScriptedEngine
from tests.stores import Clock
from tts_core.errors import ReferenceUnreachable
from tts_core.espeak import EspeakEngine
from tts_core.service import Service
from tts_core.service.chunks import CHUNK_CHARS, MIN_CHUNKS, divide
from tts_core.settings import Settings
from tts_core.store import Store
from tts_core.text import plan
from tts_core.types import Audience, AudioChunk, Manner, Utterance

Event = dict[str, Any]
LONG = "The quick brown fox jumps over the lazy dog while the band plays on. " * 30
CUT_OFF = f"{LONG}And {HANGS}. {LONG}"
LEASE_S = 30.0
KEEPS = (("1", True), ("2", None))


async def no_network(url: str) -> bytes:
    raise ReferenceUnreachable("no network in this test")


class Listener(EspeakEngine):
    """Notes what it was asked to speak."""

    def __init__(self) -> None:
        super().__init__()
        self.spoken: list[str] = []

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        self.spoken.append(utterance.text)
        async with aclosing(super().speak(utterance, manner, audience)) as stream:
            async for chunk in stream:
                yield chunk


class Worker:
    """A service on a store, with the local tenant's key or a new tenant's."""

    def __init__(self, store: Store, folder: Path, *, engine: Any = None) -> None:
        self.store = store
        self.engine: Any = engine or ScriptedEngine()
        self.service = Service(self.engine, store, settings=Settings(data_dir=folder), fetch=no_network)
        self.key = ""

    async def sign_up(self) -> "Worker":
        self.key = (await self.store.create_tenant("acme", scopes=["admin"])).secret
        return self

    async def events(self, body: Event, job_id: str = "job") -> list[Event]:
        return [event async for event in self.service.answer({"tenant_key": self.key, **body}, job_id=job_id)]

    async def speak(self, text: str = "abc", job_id: str = "job", **fields: object) -> Event:
        return (await self.events({"text": text, "language": "en", **fields}, job_id))[-1]

    async def ask(self, action: str, **fields: object) -> Event:
        return (await self.events({"action": action, **fields}, job_id=f"ask-{time.monotonic_ns()}"))[-1]

    async def job(self, job_id: str) -> Event:
        job: Event = (await self.ask("jobs.get", job_id=job_id))["job"]
        return job

    async def settled(self) -> None:
        await asyncio.gather(*(run.owner for run in self.service._runs.values()))


@pytest.fixture
async def worker(store: Store, tmp_path: Path) -> AsyncIterator[Worker]:
    worker = await Worker(store, tmp_path / "worker").sign_up()
    yield worker
    await worker.service.close()


def error_of(event: Event) -> Event:
    error: Event = json.loads(event["error"])
    return error


class TestRows:
    async def test_what_asks_to_be_kept_has_a_job(self, worker: Worker) -> None:
        result = await worker.speak("abc", keep=True, include_alignments=True, metadata={"a": 1})
        job = await worker.job(result["request_id"])
        assert (job["status"], job["text"], job["voice_id"], job["language"]) == ("completed", "abc", "nova", "en")
        assert (job["duration"], job["error"], job["include_alignments"]) == (result["duration"], None, True)
        assert job["chunks"] == []
        assert fetched(job["audio_url"]) == base64.b64decode(result["audio_base64"])
        assert json.loads(fetched(job["alignments_url"])) == result["alignments"]

    @pytest.mark.parametrize(
        "fields", [{}, {"streaming": True}, {"output": "inline"}, {"output": "url", "keep": False}]
    )
    async def test_what_does_not_ask_has_none(self, worker: Worker, fields: Event) -> None:
        result = await worker.speak("abc", **fields)
        assert error_of(await worker.ask("jobs.get", job_id=result["request_id"]))["code"] == "job_not_found"
        assert (await worker.ask("jobs.list"))["jobs"] == []

    @pytest.mark.parametrize(("text", "fields"), [("abc", {"output": "url"}), ("abc " * 501, {})])
    async def test_what_is_fetched_later_or_long_has_one(self, worker: Worker, text: str, fields: Event) -> None:
        result = await worker.speak(text, **fields)
        assert (await worker.job(result["request_id"]))["status"] == "completed"

    async def test_a_failed_one_says_why_and_a_second_attempt_mends_it(self, store: Store, tmp_path: Path) -> None:
        worker = await Worker(store, tmp_path, engine=Breaking(after=-1)).sign_up()
        failed = await worker.speak("abc", keep=True, idempotency_key="k")
        (job,) = (await worker.ask("jobs.list", status="failed"))["jobs"]
        assert (job["job_id"], job["error"]) == (error_of(failed)["request_id"], "internal")
        worker.engine.after = 3
        result = await worker.speak("abc", "again", keep=True, idempotency_key="k")
        assert (await worker.job(result["request_id"]))["status"] == "completed"
        assert result["request_id"] == job["job_id"]
        await worker.settled()
        await worker.engine.close()

    async def test_one_that_is_worked_on_is_processing(self, worker: Worker) -> None:
        body = {"tenant_key": worker.key, "text": "abc#", "language": "en", "keep": True, "progress": True}
        speaking = asyncio.create_task(worker.events(body))
        while not (jobs := (await worker.ask("jobs.list", status="processing"))["jobs"]):
            pass
        worker.engine.gate.set()
        (result,) = [event for event in await speaking if "status" in event]
        assert jobs[0]["job_id"] == result["request_id"]

    async def test_reading_is_answered_anew_under_the_same_job_id(self, store: Store, tmp_path: Path) -> None:
        worker = await Worker(store, tmp_path, engine=Breaking(after=-1)).sign_up()
        failed = await worker.speak("abc", keep=True, idempotency_key="k")
        told = []
        for after in (-1, 3):
            worker.engine.after = after
            await worker.speak("abc", f"{after}", keep=True, idempotency_key="k")
            read = {"action": "jobs.get", "job_id": error_of(failed)["request_id"]}
            told.append((await worker.events(read, "the same"))[-1]["job"]["status"])
        assert told == ["failed", "completed"]
        await worker.settled()
        await worker.engine.close()

    async def test_what_asks_to_be_kept_outlives_the_cache(self, worker: Worker) -> None:
        kept, implied = [(await worker.speak("abc", n, output="url", keep=keep))["request_id"] for n, keep in KEEPS]
        await worker.ask("cache.invalidate", all=True)
        assert (await worker.job(kept))["audio_url"] is not None
        assert (await worker.job(implied))["audio_url"] is None

    async def test_pages_of_a_list_join(self, worker: Worker, clock: Clock) -> None:
        made, found, cursor = [], [], None
        for number in range(5):
            clock.now_s += 1
            made.append((await worker.speak("abc", f"{number}", keep=True))["request_id"])
        while True:
            page = await worker.ask("jobs.list", limit=2, cursor=cursor)
            found += [job["job_id"] for job in page["jobs"]]
            if (cursor := page["next_cursor"]) is None:
                break
        assert found == made[::-1]

    async def test_a_foreign_job_is_as_unknown_as_none(self, worker: Worker, store: Store, tmp_path: Path) -> None:
        result = await worker.speak("abc", keep=True)
        worker.key = (await store.create_tenant("other", scopes=["synthesize"])).secret
        for job_id in (result["request_id"], "0" * 32):
            error = error_of(await worker.ask("jobs.get", job_id=job_id))
            assert (error["code"], error["message"]) == ("job_not_found", f"no job {job_id!r}")


def fetched(url: str) -> bytes:
    with urlopen(url) as answer:
        data: bytes = answer.read()
    return data


def start_and_hang(data_dir: Path, body: Event) -> None:
    """In a process of its own: speak until the engine hangs."""

    async def run() -> None:
        store = await open_local(data_dir)
        service = Service(FaultyEngine(), store, settings=Settings(data_dir=data_dir / "worker"), fetch=no_network)
        async for _ in service.answer(body | {"tenant_key": await store.local_key()}, job_id="job"):
            pass

    asyncio.run(run())


def kill_once_hanging(data_dir: Path, body: Event) -> int:
    """Have a worker killed as soon as it has kept all that it can; returns how many chunks that are."""
    process = multiprocessing.get_context("spawn").Process(target=start_and_hang, args=(data_dir, body))
    process.start()
    while not (kept := kept_before_the_hang(data_dir)):
        process.join(0.05)
        assert process.is_alive()
    process.kill()
    process.join()
    return kept


def kept_before_the_hang(data_dir: Path) -> int:
    """How many chunks are done, once no other will be."""
    query = "select text_excerpt, status from job_chunks order by chunk_index"
    try:
        with closing(sqlite3.connect(f"file:{data_dir}/store.db?mode=ro", uri=True)) as connection:
            rows = connection.execute(query).fetchall()
    except sqlite3.OperationalError:  # not made yet
        return 0
    done = [status for _, status in rows].count("done")
    return done if done and done == len(chunks_before_the_hang()) else 0


@cache
def chunks_before_the_hang() -> list[range]:
    utterances = plan(CUT_OFF, language="en", max_chars=1_000)
    hanging = next(index for index, utterance in enumerate(utterances) if HANGS in utterance.text)
    return [chunk for chunk in divide(utterances, language="en") if chunk.stop <= hanging]


async def spoken_by(
    folder: Path, body: Event, *, clock: Callable[[], float] = time.time
) -> tuple[list[Event], list[str]]:
    """All events, and what the engine was asked to speak."""
    store = await open_local(folder, clock=clock)
    worker = Worker(store, folder / "second", engine=Listener())
    worker.key = await store.local_key()
    events = await worker.events(body)
    await worker.settled()
    (tenant,) = await store.list_tenants()
    rows = await store.usage(tenant.id)
    assert [row.status for row in rows] == ["abandoned", "success"][-len(rows) :]
    assert rows[-1].audio_seconds == pytest.approx(events[-1]["duration"], abs=0.001)
    assert await store.list_chunks(tenant.id, events[-1]["request_id"]) == ()
    assert not [file for file in folder.rglob("*.chunk*") if file.is_file()]
    await worker.service.close()
    return events, worker.engine.spoken


def joined(events: list[Event]) -> bytes:
    parts = [event for event in events if "audio_base64" in event or "audio_url" in event]
    return b"".join(
        base64.b64decode(part["audio_base64"]) if "audio_base64" in part else fetched(part["audio_url"])
        for part in parts
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "wav"},
        {"format": "pcm", "sample_rate": 8000, "include_alignments": True},
        {"format": "mp3", "streaming": True},
    ],
    ids=["wav", "resampled", "streamed"],
)
async def test_a_killed_workers_chunks_are_not_spoken_again(tmp_path: Path, fields: Event) -> None:
    body = {"text": CUT_OFF, "language": "en", **fields}
    kept = await asyncio.to_thread(kill_once_hanging, tmp_path / "killed", body)
    events, spoken = await spoken_by(tmp_path / "killed", body, clock=lambda: time.time() + LEASE_S + 1)
    undisturbed, all_spoken = await spoken_by(tmp_path / "undisturbed", body)
    known = chunks_before_the_hang()[kept - 1].stop
    assert kept >= MIN_CHUNKS
    assert spoken == all_spoken[known:]
    assert joined(events) == joined(undisturbed)
    for told in ("duration", "alignments", "quality"):
        assert events[-1][told] == undisturbed[-1][told]


async def test_a_failed_attempt_is_not_charged_again(store: Store, tmp_path: Path) -> None:
    """What it was charged for is told by its own usage row; the next attempt pays for the rest."""
    worker = await Worker(store, tmp_path, engine=Breaking(after=1_300)).sign_up()
    text = "abcdefghi " * 190
    failed = await worker.speak(text, keep=True, idempotency_key="k")
    assert error_of(failed)["code"] == "internal"
    job = await worker.job(error_of(failed)["request_id"])
    done = [chunk for chunk in job["chunks"] if chunk["status"] == "done"]
    assert 0 < len(done) < len(job["chunks"])
    assert "failed" in [chunk["status"] for chunk in job["chunks"]]
    worker.engine.after = 10**9
    worker.engine.started.clear()
    result = await worker.speak(text, "again", keep=True, idempotency_key="k")
    usage = [row for row in await store.usage((await store.list_tenants())[0].id) if row.action == "synthesize"]
    paid_before = sum(chunk["duration"] for chunk in done)
    assert [row.status for row in usage] == ["failed", "success"]
    assert usage[0].audio_seconds >= paid_before - 0.01
    assert usage[1].audio_seconds == pytest.approx(result["duration"] - paid_before, abs=0.01)
    assert usage[1].audio_bytes / usage[1].audio_seconds == pytest.approx(
        usage[0].audio_bytes / usage[0].audio_seconds, rel=0.1
    )
    assert sum(map(len, worker.engine.started)) < len(text) - paid_before * 9
    await worker.service.close()


class Breaking(ScriptedEngine):
    """Breaks at any utterance after so many characters."""

    def __init__(self, *, after: int) -> None:
        super().__init__()
        self.after = after

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        if utterance.start > self.after:
            raise RuntimeError("the engine broke")
        async for chunk in super().speak(utterance, manner, audience):
            yield chunk


@pytest.mark.parametrize("damage", ["gone", "other bytes"])
async def test_a_chunk_that_is_damaged_is_spoken_again(store: Store, tmp_path: Path, damage: str) -> None:
    worker = await Worker(store, tmp_path, engine=Breaking(after=1_300)).sign_up()
    text = "abcdefghi " * 190
    await worker.speak(text, keep=True, idempotency_key="k", format="pcm")
    (tenant,) = await store.list_tenants()
    (job,) = await store.list_jobs(tenant.id, limit=1)
    first = (await store.list_chunks(tenant.id, job.id))[0]
    assert first.speech is not None
    await store.delete_object(first.object_path)
    if damage == "other bytes":
        await store.put_object(first.object_path, b"x" * 1_000, content_type="audio/wav")
    worker.engine.after = 10**9
    result = await worker.speak(text, "again", keep=True, idempotency_key="k", format="pcm")
    other = await Worker(store, tmp_path / "other").sign_up()
    undisturbed = await other.speak(text, "undisturbed", keep=True, format="pcm")
    assert fetched(result["audio_url"]) == fetched(undisturbed["audio_url"])
    for one in (worker, other):
        await one.settled()
        await one.engine.close()


class TestDivision:
    def test_every_utterance_is_in_one_chunk(self) -> None:
        utterances = plan(CUT_OFF, language="en", max_chars=200)
        chunks = divide(utterances, language="en")
        assert [index for chunk in chunks for index in chunk] == list(range(len(utterances)))
        lengths = [sum(len(utterances[index].text) for index in chunk) for chunk in chunks]
        assert max(lengths) <= CHUNK_CHARS
        assert min(lengths[:-1]) > CHUNK_CHARS - 200

    def test_an_utterance_longer_than_a_chunk_is_one(self) -> None:
        utterances = [Utterance("a" * 900, n, n + 1) for n in range(4)]
        assert list(divide(utterances, language="en")) == [range(n, n + 1) for n in range(4)]

    @pytest.mark.parametrize("chars", [0, 1, CHUNK_CHARS, 2 * CHUNK_CHARS])
    def test_what_is_not_long_is_not_divided(self, chars: int) -> None:
        assert divide(plan("ab " * (chars // 3), language="en", max_chars=200), language="en") == ()

    def test_a_language_that_says_more_with_a_character_has_smaller_ones(self) -> None:
        utterances = [Utterance("字" * 50, n, n + 1) for n in range(40)]
        assert len(divide(utterances, language="zh")) > len(divide(utterances, language="en"))
