"""RunPod's side of the worker protocol on loopback, for the real SDK loop, with a ledger of all that passed.

Urls, placeholders, limits and answers are those of runpod 1.12 (`rp_job`, `rp_http`, `rp_ping`) and RunPod's docs.
"""

import asyncio
import os
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from tests.ledger import MAX_BODY_BYTES, JobRecord, Kind, Ledger, Result
from tests.processes import end_family, new_mark


class ResultLost(Exception):
    """RunPod would show this job as COMPLETED without output: its result was refused."""


class FakePlatform:
    """Hands out jobs, takes what comes back, and remembers both.

    hold_s   how long an empty job-take or job-stop poll is held; a SIGTERM is obeyed only after it (RunPod: up to 90)
    answers  HTTP status for one post, asked before the size is looked at; 200 accepts it
    held     polls that wait right now, by "take" and "stop"
    """

    def __init__(self, *, hold_s: float = 1.0) -> None:
        self.hold_s = hold_s
        self.answers: Callable[[Kind, str], int] = lambda kind, job_id: 200
        self.ledger = Ledger()
        self.held: Counter[str] = Counter()
        self._queue: list[str] = []
        self._stops: defaultdict[str, list[str]] = defaultdict(list)
        self._changed = asyncio.Event()
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
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closed = True
        self._notify()
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

    def submit(self, input: object, *, id: str | None = None, deliveries: int = 1) -> str:
        """Queue a job, `deliveries` times. An id used before is delivered again with its first input."""
        job_id = id or f"fake-{uuid.uuid4()}-e1"
        self.ledger.jobs.setdefault(job_id, JobRecord(input))
        self._queue += [job_id] * deliveries
        self._notify()
        return job_id

    def cancel(self, id: str) -> None:
        """Take the job out of the queue, and tell every worker that has taken it."""
        job = self.ledger[id]
        job.cancelled = True
        self._queue = [queued for queued in self._queue if queued != id]
        for worker_id in set(job.taken_by):
            self._stops[worker_id].append(id)
        self._notify()

    async def result(self, id: str, *, timeout_s: float, nth: int = 1) -> Result:
        """The nth result that was accepted for this job. raises ResultLost, TimeoutError"""
        job = self.ledger[id]
        await self.until(lambda: len(job.results) >= nth or job.result_lost, timeout_s=timeout_s)
        if len(job.results) < nth:
            raise ResultLost(f"{id}: {job.rejected}")
        return job.results[nth - 1]

    async def first_chunk(self, id: str, *, timeout_s: float) -> Any:
        job = self.ledger[id]
        await self.until(lambda: bool(job.chunks), timeout_s=timeout_s)
        return job.chunks[0]

    async def until(self, done: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait for a state of the ledger or of `held`; looked at whenever one of them changes. raises TimeoutError"""
        async with asyncio.timeout(timeout_s):
            while not done():
                await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _hold(self, what: str, ready: Callable[[], bool]) -> None:
        self.held[what] += 1
        self._notify()
        try:
            with suppress(TimeoutError):
                await self.until(lambda: self._closed or ready(), timeout_s=self.hold_s)
        finally:
            self.held[what] -= 1

    async def _take(self, request: web.Request) -> web.Response:
        await self._hold("take", lambda: bool(self._queue))
        wanted = int(request.query.get("batch_size", "1"))
        taken, self._queue = self._queue[:wanted], self._queue[wanted:]
        for job_id in taken:
            self.ledger[job_id].taken_by.append(request.match_info["worker"])
        self._notify()
        if not taken:
            return web.Response(status=204)
        jobs = [{"id": job_id, "input": self.ledger[job_id].input} for job_id in taken]
        return web.json_response(jobs if request.match_info["take"] == "job-take-batch" else jobs[0])

    async def _stop(self, request: web.Request) -> web.Response:
        worker_id = request.match_info["worker"]
        await self._hold("stop", lambda: bool(self._stops[worker_id]))
        job_ids = self._stops.pop(worker_id, [])
        for job_id in job_ids:
            self.ledger[job_id].stop_sent = True
        self._notify()
        return web.json_response({"jobsToStop": job_ids}) if job_ids else web.Response(status=204)

    async def _ping(self, request: web.Request) -> web.Response:
        if request.query.get("status") == "unhealthy":
            self.ledger.faults.append(f"unhealthy: {request.query.get('reason')}")
        self.ledger.pings.append(request.query.get("job_id", ""))
        self._notify()
        return web.Response()

    async def _post(self, request: web.Request) -> web.Response:
        kind: Kind = "done" if request.match_info["kind"] == "done" else "stream"
        job_id, raw = request.match_info["job"], await request.read()
        status = self.ledger.enter(kind, job_id, raw=raw, status=self.answers(kind, job_id))
        self._notify()
        return web.Response(status=status)


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker; its standard output and errors go to one file."""

    process: asyncio.subprocess.Process
    log_path: Path

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

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
