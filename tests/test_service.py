"""Requests through the whole service: real local store, real encoders, an engine that follows a script."""

import asyncio
import base64
import io
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from storage.local import open_local
from tests.scripted_engine import RATE_HZ, ScriptedEngine
from tts_core.errors import ReferenceUnreachable
from tts_core.jobs import ACTIONS, Health, Synthesize
from tts_core.service import Service
from tts_core.service.delivery import wire_bytes
from tts_core.settings import Settings
from tts_core.store import Store, UsageRow
from tts_core.types import FloatArray

Event = dict[str, Any]


class Worker:
    """A service with its parts at hand."""

    def __init__(self, service: Service, engine: ScriptedEngine, key: str) -> None:
        self.service, self.engine, self.store, self.key = service, engine, service.store, key

    def job(self, text: str = "abc", **fields: object) -> Event:
        return {"tenant_key": self.key, "text": text, "language": "en", **fields}

    async def events(self, body: Event, job_id: str = "job") -> list[Event]:
        return [event async for event in self.service.answer(body, job_id=job_id)]

    async def usage(self) -> Sequence[UsageRow]:
        (tenant,) = await self.store.list_tenants()
        return await self.store.usage(tenant.id)

    async def settled(self) -> None:
        """Until every run has settled, its listeners gone or not."""
        await asyncio.gather(*(run.owner for run in self.service._runs.values()))


async def no_network(url: str) -> bytes:
    raise ReferenceUnreachable("no network in this test")


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    return await open_local(tmp_path)


@pytest.fixture
async def worker(store: Store, tmp_path: Path) -> AsyncIterator[Worker]:
    engine = ScriptedEngine()
    service = Service(engine, store, settings=Settings(data_dir=tmp_path), fetch=no_network)
    yield Worker(service, engine, await store.local_key())
    await service.close()


def audio_of(events: list[Event]) -> bytes:
    return b"".join(base64.b64decode(e["audio_base64"]) for e in events if "audio_base64" in e)


def bytes_of(event: Event) -> bytes:
    if "audio_base64" in event:
        return base64.b64decode(event["audio_base64"])
    return Path(event["audio_url"].removeprefix("file://")).read_bytes()


def samples_of(wav: bytes) -> FloatArray:
    samples, _ = soundfile.read(io.BytesIO(wav), dtype="float32")
    return np.asarray(samples)


def error_of(events: list[Event]) -> Event:
    error: Event = json.loads(events[-1]["error"])
    return error


async def first_audio(stream: Any) -> Event:
    while (event := await anext(stream))["event"] != "audio":
        pass
    assert isinstance(event, dict)
    return event


async def test_a_whole_job_is_one_event_with_its_audio(worker: Worker) -> None:
    (result,) = await worker.events(worker.job("abc", metadata={"a": 1}))
    assert result["status"] == "success"
    assert result["duration"] == pytest.approx(0.3)
    assert len(samples_of(audio_of([result]))) == 7200
    (row,) = await worker.usage()
    assert (row.status, row.input_chars) == ("success", 3)
    assert row.audio_seconds == pytest.approx(0.3)
    assert json.loads(row.metadata) == {"a": 1}


async def test_streamed_and_whole_audio_are_identical(worker: Worker) -> None:
    text = "abcdefghij " * 20
    whole = await worker.events(worker.job(text, output="inline", cache="bypass"), "whole")
    stream = await worker.events(worker.job(text, streaming=True, cache="bypass"), "stream")
    assert len(stream) > 3
    assert [e["seq"] for e in stream[:-1]] == list(range(stream[-1]["chunks"]))
    assert (stream[-1]["event"], "audio_base64" in stream[-1]) == ("done", False)
    np.testing.assert_array_equal(samples_of(audio_of(stream)), samples_of(audio_of(whole)))


async def test_the_first_chunk_leaves_while_the_engine_still_works(worker: Worker) -> None:
    async with aclosing(worker.service.answer(worker.job("abcdef#", streaming=True), job_id="1")) as stream:
        assert (await first_audio(stream))["seq"] == 0
        assert worker.engine.active == 1
        worker.engine.gate.set()
        assert [e async for e in stream][-1]["event"] == "done"


async def test_the_same_job_twice_at_once_is_spoken_once(worker: Worker) -> None:
    job = worker.job("abcdef", streaming=True)
    first, second = await asyncio.gather(worker.events(job), worker.events(dict(job)))
    assert first == second
    assert worker.engine.started == ["abcdef"]
    assert len(await worker.usage()) == 1


