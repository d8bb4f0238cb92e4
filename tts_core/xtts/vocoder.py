"""Latents in, waveform out, in windows that joined equal the whole, several utterances in one pass.

A window is cut with enough frames of context each side that no sample of it can differ from decoding all latents at
once. The cost is linear in the length, where decoding from the start for every chunk is quadratic.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

CONTEXT_FRAMES = 14
"""Frames of 256 samples that a sample's value can depend on, each side. Source: reference measurement, 12 are
exact; in theory 3 (first convolution) + 1 + 60/8 + 60/64 + 60/128 + 60/256 (residual blocks) = 12.9."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What one window needs.

    latents    [stop, width] float32, of the utterance from its first code on
    start      codes whose window was decoded before
    last       nothing follows, so nothing waits for its right side
    embedding  [512] float32
    speed      2.0 takes half as long; stretches the latents, as coqui does
    """

    latents: Tensor
    start: int
    last: bool
    embedding: Tensor
    speed: float


class Vocoder:
    """HiFi-GAN over windows."""

    def __init__(self, decoder: HifiDecoder, *, length_multiple: int = 1, max_together: int = 8) -> None:
        """How windows share passes.

        length_multiple  frames that windows are widened to, so that more of them are of one length
        max_together     windows in one pass; 1 on a CPU, where a pass of several costs more than several passes
        """
        self._decoder = decoder
        self._multiple = length_multiple
        self._max_together = max_together
        self._hop = int(decoder.output_hop_length)
        self._upsampling = (
            decoder.ar_mel_length_compression / decoder.output_hop_length,
            decoder.output_sample_rate / decoder.input_sample_rate,
        )

    @torch.inference_mode()
    def decode(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """One waveform per piece: [samples] float32 at the output rate; possibly none."""
        cuts = [self._cut(piece) for piece in pieces]
        groups: dict[int, list[int]] = defaultdict(list)
        for number, cut in enumerate(cuts):
            if cut.stop > cut.start:
                groups[cut.frames.shape[1]].append(number)
        waves = [piece.latents.new_zeros(0) for piece in pieces]
        for numbers in self._passes(groups.values()):
            frames = torch.stack([cuts[number].frames for number in numbers])
            embeddings = torch.stack([pieces[number].embedding for number in numbers])[:, :, None]
            batch = self._decoder.waveform_decoder(frames, g=embeddings)[:, 0]
            for wave, number in zip(batch, numbers, strict=True):
                waves[number] = wave[cuts[number].start * self._hop : cuts[number].stop * self._hop]
        return waves

    def _passes(self, groups: Iterable[list[int]]) -> Iterator[list[int]]:
        for numbers in groups:
            for start in range(0, len(numbers), self._max_together):
                yield numbers[start : start + self._max_together]

    def _cut(self, piece: Piece) -> "_Cut":
        scales = (1.0 / piece.speed, *self._upsampling)
        frames = piece.latents.T
        for scale in scales:
            frames = stretched(frames, scale)
        start = _decoded_frames(piece.start, scales)
        stop = frames.shape[1] if piece.last else max(start, _decoded_frames(len(piece.latents), scales))
        end = frames.shape[1] if piece.last else stop + CONTEXT_FRAMES
        first = max(0, start - CONTEXT_FRAMES)
        first = max(0, first - (first - end) % self._multiple)
        return _Cut(frames[:, first:end], start - first, stop - first)


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """frames [width, n] with context; start..stop are those to be heard"""

    frames: Tensor
    start: int
    stop: int


def _decoded_frames(codes: int, scales: Sequence[float]) -> int:
    """Frames that are final, context included, once so many codes are known and more may follow."""
    settled = codes
    for scale in scales:
        settled = settled_outputs(settled, scale)
    return max(0, settled - CONTEXT_FRAMES)


def stretched(values: Tensor, scale: float) -> Tensor:
    """Linear interpolation of [..., n] to [..., n * scale], at least one.

    What `interpolate(values, scale_factor=scale, mode="linear")` makes, down to its rounding of positions to float32;
    except that it copies where both lengths are equal (8 codes at speed 0.95), and stretches a longer utterance.
    """
    if scale == 1.0:
        return values
    last = values.shape[-1] - 1
    outputs = torch.arange(max(1, int(values.shape[-1] * scale)), dtype=torch.float64, device=values.device)
    step = torch.tensor(1.0 / scale, dtype=torch.float32, device=values.device).double()
    positions = ((outputs + 0.5) * step - 0.5).float().clamp(0, last)
    left = positions.long()
    share = positions - left
    return values[..., left] * (1 - share) + values[..., (left + 1).clamp(max=last)] * share


def settled_outputs(count: int, scale: float) -> int:
    """How many values of `stretched` no longer change when more than `count` inputs come.

    Output j lies at input (j + 0.5) / scale - 0.5 and needs the input on either side of it.
    """
    if scale == 1.0:
        return count
    return max(0, math.floor(scale * (count - 0.5) - 0.5))
