"""The worker under the real SDK loop, for a platform that keeps its own books."""

import asyncio
import base64
import io
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import soundfile

from storage.local import open_local
from tests.fake_platform import FakePlatform, Worker, worker
from tests.faulty_worker import BREAKS, HANGS
from tests.ledger import NO_ANSWER
from tests.processes import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SENTENCE = "The quick brown fox jumps over the lazy dog. "
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Site:
    """A platform with one worker, and a tenant's key."""

    platform: FakePlatform
    worker: Worker
    data_dir: Path
    key: str

    def submit(self, text: str, *, id: str | None = None, deliveries: int = 1, **fields: object) -> str:
        job = {"tenant_key": self.key, "text": text, "language": "en", **fields}
        return self.platform.submit(job, id=id, deliveries=deliveries)

    async def output(self, job_id: str) -> list[dict[str, Any]]:
        result = await self.platform.result(job_id, timeout_s=TIMEOUT_S)
        assert result.error is None
        assert isinstance(result.output, list)
        return result.output

    async def error(self, job_id: str) -> dict[str, Any]:
        result = await self.platform.result(job_id, timeout_s=TIMEOUT_S)
        assert result.error is not None
        error = json.loads(result.error)
        assert set(error) == {"code", "message", "retryable", "request_id"}
        assert isinstance(error, dict)
        return error

    def usage(self, column: str = "status") -> list[Any]:
        with sqlite3.connect(next(self.data_dir.glob("*.db*"))) as database:
            return [value for (value,) in database.execute(f"select {column} from usage_logs order by rowid")]


def wav_seconds(wav: bytes) -> float:
    return float(soundfile.info(io.BytesIO(wav)).duration)


def bytes_of(event: dict[str, Any]) -> bytes:
    if "audio_base64" in event:
        return base64.b64decode(event["audio_base64"])
    return Path(event["audio_url"].removeprefix("file://")).read_bytes()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    data_dir = tmp_path_factory.mktemp("data")
    store = await open_local(data_dir)
    made = await store.create_tenant("acme", scopes=("synthesize", "voices"))
    await store.close()
    env = {"XTTS_STORE": "local", "XTTS_DATA_DIR": str(data_dir), "PYTHONPATH": "."}
    async with (
        FakePlatform(hold_s=1.0) as platform,
        worker(platform, [sys.executable, "-m", "tests.faulty_worker"], env=env) as running,
    ):
        yield Site(platform, running, data_dir, made.secret)
        books = platform.ledger
        assert books.faults == []
        finished = [job for job in books.jobs.values() if not job.cancelled]
        assert [len(job.results) for job in finished] == [job.times_taken for job in finished]
        assert all(len(set(result.raw for result in job.results)) == 1 for job in finished)
        assert not any(job.rejected for job in finished)


async def test_a_job(site: Site) -> None:
    (result,) = await site.output(site.submit(SENTENCE))
    assert (result["status"], result["engine"]) == ("success", "espeak")
    assert wav_seconds(bytes_of(result)) == pytest.approx(result["duration"], abs=0.001)


async def test_a_streaming_job_has_numbered_chunks(site: Site) -> None:
    job_id = site.submit(SENTENCE * 3, streaming=True)
    *chunks, done = await site.output(job_id)
    assert site.platform.ledger[job_id].chunks == [*chunks, done]
    assert [chunk["seq"] for chunk in chunks] == list(range(done["chunks"]))
    assert len(chunks) > 2
    assert wav_seconds(b"".join(map(bytes_of, chunks))) == pytest.approx(done["duration"], abs=0.001)


async def test_a_ten_minute_stream(site: Site) -> None:
    *chunks, done = await site.output(site.submit(SENTENCE * 240, streaming=True))
    assert done["duration"] > 600
    assert [chunk["seq"] for chunk in chunks] == list(range(done["chunks"]))
    assert any("audio_url" in chunk for chunk in chunks)
    assert wav_seconds(b"".join(map(bytes_of, chunks))) == pytest.approx(done["duration"], abs=0.001)


async def test_an_invalid_job(site: Site) -> None:
    assert (await site.error(site.submit(SENTENCE, speed="fast")))["code"] == "invalid_input"
    assert (await site.error(site.platform.submit("speak!")))["code"] == "invalid_input"


async def test_an_unknown_or_missing_key(site: Site) -> None:
    assert (await site.error(site.submit(SENTENCE, tenant_key="tts_live_abcdefgh_wrong")))["code"] == "unauthorized"
    assert (await site.error(site.submit(SENTENCE, tenant_key=None)))["code"] == "unauthorized"


async def test_an_exception_inside_the_engine(site: Site) -> None:
    error = await site.error(site.submit(f"First this. {SENTENCE} Then {BREAKS}, of all places."))
    assert error["code"] == "internal"
    assert BREAKS not in json.dumps(error)
    assert BREAKS not in site.worker.log()
    assert site.usage()[-1] == "failed"


async def test_a_cancel_in_mid_stream(site: Site) -> None:
    job_id = site.submit(SENTENCE * 3 + f"And then {HANGS}, as it happens.", streaming=True)
    await site.platform.first_chunk(job_id, timeout_s=TIMEOUT_S)
    site.platform.cancel(job_id)
    await site.platform.until(lambda: site.platform.ledger[job_id].stop_sent, timeout_s=TIMEOUT_S)
    for _ in range(5):  # the worker goes on, and settles what was cancelled meanwhile
        (result,) = await site.output(site.submit(SENTENCE))
        assert result["status"] == "success"
    assert "cancelled" in site.usage()
    assert site.platform.ledger[job_id].results == []


async def test_a_cancel_while_a_chunk_is_posted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other job comes, which would make the SDK forget the cancelled one, and with it what it read."""
    before = site.usage().count("cancelled")
    monkeypatch.setattr(site.platform, "silence_s", TIMEOUT_S)
    monkeypatch.setattr(site.platform, "answers", lambda kind, job_id: NO_ANSWER if kind == "stream" else 200)
    job_id = site.submit(f"{SENTENCE * 3} And then {HANGS}, as it happens.", streaming=True)
    job = site.platform.ledger[job_id]
    await site.platform.until(lambda: bool(job.rejected), timeout_s=TIMEOUT_S)
    site.platform.cancel(job_id)
    await until(lambda: site.usage().count("cancelled") > before)


async def test_the_same_job_delivered_twice_at_once(site: Site) -> None:
    before = len(site.usage())
    job_id = site.submit(SENTENCE * 20, deliveries=2, streaming=True)
    first = await site.platform.result(job_id, timeout_s=TIMEOUT_S)
    second = await site.platform.result(job_id, timeout_s=TIMEOUT_S, nth=2)
    assert first == second
    assert site.usage()[before:] == ["success"]


async def test_eight_jobs_at_once(site: Site) -> None:
    texts = [SENTENCE + f"This is number {n}." for n in range(8)]
    outputs = await asyncio.gather(
        *(site.output(site.submit(text, streaming=n % 2 == 0)) for n, text in enumerate(texts))
    )
    assert [output[-1]["text"] for output in outputs] == texts
    for output in outputs:
        audio = b"".join(bytes_of(event) for event in output if "audio_base64" in event)
        assert wav_seconds(audio) == pytest.approx(output[-1]["duration"], abs=0.001)


async def test_nothing_is_left_open_by_jobs_that_ended_badly(site: Site) -> None:
    """Files of the worker before and after thirty failures are the same ones."""
    await site.output(site.submit(SENTENCE))
    before = open_files(site.worker)
    jobs = [site.submit(f"{SENTENCE} Now {BREAKS}, as before.", streaming=True) for _ in range(30)]
    for job_id in jobs:
        assert (await site.error(job_id))["code"] == "internal"
    await site.output(site.submit(SENTENCE))
    assert open_files(site.worker) == before


def open_files(running: Worker) -> list[str]:
    """Paths, without the connections that the SDK's pool opens and closes as it likes."""
    folder = f"/proc/{running.process.pid}/fd"
    paths = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder) if os.path.lexists(f"{folder}/{fd}")]
    return sorted(path for path in paths if not path.startswith("socket:"))


async def test_sigterm_while_a_job_take_poll_is_held_open(site: Site, tmp_path: Path) -> None:
    """The job that runs is finished and answered, the process leaves with 0, and nothing of it stays alive."""
    env = {"XTTS_STORE": "local", "XTTS_DATA_DIR": str(site.data_dir), "PYTHONPATH": "."}
    command = [sys.executable, "handler.py"]
    async with (
        FakePlatform(hold_s=3.0) as platform,
        worker(platform, command, env=env | {"XTTS_ENGINE": "espeak"}) as running,
    ):
        job = {"tenant_key": site.key, "text": SENTENCE * 200, "language": "en", "streaming": True}
        job_id = platform.submit(job)
        await platform.first_chunk(job_id, timeout_s=TIMEOUT_S)
        await platform.until(lambda: platform.held["take"] > 0, timeout_s=TIMEOUT_S)
        running.process.send_signal(signal.SIGTERM)
        result = await platform.result(job_id, timeout_s=TIMEOUT_S)
        assert result.output[-1]["status"] == "success"
        assert await running.exit_code(timeout_s=TIMEOUT_S) == 0
        assert platform.ledger.faults == []
        assert "Traceback" not in running.log()


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"XTTS_ENGINE": "espeak"}, "XTTS_STORE=local"),
        ({"XTTS_STORE": "local"}, "XTTS_MODEL_PATH"),
        ({"XTTS_STORE": "local", "XTTS_ENGINE": "espeak", "XTTS_DATA_DIR": "/dev/full"}, ""),
        ({"XTTS_STROE": "local"}, "XTTS_STROE"),
        ({"XTTS_STORE": "local", "XTTS_ENGINE": "espeak", "XTTS_CONCURRENCY": "many"}, "XTTS_CONCURRENCY"),
    ],
    ids=["no store", "no model", "no disk", "unknown setting", "bad setting"],
)
async def test_a_worker_that_cannot_work_answers_every_job_with_the_reason(env: dict[str, str], reason: str) -> None:
    async with (
        FakePlatform(hold_s=0.5) as platform,
        worker(platform, [sys.executable, "handler.py"], env=env) as running,
    ):
        for body in ({"action": "health"}, {"text": "Hello."}):
            result = await platform.result(platform.submit(body), timeout_s=TIMEOUT_S)
            assert result.error is not None
            error = json.loads(result.error)
            assert error["code"] == "startup_error"
            assert reason in error["message"]
        assert running.process.returncode is None
