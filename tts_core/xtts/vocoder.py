"""Latents in, waveform out, piece by piece, and equal to decoding all of them at once."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

from tts_core.types import FloatArray

CONTEXT_FRAMES = 14
"""Frames of 256 samples that a sample's value can depend on, each side. Source: reference measurement, 12 are
exact; in theory 3 (first convolution) + 1 + 60/8 + 60/64 + 60/128 + 60/256 (residual blocks) = 12.9."""


class WindowedVocoder:
    """Decodes one utterance, whose latents are pushed as they come.

    What it returns, joined, is what `HifiDecoder.forward` makes of all latents together: each window is decoded
    with enough frames of context each side and cut. The cost is linear in the length, where decoding from the
    start for every chunk (coqui's `inference_stream`) is quadratic and wrong at the borders.
    """

    def __init__(self, decoder: HifiDecoder, *, speaker_embedding: Tensor, speed: float = 1.0) -> None:
        """How one speaker's latents are to be decoded.

        speaker_embedding  [1, 512, 1] float32
        speed              2.0 takes half as long; stretches the latents, as coqui does
        """
        self._decoder = decoder
        self._embedding = speaker_embedding
        scales = (
            1.0 / speed,
            decoder.ar_mel_length_compression / decoder.output_hop_length,
            decoder.output_sample_rate / decoder.input_sample_rate,
        )
        self._scales = [scale for scale in scales if scale != 1.0]
        self._latents: list[Tensor] = []
        self._decoded_frames = 0

    @torch.inference_mode()
    def push(self, latents: Sequence[Tensor], *, last: bool = False) -> FloatArray:
        """The samples that these latents settle: all but those of the last 14 frames, which wait for their right side.

        latents  rows [1, dim] float32, one per code; none only if `last`
        last     nothing follows, so nothing waits
        returns  [samples] float32 at 24 kHz; possibly none
        """
        self._latents += latents
        frames = self._frames()
        if last:
            return self._decode(frames, until=frames.shape[2])
        settled = len(self._latents)
        for scale in self._scales:
            settled = settled_outputs(settled, scale)
        return self._decode(frames[:, :, :settled], until=settled - CONTEXT_FRAMES)

    def _decode(self, frames: Tensor, *, until: int) -> FloatArray:
        """From the last frame decoded on; `frames` [1, dim, n] beyond `until` are context."""
        start, stop = self._decoded_frames, max(until, self._decoded_frames)
        first = max(0, start - CONTEXT_FRAMES)
        hop = self._decoder.output_hop_length
        if stop == start:
            return np.zeros(0, dtype=np.float32)
        wave = self._decoder.waveform_decoder(frames[:, :, first:], g=self._embedding)[0, 0]
        self._decoded_frames = stop
        samples: FloatArray = wave[(start - first) * hop : (stop - first) * hop].cpu().numpy()
        return samples

    def _frames(self) -> Tensor:
        """[1, dim, frames], from the first latent on every time, so that positions are those of the whole.

        Costs next to nothing beside the convolutions: 600 codes are 2,600 frames.
        """
        frames = torch.cat(self._latents).T[None]
        for scale in self._scales:
            frames = stretched(frames, scale)
        return frames


def stretched(values: Tensor, scale: float) -> Tensor:
    """Linear interpolation of [..., n] to [..., n * scale], at least one.

    What `interpolate(values, scale_factor=scale, mode="linear")` makes, down to its rounding of positions to float32;
    except that it copies where both lengths are equal (8 codes at speed 0.95), and stretches a longer utterance.
    """
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
    return max(0, math.floor(scale * (count - 0.5) - 0.5))
