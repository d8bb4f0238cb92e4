"""Runs the scheduler's steps on the device; decides nothing, and no launch waits for an earlier one."""

from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import TypeVar

import torch
from torch import Tensor

from tts_core.types import FloatArray, Sampling
from tts_core.xtts.gpt import Gpt, prompt_positions
from tts_core.xtts.graphs import StepGraphs
from tts_core.xtts.hifigan import HOP
from tts_core.xtts.model import Voice
from tts_core.xtts.sampler import SamplingRows, draw, exponential_noise, scores_of
from tts_core.xtts.scheduler import Decode, Prefill, Step, Vocode, Window
from tts_core.xtts.sequence import Sequence
from tts_core.xtts.vocoder import Piece, Vocoder

T = TypeVar("T")

FAKE_TEXT_ID = 1
"""The reference's repetition penalty sees the prompt as text id 1 repeated, then START: both count as said."""

PREFIX_BYTES = 256 << 20
"""Of keys and values of voices that are kept: in half precision 68 of them."""


class Flight:
    """A launched step; `codes` and `waves` wait for it."""

    def __init__(self, step: Step, *, codes: Tensor | None = None, waves: Many[Tensor] = ()) -> None:
        """As they are on the device: codes [n] of n sequences, or the samples of each window."""
        self.step = step
        self._codes, self._waves = codes, waves
        self._landed: torch.cuda.Event | None = None
        if codes is not None and codes.is_cuda:
            host = torch.empty(codes.shape, dtype=codes.dtype, pin_memory=True)
            self._codes = host.copy_(codes, non_blocking=True)
            self._landed = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._landed.record()

    @property
    def has_landed(self) -> bool:
        """What was launched on a CPU is done; there is nothing to wait for."""
        return self._landed is None and not any(wave.is_cuda for wave in self._waves)

    def codes(self) -> list[int]:
        """One for each sequence of a Prefill or Decode."""
        if self._landed is not None:
            self._landed.synchronize()
        return [] if self._codes is None else self._codes.tolist()

    def waves(self) -> list[FloatArray]:
        """One for each window of a Vocode."""
        return [wave.float().cpu().numpy() for wave in self._waves]


