"""Latents in, waveform out, in windows that joined equal the whole, several utterances in one pass.

A window is cut with enough frames of context each side that no sample of it can differ from decoding all latents at
once. The cost is linear in the length, where decoding from the start for every chunk is quadratic.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tts_core.xtts.hifigan import HOP, Generator

CONTEXT_FRAMES = 12
"""Frames of 256 samples that a sample's value can depend on, each side. In theory 3 (first convolution) + 1
(upsampling) + 60/8 + 60/64 + 60/128 + 60/256 (residual blocks) = 12.9; with 12 the difference is that of float32's
rounding, 2e-6, with 11 it is 1e-5."""

WINDOWS_FRAMES = (16, 48, 80, 112, 144, 176, 240, 304, 448, 640)
"""What a window may have without its context, up to 60 codes at half the speed: few lengths, so that several share a
pass, and libraries that choose or compile a kernel for each length do so seldom."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What one window needs.

    latents    [n, width] float32, of the utterance from its first code on
    start      frames of it that were decoded before
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
    """The generator over windows."""

    def __init__(self, generator: Generator, *, frames_per_latent: float, resampling: float) -> None:
        """
        frames_per_latent  at the model's own rate; 4
        resampling         output rate over the model's own; 24000 / 22050
        """
        self._generator = generator
        self._upsampling = (frames_per_latent, resampling)

    @torch.inference_mode()
    def decode(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """One waveform per piece: [HOP * frames] float32 at the output rate; possibly none."""
        cuts = [self._cut(piece) for piece in pieces]
        waves = [piece.latents.new_zeros(0) for piece in pieces]
        for numbers in self._passes(cuts):
            frames = torch.stack([cuts[number].frames for number in numbers])
            batch = self._generator(frames, torch.stack([pieces[number].embedding for number in numbers]))
            for wave, number in zip(batch, numbers, strict=True):
                waves[number] = wave[cuts[number].start * HOP : cuts[number].stop * HOP]
        return waves

    def _passes(self, cuts: Sequence["_Cut"]) -> list[list[int]]:
        """Windows of one length share a pass; not on a CPU, which gains nothing by it and would compile for each n."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        alone = self._generator.device.type == "cpu"
        for number, cut in enumerate(cuts):
            if cut.stop > cut.start:
                groups[cut.frames.shape[1], number if alone else 0].append(number)
        return list(groups.values())

    def _cut(self, piece: Piece) -> "_Cut":
        scales = (1.0 / piece.speed, *self._upsampling)
        frames, settled = piece.latents.T, len(piece.latents)
        for scale in scales:
            frames, settled = stretched(frames, scale), settled_outputs(settled, scale)
        end = frames.shape[1]
        if piece.last:
            return _between(frames, start=piece.start, stop=end, end=end)
        ready = settled - CONTEXT_FRAMES - piece.start
        stop = piece.start + max((length for length in WINDOWS_FRAMES if length <= ready), default=0)
        return _between(frames, start=piece.start, stop=stop, end=stop + CONTEXT_FRAMES)


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """frames [width, n] with context; start..stop are those to be heard"""

    frames: Tensor
    start: int
    stop: int


def _between(frames: Tensor, *, start: int, stop: int, end: int) -> _Cut:
    """start..stop of them in a window up to `end`, made longer to the left until it has a length of the list."""
    missing = min((length - (stop - start) for length in WINDOWS_FRAMES if length >= stop - start), default=0)
    first = max(0, start - missing - CONTEXT_FRAMES)
    return _Cut(frames[:, first:end], start - first, stop - first)


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
