"""Runs the scheduler's steps on the device; decides nothing, and no launch waits for an earlier one."""

from collections import OrderedDict
from collections.abc import Sequence as Many

import torch
from torch import Tensor

from tts_core.types import FloatArray
from tts_core.xtts.gpt import Gpt, prompt_positions
from tts_core.xtts.graphs import StepGraphs
from tts_core.xtts.hifigan import HOP
from tts_core.xtts.model import Voice
from tts_core.xtts.sampler import SamplingRows, draw, exponential_noise, scores_of
from tts_core.xtts.scheduler import Decode, Prefill, Step, Vocode, Window
from tts_core.xtts.sequence import Sequence
from tts_core.xtts.vocoder import Piece, Vocoder

FAKE_TEXT_ID = 1
"""The reference's repetition penalty sees the prompt as text id 1 repeated, then START: both count as said."""

SPANS = (128, 192, 256, 384, 512, 768)
"""KV positions that attention may look at, besides all of them: few, so that each can be a graph."""


GRAPH_ROWS = (1, 2, 4, 8, 16, 32, 64)


class Flight:
    """A launched step; `result` waits for it."""

    def __init__(self, step: Step, *, codes: Tensor | None = None, waves: Many[Tensor] = ()) -> None:
        self.step = step
        self._codes = codes
        self._waves = waves
        self._landed = torch.cuda.Event() if codes is not None and codes.is_pinned() else None  # type: ignore[no-untyped-call]
        if self._landed is not None:
            self._landed.record()

    @classmethod
    def joined(cls, step: Step, parts: Many["Flight"]) -> "Flight":
        """Of a step that was launched in parts, all of which have landed."""
        codes = torch.tensor([code for part in parts for code in part.codes()])
        return cls(step, codes=codes, waves=[wave for part in parts for wave in part._waves])

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


class VoicePrefixes:
    """Keys and values of the 32 prefix positions, once per voice, the least recently used ones dropped."""

    def __init__(self, gpt: Gpt, *, max_bytes: int) -> None:
        self._gpt = gpt
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, tuple[Tensor, Tensor]] = OrderedDict()

    def of(self, voice: Voice) -> tuple[Tensor, Tensor]:
        key = voice.gpt_latents.numpy().tobytes()
        if key not in self._kept:
            self._kept[key] = self._gpt.prefix(voice.gpt_latents)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(k.nbytes + v.nbytes for k, v in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)
        return self._kept[key]


