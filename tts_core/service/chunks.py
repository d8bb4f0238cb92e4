"""Long texts in chunks, which are kept as they are spoken: a later attempt goes on behind what an earlier one finished.

Both attempts read the same plan through the same synthesizer, which asks here instead of the engine for each
utterance. So what comes out is the same audio, sample for sample, whoever spoke which part of it.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Self

import numpy as np

from tts_core.audio.samples import pack, unpack
from tts_core.errors import StoreUnavailable
from tts_core.service.clerk import Clerk
from tts_core.speech import SpeechEngine
from tts_core.store import ChunkRow, ChunkSpeech, NewChunk, Reserved, Store
from tts_core.text import xtts_char_limit
from tts_core.types import Audience, AudioChunk, Language, Manner, Quality, Utterance, WordTiming

CHUNK_CHARS = 600
"""Of English; about 40 s of speech, which are 4 MB of samples at 24 kHz. What a killed worker loses is one chunk."""

MIN_CHUNKS = 3
"""A text of fewer is not long: to speak it again is cheaper than to keep its parts."""

EXCERPT_CHARS = 80


def divide(plan: Sequence[Utterance], *, language: Language) -> Sequence[range]:
    """The utterances of each chunk of a long text; () for one that is not long."""
    limit = round(CHUNK_CHARS * xtts_char_limit(language) / xtts_char_limit("en"))
    starts, chars = [0], 0
    for index, utterance in enumerate(plan):
        if chars and chars + len(utterance.text) > limit:
            starts.append(index)
            chars = 0
        chars += len(utterance.text)
    ends = [*starts[1:], len(plan)]
    return [range(*span) for span in zip(starts, ends, strict=True)] if len(starts) >= MIN_CHUNKS else ()


def new_chunks(plan: Sequence[Utterance], manner: Manner, engine: SpeechEngine, *, path: str) -> Sequence[NewChunk]:
    """The chunks of a plan; () if it is not long. path: how those of their objects begin"""
    how = _fingerprint_of(manner, engine)
    return [
        NewChunk(
            text_excerpt=plan[utterances.start].text[:EXCERPT_CHARS],
            fingerprint=_sha256([how, *(plan[index].text for index in utterances)]),
            object_path=f"{path}.chunk{number:04}",
        )
        for number, utterances in enumerate(divide(plan, language=manner.language))
    ]


def _fingerprint_of(manner: Manner, engine: SpeechEngine) -> str:
    """Of all that decides how a text sounds, besides the text."""
    arrays = {name: _sha256([array.tobytes().hex()]) for name, array in manner.speaker.conditioning.items()}
    made_by = [engine.name, engine.revision, engine.sample_rate_hz]
    spoken_as = [manner.speaker.builtin, arrays, manner.language, manner.speed, asdict(manner.sampling)]
    return _sha256([*made_by, *spoken_as])


def _sha256(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(slots=True, eq=False)
class _Chunk:
    """takes: of its utterances, by their index, as far as the engine has spoken them to the end"""

    row: ChunkRow
    utterances: range
    takes: dict[int, AudioChunk] = field(default_factory=dict)
    found: asyncio.Task[Mapping[int, AudioChunk]] | None = None
    is_claimed: bool = False


class Chunks:
    """Speaks for one attempt as the engine would. A context around everything that is spoken.

    rows  of the plan's chunks, as they are when the attempt begins
    """

    def __init__(
        self,
        engine: SpeechEngine,
        store: Store,
        reserved: Reserved,
        *,
        plan: Sequence[Utterance],
        language: Language,
        rows: Sequence[ChunkRow],
    ) -> None:
        self._engine = engine
        self._store = store
        self._reserved = reserved
        self._index = {utterance: index for index, utterance in enumerate(plan)}
        chunks = [_Chunk(row, span) for row, span in zip(rows, divide(plan, language=language), strict=True)]
        self._chunk_of = {index: chunk for chunk in chunks for index in chunk.utterances}

    async def __aenter__(self) -> Self:
        self._clerk = Clerk(self._store, self._reserved)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self._clerk.leave(has_failed=kind is not None and issubclass(kind, Exception))
        loading = [chunk.found for chunk in self._chunk_of.values() if chunk.found is not None]
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)

    def is_paid(self, index: int) -> bool:
        """Whether an earlier attempt was charged for the utterance."""
        return self._chunk_of[index].row.is_paid

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        """See SpeechEngine. What is known is one piece; how speech is cut into pieces is nowhere heard."""
        index = self._index[utterance]
        chunk = self._chunk_of[index]
        if (take := (await self._found(chunk)).get(index)) is not None:
            yield take
            return
        if not chunk.is_claimed and chunk.row.speech is None:
            chunk.is_claimed = True
            self._clerk.claim(chunk.row.index)
        pieces = []
        async with aclosing(self._engine.speak(utterance, manner, audience)) as stream:
            async for piece in stream:
                pieces.append(piece)
                yield piece
        chunk.takes[index] = _joined(pieces)

    async def heard(self, index: int) -> None:
        """The utterance was heard to its end, and so all before it: a chunk that ends here is kept."""
        chunk = self._chunk_of[index]
        if index != chunk.utterances[-1]:
            return
        takes, chunk.takes, chunk.found = chunk.takes, {}, None
        if chunk.is_claimed:
            await self._keep(chunk.row, [takes[index] for index in chunk.utterances])

    async def _keep(self, row: ChunkRow, takes: Sequence[AudioChunk]) -> None:
        rate_hz = self._engine.sample_rate_hz
        samples = np.concatenate([take.samples for take in takes])
        file = await asyncio.to_thread(pack, samples, rate_hz=rate_hz)
        alignment = json.dumps([_written(take) for take in takes])
        duration_s = len(samples) / rate_hz
        self._clerk.keep(row.index, row.object_path, file=file, duration_s=duration_s, alignment=alignment)

    async def _found(self, chunk: _Chunk) -> Mapping[int, AudioChunk]:
        """What an earlier attempt has spoken of a chunk; nothing if it has not finished it, or it cannot be had."""
        if chunk.row.speech is None:
            return {}
        if chunk.found is None:
            chunk.found = asyncio.create_task(self._load(chunk, chunk.row.speech))
        return await asyncio.shield(chunk.found)

    async def _load(self, chunk: _Chunk, speech: ChunkSpeech) -> Mapping[int, AudioChunk]:
        try:
            file = await self._store.get_object(chunk.row.object_path)
        except (KeyError, StoreUnavailable):
            return {}
        if await asyncio.to_thread(lambda: hashlib.sha256(file).hexdigest()) != speech.sha256:
            return {}
        return dict(zip(chunk.utterances, _read(file, speech.alignment), strict=True))


def _joined(pieces: Sequence[AudioChunk]) -> AudioChunk:
    samples = np.concatenate([np.zeros(0, np.float32), *(piece.samples for piece in pieces)])
    words = tuple(word for piece in pieces for word in piece.words)
    return AudioChunk(samples, words, next((piece.quality for piece in pieces if piece.quality is not None), None))


def _written(take: AudioChunk) -> dict[str, object]:
    return {
        "samples": len(take.samples),
        "words": [[word.start_s, word.end_s, word.start, word.end] for word in take.words],
        "quality": take.quality and asdict(take.quality),
    }


def _read(file: bytes, alignment: str) -> Iterator[AudioChunk]:
    samples = unpack(file)
    for take in json.loads(alignment):
        quality = take["quality"] and Quality(**take["quality"])
        words = tuple(WordTiming(*word) for word in take["words"])
        yield AudioChunk(samples[: take["samples"]], words, quality)
        samples = samples[take["samples"] :]
