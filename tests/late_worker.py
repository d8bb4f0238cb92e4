"""The real worker whose engine starts, fails to start, or dies when a file of the test's appears in its data folder."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import NoReturn

import handler
from tts_core import logs
from tts_core.errors import EngineLost, StartupError
from tts_core.espeak import EspeakEngine
from tts_core.settings import Settings
from tts_core.speech import Identity, SpeechEngine
from tts_core.starting import Start
from tts_core.types import Audience, AudioChunk, Manner, Utterance

DIES = "the device dies here"


class MortalEngine(EspeakEngine):
    def __init__(self) -> None:
        super().__init__()
        self._died = asyncio.Event()

    async def lost(self) -> None:
        await self._died.wait()

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        if DIES in utterance.text:
            self._died.set()
            raise EngineLost("the device of this worker failed")
        async for chunk in super().speak(utterance, manner, audience):
            yield chunk


def start_when_told(settings: Settings) -> Start:
    def start(announce: Callable[[Identity], None]) -> SpeechEngine:
        engine = MortalEngine()
        announce(engine.identity)
        match _word_in(settings.data_dir / "start"):
            case "misconfigured":
                raise StartupError("the weights do not fit")
            case "broken":
                raise RuntimeError("CUDA error: unknown error, and a secret")
        return engine

    return start


def _word_in(file: Path) -> str:
    while not file.is_file():
        time.sleep(0.02)
    return file.read_text()


class Held:
    """Found in a forked process, as if the thread that loads the model had held the lock of each module at the fork."""

    def find_spec(self, name: str, *_: object) -> NoReturn:
        while True:
            time.sleep(60)


if __name__ == "__main__":
    os.register_at_fork(after_in_child=lambda: sys.meta_path.insert(0, Held()))
    logs.set_up(on_runpod=True)
    handler.choose_engine = start_when_told
    handler.ANSWERING_S = 20.0
    handler.work(os.environ)
