"""The real worker with an engine that breaks or hangs where a text says so: faults a healthy eSpeak never has."""

import asyncio
import os
from collections.abc import AsyncGenerator

import handler
from tts_core.espeak import EspeakEngine
from tts_core.settings import Settings
from tts_core.types import Audience, AudioChunk, Manner, Utterance

BREAKS = "the engine breaks here"
HANGS = "the engine hangs here"


class FaultyEngine(EspeakEngine):
    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        if BREAKS in utterance.text:
            raise RuntimeError(f"secret: {utterance.text}")
        if HANGS in utterance.text:
            await asyncio.Event().wait()
        async for chunk in super().speak(utterance, manner, audience):
            yield chunk


if __name__ == "__main__":
    service = handler.build(Settings.from_env(os.environ), engine=FaultyEngine())
    handler.serve(handler.make_handler(service), handler.Caretaker(service, concurrency=8))
