"""The real worker with an engine that speaks no faster than a GPU would: jobs last, so that many run at once.

PACE in the environment: how many seconds of an utterance are spoken in one second.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator

import handler
from tts_core.espeak import EspeakEngine
from tts_core.settings import Settings
from tts_core.types import Audience, AudioChunk, Manner, Utterance


class PacedEngine(EspeakEngine):
    def __init__(self, pace: float) -> None:
        super().__init__()
        self._pace = pace

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        begun_s, spoken_s = time.monotonic(), 0.0
        async for chunk in super().speak(utterance, manner, audience):
            spoken_s += len(chunk.samples) / self.sample_rate_hz
            await asyncio.sleep(begun_s + spoken_s / self._pace - time.monotonic())
            yield chunk


if __name__ == "__main__":
    settings = Settings.from_env(os.environ)
    service = handler.build(settings, engine=PacedEngine(float(os.environ["PACE"])))
    handler.serve(handler.make_handler(service), handler.Caretaker(service, concurrency=settings.concurrency))
