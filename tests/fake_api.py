"""RunPod's public API of one endpoint on loopback: what a client sees of the jobs of a fake platform, faults included.

Routes, states and fields are those of RunPod's docs ("job operations"). `executionTime` is EXECUTION_MS for every job
that was taken and has ended; of one that was cancelled the docs do not say whether they tell it. Addresses of the local
store become addresses of this server: it plays the bucket, too.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from aiohttp import web

from tests.fake_platform import FakePlatform

API_KEY = "rpa_test_key"
EXECUTION_MS = 1500

Odd = Literal["html", "no gzip", "endless"]
Fate = Literal["expired", "cancelled", "lost"]
Fault = Literal[429, 401, 403, 404, 500, "no answer", "gap", "no output", "cut short", Fate, Odd]
"""A number is the status of an answer that does nothing. "no answer": done, and the connection closed. "expired",
"cancelled": what becomes of the job that is queued. "lost": the job is not known from now on. "gap": of the next
result in parts one is missing; "no output": of the next result all is. "cut short": the file ends before its
Content-Length."""

ODD: Mapping[Any, Mapping[str, Any]] = {
    "html": {"text": "<html>Bad gateway</html>", "content_type": "text/html"},
    "no gzip": {"body": b"{}", "headers": {"Content-Encoding": "gzip"}},
    "endless": {"text": '{"status": "IN_PROGRESS", "executionTime": Infinity}', "content_type": "application/json"},
}
"""Answers with status 200 that tell nothing of what was asked."""


class FakeApi:
    """faults: per operation ("run", "status", "stream", "cancel", "file"), in the order they happen, each once.

    calls  how often each operation was asked for; keys_leaked: requests for files that carried RunPod's key
    """

    def __init__(self, platform: FakePlatform) -> None:
        self.platform = platform
        self.faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self.calls: Counter[str] = Counter()
        self.policies: list[Any] = []
        self.keys_leaked = 0
        self._fates: dict[str, str] = {}
        self._told: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=10_000_000)
        app.router.add_post("/v2/{endpoint}/run", self._answering("run", self._run))
        app.router.add_get("/v2/{endpoint}/status/{job}", self._answering("status", self._status))
        app.router.add_get("/v2/{endpoint}/stream/{job}", self._answering("stream", self._stream))
        app.router.add_post("/v2/{endpoint}/cancel/{job}", self._answering("cancel", self._cancel))
        app.router.add_get("/file", self._file)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0]
        self.base = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    def env(self) -> dict[str, str]:
        """Of a client."""
        return {"RUNPOD_ENDPOINT_BASE_URL": f"{self.base}/v2", "RUNPOD_API_KEY": API_KEY, "NO_PROXY": "127.0.0.1"}

    def submitted(self) -> list[Any]:
        """The input of every job that was queued, in order."""
        return [job.input for job in self.platform.ledger.jobs.values()]

    def _answering(
        self, operation: str, act: Callable[[web.Request], Awaitable[Mapping[str, Any] | None]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.calls[operation] += 1
            if request.headers.get("Authorization") != f"Bearer {API_KEY}":
                return web.Response(status=401)
            if request.match_info["endpoint"] != "fake":
                return web.Response(status=404)
            fault = self._take_fault(operation, 429, 401, 403, 404, 500, "no answer", *ODD)
            if fault in ODD:
                return web.Response(**ODD[fault])
            if isinstance(fault, int):
                return web.Response(status=fault, headers={"Retry-After": "0.1"} if fault == 429 else {})
            body = await act(request)
            if fault == "no answer":
                assert request.transport is not None
                request.transport.close()
            return web.json_response(body) if body is not None else web.Response(status=404)

        return answer

    def _take_fault(self, operation: str, *kinds: Fault) -> Fault | None:
        waiting = self.faults[operation]
        return waiting.pop(0) if waiting and waiting[0] in kinds else None

    async def _run(self, request: web.Request) -> Mapping[str, Any]:
        body = await request.json()
        self.policies.append(body.get("policy"))
        job_id = self.platform.submit(body["input"])
        match self._take_fault("run", "expired", "cancelled"):  # no worker can have taken it yet
            case "expired":
                self._end(job_id, "TIMED_OUT")
            case "cancelled":
                self._end(job_id, "CANCELLED")
        return {"id": job_id, "status": "IN_QUEUE"}

    async def _status(self, request: web.Request) -> Mapping[str, Any] | None:
        job_id = request.match_info["job"]
        if self._take_fault("status", "lost"):
            self._fates[job_id] = "lost"
        if job_id not in self.platform.ledger.jobs or self._fates.get(job_id) == "lost":
            return None
        told: dict[str, Any] = {"id": job_id, "status": self._state(job_id), "delayTime": 10}
        job = self.platform.ledger[job_id]
        if job.taken_by and told["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
            told |= {"executionTime": EXECUTION_MS, "workerId": "fake-worker"}
        if told["status"] in ("COMPLETED", "FAILED"):
            result = job.results[0]
            told |= {"error": result.error} if result.error else self._output(result.output)
        return told

    async def _stream(self, request: web.Request) -> Mapping[str, Any] | None:
        job_id = request.match_info["job"]
        if job_id not in self.platform.ledger.jobs:
            return None
        state = self._state(job_id)
        chunks = self.platform.ledger[job_id].chunks[self._told[job_id] :]
        self._told[job_id] += len(chunks)
        return {"status": state, "stream": [{"output": self._with_addresses(chunk)} for chunk in chunks]}

    async def _cancel(self, request: web.Request) -> Mapping[str, Any]:
        job_id = request.match_info["job"]
        self._end(job_id, "CANCELLED")
        return {"id": job_id, "status": "CANCELLED"}

    def _end(self, job_id: str, state: str) -> None:
        self._fates[job_id] = state
        self.platform.cancel(job_id)

    def _state(self, job_id: str) -> str:
        if fate := self._fates.get(job_id):
            return fate
        job = self.platform.ledger.jobs.get(job_id)
        if job is None:
            return "lost"
        if job.results:
            return "FAILED" if job.results[0].error else "COMPLETED"
        return "IN_PROGRESS" if job.taken_by else "IN_QUEUE"

    def _output(self, output: list[Any]) -> dict[str, Any]:
        told = [self._with_addresses(event) for event in output]
        if len(told) > 2 and self._take_fault("status", "gap"):
            del told[1]
        return {} if self._take_fault("status", "no output") else {"output": told}

    def _with_addresses(self, event: Any) -> Any:
        text = json.dumps(event)
        return json.loads(text.replace('"file://', f'"{self.base}/file?path='))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.calls["file"] += 1
        self.keys_leaked += "Authorization" in request.headers
        fault = self._take_fault("file", 403, 500, "cut short")
        if isinstance(fault, int):
            return web.Response(status=fault)
        data = await asyncio.to_thread(Path(request.query["path"]).read_bytes)
        if fault is None:
            return web.Response(body=data)
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        assert request.transport is not None
        request.transport.close()
        return response
