"""One listener of a flight: what it is sent while the answer is made, and what it is charged."""

import time

from tts_core.jobs import JsonObject, Synthesize
from tts_core.service.attempt import Attempt
from tts_core.service.delivery import MAX_CHUNK_BYTES, ChunkStream, Emit, refuse_above_inline
from tts_core.service.flight import Answer, Seat
from tts_core.service.take import Take
from tts_core.store import Objects

FIRST_CHUNK_S = 0.1
MAX_CHUNK_S = 6.4
"""A streamed chunk is held until it is this long, doubling from the first one: each post to RunPod costs a round
trip, and an engine at twice real time or better makes the next chunk while this one plays."""

PROGRESS_S = 1.0
"""Between two progress events; RunPod keeps every one of them in the job's result."""


class Listening:
    """Streams, reports and refuses as the request wants it, and keeps the attempt's account."""

    def __init__(self, request: Synthesize, attempt: Attempt, *, path: str, emit: Emit, objects: Objects) -> None:
        """path: of the objects that a stream becomes which is too long to be sent"""
        # A name per attempt: what an earlier one has told its listeners must not change.
        path = f"{path}.{attempt.reserved.fence}"
        self.chunks = ChunkStream(emit, objects, path=path, audio_format=request.format)
        self._request = request
        self._attempt = attempt
        self._pacer = Pacer(self.chunks)
        self._progress = Progress(emit)
        self._read_bytes = 0

    async def follow(self, seat: Seat) -> Answer:
        """Hear a flight to its end. What was spoken is charged to who pays for it, whatever happens to it later."""
        try:
            while await seat.changed():
                assert seat.take is not None
                await self._hear(seat.take)
        finally:
            if (take := seat.take) is not None:
                self._charge(seat, take.audio_seconds, take.recording.size_bytes)
        answer = seat.answer
        self._attempt.first_audio_s = self._attempt.first_audio_s or time.monotonic()
        self._charge(seat, answer.entry.audio_seconds, len(answer.audio))
        if self._request.streaming:
            await self._send_rest(answer)
        return answer

    async def _hear(self, take: Take) -> None:
        self._attempt.first_audio_s = self._attempt.first_audio_s or take.first_audio_s
        if self._request.streaming:
            await self._stream(take)
        elif self._request.output == "inline":
            refuse_above_inline(take.recording.size_bytes)
        if self._request.progress:
            await self._progress.tell(take)

    async def _stream(self, take: Take) -> None:
        data = take.recording.read(self._read_bytes)
        self._read_bytes += len(data)
        await self._pacer.push(data, now_s=take.audio_seconds)
        if take.finished:
            await self._pacer.flush()

    async def _send_rest(self, answer: Answer) -> None:
        """All of it, if the answer was at hand or came before it was heard."""
        await self._pacer.flush()
        await self.chunks.send(answer.audio[self._read_bytes :])

    def _charge(self, seat: Seat, audio_seconds: float, audio_bytes: int) -> None:
        paid = seat.take if seat.pays else None
        self._attempt.cached = not seat.pays
        self._attempt.audio_seconds = audio_seconds - (paid.paid_seconds if paid else 0)
        self._attempt.audio_bytes = audio_bytes - (paid.paid_bytes if paid else 0)


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

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._told_s = time.monotonic()
        self._told = 0

    async def tell(self, take: Take) -> None:
        now_s, done = time.monotonic(), take.utterances_done
        is_due = done == take.utterances or now_s - self._told_s >= PROGRESS_S
        if done > self._told and is_due:
            self._told_s, self._told = now_s, done
            await self._emit(_progress(take))


def _progress(take: Take) -> JsonObject:
    return {
        "event": "progress",
        "utterances_done": take.utterances_done,
        "utterances_total": take.utterances,
        "audio_seconds": round(take.audio_seconds, 2),
    }
