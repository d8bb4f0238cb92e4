"""A line spoken by the handler in this process, through the same events."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tts_core.batch.events import Assembly
from tts_core.batch.failures import LineFailed
from tts_core.batch.part import Part
from tts_core.batch.runner import Ask, Spoken
from tts_core.jobs import JsonObject

Handler = Callable[[JsonObject], AsyncGenerator[JsonObject]]


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
    address = urlsplit(url)
    if address.scheme != "file":
        message = "this store's audio is not on this machine: send output=inline"
        raise LineFailed.ours("audio_unreachable", message, retryable=False)
    part.write(await asyncio.to_thread(Path(url2pathname(address.path)).read_bytes))