async def test_a_finished_request_is_told_again_and_costs_nothing(worker: Worker) -> None:
    for fields in ({"streaming": True}, {"output": "url"}, {"output": "inline"}):
        worker.engine.started.clear()
        job = worker.job("abcdef", idempotency_key=f"k{fields}".replace(" ", ""), cache="bypass", **fields)
        first = await worker.events(job, "1")
        await worker.settled()
        again = await worker.events(job, "2")
        assert again[-1]["request_id"] == first[-1]["request_id"]
        assert again[-1].get("audio_url") == first[-1].get("audio_url")
        assert again[-1].get("chunks", 0) == len(again) - 1
        if audio_of(first):
            np.testing.assert_array_equal(samples_of(audio_of(again)), samples_of(audio_of(first)))
        assert worker.engine.started == ["abcdef"]
    assert len(await worker.usage()) == 3


async def test_a_large_stream_told_again_leaves_what_was_told_first(worker: Worker) -> None:
    job = worker.job("abcdefghi " * 240, streaming=True, sample_rate=48000, idempotency_key="k")
    first = await worker.events(job, "1")
    await worker.settled()
    again = await worker.events(job, "2")
    heard = [b"".join(map(bytes_of, events[:-1])) for events in (first, again)]
    assert samples_of(heard[0]).shape == samples_of(heard[1]).shape
    np.testing.assert_array_equal(samples_of(heard[0]), samples_of(heard[1]))
    assert again[-1]["request_id"] == first[-1]["request_id"]


async def test_a_finished_request_whose_audio_is_gone_says_so(worker: Worker) -> None:
    job = worker.job("abc", output="url", idempotency_key="k")
    (result,) = await worker.events(job, "1")
    await worker.settled()
    Path(result["audio_url"].removeprefix("file://")).unlink()
    assert error_of(await worker.events(job, "2"))["code"] == "result_expired"


async def test_letters_no_language_is_written_with_are_warned_of_or_refused(worker: Worker) -> None:
    (result,) = await worker.events(worker.job("abc שלום", language="en"), "1")
    assert [warning["code"] for warning in result["warnings"]] == ["letters_not_spoken"]
    assert "ש" in result["warnings"][0]["message"]
    (numbered,) = await worker.events(worker.job("You owe ١٢٣ or ① or ½.", language="en"), "numbers")
    assert "½ ١ ٢ ٣ ①" in numbered["warnings"][0]["message"]
    for n, text in enumerate(("שלום", "สวัสดี", "𝕳𝖊𝖑𝖑𝖔", "①②③", "๑๒๓")):
        assert error_of(await worker.events(worker.job(text), f"refused {n}"))["code"] == "text_unspeakable"
    for n, text in enumerate(("ª 5µ", "東京タワー々", "Ｆ", "한국", "हिंदी", "٣ عربي")):
        language = {"٣ عربي": "ar"}.get(text, "en")
        assert (await worker.events(worker.job(text, language=language), f"fine {n}"))[-1]["warnings"] == []


async def test_a_refused_voice_leaves_no_clip_behind(worker: Worker, tmp_path: Path) -> None:
    clip = base64.b64encode(Path("samples/nova.flac").read_bytes()).decode()
    create = {"action": "voices.create", "tenant_key": worker.key, "name": "A", "consent": "synthetic"}
    events = await worker.events(create | {"reference_audio_base64": clip, "language": "sv"})
    assert error_of(events)["code"] == "language_unsupported"
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "voices" in path.parts] == []


async def test_another_body_under_the_same_key_is_a_conflict(worker: Worker) -> None:
    await worker.events(worker.job("abc", idempotency_key="k"))
    events = await worker.events(worker.job("abd", idempotency_key="k"))
    assert error_of(events)["code"] == "idempotency_conflict"


async def test_another_body_while_the_first_runs_is_a_conflict(worker: Worker) -> None:
    async with aclosing(worker.service.answer(worker.job("abcd#", streaming=True), job_id="1")) as stream:
        await first_audio(stream)
        assert error_of(await worker.events(worker.job("other"), "1"))["code"] == "idempotency_conflict"


