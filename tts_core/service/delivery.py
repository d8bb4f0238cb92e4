"""How audio and results leave within what RunPod takes (DESIGN section 3).

RunPod appends every yield of a job to one aggregate and drops in silence what is too large, so every event is
measured as the JSON it becomes.
"""

import base64
import io
import json
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import BinaryIO, cast

from tts_core.audio.encode import content_type, seal
from tts_core.errors import DiskFull, ResultTooLarge, StoreUnavailable
from tts_core.jobs import JsonObject, Synthesize
from tts_core.store import Objects
from tts_core.types import AudioFormat

MAX_YIELD_BYTES = 500_000
"""Of one event. RunPod takes 1 MB; half of it leaves room for its own wrapping."""

MAX_INLINE_BYTES = 7_000_000
"""Of all audio events of a job. 8 MB for everything leaves 1 MB for addresses, progress and the result."""

MAX_CHUNK_BYTES = (MAX_YIELD_BYTES - 1_000) // 4 * 3
"""Of raw audio in one event, before base64."""

Emit = Callable[[JsonObject], Awaitable[None]]


def wire_bytes(event: JsonObject) -> int:
    """Upper bound of the event's size in a post: every non-ASCII character counted as its escape."""
    return len(json.dumps(event))


MEMORY_BYTES = 1_000_000
"""Of a recording that is held in memory: writing to a file can wait for the disk, and every stream with it."""


class Recording:
    """The encoded audio of one request; what is larger than memory should hold goes to a temporary file.

    Every method but `close`: raises DiskFull
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self.format = audio_format
        self.size_bytes = 0
        self._file: BinaryIO = io.BytesIO()

    def write(self, data: bytes) -> None:
        self.size_bytes += len(data)
        with _on_disk():
            if isinstance(self._file, io.BytesIO) and self.size_bytes > MEMORY_BYTES:
                in_memory = self._file
                self._file = cast(BinaryIO, tempfile.NamedTemporaryFile(prefix="xtts-"))  # noqa: SIM115  closed by `close`
                self._file.write(in_memory.getbuffer())
            self._file.write(data)

    def read(self, start: int) -> bytes:
        """What was written from `start` on."""
        if isinstance(self._file, io.BytesIO):
            return bytes(self._file.getbuffer()[start:])
        with _on_disk():
            self._file.flush()
        return os.pread(self._file.fileno(), self.size_bytes - start, start)

    def seal(self) -> None:
        """Give the finished file the exact sizes that a stream's header cannot have."""
        with _on_disk():
            seal(self._file, self.format)

    def close(self) -> None:
        with suppress(OSError):  # it cannot write what nobody will read
            self._file.close()


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DiskFull(f"the worker cannot keep the audio on its disk: {exc.strerror}") from exc


class ChunkStream:
    """Encoded audio as numbered events: inline up to what a job may hold, then as addresses."""

    def __init__(self, emit: Emit, objects: Objects, *, path: str, audio_format: AudioFormat) -> None:
        self.sent = 0
        self.objects = objects
        self._emit = emit
        self._path = path
        self._format: AudioFormat = audio_format
        self._inline_bytes = 0

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_CHUNK_BYTES):
            await self._send_one(data[start : start + MAX_CHUNK_BYTES])

    async def _send_one(self, data: bytes) -> None:
        event = inline_chunk(self.sent, data)
        size_bytes = wire_bytes(event)
        if self._inline_bytes + size_bytes > MAX_INLINE_BYTES:
            event = await self._chunk_by_url(data)
        else:
            self._inline_bytes += size_bytes
        self.sent += 1
        await self._emit(event)

    async def _chunk_by_url(self, data: bytes) -> JsonObject:
        path = f"{self._path}.{self.sent}"
        await self.objects.put_object(path, data, content_type=content_type(self._format))
        return {"event": "audio", "seq": self.sent, **await signed(self.objects, path)}


def inline_chunk(seq: int, data: bytes) -> JsonObject:
    return {"event": "audio", "seq": seq, "audio_base64": base64.b64encode(data).decode()}


