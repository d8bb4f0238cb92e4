"""A line spoken by the handler in this process, through the same events."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from tts_core.batch.events import Assembly
from tts_core.batch.failures import LineFailed
from tts_core.batch.part import Part
from tts_core.batch.runner import Ask, Spoken
from tts_core.jobs import Handler
from tts_core.jobs.files import file_at


@dataclass(frozen=True, slots=True)
class Local:
    handler: Handler
    tenant_key: str

    async def speak(self, ask: Ask) -> Spoken:
        """raises  LineFailed"""
        assembly = Assembly(ask.part, _read_file)
        job = {"id": ask.body["idempotency_key"], "input": ask.body | {"tenant_key": self.tenant_key}}
        async with aclosing(self.handler(job)) as events:
            async for event in events:
                await assembly.take(event)
        result = await assembly.finish()
        return Spoken(result, result.get("timings_ms", {}).get("kept", 0))


async def _read_file(url: str, part: Part) -> None:
    path = file_at(url)
    if path is None:
        message = "this store's audio is not on this machine: send output=inline"
        raise LineFailed.ours("audio_unreachable", message, retryable=False)
    part.write(await asyncio.to_thread(path.read_bytes))
