"""How audio and results leave within what RunPod takes (DESIGN section 3).

RunPod appends every yield of a job to one aggregate and drops in silence what is too large, so every event is
measured as the JSON it becomes.
"""

import base64
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, cast

from tts_core.audio.encode import content_type, seal
from tts_core.errors import ResultTooLarge
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


class Recording:
    """The encoded audio of one request, in a temporary file: it can be larger than memory should hold."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self.format = audio_format
        self.size_bytes = 0
        self._file = tempfile.NamedTemporaryFile(prefix="xtts-")  # noqa: SIM115  closed by `close`

    @property
    def path(self) -> Path:
        self._file.flush()
        return Path(self._file.name)

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size_bytes += len(data)

    def seal(self) -> None:
        """Give the finished file the exact sizes that a stream's header cannot have."""
        seal(cast(BinaryIO, self._file), self.format)

    def close(self) -> None:
        self._file.close()


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


async def tell(request: Synthesize, result: JsonObject, audio: bytes, *, chunks: ChunkStream, path: str) -> JsonObject:
    """The result with its audio in the way the request wants it, as one event that RunPod takes.

    chunks  a stream's, already sent; or the parts of a whole file too large for one event
    path    object path under which the audio is kept
    """
    objects = chunks.objects
    if not request.streaming and request.output != "url":
        inlined = result | {"audio_base64": base64.b64encode(audio).decode()}
        if wire_bytes(inlined) <= MAX_YIELD_BYTES:
            return inlined
        if request.output == "inline":
            refuse_above_inline(len(audio))
            await chunks.send(audio)
    if chunks.sent:
        result = {"event": "done", "chunks": chunks.sent} | result
    if request.output == "url" or not chunks.sent:
        result = result | await signed(objects, path)
    return await _fitted(result, objects, path=path)


async def _fitted(result: JsonObject, objects: Objects, *, path: str) -> JsonObject:
    """Alignments too large for one event become an object; then a text too large is left out."""
    if result.get("alignments") and wire_bytes(result) > MAX_YIELD_BYTES:
        data = json.dumps(result["alignments"], ensure_ascii=False).encode()
        await objects.put_object(f"{path}.json", data, content_type="application/json")
        address = await objects.object_url(f"{path}.json")
        result = result | {"alignments": None, "alignments_url": address.url}
    if wire_bytes(result) > MAX_YIELD_BYTES:
        warning = {"code": "text_omitted", "message": "the text is too large to be repeated in the result"}
        result = result | {"text": None, "warnings": [*result["warnings"], warning]}
    return result
