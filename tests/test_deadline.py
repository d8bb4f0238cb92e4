"""A job that takes too long: an error that says how to go on, nothing left in the engine, and what was kept is used."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from storage.local import open_local
from tests.scripted_engine import RATE_HZ, ScriptedEngine
from tests.test_service import Event, Worker, at_rest, audio_of, no_network, samples_of
from tts_core.service import Service
from tts_core.settings import Settings


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    engine, store = ScriptedEngine(), await open_local(tmp_path)
    service = Service(engine, store, settings=Settings(data_dir=tmp_path), fetch=no_network)
    yield Worker(service, engine, await store.local_key())
    await service.close()


async def too_late(worker: Worker, body: Event, job_id: str) -> list[Event]:
    """The events of a job whose engine hangs, and whose time is over once all before that is spoken and kept."""
    asking = asyncio.create_task(worker.events(body, job_id))
    while not worker.engine.is_waiting:  # noqa: ASYNC110  the engine tells nobody
        await asyncio.sleep(0.01)
    await at_rest(worker.engine)
    with time_is_over():
        return await asking


@contextmanager
def time_is_over() -> Iterator[None]:
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + Settings().job_deadline_s  # type: ignore[method-assign]
    yield
    loop.time = time  # type: ignore[method-assign]


def error_of(events: list[Event]) -> Event:
    error: Event = json.loads(events[-1]["error"])
    return error


async def test_what_takes_too_long_is_ended_everywhere_and_charged_as_far_as_it_was_spoken(worker: Worker) -> None:
    *sent, told, last = await too_late(worker, worker.job("abcdef#", streaming=True), "job")
    error = error_of([last])
    assert (error["code"], error["retryable"], error["idempotency_key"]) == ("deadline_exceeded", True, "job:job")
    assert (told["event"], told["code"], told["chunks"]) == ("error", "deadline_exceeded", len(sent))
    await worker.settled()
    assert worker.engine.active == 0
    (row,) = await worker.usage()
    assert (row.status, row.error, row.audio_seconds) == ("failed", "deadline_exceeded", 600 / RATE_HZ)


async def test_the_chunk_that_waited_for_a_slow_reader_is_counted_too(worker: Worker) -> None:
    body = worker.job("abcdefghi " * 30, streaming=True)
    async with aclosing(worker.service.answer(body, job_id="job")) as stream:
        first = await anext(stream)
        await at_rest(worker.engine)
        with time_is_over():
            await worker.settled()
        *sent, told, last = [first, *[event async for event in stream]]
    assert error_of([last])["code"] == "deadline_exceeded"
    assert [event["seq"] for event in sent] == list(range(told["chunks"]))


async def test_its_own_key_is_told_where_it_has_one(worker: Worker) -> None:
    events = await too_late(worker, worker.job("ab#", idempotency_key="chapter-1"), "job")
    assert error_of(events)["idempotency_key"] == "chapter-1"


async def test_sent_again_under_the_key_that_was_told_it_goes_on_behind_what_is_kept(worker: Worker) -> None:
    text = " ".join(f"{'abcdefghi ' * 40}{letter}." for letter in "jklm") + " now#"
    body = worker.job(text, keep=True, output="inline", sample_rate=8_000)
    key = error_of(await too_late(worker, body, "first"))["idempotency_key"]
    before = list(worker.engine.started)
    worker.engine.gate.set()
    events = await worker.events(body | {"idempotency_key": key}, "second")
    result = events[-1]
    assert result["status"] == "success", result
    assert len(samples_of(audio_of(events))) == pytest.approx(result["duration"] * 8_000, abs=8)
    again = worker.engine.started[len(before) :]
    assert 0 < len(again) < len(before)
    first, second = await worker.usage()
    assert (first.request_id, first.status) == (second.request_id, "failed")
    assert second.status == "success"
    assert second.audio_seconds < result["duration"]  # what the first attempt was charged for is not charged again


async def test_a_job_named_by_its_id_is_this_tenants_alone(worker: Worker) -> None:
    other = await worker.store.create_tenant("other", scopes=["synthesize"])
    (first,) = await worker.events(worker.job("abc"), "first")
    body = worker.job("abc", idempotency_key="job:first")
    (again,) = await worker.events(body, "second")
    (foreign,) = await worker.events(body | {"tenant_key": other.secret}, "third")
    (unrelated,) = await worker.events(worker.job("abc", idempotency_key="first"), "fourth")
    assert again == first
    assert len({event["request_id"] for event in (first, foreign, unrelated)}) == 3
