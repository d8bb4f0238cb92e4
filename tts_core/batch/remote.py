"""A line spoken by a RunPod endpoint: queued, watched, read."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tts_core.batch.endpoint import Endpoint, JobState
from tts_core.batch.events import Assembly
from tts_core.batch.failures import UNTOLD, LineFailed
from tts_core.batch.options import MAX_TTL_S
from tts_core.batch.runner import Ask, Spoken

FIRST_POLL_S, LAST_POLL_S = 0.5, 5.0

POLLS_PER_S = 100.0
"""Of all lines together: half of what RunPod accepts."""

TTL_BEYOND_S = 60.0
"""A job whose time to live is over is forgotten, and its cost with it: we cancel before that, and ask."""


@dataclass(frozen=True, slots=True)
class Remote:
    """job_timeout_s: from queued to spoken; the job is cancelled and given up then. streams: read while it is spoken"""

    endpoint: Endpoint
    tenant_key: str
    job_timeout_s: float
    parallel: int
    streams: bool

    async def speak(self, ask: Ask) -> Spoken:
        """raises  LineFailed"""
        job_id = ask.job_id or await self._queue(ask)
        try:
            async with asyncio.timeout(self.job_timeout_s):
                # Of a job from an earlier run, /stream has told a part already.
                return await (self._listen(ask, job_id) if self.streams and not ask.job_id else self._wait(ask, job_id))
        except TimeoutError as exc:
            failure = LineFailed.ours("job_timed_out", f"not spoken after {self.job_timeout_s:g} s, cancelled")
            failure.execution_ms = await self._cancel(job_id)
            raise failure from exc
        except LineFailed as failure:
            if failure.code in UNTOLD:
                failure.job_id = job_id
            raise

    async def _queue(self, ask: Ask) -> str:
        body = ask.body | {"tenant_key": self.tenant_key}
        ttl_s = min(self.job_timeout_s + TTL_BEYOND_S, MAX_TTL_S)
        policy = {"ttl": round(ttl_s * 1000)}  # RunPod gives it up, too, even if we are dead by then
        job_id = await self.endpoint.run({"input": body, "policy": policy})
        await ask.queued(job_id)
        return job_id

    async def _cancel(self, job_id: str) -> int:
        """What is billed for it: until it is cancelled, a job costs what any other does. 0 if RunPod does not say."""
        with suppress(LineFailed):
            await self.endpoint.cancel(job_id)
        with suppress(LineFailed):
            return (await self.endpoint.status(job_id)).execution_ms
        return 0

    async def _wait(self, ask: Ask, job_id: str) -> Spoken:
        for wait_s in self._polls():
            await asyncio.sleep(wait_s)
            job = await self.endpoint.status(job_id)
            if job.has_ended:
                return await self._read(ask, job)
        raise AssertionError("polls never end")

    async def _listen(self, ask: Ask, job_id: str) -> Spoken:
        """As `_wait`, but takes the audio while it is spoken; what the stream has lost, the job's whole output has."""
        assembly = Assembly(ask.part, self.endpoint.fetch)
        for wait_s in self._polls(longest_s=1.0):
            await asyncio.sleep(wait_s)
            job, events = await self.endpoint.stream(job_id)
            try:
                for event in events:
                    await assembly.take(event)
                if job.status == "COMPLETED":
                    result = await assembly.finish()
                    # /stream does not tell what is billed; the worker's own time is what it knows.
                    return Spoken(result, job.execution_ms or result.get("timings_ms", {}).get("kept", 0))
            except LineFailed:
                break
            if job.has_ended:
                break
        ask.part.clear()
        return await self._wait(ask, job_id)

    async def _read(self, ask: Ask, job: JobState) -> Spoken:
        _refuse_unspoken(job)
        assembly = Assembly(ask.part, self.endpoint.fetch)
        try:
            for event in job.output if isinstance(job.output, list) else [job.output]:
                await assembly.take(event)
            return Spoken(await assembly.finish(), job.execution_ms)
        except LineFailed as failure:
            failure.execution_ms = job.execution_ms
            raise

    def _polls(self, longest_s: float = LAST_POLL_S) -> Iterator[float]:
        """Waits before each look at a job, longer and longer, never more of them than RunPod accepts."""
        wait_s = max(FIRST_POLL_S, self.parallel / POLLS_PER_S)
        while True:
            yield wait_s * (0.8 + 0.4 * random.random())  # noqa: S311
            wait_s = max(min(wait_s * 1.5, longest_s), self.parallel / POLLS_PER_S)


def _refuse_unspoken(job: JobState) -> None:
    """raises  LineFailed for a job that ended otherwise than COMPLETED"""
    match job.status:
        case "COMPLETED":
            return
        case "FAILED":
            failure = LineFailed.told(job.error)
        case "TIMED_OUT":
            failure = LineFailed.ours("job_timed_out")
        case _:
            # Not sent again in this run: whoever cancels or purges has a reason.
            failure = LineFailed.ours("job_cancelled", retryable=False)
    failure.execution_ms = job.execution_ms
    raise failure
