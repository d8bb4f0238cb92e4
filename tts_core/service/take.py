"""One reading of a text: encoded as it is spoken, recorded, measured, and streamed if that was asked for."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tts_core.audio.encode import Encoder
from tts_core.jobs import JsonObject, Synthesize
from tts_core.service.alignments import Alignments
from tts_core.service.delivery import MAX_CHUNK_BYTES, ChunkStream, Emit, Recording, refuse_above_inline
from tts_core.service.run import Attempt
from tts_core.store import Objects
from tts_core.synthesizer import Spoken
from tts_core.types import Manner, Quality, Utterance, Warn

FIRST_CHUNK_S = 0.1
MAX_CHUNK_S = 6.4
"""A streamed chunk is held until it is this long, doubling from the first one: each post to RunPod costs a round
trip, and an engine at twice real time or better makes the next chunk while this one plays."""

PROGRESS_S = 1.0
"""Between two progress events; RunPod keeps every one of them in the job's result."""


@dataclass(frozen=True, slots=True)
class Script:
    """What is about to be spoken, and what becomes of it.

    engine_rate_hz  of the samples that are heard
    rate_hz         of the encoded audio
    warnings        what of the text will not be heard
    audio_path      object path of the recording
    """

    plan: Sequence[Utterance]
    manner: Manner
    engine_rate_hz: int
    rate_hz: int
    warnings: Sequence[Warn]
    audio_path: str


class Take:
    """Hears what is spoken, in order; `finish` once at the end, `close` in any case."""

    def __init__(self, request: Synthesize, script: Script, attempt: Attempt, *, emit: Emit, objects: Objects) -> None:
        # A name per attempt: what an earlier one has told its listeners must not change.
        fence = attempt.reserved.fence
        self.recording = Recording(request.format)
        self.alignments = Alignments(request.text, script.plan, script.engine_rate_hz)
        self.chunks = ChunkStream(emit, objects, path=f"{script.audio_path}.{fence}", audio_format=request.format)
        self.quality = QualityReport()
        self.first_audio_s: float | None = None
        self._request = request
        self._attempt = attempt
        self._rate_hz = script.engine_rate_hz
        self._encoder = Encoder(request.format, source_rate_hz=script.engine_rate_hz, sample_rate_hz=script.rate_hz)
        self._pacer = Pacer(self.chunks)
        self._progress = Progress(emit, total=len(script.plan))

    async def hear(self, spoken: Spoken) -> None:
        """Encode, record, stream; what was spoken is charged from here on, whatever happens to it later."""
        self.alignments.follow(spoken)
        self.quality.follow(spoken)
        data = await asyncio.to_thread(self._encoder.write, spoken.samples)
        self._attempt.audio_seconds += len(spoken.samples) / self._rate_hz
        if self.first_audio_s is None and len(spoken.samples):
            self.first_audio_s = time.monotonic()
        await self._pass_on(data)
        if self._request.progress and spoken.finished:
            await self._progress.tell(spoken.utterance + 1, self._attempt.audio_seconds)

    async def finish(self) -> None:
        """Flush the encoder and the stream, and give the recording its final header."""
        await self._pass_on(await asyncio.to_thread(self._encoder.finish))
        if self._request.streaming:
            await self._pacer.flush()
            self._attempt.chunks_sent = self.chunks.sent
        self.recording.seal()

    def close(self) -> None:
        self.recording.close()

    async def _pass_on(self, data: bytes) -> None:
        self.recording.write(data)
        self._attempt.audio_bytes = self.recording.size_bytes
        if self._request.streaming:
            await self._pacer.push(data, now_s=self._attempt.audio_seconds)
            self._attempt.chunks_sent = self.chunks.sent
        elif self._request.output == "inline":
            refuse_above_inline(self.recording.size_bytes)


class QualityReport:
    """What the engine thought of the utterances of a stream."""

    def __init__(self) -> None:
        self._heard: list[tuple[int, Quality]] = []

    def follow(self, spoken: Spoken) -> None:
        if spoken.quality is not None:
            self._heard.append((spoken.utterance, spoken.quality))

    def told(self) -> JsonObject | None:
        """None from engines that do not judge; the verdict is "ok" where all utterances are."""
        if not self._heard:
            return None
        bad = [{"utterance": index, **asdict(quality)} for index, quality in self._heard if quality.verdict != "ok"]
        retries = sum(quality.retries for _, quality in self._heard)
        return {"verdict": bad[0]["verdict"] if bad else "ok", "retries": retries, "utterances": bad}


class Pacer:
    """Holds encoded audio back until a chunk is worth a post: the first one early, later ones longer."""

    def __init__(self, chunks: ChunkStream) -> None:
        self._chunks = chunks
        self._held = bytearray()
        self._sent_until_s = 0.0
        self._chunk_s = FIRST_CHUNK_S

    async def push(self, data: bytes, *, now_s: float) -> None:
        """now_s: seconds of audio encoded so far"""
        self._held += data
        is_due = now_s - self._sent_until_s >= self._chunk_s or len(self._held) >= MAX_CHUNK_BYTES
        if self._held and is_due:
            self._sent_until_s = now_s
            self._chunk_s = min(self._chunk_s * 2, MAX_CHUNK_S)
            await self.flush()

    async def flush(self) -> None:
        data = bytes(self._held)
        self._held.clear()
        await self._chunks.send(data)


class Progress:
    """Tells how far a long request is, about once a second and at its end."""

    def __init__(self, emit: Emit, *, total: int) -> None:
        self._emit = emit
        self._total = total
        self._told_s = time.monotonic()

    async def tell(self, done: int, audio_seconds: float) -> None:
        now_s = time.monotonic()
        if done == self._total or now_s - self._told_s >= PROGRESS_S:
            self._told_s = now_s
            await self._emit(self._event(done, audio_seconds))

    def _event(self, done: int, audio_seconds: float) -> JsonObject:
        return {
            "event": "progress",
            "utterances_done": done,
            "utterances_total": self._total,
            "audio_seconds": round(audio_seconds, 2),
        }
