"""Utterances in, one gapless stream of audio out.

Several utterances of a stream are in the engine at once so that they can share its steps; they are read strictly
in order. The reader's pace is the back-pressure: what is decoded but unread is bounded in seconds.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from tts_core.speech import Speak, SpeechEngine
from tts_core.types import Audience, AudioChunk, FloatArray, Manner, Quality, Utterance, WordTiming

WINDOW_UTTERANCES = 4
"""Utterances of one stream in the engine at once: enough to fill a batch, few enough to leave room for others."""

CHARS_PER_S = 15.0
"""How fast most languages are spoken, roughly; only the order of service hangs on it."""

MAX_UNREAD_S = 30.0
"""Decoded audio a stream may have waiting: one utterance of XTTS is at most 28 s."""


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """A stretch of the stream; `utterance` is an index, word times count from the start of the stream.

    samples   [n] float32 mono at the engine's rate; n >= 0
    finished  the utterance and the pause behind it end here
    quality   the engine's judgement of the utterance, if it has one
    """

    samples: FloatArray
    utterance: int
    words: tuple[WordTiming, ...] = ()
    finished: bool = False
    quality: Quality | None = None


class Synthesizer:
    """Speaks plans with one engine; holds no state between streams."""

    def __init__(self, engine: SpeechEngine) -> None:
        self.engine = engine

    async def speak(
        self,
        plan: Sequence[Utterance],
        manner: Manner,
        *,
        tenant: str = "",
        streamed: bool = False,
        source: Speak | None = None,
    ) -> AsyncGenerator[Spoken]:
        """The plan as one stream, `pause_s` of silence behind each utterance.

        tenant    whose turn the engine's work is
        streamed  somebody listens along: the engine is told when each utterance would be missed
        source    whom to ask for each utterance instead of the engine

        Closing the generator stops all work in the engine. An exception of the engine is raised here, at the
        place in the stream where its utterance would have been.
        """
        schedule = _Schedule(tenant, manner.speed, streamed=streamed)
        window = _Window(source or self.engine.speak, manner, schedule, rate_hz=self.engine.sample_rate_hz)
        waiting = iter(plan)
        clock = _Clock(self.engine.sample_rate_hz)
        try:
            for index, utterance in enumerate(plan):
                window.fill(waiting)
                async for chunk in window.read_first():
                    yield clock.spoken(chunk, index)
                yield clock.pause(utterance.pause_s, index)
        finally:
            await window.close()


class _Clock:
    """Places chunks and words on the stream's time line; counts samples, so nothing drifts."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._now = 0
        self._utterance_start = 0

    def spoken(self, chunk: AudioChunk, index: int) -> Spoken:
        offset_s = self._utterance_start / self._rate_hz
        words = tuple(WordTiming(w.start_s + offset_s, w.end_s + offset_s, w.start, w.end) for w in chunk.words)
        self._now += len(chunk.samples)
        return Spoken(chunk.samples, index, words, quality=chunk.quality)

    def pause(self, pause_s: float, index: int) -> Spoken:
        silence = np.zeros(round(pause_s * self._rate_hz), np.float32)
        self._now += len(silence)
        self._utterance_start = self._now
        return Spoken(silence, index, finished=True)


class _Schedule:
    """When the utterances of a stream will be missed by who listens along, as far as their texts tell."""

    def __init__(self, tenant: str, speed: float, *, streamed: bool) -> None:
        self._tenant = tenant
        self._chars_per_s = CHARS_PER_S * speed
        self._due_s = time.monotonic() if streamed else math.inf

    def audience(self, utterance: Utterance) -> Audience:
        """Of the next utterance, in order."""
        audience = Audience(self._tenant, self._due_s)
        self._due_s += len(utterance.text) / self._chars_per_s + utterance.pause_s
        return audience


class _Track:
    """One utterance in the engine: chunks arrive in `chunks`, None is its end."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[AudioChunk | None] = asyncio.Queue()
        self.pump: asyncio.Task[None] | None = None


class _Window:
    """The utterances in the engine, the one being read first."""

    def __init__(self, source: Speak, manner: Manner, schedule: _Schedule, *, rate_hz: int) -> None:
        self._source = source
        self._max_unread = MAX_UNREAD_S * rate_hz
        self._manner = manner
        self._schedule = schedule
        self._tracks: deque[_Track] = deque()
        self._unread_samples = 0
        self._room = asyncio.Event()

    def fill(self, waiting: Iterator[Utterance]) -> None:
        while len(self._tracks) < WINDOW_UTTERANCES and (utterance := next(waiting, None)) is not None:
            track = _Track()
            self._tracks.append(track)
            audience = self._schedule.audience(utterance)
            track.pump = asyncio.create_task(self._run(track, utterance, audience))

    async def read_first(self) -> AsyncGenerator[AudioChunk]:
        track = self._tracks[0]
        while (chunk := await track.chunks.get()) is not None:
            self._unread_samples -= len(chunk.samples)
            self._make_room()
            yield chunk
        self._tracks.popleft()
        self._make_room()
        assert track.pump is not None
        await track.pump  # raises what the engine raised

    async def close(self) -> None:
        pumps = [track.pump for track in self._tracks if track.pump is not None]
        self._tracks.clear()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _run(self, track: _Track, utterance: Utterance, audience: Audience) -> None:
        stream = self._source(utterance, self._manner, audience)
        try:
            async with aclosing(stream):
                async for chunk in stream:
                    track.chunks.put_nowait(chunk)
                    self._unread_samples += len(chunk.samples)
                    await self._wait_for_room(track)
        finally:
            track.chunks.put_nowait(None)

    async def _wait_for_room(self, track: _Track) -> None:
        # The track being read may always add a chunk when its reader has none: otherwise later utterances
        # could fill the bound and wait for it for ever.
        while self._unread_samples > self._max_unread:
            if track is self._tracks[0] and track.chunks.empty():
                return
            await self._room.wait()

    def _make_room(self) -> None:
        """Wake every pump; those that still have to wait take the next event."""
        self._room.set()
        self._room = asyncio.Event()
