"""A worker's first seconds: an engine that is still being loaded, and how long each phase took.

Jobs that need no speech are answered meanwhile, the others wait for it.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from pathlib import Path
from typing import TypeAlias, TypeVar

from tts_core.errors import EngineLost, StartupError, TTSError, scrubbed
from tts_core.speech import Identity, SpeechEngine
from tts_core.types import Audience, AudioChunk, BuiltinVoice, Language, Manner, ReferenceClip, Speaker, Utterance

log = logging.getLogger(__name__)
T = TypeVar("T")

Start: TypeAlias = Callable[[Callable[[Identity], None]], SpeechEngine]
"""Loads an engine, which takes long; tells what it will be as soon as that is known."""


class StartingEngine:
    """A SpeechEngine from the first moment on.

    A StartupError of the start is told to every job that needs the engine. Anything else that goes wrong there is the
    machine's fault, and means that the engine is lost.
    """

    def __init__(self, start: Start, times: "StartTimes") -> None:
        self._identity: Future[Identity] = Future()
        self._engine: Future[SpeechEngine] = Future()
        # A daemon: a process that is told to end while it starts must not wait for gigabytes to be read.
        threading.Thread(target=self._start, args=(start, times), name="engine-start", daemon=True).start()

    @property
    def name(self) -> str:
        return self._identity.result(timeout=0).name

    @property
    def revision(self) -> str:
        return self._identity.result(timeout=0).revision

    @property
    def sample_rate_hz(self) -> int:
        return self._identity.result(timeout=0).sample_rate_hz

    @property
    def is_ready(self) -> bool:
        return self._engine.done() and self.fault is None

    @property
    def fault(self) -> TTSError | None:
        reason = self._engine.exception(timeout=0) if self._engine.done() else None
        assert reason is None or isinstance(reason, TTSError)
        return reason and type(reason)(str(reason))

    def voices(self) -> Sequence[BuiltinVoice]:
        return self._identity.result(timeout=0).voices

    def max_chars(self, language: Language) -> int:
        return self._identity.result(timeout=0).max_chars(language)

    async def known(self) -> None:
        await _result(self._identity)

    async def lost(self) -> None:
        try:
            engine = await _result(self._engine)
        except EngineLost:
            return
        except StartupError:
            await asyncio.Event().wait()
        await engine.lost()

    async def clone(self, clips: Sequence[ReferenceClip]) -> Speaker:
        engine = await _result(self._engine)
        return await engine.clone(clips)

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        engine = await _result(self._engine)
        async with aclosing(engine.speak(utterance, manner, audience)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def close(self) -> None:
        if self.is_ready:
            await self._engine.result().close()

    def _start(self, start: Start, times: "StartTimes") -> None:
        def announce(identity: Identity) -> None:
            times.mark("engine_known")
            self._identity.set_result(identity)

        try:
            engine = start(announce)
        except StartupError as exc:
            log.error("startup_error: %s", exc)
            self._fail(exc)
        except Exception as exc:  # noqa: BLE001  the root of a thread: those who wait for it are told
            log.error("the engine cannot start: %s", scrubbed(exc))
            self._fail(EngineLost("this worker's device failed while the model was loaded"))
        else:
            times.mark("engine_ready")
            self._engine.set_result(engine)

    def _fail(self, reason: Exception) -> None:
        for future in (self._identity, self._engine):
            if not future.done():
                future.set_exception(reason)


class StartTimes:
    """When each phase of a worker's start was over, in ms since the process began; the last one logs them all."""

    PHASES = frozenset({"imported", "store_open", "taking_jobs", "engine_known", "engine_ready"})

    def __init__(self) -> None:
        self._over: dict[str, int] = {}
        self.mark("imported")

    def mark(self, phase: str) -> None:
        """From any thread; each phase once."""
        assert phase in self.PHASES
        self._over[phase] = process_age_ms()
        if len(self._over) == len(self.PHASES):
            log.info("started", extra={"fields": {"start_ms": dict(self._over)}})


def process_age_ms() -> int:
    """Since the process was started, imports and all. Linux only, as RunPod's workers are; elsewhere 0."""
    stat = Path("/proc/self/stat")
    if not stat.is_file():
        return 0
    started_ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")) * 1000)


async def _result(future: "Future[T]") -> T:
    """Its result; who stops waiting for it takes it from nobody else.

    raises  a reason of its own for each who asks: one for all would hold on to the frames of every job it was told
    """
    try:
        return await asyncio.shield(asyncio.wrap_future(future))
    except TTSError as reason:
        fresh = type(reason)(str(reason))
    raise fresh
