"""Our engine's parts one by one, for `decode`: the GPT in batches, the vocoder, and what a step must read at least."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch

from benchmarks.common import SLOTS, texts
from benchmarks.pair import SAMPLING, timed_s
from tts_core.xtts.engine import XttsEngine
from tts_core.xtts.runner import Flight, Runner
from tts_core.xtts.scheduler import MAX_PREFILL, Decode, Prefill
from tts_core.xtts.sequence import Sequence
from tts_core.xtts.vocoder import Piece

T = TypeVar("T")

COPY_BYTES = 1 << 30
"""Far more than any cache holds."""


@dataclass(frozen=True, slots=True)
class Timing:
    """
    codes      of each utterance
    prefill_s  of the total, until the first code of each is there; None where it is not told apart
    samples    of one utterance; None where there are none
    """

    codes: int
    total_s: float
    prefill_s: float | None = None
    samples: int | None = None


class Parts:
    """They run on the engine's own thread, which has nothing else to do then."""

    def __init__(self, engine: XttsEngine, *, codes: int, ids: Mapping[str, list[int]]) -> None:
        """ids: of each of TEXTS"""
        self._engine = engine
        self._codes = codes
        self._ids = ids
        self._voice = next(iter(engine.model.speakers.values()))
        slots = SLOTS[engine.gpt.device.type]
        self._runner = engine._device.call(lambda: Runner(engine.gpt, engine.model.vocoder, slots=slots)).result()

    async def prepare(self) -> None:
        """What the engine does while nobody speaks."""
        while await self._on_thread(self._runner.record_next):
            pass

    async def decode(self, batch: int) -> Timing:
        return await self._on_thread(lambda: self._decode(texts(batch)))

    async def vocode(self, latents: torch.Tensor, *, windows: int) -> Timing:
        """latents [codes, width]"""
        piece = Piece(latents, 0, True, self._voice.speaker_embedding.to(latents.device), 1.0)
        decode = self._engine.model.vocoder.decode
        total_s = await self._on_thread(lambda: timed_s(lambda: decode([piece] * windows), latents.device))
        return Timing(self._codes, total_s)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._engine._device.call(work))

    def _decode(self, spoken: Many[str]) -> Timing:
        sequences = [self._sequence(text, slot) for slot, text in enumerate(spoken)]
        started_s = time.perf_counter()
        for flight in [self._runner.launch(step) for step in prefills(sequences)]:
            land(flight)
        prefilled_s = time.perf_counter()
        flying: Flight | None = None
        for step in decodes(sequences, count=self._codes - 1):
            launched = self._runner.launch(step)
            if flying is not None:
                land(flying)
            flying = launched
        if flying is not None:
            land(flying)
        ended_s = time.perf_counter()
        assert all(len(sequence.codes) == self._codes for sequence in sequences), "not the codes asked for"
        return Timing(self._codes, ended_s - started_s, prefilled_s - started_s)

    def _sequence(self, text: str, slot: int) -> Sequence:
        return Sequence(
            tenant="",
            max_codes=self._codes,
            stop_code=self._engine.model.sizes.stop_code,
            slot=slot,
            text_ids=self._ids[text],
            voice=self._voice,
            sampling=SAMPLING,
        )


def prefills(sequences: Many[Sequence]) -> Iterator[Prefill]:
    for first in range(0, len(sequences), MAX_PREFILL):
        group = tuple(sequences[first : first + MAX_PREFILL])
        for sequence in group:
            sequence.launched = 1
        yield Prefill(group)


def decodes(sequences: Many[Sequence], *, count: int) -> Iterator[Decode]:
    for _ in range(count):
        for sequence in sequences:
            sequence.launched += 1
        yield Decode(tuple(sequences))


def land(flight: Flight) -> None:
    assert isinstance(flight.step, Prefill | Decode)
    for sequence, code in zip(flight.step.sequences, flight.codes(), strict=True):
        sequence.read(code)


def step_bytes(engine: XttsEngine, *, batch: int, positions: int) -> int:
    """What a step reads at least: all matrices once, keys and values of every utterance."""
    sizes, kept_bytes = engine.model.sizes, engine.gpt.keys.itemsize
    weights_bytes = sum(tensor.nbytes for name, tensor in engine.model.gpt.items() if "embedding" not in name)
    return weights_bytes + batch * 2 * sizes.layers * sizes.width * kept_bytes * positions


def copy_bandwidth_gb_s(device: torch.device, *, copy_bytes: int = COPY_BYTES) -> float:
    """Of a copy on the device: bytes read and bytes written."""
    source = torch.ones(copy_bytes, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return 2 * copy_bytes / median(timed_s(lambda: target.copy_(source), device) for _ in range(9)) / 1e9
