"""The same job at two workers of one store: one synthesis, one usage row, and a result from both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from storage.local import open_local
from tests.scripted_engine import ScriptedEngine
from tests.test_service import Event, Worker, error_of, no_network
from tts_core.service import Service, run
from tts_core.settings import Settings
from tts_core.store import Reservation, Reserved, Store


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RETRY_S", 0.05)


async def a_worker(folder: Path, **settings: Any) -> Worker:
    engine, store = ScriptedEngine(), await open_local(folder)
    service = Service(engine, store, settings=Settings(data_dir=folder, **settings), fetch=no_network)
    return Worker(service, engine, await store.local_key())


@pytest.fixture
async def first(tmp_path: Path) -> AsyncIterator[Worker]:
    worker = await a_worker(tmp_path)
    yield worker
    await worker.service.close()


@pytest.fixture
async def second(tmp_path: Path) -> AsyncIterator[Worker]:
    worker = await a_worker(tmp_path)
    yield worker
    await worker.service.close()


async def held(worker: Worker, job: Event) -> "asyncio.Task[list[Event]]":
    """A job whose engine hangs until the gate opens."""
    asking = asyncio.create_task(worker.events(job))
    while not worker.engine.is_waiting:  # noqa: ASYNC110  the engine tells nobody
        await asyncio.sleep(0.01)
    return asking


async def test_the_second_worker_tells_what_the_first_has_spoken(first: Worker, second: Worker) -> None:
    job = first.job("abc#", output="inline")
    at_first = await held(first, job)
    at_second = asyncio.create_task(second.events(job))
    await asyncio.sleep(0.2)
    assert not at_second.done()
    first.engine.gate.set()
    assert await at_second == await at_first
    assert second.engine.started == []
    assert len(await first.usage()) == 1


async def test_it_takes_over_what_a_cancelled_one_leaves(first: Worker, second: Worker) -> None:
    job = first.job("abc#")
    second.engine.gate.set()
    at_first = await held(first, job)
    at_second = asyncio.create_task(second.events(job))
    await asyncio.sleep(0.2)
    at_first.cancel()
    assert (await at_second)[-1]["status"] == "success"
    assert sorted(row.status for row in await first.usage()) == ["cancelled", "success"]


async def test_it_waits_no_longer_than_a_job_may_take(first: Worker, tmp_path: Path) -> None:
    hurried = await a_worker(tmp_path, job_deadline_s=1)
    job = first.job("abc#")
    at_first = await held(first, job)
    error = error_of(await hurried.events(job))
    assert (error["code"], error["retryable"]) == ("request_running", True)
    first.engine.gate.set()
    await at_first
    await hurried.service.close()


async def test_one_that_is_cancelled_while_it_waits_for_another_worker_ends_at_once(
    first: Worker, second: Worker
) -> None:
    """Also where the cancel comes while the store is asked."""
    slow = Slow(second.store)
    second.service.store = slow  # type: ignore[assignment]  # a Store by __getattr__
    job = first.job("abc#")
    at_first = await held(first, job)
    async with aclosing(second.service.answer(job, job_id="job")) as stream:
        reading = asyncio.ensure_future(anext(stream))
        await slow.asked.wait()
        reading.cancel()
        await asyncio.wait({reading})
    slow.gate.set()
    async with asyncio.timeout(10):
        await second.settled()
    first.engine.gate.set()
    assert (await at_first)[-1]["status"] == "success"
    assert len(await first.usage()) == 1


class Slow:
    """A store that reserves when it is let."""

    def __init__(self, body: Store) -> None:
        self._body = body
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._body, name)

    async def reserve(self, reservation: Reservation) -> Reserved:
        self.asked.set()
        await self.gate.wait()
        return await self._body.reserve(reservation)


async def test_a_job_cancelled_while_it_is_reserved_is_not_spoken(first: Worker) -> None:
    slow = Slow(first.store)
    first.service.store = slow  # type: ignore[assignment]  # a Store by __getattr__
    async with aclosing(first.service.answer(first.job("abc"), job_id="1")) as stream:
        reading = asyncio.ensure_future(anext(stream))
        await slow.asked.wait()
        reading.cancel()
        await asyncio.wait({reading})
    slow.gate.set()
    await first.settled()
    assert first.engine.started == []
    (row,) = await first.usage()
    assert (row.status, row.audio_seconds) == ("cancelled", 0)
