"""A SpeechEngine that says what the test wants, when the test wants it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import numpy as np

from tts_core.types import (
    Audience,
    AudioChunk,
    BuiltinVoice,
    FloatArray,
    Language,
    Manner,
    ReferenceClip,
    Speaker,
    Utterance,
    WordTiming,
)

RATE_HZ = 1000


def tone(text: str) -> FloatArray:
    """A hundred samples a character, each character its own level: which text was heard can be read back."""
    return np.concatenate([np.full(100, ord(c) / 1000, np.float32) for c in text])


class ScriptedEngine:
    """Speaks `tone(text)` in chunks of one character; a text with '!' raises, one with '#' waits for `gate`."""

    name = "scripted"
    revision = "1"
    sample_rate_hz = RATE_HZ
    is_ready = True
    fault = None

    def __init__(self) -> None:
        self.dies = asyncio.Event()
        self.gate = asyncio.Event()
        self.active = 0
        self.is_waiting = False
        self.started: list[str] = []
        self.audiences: list[Audience] = []
        self.chunks_made = 0

    async def known(self) -> None:
        pass

    async def lost(self) -> None:
        await self.dies.wait()

    def voices(self) -> Sequence[BuiltinVoice]:
        return (BuiltinVoice("nova", "Nova", "female"),)

    def max_chars(self, language: Language) -> int:
        return 200

    async def clone(self, clips: Sequence[ReferenceClip]) -> Speaker:
        return Speaker(conditioning={"seconds": np.array([clip.report.duration_s for clip in clips], np.float32)})

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        self.audiences.append(audience)
        self.active += 1
        self.started.append(utterance.text)
        try:
            for n, character in enumerate(utterance.text):
                await asyncio.sleep(0)
                if character == "!":
                    raise RuntimeError("the engine broke")
                if character == "#":
                    self.is_waiting = True
                    await self.gate.wait()
                    self.is_waiting = False
                self.chunks_made += 1
                yield AudioChunk(tone(character), (WordTiming(n * 0.1, (n + 1) * 0.1, n, n + 1),))
        finally:
            self.active -= 1

    async def close(self) -> None:
        assert self.active == 0
