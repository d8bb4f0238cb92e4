"""A worker and one tenant's way to it, for tests of the cache."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import numpy as np

from tests.scripted_engine import ScriptedEngine
from tts_core.service import Service
from tts_core.store import NewKey, UsageRow
from tts_core.types import Audience, AudioChunk, BuiltinVoice, Manner, Quality, Utterance

Event = dict[str, Any]


class TwoVoices(ScriptedEngine):
    """Has a second voice, and judges itself as it is told to."""

    verdict = "ok"

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()

    def voices(self) -> Sequence[BuiltinVoice]:
        return (*super().voices(), BuiltinVoice("onyx", "Onyx", "male"))

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        self.begun.set()
        async with aclosing(super().speak(utterance, manner, audience)) as chunks:
            async for chunk in chunks:
                yield chunk
        yield AudioChunk(np.zeros(0, np.float32), quality=Quality(self.verdict))


class Worker:
    """One worker, and one tenant's way to it."""

    def __init__(self, service: Service, key: NewKey) -> None:
        assert isinstance(service.engine, TwoVoices)
        self.service, self.engine, self.key = service, service.engine, key

    async def events(self, body: Event) -> list[Event]:
        return [event async for event in self.service.answer(self.asked(body), job_id=self.job_id())]

    def asked(self, body: Event) -> Event:
        return {"tenant_key": self.key.secret, **body}

    def job_id(self) -> str:
        return uuid4().hex

    async def ask(self, action: str, **fields: object) -> Event:
        *_, answer = await self.events({"action": action, **fields})
        assert "error" not in answer, answer
        return answer

    async def refused(self, action: str, **fields: object) -> Event:
        *_, answer = await self.events({"action": action, **fields})
        error: Event = json.loads(answer["error"])
        return error

    async def speak(self, text: str = "abc", **fields: object) -> Event:
        return await self.ask("synthesize", text=text, **{"language": "en", **fields})

    def stream(self, text: str, **fields: object) -> AsyncGenerator[Event]:
        body = self.asked({"text": text, "language": "en", "streaming": True, **fields})
        return self.service.answer(body, job_id=self.job_id())

    async def usage(self) -> Sequence[UsageRow]:
        await self.settled()
        return await self.service.store.usage(self.key.tenant.id)

    async def boarded(self, seats: int) -> None:
        """Until so many requests wait for the one take that is being made."""
        flying = self.service._synthesis._answers._flights._flying
        while [len(flight._seats) for flight in flying.values()] != [seats]:  # noqa: ASYNC110  nothing tells it
            await asyncio.sleep(0.01)

    async def settled(self) -> None:
        await asyncio.gather(*(run.owner for run in self.service._runs.values()))
