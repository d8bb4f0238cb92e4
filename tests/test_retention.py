"""Retention through the service: who sets it, who purges, and what is told of what is gone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stores import Clock
from tests.test_kept import Worker, error_of
from tts_core.service import retention
from tts_core.service.retention import BATCH, Janitor
from tts_core.store import Purged, Retention, Store

DAY_S = 86_400.0


@pytest.fixture
async def worker(store: Store, tmp_path: Path) -> AsyncIterator[Worker]:
    worker = await Worker(store, tmp_path / "worker").sign_up()
    yield worker
    await worker.service.close()


async def test_a_tenant_sets_its_own(worker: Worker, store: Store) -> None:
    days = {"audio_days": 30, "text_days": None, "message_days": 1}
    for answer in (await worker.ask("retention.set", **days), await worker.ask("retention.get")):
        assert {name: answer[name] for name in days} == days
    other = await store.create_tenant("other", scopes=["admin"])
    assert await store.get_retention(other.tenant.id) == Retention()


@pytest.mark.parametrize("days", [0, -1, 1.5, "1", True, 10**6])
async def test_days_that_are_none_are_refused(worker: Worker, days: object) -> None:
    answer = await worker.ask("retention.set", audio_days=days, text_days=None, message_days=None)
    assert error_of(answer)["code"] == "invalid_input"


async def test_it_takes_a_key_that_may(worker: Worker, store: Store) -> None:
    worker.key = (await store.create_tenant("other", scopes=["synthesize", "usage"])).secret
    for action, days in (("retention.get", {}), ("retention.set", dict.fromkeys(Retention.__slots__))):
        assert error_of(await worker.ask(action, **days))["code"] == "forbidden"


async def test_what_is_gone_is_said_to_be(worker: Worker, store: Store, clock: Clock) -> None:
    await worker.ask("retention.set", audio_days=1, text_days=1, message_days=1)
    result = await worker.speak("abc", "1", keep=True, idempotency_key="k", cache="bypass", include_alignments=True)
    clock.now_s += 2 * DAY_S
    assert (await store.purge(limit=BATCH)).is_done
    assert (
        error_of(
            await worker.speak("abc", "2", keep=True, idempotency_key="k", cache="bypass", include_alignments=True)
        )["code"]
        == "result_expired"
    )
    job = await worker.job(result["request_id"])
    assert (job["status"], job["text"], job["audio_url"], job["alignments_url"]) == ("completed", None, None, None)


async def test_an_action_whose_answer_is_gone_is_not_carried_out_again(
    worker: Worker, store: Store, clock: Clock
) -> None:
    body = {"action": "retention.set", "audio_days": None, "text_days": 1, "message_days": None}
    first = (await worker.events(body, "job"))[-1]
    assert first["text_days"] == 1
    clock.now_s += 2 * DAY_S
    await store.purge(limit=BATCH)
    assert error_of((await worker.events(body, "job"))[-1])["code"] == "result_expired"


class TestJanitor:
    async def test_an_idle_worker_purges_all_there_is_in_batches(
        self, worker: Worker, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "BATCH", 2)
        for number in range(3):
            await worker.speak("abc", f"{number}", keep=True)
        await worker.ask("retention.set", audio_days=1, text_days=None, message_days=None)
        clock.now_s += 2 * DAY_S
        receipts = await Janitor(store, is_idle=lambda: True).take_turn()
        assert [receipt.is_done for receipt in receipts] == [False, False, True]
        assert sum(receipt.audio for receipt in receipts) == 3

    async def test_a_busy_one_does_not(self, store: Store) -> None:
        assert await Janitor(store, is_idle=lambda: False).take_turn() == []
        assert await Janitor(store, is_idle=lambda: True).take_turn() == [Purged()]

    async def test_one_of_many_does(self, store: Store, other_worker: Store, clock: Clock) -> None:
        janitors = [Janitor(body, is_idle=lambda: True) for body in (store, other_worker)]
        assert [await janitor.take_turn() for janitor in janitors] == [[Purged()], []]
        clock.now_s += 300
        assert [await janitor.take_turn() for janitor in reversed(janitors)] == [[Purged()], []]

    async def test_a_service_has_one_that_ends_with_it(self, worker: Worker) -> None:
        await worker.speak("abc")
        await worker.settled()
        janitor = worker.service._janitor
        assert janitor._work is not None
        assert not janitor._work.done()
        await janitor.close()
        assert janitor._work.done()
