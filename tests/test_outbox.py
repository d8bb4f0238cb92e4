"""The outbox: settlements outlast a store that does not answer, each exactly once, whatever else goes wrong."""

import asyncio
import json
import logging
import stat
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from storage import open_store, outbox
from storage.local.files import write_whole
from storage.outbox import Settlement, with_outbox
from storage.supabase import client, open_supabase
from tests.stores import Clock, Place, Project
from tests.supabase_server import Kind
from tts_core.errors import InvalidInput, StoreUnavailable
from tts_core.settings import Settings
from tts_core.store import NewKey, Outcome, Reservation, Reserved, Store, UsageQuery

SPOKEN = Outcome(
    "success", latency_ms=3, audio_seconds=1.5, audio_bytes=9, voice_id="nova", result='{"text": "said aloud"}'
)
EVER = UsageQuery("2000-01-01", "2999-12-31")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "outbox"


@pytest.fixture
async def body(place: Place, clock: Clock) -> "Flaky":
    return Flaky(await place.open(clock))


@pytest.fixture
async def store(body: "Flaky", folder: Path) -> AsyncIterator[Store]:
    store = await with_outbox(body, folder)  # type: ignore[arg-type]  # a Store by __getattr__
    yield store
    body.is_away = False
    await store.close()


@pytest.fixture
async def key(store: Store) -> NewKey:
    return await store.create_tenant("acme", scopes=["synthesize"])


class Flaky:
    """A store that can be sent away, before or after it has done what it was asked."""

    def __init__(self, body: Store) -> None:
        self._body = body
        self.is_away = False
        self.is_carried_out = False
        self.settled: list[str] = []
        self.refused: set[str] = set()

    def __getattr__(self, name: str) -> object:
        return getattr(self._body, name)

    async def settle(self, reserved: Reserved, outcome: Outcome) -> bool:
        if reserved.request_id in self.refused:
            raise InvalidInput("no such text can be stored")
        settled = not self.is_away or self.is_carried_out
        if settled:
            settled = await self._body.settle(reserved, outcome)
        if self.is_away:
            raise StoreUnavailable("away")
        self.settled.append(reserved.request_id)
        return settled


def asked(key: NewKey, identity: str = "job-1") -> Reservation:
    return Reservation(
        key.secret, "synthesize", identity=identity, fingerprint="f", action="synthesize", input_chars=7, voice_id="leo"
    )


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


async def emptied(store: Store) -> None:
    async with asyncio.timeout(60):
        while await store.count_unsettled():  # noqa: ASYNC110  a store tells nobody of it
            await asyncio.sleep(0.005)


