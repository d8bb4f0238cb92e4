"""The real worker with an engine that speaks no faster than a GPU would: jobs last, so that many run at once.

PACE in the environment: how many seconds of an utterance are spoken in one second. TAPE=1: each sentence of the load
is spoken by eSpeak once, when it is first asked for, and played from memory after that: a process of eSpeak per
utterance takes three times what all the rest of the worker does.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace

import handler
from benchmarks.common import TEXTS
from tts_core.espeak import EspeakEngine
from tts_core.settings import Settings
from tts_core.types import Audience, AudioChunk, FloatArray, Manner, Utterance

BLOCK_S = 0.25
"""Of a tape: about what an engine delivers at once."""


class PacedEngine(EspeakEngine):
    def __init__(self, pace: float) -> None:
        super().__init__()
        self._pace = pace

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        begun_s, spoken_s = time.monotonic(), 0.0
        async for chunk in self._source(utterance, manner, audience):
            spoken_s += len(chunk.samples) / self.sample_rate_hz
            await asyncio.sleep(begun_s + spoken_s / self._pace - time.monotonic())
            yield chunk

    def _source(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        return super().speak(utterance, manner, audience)


class TapeEngine(PacedEngine):
    """Plays its sentences in the order of the text, and has one for everything that is none of them."""

    def __init__(self, pace: float) -> None:
        super().__init__(pace)
        self._tapes: dict[str, asyncio.Task[list[FloatArray]]] = {}

    async def _source(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        for sentence in sentences_of(utterance.text):
            if sentence not in self._tapes:
                alone = replace(utterance, text=sentence)
                self._tapes[sentence] = asyncio.create_task(self._record(alone, manner, audience))
            for block in await asyncio.shield(self._tapes[sentence]):
                yield AudioChunk(block)

    async def _record(self, sentence: Utterance, manner: Manner, audience: Audience) -> list[FloatArray]:
        block = round(BLOCK_S * self.sample_rate_hz)
        spoken = super()._source(sentence, manner, audience)
        pieces = [chunk.samples async for chunk in spoken]
        return [piece[at : at + block] for piece in pieces for at in range(0, len(piece), block)]


def sentences_of(text: str) -> Iterator[str]:
    """Those of the load that begin in the text, in order; what is left of it counts as one more."""
    found = sorted((text.index(sentence), sentence) for sentence in TEXTS if sentence in text)
    yield from (sentence for _, sentence in found)
    yield "That was a number."


if __name__ == "__main__":
    settings, pace = Settings.from_env(os.environ), float(os.environ["PACE"])
    engine = TapeEngine(pace) if os.environ.get("TAPE") == "1" else PacedEngine(pace)
    service = handler.build(settings, engine=engine)
    handler.serve(handler.make_handler(service), handler.Caretaker(service, concurrency=settings.concurrency))