async def signed(objects: Objects, path: str) -> JsonObject:
    """The fields under which a result or chunk tells where its audio lies."""
    address = asdict(await objects.object_url(path))
    return {"audio_url": address["url"], "expires_at": address["expires_at"]}


def refuse_above_inline(size_bytes: int) -> None:
    """raises  ResultTooLarge as soon as explicit `inline` cannot hold the audio"""
    if size_bytes > MAX_INLINE_BYTES // 4 * 3:
        raise ResultTooLarge(
            f"the audio exceeds the {MAX_INLINE_BYTES // 4 * 3} bytes that one job returns inline; "
            'use "output": "url", a smaller format, or a shorter text'
        )


async def tell(
    request: Synthesize, result: JsonObject, audio: bytes, *, chunks: ChunkStream, kept_at: str | None, path: str
) -> JsonObject:
    """The result with its audio in the way the request wants it, as one event that RunPod takes.

    chunks   a stream's, already sent; or the parts of a whole file too large for one event
    kept_at  object path of the audio; None if the store did not take it, which the result says already
    path     under which what else becomes an object is kept
    raises   ResultTooLarge; StoreUnavailable if audio that is too large to be sent has no address either
    """
    objects = chunks.objects
    if not request.streaming and request.output != "url" and (inlined := _in_one_event(result, audio)):
        return inlined
    if request.output == "url" or (request.output == "auto" and not request.streaming):
        result = await _addressed(result, objects, kept_at)
    if not request.streaming and "audio_url" not in result:
        if inlined := _in_one_event(result, audio):
            return inlined
        _refuse_to_send(request, len(audio))
        await chunks.send(audio)
    if chunks.sent:
        result = {"event": "done", "chunks": chunks.sent} | result
    return await _fitted(result, objects, path=path)


def _in_one_event(result: JsonObject, audio: bytes) -> JsonObject | None:
    if len(audio) > MAX_CHUNK_BYTES:
        return None
    inlined = result | {"audio_base64": base64.b64encode(audio).decode()}
    return inlined if wire_bytes(inlined) <= MAX_YIELD_BYTES else None


def _refuse_to_send(request: Synthesize, size_bytes: int) -> None:
    if request.output == "inline":
        refuse_above_inline(size_bytes)
    if size_bytes > MAX_INLINE_BYTES // 4 * 3:
        raise StoreUnavailable("the store did not take the audio, which is too large to be returned without it")


async def _addressed(result: JsonObject, objects: Objects, kept_at: str | None) -> JsonObject:
    """The result with the address of its audio, or with a warning that there is none."""
    if kept_at is None:
        return result
    try:
        return result | await signed(objects, kept_at)
    except (StoreUnavailable, KeyError):
        return _warned(result, "audio_url_missing", "the store gave no address of the audio")


async def _fitted(result: JsonObject, objects: Objects, *, path: str) -> JsonObject:
    """Alignments too large for one event become an object; then a text too large is left out."""
    if result.get("alignments") and wire_bytes(result) > MAX_YIELD_BYTES:
        result = await _alignments_aside(result, objects, f"{path}.json")
    if wire_bytes(result) > MAX_YIELD_BYTES:
        result = _warned(result, "text_omitted", "the text is too large to be repeated in the result") | {"text": None}
    return result


async def _alignments_aside(result: JsonObject, objects: Objects, path: str) -> JsonObject:
    data = json.dumps(result["alignments"], ensure_ascii=False).encode()
    try:
        await objects.put_object(path, data, content_type="application/json")
        address = await objects.object_url(path)
    except StoreUnavailable:
        message = "the store did not take the alignments, which are too large for the result"
        return _warned(result, "alignments_omitted", message) | {"alignments": None}
    return result | {"alignments": None, "alignments_url": address.url}


def _warned(result: JsonObject, code: str, message: str) -> JsonObject:
    return result | {"warnings": [*result["warnings"], {"code": code, "message": message}]}
