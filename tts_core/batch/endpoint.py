"""RunPod's HTTP API of one endpoint, and the addresses of audio.

httpx, not RunPod's own client: that one is synchronous, takes 1.7 s to import, and says neither which status it was
answered with nor how long to wait. Here every request has its own timeouts, and every status its meaning.

Limits per endpoint and user, by RunPod's docs: /run 1000, /status and /stream 2000 requests in 10 s.
"""

import asyncio
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from tts_core.batch.failures import LineFailed
from tts_core.batch.part import Part
from tts_core.batch.retry import Policy
from tts_core.jobs import JsonObject

TRIES = 20
"""Of one request, the first included: ten minutes or more at the usual waits. What 429 refused is not counted."""

SURE = 3
"""As often a question about a job has to be refused: to give a job up that still runs costs another one."""

TIMEOUT = httpx.Timeout(60.0, connect=10.0)
"""Longest silence; an answer of 10 MB may take longer as a whole."""

REFUSALS: Mapping[int, str] = {401: "runpod_unauthorized", 403: "runpod_unauthorized"}
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})


@dataclass(frozen=True, slots=True)
class JobState:
    """What RunPod says of a job. output: all events of a completed one; execution_ms: what it bills so far"""

    status: str
    output: Any
    error: Any
    execution_ms: int

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @classmethod
    def of(cls, body: JsonObject) -> Self:
        ms = body.get("executionTime")
        return cls(
            str(body.get("status")),
            body.get("output"),
            body.get("error"),
            round(ms) if isinstance(ms, int | float) and math.isfinite(ms) else 0,
        )


class Endpoint:
    """Every method: raises LineFailed, after TRIES for what may pass by itself."""

    def __init__(self, address: str, api_key: str, *, parallel: int, policy: Policy) -> None:
        """raises ValueError if the address is none"""
        limits = httpx.Limits(max_connections=parallel + 4)
        bearer = {"Authorization": f"Bearer {api_key}"}
        try:
            self._api = httpx.AsyncClient(base_url=address, headers=bearer, timeout=TIMEOUT, limits=limits)
        except httpx.InvalidURL as exc:
            raise ValueError(str(exc)) from exc
        # Audio lies elsewhere: who keeps it must not be told RunPod's key.
        self._files = httpx.AsyncClient(timeout=TIMEOUT, limits=limits, follow_redirects=True)
        self._policy = policy
        self._not_before_s = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._api.aclose()
        await self._files.aclose()

    async def run(self, body: JsonObject) -> str:
        """Queue a job; its id. One that was queued though no answer came is queued again: same key, same request."""
        answer = await self._ask("POST", "/run", missing="endpoint_not_found", body=body)
        if not isinstance(answer.get("id"), str):
            raise LineFailed.ours("runpod_fault", "RunPod took the job and told no id")
        return str(answer["id"])

    async def status(self, job_id: str) -> JobState:
        return JobState.of(await self._ask("GET", f"/status/{job_id}", missing="job_lost"))

    async def stream(self, job_id: str) -> tuple[JobState, list[Any]]:
        """The events that came since this was asked last, and whether more will come."""
        answer = await self._ask("GET", f"/stream/{job_id}", missing="job_lost")
        chunks = answer.get("stream") or []
        return JobState.of(answer), [chunk.get("output") for chunk in chunks if isinstance(chunk, dict)]

    async def cancel(self, job_id: str) -> None:
        await self._ask("POST", f"/cancel/{job_id}", missing="job_lost")

    async def fetch(self, url: str, part: Part) -> None:
        """Append what lies at an address to the part; whole, by its Content-Length where it has one."""
        if urlsplit(url).scheme not in ("http", "https"):
            message = "the worker keeps audio on a disk of its own: send output=inline, or give the worker a Supabase"
            raise LineFailed.ours("audio_unreachable", message, retryable=False)
        try:
            async with self._files.stream("GET", url) as response:
                if response.status_code != 200:  # mostly an address whose time is over; the next answer has a new one
                    raise LineFailed.ours("audio_unreachable", f"the audio's address answered {response.status_code}")
                async for data in response.aiter_bytes():
                    await asyncio.to_thread(part.write, data)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise LineFailed.ours("audio_unreachable", f"the audio could not be read: {type(exc).__name__}") from exc

    async def _ask(self, method: str, path: str, *, missing: str, body: JsonObject | None = None) -> JsonObject:
        """missing: code of what a 404 says is not there"""
        refusals = 0
        for tries in range(1, TRIES + 1):
            response = await self._answered(method, path, body)
            if isinstance(response, LineFailed):
                fault = response
            elif response.status_code < 400:
                if (answer := _json_of(response)) is not None:
                    return answer
                fault = LineFailed.ours("runpod_fault", "RunPod's API answered what is no JSON object")
            elif response.status_code < 500:
                fault, refusals = _refusal(response, missing), refusals + 1
                if method == "POST" or refusals == SURE:
                    raise fault
            else:
                fault = LineFailed.ours("runpod_fault", f"RunPod's API answered {response.status_code}")
            if tries < TRIES:
                await asyncio.sleep(self._policy.wait_s(tries, random.random()))  # noqa: S311
        raise fault

    async def _answered(self, method: str, path: str, body: JsonObject | None) -> httpx.Response | LineFailed:
        """The answer that is no 429, however long those last: they say that nothing is wrong but the pace."""
        refused = 0
        while True:
            await self._until_welcome()
            try:
                response = await self._api.request(method, path, json=body)
            except httpx.RequestError as exc:
                return LineFailed.ours("runpod_unreachable", f"RunPod's API did not answer: {type(exc).__name__}")
            if response.status_code != 429:
                return response
            refused += 1
            wait_s = _retry_after_s(response) or self._policy.wait_s(refused, random.random())  # noqa: S311
            self._not_before_s = max(self._not_before_s, asyncio.get_running_loop().time() + wait_s)

    async def _until_welcome(self) -> None:
        """What one request is told to wait, all wait: the limit is the endpoint's."""
        await asyncio.sleep(max(0.0, self._not_before_s - asyncio.get_running_loop().time()))


def _json_of(response: httpx.Response) -> JsonObject | None:
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _refusal(response: httpx.Response, missing: str) -> LineFailed:
    status = response.status_code
    if status == 404:
        return LineFailed.ours(missing)
    if code := REFUSALS.get(status):
        return LineFailed.ours(code)
    return LineFailed.ours("runpod_refused", f"RunPod's API answered {status}", retryable=False)


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        return min(max(float(response.headers.get("Retry-After", "")), 0.0), 300.0)
    except ValueError:
        return None  # absent, or a date