async def test_a_cancelled_stream_frees_the_engine_and_is_charged_what_was_spoken(worker: Worker) -> None:
    async with aclosing(worker.service.answer(worker.job("abcde#fgh", streaming=True), job_id="1")) as stream:
        await first_audio(stream)
    await worker.settled()
    (row,) = await worker.usage()
    assert (row.status, row.error) == ("cancelled", "cancelled")
    assert 0.1 <= row.audio_seconds <= 0.5
    assert worker.engine.active == 0


async def test_one_of_two_listeners_may_leave(worker: Worker) -> None:
    job = worker.job("abcde#fgh", streaming=True)
    staying = asyncio.create_task(worker.events(job))
    async with aclosing(worker.service.answer(dict(job), job_id="job")) as leaving:
        await first_audio(leaving)
    worker.engine.gate.set()
    assert (await staying)[-1]["status"] == "success"
    assert [row.status for row in await worker.usage()] == ["success"]


async def test_a_cancelled_job_is_spoken_anew_when_it_is_delivered_again(worker: Worker) -> None:
    job = worker.job("abcde#", streaming=True)
    async with aclosing(worker.service.answer(job, job_id="1")) as stream:
        await first_audio(stream)
    await worker.settled()
    worker.engine.gate.set()
    assert (await worker.events(job, "1"))[-1]["status"] == "success"
    assert [(row.status, row.fence) for row in await worker.usage()] == [("cancelled", 1), ("success", 2)]


async def test_a_delivery_while_the_cancelled_one_settles_is_answered_too(worker: Worker) -> None:
    job = worker.job("abcde#", streaming=True)
    async with aclosing(worker.service.answer(job, job_id="1")) as stream:
        await first_audio(stream)
    worker.engine.gate.set()
    assert (await worker.events(job, "1"))[-1]["status"] == "success"


