"""The events of a job become one file, in whichever of the wire's ways the audio comes."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable

from tts_core.batch.failures import LineFailed
from tts_core.batch.part import ALIGNMENTS, Part
from tts_core.jobs import JsonObject

Fetch = Callable[[str, Part], Awaitable[None]]
"""Append what lies at an address to the part. raises LineFailed"""


class Assembly:
    """Takes the events of one job in order, and knows what is missing.

    fetch  reads the addresses that events name instead of holding the audio
    """

    def __init__(self, part: Part, fetch: Fetch) -> None:
        self._part = part
        self._fetch = fetch
        self._chunks = 0
        self._result: JsonObject | None = None

    async def take(self, event: object) -> None:
        """raises  LineFailed if this event is an error, or not the one that follows"""
        if not isinstance(event, dict):
            raise LineFailed.ours("result_incomplete", f"the result holds {type(event).__name__}, no event")
        match event.get("event", "done"):
            case "audio":
                await self._next_chunk(event)
            case "done" if "error" in event:
                raise LineFailed.told(event["error"])
            case "done":
                await self._append(event)
                self._result = event

    async def finish(self) -> JsonObject:
        """The result, all of whose audio is in the part by now. raises LineFailed"""
        result = self._result
        if result is None or result.get("status") != "success":
            raise LineFailed.ours("result_incomplete", "the job ended without a result")
        if result.get("chunks", 0) != self._chunks:
            raise LineFailed.ours("result_incomplete", f"{self._chunks} of {result.get('chunks')} chunks came")
        if not self._part.size_bytes:
            raise LineFailed.ours("result_incomplete", "the result holds no audio")
        if result.get("alignments"):
            told = json.dumps(result["alignments"], ensure_ascii=False).encode()
            await asyncio.to_thread(self._part.beside, ALIGNMENTS, told)
        return result

    async def _next_chunk(self, event: JsonObject) -> None:
        if event.get("seq") != self._chunks:
            raise LineFailed.ours("result_incomplete", f"chunk {event.get('seq')} came instead of {self._chunks}")
        self._chunks += 1
        await self._append(event)

    async def _append(self, event: JsonObject) -> None:
        if encoded := event.get("audio_base64"):
            await asyncio.to_thread(self._part.write, _decoded(encoded))
        elif address := event.get("audio_url"):
            await self._fetch(address, self._part)


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as exc:
        raise LineFailed.ours("result_incomplete", "a chunk is no base64") from exc