class Runner:
    """The state of every slot, on the device."""

    def __init__(self, gpt: Gpt, vocoder: Vocoder, *, slots: int) -> None:
        sizes, device = gpt.sizes, gpt.device
        self._gpt = gpt
        self._vocoder = vocoder
        self._prefixes: dict[bytes, tuple[Tensor, Tensor]] = {}
        # Free slots are decoded along with the others: they may be drawn from before anybody has set them.
        self._sampling = SamplingRows.of([Sampling()] * slots, device)
        self._codes = torch.zeros(slots, dtype=torch.int64, device=device)
        self._counts = torch.zeros(slots, dtype=torch.int64, device=device)
        self._lengths = torch.zeros(slots, dtype=torch.int64, device=device)
        self._seen = torch.zeros(slots, sizes.codes, dtype=torch.bool, device=device)
        self._latents = torch.zeros(slots, sizes.max_codes, sizes.width, device=device)
        self._graphs = StepGraphs(self._decode_rows, device=device, slots=slots, max_positions=sizes.max_positions)

    def record_next(self) -> bool:
        """Make later decode steps faster, while no slot is in use; False if there is nothing left to do."""
        return self._graphs.record_next()

    def launch(self, step: Step) -> Flight:
        """raises  torch.OutOfMemoryError if not even one sequence of it fits"""
        match step:
            case Prefill(sequences):
                return Flight(step, codes=torch.cat(_in_parts(self._prefill, sequences)))
            case Decode(sequences):
                return Flight(step, codes=self._decode(sequences))
            case Vocode(windows):
                return Flight(step, waves=_in_parts(self._vocode, windows))

    def detach(self, sequence: Sequence, slot: int) -> None:
        """Keep the latents of a sequence that has just ended: its slot is about to be another's."""
        sequence.latents = self._latents[slot, : len(sequence.codes)].clone()

    def wash(self, slots: Many[int]) -> None:
        """Clear what a failed step may have left: a value that is not finite spoils sums even where it is masked."""
        self._gpt.keys[:, list(slots)] = 0
        self._gpt.values[:, list(slots)] = 0

    @torch.inference_mode()
    def _prefill(self, sequences: Many[Sequence]) -> list[Tensor]:
        slots = [_slot(sequence) for sequence in sequences]
        for sequence, slot in zip(sequences, slots, strict=True):
            self._set_row(slot, sequence)
        prefixes = [self._prefix(sequence.voice) for sequence in sequences]
        latents, logits = self._gpt.prefill([sequence.text_ids for sequence in sequences], prefixes, slots)
        return [self._take(torch.tensor(slots, device=self._gpt.device), latents, logits)]

    @torch.inference_mode()
    def _decode(self, sequences: Many[Sequence]) -> Tensor:
        slots = [_slot(sequence) for sequence in sequences]
        longest = max(prompt_positions(sequence.text_ids) + sequence.launched for sequence in sequences)
        codes = self._graphs.run(max(slots) + 1, positions=longest)
        return codes[torch.tensor(slots, device=codes.device)]

    @torch.inference_mode()
    def _decode_rows(self, rows: int, span: int) -> Tensor:
        """One step for the slots 0..rows-1, on tensors that stay where they are: a graph can repeat it."""
        latents, logits = self._gpt.decode(
            self._codes[:rows], counts=self._counts[:rows], lengths=self._lengths[:rows], span=span
        )
        return self._take(torch.arange(rows, device=self._gpt.device), latents, logits)

    def _take(self, rows: Tensor, latents: Tensor, logits: Tensor) -> Tensor:
        """Draw a code for each of these slots and note what it changes; returns the codes."""
        places = self._counts[rows]
        self._latents[rows, places] = latents
        sampling = SamplingRows(*(column[rows] for column in self._sampling))
        noise = exponential_noise(sampling.seed, places, codes=logits.shape[1])
        codes = draw(scores_of(logits, seen=self._seen[rows], sampling=sampling), noise)
        self._codes[rows] = codes
        self._seen[rows, codes] = True
        # A free slot among the rows is decoded along with the others: it must not run out of its bounds.
        self._counts[rows] = (places + 1).clamp(max=self._gpt.sizes.max_codes - 1)
        self._lengths[rows] = (self._lengths[rows] + 1).clamp(max=self._gpt.sizes.max_positions - 1)
        return codes

    def _prefix(self, voice: Voice) -> tuple[Tensor, Tensor]:
        """Its keys and values, computed once per voice; those least recently used are dropped."""
        key = voice.gpt_latents.numpy().tobytes()
        kept = self._prefixes.pop(key, None)
        keys, values = self._prefixes[key] = kept or self._gpt.prefix(voice.gpt_latents)
        while len(self._prefixes) > 1 and len(self._prefixes) * (keys.nbytes + values.nbytes) > PREFIX_BYTES:
            del self._prefixes[next(iter(self._prefixes))]
        return keys, values

    def _set_row(self, slot: int, sequence: Sequence) -> None:
        for name, column in self._sampling._asdict().items():
            column[slot] = getattr(sequence.sampling, name)
        self._counts[slot] = 0
        self._lengths[slot] = prompt_positions(sequence.text_ids) - 1
        self._seen[slot] = False
        self._seen[slot, FAKE_TEXT_ID] = True
        self._seen[slot, self._gpt.sizes.start_code] = True

    def _vocode(self, windows: Many[Window]) -> list[Tensor]:
        waves = self._vocoder.decode([self._piece(window) for window in windows])
        for window, wave in zip(windows, waves, strict=True):
            window.sequence.frames += len(wave) // HOP
        return waves

    def _piece(self, window: Window) -> Piece:
        sequence = window.sequence
        latents = sequence.latents if sequence.latents is not None else self._latents[_slot(sequence)]
        embedding = sequence.voice.speaker_embedding.to(latents.device)
        return Piece(latents[: window.stop], sequence.frames, window.last, embedding, sequence.speed)


def _in_parts(work: Callable[[Many[T]], list[Tensor]], items: Many[T]) -> list[Tensor]:
    """All at once, or in halves where the device's memory does not do.

    Not for a decode: its memory is the slots' and was taken at the start.
    """
    try:
        return work(items)
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    torch.cuda.empty_cache()
    middle = len(items) // 2
    return _in_parts(work, items[:middle]) + _in_parts(work, items[middle:])


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot
