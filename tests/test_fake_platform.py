"""Does the fake platform keep true books? The real SDK loop works for it, with a handler that does as the job says."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.fake_platform import FakePlatform, ResultLost, worker
from tests.ledger import NO_ANSWER, Rejected
from tests.processes import ProcessesLeft

pytestmark = pytest.mark.asyncio(loop_scope="module")

HANDLER = """
import asyncio, runpod
stopped = asyncio.Queue()

async def handler(job):
    try:
        for output in job["input"].get("yields", []):
            yield output
        if job["input"].get("hang"):
            await asyncio.Event().wait()
        if job["input"].get("who_was_stopped"):
            yield await stopped.get()
    finally:  # also when it is stopped at a yield, while the SDK posts the chunk
        if job["input"].get("hang"):
            stopped.put_nowait(job["id"])

if __name__ == "__main__":
    many = lambda current: 4
    runpod.serverless.start({"handler": handler, "return_aggregate_stream": True, "concurrency_modifier": many})
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    script = tmp_path_factory.mktemp("worker") / "handler.py"
    script.write_text(HANDLER)
    return [sys.executable, str(script)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(command: list[str]) -> AsyncIterator[FakePlatform]:
    """With one worker that all tests share: it takes two seconds to start."""
    async with FakePlatform() as platform, worker(platform, command, env={}):
        yield platform


async def test_chunks_come_in_order_and_again_as_the_result(platform: FakePlatform) -> None:
    yields = [{"seq": n, "text": "żółć \u4e2d"} for n in range(20)]
    job_id = platform.submit({"yields": yields})
    assert await platform.first_chunk(job_id, timeout_s=30) == yields[0]
    result = await platform.result(job_id, timeout_s=30)
    job = platform.ledger[job_id]
    assert (job.chunks, result.output, result.error) == (yields, yields, None)
    assert (job.times_taken, len(job.results), job.rejected, job.cancelled) == (1, 1, [], False)


async def test_a_yield_above_1_mb_is_refused_and_the_job_goes_on(platform: FakePlatform) -> None:
    frame_bytes = len('{"output": ""}')
    fits, too_large = "a" * (1_000_000 - frame_bytes), "b" * (1_000_001 - frame_bytes)
    job_id = platform.submit({"yields": [fits, too_large, "end"]})
    result = await platform.result(job_id, timeout_s=30)
    assert platform.ledger[job_id].chunks == [fits, "end"]
    assert platform.ledger[job_id].rejected == [Rejected("stream", 400, 1_000_001)]
    assert result.output == [fits, too_large, "end"]


async def test_a_result_above_10_mb_is_lost(platform: FakePlatform) -> None:
    job_id = platform.submit({"yields": ["a" * 990_000] * 11})
    with pytest.raises(ResultLost, match=job_id):
        await platform.result(job_id, timeout_s=30)
    job = platform.ledger[job_id]
    assert [(post.kind, post.status) for post in job.rejected] == [("done", 400)]
    assert job.rejected[0].size_bytes > 10_000_000
    assert (len(job.chunks), job.results) == (11, [])


async def test_a_yielded_error_becomes_the_error_of_the_job(platform: FakePlatform) -> None:
    job_id = platform.submit({"yields": [1, {"error": '{"code": "x"}'}, 2]})
    result = await platform.result(job_id, timeout_s=30)
    assert (result.error, result.output) == ('{"code": "x"}', None)
    assert platform.ledger[job_id].chunks == [1]


async def test_a_cancel_reaches_the_handler_and_nothing_is_posted(platform: FakePlatform) -> None:
    job_id = platform.submit({"yields": ["started"], "hang": True})
    await platform.first_chunk(job_id, timeout_s=30)
    platform.cancel(job_id)
    witness = await platform.result(platform.submit({"who_was_stopped": True}), timeout_s=30)
    assert witness.output == [job_id]
    job = platform.ledger[job_id]
    assert (job.cancelled, job.stop_sent, job.chunks, job.results) == (True, True, ["started"], [])


async def test_a_running_job_is_in_the_pings(platform: FakePlatform) -> None:
    job_id = platform.submit({"yields": ["started"], "hang": True})
    await platform.first_chunk(job_id, timeout_s=30)
    await platform.until(lambda: job_id in platform.ledger.pings, timeout_s=30)
    platform.cancel(job_id)
    await platform.result(platform.submit({"who_was_stopped": True}), timeout_s=30)


async def test_a_job_delivered_twice_runs_twice(platform: FakePlatform) -> None:
    job_id = platform.submit({"yields": ["a", "b"]}, deliveries=2)
    await platform.result(job_id, nth=2, timeout_s=30)
    job = platform.ledger[job_id]
    assert (job.times_taken, sorted(job.chunks)) == (2, ["a", "a", "b", "b"])
    assert [result.output for result in job.results] == [["a", "b"], ["a", "b"]]


async def test_the_same_id_can_be_delivered_again_later(platform: FakePlatform) -> None:
    job_id = platform.submit({"yields": ["a"]})
    await platform.result(job_id, timeout_s=30)
    platform.submit({"yields": ["another"]}, id=job_id)
    again = await platform.result(job_id, nth=2, timeout_s=30)
    assert (again.output, platform.ledger[job_id].times_taken) == (["a"], 2)


async def test_a_status_can_be_chosen_per_post(platform: FakePlatform) -> None:
    platform.answers = lambda kind, job_id: 404 if kind == "stream" else 200
    job_id = platform.submit({"yields": ["a"]})
    result = await platform.result(job_id, timeout_s=30)
    platform.answers = lambda kind, job_id: 200
    job = platform.ledger[job_id]
    assert (job.chunks, result.output, job.rejected[0].status) == ([], ["a"], 404)


async def test_what_the_sdk_repeats_after_a_503_is_booked_once(platform: FakePlatform) -> None:
    statuses = iter([503])
    platform.answers = lambda kind, job_id: next(statuses, 200)
    job_id = platform.submit({"yields": ["a", "b"]})
    await platform.result(job_id, timeout_s=30)
    platform.answers = lambda kind, job_id: 200
    job = platform.ledger[job_id]
    assert (job.chunks, [post.status for post in job.rejected]) == (["a", "b"], [503])


async def test_the_shared_worker_made_no_fault(platform: FakePlatform) -> None:
    await platform.result(platform.submit({"yields": ["a"]}), timeout_s=30)
    assert platform.ledger.faults == []


async def test_nan_is_a_fault(platform: FakePlatform) -> None:
    job_id = platform.submit({"yields": [float("nan")]})
    with pytest.raises(ResultLost):
        await platform.result(job_id, timeout_s=30)
    assert platform.ledger.faults == [f"{kind} of {job_id}: NaN is no JSON" for kind in ("stream", "done")]
    platform.ledger.faults.clear()


async def test_a_worker_leaves_by_itself_when_its_poll_returns_after_sigterm(command: list[str]) -> None:
    async with FakePlatform() as platform, worker(platform, command, env={}) as running:
        done = platform.submit({"yields": ["a"]})
        await platform.result(done, timeout_s=30)
        await platform.until(lambda: platform.held["take"] == 1, timeout_s=30)
        running.process.send_signal(signal.SIGTERM)
        assert await running.exit_code(timeout_s=30) == 0
        assert f'"requestId": "{done}"' in running.log()
    assert platform.ledger.faults == []


async def test_a_job_cancelled_in_the_queue_is_never_handed_out() -> None:
    async with FakePlatform(hold_s=0.0) as platform, aiohttp.ClientSession() as session:
        platform.cancel(platform.submit({}))
        async with session.get(platform.env()["RUNPOD_WEBHOOK_GET_JOB"]) as answer:
            assert answer.status == 204


async def test_the_books_know_what_no_worker_should_send() -> None:
    async with FakePlatform() as platform, aiohttp.ClientSession() as session:
        url = platform.env()["RUNPOD_WEBHOOK_POST_OUTPUT"]
        bodies = {"strange": "{}", "queued": '{"output": 1}', "list": "[]", "dict": '{"error": {}}', "utf8": b"\xff"}
        for job_id, body in bodies.items():
            if job_id != "strange":
                platform.submit({}, id=job_id)
            await session.post(url.replace("$ID", job_id) + "&isStream=true", data=body)
        assert [fault.split()[2].rstrip(":") for fault in platform.ledger.faults[1:]] == list(bodies)[1:]
        assert "unknown job 'strange'" in platform.ledger.faults[0]


async def test_a_progress_update_is_no_result() -> None:
    async with FakePlatform(hold_s=0.0) as platform, aiohttp.ClientSession() as session:
        job_id = platform.submit({})
        await session.get(platform.env()["RUNPOD_WEBHOOK_GET_JOB"])
        url = platform.env()["RUNPOD_WEBHOOK_POST_OUTPUT"].replace("$ID", job_id)
        await session.post(url, data='{"status": "IN_PROGRESS", "output": "half"}')
        job = platform.ledger[job_id]
        assert (job.progress, job.results, platform.ledger.faults) == (["half"], [], [])


async def test_an_unhealthy_worker_is_a_fault() -> None:
    async with FakePlatform() as platform, aiohttp.ClientSession() as session:
        await session.get(platform.env()["RUNPOD_WEBHOOK_PING"], params={"status": "unhealthy", "reason": "no GPU"})
        assert platform.ledger.faults == ["unhealthy: no GPU"]


async def test_a_worker_has_nothing_of_our_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XTTS_ENGINE", "ours")
    monkeypatch.setenv("RUNPOD_DEBUG_LEVEL", "ours")
    script = "import os; print(sorted(v for n, v in os.environ.items() if n.startswith(('XTTS_', 'RUNPOD_DEBUG'))))"
    command, env = [sys.executable, "-c", script], {"XTTS_STORE": "local"}
    async with FakePlatform() as platform, worker(platform, command, env=env) as running:
        assert await running.exit_code(timeout_s=30) == 0
        assert running.log() == "['local']\n"


async def test_nothing_of_a_worker_outlives_its_context() -> None:
    script = """
import os, subprocess, time, urllib.request
subprocess.Popen(["sleep", "600"])
urllib.request.urlopen(os.environ["RUNPOD_WEBHOOK_PING"])
time.sleep(600)
"""
    async with FakePlatform() as platform, worker(platform, [sys.executable, "-c", script], env={}) as running:
        await platform.until(lambda: bool(platform.ledger.pings), timeout_s=30)
    assert running.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("how", ["start_new_session=True", "env={}"])
async def test_an_orphan_is_reported(how: str) -> None:
    script = f"import subprocess; subprocess.Popen(['/bin/sleep', '600'], {how})"
    async with FakePlatform() as platform:
        with pytest.raises(ProcessesLeft):
            async with worker(platform, [sys.executable, "-c", script], env={}) as running:
                await running.exit_code(timeout_s=30)


async def test_a_job_of_a_worker_whose_pings_stop_is_given_to_another(command: list[str]) -> None:
    other = {"RUNPOD_POD_ID": "other"}
    async with FakePlatform(lease_s=3.0) as platform, worker(platform, command, env={}) as first:
        job_id = platform.submit({"yields": ["a"], "hang": True})
        await platform.first_chunk(job_id, timeout_s=30)
        job = platform.ledger[job_id]
        job.input = {"yields": ["b"]}
        first.kill()
        async with worker(platform, command, env=other):
            result = await platform.result(job_id, timeout_s=30)
        assert (result.output, result.worker_id, job.requeued) == (["b"], "other", 1)
        assert job.taken_by == ["fake-worker", "other"]
        assert [arrival.worker_id for arrival in job.arrivals] == job.taken_by


async def test_a_job_that_is_named_in_pings_is_not_queued_again(command: list[str]) -> None:
    async with FakePlatform(lease_s=3.0) as platform, worker(platform, command, env={}):
        job_id = platform.submit({"yields": ["a"], "hang": True})
        await platform.first_chunk(job_id, timeout_s=30)
        named = len(platform.ledger.pings) + 6  # one a second, so that two leases pass
        await platform.until(lambda: len(platform.ledger.pings) > named, timeout_s=30)
        assert (platform.ledger[job_id].requeued, platform.ledger[job_id].times_taken) == (0, 1)
        assert job_id in platform.ledger.pings[-1]


async def test_a_job_handed_to_a_poll_that_was_held_over_a_sigterm_is_lost_to_its_worker(command: list[str]) -> None:
    """And comes back to the queue: the SDK takes it, and leaves without having run it."""
    async with FakePlatform(hold_s=20.0, lease_s=3.0) as platform, worker(platform, command, env={}) as running:
        done = platform.submit({"yields": ["a"]})
        await platform.result(done, timeout_s=30)
        await platform.until(lambda: platform.held["fake-worker"] == 1, timeout_s=30)
        running.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(1.0)  # the SDK leaves its loop of running jobs; nothing tells it
        job_id = platform.submit({"yields": ["b"]}, only="fake-worker")
        await platform.until(lambda: platform.ledger[job_id].requeued == 1, timeout_s=30)
        assert (platform.ledger[job_id].taken_by, platform.ledger[job_id].chunks) == (["fake-worker"], [])


async def test_only_one_worker_is_given_a_job_that_is_meant_for_it() -> None:
    async with FakePlatform(hold_s=0.0) as platform, aiohttp.ClientSession() as session:
        job_id = platform.submit({}, only="one")
        url = platform.env()["RUNPOD_WEBHOOK_GET_JOB"]
        async with session.get(url.replace("$ID", "another")) as answer:
            assert answer.status == 204
        async with session.get(url.replace("$ID", "one")) as answer:
            assert (await answer.json())["id"] == job_id


async def test_a_refused_result_is_not_queued_again() -> None:
    """RunPod has lost it: whoever asked for the job has to ask again."""
    async with FakePlatform(hold_s=0.0, lease_s=0.2) as platform, aiohttp.ClientSession() as session:
        platform.answers = lambda kind, job_id: 400
        job_id = platform.submit({})
        take, done = (platform.env()[f"RUNPOD_WEBHOOK_{name}"] for name in ("GET_JOB", "POST_OUTPUT"))
        await session.get(take.replace("$ID", "one"))
        await session.post(done.replace("$RUNPOD_POD_ID", "one").replace("$ID", job_id), data='{"output": 1}')
        await asyncio.sleep(0.5)
        assert (platform.ledger[job_id].requeued, platform.ledger[job_id].result_lost) == (0, True)


async def test_what_gets_no_answer_is_not_repeated(command: list[str]) -> None:
    """By the SDK, which goes on: a chunk is lost, and a result comes when the job has been queued and run again."""
    async with FakePlatform(silence_s=0.2, lease_s=3.0) as platform, worker(platform, command, env={}):
        silent = iter([NO_ANSWER, 200, NO_ANSWER])
        platform.answers = lambda kind, job_id: next(silent, 200)
        job_id = platform.submit({"yields": ["a", "b"]})
        result = await platform.result(job_id, timeout_s=30)
        job = platform.ledger[job_id]
        assert (result.output, job.chunks, job.requeued) == (["a", "b"], ["b", "a", "b"], 1)
        assert [(post.kind, post.status) for post in job.rejected] == [("stream", NO_ANSWER), ("done", NO_ANSWER)]
        assert platform.ledger.faults == []


async def test_books_in_brief_remember_what_they_are_told_to() -> None:
    async with (
        FakePlatform(hold_s=0.0, brief=lambda output: len(output)) as platform,
        aiohttp.ClientSession() as session,
    ):
        job_id = platform.submit({})
        await session.get(platform.env()["RUNPOD_WEBHOOK_GET_JOB"])
        for kind, body in (("STREAM", '{"output": "four"}'), ("OUTPUT", '{"output": [1, 2]}')):
            await session.post(platform.env()[f"RUNPOD_WEBHOOK_POST_{kind}"].replace("$ID", job_id), data=body)
        job = platform.ledger[job_id]
        assert (job.chunks, job.results[0].output, len(job.results[0].raw)) == ([4], 2, 64)