async def test_a_slow_disk_leaves_no_file_behind_of_what_was_sent_meanwhile(
    store: Store, body: Flaky, key: NewKey, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()

    def write_late(path: Path, data: BinaryIO) -> None:
        disk.wait(10)
        write_whole(path, data)

    monkeypatch.setattr(outbox, "write_whole", write_late)
    attempts = [await store.reserve(asked(key, str(number))) for number in range(2)]
    body.is_away = True
    settling = [asyncio.create_task(store.settle(reserved, SPOKEN)) for reserved in attempts]
    while await store.count_unsettled() < 2:  # noqa: ASYNC110  a store tells nobody of it
        await asyncio.sleep(0)
    settling[1].cancel()
    body.is_away = False
    sending = asyncio.create_task(store.settle(await store.reserve(asked(key, "wakes the sender")), SPOKEN))
    await sending
    await asyncio.sleep(0.05)
    disk.set()
    await asyncio.wait(settling)
    await emptied(store)
    assert files(folder) == []


@pytest.mark.parametrize("is_carried_out", [False, True])
async def test_a_settlement_waits_until_the_store_is_back(
    store: Store, body: Flaky, key: NewKey, folder: Path, is_carried_out: bool
) -> None:
    reserved = await store.reserve(asked(key))
    body.is_away, body.is_carried_out = True, is_carried_out
    assert await store.settle(reserved, SPOKEN)
    assert await store.settle(reserved, SPOKEN)
    (file,) = files(folder)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert await store.count_unsettled() == 1
    body.is_away = False
    await emptied(store)
    (row,) = await store.usage(key.tenant.id)
    assert (row.status, row.audio_seconds, row.voice_id) == ("success", 1.5, "nova")
    assert (await store.summarize_usage(key.tenant.id, EVER)).totals.requests == 1
    assert (await store.reserve(asked(key))).outcome == SPOKEN
    assert files(folder) == []


async def test_the_oldest_go_first_and_each_once(store: Store, body: Flaky, key: NewKey, folder: Path) -> None:
    attempts = [await store.reserve(asked(key, str(number))) for number in range(30)]
    body.is_away = True
    for reserved in attempts:
        await store.settle(reserved, SPOKEN)
    assert len(files(folder)) == 30
    body.is_away = False
    await emptied(store)
    at_once = outbox.AT_ONCE
    batches = [body.settled[start : start + at_once] for start in range(0, 30, at_once)]
    assert [set(batch) for batch in batches] == [
        {reserved.request_id for reserved in attempts[start : start + at_once]} for start in range(0, 30, at_once)
    ]
    assert len(await store.usage(key.tenant.id)) == 30


async def test_a_later_worker_sends_what_an_earlier_one_left(
    place: Place, clock: Clock, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flaky = Flaky(await place.open(clock))
    store = await with_outbox(flaky, folder)  # type: ignore[arg-type]
    key = await store.create_tenant("acme", scopes=["synthesize"])
    reserved = await store.reserve(asked(key))
    flaky.is_away = True
    await store.settle(reserved, SPOKEN)
    await store.close()
    (line,) = [json.loads(found.message.partition("yet: ")[2]) for found in caplog.records if "yet: " in found.message]
    assert line.items() >= {
        "tenant_id": key.tenant.id, "request_id": reserved.request_id, "fence": 1, "action": "synthesize",
        "input_chars": 7, "streaming": False, "voice_id": "nova", "user_id": None, "status": "success", "error": None,
        "audio_seconds": 1.5, "audio_bytes": 9, "latency_ms": 3, "cached": False, "metadata": "{}",
    }.items()  # fmt: skip
    assert "said aloud" not in caplog.text
    assert key.secret not in caplog.text
    assert len(files(folder)) == 1

    clock.now_s += 60
    later = await with_outbox(await place.open(clock), folder)
    assert await later.count_unsettled() == 1
    await later.reserve(asked(key, "job-2"))  # which gives the first one up
    await emptied(later)
    (row,) = await later.usage(key.tenant.id)
    assert (row.request_id, row.status, row.audio_seconds) == (reserved.request_id, "success", 1.5)
    assert files(folder) == []
    await later.close()


async def test_what_waits_is_sent_at_the_end(place: Place, clock: Clock, folder: Path) -> None:
    flaky = Flaky(await place.open(clock))
    store = await with_outbox(flaky, folder)  # type: ignore[arg-type]
    reserved = await store.reserve(asked(await store.create_tenant("acme", scopes=["synthesize"])))
    flaky.is_away = True
    await store.settle(reserved, SPOKEN)
    flaky.is_away = False
    await store.close()
    assert files(folder) == []


@pytest.mark.parametrize("fault", ["the folder is a file", "the disk is full"])
async def test_what_cannot_be_written_is_logged_at_once_and_still_sent(
    store: Store, body: Flaky, key: NewKey, folder: Path, fault: str,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if fault == "the disk is full":

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(outbox, "write_whole", full)
    else:
        folder.parent.mkdir()
        folder.write_text("in the way")
    reserved = await store.reserve(asked(key))
    body.is_away = True
    assert await store.settle(reserved, SPOKEN)
    (told,) = [found.message for found in caplog.records if "not written" in found.message]
    assert json.loads(told.partition("): ")[2])["request_id"] == reserved.request_id
    assert "said aloud" not in told
    body.is_away = False
    await emptied(store)
    assert len(await store.usage(key.tenant.id)) == 1


async def test_what_the_store_refuses_does_not_stand_in_the_way(
    store: Store, body: Flaky, key: NewKey, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = [await store.reserve(asked(key, identity)) for identity in "ab"]
    body.is_away = True
    for reserved in (bad, good):
        await store.settle(reserved, SPOKEN)
    body.refused = {bad.request_id}
    body.is_away = False
    await emptied(store)
    assert [row.request_id for row in await store.usage(key.tenant.id)] == [good.request_id]
    assert any("invalid_input" in found.message and bad.request_id in found.message for found in caplog.records)


async def test_an_attempt_that_was_followed_settles_nothing(
    store: Store, body: Flaky, key: NewKey, clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    first = await store.reserve(asked(key))
    body.is_away = True
    await store.settle(first, SPOKEN)
    clock.now_s += 60
    second = await store.reserve(asked(key))
    body.is_away = False
    await emptied(store)
    assert await store.settle(second, replace(SPOKEN, audio_seconds=2.0))
    rows = await store.usage(key.tenant.id)
    assert [(row.fence, row.status) for row in rows] == [(1, "abandoned"), (2, "success")]
    assert "ended otherwise" in caplog.text


async def test_files_that_are_none_stay_and_are_told(
    place: Place, clock: Clock, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    for name, data in {"1.json": b"", "2.json": b"[]", "3.json": b'{"fence": 1}', "4.json": b"\xff"}.items():
        (folder / name).write_bytes(data)
    (folder / "0.json").mkdir()
    store = await with_outbox(await place.open(clock), folder)
    assert await store.count_unsettled() == 0
    assert [found.levelno for found in caplog.records if "no settlement" in found.message] == [logging.ERROR] * 5
    await store.close()
    assert len(files(folder)) == 5


async def test_a_settlement_survives_its_caller_being_cancelled(store: Store, body: Flaky, key: NewKey) -> None:
    attempts = [await store.reserve(asked(key, str(number))) for number in range(10)]
    body.is_away = True
    tasks = [asyncio.create_task(store.settle(reserved, SPOKEN)) for reserved in attempts]
    for steps, task in enumerate(tasks):
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait(tasks)
    for reserved in attempts:  # as a run does that was cancelled while it settled
        await store.settle(reserved, SPOKEN)
    body.is_away = False
    await emptied(store)
    assert [row.status for row in await store.usage(key.tenant.id)] == ["success"] * 10


async def test_every_store_that_is_opened_has_one(tmp_path: Path) -> None:
    left = Settlement("acme", "request", 1, outcome=SPOKEN, asked=None, kept_at_ns=1)
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / left.name).write_bytes(left.to_json())
    store = await open_store(Settings(store="local", data_dir=tmp_path))
    assert await store.count_unsettled() == 1
    await store.close()
    assert files(tmp_path / "outbox") == []


FAULTS: Sequence[tuple[Kind, bool]] = [
    (Kind.RESET, False), (Kind.RESET, True), (Kind.HTML, False), (Kind.HTML, True), (Kind.HALF, True),
    (Kind.UNAVAILABLE, False), (Kind.UNAVAILABLE, True), (Kind.STALL, False), (Kind.STALL, True),
]  # fmt: skip


class TestFaults:
    @pytest.mark.parametrize(("kind", "carried_out"), FAULTS)
    @pytest.mark.parametrize("count", [1, 10])
    async def test_one_row_for_each_attempt(
        self, project: Project, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, carried_out: bool, count: int
    ) -> None:
        """`count` faults in a row at five settlements, which come at once: nothing lost, nothing doubled."""
        store = await with_outbox(await open_supabase(project.server.url, project.server.service_key), folder)
        key = await store.create_tenant("acme", scopes=["synthesize"])
        await store.update_tenant(key.tenant.id, {"quota_minutes": 1.0})
        attempts = [await store.reserve(asked(key, str(number))) for number in range(5)]
        project.server.faults.next(count, kind, carried_out=carried_out, prefix="/rest/v1/rpc/settle_request")
        with monkeypatch.context() as impatient:
            if kind is Kind.STALL:
                impatient.setattr(client, "DATABASE_DEADLINE_S", 0.5)
            assert await asyncio.gather(*(store.settle(reserved, SPOKEN) for reserved in attempts)) == [True] * 5
            await emptied(store)
        rows = await store.usage(key.tenant.id)
        assert sorted((row.request_id, row.fence, row.status, row.audio_seconds) for row in rows) == sorted(
            (reserved.request_id, 1, "success", 1.5) for reserved in attempts
        )
        totals = (await store.summarize_usage(key.tenant.id, EVER)).totals
        assert (totals.requests, totals.audio_seconds) == (5, 7.5)
        assert (await store.standing(key.tenant.id)).used_s == 7.5
        assert files(folder) == []
        await store.close()
        assert project.server.faults.done[kind] >= 1
