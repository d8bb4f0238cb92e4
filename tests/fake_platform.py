"""RunPod's side of the worker protocol on loopback, for the real SDK loop, with a ledger of all that passed.

Urls, placeholders, limits and answers are those of runpod 1.12 (`rp_job`, `rp_http`, `rp_ping`) and RunPod's docs.
"""

import asyncio
import os
import signal
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from aiohttp import web

from tests.job_queue import JobQueue
from tests.ledger import MAX_BODY_BYTES, NO_ANSWER, Arrival, JobRecord, Kind, Ledger, Result
from tests.processes import end_family, new_mark

ANYTHING = ""
"""What is told to those who wait for no job in particular."""


class ResultLost(Exception):
    """RunPod would show this job as COMPLETED without output: its result was refused."""


class FakePlatform:
    """Hands out jobs, takes what comes back, and remembers both.

    hold_s     how long an empty job-take or job-stop poll is held; a SIGTERM is obeyed only after it (RunPod: up to 90)
    silence_s  how long a post that gets no answer is kept waiting before its connection is cut
    lease_s    a job that its worker has not named in a ping for so long, and that has no result, is queued again; None:
               never. RunPod does so too, and does not say after which time.
    answers    HTTP status for one post, or NO_ANSWER, asked before the size is looked at; 200 accepts it
    held       polls that wait right now, by "take" and "stop", and takes also by their worker's id
    """

    def __init__(
        self,
        *,
        hold_s: float = 1.0,
        silence_s: float = 1.0,
        lease_s: float | None = None,
        brief: Callable[[Any], Any] | None = None,
    ) -> None:
        self.hold_s = hold_s
        self.silence_s = silence_s
        self.lease_s = lease_s
        self.answers: Callable[[Kind, str], int] = lambda kind, job_id: 200
        self.ledger = Ledger(brief=brief)
        self.held: Counter[str] = Counter()
        self._queue = JobQueue()
        self._stops: defaultdict[str, list[str]] = defaultdict(list)
        self._changed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._closed = False

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=8 * MAX_BODY_BYTES["done"])
        app.router.add_get(r"/v2/fake/{take:job-take|job-take-batch}/{worker}", self._take)
        app.router.add_get("/v2/fake/job-stop/{worker}", self._stop)
        app.router.add_get("/v2/fake/ping/{worker}", self._ping)
        app.router.add_post(r"/v2/fake/job-{kind:stream|done}/{worker}/{job}", self._post)
        # A poll of a killed worker must not take a job along, hence the cancellation.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0]
        self._base = f"http://{host}:{port}/v2/fake"
        self._watch = asyncio.create_task(self._requeue_unheard())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closed = True
        self._watch.cancel()
        self._notify(*self._changed)
        await self._runner.cleanup()

    def env(self, *, worker_id: str = "fake-worker") -> dict[str, str]:
        """What RunPod sets in a container; the SDK's own checks are off because they leave the machine."""
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{self._base}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self._base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self._base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{self._base}/ping/$RUNPOD_POD_ID",
            "RUNPOD_POD_ID": worker_id,
            "RUNPOD_ENDPOINT_ID": "fake",
            "RUNPOD_AI_API_KEY": "fake-api-key",
            "RUNPOD_PING_INTERVAL": "1000",  # ms; the SDK divides it to whole seconds, so less would be a busy loop
            "RUNPOD_LOG_LEVEL": "INFO",
            "RUNPOD_SKIP_GPU_CHECK": "true",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def submit(self, input: object, *, id: str | None = None, deliveries: int = 1, only: str | None = None) -> str:
        """Queue a job, `deliveries` times. An id used before is delivered again with its first input.

        only  the id of the one worker that is given it; if that one lets it down, it is anybody's
        """
        job_id = id or f"fake-{uuid.uuid4()}-e1"
        self.ledger.jobs.setdefault(job_id, JobRecord(input))
        self._queue.put(job_id, deliveries=deliveries, only=only)
        self._notify("queue")
        return job_id

    def cancel(self, id: str) -> None:
        """Take the job out of the queue, and tell every worker that has taken it."""
        job = self.ledger[id]
        job.cancelled = True
        self._queue.drop(id)
        for worker_id in set(job.taken_by):
            self._stops[worker_id].append(id)
        self._notify(id, *map("stop {}".format, set(job.taken_by)))

    async def result(self, id: str, *, timeout_s: float, nth: int = 1) -> Result:
        """The nth result that was accepted for this job. raises ResultLost, TimeoutError"""
        job = self.ledger[id]
        await self.until(lambda: len(job.results) >= nth or job.result_lost, timeout_s=timeout_s, about=id)
        if len(job.results) < nth:
            raise ResultLost(f"{id}: {job.rejected}")
        return job.results[nth - 1]

    async def first_chunk(self, id: str, *, timeout_s: float) -> Any:
        job = self.ledger[id]
        await self.until(lambda: bool(job.chunks), timeout_s=timeout_s, about=id)
        return job.chunks[0]

    async def until(self, done: Callable[[], bool], *, timeout_s: float, about: str = ANYTHING) -> None:
        """Wait for a state of the ledger or of `held`; looked at whenever one of them changes. raises TimeoutError

        about  the id of the job that it is a state of: others then wake nobody
        """
        async with asyncio.timeout(timeout_s):
            while not done():
                await self._changed[about].wait()

    def _notify(self, *about: str) -> None:
        for what in {*about, ANYTHING}:
            if changed := self._changed.pop(what, None):
                changed.set()

    async def _hold(self, what: str, ready: Callable[[], bool], *, about: str) -> None:
        self.held[what] += 1
        self._notify()
        try:
            with suppress(TimeoutError):
                await self.until(lambda: self._closed or ready(), timeout_s=self.hold_s, about=about)
        finally:
            self.held[what] -= 1

    async def _take(self, request: web.Request) -> web.Response:
        worker_id = request.match_info["worker"]
        self.held[worker_id] += 1
        try:
            await self._hold("take", lambda: self._queue.has_for(worker_id), about="queue")
        finally:
            self.held[worker_id] -= 1
        taken = self._queue.take(worker_id, int(request.query.get("batch_size", "1")))
        for job_id in taken:
            self.ledger[job_id].taken_by.append(worker_id)
            self.ledger[job_id].taken_s.append(time.monotonic())
        self._notify(*taken)
        if not taken:
            return web.Response(status=204)
        jobs = [{"id": job_id, "input": self.ledger[job_id].input} for job_id in taken]
        return web.json_response(jobs if request.match_info["take"] == "job-take-batch" else jobs[0])

    async def _requeue_unheard(self) -> None:
        while self.lease_s is not None:
            await asyncio.sleep(self.lease_s / 4)
            requeued = self._queue.requeue_unheard(self.lease_s)
            for job_id in requeued:
                self.ledger[job_id].requeued += 1
            self._notify("queue", *requeued)

    async def _stop(self, request: web.Request) -> web.Response:
        worker_id = request.match_info["worker"]
        await self._hold("stop", lambda: bool(self._stops[worker_id]), about=f"stop {worker_id}")
        job_ids = self._stops.pop(worker_id, [])
        for job_id in job_ids:
            self.ledger[job_id].stop_sent = True
        self._notify(*job_ids)
        return web.json_response({"jobsToStop": job_ids}) if job_ids else web.Response(status=204)

    async def _ping(self, request: web.Request) -> web.Response:
        if request.query.get("status") == "unhealthy":
            self.ledger.faults.append(f"unhealthy: {request.query.get('reason')}")
        named = request.query.get("job_id", "")
        self.ledger.pings.append(named)
        self._queue.heard(request.match_info["worker"], named.split(","))
        self._notify()
        return web.Response()

    async def _post(self, request: web.Request) -> web.Response:
        kind: Kind = "done" if request.match_info["kind"] == "done" else "stream"
        job_id, raw = request.match_info["job"], await request.read()
        arrival = Arrival(request.match_info["worker"], time.monotonic())
        answered = self.ledger.count_answers(job_id)
        status = self.ledger.enter(kind, job_id, raw=raw, status=self.answers(kind, job_id), arrival=arrival)
        if self.ledger.count_answers(job_id) > answered:
            self._queue.answered(arrival.worker_id, job_id)
        self._notify(job_id)
        if status == NO_ANSWER:
            await self._fall_silent(request)
        return web.Response(status=status)

    async def _fall_silent(self, request: web.Request) -> NoReturn:
        with suppress(TimeoutError):
            await self.until(lambda: self._closed, timeout_s=self.silence_s, about="closed")
        assert request.transport is not None
        request.transport.abort()
        raise asyncio.CancelledError


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker; its standard output and errors go to one file."""

    process: asyncio.subprocess.Process
    log_path: Path

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def kill(self) -> None:
        """As a container ends: every process at once. The SDK's pings come from one of its own, and would go on."""
        os.killpg(self.process.pid, signal.SIGKILL)

    async def exit_code(self, *, timeout_s: float) -> int:
        """Wait for the worker to leave by itself. raises TimeoutError"""
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()


@asynccontextmanager
async def worker(platform: FakePlatform, command: Sequence[str], *, env: Mapping[str, str]) -> AsyncIterator[Worker]:
    """Run a worker of this platform in its own session; at the end nothing of it is alive.

    env     comes on top of the platform's, and that on top of ours without its XTTS_ and RUNPOD_ names
    raises  ProcessesLeft if a descendant outlives the worker that left by itself, or the end of its process group
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("XTTS_", "RUNPOD_"))}
    mark = new_mark()
    everything = ours | platform.env() | dict(env) | mark
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, env=everything, start_new_session=True
        )
        running = Worker(process, Path(log.name))
        try:
            yield running
        except BaseException as exc:
            exc.add_note(f"the worker's log:\n{running.log()[-8_000:]}")
            raise
        finally:
            await end_family(process, mark)
