"""A worker's start and its end, under the real SDK loop: who waits for the model, who does not, and what is logged."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runpod.serverless.modules.worker_state import JobsProgress

from handler import Caretaker
from storage.local import open_local
from tests.fake_platform import FakePlatform, Worker, worker
from tests.late_worker import DIES
from tests.scripted_engine import ScriptedEngine
from tests.test_service import no_network
from tts_core.service import Service
from tts_core.settings import Settings
from tts_core.starting import StartTimes

TIMEOUT_S = 90.0
SENTENCE = "The quick brown fox jumps over the lazy dog."


@dataclass(frozen=True)
class Site:
    platform: FakePlatform
    worker: Worker
    folder: Path
    key: str

    def start_engine(self, how: str) -> None:
        draft = self.folder / "draft"
        draft.write_text(how)
        draft.rename(self.folder / "start")

    def submit(self, text: str = SENTENCE, **fields: object) -> str:
        return self.platform.submit({"tenant_key": self.key, "text": text, "language": "en", **fields})

    async def outcome(self, job_id: str) -> Any:
        """The last event of a job that succeeded, or the error of one that failed."""
        result = await self.platform.result(job_id, timeout_s=TIMEOUT_S)
        return result.output[-1] if result.error is None else json.loads(result.error)

    def lines(self, message: str) -> list[dict[str, Any]]:
        """What the worker has logged, by how the message begins."""
        read = [json.loads(line) for line in self.worker.log().splitlines() if line.startswith("{")]
        return [line for line in read if line["message"].startswith(message)]


@asynccontextmanager
async def late_worker(folder: Path) -> AsyncIterator[Site]:
    store = await open_local(folder)
    made = await store.create_tenant("acme", scopes=("synthesize", "usage"))
    await store.close()
    env = {"XTTS_STORE": "local", "XTTS_DATA_DIR": str(folder), "PYTHONPATH": "."}
    async with (
        FakePlatform(hold_s=1.0) as platform,
        worker(platform, [sys.executable, "-m", "tests.late_worker"], env=env) as running,
    ):
        yield Site(platform, running, folder, made.secret)


async def test_only_speech_waits_for_the_model(tmp_path: Path) -> None:
    async with late_worker(tmp_path) as site:
        spoken = site.submit()
        assert (await site.outcome(site.platform.submit({"action": "health"})))["ready"] is False
        assert (await site.outcome(site.submit(speed="fast")))["code"] == "invalid_input"
        assert (await site.outcome(site.submit(tenant_key="tts_live_abcdefgh_wrong")))["code"] == "unauthorized"
        assert (await site.outcome(site.submit("?!")))["code"] == "text_unspeakable"
        assert site.platform.ledger[spoken].results == []
        # The SDK forks its heartbeat beside the thread that loads the model, whose locks nobody frees there.
        await site.platform.until(lambda: spoken in site.platform.ledger.pings, timeout_s=TIMEOUT_S)
        site.start_engine("ready")
        assert (await site.outcome(spoken))["status"] == "success"
        assert (await site.outcome(site.platform.submit({"action": "health"})))["ready"] is True
        (started,) = site.lines("started")
        phases = started["start_ms"]
        assert phases.keys() == StartTimes.PHASES
        assert 0 < phases["imported"] <= phases["store_open"] <= phases["taking_jobs"] <= phases["engine_ready"]
        assert phases["engine_known"] <= phases["engine_ready"]


async def test_what_is_cached_is_answered_before_the_model_is_there(tmp_path: Path) -> None:
    async with late_worker(tmp_path) as site:
        site.start_engine("ready")
        assert (await site.outcome(site.submit()))["cached"] is False
        key = site.key
    (tmp_path / "start").unlink()
    async with late_worker(tmp_path) as site:
        answer = await site.outcome(site.submit(tenant_key=key))
        assert (answer["status"], answer["cached"]) == ("success", True)
        assert (await site.outcome(site.platform.submit({"action": "health"})))["ready"] is False


async def test_a_configuration_that_turns_out_wrong_is_what_every_job_is_told(tmp_path: Path) -> None:
    async with late_worker(tmp_path) as site:
        waiting = site.submit()
        site.start_engine("misconfigured")
        for job_id in (waiting, site.submit("Another one."), site.platform.submit({"action": "health"})):
            error = await site.outcome(job_id)
            assert (error["code"], error["message"]) == ("startup_error", "the weights do not fit")
        assert site.worker.process.returncode is None


async def test_a_machine_that_cannot_load_it_answers_and_ends(tmp_path: Path) -> None:
    async with late_worker(tmp_path) as site:
        waiting = site.submit()
        # One that the SDK has not begun yet is left to be delivered again.
        async with asyncio.timeout(TIMEOUT_S):
            while "Jobs in progress: 1" not in site.worker.log():  # noqa: ASYNC110  a log tells nobody
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        site.start_engine("broken")
        error = await site.outcome(waiting)
        assert (error["code"], error["retryable"]) == ("engine_lost", True)
        assert await site.worker.exit_code(timeout_s=TIMEOUT_S) == 1
        assert "secret" not in site.worker.log()


async def test_a_broken_machine_does_not_wait_for_a_job_to_end(tmp_path: Path) -> None:
    async with late_worker(tmp_path) as site:
        site.start_engine("broken")
        assert await site.worker.exit_code(timeout_s=TIMEOUT_S) == 1


async def test_a_lost_device_ends_the_worker_once_everybody_is_answered(tmp_path: Path) -> None:
    async with late_worker(tmp_path) as site:
        site.start_engine("ready")
        beside = site.submit(SENTENCE * 40)
        await site.platform.until(lambda: bool(site.platform.ledger[beside].taken_by), timeout_s=TIMEOUT_S)
        lost = site.submit(f"First this. And now {DIES}.", streaming=True)
        error = await site.outcome(lost)
        assert (error["code"], error["retryable"]) == ("engine_lost", True)
        assert (await site.outcome(beside))["status"] == "success"
        assert await site.worker.exit_code(timeout_s=TIMEOUT_S) == 1


async def test_a_job_that_a_poll_brings_after_the_loss_is_answered_too(tmp_path: Path) -> None:
    async with late_worker(tmp_path) as site:
        site.start_engine("ready")
        ledger, late = site.platform.ledger, "late"
        lost = site.submit(f"And now {DIES}.")
        site.platform.answers = lambda kind, job_id: 500 if job_id == lost and late not in ledger.jobs else 200
        await site.platform.until(lambda: bool(ledger[lost].rejected), timeout_s=TIMEOUT_S)
        site.platform.submit({"action": "health"}, id=late)
        for job_id in (late, lost):
            await site.platform.result(job_id, timeout_s=TIMEOUT_S)
        assert await site.worker.exit_code(timeout_s=TIMEOUT_S) == 1


async def test_one_line_of_the_log_for_each_job(tmp_path: Path) -> None:
    async with late_worker(tmp_path) as site:
        site.start_engine("ready")
        spoken = site.submit(metadata={"private": "metadata"})
        result = await site.outcome(spoken)
        cached = site.submit()
        await site.outcome(cached)
        refused = site.submit(text="", voice_id="hidden voice")
        await site.outcome(refused)
        unread = site.submit(speed="fast")
        await site.outcome(unread)
        lines = {line["requestId"]: line for line in site.lines("job ")}
        assert lines.keys() == {spoken, cached, refused, unread}
        assert all({"requestId", "message", "level", "outcome", "error"} <= line.keys() for line in lines.values())
        line = lines[spoken]
        assert (line["outcome"], line["request_id"], line["characters"]) == ("success", result["request_id"], 44)
        assert line["audio_seconds"] == result["duration"]
        assert 0 < line["first_audio_ms"] <= line["latency_ms"]
        assert line["rtf"] == pytest.approx(line["latency_ms"] / 1000 / line["audio_seconds"], rel=0.1, abs=0.01)
        assert lines[cached]["cached"] is True
        assert lines[cached]["rtf"] is None
        assert (lines[refused]["outcome"], lines[refused]["error"]) == ("failed", "text_empty")
        assert lines[unread]["error"] == "invalid_input"
        for secret in (site.key, SENTENCE, "quick brown", "private", "hidden"):
            assert secret not in site.worker.log()


async def test_a_worker_whose_engine_is_lost_takes_no_more_jobs(tmp_path: Path) -> None:
    engine, store = ScriptedEngine(), await open_local(tmp_path)
    service = Service(engine, store, settings=Settings(data_dir=tmp_path), fetch=no_network)
    caretaker = Caretaker(service, concurrency=8)
    assert [caretaker(1), caretaker(8)] == [8, 8]
    taken = JobsProgress()
    taken.add("a job that is not answered yet")
    engine.dies.set()
    async with asyncio.timeout(10):
        while caretaker(8) == 8:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0)
    assert caretaker(8) == len(taken) == 1
    assert caretaker._watch is not None
    caretaker._watch.cancel()  # as asyncio.run does when a SIGTERM comes first
    await caretaker._watch
    taken.clear()
