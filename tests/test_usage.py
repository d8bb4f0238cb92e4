"""`usage.summary` through the service: who may ask for what, and how it is told."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.local import open_local
from tests.scripted_engine import ScriptedEngine
from tests.test_service import Worker, error_of, no_network
from tts_core.errors import InvalidInput
from tts_core.jobs import parse
from tts_core.service import Service
from tts_core.service import usage as reports
from tts_core.settings import Settings

SUMMARY = {"action": "usage.summary"}


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    engine, store = ScriptedEngine(), await open_local(tmp_path)
    service = Service(engine, store, settings=Settings(data_dir=tmp_path), fetch=no_network)
    yield Worker(service, engine, await store.local_key())
    await service.close()


async def summary(worker: Worker, job_id: str = "s", /, **fields: object) -> dict[str, Any]:
    (result,) = await worker.events({"tenant_key": worker.key, **SUMMARY, **fields}, job_id)
    return result


async def test_a_day_of_everything(worker: Worker) -> None:
    today = datetime.now(UTC).date()
    await worker.events(worker.job("abc"), "1")
    await worker.events(worker.job("abc"), "2")
    await worker.events(worker.job("abc", voice_id="nobody"), "3")
    await worker.events({"action": "voices.list", "tenant_key": worker.key}, "4")
    told = await summary(worker)
    assert (told["from"], told["to"], told["by"]) == (str(today - timedelta(days=29)), str(today), ["day"])
    assert [group["day"] for group in told["groups"]] == [str(today)]
    totals = told["totals"]
    assert {name: totals[name] for name in ("requests", "successes", "failures", "cancelled", "abandoned")} == {
        "requests": 4, "successes": 3, "failures": 1, "cancelled": 0, "abandoned": 0,
    }  # fmt: skip
    assert (totals["cached"], totals["input_chars"]) == (1, 9)
    assert totals["audio_seconds"] == pytest.approx(0.6)
    assert told["groups"][0] == {"day": str(today)} | totals
    by = (await summary(worker, "s2", by=["endpoint", "voice"]))["groups"]
    told_by = [(group["endpoint"], group["voice_id"], group["requests"]) for group in by]
    assert told_by[0][0] == "synthesize"
    assert ("usage.summary", None, 1) in told_by
    assert "day" not in by[0]


async def test_days_that_are_named(worker: Worker) -> None:
    await worker.events(worker.job("abc"), "1")
    assert (await summary(worker, "a", **{"from": "2020-02-01", "to": "2020-02-29"}))["groups"] == []
    assert (await summary(worker, "b", to="2020-02-29"))["from"] == "2020-01-31"


@pytest.mark.parametrize(
    "fields",
    [
        {"from": "2026-02-30"}, {"from": "2026-2-3"}, {"from": 20260203}, {"to": "0001-01-01"}, {"by": []},
        {"by": "week"}, {"by": ["day"] * 9}, {"first": "2026-02-03"}, {"from": "2026-01-01T00:00:00"},
    ],
)  # fmt: skip
def test_what_is_no_period_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        parse(SUMMARY | fields)


@pytest.mark.parametrize("days", [("2026-02-03", "2026-02-02"), ("2020-01-01", "2026-02-02"), ("2999-12-31", None)])
async def test_periods_have_a_first_day_and_an_end(worker: Worker, days: tuple[str, str | None]) -> None:
    error = error_of([await summary(worker, "s", **{"from": days[0], "to": days[1]})])
    assert (error["code"], error["message"].split(":")[0]) == ("invalid_input", "from")


async def test_only_the_operator_asks_for_others(worker: Worker) -> None:
    made = await worker.store.create_tenant("acme", scopes=["usage", "admin"])
    plain = await worker.store.create_tenant("plain", scopes=["usage"])
    other = made.tenant.id
    assert (await summary(worker, "1", tenant_id=other))["tenant_id"] == other
    assert error_of([await summary(worker, "2", tenant_id="nobody")])["code"] == "tenant_not_found"
    said = []
    for number, tenant_id in enumerate(("local", "nobody")):
        body = {**SUMMARY, "tenant_key": made.secret, "tenant_id": tenant_id}
        error = error_of(await worker.events(body, f"3-{number}"))
        said.append((error["code"], error["message"].replace(tenant_id, "...")))
    assert said == [("tenant_not_found", "no tenant '...'")] * 2
    own = await worker.events({**SUMMARY, "tenant_key": made.secret, "tenant_id": other}, "4")
    assert own[0]["tenant_id"] == other
    error = error_of(await worker.events({**SUMMARY, "tenant_key": plain.secret, "tenant_id": plain.tenant.id}, "5"))
    assert error["code"] == "forbidden"


async def test_a_key_needs_the_scope(worker: Worker) -> None:
    made = await worker.store.create_tenant("acme", scopes=["synthesize"])
    assert error_of(await worker.events({**SUMMARY, "tenant_key": made.secret}))["code"] == "forbidden"


async def test_what_does_not_fit_one_event_is_counted(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        await worker.events(worker.job("abc", voice_id=f"nobody-{number}"), str(number))
    await summary(worker, "whole", by="voice")
    monkeypatch.setattr(reports, "MAX_GROUP_BYTES", 600)
    cut = await summary(worker, "cut", by="voice")
    assert 0 < len(cut["groups"]) < 5
    assert len(cut["groups"]) + cut["groups_left_out"] == 6
    assert cut["totals"]["requests"] == 6


async def test_health_tells_how_many_wait(worker: Worker) -> None:
    assert (await worker.events({"action": "health"}))[0]["unsettled"] == 0