class Runner:
    """The state of every slot, on the device."""

    def __init__(self, gpt: Gpt, vocoder: Vocoder, *, slots: int, prefix_bytes: int = 256 << 20) -> None:
        sizes, device = gpt.sizes, gpt.device
        self._gpt = gpt
        self._vocoder = vocoder
        self._prefixes = VoicePrefixes(gpt, max_bytes=prefix_bytes)
        self._slots = slots
        self._rows = SamplingRows.empty(slots, device)
        self._codes = torch.zeros(slots, dtype=torch.int64, device=device)
        self._counts = torch.zeros(slots, dtype=torch.int64, device=device)
        self._lengths = torch.zeros(slots, dtype=torch.int64, device=device)
        self._seen = torch.zeros(slots, sizes.codes, dtype=torch.bool, device=device)
        self._latents = torch.zeros(slots, sizes.max_codes, sizes.width, device=device)
        spans = [self._span(positions) for positions in (*SPANS, sizes.max_positions)]
        by_rows = [(min(rows, slots), span) for rows in GRAPH_ROWS for span in spans]
        self._graphs = StepGraphs(self._decode_rows, device=device, sizes=dict.fromkeys(by_rows))

    def record_next(self) -> bool:
        """Make later decode steps faster, while no slot is in use; False if there is nothing left to do."""
        return self._graphs.record_next()

    def launch(self, step: Step) -> Flight:
        """Where the device's memory does not do, the step is launched in halves.

        raises  torch.OutOfMemoryError if not even one sequence of it fits
        """
        try:
            return self._launch(step)
        except torch.OutOfMemoryError:
            halves = _halves(step)
            if len(halves) == 1:
                raise
        torch.cuda.empty_cache()
        flights = [self.launch(half) for half in halves]
        return Flight.joined(step, flights)

    def _launch(self, step: Step) -> Flight:
        match step:
            case Prefill():
                return Flight(step, codes=self._to_host(self._prefill(step)))
            case Decode():
                return Flight(step, codes=self._to_host(self._decode(step)))
            case Vocode():
                return Flight(step, waves=self._vocode(step))

    def detach(self, sequence: Sequence, slot: int) -> None:
        """Keep the latents of a sequence that has just ended: its slot is about to be another's."""
        sequence.latents = self._latents[slot, : len(sequence.codes)].clone()

    def wash(self, slots: Many[int]) -> None:
        """Clear what a failed step may have left: a value that is not finite spoils sums even where it is masked."""
        self._gpt.keys[:, list(slots)] = 0
        self._gpt.values[:, list(slots)] = 0

    @torch.inference_mode()
    def _prefill(self, step: Prefill) -> Tensor:
        slots = [_slot(sequence) for sequence in step.sequences]
        for sequence, slot in zip(step.sequences, slots, strict=True):
            self._set_row(slot, sequence)
        prefixes = [self._prefixes.of(sequence.voice) for sequence in step.sequences]
        latents, logits = self._gpt.prefill([sequence.text_ids for sequence in step.sequences], prefixes, slots)
        return self._take(torch.tensor(slots, device=self._gpt.device), latents, logits)

    @torch.inference_mode()
    def _decode(self, step: Decode) -> Tensor:
        slots = [_slot(sequence) for sequence in step.sequences]
        longest = max(prompt_positions(sequence.text_ids) + sequence.launched for sequence in step.sequences)
        codes = self._graphs.run(self._graphs.rows_for(max(slots) + 1), self._span(longest))
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
        sampling = SamplingRows(*(getattr(self._rows, name)[rows] for name in SamplingRows.__slots__))
        noise = exponential_noise(sampling.seed, places, codes=logits.shape[1])
        codes = draw(scores_of(logits, seen=self._seen[rows], sampling=sampling), noise)
        self._codes[rows] = codes
        self._seen[rows, codes] = True
        # A free slot among the rows is decoded along with the others: it must not run out of its bounds.
        self._counts[rows] = (places + 1).clamp(max=self._gpt.sizes.max_codes - 1)
        self._lengths[rows] = (self._lengths[rows] + 1).clamp(max=self._gpt.sizes.max_positions - 1)
        return codes

    def _set_row(self, slot: int, sequence: Sequence) -> None:
        sampling, rows = sequence.sampling, self._rows
        rows.temperature[slot], rows.top_p[slot] = sampling.temperature, sampling.top_p
        rows.top_k[slot], rows.seed[slot] = sampling.top_k, sampling.seed
        rows.repetition_penalty[slot] = sampling.repetition_penalty
        self._counts[slot] = 0
        self._lengths[slot] = prompt_positions(sequence.text_ids) - 1
        self._seen[slot] = False
        self._seen[slot, FAKE_TEXT_ID] = True
        self._seen[slot, self._gpt.sizes.start_code] = True

    def _vocode(self, step: Vocode) -> list[Tensor]:
        waves = self._vocoder.decode([self._piece(window) for window in step.windows])
        for window, wave in zip(step.windows, waves, strict=True):
            window.sequence.frames += len(wave) // HOP
        return waves

    def _piece(self, window: Window) -> Piece:
        sequence = window.sequence
        latents = sequence.latents if sequence.latents is not None else self._latents[_slot(sequence)]
        embedding = sequence.voice.speaker_embedding.to(latents.device)
        return Piece(latents[: window.stop], sequence.frames, window.last, embedding, sequence.speed)

    def _span(self, positions: int) -> int:
        return next((span for span in SPANS if span >= positions), self._gpt.sizes.max_positions)

    def _to_host(self, codes: Tensor) -> Tensor:
        if not codes.is_cuda:
            return codes
        host = torch.empty(codes.shape, dtype=codes.dtype, pin_memory=True)
        return host.copy_(codes, non_blocking=True)


def _halves(step: Step) -> tuple[Step, ...]:
    """What can be done apart; a decode cannot: its memory is the slots' and was taken at the start."""
    if isinstance(step, Prefill) and len(step.sequences) > 1:
        middle = len(step.sequences) // 2
        return Prefill(step.sequences[:middle]), Prefill(step.sequences[middle:])
    if isinstance(step, Vocode) and len(step.windows) > 1:
        middle = len(step.windows) // 2
        return Vocode(step.windows[:middle]), Vocode(step.windows[middle:])
    return (step,)


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None
    return sequence.slot