async def test_an_engine_error_tells_nobody_what_broke(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    events = await worker.events(worker.job("secret!words"))
    assert (error_of(events)["code"], len(events)) == ("internal", 1)
    assert "broke" not in events[-1]["error"]
    assert "RuntimeError at scripted_engine.py" in caplog.text
    assert not any(word in caplog.text for word in ("secret", "broke", worker.key, str(Path.cwd())))
    (row,) = await worker.usage()
    assert (row.status, row.error) == ("failed", "internal")


async def test_a_failure_after_audio_was_sent_is_told_in_the_stream_first(worker: Worker) -> None:
    *sent, in_stream, last = await worker.events(worker.job("abcdef!", streaming=True))
    assert in_stream["event"] == "error"
    assert (in_stream["code"], in_stream["chunks"]) == ("internal", len(sent))
    assert json.loads(last["error"])["code"] == "internal"


async def at_rest(engine: ScriptedEngine) -> int:
    """The chunks it has made, once it makes no more for a while."""
    made = -1
    while made != engine.chunks_made:
        made = engine.chunks_made
        await asyncio.sleep(0.5)
    return made


async def test_a_listener_that_stops_reading_holds_the_engine_back(worker: Worker) -> None:
    text = "abcdefghi " * 300
    async with aclosing(worker.service.answer(worker.job(text, streaming=True), job_id="1")) as stream:
        await first_audio(stream)
        assert await at_rest(worker.engine) * 100 / RATE_HZ < 100


async def test_a_long_stream_goes_on_as_addresses_within_8_mb(worker: Worker) -> None:
    text = "abcdefghi " * 240
    events = await worker.events(worker.job(text, streaming=True, sample_rate=48000))
    assert sum(map(wire_bytes, events)) <= 8_000_000
    assert max(map(wire_bytes, events)) <= 512_000
    by_url = [e for e in events if e.get("event") == "audio" and "audio_url" in e]
    assert by_url
    assert [e["seq"] for e in events[:-1]] == list(range(events[-1]["chunks"]))
    rest = b"".join([Path(e["audio_url"].removeprefix("file://")).read_bytes() for e in by_url])
    duration_s = len(samples_of(audio_of(events) + rest)) / 48000
    assert duration_s == pytest.approx(events[-1]["duration"], abs=0.001)


async def test_auto_sends_an_address_for_what_does_not_fit_one_event(worker: Worker) -> None:
    (result,) = await worker.events(worker.job("abcdefghi " * 20))
    assert "audio_base64" not in result
    wav = Path(result["audio_url"].removeprefix("file://")).read_bytes()
    assert len(samples_of(wav)) / 24000 == pytest.approx(result["duration"], abs=0.001)


async def test_explicit_inline_is_split_into_numbered_parts(worker: Worker) -> None:
    *parts, done = await worker.events(worker.job("abcdefghi " * 20, output="inline"))
    assert [p["seq"] for p in parts] == list(range(done["chunks"]))
    assert len(parts) > 1
    assert len(samples_of(audio_of(parts))) / 24000 == pytest.approx(done["duration"], abs=0.001)


async def test_explicit_inline_beyond_the_limit_is_refused(worker: Worker) -> None:
    events = await worker.events(worker.job("abcdefghi " * 200, output="inline", sample_rate=48000))
    assert (error_of(events)["code"], len(events)) == ("result_too_large", 1)


async def test_alignments_and_text_too_large_for_an_event_still_leave_a_result(worker: Worker) -> None:
    text = "\U00020000" * 4000  # twelve bytes each as JSON escapes; a word each for the scripted engine
    (result,) = await worker.events(worker.job(text, include_alignments=True, format="ulaw", output="url"))
    assert wire_bytes(result) <= 512_000
    assert result["alignments"] is None
    kept = json.loads(Path(result["alignments_url"].removeprefix("file://")).read_text())
    assert "".join(item["text"] for item in kept if item["type"] == "word") == text


async def test_alignments_point_into_the_callers_text(worker: Worker) -> None:
    text = "  ab\n\n  cd  ef. "
    (result,) = await worker.events(worker.job(text, include_alignments=True))
    items = result["alignments"]
    assert all(item["text"] == text[item["start"] : item["end"]] for item in items)
    words = [item for item in items if item["type"] == "word" and item["text"].strip()]
    assert "".join(item["text"] for item in words) == "abcdef."
    assert [w["start_s"] for w in words] == sorted(w["start_s"] for w in words)


async def test_a_voice_is_saved_told_used_and_forgotten(worker: Worker) -> None:
    clip = base64.b64encode(Path("samples/nova.flac").read_bytes()).decode()
    create = {"action": "voices.create", "tenant_key": worker.key, "name": "Ada", "reference_audio_base64": clip}
    assert error_of(await worker.events(create, "1"))["code"] == "consent_required"
    (made,) = await worker.events(create | {"consent": "synthetic"}, "2")
    assert made["report"][0]["duration_s"] > 3
    (spoken,) = await worker.events(worker.job(voice_id=made["id"]), "3")
    assert spoken["voice_id"] == made["id"]
    (listed,) = await worker.events({"action": "voices.list", "tenant_key": worker.key}, "4")
    assert [v["id"] for v in listed["voices"]] == [made["id"], "nova"]
    (deleted,) = await worker.events({"action": "voices.delete", "tenant_key": worker.key, "voice_id": made["id"]}, "5")
    assert deleted["deleted"] == made["id"]
    assert error_of(await worker.events(worker.job(voice_id=made["id"]), "6"))["code"] == "voice_not_found"


async def test_a_tenant_does_not_see_anothers_voice(worker: Worker) -> None:
    clip = base64.b64encode(Path("samples/nova.flac").read_bytes()).decode()
    create = {"action": "voices.create", "tenant_key": worker.key, "name": "A", "consent": "synthetic"}
    (made,) = await worker.events(create | {"reference_audio_base64": clip}, "1")
    other = await worker.store.create_tenant("other", scopes=("synthesize", "voices"))
    for body in (worker.job(voice_id=made["id"]), {"action": "voices.get", "voice_id": made["id"]}):
        body["tenant_key"] = other.secret
        assert error_of(await worker.events(body, str(body)))["code"] == "voice_not_found"


async def test_one_tenants_job_id_is_not_anothers(worker: Worker) -> None:
    other = await worker.store.create_tenant("other", scopes=("synthesize",))
    mine = await worker.events(worker.job(idempotency_key="k"))
    theirs = await worker.events(worker.job(idempotency_key="k") | {"tenant_key": other.secret})
    assert mine[-1]["request_id"] != theirs[-1]["request_id"]


async def test_every_kind_of_request_has_somebody_who_answers_it(worker: Worker) -> None:
    assert {Health, Synthesize, *worker.service.actions} == set(ACTIONS.values())


async def test_health_needs_no_key(worker: Worker) -> None:
    (result,) = await worker.events({"action": "health"})
    assert (result["ready"], result["engine"]) == (True, "scripted")
